"""Prometheus metrics. Labels take few values, whatever clients send: memory stays bounded.

Nothing is imported from `prometheus_client` before the first use: BentoML names the folder that its
processes share only when they start.
"""

import os
from functools import cache
from typing import Any

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@cache
def _counter(name: str, text: str, labels: tuple[str, ...]) -> Any:
    from prometheus_client import Counter

    return Counter(name, text, labels)


@cache
def _histogram(name: str, text: str, labels: tuple[str, ...]) -> Any:
    from prometheus_client import Histogram

    return Histogram(name, text, labels, buckets=_SECONDS)


def count_request(route: str, status: int, seconds: float) -> None:
    """Count a request that was answered.

    Args:
        route: One of the service's paths, `other` for all else.
        status: HTTP status.
        seconds: From the first byte read to the last one written.
    """
    _counter("qm9flow_requests", "Requests answered", ("route", "status")).labels(
        route, str(status)
    ).inc()
    _histogram("qm9flow_request_seconds", "Seconds to answer a request", ("route",)).labels(
        route
    ).observe(seconds)


def count_molecule(outcome: str) -> None:
    """Count a molecule.

    Args:
        outcome: `ok`, or the code of its error.
    """
    _counter("qm9flow_molecules", "Molecules by outcome", ("outcome",)).labels(outcome).inc()


def observe_seconds(step: str, seconds: float) -> None:
    """Note how long one step of a request took.

    Args:
        step: `geometry` (reading and embedding) or `prediction`.
        seconds: How long.
    """
    _histogram("qm9flow_step_seconds", "Seconds of one step of a request", ("step",)).labels(
        step
    ).observe(seconds)


def render() -> tuple[bytes, str]:
    """All metrics, of all processes of the service.

    Returns:
        The text and its content type.
    """
    import prometheus_client
    from prometheus_client import multiprocess

    registry = prometheus_client.REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST

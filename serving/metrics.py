"""Prometheus metrics. Labels take few values, whatever clients send: memory stays bounded.

Nothing is imported from `prometheus_client` before the first use: BentoML names the folder that its
processes share only when they start.
"""

import os
import threading
from functools import cache
from typing import Any

from qm9flow.inference.prediction import Domain
from serving.batching import Batch

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_PAIRS = (100, 400, 1_600, 6_400, 16_384, 65_536, 262_144, 1_048_576)
_SHARES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


_lock = threading.Lock()


@cache
def _made(kind: str, name: str, text: str, labels: tuple[str, ...], **options: Any) -> Any:
    import prometheus_client

    return getattr(prometheus_client, kind)(name, text, labels, **options)


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Any:
    with _lock:  # a name may be taken only once, and lanes run side by side
        return _made("Counter", name, text, labels)


def _histogram(
    name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = _SECONDS
) -> Any:
    with _lock:
        return _made("Histogram", name, text, labels, buckets=buckets)


def _gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Any:
    with _lock:
        return _made("Gauge", name, text, labels, multiprocess_mode="mostrecent")


def stay_in_memory() -> None:
    """Keep the metrics of a service of one process out of BentoML's folder of shared files.

    Those are memory-mapped: on a full disk, writing to one ends the process.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


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


def count_error(code: str) -> None:
    """Count a request that was refused or failed as a whole.

    Args:
        code: Of its error.
    """
    _counter("qm9flow_errors", "Requests refused or failed, by code", ("code",)).labels(code).inc()


def count_molecule(outcome: str) -> None:
    """Count a molecule.

    Args:
        outcome: `ok`, or the code of its error.
    """
    _counter("qm9flow_molecules", "Molecules by outcome", ("outcome",)).labels(outcome).inc()


def count_domain(domain: Domain) -> None:
    """Note how much a molecule is like those of the training: drift shows here.

    Args:
        domain: Of a prediction.
    """
    place = {True: "inside", False: "outside", None: "not judged"}[domain.is_inside]
    _counter(
        "qm9flow_domain",
        "Predicted molecules inside and outside the training's domain",
        ("domain",),
    ).labels(place).inc()
    if domain.score is not None:
        _histogram("qm9flow_domain_score", "Domain scores of molecules", buckets=_SHARES).observe(
            domain.score
        )


def count_swap(outcome: str) -> None:
    """Count a change of the model.

    Args:
        outcome: `ok`, or the code of what went wrong.
    """
    _counter("qm9flow_swaps", "Changes of the model, by outcome", ("outcome",)).labels(
        outcome
    ).inc()


def set_version(version: int | None) -> None:
    """Say what answers.

    Args:
        version: Its number in the registry; None for a model that is not from there.
    """
    _gauge("qm9flow_model_version", "Version that answers, 0 if not from a registry").set(
        version or 0
    )


def set_registry_answers(answers: bool) -> None:
    """Say whether the registry could be asked.

    Args:
        answers: Whether it answered last time.
    """
    _gauge("qm9flow_registry_answers", "Whether the registry answered when it was asked last").set(
        float(answers)
    )


def set_waiting(waiting: dict[str, int], requests: int) -> None:
    """Say how much waits.

    Args:
        waiting: Molecules, by what they wait for.
        requests: Under way.
    """
    for stage, number in waiting.items():
        _gauge("qm9flow_waiting_molecules", "Molecules that wait", ("stage",)).labels(stage).set(
            number
        )
    _gauge("qm9flow_requests_under_way", "Predictions under way or waiting").set(requests)


def observe_batch(batch: Batch) -> None:
    """Note a batch that the network computed.

    Args:
        batch: The batch.
    """
    _histogram("qm9flow_batch_molecules", "Molecules of a batch", buckets=_ITEMS).observe(
        batch.items
    )
    _histogram("qm9flow_batch_pairs", "Pairs of atoms of a batch", buckets=_PAIRS).observe(
        batch.cost
    )
    _histogram("qm9flow_wait_seconds", "Seconds that a batch's molecules waited").observe(
        batch.waited_s
    )


def observe_conformer(seconds: float) -> None:
    """Note how long RDKit took for one SMILES or mol block.

    Args:
        seconds: How long.
    """
    _histogram("qm9flow_conformer_seconds", "Seconds of RDKit for one molecule").observe(seconds)


def observe_seconds(step: str, seconds: float) -> None:
    """Note how long one step of a request took.

    Args:
        step: `geometry` (reading and embedding) or `prediction`.
        seconds: How long.
    """
    _histogram("qm9flow_step_seconds", "Seconds of one step of a request", ("step",)).labels(
        step
    ).observe(seconds)


def count_lost_log_line() -> None:
    """Count a line of the access log that could not be written."""
    _counter("qm9flow_lost_log_lines", "Lines of the access log that could not be written").inc()


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

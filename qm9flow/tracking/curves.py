"""A training's metrics, epoch by epoch, from its run to a table."""

import csv
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient

from qm9flow.errors import TrackingError
from qm9flow.tracking.stores import store_errors

_EACH_EPOCH = "train/loss"
"""A metric that every epoch of every training has."""
_BEST = "best/"

Curves = dict[int, dict[str, float]]


def fetch_curves(tracking_uri: str, run_id: str) -> Curves:
    """The metrics of a training's run, or of the final training in a study's run.

    The run of a model for other geometries than DFT's holds several trainings.

    Args:
        tracking_uri: The store that holds the run.
        run_id: The run.

    Returns:
        Values by epoch and name, in the epochs' order; names without the training's prefix, unless
        there are several.

    Raises:
        TrackingError: There is no such run, or it holds no training.
    """
    client = MlflowClient(tracking_uri)
    with store_errors(f"read run {run_id}"):
        names = list(client.get_run(run_id).data.metrics)
        prefixes = {
            name.removesuffix(_EACH_EPOCH)
            for name in names
            if name.endswith(_EACH_EPOCH) and _BEST not in name
        }
        if not prefixes:
            raise TrackingError(f"run {run_id} holds no training: it has no {_EACH_EPOCH}")
        kept = [
            name
            for prefix in sorted(prefixes)
            for part in ("val/", "train/")
            for name in sorted(names)
            if name.startswith(prefix + part)
        ]
        shared = prefixes.pop() if len(prefixes) == 1 else ""
        return _by_epoch(client, run_id, shared, kept)


def _by_epoch(client: MlflowClient, run_id: str, prefix: str, names: list[str]) -> Curves:
    curves: dict[int, dict[str, float]] = {}
    for name in names:
        for point in client.get_metric_history(run_id, name):
            curves.setdefault(point.step, {})[name.removeprefix(prefix)] = point.value
    return dict(sorted(curves.items()))


def read_curves(path: Path) -> Curves:
    """Curves from a file.

    Args:
        path: As written by `write_curves`.

    Returns:
        As from `fetch_curves`.

    Raises:
        TrackingError: The file cannot be read, or holds something else.
    """
    try:
        with path.open(newline="") as file:
            return {
                int(row.pop("epoch")): {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(f"{path} holds no curves: {error!r}") from error


def write_curves(curves: Mapping[int, Mapping[str, float]], path: Path) -> None:
    """Write curves as CSV: a line an epoch, a column a metric, six digits.

    Args:
        curves: From `fetch_curves`.
        path: The file, over an older one.

    Raises:
        TrackingError: The file cannot be written.
    """
    names = list(dict.fromkeys(name for values in curves.values() for name in values))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["epoch", *names])
            for epoch, values in curves.items():
                cells = [f"{values[name]:.6g}" if name in values else "" for name in names]
                writer.writerow([epoch, *cells])
    except OSError as error:
        raise TrackingError(f"{path} cannot be written: {error}") from error

"""A trial's epochs on local disk until its run has ended.

MLflow gets metrics every few seconds and gradient histograms at the end; a kill must lose neither.
Each epoch is appended to a file before anything else happens, so whoever stores a checkpoint
after that knows that the epochs before it are safe. Reopening the trial reads the file back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow.training.events import HISTOGRAM_EDGES, EpochEnded, GradientSummary


@dataclass(frozen=True)
class EpochRecord:
    """One epoch as it is kept.

    Attributes:
        event: What the training said.
        time_ms: When, in milliseconds since 1970.
    """

    event: EpochEnded
    time_ms: int


def _gradients_to_json(summary: GradientSummary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {
        "layers": list(summary.layers),
        "norm": summary.norm.tolist(),
        "maximum": summary.maximum.tolist(),
        "zero_share": summary.zero_share.tolist(),
        "histogram": summary.histogram.tolist(),
        "samples": summary.samples,
        "verdict": summary.verdict,
    }


def _gradients_from_json(data: Mapping[str, Any] | None) -> GradientSummary | None:
    if data is None:
        return None
    return GradientSummary(
        layers=tuple(data["layers"]),
        norm=np.asarray(data["norm"], dtype=np.float64),
        maximum=np.asarray(data["maximum"], dtype=np.float64),
        zero_share=np.asarray(data["zero_share"], dtype=np.float64),
        histogram=np.asarray(data["histogram"], dtype=np.int64),
        samples=data["samples"],
        verdict=data["verdict"],
    )


class Spool:
    """The epochs of one trial, in a file of JSON lines.

    Attributes:
        records: The epochs so far, in order, each once.
    """

    def __init__(self, path: Path) -> None:
        """Read what an earlier process left.

        Args:
            path: The file; it and its folder are made when the first epoch is added.
        """
        self._path = path
        self.records, self._bytes = _read(path)
        self._written = len(self.records)

    @property
    def last_epoch(self) -> int:
        """The newest epoch kept, 0 if none is."""
        return self.records[-1].event.epoch if self.records else 0

    def add(self, record: EpochRecord) -> None:
        """Keep an epoch; one that is kept already (after a resume) is left as it is.

        Args:
            record: The epoch.

        Raises:
            OSError: The file cannot be written. The epoch is kept in memory, and written by the
                next call that succeeds.
        """
        if record.event.epoch > self.last_epoch:
            self.records.append(record)
        lines = b"".join(_to_line(item) for item in self.records[self._written :])
        if not lines:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.seek(self._bytes)  # over what a kill or a full disk cut off
            file.write(lines)
            file.truncate()
        self._written = len(self.records)
        self._bytes += len(lines)

    def discard(self) -> None:
        """Remove the file and forget the epochs."""
        self._path.unlink(missing_ok=True)
        self.records, self._bytes, self._written = [], 0, 0


def _to_line(record: EpochRecord) -> bytes:
    event = record.event
    values = {
        "epoch": event.epoch,
        "time_ms": record.time_ms,
        "is_best": event.is_best,
        "metrics": event.metrics,
        "gradients": _gradients_to_json(event.gradients),
    }
    return json.dumps(values).encode() + b"\n"


def _from_line(line: bytes) -> EpochRecord:
    data = json.loads(line)
    event = EpochEnded(
        epoch=data["epoch"],
        metrics=data["metrics"],
        gradients=_gradients_from_json(data["gradients"]),
        is_best=data["is_best"],
    )
    return EpochRecord(event, data["time_ms"])


def _read(path: Path) -> tuple[list[EpochRecord], int]:
    """Epochs in the file and the bytes they take; a damaged line, as kills leave it, ends it."""
    records: list[EpochRecord] = []
    whole = 0
    if not path.exists():
        return records, whole
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            record = _from_line(line)
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n"):
            break
        records.append(record)
        whole += len(line)
    return records, whole


def gradient_arrays(records: list[EpochRecord]) -> dict[str, npt.NDArray[Any]]:
    """Gradients of all epochs as arrays.

    Args:
        records: Epochs; those without a sampled step are left out.

    Returns:
        `epoch` (epochs,), `layers` (layers,) text, `edges` (bins + 1,) of log10 |gradient|,
        `histogram` (epochs, layers, bins) counts, `norm`, `maximum`, `zero_share`
        (epochs, layers) and `samples` (epochs,); empty if no epoch has gradients.
    """
    found = [
        (item.event.epoch, item.event.gradients)
        for item in records
        if item.event.gradients is not None
    ]
    if not found:
        return {}
    summaries = [summary for _, summary in found]
    return {
        "epoch": np.array([epoch for epoch, _ in found], dtype=np.int64),
        "layers": np.array(summaries[0].layers, dtype=np.str_),
        "edges": HISTOGRAM_EDGES,
        "histogram": np.stack([summary.histogram for summary in summaries]),
        "norm": np.stack([summary.norm for summary in summaries]),
        "maximum": np.stack([summary.maximum for summary in summaries]),
        "zero_share": np.stack([summary.zero_share for summary in summaries]),
        "samples": np.array([summary.samples for summary in summaries], dtype=np.int64),
    }

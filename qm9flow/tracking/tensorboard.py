"""TensorBoard's files of one trial: scalars, gradient histograms, hyperparameters.

Made of TensorBoard's own messages, so no deep-learning framework is needed, and flushed when we
say so, so no thread per trial is either.
"""

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata

from qm9flow.tracking.records import to_record
from qm9flow.tracking.spool import EpochRecord
from qm9flow.training.events import HISTOGRAM_EDGES

_HISTOGRAM_NOTE = "log10 of the absolute gradient, counted over the sampled steps of an epoch"

_STATUS = {
    "complete": api_pb2.STATUS_SUCCESS,
    "pruned": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "interrupted": api_pb2.STATUS_UNKNOWN,
}


class TensorBoardFile:
    """One event file in a trial's folder.

    A trial that is resumed opens a second file, which tells TensorBoard to forget what the first
    one says from `first_step` on.
    """

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        """Open a new file.

        Args:
            folder: The trial's folder, made if missing.
            first_step: First epoch that this file writes, perhaps again.

        Raises:
            OSError: The file cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        stamp = f"{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / f"events.out.tfevents.{stamp}").open("xb")
        self._is_described = False
        self._write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        # TensorBoard takes a folder's first START for the beginning and only further ones for a
        # restart that replaces what was there from that step on.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(wall_time=time.time(), step=first_step, session_log=start))

    def _write(self, event: event_pb2.Event) -> None:
        self._file.write(to_record(event.SerializeToString()))

    def add_epoch(self, record: EpochRecord) -> None:
        """Write an epoch's metrics and gradient histograms.

        Args:
            record: The epoch.
        """
        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in record.event.metrics.items()
        ]
        gradients = record.event.gradients
        if gradients is not None:
            note = None if self._is_described else _HISTOGRAM_NOTE
            self._is_described = True
            values += [
                _histogram(f"gradients/{layer}", counts, note)
                for layer, counts in zip(gradients.layers, gradients.histogram, strict=True)
            ]
        self._summary(values, record.event.epoch, record.time_ms / 1000)

    def add_parameters(self, parameters: Mapping[str, Any], group: str) -> None:
        """Write the trial's hyperparameters, so that the tab HParams lists it.

        Args:
            parameters: Names and values; numbers and booleans stay what they are.
            group: The trial's name.
        """
        info = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time())
        for name, value in parameters.items():
            if isinstance(value, bool):
                info.hparams[name].bool_value = value
            elif isinstance(value, int | float) and math.isfinite(value):
                info.hparams[name].number_value = value
            elif value is not None:
                info.hparams[name].string_value = str(value)
        content = plugin_data_pb2.HParamsPluginData(session_start_info=info)
        self._hparams(hparams_metadata.SESSION_START_INFO_TAG, content)

    def add_result(self, state: str, best: Mapping[str, float], best_epoch: int) -> None:
        """Write how the trial ended, and the figures that the tab HParams compares.

        Args:
            state: `complete`, `pruned`, `failed` or `interrupted`.
            best: Figures of the best epoch, by their names; may be empty.
            best_epoch: That epoch.
        """
        self._summary(
            [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in best.items()],
            best_epoch,
            time.time(),
        )
        info = plugin_data_pb2.SessionEndInfo(status=_STATUS[state], end_time_secs=time.time())
        content = plugin_data_pb2.HParamsPluginData(session_end_info=info)
        self._hparams(hparams_metadata.SESSION_END_INFO_TAG, content)

    def _hparams(self, tag: str, content: plugin_data_pb2.HParamsPluginData) -> None:
        value = summary_pb2.Summary.Value(
            tag=tag,
            metadata=hparams_metadata.create_summary_metadata(content),
            tensor=hparams_metadata.NULL_TENSOR,
        )
        self._summary([value], 0, time.time())

    def _summary(self, values: list[summary_pb2.Summary.Value], step: int, when: float) -> None:
        if values:
            summary = summary_pb2.Summary(value=values)
            self._write(event_pb2.Event(wall_time=when, step=step, summary=summary))

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()


def _histogram(
    tag: str, counts: npt.NDArray[np.int64], note: str | None
) -> summary_pb2.Summary.Value:
    """Counts over `HISTOGRAM_EDGES` as TensorBoard keeps a histogram: (left, right, count) rows."""
    filled = np.flatnonzero(counts)
    first, last = (filled[0], filled[-1] + 1) if filled.size else (0, 1)
    edges = HISTOGRAM_EDGES
    rows = np.stack(
        [edges[first:last], edges[first + 1 : last + 1], counts[first:last]], axis=1
    ).astype("<f4")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in rows.shape])
    return summary_pb2.Summary.Value(
        tag=tag,
        metadata=histogram_metadata.create_summary_metadata(display_name=None, description=note),
        tensor=tensor_pb2.TensorProto(
            dtype=types_pb2.DT_FLOAT, tensor_shape=shape, tensor_content=rows.tobytes()
        ),
    )

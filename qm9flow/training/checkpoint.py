"""Checkpoints: safetensors bytes with JSON beside the tensors. No pickle, nothing to execute.

Random numbers need no state of their own: each epoch draws from a generator seeded with (seed,
epoch), and checkpoints are made between epochs.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from qm9flow.config import PLACE_ONLY, TrainConfig, goals_of, to_dict
from qm9flow.errors import CheckpointError
from qm9flow.training.events import Alarm, Verdict

FORMAT = 3
"""Format 2 had samples of the gradients without steps, molecules and dead units: a training goes on
from it with a history that begins there."""
READABLE = (2, FORMAT)

HISTORY_TENSOR = "gradient_history"
_KEY = "training"


@dataclass
class Progress:
    """How far a training is; with the tensors, all that it needs to go on.

    Attributes:
        epoch: Epochs done.
        step: Optimiser steps done.
        elapsed_seconds: Training time, validation included.
        validation_seconds: What the last validation took.
        is_out_of_time: Whether `max_minutes` ended the latest epoch.
        best_epoch: Epoch of the lowest `val/score`, 0 before the first.
        best_metrics: All metrics of that epoch.
        plateau_factor: What the plateau schedule has come down to.
        plateau_waited: Epochs since a better score or the last halving.
        average_updates: Updates of the averaged weights.
        first_loss: Loss of the first sampled step.
        worst_verdict: The most serious verdict so far.
        alarm: Where gradients first gave a reason to stop.
    """

    epoch: int = 0
    step: int = 0
    elapsed_seconds: float = 0.0
    validation_seconds: float = 0.0
    is_out_of_time: bool = False
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    plateau_factor: float = 1.0
    plateau_waited: int = 0
    average_updates: int = 0
    first_loss: float | None = None
    worst_verdict: Verdict = "healthy"
    alarm: Alarm | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A training between two epochs.

    Attributes:
        progress: Plain values.
        tensors: By name, on the CPU.
    """

    progress: Progress
    tensors: dict[str, Tensor]

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """One tensor, checked.

        Args:
            name: Its name.
            like: What it is to replace.

        Returns:
            The tensor.

        Raises:
            CheckpointError: It is missing, or of another shape or dtype.
        """
        value = self._find(name)
        if value.shape != like.shape or value.dtype != like.dtype:
            raise CheckpointError(
                f"tensor {name!r} of the checkpoint is {tuple(value.shape)} {value.dtype}, "
                f"this training needs {tuple(like.shape)} {like.dtype}"
            )
        return value

    def rows(self, name: str, width: int) -> npt.NDArray[np.float64]:
        """One table of float64, checked.

        Args:
            name: Its name.
            width: Its number of columns.

        Returns:
            (n, width).

        Raises:
            CheckpointError: It is missing, or of another width or dtype.
        """
        value = self._find(name)
        if name == HISTORY_TENSOR and not len(value):
            return np.zeros((0, width))
        return self.tensor(name, torch.empty((len(value), width), dtype=torch.float64)).numpy()

    def _find(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise CheckpointError(f"the checkpoint lacks the tensor {name!r}")
        return self.tensors[name]


def config_digest(config: TrainConfig, data_digest: str) -> str:
    """What a checkpoint must share with the training that resumes from it.

    Args:
        config: The training; where it runs and how often it is saved do not count.
        data_digest: Of the data set.

    Returns:
        SHA-256, hexadecimal.
    """
    values = {key: value for key, value in to_dict(config).items() if key not in PLACE_ONLY}
    if config.refiner is None:  # as before there were any
        del values["refiner"]
    content = {
        "config": values,
        "data": data_digest,
        "goals": goals_of(config.weighting, config.geometry),
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def pack(checkpoint: Checkpoint, digest: str) -> bytes:
    """A checkpoint as bytes.

    Args:
        checkpoint: The state of a training.
        digest: From `config_digest`.

    Returns:
        What `unpack` reads.
    """
    values = {"progress": dataclasses.asdict(checkpoint.progress), "digest": digest}
    text = json.dumps(values | {"format": FORMAT})
    tensors = {name: tensor.detach().cpu() for name, tensor in checkpoint.tensors.items()}
    return save(tensors, metadata={_KEY: text})


def _metadata(blob: bytes) -> dict[str, Any]:
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    values = json.loads(header["__metadata__"][_KEY])
    if not isinstance(values, dict) or not {"progress", "digest", "format"} <= set(values):
        raise KeyError("progress, digest, format")
    return values


def unpack(blob: bytes, digest: str) -> Checkpoint:
    """The checkpoint that `pack` wrote.

    Args:
        blob: What `pack` gave.
        digest: Of the training that is to resume.

    Returns:
        The state of the training.

    Raises:
        CheckpointError: The bytes are no checkpoint, of another format, or of another training.
    """
    try:
        tensors = load(blob)
        values = _metadata(blob)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"these {len(blob)} bytes are no checkpoint: {error!r}") from error
    if values["format"] not in READABLE:
        raise CheckpointError(
            f"the checkpoint has format {values['format']}, this version reads "
            f"{' and '.join(map(str, READABLE))}"
        )
    if values["format"] == 2 and HISTORY_TENSOR in tensors:
        tensors[HISTORY_TENSOR] = torch.zeros((0, 0), dtype=torch.float64)
    if values["digest"] != digest:
        raise CheckpointError(
            "the checkpoint belongs to another configuration or data set; "
            "resume with the ones it was made with, or start anew"
        )
    try:
        progress = Progress(**values["progress"])
        if progress.alarm is not None:
            progress.alarm = Alarm(**values["progress"]["alarm"])
    except TypeError as error:
        raise CheckpointError(f"the checkpoint's progress cannot be read: {error}") from error
    return Checkpoint(progress, tensors)


def weights_blob(network: nn.Module) -> bytes:
    """A network's weights as they are now.

    Args:
        network: Any network.

    Returns:
        safetensors bytes, named as in its `state_dict`.
    """
    state = network.state_dict()
    return save({name: torch.clone(tensor.detach().cpu()) for name, tensor in state.items()})

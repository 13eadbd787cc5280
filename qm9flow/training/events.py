"""What a training says while it runs. Plain data: whoever reads it needs no torch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Verdict = Literal["healthy", "vanishing", "dead_relu", "exploding", "dead"]
Ending = Literal["max_epochs", "max_minutes", "early_stopping"]
StopReason = Literal["vanishing", "dead_relu", "exploding", "dead"]
FailureReason = Literal[StopReason, "out_of_memory", "impossible", "crash"]

HISTOGRAM_EDGES: npt.NDArray[np.float64] = np.linspace(-12.0, 4.0, 33)
"""Edges of the bins of log10 |gradient|; what lies outside is counted in the outermost bins."""


@dataclass(frozen=True)
class GradientSummary:
    """Gradients of one epoch, layer by layer, over the steps that were sampled.

    Attributes:
        layers: Names of the layers, from input to output.
        norm: (n_layers,), root mean square over samples of the layer's gradient norm.
        maximum: (n_layers,), largest absolute component.
        zero_share: (n_layers,), share of components that are exactly zero.
        histogram: (n_layers, n_bins), counts of log10 |g| over `HISTOGRAM_EDGES`;
            zeros are not counted. Of a layer with more than 32,768 components, as
            `zero_share`, over so many of them, always the same.
        samples: Steps that were sampled.
        verdict: What the gradients say so far.
    """

    layers: tuple[str, ...]
    norm: npt.NDArray[np.float64]
    maximum: npt.NDArray[np.float64]
    zero_share: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int64]
    samples: int
    verdict: Verdict


@dataclass(frozen=True)
class Alarm:
    """The first look at which gradients gave a reason to stop.

    Attributes:
        reason: The verdict.
        step: Optimiser steps done by then.
        epoch: In which it was, counted from 1.
        seconds: Training time until then, validation included.
    """

    reason: StopReason
    step: int
    epoch: int
    seconds: float


@dataclass(frozen=True)
class Started:
    """The training is set up.

    Attributes:
        epoch: Epochs that were done before (0, or those of the checkpoint).
        parameters: Trainable numbers of the network.
        train_molecules: Molecules trained on.
        val_molecules: Molecules validated on.
    """

    epoch: int
    parameters: int
    train_molecules: int
    val_molecules: int


@dataclass(frozen=True)
class EpochEnded:
    """One pass over the training molecules, and its validation.

    Attributes:
        epoch: Counted from 1.
        metrics: By the names of the metrics: `train/loss`, `val/score`, `val/<target>/mae`,
            `val/rmse_pooled`, `val/rmse_pooled_without_a`, `train/lr`,
            `train/molecules_per_second`, `train/seconds`, `train/peak_memory_mb`, `val/seconds`.
            Times of training and of validation do not overlap.
        gradients: What the monitor saw; each epoch has at least one sample.
        is_best: Whether `val/score` is the lowest so far.
        alarm: Where gradients would have ended the training, had they been allowed to; None if
            nowhere so far.
    """

    epoch: int
    metrics: dict[str, float]
    gradients: GradientSummary | None
    is_best: bool
    alarm: Alarm | None = None


@dataclass(frozen=True)
class CheckpointReady:
    """Everything that a resumed training needs.

    Attributes:
        epoch: Epochs done.
        blob: safetensors bytes, no pickle.
    """

    epoch: int
    blob: bytes


@dataclass(frozen=True)
class Finished:
    """The training ended by itself.

    Attributes:
        ending: Which budget ended it.
        epochs: Epochs done.
        best_epoch: Epoch of the lowest `val/score`; 0 where no epoch was better than the weights
            that another training left, from which this one started.
        best_metrics: All metrics of that epoch.
        weights: safetensors bytes of the network at that epoch (averaged weights, if any).
        verdict: What the gradients said over the whole training.
        alarm: Where they would have ended it, had they been allowed to; None if nowhere.
    """

    ending: Ending
    epochs: int
    best_epoch: int
    best_metrics: dict[str, float]
    weights: bytes
    verdict: Verdict
    alarm: Alarm | None = None


@dataclass(frozen=True)
class Failed:
    """The training cannot go on.

    Attributes:
        reason: Machine-readable.
        message: What happened and where, in words.
        gradients: What the monitor saw since the last epoch ended, None if nothing.
        alarm: Where gradients first gave a reason to stop, None if nowhere.
    """

    reason: FailureReason
    message: str
    gradients: GradientSummary | None = None
    alarm: Alarm | None = None


Event = Started | EpochEnded | CheckpointReady | Finished | Failed

"""What gradients say about a training. Plain numbers in, a word out.

Every rule compares like with like, so that it does not depend on the unit of the loss, the size of
the layers or the scale of the targets (raw ones reach -11,000 eV).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow.training.events import Verdict

CONSECUTIVE = 5
"""Samples in a row that must agree before gradients count as vanishing or exploding: a single
odd batch, or the first steps after zero-initialised layers, says nothing."""

VANISHING_ELASTICITY = 1e-8
"""Below it, for the median layer: |g| |w| / loss is how much the loss changes, relatively, for a
relative change of the layer's weights. float32 has a relative step of 6e-8, so smaller slopes are
lost in the rounding of the loss itself."""

VANISHING_RATIO = 1e-6
"""Root-mean-square gradient of the median early layer (first half), relative to the last layer's.
Healthy networks lie between 1e-2 and 1e2; at 1e-6 the early layers of a network under plain
gradient descent stand still for all of a training."""

SILENT_SHARE = 0.4
"""A sample in which more than this share of layers has a gradient of exactly zero is silent: the
units behind them are dead for every input. One dead layer is no reason to stop: where what went in
is added to what comes out, the network goes on as a shallower one, and may do well.
`docs/gradients.md` has what other shares would have caught."""

SILENT_MOLECULES = 16
"""Molecules that silent samples in a row must have seen: the few atoms of one may all lie where a
narrow layer is flat, and the next one's do not."""

EXPLODING_RATIO = 1e4
"""Norm of the whole gradient relative to the median of the samples before, in each of
`CONSECUTIVE` samples and growing. Batches differ by a factor of ten at most."""

EXPLODING_LOSS = 1e2
"""Loss of a step relative to the first one's. On encoded targets the first loss is of order one,
what a constant gives; a network a hundred times worse than a constant for `CONSECUTIVE` samples
does not come back in the length of a trial."""

HISTORY = 64
"""Samples that are remembered for the median norm."""

SEVERITY: tuple[Verdict, ...] = ("healthy", "vanishing", "dead_relu", "exploding", "dead")

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Gradients of one step.

    Attributes:
        step: Optimiser steps done before.
        molecules: In that step.
        loss: Of that step.
        norm: Of the whole gradient.
        gradient_rms: (n_layers,), root mean square of the components.
        elasticity: (n_layers,), |g| |w| / loss.
        dead_share: (n_layers,), share of the layer's units whose bias has a gradient of exactly
            zero; 0 for a layer without biases.
    """

    step: int
    molecules: int
    loss: float
    norm: float
    gradient_rms: Vector
    elasticity: Vector
    dead_share: Vector

    @property
    def is_dead(self) -> bool:
        """Whether loss or gradient is NaN or infinite."""
        return not (math.isfinite(self.loss) and math.isfinite(self.norm))

    @property
    def is_silent(self) -> bool:
        """Whether many layers have no gradient at all."""
        return float(np.mean(self.gradient_rms == 0)) > SILENT_SHARE

    @property
    def is_vanishing(self) -> bool:
        """Whether this sample alone looks vanishing; layers without any gradient do not count."""
        alive = self.gradient_rms > 0
        if not alive.any():
            return False
        if float(np.median(self.elasticity[alive])) < VANISHING_ELASTICITY:
            return True
        half = max(1, len(alive) // 2)
        early = self.gradient_rms[:half][alive[:half]]
        last = VANISHING_RATIO * float(self.gradient_rms[-1])
        return bool(len(early)) and float(np.median(early)) < last


def _is_dead_relu(samples: Sequence[Sample]) -> bool:
    silent = list(itertools.takewhile(lambda sample: sample.is_silent, reversed(samples)))
    molecules = sum(sample.molecules for sample in silent)
    return len(silent) >= CONSECUTIVE and molecules >= SILENT_MOLECULES


def _is_exploding(samples: Sequence[Sample], first_loss: float) -> bool:
    recent = samples[-CONSECUTIVE:]
    if min(sample.loss for sample in recent) > EXPLODING_LOSS * first_loss:
        return True
    before = [sample.norm for sample in samples[:-CONSECUTIVE]]
    if not before:
        return False
    norms = np.array([sample.norm for sample in recent])
    usual = float(np.median(before))
    return bool(norms.min() > EXPLODING_RATIO * usual and np.all(np.diff(norms) > 0))


def judge(samples: Sequence[Sample], first_loss: float) -> Verdict:
    """The verdict after the latest sample.

    Args:
        samples: In order, the latest last; some of the earliest may be missing.
        first_loss: Loss of the training's first sample.

    Returns:
        `dead` if the latest sample holds NaN or inf, `exploding`, `dead_relu` or `vanishing` if the
        latest `CONSECUTIVE` ones agree on it, else `healthy`.
    """
    if samples and samples[-1].is_dead:
        return "dead"
    if len(samples) < CONSECUTIVE:
        return "healthy"
    if _is_exploding(samples, first_loss):
        return "exploding"
    if _is_dead_relu(samples):
        return "dead_relu"
    if all(sample.is_vanishing for sample in samples[-CONSECUTIVE:]):
        return "vanishing"
    return "healthy"


def worse(one: Verdict, other: Verdict) -> Verdict:
    """The more serious of two verdicts.

    Args:
        one: A verdict.
        other: Another.

    Returns:
        The later in healthy, vanishing, dead_relu, exploding, dead.
    """
    return max(one, other, key=SEVERITY.index)

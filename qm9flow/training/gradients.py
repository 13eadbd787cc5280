"""The gradient monitor: layer by layer, sampled every few steps, without waiting for the device."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.linalg import vector_norm

from qm9flow.training.events import HISTOGRAM_EDGES, GradientSummary, Verdict
from qm9flow.training.flat import FlatParameters
from qm9flow.training.verdicts import HISTORY, Sample, judge, worse

COMPONENTS = 2**15
"""At most so many components of a layer go into its histogram and share of zeros, chosen once at
random; norms and maxima are of all."""

EARLY_STEPS = 400
"""First steps of a training, in which gradients are sampled more often: most trainings that fail
do so there, and whoever stops them wants to know at once."""
EARLY_EVERY = 4
"""Steps between two samples there."""

_BINS = len(HISTOGRAM_EDGES) - 1
_LOWEST = float(HISTOGRAM_EDGES[0])
_WIDTH = float(HISTOGRAM_EDGES[1] - HISTOGRAM_EDGES[0])
_TINY = 1e-30
_SCALARS = 4


def _layer_slices(layers: npt.NDArray[np.int64], count: int) -> list[slice]:
    parts = []
    for index in range(count):
        of_layer = np.flatnonzero(layers == index)
        parts.append(slice(int(of_layer[0]), int(of_layer[-1]) + 1))
    return parts


def _choose(layers: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    generator = np.random.default_rng(0)
    chosen = []
    for index in range(count):
        of_layer = np.flatnonzero(layers == index)
        if len(of_layer) > COMPONENTS:
            of_layer = np.sort(generator.choice(of_layer, COMPONENTS, replace=False))
        chosen.append(of_layer)
    return np.concatenate(chosen)


def is_early_due(step: int) -> bool:
    """Whether a step has a sample because the training has just begun.

    Args:
        step: Optimiser steps done before.

    Returns:
        The answer.
    """
    return step < EARLY_STEPS and step % EARLY_EVERY == 0


def _peak(part: Tensor) -> Tensor:
    """Largest absolute component; several times as fast as `vector_norm` with infinity."""
    low, high = torch.aminmax(part)
    return torch.maximum(-low, high)


class GradientMonitor:
    """Watches the gradients of a network.

    `sample` only queues work on the device; `check` and `summarise` fetch what was queued.

    Attributes:
        history: The latest samples, at most `HISTORY`.
        first_loss: Loss of the training's first sample; none before it.
        worst: The most serious verdict so far.
    """

    def __init__(self, flat: FlatParameters) -> None:
        """Set up for a network.

        Args:
            flat: Its weights and gradients.
        """
        layers = flat.layer_of.cpu().numpy()
        count = len(flat.layers)
        chosen = _choose(layers, count)
        self.flat = flat
        self.history: list[Sample] = []
        self.first_loss: float | None = None
        self.worst: Verdict = "healthy"
        parts = _layer_slices(layers, count)
        self._gradients = [flat.gradient[part] for part in parts]
        self._weights = [flat.weights.detach()[part] for part in parts]
        self._sizes = np.bincount(layers, minlength=count + 1)[:count]
        device = flat.weights.device
        self._chosen = torch.from_numpy(chosen).to(device)
        self._offsets = torch.from_numpy(layers[chosen] * (_BINS + 1)).to(device)
        self._ones = torch.ones_like(self._offsets)
        self._counts = torch.zeros(count * (_BINS + 1), dtype=torch.int64, device=device)
        self._units_of = flat.layer_of[flat.biases]
        self._units = np.bincount(self._units_of.cpu().numpy(), minlength=count)
        self._queued: list[tuple[int, int, Tensor]] = []
        self._rows: list[npt.NDArray[np.float64]] = []

    def sample(
        self,
        loss: Tensor,
        factor: Tensor,
        step: int = 0,
        molecules: int = 1,
        *,
        is_whole: bool = True,
    ) -> None:
        """Queue one sample of the gradients as they are now.

        Args:
            loss: Of the step, ().
            factor: What the accumulated gradient is to be multiplied with, ().
            step: Optimiser steps done before.
            molecules: In this step.
            is_whole: Whether maxima and histograms are taken, too, which cost ten times as much as
                what verdicts need.
        """
        norms = torch.stack([vector_norm(part) for part in self._gradients])
        peaks = torch.stack([_peak(part) for part in self._gradients]) if is_whole else 0 * norms
        sizes = torch.stack([vector_norm(part) for part in self._weights])
        silent = (self.flat.gradient[self.flat.biases] == 0).to(norms.dtype)
        dead = torch.zeros_like(norms).index_add_(0, self._units_of, silent)
        row = torch.cat([loss.reshape(1), norms * factor, peaks * factor, sizes, dead])
        self._queued.append((step, molecules, row))
        if is_whole:
            self._count(factor)

    def _count(self, factor: Tensor) -> None:
        """Add the gradients as they are now to the histograms."""
        magnitude = self.flat.gradient[self._chosen].abs_().mul_(factor)
        bins = magnitude.log10().sub_(_LOWEST).div_(_WIDTH).floor_().clamp_(0, _BINS - 1)
        # Zeros, and NaN, are counted in a bin of their own.
        bins = torch.where(magnitude > 0, bins, float(_BINS)).to(torch.int64)
        self._counts.index_add_(0, self._offsets + bins, self._ones)

    def check(self) -> Verdict:
        """Fetch what was queued and judge it.

        Returns:
            The verdict after the latest sample.
        """
        if self._queued:
            steps = [(step, molecules) for step, molecules, _ in self._queued]
            rows = torch.stack([row for _, _, row in self._queued]).cpu().numpy()
            self._queued.clear()
            for (step, molecules), row in zip(steps, rows.astype(np.float64), strict=True):
                self._take(step, molecules, row)
        return judge(self.history, self.first_loss or _TINY)

    def _take(self, step: int, molecules: int, row: npt.NDArray[np.float64]) -> None:
        loss, layers = float(row[0]), len(self.flat.layers)
        norms, _, weights, dead = row[1:].reshape(4, layers)
        if self.first_loss is None:
            self.first_loss = loss
        with np.errstate(all="ignore"):
            sample = Sample(
                step=step,
                molecules=molecules,
                loss=loss,
                norm=float(np.sqrt(np.sum(norms**2))),
                gradient_rms=norms / np.sqrt(self._sizes),
                elasticity=norms * weights / max(loss, _TINY),
                dead_share=dead / np.maximum(self._units, 1),
            )
        self._rows.append(row)
        self.history = [*self.history, sample][-HISTORY:]
        self.worst = worse(self.worst, judge(self.history, self.first_loss or _TINY))

    def summarise(self) -> GradientSummary | None:
        """What was sampled since the last summary.

        Returns:
            The summary, None if nothing was sampled.
        """
        verdict = self.check()
        if not self._rows:
            return None
        layers = len(self.flat.layers)
        rows = np.stack(self._rows)[:, 1:].reshape(-1, 4, layers)
        counts = self._counts.cpu().numpy().reshape(layers, _BINS + 1).copy()
        self._rows.clear()
        self._counts.zero_()
        with np.errstate(all="ignore"):
            norm = np.sqrt(np.mean(rows[:, 0] ** 2, axis=0))
        return GradientSummary(
            layers=self.flat.layers,
            norm=norm,
            maximum=rows[:, 1].max(axis=0),
            zero_share=counts[:, _BINS] / counts.sum(axis=1),
            histogram=counts[:, :_BINS],
            samples=len(rows),
            verdict=verdict,
        )

    @property
    def row_width(self) -> int:
        """Numbers a sample has in `history_rows`."""
        return _SCALARS + 3 * len(self.flat.layers)

    def history_rows(self) -> npt.NDArray[np.float64]:
        """The history as numbers, for a checkpoint.

        Returns:
            (n_samples, 4 + 3 n_layers): step, molecules, loss, norm, gradient_rms, elasticity,
            dead_share.
        """
        rows = [
            np.concatenate(
                [
                    [s.step, s.molecules, s.loss, s.norm],
                    s.gradient_rms,
                    s.elasticity,
                    s.dead_share,
                ]
            )
            for s in self.history
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, self.row_width)

    def restore(
        self, rows: npt.NDArray[np.float64], first_loss: float | None, worst: Verdict
    ) -> None:
        """Continue a history.

        Args:
            rows: What `history_rows` gave.
            first_loss: Loss of the training's first sample.
            worst: The most serious verdict until then.
        """
        layers = len(self.flat.layers)
        self.history = [
            Sample(
                int(row[0]),
                int(row[1]),
                float(row[2]),
                float(row[3]),
                *row[_SCALARS:].reshape(3, layers),
            )
            for row in rows
        ]
        self.first_loss = first_loss
        self.worst = worst

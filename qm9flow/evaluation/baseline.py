"""What needs no network: a line through the composition, and a constant.

The first says how much of an error a network must beat; the second explains pooled errors of raw
targets, which the largest numbers dominate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow import targets
from qm9flow.config import SplitName
from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset
from qm9flow.elements import NUMBERS
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.training.metrics import pooled_rmse

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_LEARNED_COLUMNS = [TARGETS.index(name) for name in LEARNED]


def linear_baseline(dataset: Dataset, split: Split, indices: Indices) -> Floats:
    """Predictions of a linear model of the composition.

    Each learned target is a constant plus a number for each atom of H, C, N, O, F, fitted by least
    squares on the split's training molecules; the others are derived, as for networks.

    Args:
        dataset: All molecules.
        split: Whose training part is fitted.
        indices: (n,), places of the molecules to predict.

    Returns:
        (n, 19), in the order of `properties.TARGETS` and in their units.
    """
    counts = dataset.counts()
    features = np.column_stack([np.ones(len(dataset)), counts[:, NUMBERS]])
    learned = dataset.truth()[:, _LEARNED_COLUMNS]
    weights, *_ = np.linalg.lstsq(features[split.train], learned[split.train], rcond=None)
    predicted = dict(zip(LEARNED, (features[indices] @ weights).T, strict=True))
    values = targets.derive(predicted, counts[indices], dataset.rotational_ghz[indices])
    return np.column_stack([values[name] for name in TARGETS])


def constant_baseline(dataset: Dataset, split: Split, indices: Indices) -> Floats:
    """The mean of the split's training molecules, for every molecule.

    Args:
        dataset: All molecules.
        split: Whose training part is averaged.
        indices: (n,), places of the molecules to predict.

    Returns:
        (n, 19), in the order of `properties.TARGETS` and in their units; nothing is derived.
    """
    mean = dataset.truth()[split.train].mean(axis=0)
    return np.broadcast_to(mean, (len(indices), len(TARGETS))).copy()


@dataclass(frozen=True)
class ConstantError:
    """Pooled error of the constant on one split's held-out molecules, validation and test.

    Attributes:
        seed: Of the split.
        rmse: Over all 19 raw targets.
        rmse_without_a: Over 18: two molecules have A of 619,868 and 232,664 GHz, and whoever
            holds them decides.
    """

    seed: int
    rmse: float
    rmse_without_a: float


def constant_errors(
    dataset: Dataset, seeds: Sequence[int], name: SplitName = "seed"
) -> list[ConstantError]:
    """What predicting the mean gives as pooled error of raw targets, split by split.

    Args:
        dataset: All molecules.
        seeds: Of the splits.
        name: Which split.

    Returns:
        One entry a seed, in their order.
    """
    truth = dataset.truth()
    found = []
    for seed in seeds:
        split = make_split(name, len(dataset), seed)
        held_out = np.concatenate([split.validation, split.test])
        predicted = truth[split.train].mean(axis=0)[None, :]
        found.append(
            ConstantError(
                seed,
                pooled_rmse(predicted, truth[held_out]),
                pooled_rmse(predicted, truth[held_out], without=("a",)),
            )
        )
    return found

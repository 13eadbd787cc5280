"""What needs no network, and says how much of an error a network must beat."""

import numpy as np
import numpy.typing as npt

from qm9flow import targets
from qm9flow.data.splits import Split
from qm9flow.data.store import Dataset
from qm9flow.elements import NUMBERS
from qm9flow.properties import LEARNED, TARGETS

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

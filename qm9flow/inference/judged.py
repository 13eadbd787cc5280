"""What a network says of several molecules, before it becomes a `Prediction` of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow.properties import GEOMETRIC, SPREAD_OF

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judged:
    """Molecules whose geometries come from one source, as columns.

    Attributes:
        values: (n,) for each of the 19 targets, in its unit, as they are served.
        outputs: (n, T), what the network itself gives, in the targets' units.
        spreads: (n,) by target, in its unit; empty where the model has none.
        distances: (n,), from the training molecules; None where the model has none.
    """

    values: dict[str, Floats]
    outputs: Floats
    spreads: dict[str, Floats]
    distances: Floats | None

    def part(self, chosen: Any) -> "Judged":
        """Some of the molecules.

        Args:
            chosen: What picks rows of an array: a slice, a mask, or places.

        Returns:
            They alone.
        """
        return Judged(
            {name: column[chosen] for name, column in self.values.items()},
            self.outputs[chosen],
            {name: column[chosen] for name, column in self.spreads.items()},
            None if self.distances is None else self.distances[chosen],
        )

    def spread(self, target: str) -> Floats | None:
        """What errors of a target are measured in.

        Args:
            target: Its name.

        Returns:
            (n,), in its unit; rotational constants err in proportion to themselves. None where the
            model has none.
        """
        if target in GEOMETRIC:
            return np.abs(self.values[target])
        return self.spreads.get(SPREAD_OF.get(target, target))


def over_conformers(
    values: Floats, spreads: Floats, weights: Floats, starts: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Averages over the conformers of each molecule, and their spreads.

    Args:
        values: (G, S), of each geometry.
        spreads: (G, S), of each geometry.
        weights: (G,), that add up to 1 for each molecule.
        starts: (n,), where each molecule's geometries begin.

    Returns:
        (n, S), averages, and (n, S): the root of the mean squared spread and the variance among
        the conformers, of which nobody knows which one is meant.
    """
    counts = np.diff([*starts, len(weights)])
    mean = np.add.reduceat(values * weights[:, None], starts)
    off = (values - np.repeat(mean, counts, axis=0)) ** 2 + spreads**2
    return mean, np.sqrt(np.add.reduceat(off * weights[:, None], starts))


def softmax(logits: Floats) -> Floats:
    """Weights from their logarithms.

    Args:
        logits: (k,), up to a constant.

    Returns:
        (k,), they add up to 1.
    """
    factors = np.exp(logits - logits.max())
    return np.asarray(factors / factors.sum())


def joined(parts: Sequence[Judged]) -> Judged:
    """One of several.

    Args:
        parts: At least one, all of one model and one source.

    Returns:
        All their molecules, in order.
    """
    first = parts[0]
    return Judged(
        {name: np.concatenate([part.values[name] for part in parts]) for name in first.values},
        np.concatenate([part.outputs for part in parts]),
        {name: np.concatenate([part.spreads[name] for part in parts]) for name in first.spreads},
        None
        if first.distances is None
        else np.concatenate([part.distances for part in parts if part.distances is not None]),
    )

"""Where errors are large: how they spread, by size, by element, and the worst molecules."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qm9flow.data.store import Dataset
from qm9flow.elements import ELEMENTS
from qm9flow.evaluation.coverage import shares_inside
from qm9flow.evaluation.literature import REPORTED
from qm9flow.properties import PROPERTIES, TARGETS, get

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

ATOM_RANGES = ((1, 9), (10, 12), (13, 15), (16, 18), (19, 21), (22, 24), (25, 29))
"""Sizes that are counted together, both ends included; QM9's molecules have 3 to 29 atoms."""

_REPORTED_COLUMNS = [TARGETS.index(name) for name in REPORTED]


@dataclass(frozen=True)
class Residuals:
    """How the errors of one target spread, all in its unit.

    Attributes:
        target: Its name.
        unit: Its unit.
        bias: Mean of predicted - true.
        mae: Mean of the absolute errors.
        mae_standard_error: Of that mean, over molecules.
        rmse: Root of the mean squared error.
        median: Of the absolute errors.
        p95: Absolute error that 95% of the molecules stay below.
        largest: Largest absolute error.
        within_accuracy: Share of molecules within chemical accuracy; None where there is none.
    """

    target: str
    unit: str
    bias: float
    mae: float
    mae_standard_error: float
    rmse: float
    median: float
    p95: float
    largest: float
    within_accuracy: float | None


@dataclass(frozen=True)
class Group:
    """Molecules that have something in common.

    Attributes:
        name: What: `7 heavy atoms`, `16-18 atoms`, `with F`.
        key: The same in short: `7`, `16-18`, `F`.
        molecules: How many; at least one.
        mae: Mean absolute error of the targets `literature.REPORTED`, in their units.
        inside: Share of their true values that intervals hold; empty where there are none.
    """

    name: str
    key: str
    molecules: int
    mae: dict[str, float]
    inside: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Worst:
    """A molecule with a large error.

    Attributes:
        place: In the dataset, from 0.
        qm9_index: QM9's own number, from 1.
        smiles: As the tables have it.
        atoms: How many.
        predicted: In the target's unit.
        true: In the target's unit.
    """

    place: int
    qm9_index: int
    smiles: str
    atoms: int
    predicted: float
    true: float

    @property
    def error(self) -> float:
        """Predicted - true, in the target's unit."""
        return self.predicted - self.true

    def texts(self) -> tuple[str, str]:
        """Predicted and true value, with as many decimals as show how they differ."""
        size = abs(self.error)
        decimals = 2 - math.floor(math.log10(size)) if size > 0 else 3
        decimals = min(max(decimals, 0), 9)
        return f"{self.predicted:.{decimals}f}", f"{self.true:.{decimals}f}"


def residuals(predicted: Floats, truth: Floats) -> tuple[Residuals, ...]:
    """How errors spread, target by target.

    Args:
        predicted: (n_molecules, 19), in the order of `properties.TARGETS` and in their units.
        truth: (n_molecules, 19).

    Returns:
        One entry a target, in their order.
    """
    found = []
    for column, item in enumerate(PROPERTIES):
        error = predicted[:, column] - truth[:, column]
        size = np.abs(error)
        accuracy = item.chemical_accuracy
        found.append(
            Residuals(
                item.name,
                item.unit,
                bias=float(error.mean()),
                mae=float(size.mean()),
                mae_standard_error=float(size.std() / np.sqrt(len(size))),
                rmse=float(np.sqrt(np.mean(error**2))),
                median=float(np.median(size)),
                p95=float(np.percentile(size, 95)),
                largest=float(size.max()),
                within_accuracy=None if accuracy is None else float(np.mean(size <= accuracy)),
            )
        )
    return tuple(found)


def by_atoms(
    counts: Floats, errors: Floats, half_widths: Floats | None = None
) -> tuple[Group, ...]:
    """Errors by the number of atoms.

    Args:
        counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
        errors: (n_molecules, 19), in the order of `properties.TARGETS` and in their units.
        half_widths: (n_molecules, 19), of intervals; NaN or None where there are none.

    Returns:
        One group for each of `ATOM_RANGES` that holds molecules.
    """
    sizes = counts.sum(axis=1)
    bins = [
        (f"{low}-{high} atoms", f"{low}-{high}", (sizes >= low) & (sizes <= high))
        for low, high in ATOM_RANGES
    ]
    return _groups(bins, errors, half_widths)


def by_heavy_atoms(
    counts: Floats, errors: Floats, half_widths: Floats | None = None
) -> tuple[Group, ...]:
    """Errors by the number of atoms other than hydrogen.

    Args:
        counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
        errors: (n_molecules, 19), in the order of `properties.TARGETS` and in their units.
        half_widths: (n_molecules, 19), of intervals; NaN or None where there are none.

    Returns:
        One group for each number that occurs, the smallest first.
    """
    heavy = counts[:, 2:].sum(axis=1).astype(int)
    bins = [
        (f"{size} heavy atom{'s' if size > 1 else ''}", f"{size}", heavy == size)
        for size in np.unique(heavy)
    ]
    return _groups(bins, errors, half_widths)


def by_element(
    counts: Floats, errors: Floats, half_widths: Floats | None = None
) -> tuple[Group, ...]:
    """Errors of the molecules that hold an element.

    Args:
        counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
        errors: (n_molecules, 19), in the order of `properties.TARGETS` and in their units.
        half_widths: (n_molecules, 19), of intervals; NaN or None where there are none.

    Returns:
        One group for each element that occurs; a molecule counts in several.
    """
    bins = [
        (f"with {element.symbol}", element.symbol, counts[:, element.number] > 0)
        for element in ELEMENTS
    ]
    return _groups(bins, errors, half_widths)


GROUPINGS: dict[str, Callable[[Floats, Floats, Floats | None], tuple[Group, ...]]] = {
    "heavy_atoms": by_heavy_atoms,
    "atoms": by_atoms,
    "element": by_element,
}


def _groups(
    bins: Sequence[tuple[str, str, npt.NDArray[np.bool_]]],
    errors: Floats,
    half_widths: Floats | None,
) -> tuple[Group, ...]:
    errors = errors[:, _REPORTED_COLUMNS]
    halves = None if half_widths is None else half_widths[:, _REPORTED_COLUMNS]
    return tuple(
        Group(
            name,
            key,
            int(chosen.sum()),
            dict(zip(REPORTED, np.abs(errors[chosen]).mean(axis=0).tolist(), strict=True)),
            {} if halves is None else _inside(halves[chosen], errors[chosen]),
        )
        for name, key, chosen in bins
        if chosen.any()
    )


def _inside(half_widths: Floats, errors: Floats) -> dict[str, float]:
    shares = shares_inside(half_widths, errors).tolist()
    return {
        name: share for name, share in zip(REPORTED, shares, strict=True) if math.isfinite(share)
    }


def worst(
    dataset: Dataset,
    indices: Indices,
    predicted: Floats,
    truth: Floats,
    *,
    target: str,
    how_many: int,
) -> tuple[Worst, ...]:
    """The molecules with the largest errors in one target.

    Args:
        dataset: All molecules.
        indices: (n_molecules,), places of those that were predicted.
        predicted: (n_molecules, 19), in the order of `properties.TARGETS` and in their units.
        truth: (n_molecules, 19).
        target: One of `properties.TARGETS`.
        how_many: At most.

    Returns:
        The largest absolute error first; equal ones in the order of `indices`.

    Raises:
        ConfigError: There is no such target.
    """
    column = TARGETS.index(get(target).name)
    errors = np.abs(predicted[:, column] - truth[:, column])
    order = np.argsort(-errors, kind="stable")[:how_many]
    return tuple(
        Worst(
            place=int(indices[row]),
            qm9_index=int(dataset.index[indices[row]]),
            smiles=dataset.smiles(int(indices[row])),
            atoms=int(dataset.sizes[indices[row]]),
            predicted=float(predicted[row, column]),
            true=float(truth[row, column]),
        )
        for row in order
    )

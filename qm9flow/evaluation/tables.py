"""Errors per target, beside the baseline and chemical accuracy."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow.properties import PROPERTIES
from qm9flow.training.metrics import mean_absolute_errors, pooled_rmse

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ErrorRow:
    """One target.

    Attributes:
        target: Its name.
        unit: Unit of the three errors.
        mae: Mean absolute error.
        baseline_mae: That of the linear model of the composition, if it was asked for.
        chemical_accuracy: What chemists take as good enough, where the literature names it.
    """

    target: str
    unit: str
    mae: float
    baseline_mae: float | None
    chemical_accuracy: float | None

    @property
    def mae_over_accuracy(self) -> float | None:
        """Below 1 is better than chemical accuracy."""
        return None if self.chemical_accuracy is None else self.mae / self.chemical_accuracy


@dataclass(frozen=True)
class ErrorTable:
    """All 19 targets.

    Attributes:
        molecules: How many were predicted.
        rows: One a target, in the order of `properties.TARGETS`.
        rmse_pooled: Over molecules and all 19 targets together, units ignored.
        rmse_pooled_without_a: The same over 18, without the rotational constant A.
    """

    molecules: int
    rows: tuple[ErrorRow, ...]
    rmse_pooled: float
    rmse_pooled_without_a: float

    def row(self, target: str) -> ErrorRow:
        """The row of one target.

        Args:
            target: One of `properties.TARGETS`.

        Returns:
            Its row.
        """
        return {row.target: row for row in self.rows}[target]

    def maes(self) -> dict[str, float]:
        """Mean absolute errors alone.

        Returns:
            By target, in its unit.
        """
        return {row.target: row.mae for row in self.rows}

    def rows_as_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain values.

        Returns:
            One dictionary a target.
        """
        return [{**asdict(row), "mae_over_accuracy": row.mae_over_accuracy} for row in self.rows]

    def as_dict(self) -> dict[str, Any]:
        """The table as JSON values.

        Returns:
            `molecules`, `targets` by name, `rmse_pooled`, `rmse_pooled_without_a`.
        """
        rows = self.rows_as_dicts()
        return {
            "molecules": self.molecules,
            "targets": {row.pop("target"): row for row in rows},
            "rmse_pooled": self.rmse_pooled,
            "rmse_pooled_without_a": self.rmse_pooled_without_a,
        }


def error_table(predicted: Floats, truth: Floats, baseline: Floats | None = None) -> ErrorTable:
    """Errors of predictions of all 19 targets.

    Args:
        predicted: (n_molecules, 19), in the order of `properties.TARGETS` and in their units.
        truth: (n_molecules, 19).
        baseline: (n_molecules, 19), from `baseline.linear_baseline`; None leaves its column empty.

    Returns:
        The table.
    """
    errors = mean_absolute_errors(predicted, truth)
    of_baseline = {} if baseline is None else mean_absolute_errors(baseline, truth)
    rows = tuple(
        ErrorRow(
            item.name,
            item.unit,
            errors[item.name],
            of_baseline.get(item.name),
            item.chemical_accuracy,
        )
        for item in PROPERTIES
    )
    return ErrorTable(
        len(truth), rows, pooled_rmse(predicted, truth), pooled_rmse(predicted, truth, ("a",))
    )

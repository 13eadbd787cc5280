"""Error tables: right numbers, right units."""

import json

import numpy as np
import pytest

from qm9flow.evaluation.tables import ErrorTable, error_table
from qm9flow.properties import PROPERTIES, TARGETS

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=(50, 19))


@pytest.fixture
def table() -> ErrorTable:
    """Off by 0.043 everywhere, by 3 in A; the baseline is off by 1."""
    predicted = TRUTH + 0.043
    predicted[:, TARGETS.index("a")] = TRUTH[:, TARGETS.index("a")] - 3
    return error_table(predicted, TRUTH, TRUTH + 1)


def test_rows_name_targets_units_and_errors(table: ErrorTable) -> None:
    assert [row.target for row in table.rows] == list(TARGETS)
    assert [row.unit for row in table.rows] == [item.unit for item in PROPERTIES]
    gap = table.row("gap")
    assert gap.mae == pytest.approx(0.043)
    assert gap.baseline_mae == pytest.approx(1)
    assert gap.chemical_accuracy == 0.043
    assert gap.mae_over_accuracy == pytest.approx(1)
    a = table.row("a")
    assert a.mae == pytest.approx(3)
    assert a.chemical_accuracy is a.mae_over_accuracy is None


def test_pooled_errors(table: ErrorTable) -> None:
    assert table.molecules == 50
    assert table.rmse_pooled == pytest.approx(np.sqrt((18 * 0.043**2 + 9) / 19))
    assert table.rmse_pooled_without_a == pytest.approx(0.043)


def test_perfect_predictions_have_no_error() -> None:
    table = error_table(TRUTH, TRUTH)
    assert {row.mae for row in table.rows} == {0.0}
    assert table.rmse_pooled == 0


def test_json_form_survives_json(table: ErrorTable) -> None:
    facts = table.as_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert list(facts["targets"]) == list(TARGETS)
    assert facts["targets"]["mu"]["unit"] == "D"
    assert facts["targets"]["mu"]["mae"] == pytest.approx(0.043)
    assert table.rows_as_dicts()[0]["target"] == "mu"


def test_without_baseline_its_column_is_empty() -> None:
    assert error_table(TRUTH + 1, TRUTH).row("mu").baseline_mae is None

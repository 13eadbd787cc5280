"""Error tables: right numbers, right units, three forms."""

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
    assert "0.000000" not in table.as_text()


def test_json_form_survives_json(table: ErrorTable) -> None:
    facts = table.as_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert list(facts["targets"]) == list(TARGETS)
    assert facts["targets"]["mu"]["unit"] == "D"
    assert facts["targets"]["mu"]["mae"] == pytest.approx(0.043)
    assert table.rows_as_dicts()[0]["target"] == "mu"


def test_text_form_is_aligned(table: ErrorTable) -> None:
    header, *rows = table.as_text().split("\n\n")[0].splitlines()
    assert len(rows) == 19
    end = header.index("baseline") + len("baseline")
    assert all(row[end - 1] != " " and row[end] == " " for row in rows[:-3])
    assert rows[0].split() == ["mu", "D", "0.04300", "1.000", "0.1", "0.43"]
    assert rows[-3].split() == ["a", "GHz", "3.000", "1.000", "-", "-"]
    assert "without A 0.04300" in table.as_text()


def test_markdown_form_is_a_table(table: ErrorTable) -> None:
    lines = table.as_markdown().split("\n\n")[0].splitlines()
    assert len(lines) == 21
    assert {line.count("|") for line in lines} == {7}
    assert "| u0 | eV | 0.04300 | 1.000 | 0.043 | 1.0 |" in lines


@pytest.mark.parametrize(
    ("error", "shown"), [(2.5e-6, "2.5e-06"), (0.0312345, "0.03123"), (843.81, "843.8"),
                         (12345.6, "12346"), (0.0, "0")],
)  # fmt: skip
def test_numbers_are_readable(error: float, shown: str) -> None:
    table = error_table(np.full((1, 19), error), np.zeros((1, 19)))
    assert table.as_text().splitlines()[1].split()[2] == shown


def test_without_baseline_its_column_is_empty() -> None:
    table = error_table(TRUTH + 1, TRUTH)
    assert table.row("mu").baseline_mae is None
    assert table.as_text().splitlines()[1].split()[3] == "-"


def test_not_a_number_is_shown() -> None:
    table = error_table(np.full((1, 19), np.nan), np.zeros((1, 19)))
    assert table.as_text().splitlines()[1].split()[2] == "nan"

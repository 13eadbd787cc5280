import pytest

from qm9flow.evaluation.health import failing_verdicts, health_maps, most_affected
from qm9flow.tuning.parameters import Axis
from qm9flow.tuning.records import TrialRecord

DEPTH = Axis("depth", "linear", 1.0, 4.0, is_integer=True)
WIDTH = Axis("width", "log", 2.0, 128.0, is_integer=True)
BATCH = Axis("batch", "log", 1.0, 1024.0, is_integer=True)
RATE = Axis("rate", "log", 1e-5, 1e-1)
LOSS = Axis("loss", "choice", 0.0, 1.0, True, ("rmse", "mae"))
DECAY = Axis("decay", "linear", 0.0, 0.6)
AXES = [DEPTH, WIDTH, BATCH, RATE, LOSS, DECAY]


def trials() -> list[TrialRecord]:
    """Deep networks at small rates vanish, those at the largest rates die."""
    found = []
    for number in range(160):
        depth, rate = 1 + number % 4, 10.0 ** (-5 + (number // 4) % 5)
        vanishes = depth == 4 and rate < 5e-5
        dies = rate > 5e-2
        params = {"depth": depth, "width": 2 + number % 127, "batch": 1 + 7 * number % 1024}
        params |= {"rate": rate, "loss": ("rmse", "mae")[number % 2], "decay": number / 300}
        reason = "vanishing" if vanishes else "dead" if dies else None
        state = "pruned" if reason else "complete"
        verdict = None if number % 40 == 2 else "healthy"
        found.append(TrialRecord(number, state, params, reason=reason, verdict=verdict))  # type: ignore[arg-type]
    return found


def test_each_trial_is_in_one_column() -> None:
    everyone = trials()
    judged = sum(t.verdict is not None or t.reason is not None for t in everyone)
    for item in health_maps(everyone, AXES):
        assert sum(column.trials for column in item.columns) == judged
        assert sum(column.counts["dead"] for column in item.columns) == 32


def test_columns_hold_the_whole_range() -> None:
    labels = {
        item.name: [column.label for column in item.columns] for item in health_maps(trials(), AXES)
    }
    assert labels["depth"] == ["1", "2", "3", "4"]
    assert labels["width"] == ["2-3", "4-7", "8-15", "16-31", "32-63", "64-128"]
    assert labels["batch"] == ["1-3", "4-15", "16-63", "64-255", "256-1024"]
    assert labels["rate"][0] == "1e-5 to 3.2e-5"
    assert labels["rate"][-1] == "0.032 to 0.1"
    assert labels["loss"] == ["rmse", "mae"]
    assert len(labels["decay"]) == 6


def test_the_place_where_gradients_fail_is_found() -> None:
    everyone = trials()
    assert failing_verdicts(everyone) == ["dead", "vanishing"]
    maps = health_maps(everyone, AXES)
    name, column = most_affected(maps, "dead") or ("", None)
    assert (name, column and column.label) == ("rate", "0.032 to 0.1")
    assert column is not None
    assert column.share("dead") == 1.0
    found = most_affected(health_maps(everyone, [DEPTH]), "vanishing")
    assert found is not None
    assert found[1].label == "4"
    assert found[1].share("vanishing") == pytest.approx(8 / 40)
    assert most_affected(maps, "exploding") is None


def test_a_value_that_only_a_few_trials_have_is_no_finding() -> None:
    few = [TrialRecord(0, "pruned", {"depth": 4}, reason="vanishing")]
    assert most_affected(health_maps(few, [DEPTH]), "vanishing") is None

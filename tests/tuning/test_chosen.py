"""A choice stays what it was as long as the trials do."""

from dataclasses import replace
from pathlib import Path

from qm9flow.tuning import chosen
from qm9flow.tuning.history import History
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.selection import Final, Selection, with_speeds

TRIALS = tuple(
    TrialRecord(number=number, state="complete", params={}, score=1.0 - 0.1 * number)
    for number in range(3)
)


def test_a_choice_comes_back_until_trials_end(tmp_path: Path) -> None:
    history = History.open(f"sqlite:///{tmp_path}/optuna.db", "demo")
    assert chosen.find(history, TRIALS) is None
    speeds = {2: 1234.5, 0: 99.0}
    timed = with_speeds(TRIALS, speeds)
    selection = Selection(
        timed[2], (timed[2], timed[0]), 0.01, (2,), speeds, (Final(2, 1.5, 0.3, 4),)
    )
    chosen.keep(history, selection, TRIALS)
    again = History.open(f"sqlite:///{tmp_path}/optuna.db", "demo")
    assert chosen.find(again, TRIALS) == selection
    waiting = TrialRecord(number=3, state="running", params={})
    assert chosen.find(again, (*TRIALS, waiting)) == selection
    assert chosen.find(again, (*TRIALS, replace(waiting, state="pruned", score=0.9))) is None

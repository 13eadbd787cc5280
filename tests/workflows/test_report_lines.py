"""What a study tells people."""

from pathlib import Path
from typing import Any

from qm9flow.tuning.coordinator import StudyResult
from qm9flow.tuning.records import TrialRecord
from qm9flow.workflows import report
from qm9flow.workflows.final_training import final_name
from qm9flow.workflows.records import study_text, unfinished


def result(ended: int, total: int) -> StudyResult:
    trials = tuple(TrialRecord(number, "complete", {}, 0.5) for number in range(ended))
    return StudyResult("a study", trials, "0", "complete", total, 1.0)


def test_fewer_trials_than_there_are_is_said() -> None:
    lines = report.search(result(3, 2)).splitlines()
    assert lines[1].strip().startswith("3 trials had ended before, more than the 2 asked for now")
    assert len(report.search(result(2, 2)).splitlines()) == 1


def test_trainings_that_were_interrupted_are_shown(tmp_path: Path) -> None:
    for folder, number, record in (
        ("finals", 7, None),
        ("finals", 8, "final.json"),
        ("final", 3, None),
        ("final", 4, "trained.json"),
    ):
        place = tmp_path / folder / final_name(number, 0.25)
        place.mkdir(parents=True)
        (place / "epochs.jsonl").write_text("{}\n" * number)
        if record:
            (place / record).write_text("{}")
    shown: dict[str, Any] = {"study": "s", "n_trials": 9, "states": {}, "best_score": None}
    shown |= {"trials": [], "finals": [], "candidate": None, "unfinished": unfinished(tmp_path)}
    assert study_text(shown).splitlines()[-2:] == [
        "not ended: finals, trial 7, 0.25 min, 7 epochs done",
        "not ended: final training, trial 3, 0.25 min, 3 epochs done",
    ]
    assert unfinished(tmp_path / "none") == []

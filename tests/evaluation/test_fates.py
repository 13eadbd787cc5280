from qm9flow.evaluation.fates import by_reason, by_rung, count_endings, fate, verdict_of
from qm9flow.tuning.records import TrialRecord

TRIALS = [
    TrialRecord(0, "complete", {}, verdict="healthy", epochs=9),
    TrialRecord(1, "failed", {}, reason="out_of_memory"),
    TrialRecord(2, "pruned", {}, reason="halving", verdict="healthy", epochs=3),
    TrialRecord(3, "pruned", {}, reason="vanishing", verdict="healthy", epochs=1),
    TrialRecord(4, "pruned", {}, reason="vanishing", epochs=1),
    TrialRecord(5, "running", {}),
    TrialRecord(6, "pruned", {}, reason="dead_relu", epochs=2),
    TrialRecord(7, "pruned", {}, reason="halving", verdict="healthy", epochs=1),
]


def test_endings_are_counted_by_how_and_why() -> None:
    assert list(count_endings(TRIALS).items()) == [
        (("complete", "completed, gradients healthy"), 1),
        (("halving", "behind at rung 3"), 1),
        (("halving", "behind at rung 1"), 1),
        (("gradients", "stopped, gradients vanishing"), 2),
        (("gradients", "stopped, gradients dead ReLU"), 1),
        (("failed", "failed, out of memory"), 1),
    ]


def test_rungs_and_reasons() -> None:
    assert by_rung(TRIALS) == {1: 1, 3: 1}
    assert by_reason(TRIALS, "gradients") == {"vanishing": 2, "dead ReLU": 1}


def test_what_stopped_a_trial_is_its_verdict() -> None:
    assert [verdict_of(trial) for trial in TRIALS[:4]] == [
        "healthy",
        "unknown",
        "healthy",
        "vanishing",
    ]
    assert fate(TRIALS[6]) == "gradients"

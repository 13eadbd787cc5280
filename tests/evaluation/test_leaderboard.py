from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

from qm9flow.evaluation.leaderboard import rank


def run(trial: int, state: str, metrics: dict[str, float], **params: object) -> Run:
    info = RunInfo(f"run{trial}", "0", "user", "FINISHED", 0, 1, "active")
    tags = {"trial": str(trial), "state": state, "verdict": "healthy"}
    return Run(
        info,
        RunData(
            [Metric(name, value, 0, 0) for name, value in metrics.items()],
            [Param(name, str(value)) for name, value in params.items()],
            [RunTag(name, value) for name, value in tags.items()],
        ),
    )


def test_the_lowest_score_of_completed_trials_comes_first() -> None:
    rows = rank(
        [
            run(0, "failed", {}, hidden=2),
            run(1, "pruned", {"best/val/score": 0.1}),
            run(2, "complete", {"best/val/score": 0.3, "best/val/gap/mae": 0.2, "best_epoch": 9.0}),
            run(3, "complete", {"best/val/score": float("nan")}),
            run(4, "complete", {"best/val/score": 0.2, "model/parameters": 1e5}, hidden=64),
            run(5, "running", {"best/val/score": 0.0}),
        ]
    )
    assert [row["trial"] for row in rows] == [4, 2, 3, 1, 0]
    assert len({tuple(row) for row in rows}) == 1
    best, second = rows[0], rows[1]
    assert best["hidden"] == "64"
    assert best["parameters"] == 100_000
    assert best["gap_mae [eV]"] is None
    assert second["gap_mae [eV]"] == 0.2
    assert second["best_epoch"] == 9
    assert "mu_mae [D]" not in best


def test_no_runs_give_no_rows() -> None:
    assert rank([]) == []

"""A small study in this process, started again in the ways that users find."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from qm9flow.config import StudyConfig
from qm9flow.errors import ConfigError, StudyError
from qm9flow.evaluation.leaderboard import leaderboard
from qm9flow.registry.aliases import promote, rollback
from qm9flow.registry.versions import resolve
from qm9flow.tracking.stores import resolve_stores
from qm9flow.workflows.console import Console
from qm9flow.workflows.records import delete_study, list_studies, show_study, study_text
from qm9flow.workflows.single import config_of_run, run_training
from qm9flow.workflows.study import resume_study, run_study
from qm9flow.workflows.study_report import report_study

pytestmark = pytest.mark.slow

SMALL = StudyConfig(
    n_trials=2,
    train_size=128,
    val_size=64,
    max_epochs=1,
    final_minutes=0.02,
    study_name="my study",
    n_jobs=1,
    seed_pretrained=False,
)


def quiet(lines: list[str] | None = None) -> Console:
    return Console(say=(lines if lines is not None else []).append)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests work on one study, one after the other."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(home)


def client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")


def runs() -> list[Run]:
    experiments = [item.experiment_id for item in client().search_experiments()]
    return list(client().search_runs(experiments))


def test_resumed_from_another_experiment_it_stays_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    first: list[str] = []
    assert run_study(SMALL, quiet(first)) is not None
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    again: list[str] = []
    assert resume_study("my study", None, {}, quiet(again)) is not None
    assert len({run.info.experiment_id for run in runs()}) == 1
    table = next(line for line in first if line.startswith("no other trial"))
    assert table in again  # the same speeds and the same choice
    assert "qm9flow study show 'my study'" in again[-1]
    # `mlflow run` makes the new parent where it likes.
    parent = client().create_run("0", tags={"mlflow.project.entryPoint": "main"}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    assert resume_study("my study", None, {}, quiet()) is not None
    trials = [run for run in runs() if run.data.tags.get("kind") == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent}
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    assert resume_study("my study", None, {}, quiet()) is not None
    assert not [run for run in runs() if run.info.status == "RUNNING"]


def test_on_another_device_it_goes_on() -> None:
    other = StudyConfig(**{**SMALL.__dict__, "device": "cpu"})
    assert run_study(other, quiet()) is not None


def test_started_again_it_leaves_the_champion_alone() -> None:
    trials = [run for run in runs() if run.data.tags.get("kind") == "trial"]
    trial = next(run for run in trials if run.data.tags["state"] == "complete")
    train, _ = config_of_run(trial.info.run_id)
    done = run_training(
        train, quiet(), name="other", is_to_be_registered=True, seed_pretrained=False
    )
    assert done is not None
    if "champion" not in resolve(2).aliases:
        promote(resolve(2), force=True)
    lines: list[str] = []
    assert resume_study("my study", None, {}, quiet(lines)) is not None
    assert resolve("champion").number == 2
    assert "version 1 is without alias: judged before" in "\n".join(lines)
    rollback()
    assert resume_study("my study", None, {}, quiet()) is not None
    assert resolve("champion").number == 1


def test_a_stop_during_release_is_heeded() -> None:
    lines: list[str] = []
    console = Console(say=lines.append, stop=lambda: any("measuring" in line for line in lines))
    more = {"final_minutes": 0.03}
    assert resume_study("my study", None, more, console) is None
    assert "qm9flow study resume 'my study'" in lines[-1]
    assert max(int(v.version) for v in client().search_model_versions()) == 2


def test_finals_are_held_once_and_choose_the_candidate() -> None:
    lines: list[str] = []
    console = Console(say=lines.append, stop=lambda: any("finals:" in line for line in lines))
    more = {"n_trials": 4, "finalists": 3, "final_minutes": 0.3}
    assert resume_study("my study", None, more, console) is None
    assert "unless finals choose another" in study_text(show_study("my study", None, 1))
    again: list[str] = []
    assert resume_study("my study", None, more, quiet(again)) is not None
    assert [line.split(",")[0] for line in again if line.startswith("finals")] == [
        "finals: 3 trials on the whole split",
        "finals: 2 trials on the whole split",
    ]
    assert "in the last round" in "\n".join(again)
    once_more: list[str] = []
    assert resume_study("my study", None, more, quiet(once_more)) is not None
    held = [line for line in once_more if line.startswith("finals")]
    assert [line.split(", ")[-1] for line in held] == ["3 of them before", "2 of them before"]
    none: list[str] = []
    assert resume_study("my study", None, more | {"finalists": 0}, quiet(none)) is not None
    assert not any("finals" in line for line in none)
    assert resume_study("my study", None, more, quiet()) is not None
    parent = list_studies(None)[0]["parent_run_id"]
    assert {"finals.csv", "leaderboard.csv"} <= {
        item.path for item in client().list_artifacts(parent)
    }


def test_finals_have_runs_of_their_own() -> None:
    shown = show_study("my study", None, 4)
    finals = {item["run_id"]: item for item in shown["finals"]}
    found = {run.info.run_id: run for run in runs() if run.data.tags.get("kind") == "final"}
    assert len(found) == 5  # three, and two of them again
    assert finals.keys() == found.keys()
    for run_id, run in found.items():
        final = finals[run_id]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == shown["parent_run_id"]
        assert run.data.tags["trial"] == str(final["number"])
        assert run.data.metrics["best/val/score"] == final["score"]
        history = client().get_metric_history(run_id, "val/score")
        assert [point.step for point in history] == list(range(1, final["epochs"] + 1))
        files = {item.path for item in client().list_artifacts(run_id)}
        assert {"config.json", "gradients.npz", "model"} <= files
    text = study_text(shown)
    assert f"candidate: trial {shown['candidate']}, score" in text
    rows = leaderboard(resolve_stores(), shown["parent_run_id"])
    assert sorted(row["trial"] for row in rows) == [0, 1, 2, 3]


def test_the_report_goes_where_it_can(home: Path) -> None:
    (home / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken"):
        report_study("my study", None, "taken")
    assert "report/report.html in run" in report_study("my study", None, None).place


def test_another_programs_database_is_left_alone(home: Path) -> None:
    before = (home / "mlflow.db").read_bytes()
    with pytest.raises(StudyError, match="not Optuna's"):
        list_studies(f"sqlite:///{home}/mlflow.db")
    assert (home / "mlflow.db").read_bytes() == before


def test_deleted_it_leaves_no_run_in_any_experiment() -> None:
    count = len([run for run in runs() if run.data.tags.get("study") == "my study"])
    assert delete_study("my study", None) == f"deleted study my study: 4 trials, {count} runs"
    assert not [run for run in runs() if run.data.tags.get("study") == "my study"]
    assert [run for run in runs() if run.data.tags.get("training") == "other"]

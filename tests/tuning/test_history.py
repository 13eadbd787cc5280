"""The trials of a study: what memory says is what the storage holds."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from small_study import TINY

from qm9flow.errors import ConfigError, StudyError
from qm9flow.tuning import history as history_module
from qm9flow.tuning.history import History, open_storage
from qm9flow.tuning.sampling import make_sampler

FIRST = TINY.first


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/new/optuna.db"


def loaded(url: str) -> History:
    history = History.open(url, "s")
    history.load()
    return history


def plain(trials: list[optuna.trial.FrozenTrial]) -> list[dict[str, Any]]:
    return [
        {
            "number": trial.number,
            "state": trial.state,
            "params": trial.params,
            "distributions": trial.distributions,
            "values": trial.values,
            "told": trial.intermediate_values,
            "notes": trial.user_attrs,
        }
        for trial in trials
    ]


def test_memory_and_storage_agree(url):
    history, sampler = loaded(url), make_sampler("tpe", TINY, 0)
    for score in (0.5, 0.25, None):
        number = history.ask(sampler, TINY, {"origin": "test"})
        history.annotate(number, "run_id", f"r{number}")
        if score is not None:
            history.report(number, 1, score)
            history.report(number, 1, 99.0)  # an epoch that has a score keeps it
    history.tell(0, TrialState.COMPLETE, 0.5)
    history.tell(1, TrialState.PRUNED, 0.25)
    stored = optuna.load_study(study_name="s", storage=url).trials
    assert plain(history.trials) == plain(stored) == plain(loaded(url).trials)
    assert [trial.state.name for trial in stored] == ["COMPLETE", "PRUNED", "RUNNING"]
    assert stored[0].params == FIRST
    assert stored[0].intermediate_values == {1: 0.5}


def test_a_failed_trial_has_no_value_and_none_is_told_twice(url):
    history = loaded(url)
    number = history.ask(make_sampler("random", TINY, 0), TINY, {})
    history.tell(number, TrialState.FAIL, 1.0)
    assert history.trial(number).values is None
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        history.tell(number, TrialState.COMPLETE, 1.0)


def test_trials_enqueued_by_hand_come_first(url):
    open_storage(url)
    wanted = {"conv_layers": 2, "hidden": 7, "learning_rate": 0.05}
    study = optuna.create_study(study_name="s", storage=url)
    study.enqueue_trial(wanted)
    study.enqueue_trial({"hidden": 3})
    history, sampler = loaded(url), make_sampler("tpe", TINY, 0)
    for _ in range(3):
        history.ask(sampler, TINY, {"starts": 1})
    stored = optuna.load_study(study_name="s", storage=url).trials
    assert plain(history.trials) == plain(stored)
    assert stored[0].params == wanted
    assert stored[1].params["hidden"] == 3
    assert set(stored[2].params) == set(TINY.parameters)
    assert {trial.state for trial in stored} == {TrialState.RUNNING}


def test_another_writer_is_noticed(url):
    history, sampler = loaded(url), make_sampler("random", TINY, 0)
    history.ask(sampler, TINY, {})
    optuna.load_study(study_name="s", storage=url).ask()
    with pytest.raises(StudyError, match="another program added trials"):
        history.ask(sampler, TINY, {})


def test_a_busy_storage_is_waited_for(url, monkeypatch):
    history, sampler = loaded(url), make_sampler("random", TINY, 0)
    number = history.ask(sampler, TINY, {})
    monkeypatch.setattr(history_module, "PAUSES_SECONDS", (0.0, 0.0))
    storage = history._storage
    inner, failures = storage.set_trial_user_attr, [2]

    def busy(*args: Any, **kwargs: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise optuna.exceptions.StorageInternalError("database is locked")
        inner(*args, **kwargs)

    monkeypatch.setattr(storage, "set_trial_user_attr", busy)
    history.annotate(number, "run_id", "r")
    assert loaded(url).trial(number).user_attrs == {"run_id": "r"}
    failures[0] = 3
    with pytest.raises(StudyError, match="start the study again"):
        history.annotate(number, "run_id", "q")


def test_an_end_whose_answer_was_lost_is_written_once(url, monkeypatch):
    history = loaded(url)
    number = history.ask(make_sampler("random", TINY, 0), TINY, {})
    monkeypatch.setattr(history_module, "PAUSES_SECONDS", (0.0,))
    inner, lost = history._storage.set_trial_state_values, [True]

    def answer_lost(*args: Any) -> bool:
        written = inner(*args)
        if lost.pop() if lost else False:
            raise optuna.exceptions.StorageInternalError("server closed the connection")
        return written

    monkeypatch.setattr(history._storage, "set_trial_state_values", answer_lost)
    history.tell(number, TrialState.COMPLETE, 0.5)
    assert not lost
    assert history.trial(number).values == loaded(url).trial(number).values == [0.5]


def test_storages_that_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigError, match="no database URL"):
        open_storage("mlruns/optuna.db")
    with pytest.raises(ConfigError, match="no database URL"):
        open_storage("oracel://x")
    (tmp_path / "file").write_text("no database, and long enough to be seen as none" * 10)
    with pytest.raises(StudyError, match="cannot open"):
        open_storage(f"sqlite:///{tmp_path}/file")
    with pytest.raises(StudyError, match="cannot open"):
        open_storage(f"sqlite:///{tmp_path}/file/optuna.db")


@pytest.mark.parametrize("kind", ["folder", "noise"])
def test_what_is_no_database_is_an_error_in_one_line(tmp_path, kind) -> None:
    path = tmp_path / "optuna.db"
    path.mkdir() if kind == "folder" else path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(StudyError, match="cannot open the study storage") as refusal:
        open_storage(f"sqlite:///{path}")
    assert "\n" not in str(refusal.value)

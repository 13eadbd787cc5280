"""Studies of a storage: list, show, delete; models and room."""

import dataclasses
import subprocess
import sys

import optuna
import pytest
from small_study import TINY, small_config, stores_at

from qm9flow.config import StudyConfig
from qm9flow.errors import StudyBusyError, StudyError
from qm9flow.registry import pretrained
from qm9flow.tracking.places import study_place
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.records import TrialRecord, delete_study, list_studies, show_study
from qm9flow.tuning.retention import displaced, estimate_size
from qm9flow.tuning.spaces import PRESETS
from qm9flow.tuning.study import default_name, open_study


def make(stores: Stores, name: str, **options: object) -> None:
    with open_study(stores, name, small_config(**options), "feed", TINY):
        pass


def test_looking_makes_no_database(tmp_path):
    stores = stores_at(tmp_path)
    assert list_studies(stores) == ()
    with pytest.raises(StudyError, match=r"no study 'x'.*there are none"):
        show_study(stores, "x")
    assert not (tmp_path / "mlruns").exists()


def test_studies_are_listed_shown_and_deleted(tmp_path):
    stores = stores_at(tmp_path)
    make(stores, "one", n_trials=7)
    make(stores, "two", seed=3)
    optuna.create_study(study_name="foreign", storage=stores.optuna_url)
    assert {study.name for study in list_studies(stores)} == {"one", "two"}
    shown = show_study(stores, "one")
    assert shown.config == small_config(n_trials=7)
    assert (shown.counts, shown.best, shown.trials, shown.holder) == ({}, None, (), None)
    assert delete_study(stores, "one") == (0, 0)
    assert [study.name for study in list_studies(stores)] == ["two"]
    assert not study_place(stores, "one").state.exists()
    with pytest.raises(StudyError, match="there are foreign, two"):
        delete_study(stores, "one")


def test_a_running_study_is_shown_and_not_deleted(tmp_path):
    stores = stores_at(tmp_path)
    with open_study(stores, "one", small_config(), "feed", TINY):
        holder = show_study(stores, "one").holder
        assert holder is not None
        assert holder.is_alive
        with pytest.raises(StudyBusyError):
            delete_study(stores, "one")
    assert show_study(stores, "one").holder is None


def test_trials_are_shown_with_what_became_of_them(undisturbed):
    stores, result = undisturbed
    shown = show_study(stores, "demo")
    assert shown.trials == result.trials
    assert shown.best == result.best
    assert shown.parent_run_id == result.parent_run_id
    (listed,) = list_studies(stores)
    assert listed == dataclasses.replace(shown, trials=())
    assert shown.started is not None
    assert shown.changed is not None
    assert shown.started < shown.changed


def test_options_of_another_version_do_not_hide_a_study(tmp_path):
    stores = stores_at(tmp_path)
    make(stores, "one")
    study = optuna.load_study(study_name="one", storage=stores.optuna_url)
    study.set_user_attr("config", {"n_trials": 5, "warp": 9})
    assert show_study(stores, "one").config == StudyConfig(n_trials=5)


def test_default_names_tell_studies_apart():
    config = StudyConfig()
    name = default_name(config, "feed", "0123456789abcdef")
    assert name.startswith("seed-")
    assert name.endswith("-01234567")
    assert default_name(dataclasses.replace(config, n_trials=9), "feed", "01234567") == name
    assert default_name(dataclasses.replace(config, seed=9), "feed", "01234567") != name


def test_models_beyond_the_best_are_displaced():
    records = [
        TrialRecord(number, "complete", {}, score) for number, score in enumerate([3.0, 1.0, 2.0])
    ]
    records.append(TrialRecord(3, "pruned", {}, 0.5))
    assert displaced(records, None, set()) == []
    assert displaced(records, 2, set()) == [0]
    assert displaced(records, 1, {0}) == [2]
    assert displaced(records, 9, set()) == []


def test_the_room_a_study_takes():
    space = PRESETS["seed"]
    one = estimate_size(space, StudyConfig(n_trials=1))
    alone = estimate_size(space, StudyConfig(n_trials=1, seed_pretrained=False))
    many = estimate_size(space, StudyConfig(n_trials=1800))
    assert 10_000 < one.models < 10_000_000
    assert many.models == pytest.approx(1800 * one.models, rel=1e-3)
    assert 8_000_000 < alone.total < 30_000_000  # databases, figures and the final network
    assert one.total - alone.total > pretrained_size()  # its copy, and what is taken over from it
    a_trial = (many.records - one.records) / 1799
    assert 60_000 < a_trial < 1_000_000
    assert many.largest_model < 40_000_000
    few = estimate_size(space, StudyConfig(n_trials=12, finalists=12))
    assert estimate_size(space, StudyConfig(n_trials=12, finalists=1000)) == few
    kept = estimate_size(space, StudyConfig(n_trials=1800, keep_models=20))
    assert kept.models == pytest.approx(20 * one.models, rel=1e-3)


def pretrained_size() -> int:
    return sum(path.stat().st_size for path in pretrained.FOLDER.rglob("*") if path.is_file())


def test_looking_at_studies_needs_no_torch():
    code = "import sys, qm9flow.tuning.records; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""No two studies or trainings share a folder or a key, whatever they are called."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm9flow.tracking.places import folder_name, study_place, training_place
from qm9flow.tracking.stores import Stores

BASE = Path("/somewhere/mlruns")
STORES = Stores(
    "sqlite:////somewhere/mlflow.db",
    f"sqlite:///{BASE}/optuna.db",
    BASE / "tensorboard",
    BASE / "state",
)
NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(["a/b", "a_b", "trainings", "..", "."])


def test_a_plain_name_is_the_folder() -> None:
    assert study_place(STORES, "seed-1.a").state == BASE / "state" / "seed-1.a"
    assert study_place(STORES, "seed-1.a").tensorboard == BASE / "tensorboard" / "seed-1.a"


@pytest.mark.parametrize("name", ["../../etc", "a b/c", "..", ""])
def test_names_cannot_leave_their_folder(name: str) -> None:
    folder = folder_name(name)
    assert folder not in ("", ".", "..")
    assert "/" not in folder


@given(NAMES, NAMES)
def test_two_names_have_two_places(one: str, other: str) -> None:
    places = [study_place(STORES, name) for name in {one, other}]
    places += [training_place(STORES, name) for name in {one, other}]
    for values in (
        [place.key for place in places],
        [place.state for place in places],
        [place.tensorboard for place in places],
    ):
        assert len(set(values)) == len(values)
        assert not any(a in b.parents for a in values for b in values if isinstance(b, Path))


def test_one_name_in_two_storages_has_two_places() -> None:
    other = replace(STORES, optuna_url="postgresql://me:secret@host/db")
    assert study_place(other, "one").key != study_place(STORES, "one").key
    assert study_place(other, "one").state != study_place(STORES, "one").state
    again = replace(STORES, optuna_url="postgresql://me:changed@host/db")
    assert study_place(again, "one") == study_place(other, "one")

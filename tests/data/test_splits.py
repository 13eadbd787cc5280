"""Splits: frozen, disjoint, complete, comparable."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm9flow.config import SplitName
from qm9flow.data.splits import SPLITS, Split, load, make_split, save
from qm9flow.errors import ConfigError, DataError

DIGESTS = {
    "standard": "dc659f2745b8ed5044c7d208160123b9a460b2d244bb83938e02f7fecc3d89d3",
    "seed": "3df9abfd03bdb639ff225a03934e2c57141a8654d9fc26a7c12d967d01da1d1d",
}
SIZES = {"standard": (110_000, 10_000, 10_831), "seed": (91_581, 19_625, 19_625)}

names = st.sampled_from(SPLITS)
numbers = st.integers(20, 3000)
seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("name", SPLITS)
def test_sizes_and_digest_are_frozen(name: SplitName) -> None:
    """Results of one year must be comparable with those of the next."""
    split = make_split(name)
    assert (len(split.train), len(split.validation), len(split.test)) == SIZES[name]
    assert split.digest == DIGESTS[name]


@settings(deadline=None)
@given(names, numbers, seeds)
def test_disjoint_and_complete(name: SplitName, n: int, seed: int) -> None:
    split = make_split(name, n, seed)
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together.tolist()) == list(range(n))
    assert min(len(split.train), len(split.validation), len(split.test)) >= 1


@settings(deadline=None)
@given(numbers, seeds)
def test_seed_split_begins_with_standard(n: int, seed: int) -> None:
    standard, halved = make_split("standard", n, seed), make_split("seed", n, seed)
    for mine, theirs in (
        (halved.validation, standard.validation),
        (halved.test, standard.test),
        (standard.train, halved.train),
    ):
        assert mine[: len(theirs)].tolist() == theirs.tolist()


def test_nobody_trains_on_standard_validation_or_test() -> None:
    standard, halved = make_split("standard"), make_split("seed")
    held_out = np.concatenate([standard.validation, standard.test])
    assert not np.intersect1d(held_out, halved.train).size


@settings(deadline=None)
@given(names, numbers, st.integers(0, 100), st.data())
def test_train_size_takes_a_prefix(name: SplitName, n: int, seed: int, data: st.DataObject) -> None:
    split = make_split(name, n, seed)
    size = data.draw(st.integers(1, len(split.train)))
    assert split.first_train(size).tolist() == split.train[:size].tolist()
    assert split.first_train(None).tolist() == split.train.tolist()


@pytest.mark.parametrize("size", [0, -1, 91_582])
def test_impossible_train_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and 91581"):
        make_split("seed").first_train(size)


def test_seeds_differ_and_repeat() -> None:
    assert make_split("seed", 1000, 1).digest != make_split("seed", 1000, 2).digest
    assert make_split("seed", 1000, 1).digest == make_split("seed", 1000, 1).digest


@pytest.mark.parametrize(
    ("name", "n", "seed", "words"),
    [("scaffold", 100, 0, "unknown split"), ("seed", 19, 0, "20"), ("seed", 100, -1, "at least 0")],
)
def test_impossible_splits_are_refused(name: SplitName, n: int, seed: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_split(name, n, seed)


def test_saved_split_is_the_same(tmp_path: Path) -> None:
    split = make_split("seed", 500, 3)
    save(split, tmp_path / "split.npz")
    again = load(tmp_path / "split.npz")
    assert (again.name, again.seed, again.digest) == ("seed", 3, split.digest)
    assert [path.name for path in tmp_path.iterdir()] == ["split.npz"]


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.npz"
    save(make_split("seed", 500, 3), path)
    content = path.read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(DataError):
            load(path)


def write(path: Path, split: Split, **changed: object) -> None:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    facts = {**parts, "name": "seed", "seed": 3, "digest": split.digest, **changed}
    with path.open("wb") as file:
        np.savez(file, **{key: np.array(value) for key, value in facts.items()})


def test_exchanged_part_is_refused(tmp_path: Path) -> None:
    split = make_split("seed", 500, 3)
    write(tmp_path / "split.npz", split, train=split.train[::-1])
    with pytest.raises(DataError, match="SHA-256"):
        load(tmp_path / "split.npz")


def test_unknown_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "split.npz", make_split("seed", 500, 3), name="scaffold")
    with pytest.raises(DataError, match="scaffold"):
        load(tmp_path / "split.npz")


def test_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        save(make_split("seed", 500), tmp_path / "file" / "split.npz")

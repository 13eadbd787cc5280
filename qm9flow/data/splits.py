"""Splits: one seeded permutation of the molecules, cut in two ways.

`standard` has the sizes that the literature uses; `seed` is the group's 70/30 with its 30% halved.
Both cut the same permutation, and validation and test of `seed` begin with those of `standard`, so
that any two models can be compared on molecules that neither was trained on.
"""

import functools
import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow.config import SplitName
from qm9flow.data.source import N_MOLECULES
from qm9flow.errors import ConfigError, DataError
from qm9flow.files import replace_file

Indices = npt.NDArray[np.int64]

SPLITS: tuple[SplitName, ...] = ("standard", "seed")
MIN_MOLECULES = 20
STANDARD_TRAIN, STANDARD_VALIDATION = 110_000, 10_000


@dataclass(frozen=True, eq=False)
class Split:
    """Which molecules are trained on, validated on, tested on.

    Attributes:
        name: `standard` or `seed`.
        seed: Of the permutation.
        train: (n_train,), int64, places in the dataset, in the permutation's order.
        validation: (n_validation,), int64.
        test: (n_test,), int64.
    """

    name: SplitName
    seed: int
    train: Indices
    validation: Indices
    test: Indices

    @property
    def digest(self) -> str:
        """SHA-256 of the three parts, order included."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(f"{len(part)} ".encode())
            digest.update(np.ascontiguousarray(part, dtype="<i8").data)
        return digest.hexdigest()

    def first_train(self, train_size: int | None) -> Indices:
        """A prefix of the training part.

        Args:
            train_size: Its length; None means all of it.

        Returns:
            (train_size,), places in the dataset.

        Raises:
            ConfigError: There are not that many.
        """
        if train_size is not None and not 1 <= train_size <= len(self.train):
            raise ConfigError(
                f"train_size must lie between 1 and {len(self.train)}, the training molecules of "
                f"the split {self.name}; got {train_size}"
            )
        return self.train[:train_size]


def make_split(name: SplitName, n_molecules: int = N_MOLECULES, seed: int = 0) -> Split:
    """A split.

    Args:
        name: `standard`: 110,000 / 10,000 / 10,831; `seed`: 91,581 / 19,625 / 19,625. Other
            numbers of molecules are cut in the same proportions.
        n_molecules: How many there are, at least 20.
        seed: Of the permutation, at least 0.

    Returns:
        Disjoint parts that hold every molecule.

    Raises:
        ConfigError: An unknown name, a negative seed or too few molecules.
    """
    if n_molecules < MIN_MOLECULES:
        raise ConfigError(f"a split needs {MIN_MOLECULES} molecules, got {n_molecules}")
    if seed < 0:
        raise ConfigError(f"the seed of a split must be at least 0, got {seed}")
    order = _permutation(n_molecules, seed).copy()
    end_train = n_molecules * STANDARD_TRAIN // N_MOLECULES
    end_validation = end_train + n_molecules * STANDARD_VALIDATION // N_MOLECULES
    train, validation, test = np.split(order, [end_train, end_validation])
    if name == "standard":
        return Split(name, seed, train, validation, test)
    if name != "seed":
        raise ConfigError(f"unknown split {name!r}; the splits are {', '.join(SPLITS)}")
    n_train = n_molecules * 7 // 10
    n_validation = (n_molecules - n_train) // 2
    rest = train[n_train:]
    n_more = n_validation - len(validation)
    validation = np.concatenate([validation, rest[:n_more]])
    test = np.concatenate([test, rest[n_more:]])
    return Split(name, seed, train[:n_train], validation, test)


def save(split: Split, path: Path) -> None:
    """Write a split with its hash, under a temporary name first.

    Args:
        split: What to write.
        path: An `.npz` file.

    Raises:
        DataError: The place cannot be written.
    """
    content = io.BytesIO()
    np.savez(
        content,
        train=split.train,
        validation=split.validation,
        test=split.test,
        name=np.array(split.name),
        seed=np.array(split.seed),
        digest=np.array(split.digest),
    )
    try:
        replace_file(path, content.getvalue())
    except OSError as error:
        raise DataError(f"cannot write the split to {path}: {error}") from error


def load(path: Path) -> Split:
    """Read a split and check its hash.

    Args:
        path: What `save` wrote.

    Returns:
        The split.

    Raises:
        DataError: The file is missing, or does not hold what was written.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = [file[key].astype(np.int64) for key in ("train", "validation", "test")]
            name, seed, digest = str(file["name"]), int(file["seed"]), str(file["digest"])
    # a damaged zip gives any of these, by where it is damaged
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read the split {path}: {error}") from error
    known: dict[str, SplitName] = {item: item for item in SPLITS}
    if name not in known:
        raise DataError(f"the split {path} is called {name!r}; the splits are {', '.join(SPLITS)}")
    split = Split(known[name], seed, *parts)
    if split.digest != digest:
        raise DataError(f"the split {path} does not have its SHA-256 {digest}: make it anew")
    return split


@functools.lru_cache(maxsize=2)
def _permutation(n_molecules: int, seed: int) -> Indices:
    """The order in which random keys sort; not to be changed, as the next caller gets it too.

    NumPy promises the stream of a bit generator over versions, and no such thing for
    `Generator.permutation`.
    """
    keys = np.random.PCG64(seed).random_raw(n_molecules)
    return np.argsort(keys, kind="stable").astype(np.int64)

"""The whole of QM9: against its tables, against itself, and as a cache."""

import csv
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qm9flow import properties
from qm9flow.data import cache, source, store
from qm9flow.data.store import Dataset
from qm9flow.elements import SYMBOL_OF
from qm9flow.errors import CacheError
from qm9flow.units import HARTREE_EV

DIGEST = "9e58f3b55423db700c5b5efdd7c1294129030d49c089804947a332a2889ec932"


def test_digest_is_the_recorded_one(dataset: Dataset) -> None:
    """Whoever prepares QM9, on whatever machine, gets these bits."""
    assert dataset.digest == DIGEST


def test_shapes_and_types(dataset: Dataset) -> None:
    n, n_atoms = 130_831, 2_359_210
    assert len(dataset) == n
    expected = {
        "index": ((n,), "int32"),
        "numbers": ((n_atoms,), "uint8"),
        "positions": ((n_atoms, 3), "float32"),
        "ptr": ((n + 1,), "int64"),
        "raw": ((n, 15), "float64"),
        "rotational_ghz": ((n, 3), "float64"),
        "extents": ((n,), "float64"),
        "charges": ((n_atoms,), "float32"),
        "frequencies": ((6_308_270,), "float32"),
        "frequency_ptr": ((n + 1,), "int64"),
        "polarizability": ((n, 6), "float32"),
    }
    found = {name: getattr(dataset, name) for name in expected}
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == expected
    assert not dataset.raw.flags.writeable
    assert dataset.ptr[-1] == n_atoms
    assert dataset.sizes.min() == 3
    assert dataset.sizes.max() == 29


def test_every_value_of_some_records_against_a_csv_reader(dataset: Dataset) -> None:
    """Another way of reading the same table, number by number."""
    with source.find_tables()["qm9_part1.csv"].open(newline="") as file:
        for i, row in zip(range(500), csv.DictReader(file), strict=False):
            molecule = dataset.molecule(i)
            assert row["XYZ_file"] == f"{molecule.name}.xyz"
            assert int(row["Index"]) == dataset.index[i]
            assert row["SMILES"] == dataset.smiles(i)
            assert row["InChi"] == dataset.inchi(i)
            symbols = row["Elements"].strip("[]").replace("'", "").split(",")
            assert symbols == [SYMBOL_OF[number] for number in molecule.numbers]
            positions = np.array([float(x) for x in row["XYZ_Ang"].translate(_BARE).split(",")])
            assert (molecule.positions == positions.reshape(-1, 3).astype(np.float32)).all()
            raw = [float(row[name]) for name in properties.RAW_COLUMNS]
            assert raw == dataset.raw[i].tolist()
            modes = slice(dataset.frequency_ptr[i], dataset.frequency_ptr[i + 1])
            frequencies = [float(x) for x in row["Harmonic_Freq_cmi"].translate(_BARE).split(",")]
            np.testing.assert_allclose(dataset.frequencies[modes], frequencies, rtol=1e-7)
            atoms = slice(dataset.ptr[i], dataset.ptr[i + 1])
            charges = [float(x) for x in row["Mulliken_pop"].translate(_BARE).split(",")]
            np.testing.assert_allclose(dataset.charges[atoms], charges, rtol=1e-6)


_BARE = str.maketrans("", "", "[]")


def test_last_record_is_in_its_place(dataset: Dataset) -> None:
    """So that none was lost or doubled on the way."""
    with source.find_tables()["qm9_part3.csv"].open() as file:
        for line in file:
            last = line
    row = next(csv.reader([last]))
    assert row[2] == dataset.smiles(-1)
    assert float(row[-1]) == dataset.raw[-1, properties.RAW_COLUMNS.index(_CV)]
    assert dataset.index[-1] == int(row[1])


_CV = "Heatcapacity_Cv_cal_mol_K"


def test_derived_targets_equal_the_tables_on_all_molecules(dataset: Dataset) -> None:
    truth, derived = dataset.truth(), dataset.derived()
    column = properties.TARGETS.index
    gap = np.abs(truth - derived)[:, column("gap")] / HARTREE_EV
    assert gap.max() <= 1.0001e-4
    thermal = (truth[:, column("h")] - truth[:, column("u")]) / HARTREE_EV
    assert thermal.min() >= 0.000944 - 1e-9
    assert thermal.max() <= 0.000945 + 1e-9
    for name in ("h", "h_atom"):
        assert np.abs(truth - derived)[:, column(name)].max() / HARTREE_EV <= 1e-6
    for name in ("u0_atom", "u_atom", "g_atom", *properties.LEARNED):
        assert (truth[:, column(name)] == derived[:, column(name)]).all()


def test_rotational_constants_equal_the_tables_on_all_molecules(dataset: Dataset) -> None:
    raw, computed = dataset.truth()[:, -3:], dataset.rotational_ghz
    relative = np.abs(computed - raw) / np.where(raw > 0, raw, 1.0)
    assert relative.max() <= 2e-5


def test_units_of_methane_by_hand(dataset: Dataset) -> None:
    truth = dict(zip(properties.TARGETS, dataset.truth()[0], strict=True))
    assert truth["alpha"] == 13.21
    assert truth["homo"] == pytest.approx(-0.3877 * 27.211386245988)
    assert truth["cv"] == 6.469
    free = -37.846772 + 4 * -0.500273
    assert truth["u0_atom"] == pytest.approx((-40.47893 - free) * 27.211386245988)


def test_counts_add_up(dataset: Dataset) -> None:
    counts = dataset.counts()
    assert counts.shape == (130_831, 10)
    assert (counts.sum(axis=1) == dataset.sizes).all()
    assert counts[0].tolist() == [0, 4, 0, 0, 0, 0, 1, 0, 0, 0]


def test_counts_and_targets_are_made_once(dataset: Dataset) -> None:
    assert dataset.counts() is dataset.counts()
    assert dataset.truth() is dataset.truth()
    for values in (dataset.counts(), dataset.truth()):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0.0


def test_opens_at_once(dataset: Dataset) -> None:
    start = time.perf_counter()
    store.load_dataset(dataset.folder.parent)
    assert time.perf_counter() - start <= 0.5


def test_place_out_of_range_is_refused(dataset: Dataset) -> None:
    with pytest.raises(IndexError):
        dataset.smiles(130_831)


@pytest.fixture
def copied(dataset: Dataset, tmp_path: Path) -> Path:
    """A cache folder whose files are links: replace one to damage it."""
    folder = tmp_path / "cache" / dataset.folder.name
    folder.mkdir(parents=True)
    for path in dataset.folder.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def damage(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["numbers.npy", "raw.npy", "manifest.json"])
def test_half_written_cache_is_noticed(copied: Path, name: str) -> None:
    content = (copied / name).read_bytes()
    damage(copied / name, content[: len(content) // 2])
    with pytest.raises(CacheError, match=rf"{name}.*qm9flow data prepare --force"):
        store.load_dataset(copied.parent)


def test_lost_file_is_noticed(copied: Path) -> None:
    (copied / "positions.npy").unlink()
    with pytest.raises(CacheError, match=r"positions\.npy"):
        store.load_dataset(copied.parent)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("format", 999, "format 999"), ("tables", {}, "other tables"), ("arrays", [], "damaged")],
)
def test_other_manifest_is_noticed(copied: Path, key: str, value: object, words: str) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    damage(copied / "manifest.json", json.dumps({**manifest, key: value}).encode())
    with pytest.raises(CacheError, match=words):
        store.load_dataset(copied.parent)


def test_one_changed_byte_is_found_by_verify(copied: Path) -> None:
    assert store.verify(copied.parent).digest == DIGEST
    content = bytearray((copied / "charges.npy").read_bytes())
    content[-1] ^= 1
    damage(copied / "charges.npy", bytes(content))
    store.load_dataset(copied.parent)
    with pytest.raises(CacheError, match=r"charges.npy.*SHA-256"):
        store.verify(copied.parent)


def test_a_cache_of_another_format_lies_elsewhere(dataset: Dataset) -> None:
    assert dataset.folder.name == f"qm9-format{cache.FORMAT}"


def test_verify_without_a_cache_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="qm9flow data prepare"):
        store.verify(tmp_path)


_PREPARE = """
import sys
from pathlib import Path
from qm9flow.data.store import open_dataset
print(open_dataset(Path(sys.argv[1])).digest)
"""


@pytest.mark.slow
def test_two_processes_mend_a_damaged_cache_at_once(copied: Path) -> None:
    """The full way from the tables, twice, over a cache that a kill left without a file."""
    (copied / "frequencies.npy").unlink()
    command = [sys.executable, "-c", _PREPARE, str(copied.parent)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=200)[0].strip() for process in both] == [DIGEST] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert store.verify(copied.parent).digest == DIGEST
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]
    assert sum(path.stat().st_size for path in copied.iterdir()) <= 120e6


def test_write_keeps_a_good_folder_unless_told_to_replace(tmp_path: Path) -> None:
    folder = tmp_path / "columns"
    cache.write(folder, {"x": np.arange(3)}, {"turn": 1})
    cache.write(folder, {"x": np.arange(4)}, {"turn": 2})
    assert cache.read(folder)[1]["turn"] == 1
    cache.write(folder, {"x": np.arange(4)}, {"turn": 3}, replace=True)
    arrays, manifest = cache.read(folder)
    assert manifest["turn"] == 3
    assert arrays["x"].tolist() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["columns"]


@pytest.mark.parametrize("attempt", range(10))
@pytest.mark.parametrize("is_damaged", [False, True])
def test_many_writers_at_once_all_end_well(tmp_path: Path, is_damaged: bool, attempt: int) -> None:
    folder = tmp_path / "columns"
    if is_damaged:
        folder.mkdir()
        (folder / "x.npy").write_bytes(b"")

    def write_one(turn: int) -> None:
        cache.write(folder, {"x": np.full(1000, 100 * attempt + turn)}, {"turn": turn})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_one, range(32)))
    arrays, manifest = cache.read(folder)
    cache.verify(folder)
    assert (arrays["x"] == 100 * attempt + manifest["turn"]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["columns"]


def test_write_never_replaces_what_is_not_a_cache(tmp_path: Path) -> None:
    own = tmp_path / "columns" / "thesis.txt"
    own.parent.mkdir()
    own.write_text("years of work")
    with pytest.raises(CacheError, match=r"holds thesis.txt"):
        cache.write(own.parent, {"x": np.arange(3)}, {}, replace=True)
    assert own.read_text() == "years of work"


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "columns").write_text("")
    with pytest.raises(CacheError, match="is a file"):
        cache.require_writable(tmp_path / "columns")


def test_array_hash_sees_type_shape_and_values() -> None:
    array = np.arange(6.0)
    others = [array.astype(np.float32), array.reshape(2, 3), array + 1]
    assert len({cache.array_hash(a) for a in [array, *others]}) == 4
    assert cache.array_hash(array) == cache.array_hash(array.astype(">f8"))

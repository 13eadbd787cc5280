"""One bundle of each format number is kept for ever: it must load and say what it said."""

import json
from pathlib import Path

import pytest

from qm9flow.config import DensityConfig
from qm9flow.data.store import Dataset
from qm9flow.release.bundle import load_model, read_bundle
from qm9flow.release.export import check_parity
from qm9flow.release.record import FORMAT, BundleRecord

HERE = Path(__file__).resolve().parent
KEPT = sorted(HERE.glob("format_*"))


def test_the_present_format_is_kept() -> None:
    assert [folder.name for folder in KEPT] == [f"format_{n}" for n in range(1, FORMAT + 1)]


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_it_gives_the_numbers_of_its_own_graph(folder: Path, dataset: Dataset) -> None:
    """Also fails when a change of the network makes old weights mean something else."""
    model = load_model(folder)
    assert check_parity(model, folder / "model.onnx", dataset).holds


def test_a_record_of_the_present_format_has_the_keys_of_the_kept_one() -> None:
    """A key that comes, goes or moves needs a new format number and a new kept bundle."""
    folder = HERE / f"format_{FORMAT}"
    record, _ = read_bundle(folder)
    kept = json.loads((folder / "config.json").read_text())
    written = json.loads(record.to_json())
    assert _keys(written) == _keys(kept)


def test_networks_of_a_time_without_heads_have_none() -> None:
    """Whatever the default is today."""
    written = json.loads((HERE / "format_4" / "config.json").read_text())
    del written["train"]["model"]["heads"]
    record = BundleRecord.from_json(json.dumps(written | {"format": 3}), "here")
    assert record.train.model == DensityConfig(2, 4, 3, 3, 4, heads=0)


def _keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: _keys(item) for key, item in value.items()}
    return None

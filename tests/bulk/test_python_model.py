"""`qm9flow.load` and what it gives, and the manual's examples."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
from rdkit import Chem
from rdkit.Chem import AllChem

import qm9flow
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError, InvalidSmilesError, MoleculeError, RegistryError
from qm9flow.inference.prediction import Prediction
from qm9flow.model import Model
from qm9flow.molecules.given import shown
from qm9flow.molecules.smiles import from_smiles
from qm9flow.molecules.xyz import from_xyz

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "python.md"
CALIBRATED = Path(__file__).resolve().parents[1] / "release" / "format_6"


class Atoms:
    """What `ase.Atoms` has that is asked for."""

    def get_atomic_numbers(self) -> Any:
        return from_xyz(served.WATER).numbers

    def get_positions(self) -> Any:
        return from_xyz(served.WATER).positions


def test_each_way_to_give_a_molecule(model: Model) -> None:
    water = from_xyz(served.WATER)
    block = Chem.AddHs(Chem.MolFromSmiles("O"))
    AllChem.EmbedMolecule(block, randomSeed=1)
    given = [
        served.WATER,
        (water.numbers, water.positions),
        (water.numbers.tolist(), water.positions.tolist()),
        Atoms(),
        {"xyz": served.WATER},
        water,
        "O",
        from_smiles("O"),
        Chem.MolFromSmiles("O"),
        {"smiles": "O"},
        block,
        Chem.MolToMolBlock(block),
    ]
    results = model.predict(given, ["gap"])
    assert all(isinstance(result, Prediction) for result in results), results
    sources = [result.geometry for result in results]
    assert sources == ["dft"] * 6 + ["smiles"] * 4 + ["approximate"] * 2
    gaps = [result.values["gap"] for result in results]
    for alike in (gaps[:6], gaps[6:10], gaps[10:]):
        assert alike == pytest.approx([alike[0]] * len(alike), abs=1e-4)
    moved = model.predict(given[:4], ["gap"], geometry="approximate")
    assert [result.geometry for result in moved] == ["approximate"] * 4


def test_refused_molecules_stay_in_their_place_or_raise(model: Model) -> None:
    flat = Chem.AddHs(Chem.MolFromSmiles("[NH4+]"))
    given = ["C", "C1CC", None, 7, (1, 2), ("a", "b", "c"), {"smile": "C"}, flat, "", "O"]
    results = model.predict(given)
    assert [isinstance(result, MoleculeError) for result in results] == [
        *(False, True, True, True, True, True, True, True, True, False)
    ]
    assert [result.code for result in results[1:3]] == ["invalid_smiles", "invalid_record"]
    assert results[7].code == "charged"
    with pytest.raises(InvalidSmilesError):
        model.predict(given, errors="raise")
    assert model.predict([]) == []


@pytest.mark.parametrize("nothing", [None, 7, 0.5, np.array("C")])
def test_predict_says_what_it_takes(model: Model, nothing: Any) -> None:
    with pytest.raises(ConfigError, match=r"list of molecules, each a SMILES, .*; got ") as caught:
        model.predict(nothing)
    assert str(caught.value).endswith(shown(nothing))


@pytest.mark.parametrize(
    "one",
    [
        *("CCO", b"CCO", {"smiles": "C"}, Atoms(), Chem.MolFromSmiles("C")),
        *(([1, 1], [[0, 0, 0], [0, 0, 0.74]]), from_xyz(served.WATER)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_one_molecule_goes_into_brackets(model: Model, one: Any) -> None:
    with pytest.raises(ConfigError, match="brackets"):
        model.predict(one)


def test_any_iterable_of_molecules_will_do(model: Model) -> None:
    expected = [result.values for result in model.predict(["O", "C"], ["gap"])]
    for given in (("O", "C"), np.array(["O", "C"]), iter(["O", "C"])):
        assert [result.values for result in model.predict(given, np.array(["gap"]))] == expected


def test_wrong_calls_are_said(model: Model, tmp_path: Path) -> None:
    for call in (
        lambda: model.predict(["C"], "gap"),
        lambda: model.predict(["C"], ["gip"]),
        lambda: model.predict(["C"], []),
        lambda: model.predict(["C"], 7),
        lambda: model.predict(["C"], [["gap"]]),
        lambda: model.predict(["C"], errors="drop"),
        lambda: model.predict([served.WATER], geometry="smiles"),
        lambda: model.predict_file(None, tmp_path / "out.csv"),
        lambda: model.predict_file(tmp_path / "in.csv", None),
        lambda: model.predict_file(tmp_path / "in.csv", io.StringIO()),
        lambda: model.predict_file(tmp_path / "in.csv", tmp_path / "out.csv", chunk=0),
        lambda: model.predict_file(tmp_path / "in.csv", tmp_path / "out.csv", chunk=1.5),
        lambda: model.predict_file(tmp_path / "in.csv", tmp_path / "out.csv", workers=0),
        lambda: model.predict_file(tmp_path / "in.csv", tmp_path / "out.csv", workers=-1),
    ):
        with pytest.raises(ConfigError):
            call()


def test_a_path_may_be_of_any_kind(model: Model, tmp_path: Path) -> None:
    class Place(os.PathLike[str]):
        def __init__(self, name: str) -> None:
            self.name = name

        def __fspath__(self) -> str:
            return str(tmp_path / self.name)

    (tmp_path / "in.smi").write_text("C\n")
    assert model.predict_file(Place("in.smi"), Place("out.csv"), ["gap"]).rows == 1
    assert (tmp_path / "out.csv").read_text().startswith("smiles,name,gap")


def test_results_become_tables(model: Model) -> None:
    results = model.predict(["CCO", "C1CC"], ["gap", "mu"])
    first, second = results.to_dicts()
    assert first["gap"] == results[0].values["gap"]
    assert first["error"] is None
    assert second["error_code"] == "invalid_smiles"
    frame = results.to_pandas()
    assert list(frame.columns) == list(first)
    assert frame["mu"].isna().tolist() == [False, True]
    assert np.isnan(frame["mu"][1])
    assert frame["error_code"].isna().tolist() == [True, False]
    empty = model.predict([], ["gap"]).to_pandas()
    assert "gap" in empty.columns
    assert len(empty) == 0


@pytest.mark.parametrize("molecules", [["CCO"], ["CCO", "C1CC"], ["C1CC"], []], ids=len)
def test_a_table_has_the_same_types_whatever_is_in_it(molecules: list[str]) -> None:
    """Also where all of a column is None: intervals, the domain, what a refused molecule lacks."""
    model = qm9flow.load("pretrained", device="cpu")
    frame = model.predict(molecules, ["gap", "a"]).to_pandas()
    numbers = ["gap", "gap_low", "gap_high", "a", "a_low", "a_high", "domain_score", "conformers"]
    assert {str(kind) for kind in frame[numbers].dtypes} == {"float64"}
    assert str(frame["in_domain"].dtype) == "boolean"
    assert {str(kind) for kind in frame.drop(columns=[*numbers, "in_domain"]).dtypes} == {"string"}
    assert len(frame[frame["in_domain"]]) <= len(molecules)  # missing values do not stop a filter


def test_what_is_said_of_the_model(model: Model, bundle: Path) -> None:
    assert (model.name, model.version, model.alias) == ("qm9flow", None, None)
    assert model.device == "cpu"
    assert len(model.targets) == 19
    assert model.units["gap"] == "eV"
    assert str(bundle) in repr(model)


@pytest.mark.parametrize(
    "reference", ["champion", "1", "models:/qm9flow@champion", "models:/qm9flow/1"]
)
def test_a_registered_model(reference: str, stores_in: Path, dataset: Dataset) -> None:
    model = qm9flow.load(reference, tracking_uri=served.store(dataset), device="cpu")
    assert (model.version, model.alias) == (1, "champion")
    direct = qm9flow.load(str(served.bundle(dataset)), device="cpu")
    (one,), (other,) = model.predict(["O"], ["gap"]), direct.predict(["O"], ["gap"])
    assert one.values == other.values


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("models:/other@champion", "models:/qm9flow@champion"),
        ("models:/qm9flow", "models:/qm9flow@champion"),
        ("models:/qm9flow/Production", "models:/qm9flow/3"),
        ("models:/qm9flow/7", "'7'"),
        ("models:/qm9flow@nobody", "'nobody'"),
    ],
)
def test_models_that_are_not_there(
    reference: str, words: str, stores_in: Path, dataset: Dataset
) -> None:
    with pytest.raises(RegistryError, match=words):
        qm9flow.load(reference, tracking_uri=served.store(dataset))


def test_an_alias_in_the_registry_is_no_folder(stores_in: Path, dataset: Dataset) -> None:
    (stores_in / "mine").symlink_to(served.bundle(dataset))
    assert qm9flow.load("mine").version is None
    with pytest.raises(RegistryError, match="'mine'"):
        qm9flow.load("models:/qm9flow@mine", tracking_uri=served.store(dataset))


def test_the_pretrained_model_stands_in(stores_in: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = qm9flow.load("models:/qm9flow@champion", device="cpu")
    assert (model.version, model.alias) == (None, "pretrained")
    assert "no model is registered" in caplog.text
    assert list(stores_in.iterdir()) == []


def test_the_manuals_examples_run(tmp_path: Path) -> None:
    """One after the other in one program, without torch, in an empty folder."""
    examples = re.findall(r"^```python\n(.*?)^```", MANUAL.read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) >= 6
    script = "\n".join([*examples, "import sys", "assert 'torch' not in sys.modules"])
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "C1CC invalid_smiles not a SMILES: unclosed ring" in done.stdout
    assert "3 1 0" in done.stdout
    assert "rows/s" in done.stdout
    assert {item.name for item in tmp_path.iterdir()} == {
        *("molecules.csv", "predictions.parquet", "predictions.jsonl.gz")
    }


def test_predictions_of_a_file_are_those_of_a_list(
    model: Model, dataset: Dataset, tmp_path: Path
) -> None:
    import pandas

    smiles = [dataset.smiles(index) for index in (1, 100, 5_000, 70_000)]
    source, output = tmp_path / "in.smi", tmp_path / "out.csv"
    source.write_text("\n".join(smiles))
    model.predict_file(str(source), str(output), ["gap", "u0"], workers=2)
    table = pandas.read_csv(output)
    assert table["smiles"].tolist() == smiles
    results = model.predict(smiles, ["gap", "u0"])
    for target in ("gap", "u0"):
        expected = [result.values[target] for result in results]
        np.testing.assert_allclose(table[target], expected, rtol=1e-6, atol=1e-4)


def test_intervals_stand_beside_their_values(tmp_path: Path) -> None:
    """With a bundle that has them: an untrained network, calibrated as the real ones are."""
    import pandas

    model = qm9flow.load(str(CALIBRATED), device="cpu")
    assert model.level == 0.9
    source, output = tmp_path / "in.smi", tmp_path / "out.parquet"
    source.write_text("CCO\nC1CC\n")
    model.predict_file(source, output, ["gap"], workers=1)
    table = pandas.read_parquet(output)
    assert list(table.columns)[2:5] == ["gap", "gap_low", "gap_high"]
    assert table["gap_low"][0] < table["gap"][0] < table["gap_high"][0]
    assert table[["gap", "gap_low", "gap_high"]].iloc[1].isna().all()
    (result, _) = model.predict(["CCO", "C1CC"], ["gap"])
    assert isinstance(result, Prediction)
    assert result.intervals["gap"] == pytest.approx(
        (table["gap_low"][0], table["gap_high"][0]), abs=1e-4
    )
    assert table["domain_score"][0] == pytest.approx(result.domain.score)

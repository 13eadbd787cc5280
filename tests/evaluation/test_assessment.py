"""An assessment: what it says, and what it writes."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.evaluation.assessment import WORST_TARGETS, Assessment, Shown, Subject, assess
from qm9flow.evaluation.assessment_files import place_in_run, write_assessment
from qm9flow.evaluation.coverage import Intervals
from qm9flow.evaluation.worst_page import HEIGHT, WIDTH, depict
from qm9flow.properties import TARGETS

N = 1500
FILES = {
    "evaluation.json", "evaluation.md", "targets.csv", "literature.csv", "groups.csv",
    "worst.csv", "molecules.csv", "parity.png", "residuals.png", "groups.png", "worst.png",
}  # fmt: skip


def assessed(dataset: Dataset, split_name: str, n: int | None) -> Assessment:
    """Predictions that are off by a hundredth of each target's spread."""
    split = make_split(split_name, len(dataset))  # type: ignore[arg-type]
    truth = dataset.truth()[split.test[:n]]
    noise = np.random.default_rng(0).normal(size=truth.shape) * truth.std(axis=0) * 0.01
    for name in ("u0", "u", "h", "g"):
        noise[:, TARGETS.index(f"{name}_atom")] = noise[:, TARGETS.index(name)]
    subject = Subject("version 3", 3, "champion", "/bundle", "mpnn", 5000, split)
    return assess(subject, dataset, "test", truth + noise, n_worst=4)


@pytest.fixture(scope="module")
def found(dataset: Dataset) -> Assessment:
    return assessed(dataset, "standard", N)


@pytest.fixture(scope="module")
def folder(found: Assessment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was written."""
    there = tmp_path_factory.mktemp("assessment") / "new" / "folder"
    written = write_assessment(found, dataset, there)
    assert {path.name for path in written} == FILES
    return there


def test_standard_molecules_are_a_part_of_a_models_own_split(dataset: Dataset) -> None:
    whole = assessed(dataset, "seed", None)
    assert (whole.own.molecules, whole.standard.molecules) == (19_625, 10_831)
    errors = np.abs(whole.predicted - whole.truth)[:, 0]
    assert whole.own.row("mu").mae == pytest.approx(errors.mean())
    assert whole.standard.row("mu").mae == pytest.approx(errors[:10_831].mean())
    assert not whole.is_limited
    assert whole.title == "version 3 on 19,625 test molecules of its split `seed`"
    assert "on standard" in whole.as_text()
    assert len(whole.metrics()) == 2 * len(TARGETS)
    assert whole.metrics()["evaluate/standard_test/mu/mae"] == whole.standard.row("mu").mae


def test_recorded_errors_are_compared(dataset: Dataset) -> None:
    whole = assessed(dataset, "standard", None)
    assert whole.differences() == {}
    mae = whole.standard.row("mu").mae
    for recorded, words in (
        (mae, "are those recorded when it was made, within 0.1%"),
        (mae / 1.5, "WARNING: errors on `standard` are not those recorded when it was made: "
                    "mu differs by +50.0%"),
    ):  # fmt: skip
        subject = replace(whole.subject, recorded={"test": {"mu": recorded, "a": 1.0}})
        assert words in replace(whole, subject=subject).as_text()
        limited = replace(whole, subject=subject, is_limited=True)
        assert limited.differences() == {}


@pytest.mark.usefixtures("unpainted")
def test_intervals_and_other_geometries(
    found: Assessment, dataset: Dataset, tmp_path: Path
) -> None:
    noise = found.predicted - found.truth
    halves = np.full_like(noise, np.nan)
    halves[:, :12] = np.quantile(np.abs(noise), 0.9, axis=0)[:12]
    own = assess(
        found.subject,
        dataset,
        "test",
        found.predicted,
        shown=Shown("smiles", found.indices, asked=N + 3),
        intervals=Intervals(0.9, 5000, halves),
    )
    assert own.coverage is not None
    assert own.coverage.inside == dict.fromkeys(TARGETS[:12], 0.9)
    assert own.coverage.width["mu"] == pytest.approx(2 * halves[0, 0])
    assert sum(g.molecules * g.inside["mu"] for g in own.groups["atoms"]) == round(0.9 * N)
    text = own.as_text()
    assert "split `standard`, from SMILES" in text.splitlines()[0]
    assert "3 molecules without such a geometry" in text
    assert "Intervals at the level 0.9" in text
    assert "MPNN, 2D" in text
    assert "SchNet" not in text
    assert "evaluate/smiles/test/mu/mae" in own.metrics()
    assert place_in_run(own) == f"evaluation/version_3/test_from_smiles_first_{N + 3}"
    written = write_assessment(own, dataset, tmp_path)
    assert {path.name for path in written} == FILES | {"coverage.csv", "group_coverage.csv"}
    rows = list(csv.DictReader((tmp_path / "coverage.csv").open()))
    assert [row["target"] for row in rows] == list(TARGETS[:12])


def test_text_says_what_it_compares(found: Assessment) -> None:
    text = found.as_text()
    assert text.startswith("version 3 on the first 1,500 test molecules of its split `standard`\n")
    assert "on standard" not in text.splitlines()[2]
    assert "trained on one target at a time" in text
    assert "from 5,000 molecules" in text
    assert "arXiv:2102.03150" in text
    assert "with F" in text
    assert "9 heavy atoms" in text
    assert max(map(len, text.split("Networks of")[0].splitlines())) < 130


def test_json_form(folder: Path, found: Assessment) -> None:
    said = json.loads((folder / "evaluation.json").read_text())
    assert said == json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert list(said) == [
        "format", "model", "part", "is_limited", "geometry", "left_out", "own", "standard",
        "differences", "residuals", "literature", "groups", "worst", "coverage",
    ]  # fmt: skip
    assert said["format"] == 1
    assert said["model"]["version"] == 3
    assert said["is_limited"] is True
    assert said["own"]["molecules"] == said["standard"]["molecules"] == N
    assert list(said["own"]["targets"]) == list(said["residuals"]) == list(TARGETS)
    assert said["own"]["targets"]["u0"]["unit"] == "eV"
    networks = {item["name"]: item for item in said["literature"]["networks"]}
    assert networks["SchNet"]["mae"]["u0"] == pytest.approx(0.014)
    assert list(said["groups"]) == ["heavy_atoms", "atoms", "element"]
    assert sum(group["molecules"] for group in said["groups"]["atoms"]) == N
    assert list(said["worst"]) == list(WORST_TARGETS)
    sizes = [abs(item["error"]) for item in said["worst"]["gap"]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 4


def test_tables_hold_what_they_name(folder: Path, found: Assessment, dataset: Dataset) -> None:
    tables = {path.stem: list(csv.DictReader(path.open())) for path in folder.glob("*.csv")}
    assert {name: len(rows) for name, rows in tables.items() if name != "groups"} == {
        "targets": 19, "literature": 12, "worst": 4 * len(WORST_TARGETS), "molecules": N,
    }  # fmt: skip
    assert float(tables["targets"][0]["mae"]) == found.own.row("mu").mae
    of_molecules = [abs(float(row["mu_error [D]"])) for row in tables["molecules"]]
    assert np.mean(of_molecules) == pytest.approx(found.own.row("mu").mae, rel=1e-4)
    evaluated = {str(dataset.index[place]) for place in found.indices}
    assert {row["qm9_index"] for row in tables["worst"]} <= evaluated
    assert {row["qm9_index"] for row in tables["molecules"]} == evaluated
    assert "## Largest errors" in (folder / "evaluation.md").read_text()


@pytest.mark.parametrize("name", ["parity", "residuals", "groups", "worst"])
def test_each_figure_is_a_picture(folder: Path, name: str) -> None:
    pixels = imread(folder / f"{name}.png")[..., :3]
    height, width = pixels.shape[:2]
    assert width > 900
    assert height > 500
    assert 0.01 < (pixels.min(axis=2) < 0.9).mean() < 0.5
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert border.min() > 0.99  # nothing is cut off


def test_one_molecule_is_enough_to_draw(dataset: Dataset, tmp_path: Path) -> None:
    write_assessment(assessed(dataset, "seed", 1), dataset, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_molecules_are_drawn_from_their_smiles() -> None:
    drawn = depict("C[NH2+]CC([O-])=O")
    assert drawn is not None
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert drawn.min() < 0.5
    assert depict("C1CC") is None

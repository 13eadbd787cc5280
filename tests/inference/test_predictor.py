"""The Predictor on a real, small network."""

import dataclasses
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hand_made
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from qm9flow.config import MPNNConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import (
    CoincidentAtomsError,
    ConfigError,
    InferenceError,
    InvalidRecordError,
    MoleculeError,
    NonFiniteError,
    TooLargeError,
    UnsupportedElementError,
)
from qm9flow.inference.calibration import SHARES, SourceCalibration
from qm9flow.inference.judged import Judged
from qm9flow.inference.prediction import Prediction, Shape, entry
from qm9flow.inference.predictor import Floats, Predictor, groups_of_similar_size
from qm9flow.inference.table import Table
from qm9flow.molecules.geometry import rotational_constants_ragged
from qm9flow.molecules.molecule import RT_KCAL, Conformers, Molecule
from qm9flow.molecules.pool import MAX_ATOMS
from qm9flow.molecules.smiles import from_smiles
from qm9flow.nn.catalog import build
from qm9flow.properties import BY_NAME, LEARNED, TARGETS
from qm9flow.registry import pretrained
from qm9flow.release.bundle import Released, load_model, write_bundle
from qm9flow.release.record import record_of
from qm9flow.units import RT_EV

NEGATIVE = ("the network gives less than zero, which cannot be, for mu",)
"""That network has learned nothing."""
HYDROGEN = Molecule(np.array([1]), np.zeros((1, 3)))
NITROGEN = Molecule(np.array([7, 7]), np.array([[0, 0, 0], [0, 0, 1.1]]))


def line(n: int) -> Molecule:
    """A bent chain of n carbon atoms."""
    steps = np.arange(n)[:, None] * np.array([1.2, 0.0, 0.0])
    return Molecule(np.full(n, 6), steps + (np.arange(n) % 2)[:, None] * np.array([0, 0.6, 0]))


def some(dataset: Dataset, n: int, seed: int = 0) -> list[Molecule]:
    chosen = np.random.default_rng(seed).integers(0, len(dataset), n)
    return [dataset.molecule(int(index)) for index in chosen]


def test_answers_all_targets_as_python_floats(predictor: Predictor, dataset: Dataset) -> None:
    (prediction,) = predictor.predict([dataset.molecule(100)])
    assert tuple(prediction.values) == TARGETS
    assert all(type(value) is float for value in prediction.values.values())
    assert prediction.warnings == NEGATIVE
    assert predictor.units["u0"] == "eV"


def test_same_numbers_as_the_network(predictor: Predictor, bundle: Path, dataset: Dataset) -> None:
    molecules = some(dataset, 40)
    model = load_model(bundle)
    predictions = predictor.predict(molecules)
    for molecule, prediction in zip(molecules, predictions, strict=True):
        with torch.no_grad():
            expected = model(
                torch.tensor(molecule.numbers[None]),
                torch.tensor(molecule.positions[None], dtype=torch.float32),
            )[0]
        for name, value in zip(LEARNED, expected.tolist(), strict=True):
            accuracy = BY_NAME[name].chemical_accuracy
            assert accuracy is not None
            assert prediction.values[name] == pytest.approx(value, abs=1e-3 * accuracy), name


def test_alone_or_in_a_batch_the_numbers_are_the_same(
    predictor: Predictor, dataset: Dataset
) -> None:
    """Within 1e-3 of chemical accuracy, whatever stands beside it, single atoms included."""
    molecules = [*some(dataset, 60, seed=1), HYDROGEN, NITROGEN, line(40)]
    together = predictor.predict(molecules)
    for molecule, beside in zip(molecules, together, strict=True):
        (alone,) = predictor.predict([molecule])
        for name, value in alone.values.items():
            accuracy = BY_NAME[name].chemical_accuracy
            if value is None:
                assert beside.values[name] is None
            elif accuracy is None:
                assert beside.values[name] == pytest.approx(value, rel=1e-9)
            else:
                assert beside.values[name] == pytest.approx(value, abs=1e-3 * accuracy), name


def test_results_keep_the_order(predictor: Predictor, dataset: Dataset) -> None:
    molecules = some(dataset, 30, seed=2)
    forward = [item.values["u0"] for item in predictor.predict(molecules)]
    backward = [item.values["u0"] for item in predictor.predict(molecules[::-1])]
    np.testing.assert_allclose(backward[::-1], forward, atol=4e-5)
    assert len(set(forward)) > 20


def test_place_and_orientation_do_not_matter(predictor: Predictor, dataset: Dataset) -> None:
    molecule = dataset.molecule(5000)
    moved = Molecule(molecule.numbers, molecule.positions[:, [1, 2, 0]] + 3000.0)
    before, after = predictor.predict([molecule, moved])
    for name in LEARNED:
        accuracy = BY_NAME[name].chemical_accuracy
        assert accuracy is not None
        assert after.values[name] == pytest.approx(before.values[name], abs=1e-3 * accuracy)


def test_derived_targets_agree_with_learned_ones(predictor: Predictor, dataset: Dataset) -> None:
    (prediction,) = predictor.predict([dataset.molecule(777)])
    values = {name: value or 0.0 for name, value in prediction.values.items()}
    assert values["gap"] == pytest.approx(values["lumo"] - values["homo"], abs=1e-12)
    assert values["h"] == pytest.approx(values["u"] + RT_EV, abs=1e-9)
    assert -200 < values["u0_atom"] < -5
    assert values["u0"] < -500


def test_rotational_constants_come_from_the_geometry(
    predictor: Predictor, dataset: Dataset
) -> None:
    indices = range(10, 5000, 499)
    predictions = predictor.predict([dataset.molecule(i) for i in indices])
    for index, prediction in zip(indices, predictions, strict=True):
        expected = [value or None for value in dataset.rotational_ghz[index].tolist()]
        assert [prediction.values[name] for name in "abc"] == pytest.approx(expected, rel=1e-5)


def test_rotational_constants_that_do_not_exist_are_none(predictor: Predictor) -> None:
    atom, linear = predictor.predict([HYDROGEN, NITROGEN])
    assert [atom.values[name] for name in "abc"] == [None, None, None]
    assert linear.values["a"] is None
    assert linear.values["b"] == pytest.approx(linear.values["c"])


def test_targets_can_be_chosen(predictor: Predictor, dataset: Dataset) -> None:
    (prediction,) = predictor.predict([dataset.molecule(3)], targets=["u0", "gap", "u0"])
    assert list(prediction.values) == ["u0", "gap"]


@pytest.mark.parametrize("targets", [["u0", "colour"], []])
def test_unknown_target_names_the_known_ones(
    predictor: Predictor, dataset: Dataset, targets: list[str]
) -> None:
    with pytest.raises(ConfigError, match="mu, alpha, homo"):
        predictor.predict([dataset.molecule(3)], targets)


def test_nothing_in_nothing_out(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_bad_molecules_are_refused(predictor: Predictor) -> None:
    zeros = np.zeros((1, 3))
    with pytest.raises(UnsupportedElementError):
        predictor.predict([Molecule(np.array([17]), zeros)])
    with pytest.raises(NonFiniteError):
        predictor.predict([Molecule(np.array([6]), zeros * np.nan)])
    with pytest.raises(CoincidentAtomsError):
        predictor.predict([Molecule(np.array([6, 6]), np.zeros((2, 3)))])
    with pytest.raises(TooLargeError, match=str(MAX_ATOMS)):
        predictor.predict([line(MAX_ATOMS + 1)])
    with pytest.raises(InvalidRecordError, match="dft, approximate or smiles, got 'guessed'"):
        predictor.predict([Molecule(np.array([6]), zeros, "guessed")])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shapes", "energies", "code"),
    [(0, [], "empty"), (2, [0.0], "unreadable"), (2, [0.0, np.nan], "non_finite")],
)
def test_conformers_that_do_not_belong_together_are_refused(
    predictor: Predictor, shapes: int, energies: list[float], code: str
) -> None:
    positions = np.stack([line(3).positions] * 2)[:shapes]
    bad = Conformers(line(3).numbers, positions, np.array(energies), "by hand")
    refused, kept = predictor.predict_each([bad, HYDROGEN])
    assert isinstance(refused, MoleculeError)
    assert refused.code == code
    assert isinstance(kept, Prediction)


def test_conformers_may_be_given_as_lists(predictor: Predictor) -> None:
    arrays = Conformers(line(3).numbers, line(3).positions[None], np.zeros(1), "by hand")
    lists = Conformers([6] * 3, [line(3).positions.tolist()], [0], "by hand")  # type: ignore[arg-type]
    first, second = predictor.predict([arrays, lists])
    assert first == second


def test_a_bad_molecule_does_not_touch_the_others(predictor: Predictor, dataset: Dataset) -> None:
    good = some(dataset, 3)
    bad = Molecule(np.array([6, 6]), np.zeros((2, 3)))
    results = predictor.predict_each([bad, good[0], good[1], bad, good[2]])
    assert isinstance(results[0], CoincidentAtomsError)
    assert isinstance(results[3], CoincidentAtomsError)
    assert [results[i] for i in (1, 2, 4)] == predictor.predict(good)


def test_largest_allowed_molecule_is_answered(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([line(MAX_ATOMS)])
    assert prediction.values["u0"] is not None
    assert any("heavy atoms" in warning for warning in prediction.warnings)


def test_geometry_that_is_not_dfts_is_said(predictor: Predictor, dataset: Dataset) -> None:
    molecule = dataset.molecule(50)
    rough = Molecule(molecule.numbers, molecule.positions, "smiles")
    (prediction,) = predictor.predict([rough])
    assert any("B3LYP" in warning for warning in prediction.warnings)


def test_raw_networks_answer_for_themselves(tmp_path: Path) -> None:
    """All 19 as the network gives them, but for what the geometry alone decides."""
    path = tmp_path / "model.onnx"
    hand_made.write_graph(path, TARGETS)
    (prediction,) = Predictor(path, provider="cpu").predict([NITROGEN])
    values = prediction.values
    assert [values[name] for name in TARGETS[:16]] == [7.0 + k for k in range(16)]
    assert values["gap"] != values["lumo"] - values["homo"]  # type: ignore[operator]
    assert values["a"] is None
    assert values["b"] == pytest.approx(59.7, abs=1)


@pytest.mark.slow
def test_raw_network_of_the_real_kind(tmp_path: Path, dataset: Dataset) -> None:
    """As the group trained: 19 targets as they are, through release and back."""
    train = TrainConfig(model=MPNNConfig(hidden=8, edge_width=4), targets="raw", train_size=500)
    weights = save(build(train.model, TARGETS).state_dict())
    write_bundle(tmp_path / "raw", record_of(train, dataset), Released(weights), dataset=dataset)
    molecule = dataset.molecule(4321)
    (prediction,) = Predictor(tmp_path / "raw", provider="cpu").predict([molecule])
    numbers = torch.tensor(molecule.numbers[None])
    with torch.no_grad():
        expected = load_model(tmp_path / "raw")(
            numbers, torch.tensor(molecule.positions[None]).float()
        )
    assert prediction.values["gap"] == pytest.approx(
        float(expected[0, TARGETS.index("gap")]), rel=1e-4
    )
    assert prediction.values["b"] == pytest.approx(dataset.rotational_ghz[4321, 1], rel=1e-5)


def test_values_that_are_not_finite_become_none(
    predictor: Predictor, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = np.full((1, len(LEARNED)), np.nan), np.empty((1, 0)), np.zeros(1), [None]
    monkeypatch.setattr(Predictor, "_run", lambda self, session, molecules: broken)
    (prediction,) = predictor.predict([dataset.molecule(9)], targets=["u0", "a"])
    assert prediction.values["u0"] is None
    assert prediction.values["a"] is not None
    assert "no finite value for u0" in prediction.warnings[-1]


def of_numbers(numbers: Floats, half_width: float | None) -> Table:
    """One molecule for which a network gives these gaps and dipole moments, by row."""
    values = {"gap": numbers[:, 0], "mu": numbers[:, 1]}
    spreads = {name: np.ones(len(numbers)) for name in values}
    calibrated = None
    if half_width is not None:
        calibrated = SourceCalibration(100, dict.fromkeys(values, half_width), (1.0,) * len(SHARES))
    judged = Judged(values, numbers, spreads, None)
    return Table.of(judged, ["gap", "mu"], calibrated, np.ones(numbers.shape))


def test_what_cannot_be_negative_is_zero_within_its_interval_and_nothing_outside() -> None:
    numbers = np.array([[-585.0, -0.003], [6.0, 0.004], [np.nan, -0.5]])
    table = of_numbers(numbers, half_width=0.01)
    assert table.values == [[None, 0.0], [6.0, 0.004], [None, None]]
    assert table.intervals[0] == [None, (0.0, pytest.approx(0.007))]
    assert table.intervals[1] == [pytest.approx((5.99, 6.01)), (0.0, pytest.approx(0.014))]
    assert table.warnings == {
        0: ("the network gives less than zero, which cannot be, for gap",),
        2: (
            "the network gives no finite value for gap",
            "the network gives less than zero, which cannot be, for mu",
        ),
    }
    without = of_numbers(numbers, half_width=None)
    assert without.values == [[-585.0, -0.003], [6.0, 0.004], [None, -0.5]]
    assert without.warnings[0] == (
        "the network gives less than zero, which cannot be, for gap, mu",
    )


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_values_lie_in_their_own_intervals(gap: float, mu: float, half_width: float) -> None:
    table = of_numbers(np.array([[gap, mu]]), half_width)
    for value, ends in zip(table.values[0], table.intervals[0], strict=True):
        assert (value is None) == (ends is None)
        if value is not None and ends is not None:
            assert 0 <= ends[0] <= value <= ends[1]


def test_network_of_unknown_targets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    hand_made.write_graph(path, ["mu", "alpha"])
    with pytest.raises(InferenceError, match="mu, alpha"):
        Predictor(path, provider="cpu")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 80), max_size=200), st.integers(1, 20_000))
def test_groups_hold_each_molecule_once_and_stay_small(sizes: list[int], max_pairs: int) -> None:
    array = np.array(sizes, dtype=np.int64)
    groups = [group.tolist() for group in groups_of_similar_size(array, max_pairs)]
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or len(group) * array[group].max() ** 2 <= max_pairs


def test_threads_may_share_a_predictor(predictor: Predictor, dataset: Dataset) -> None:
    batches = [some(dataset, 5, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(predictor.predict, batches))
    assert together == [predictor.predict(batch) for batch in batches]


def test_inference_needs_no_torch(bundle: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from qm9flow.inference.predictor import Predictor\n"
        "from qm9flow.molecules.molecule import Molecule\n"
        f"predictor = Predictor(Path({str(bundle)!r}), provider='cpu', threads=1)\n"
        "atom = Molecule(np.array([6]), np.zeros((1, 3)))\n"
        "assert predictor.predict([atom])[0].values['u0'] < -900\n"
        "heavy = {'torch', 'optuna', 'ray', 'mlflow', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_prediction_is_plain_data(predictor: Predictor, dataset: Dataset) -> None:
    assert isinstance(predictor.predict([dataset.molecule(1)])[0], Prediction)


KEPT = Path(__file__).parent.parent / "release" / "format_7"
"""An untrained network for DFT's geometries, the same one for conformers, calibrated on 300."""


def test_a_bundle_takes_both_inputs_with_intervals(dataset: Dataset) -> None:
    predictor = Predictor(KEPT, provider="cpu", threads=1)
    assert predictor.level == 0.9
    two = Conformers(
        dataset.molecule(500).numbers,
        np.stack([dataset.molecule(500).positions, dataset.molecule(500).positions * 1.02]),
        np.array([0.0, 0.0]),
        "two",
    )
    own, mixed = predictor.predict([dataset.molecule(500), two])
    assert (own.geometry, mixed.geometry) == ("dft", "smiles")
    assert (own.conformers, mixed.conformers) == (1, 2)
    assert "rotational constants" in mixed.warnings[0]
    for prediction in (own, mixed):
        assert prediction.domain.score is not None
        for name, value in prediction.values.items():
            ends = prediction.intervals[name]
            assert value is not None
            assert ends is not None
            assert ends[0] <= value <= ends[1] or name in ("mu", "r2", "alpha", "zpve", "cv")


def test_conformers_are_averaged(dataset: Dataset) -> None:
    predictor = Predictor(KEPT, provider="cpu", threads=1)
    shapes = [dataset.molecule(900).positions * scale for scale in (1.0, 1.03)]
    numbers = dataset.molecule(900).numbers
    alone = [
        predictor.predict([Molecule(numbers, shape, "smiles")])[0].values["u0"] for shape in shapes
    ]
    together = Conformers(numbers, np.stack(shapes), np.array([0.0, RT_KCAL]), "")
    (prediction,) = predictor.predict([together])
    assert predictor.choice is not None
    moved = np.stack([shape - shape.mean(axis=0) for shape in shapes]).astype(np.float32)
    energies = np.array([0.0, RT_KCAL], dtype=np.float32)
    logits = predictor.choice.run(np.stack([numbers, numbers]), moved, energies)
    expected = np.average(np.array(alone, dtype=float), weights=np.exp(logits - logits.max()))
    assert prediction.values["u0"] == pytest.approx(expected, abs=1e-6)


def test_strange_molecules_have_wider_intervals_and_a_reason(dataset: Dataset) -> None:
    predictor = Predictor(KEPT, provider="cpu", threads=1)
    fluorine = Molecule(np.full(5, 9), line(5).positions)
    usual, strange = predictor.predict([dataset.molecule(700), fluorine])
    assert usual.domain.is_inside
    assert "unlike the training molecules" in strange.domain.reasons[-1]
    assert strange.domain.reasons[-1] in strange.warnings
    assert strange.domain.score == 0.0
    judged = predictor.judge([fluorine], "dft")
    assert predictor.calibration is not None
    half = predictor.calibration.sources["dft"].factors["homo"] * judged.spreads["homo"][0]
    ends = strange.intervals["homo"]
    assert ends is not None
    assert ends[1] - ends[0] > 2 * 1.49 * half


def test_what_no_network_can_refine_has_an_answer_all_the_same(dataset: Dataset) -> None:
    predictor = Predictor(pretrained.bundle(), provider="cpu", threads=1)
    usual = dataclasses.replace(dataset.molecule(700), geometry="approximate")
    corners = np.array(list(itertools.product(range(3), repeat=3)), dtype=float)
    crowds = [Molecule(np.full(27, z), 0.51 * corners, "approximate") for z in (6, 8)]
    first, *others = predictor.predict([usual, *crowds])
    alone = predictor.predict([usual])[0]
    assert first.values == pytest.approx(alone.values, rel=1e-4)
    for prediction in others:
        json.dumps(entry(prediction), allow_nan=False)
        assert prediction.domain.is_inside is False
        assert prediction.domain.score == 0.0
        assert prediction.values["b"] is not None


@pytest.fixture(scope="module")
def refining() -> Predictor:
    """The pretrained model, which refines geometries that are not DFT's, and weighs conformers."""
    return Predictor(pretrained.bundle(), provider="cpu", threads=1)


def constants(shape: Shape) -> list[float]:
    found: list[float] = rotational_constants_ragged(
        shape.numbers, shape.positions, np.array([0, len(shape.numbers)])
    )[0]
    return list(found)


def rms_angstrom(one: Floats, other: Floats) -> float:
    """Of the distances of all pairs of atoms, which no motion of the whole changes."""
    pairs = [np.linalg.norm(item[:, None] - item[None, :], axis=2) for item in (one, other)]
    return float(np.sqrt(((pairs[0] - pairs[1]) ** 2).mean()))


@pytest.mark.parametrize("smiles", ["CCO", "OCCO", "C#N", "CC(=O)OCC"])
def test_a_smiles_has_the_geometry_that_its_rotational_constants_are_of(
    refining: Predictor, smiles: str
) -> None:
    conformers = from_smiles(smiles)
    (prediction,) = refining.predict([conformers])
    shape = prediction.likeliest
    assert shape is not None
    assert shape.is_refined
    assert shape.numbers.tolist() == conformers.numbers.tolist()
    expected = [prediction.values[name] or 0.0 for name in ("a", "b", "c")]
    assert constants(shape) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    off = [rms_angstrom(shape.positions, one) for one in conformers.positions]
    assert 0.001 < min(off) < 0.1  # moved, but still one of them


def test_an_approximate_geometry_is_refined_where_it_lies(
    refining: Predictor, dataset: Dataset
) -> None:
    exact = dataset.molecule(40_000)
    noise = np.random.default_rng(1).normal(0, 0.02, exact.positions.shape)
    rough = exact.positions + noise + 500.0
    given = Molecule(exact.numbers, rough, "approximate")
    prediction, as_dft = refining.predict([given, Molecule(exact.numbers, rough)])
    shape = prediction.likeliest
    assert shape is not None
    assert shape.is_refined
    expected = [prediction.values[name] for name in ("a", "b", "c")]
    assert constants(shape) == pytest.approx(expected, rel=1e-9)
    assert np.abs(shape.positions - rough).max() < 0.3
    assert rms_angstrom(shape.positions, exact.positions) < rms_angstrom(rough, exact.positions)
    assert as_dft.likeliest is not None
    assert not as_dft.likeliest.is_refined
    assert as_dft.likeliest.positions is rough


def test_an_atom_which_nothing_can_move_stays_where_it_is(refining: Predictor) -> None:
    atom = Molecule(np.array([6]), np.array([[1.0, 2.0, 3.0]]), "approximate")
    (prediction,) = refining.predict([atom])
    assert prediction.likeliest is not None
    assert not prediction.likeliest.is_refined
    assert prediction.likeliest.positions.tolist() == [[1.0, 2.0, 3.0]]


def test_without_a_refiner_the_likeliest_is_the_lowest(predictor: Predictor) -> None:
    conformers = from_smiles("OCCO")
    (prediction,) = predictor.predict([conformers])
    assert prediction.likeliest is not None
    assert not prediction.likeliest.is_refined
    assert prediction.likeliest.positions.tolist() == conformers.lowest.positions.tolist()


def test_intervals_are_wider_where_isomers_are_open(refining: Predictor) -> None:
    stated = from_smiles("C/C=C/C")
    unknown = dataclasses.replace(stated, isomers=2)
    one, other = refining.predict([stated, unknown])
    assert one.values == other.values
    for name, factor in (("gap", 1.5), ("u0", 1.5), ("a", 3.0), ("c", 3.0)):
        narrow, wide = one.intervals[name], other.intervals[name]
        assert narrow is not None
        assert wide is not None
        assert wide[1] - wide[0] == pytest.approx(factor * (narrow[1] - narrow[0]))
    (added,) = set(other.warnings) - set(one.warnings)
    assert "2 stereoisomers" in added

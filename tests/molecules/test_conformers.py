"""SMILES become sound geometries; a molecule that hangs or crashes costs only itself."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDetermineBonds
from scipy.spatial.distance import pdist

from qm9flow.data.store import Dataset
from qm9flow.errors import (
    ChargedError,
    ConformerError,
    EmptyMoleculeError,
    InvalidSmilesError,
    MoleculeError,
    MoleculeTimeoutError,
    TooLargeError,
    UnsupportedElementError,
)
from qm9flow.molecules import embed, pool
from qm9flow.molecules.conformers import SAME_MINIMUM_KCAL, smiles_to_conformers
from qm9flow.molecules.molecule import RT_KCAL, Conformers, Molecule, Structure
from qm9flow.molecules.pool import Job, MoleculePool
from qm9flow.molecules.smiles import from_smiles

CAGE = "N=C1OC2C3CC12NC3"
"""One of QM9's molecules that ETKDG and plain distance geometry both give up on."""

HEAVY = "C" + "C1CC2CCC1CC2" * 7
"""Cages in a chain: within the limit of atoms, and seconds of work."""


def build(texts: list[str], **options: float) -> list[Molecule | MoleculeError]:
    """The lowest conformer of each."""
    with MoleculePool(workers=2) as workers:
        found = workers.build([Job("smiles", text, conformers=1) for text in texts], **options)
    return [item.lowest if isinstance(item, Conformers) else item for item in found]


@pytest.mark.parametrize(
    ("smiles", "error", "words"),
    [
        ("C1CC", InvalidSmilesError, ["unclosed ring"]),
        ("CXC", InvalidSmilesError, ["character 2", "'X'"]),
        ("C>>C", InvalidSmilesError, ["character 2"]),
        ("CC(C)(C)(C)C", InvalidSmilesError, ["atom 2 (C)", "5"]),
        ("Cc1cccc1", InvalidSmilesError, ["2, 3, 4, 5, 6"]),
        ("C.C", InvalidSmilesError, ["2 separate molecules"]),
        ("C[CH2]", InvalidSmilesError, ["atom 2 (C)", "unpaired"]),
        ("C->N", InvalidSmilesError, ["odd number of electrons", "19"]),
        ("CCl", UnsupportedElementError, ["atom 2 (Cl)"]),
        ("C*", UnsupportedElementError, ["atom 2 (*)"]),
        ("C[2H]", UnsupportedElementError, ["atom 2 (H)", "mass 2"]),
        ("C[NH3+]", ChargedError, ["+1", "atom 2 (N)"]),
        ("CC(=O)[O-]", ChargedError, ["-1", "atom 4 (O)"]),
        ("C" * 67, TooLargeError, ["203", "200"]),
        ("", EmptyMoleculeError, ["no atoms"]),
    ],
)
def test_a_smiles_is_refused_for_a_stated_reason(
    smiles: str, error: type[MoleculeError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        smiles_to_conformers(smiles, max_atoms=200, count=1)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_zwitterions_and_small_molecules_pass() -> None:
    sizes = {"[NH3+]CC([O-])=O": 10, "[H][H]": 2, "C": 5, "[C-]#[O+]": 2, "CN(=O)=O": 7, "F": 2}
    assert {text: len(smiles_to_conformers(text, 200, 1).lowest) for text in sizes} == sizes


def test_qm9s_smiles_give_its_composition_and_plausible_bonds(dataset: Dataset) -> None:
    chosen = range(7, len(dataset), 2500)
    results = build([dataset.smiles(index) for index in chosen])
    for index, result in zip(chosen, results, strict=True):
        assert isinstance(result, Molecule), f"{dataset.smiles(index)}: {result}"
        assert result.geometry == "smiles"
        assert sorted(result.numbers) == sorted(dataset.molecule(index).numbers)
        distances = np.linalg.norm(result.positions[:, None] - result.positions[None], axis=-1)
        nearest = (distances + 9 * np.eye(len(result))).min(axis=1)
        assert nearest.min() > 0.9
        assert nearest.max() < 1.65


def test_cages_that_etkdg_refuses_still_get_a_geometry() -> None:
    molecule = smiles_to_conformers(CAGE, 200, 1).lowest
    bonded = np.linalg.norm(molecule.positions[0] - molecule.positions[1])
    assert 1.2 < bonded < 1.35  # N=C


def test_the_same_smiles_gives_the_same_positions_in_any_process() -> None:
    texts = ["CCO", CAGE, "c1ccccc1O", "CCO"]
    first, second = build(texts), build(texts[::-1])[::-1]
    for text, one, two in zip(texts, first, second, strict=True):
        assert isinstance(one, Molecule)
        assert isinstance(two, Molecule)
        np.testing.assert_array_equal(one.positions, two.positions)
        np.testing.assert_array_equal(
            one.positions, smiles_to_conformers(text, 200, 1).lowest.positions
        )


def test_conformers_are_sorted_and_more_starts_find_all_that_fewer_found() -> None:
    few, many = (smiles_to_conformers("OCCCO", 200, count) for count in (3, 8))
    assert (np.diff(many.energies) > SAME_MINIMUM_KCAL).all()
    assert np.abs(few.energies[:, None] - many.energies).min(axis=1).max() < SAME_MINIMUM_KCAL
    assert many.positions.shape == (len(many.energies), 13, 3)
    assert 3 < len(many.energies) <= 8


def test_a_molecule_of_one_shape_has_one_conformer() -> None:
    found = smiles_to_conformers("C1CCCCC1", 200, 5)
    assert found.positions.shape[0] in (1, 2)  # the chair, and perhaps the boat that is twisted
    assert smiles_to_conformers("c1ccccc1", 200, 5).positions.shape == (1, 12, 3)


def test_starts_end_when_every_minimum_was_found_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []

    def counted(graph: Chem.Mol, count: int, parameters: Any, seed: int) -> None:
        starts.append(count)
        own(graph, count, parameters, seed)

    own = embed._starts
    monkeypatch.setattr(embed, "_starts", counted)
    smiles_to_conformers("c1ccccc1", 200, 30)
    assert starts == [5, 5]
    starts.clear()
    assert len(smiles_to_conformers("CCC(CC)CO", 200, 30).energies) > 6
    assert sum(starts) == 30


def test_high_minima_need_not_be_found_twice() -> None:
    low, high = 0.5, embed.RELEVANT_KCAL + 0.5
    assert embed._all_found_twice([-7.0, low - 7, -7.0, high - 7, low - 7])
    assert not embed._all_found_twice([-7.0, low - 7, -7.0])


def test_shapes_of_nearly_one_energy_are_two_conformers() -> None:
    found = smiles_to_conformers("CCCC1=COC=C1", 200, 30)
    nearest = int(np.diff(found.energies).argmin())
    one, other = (np.sort(pdist(shape)) for shape in found.positions[nearest : nearest + 2])
    assert 1e-3 < np.diff(found.energies)[nearest] < 0.01
    assert np.sqrt(np.mean((one - other) ** 2)) > 0.05


def test_weights_follow_boltzmann() -> None:
    two = Conformers(np.array([1]), np.zeros((2, 1, 3)), np.array([1.0, 1.0 + RT_KCAL]), "")
    np.testing.assert_allclose(two.weights(), [1 / (1 + np.exp(-1)), 1 / (1 + np.e)])


def test_however_a_smiles_is_written_its_geometries_are_the_same() -> None:
    first, second = (smiles_to_conformers(text, 200, 2) for text in ("OC(C)C=O", "C(=O)C(O)C"))
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.numbers, second.numbers)


@pytest.mark.parametrize(
    "smiles",
    [
        "C[C@H](N)C(=O)O",
        "C[C@@H]1[C@H](C)[C@@H]2[C@@H]3O[C@@H]3[C@H]12",
        "O[C@H](C/C=C/C)[C@@H](C)F",
        "CN1C[C@@H]2O[C@H]1C2=O",
        "C[C@H]1CC[C@@H](O)CC1",
        "CC(O)[C@H](C)C#N",
    ],
)
def test_mirror_images_have_mirrored_geometries(smiles: str) -> None:
    mirrored = re.sub("@+", lambda signs: "@" if len(signs[0]) == 2 else "@@", smiles)
    one, other = (smiles_to_conformers(text, 200, 10) for text in (smiles, mirrored))
    np.testing.assert_array_equal(one.numbers, other.numbers)
    np.testing.assert_array_equal(one.energies, other.energies)
    is_its_own = Chem.CanonSmiles(smiles) == Chem.CanonSmiles(mirrored)
    image = one.positions * np.array([1.0 if is_its_own else -1.0, 1.0, 1.0])
    np.testing.assert_array_equal(other.positions, image)
    for found, text, opposite in ((one, smiles, mirrored), (other, mirrored, smiles)):
        assert all(has_hand(molecule, text) for molecule in found.molecules)
        assert is_its_own or not any(has_hand(molecule, opposite) for molecule in found.molecules)


@pytest.mark.parametrize(
    ("smiles", "isomers"),
    [
        ("CC(O)C#N", 1),  # two mirror images
        ("C/C=C/C(C)O", 1),
        ("CC(O)C(C)N", 2),
        ("C[C@H](O)C(C)N", 2),
        ("C[C@H](O)[C@@H](C)N", 1),
        ("CC=CC", 2),
        ("OC1CCC(O)CC1", 2),
        ("CC(O)C(O)C(O)C", 3),  # a pair of mirror images, and two that are their own
        ("C1CC2CC1C2", 1),  # open centres, of which rings leave one possibility
        ("C1C2CC3CC1CC(C2)C3", 1),
        ("CC1CN1C", 1),  # nitrogen turns over
        ("C[N+]([O-])(CC)[C@H](C)O", 2),  # but not with four neighbours
        ("C[N+]([O-])(CC)C(C)O", 2),
        ("C[N+]([O-])(CC)CCO", 1),
        ("O", 1),
    ],
)
def test_isomers_that_a_smiles_leaves_open_are_counted(smiles: str, isomers: int) -> None:
    assert smiles_to_conformers(smiles, 200, 30).isomers == isomers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C[N@]1CC1C", "CC1C[N@@]1C"),
        ("O[N@]1CC1C", "CC1C[N@@]1O"),
        ("C[N@+]([O-])(CC)C(C)O", "OC(C)[N@@+](C)([O-])CC"),
        ("CCC(O)CN", "[CH3:1]CC(O)CN"),
        ("CC(C)C(O)C#N", "[12CH3]C(C)C(O)C#N"),
        ("OCC", "[1H][16O:3][CH2:2]C[1H]"),
        ("C[C@H](F)O", "[CH3:7][C@H:1](F)[OH:2]"),
        ("CC(C)O", "C[C@H]([12CH3])O"),
    ],
)
def test_other_writings_and_labels_change_nothing(one: str, other: str) -> None:
    first, second = (smiles_to_conformers(text, 200, 10) for text in (one, other))
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.numbers, second.numbers)
    assert first.isomers == second.isomers


@pytest.mark.parametrize(
    ("stated", "open_"),
    [
        ("C[C@H](N)C(=O)O", "CC(N)C(=O)O"),
        ("C[C@@H](O)C#N", "N#CC(C)O"),
        ("C[C@H]1CO1", "CC1CO1"),
        ("C/C=C/[C@H](C)O", "C/C=C/C(C)O"),
        ("CN1C[C@@H]1C", "CC1CN1C"),
    ],
)
def test_a_lone_open_centre_has_the_geometries_of_either_hand(stated: str, open_: str) -> None:
    one, other = (smiles_to_conformers(text, 200, 10) for text in (stated, open_))
    np.testing.assert_array_equal(one.energies, other.energies)
    assert other.isomers == 1


def has_hand(molecule: Molecule, smiles: str) -> bool:
    """Whether a geometry, from which bonds are read, has the stated handedness."""
    placed = Chem.RWMol()
    for number in molecule.numbers.tolist():
        placed.AddAtom(Chem.Atom(number))
    conformer = Chem.Conformer(len(molecule))
    conformer.SetPositions(molecule.positions)
    placed.AddConformer(conformer)
    rdDetermineBonds.DetermineBonds(placed)
    Chem.AssignStereochemistryFrom3D(placed)
    return placed.HasSubstructMatch(Chem.MolFromSmiles(smiles), useChirality=True)


def test_a_molecule_beyond_its_limit_times_out_and_the_others_do_not() -> None:
    with MoleculePool(workers=1, timeout_s=1.5) as workers:
        workers.build([Job("smiles", "C")])
        texts = ["CCO", HEAVY, "C1CC", "CO"]
        results = workers.build([Job("smiles", text) for text in texts])
        assert [type(result) for result in results] == [
            Conformers,
            MoleculeTimeoutError,
            InvalidSmilesError,
            Conformers,
        ]
        assert "1.5 s" in str(results[1])


def test_a_budget_for_all_ends_the_rest() -> None:
    started = time.monotonic()
    results = build(["CCO"] + [HEAVY] * 30, budget_s=1.5)
    assert time.monotonic() - started < 10
    assert isinstance(results[-1], MoleculeTimeoutError)
    assert len(results) == 31


def only_process(workers: MoleculePool) -> subprocess.Popen[str]:
    process = workers._all[0]._process
    assert process is not None
    return process


def test_a_killed_process_costs_nothing() -> None:
    with MoleculePool(workers=1) as workers:
        workers.build([Job("smiles", "C")])
        before = only_process(workers)
        before.send_signal(signal.SIGSTOP)  # so that it dies with its job undone
        killer = threading.Timer(0.3, before.kill)
        killer.start()
        made = workers.build([Job("smiles", "CCO"), Job("smiles", "CO")])
        killer.join()
        assert all(isinstance(item, Conformers) for item in made)
        assert only_process(workers).pid != before.pid


def test_what_kills_its_process_twice_is_refused_and_costs_no_other() -> None:
    with MoleculePool(workers=1) as workers:
        workers.build([Job("smiles", "C")])
        killer = threading.Thread(target=kill_two, args=(workers,))
        killer.start()
        broken, whole = workers.build([Job("smiles", HEAVY), Job("smiles", "CO")])
        killer.join()
        assert isinstance(broken, ConformerError)
        assert isinstance(whole, Conformers)
        after = only_process(workers)
    assert after.poll() is not None


def kill_two(workers: MoleculePool) -> None:
    """The process that runs, and the one that takes its place."""
    killed: set[int] = set()
    while len(killed) < 2:
        time.sleep(0.3)
        process = workers._all[0]._process
        if process is not None and process.pid not in killed:
            os.kill(process.pid, signal.SIGKILL)
            killed.add(process.pid)


def test_a_process_that_died_idle_costs_nothing() -> None:
    with MoleculePool(workers=1) as workers:
        workers.build([Job("smiles", "C")])
        only_process(workers).kill()
        only_process(workers).wait()
        assert isinstance(workers.build([Job("smiles", "CO")])[0], Conformers)


def test_closing_ends_work_under_way() -> None:
    workers = MoleculePool(workers=1)
    results: list[Structure | MoleculeError] = []
    jobs = [Job("smiles", HEAVY)] * 3
    caller = threading.Thread(target=lambda: results.extend(workers.build(jobs)))
    caller.start()
    time.sleep(1)
    workers.close()
    caller.join(timeout=10)
    assert len(results) == 3
    assert all(isinstance(result, MoleculeError) for result in results)


def test_nothing_starts_before_the_first_molecule() -> None:
    with MoleculePool(workers=2) as workers:
        assert workers.build([]) == []
        assert all(worker._process is None for worker in workers._all)


def test_progress_is_reported() -> None:
    seen = []
    with MoleculePool(workers=1) as workers:
        workers.build(
            [Job("smiles", "C"), Job("smiles", "")], progress=lambda *step: seen.append(step)
        )
    assert seen == [("molecules", 1, 2), ("molecules", 2, 2)]


def test_a_script_without_main_guard_may_use_it_from_anywhere(tmp_path: object) -> None:
    script = textwrap.dedent(
        """
        import sys
        from qm9flow.molecules.smiles import from_smiles
        print(len(from_smiles("CCO")), sorted({"torch", "mlflow"} & set(sys.modules)))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == ["9", "[]"], done.stderr


def test_the_single_call_uses_one_pool() -> None:
    assert len(from_smiles("CCO")) == 9
    assert pool.shared_pool() is pool.shared_pool()
    with pytest.raises(InvalidSmilesError):
        from_smiles("C1CC")


@pytest.mark.parametrize(
    "smiles", ["C[C@]12C[C@](C)([C@H]1O)[C@H]2O", "C[C@@H]1[C@H](C)[C@@H]2[C@@H]3O[C@@H]3[C@H]12"]
)
def test_cages_with_handedness_keep_it(smiles: str) -> None:
    assert has_hand(smiles_to_conformers(smiles, 200, 5).lowest, smiles)

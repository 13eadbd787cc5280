"""Resident batches: every molecule once, right content, little padding, repeatable."""

import numpy as np
import pytest
import torch

from qm9flow.data.resident import Batch, ResidentMolecules
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError

INDICES = make_split("seed").train[:3000]


@pytest.fixture(scope="module")
def resident(dataset: Dataset) -> ResidentMolecules:
    return load(dataset, "cpu")


def load(dataset: Dataset, device: str) -> ResidentMolecules:
    return ResidentMolecules.load(dataset, INDICES, dataset.derived()[INDICES, :10], device)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_content(dataset: Dataset, batch: Batch) -> None:
    truth = dataset.derived()[:, :10]
    for row, place in enumerate(batch.index.tolist()):
        molecule = dataset.molecule(INDICES[place])
        n = len(molecule)
        assert batch.numbers[row, :n].tolist() == molecule.numbers.tolist()
        assert not batch.numbers[row, n:].any()
        assert batch.positions[row, :n].tolist() == molecule.positions.tolist()
        assert not batch.positions[row, n:].any()
        np.testing.assert_allclose(batch.targets[row], truth[INDICES[place]], rtol=1e-6)


def test_batches_hold_the_molecules_of_the_dataset(
    dataset: Dataset, resident: ResidentMolecules
) -> None:
    for batch in next(resident.batches(64, seeded())):
        check_content(dataset, batch)
        assert batch.numbers.dtype == torch.int64
        assert batch.positions.dtype == batch.targets.dtype == torch.float32


@pytest.mark.parametrize("batch_size", [1, 7, 128, 3000, 4096])
@pytest.mark.parametrize("max_groups", [1, 4])
def test_an_epoch_holds_every_molecule_once(
    resident: ResidentMolecules, batch_size: int, max_groups: int
) -> None:
    seen: list[int] = []
    n_steps = -(-3000 // batch_size)
    for number, step in enumerate(resident.batches(batch_size, seeded(), max_groups)):
        assert 1 <= len(step) <= max_groups
        in_step = [place for batch in step for place in batch.index.tolist()]
        assert len(in_step) == (batch_size if number < n_steps - 1 else 3000 - len(seen))
        seen += in_step
        for batch in step:
            assert batch.numbers.shape[1] == resident.sizes[batch.index].max()
    assert sorted(seen) == list(range(3000))


def test_steps_are_random_in_size(resident: ResidentMolecules) -> None:
    """Grouping by size happens inside a step, not among steps."""
    means = [
        resident.sizes[torch.cat([batch.index for batch in step])].mean()
        for step in resident.batches(100, seeded())
    ]
    assert np.std(means) < 3 * resident.sizes.std() / 10


def test_groups_save_most_of_the_padding(resident: ResidentMolecules) -> None:
    def pairs(max_groups: int) -> int:
        steps = resident.batches(128, seeded(), max_groups)
        return sum(b.numbers.numel() * b.numbers.shape[1] for step in steps for b in step)

    needed = int((resident.sizes**2).sum())
    assert pairs(1) > 1.7 * needed
    assert pairs(4) < 1.2 * needed


def test_same_generator_same_epochs(resident: ResidentMolecules) -> None:
    def two_epochs(seed: int) -> list[list[int]]:
        generator = seeded(seed)
        return [
            [place for step in resident.batches(50, generator) for b in step for place in b.index]
            for _ in range(2)
        ]

    first, second = two_epochs(0)
    assert [first, second] == two_epochs(0)
    assert first != second
    assert first != two_epochs(1)[0]


@pytest.mark.parametrize("batch_atoms", [1, 100, 5000, 10**6])
def test_ordered_holds_every_molecule_once(
    dataset: Dataset, resident: ResidentMolecules, batch_atoms: int
) -> None:
    batches = list(resident.ordered(batch_atoms))
    assert sorted(torch.cat([b.index for b in batches]).tolist()) == list(range(3000))
    assert all(b.numbers.numel() <= batch_atoms or len(b.index) == 1 for b in batches)
    check_content(dataset, batches[len(batches) // 2])


def test_ordered_fills_its_batches(resident: ResidentMolecules) -> None:
    filled = [batch.numbers.numel() for batch in resident.ordered(5000)]
    assert min(filled[:-1]) > 0.9 * 5000
    assert sum(filled) < 1.05 * resident.sizes.sum()


def test_without_targets(dataset: Dataset) -> None:
    resident = ResidentMolecules.load(dataset, np.array([5]), None, "cpu")
    (batch,) = resident.ordered(10_000)
    assert batch.targets.shape == (1, 0)
    assert batch.numbers.tolist() == [[6, 8, 1, 1]]


def test_nothing_to_load_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        ResidentMolecules.load(dataset, np.zeros(0, np.int64), None, "cpu")
    with pytest.raises(ConfigError, match="2 molecules, but targets of 3"):
        ResidentMolecules.load(dataset, np.arange(2), np.zeros((3, 1)), "cpu")


@pytest.mark.parametrize(("batch_size", "max_groups"), [(0, 4), (8, 0)])
def test_impossible_batches_are_refused(
    resident: ResidentMolecules, batch_size: int, max_groups: int
) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        resident.batches(batch_size, seeded(), max_groups)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gives_the_same_batches(dataset: Dataset, resident: ResidentMolecules) -> None:
    on_gpu = load(dataset, "cuda")
    for ours, theirs in zip(
        resident.batches(100, seeded()), on_gpu.batches(100, seeded()), strict=True
    ):
        for one, other in zip(ours, theirs, strict=True):
            assert other.numbers.is_cuda
            assert torch.equal(one.numbers, other.numbers.cpu())
            assert torch.equal(one.positions, other.positions.cpu())
            assert torch.equal(one.targets, other.targets.cpu())

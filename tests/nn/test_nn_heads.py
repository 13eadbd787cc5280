"""Molecules as a whole: means with chosen weights, then dense layers."""

import math

import pytest
import torch
from torch import Tensor

from qm9flow.config import DensityConfig
from qm9flow.nn.catalog import build
from qm9flow.nn.heads import MolecularHeads, weighted_mean
from qm9flow.nn.molecular import MolecularReadout
from qm9flow.properties import LEARNED


def _trained(hidden: int, heads: int, outputs: int, seed: int = 0) -> MolecularHeads:
    torch.manual_seed(seed)
    module = MolecularHeads(hidden, heads, outputs).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def _batch() -> tuple[Tensor, Tensor]:
    """5 scalars of 2, 4 and 1 atoms, and where the atoms are."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    atoms = torch.arange(4)[None, :, None] < torch.tensor([2, 4, 1])[:, None, None]
    return hidden, atoms


def test_a_weighted_mean_has_its_closed_form() -> None:
    values = torch.tensor([[[1.0], [5.0], [1e6]]])
    weights = torch.tensor([[[0.0], [math.log(3.0)], [1e6]]])
    atoms = torch.tensor([[[True], [True], [False]]])
    assert weighted_mean(values, weights, atoms).item() == pytest.approx(4.0)


def test_one_head_of_one_atom_is_dense_layers() -> None:
    """With one atom there is nothing to choose."""
    module = _trained(5, 3, 2)
    hidden, atoms = _batch()
    inner = torch.nn.functional.silu(module.atoms(hidden[2, 0]))
    values = module.heads(inner)[:3]
    expected = module.last(torch.nn.functional.silu(module.first(values)))
    torch.testing.assert_close(module(hidden, atoms)[2], expected)


def test_molecules_are_seen_one_by_one_and_without_padding() -> None:
    module = _trained(5, 3, 2)
    hidden, atoms = _batch()
    together = module(hidden, atoms)
    for row, count in enumerate((2, 4, 1)):
        alone = module(hidden[row : row + 1, :count], atoms[row : row + 1, :count])
        torch.testing.assert_close(together[row : row + 1], alone)
    junk = torch.where(atoms, hidden, 100.0)
    torch.testing.assert_close(module(junk, atoms), together)


def test_twice_the_atoms_are_the_same_orbital() -> None:
    """Means, no sums: two copies of what each atom sees change nothing."""
    module = _trained(5, 3, 2)
    hidden, atoms = _batch()
    twice = module(torch.cat([hidden, hidden], dim=1), torch.cat([atoms, atoms], dim=1))
    torch.testing.assert_close(twice, module(hidden, atoms))


def test_they_are_more_than_sums_of_atoms() -> None:
    """What one atom adds depends on the others."""
    module = _trained(5, 3, 1)
    hidden, _ = _batch()
    a, b, c = hidden[1, :1], hidden[1, 1:2], hidden[1, 2:3]

    def value(*parts: Tensor) -> float:
        joined = torch.cat(parts)[None]
        return module(joined, torch.ones(1, len(joined[0]), 1, dtype=torch.bool)).item() * len(
            parts
        )

    assert abs((value(a, b, c) - value(a, b)) - (value(a, c) - value(a))) > 1e-3


def test_before_training_they_change_nothing() -> None:
    torch.manual_seed(4)
    with_heads = MolecularReadout(5, 0, 8, LEARNED, heads=6).double().eval()
    without = MolecularReadout(5, 0, 8, LEARNED).double().eval()
    without.load_state_dict(with_heads.state_dict(), strict=False)
    hidden, atoms = _batch()
    numbers = 6 * atoms[..., 0].long()
    places = torch.randn(3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(with_heads(numbers, places, hidden), without(numbers, places, hidden))


@pytest.mark.parametrize(
    ("heads", "targets", "has_them"),
    [(0, LEARNED, False), (4, ("u0", "mu"), False), (4, ("mu", "homo"), True)],
)
def test_they_are_there_for_intensive_targets(
    heads: int, targets: tuple[str, ...], has_them: bool
) -> None:
    config = DensityConfig(layers=1, hidden=8, vectors=4, channels=4, radial=4, heads=heads)
    names = build(config, targets).state_dict()
    assert any(name.startswith("readout.heads.") for name in names) == has_them

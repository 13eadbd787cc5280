"""Places from the centre of charge, in torch as in NumPy."""

import numpy as np
import pytest
import torch
from network_suite import METHANE, MOLECULES, pad, rotation

from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.nn.moments import from_centre, nuclear_extent
from qm9flow.units import BOHR_ANGSTROM


def test_places_are_counted_from_the_centre_of_charge() -> None:
    numbers, positions = pad(MOLECULES)
    places = from_centre(numbers, positions + 4.0)
    assert (places[numbers == 0] == 0).all()
    first_moment = (numbers[..., None] * places).sum(dim=1)
    torch.testing.assert_close(first_moment, torch.zeros_like(first_moment), rtol=0, atol=1e-10)
    torch.testing.assert_close(places[1, 1] - places[1, 0], positions[1, 1] - positions[1, 0])


def test_the_extent_of_methane_by_hand() -> None:
    numbers, positions = pad([METHANE], 7)
    assert nuclear_extent(numbers, positions).item() == pytest.approx(4 * 3 * 0.63**2, rel=1e-12)


def test_the_extent_does_not_turn_move_or_read_padding() -> None:
    numbers, positions = pad(MOLECULES, 31)
    moved = positions @ rotation(2).t() + torch.tensor([3.0, -2.0, 7.0])
    junk = torch.where(numbers[..., None] > 0, moved, 99.0)
    expected = nuclear_extent(numbers, positions)
    assert expected.shape == (len(MOLECULES), 1)
    torch.testing.assert_close(nuclear_extent(numbers, junk), expected)


def test_nothing_has_no_extent_and_a_finite_gradient() -> None:
    positions = torch.ones(1, 3, 3, requires_grad=True)
    extent = nuclear_extent(torch.zeros(1, 3, dtype=torch.int64), positions)
    extent.sum().backward()
    assert extent.item() == 0
    assert positions.grad is not None
    assert not positions.grad.any()


def test_torch_and_numpy_agree_on_qm9(dataset: Dataset) -> None:
    """To what float32 places leave: an answer gets back the extent that its target lost."""
    indices = np.arange(0, len(dataset), 97)
    molecules = ResidentMolecules.load(dataset, indices, None, "cpu")
    extents = nuclear_extent(molecules.numbers, molecules.positions.double())[:, 0].numpy()
    extents /= BOHR_ANGSTROM**2
    np.testing.assert_allclose(extents, dataset.extents[indices], rtol=0, atol=2e-4)

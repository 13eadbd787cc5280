"""From atoms to molecules: each kind of target in its closed form."""

import copy
import math

import numpy as np
import pytest
import torch
from network_suite import MOLECULES, pad, rotation
from torch import Tensor
from torch.nn import functional as F

from qm9flow.config import MODEL_CONFIGS
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.nn.embedding import ElementEmbedding
from qm9flow.nn.molecular import (
    CHARGE_UNIT,
    DIPOLE_UNIT,
    ELECTRONEGATIVITY,
    EXTENT_UNIT,
    INITIAL_MOMENTS,
    SHORTEST,
    THERMAL,
    MolecularReadout,
)
from qm9flow.nn.readout import TYPICAL_ATOMS
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.training.predict import predict_resident
from qm9flow.units import BOHR_ANGSTROM


def _readout(targets: tuple[str, ...], outputs: list[float], vectors: int = 0) -> MolecularReadout:
    """Output k of an atom is outputs[k] * silu(its only hidden value); vectors are dipoles."""
    readout = MolecularReadout(1, vectors, 1, targets).double().eval()
    with torch.no_grad():
        readout.first.weight.fill_(1.0)
        readout.first.bias.zero_()
        readout.last.weight.copy_(torch.tensor(outputs)[:, None])
        readout.last.bias.zero_()
        if readout.dipoles is not None:
            readout.dipoles.weight.fill_(1.0)
    return readout


def _column(*values: float) -> Tensor:
    """(1, N, 1), float64."""
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def _length(dipole: float) -> float:
    """What the readout gives for a dipole in its units."""
    return math.hypot(DIPOLE_UNIT * dipole, SHORTEST) - SHORTEST


def _random(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers, places, 8 scalars and 3 vectors of each atom."""
    numbers, positions = pad(MOLECULES)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*numbers.shape, 8, generator=generator, dtype=torch.float64)
    vectors = torch.randn(*numbers.shape, 3, 3, generator=generator, dtype=torch.float64)
    return numbers, positions, hidden, vectors


def test_two_unit_charges_have_the_dipole_of_their_distance() -> None:
    """silu(1) - silu(-1) = 1: output weight 2 makes charges of +1 and -1 once they are neutral."""
    readout = _readout(("mu",), [2.0, 0.0])
    numbers = torch.tensor([[9, 1]])
    positions = torch.tensor([[[0.3, -1.0, 2.0], [0.3, -1.0, 2.9]]], dtype=torch.float64)
    encoded = readout(numbers, positions, _column(1.0, -1.0))
    assert encoded.item() == pytest.approx(_length(0.9 / BOHR_ANGSTROM), rel=1e-12)


def test_a_charge_and_atomic_dipoles_add_up_as_vectors() -> None:
    readout = _readout(("mu",), [2.0, 0.0], vectors=1)
    numbers = torch.tensor([[6, 8]])
    positions = torch.tensor([[[0.0, 0, 0], [BOHR_ANGSTROM, 0, 0]]], dtype=torch.float64)
    vectors = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 0.0, -2.0]]]).double()[..., None]
    encoded = readout(numbers, positions, _column(-1.0, 1.0), vectors)
    assert encoded.item() == pytest.approx(_length(3.0), rel=1e-12)  # of (1, 2, -2)


def test_charges_are_neutral_so_that_no_origin_is_special() -> None:
    """The same sum over places as they are given, far from the centre of charge."""
    numbers, positions, hidden, _ = _random()
    torch.manual_seed(0)
    readout = MolecularReadout(8, 0, 16, ("mu", "homo")).double().eval()
    atoms = (numbers > 0)[..., None]
    outputs = readout.last(F.silu(readout.first(hidden)))  # value and weight of HOMO, charge, rest
    charges = torch.where(atoms, outputs[..., 2:3], 0)
    mean = charges.sum(dim=1, keepdim=True) / atoms.sum(dim=1, keepdim=True)
    neutral = torch.where(atoms, charges - mean, 0)
    assert (charges.sum(dim=1).abs() > 1e-4).all()
    for origin in (0.0, 100.0):
        places = positions + origin
        dipole = (neutral * places / BOHR_ANGSTROM).sum(dim=1).norm(dim=1).tolist()
        encoded = readout(numbers, places, hidden)[:, 0]
        assert encoded.tolist() == pytest.approx([_length(d) for d in dipole], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("is_training", [False, True])
def test_no_dipole_is_exactly_zero_with_finite_gradients(
    dtype: torch.dtype, is_training: bool
) -> None:
    torch.manual_seed(0)
    readout = MolecularReadout(4, 2, 8, ("mu",)).to(dtype).train(is_training)
    numbers = torch.tensor([[7, 7], [6, 0]])
    positions = torch.eye(2, 3, dtype=dtype).expand(2, 2, 3).clone().requires_grad_()
    hidden = torch.ones(2, 2, 4, dtype=dtype, requires_grad=True)  # alike: no charge moves
    vectors = torch.zeros(2, 2, 3, 2, dtype=dtype, requires_grad=True)
    encoded = readout(numbers, positions, hidden, vectors)
    assert encoded.dtype == dtype
    assert (encoded == 0).all()
    gradients = torch.autograd.grad(encoded.sum(), [positions, hidden, vectors])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_small_dipoles_bend_and_large_ones_do_not() -> None:
    readout = _readout(("mu",), [2.0, 0.0])
    numbers = torch.tensor([[6, 6]])
    lengths = []
    for distance in (1e-5, 1.0):
        positions = torch.tensor([[[0.0, 0.0, 0.0], [distance * BOHR_ANGSTROM, 0.0, 0.0]]])
        lengths.append(readout(numbers, positions.double(), _column(-1.0, 1.0)).item())
    assert lengths[0] == pytest.approx((DIPOLE_UNIT * 1e-5) ** 2 / (2 * SHORTEST), rel=1e-3)
    assert lengths[1] == pytest.approx(DIPOLE_UNIT - SHORTEST, rel=1e-5)


def test_r2_has_its_closed_form() -> None:
    """O at 0 and two H: spreads, charges times squared places, dipoles along places."""
    readout = _readout(("r2",), [3.0, 0.5], vectors=1)
    numbers = torch.tensor([[8, 1, 1, 0]])
    places = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [1.0, -2.0, 0.0], [7.0, 7.0, 7.0]])
    hidden = _column(1.0, -1.0, -1.0, 5.0)
    vectors = torch.tensor([[0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3], [9, 9, 9]])[None, ..., None]
    encoded = readout(numbers, (places * BOHR_ANGSTROM)[None].double(), hidden, vectors.double())

    plus, minus = 1 / (1 + math.exp(-1)), -1 / (1 + math.exp(1))  # silu of 1 and -1
    spread = 0.5 * (plus + 2 * minus)
    oxygen, hydrogen = 3.0 * (plus - minus) * 2 / 3, -3.0 * (plus - minus) / 3
    centre = 2 * 1.0 / 10  # on the x axis
    far = (1 - centre) ** 2 + 4
    charged = oxygen * centre**2 + 2 * hydrogen * far
    along = 0.1 * -centre + 0.2 * 2
    assert oxygen + 2 * hydrogen == pytest.approx(0)
    assert encoded.item() == pytest.approx(EXTENT_UNIT * (spread + along - charged), rel=1e-6)


def test_electrons_that_leave_the_centre_make_r2_larger() -> None:
    """A negative charge outside means more electrons outside."""
    readout = _readout(("r2",), [2.0, 0.0])
    numbers = torch.tensor([[7, 1, 7]])
    positions = torch.tensor([[[-1.0, 0, 0], [0, 0, 0], [1.0, 0, 0]]]).double()
    outside = readout(numbers, positions, _column(-1.0, 1.0, -1.0)).item()
    inside = readout(numbers, positions, _column(1.0, -1.0, 1.0)).item()
    expected = EXTENT_UNIT * 2 * (2 / 3) / BOHR_ANGSTROM**2
    assert (outside, inside) == (pytest.approx(expected), pytest.approx(-expected))


def test_orbital_energies_are_weighted_means() -> None:
    """Values silu(x), weights 3 silu(x) before the exponential; padding has no share."""
    readout = _readout(("homo",), [1.0, 3.0, 0.0])
    numbers = torch.tensor([[6, 1, 0]])
    encoded = readout(numbers, torch.zeros(1, 3, 3).double(), _column(1.0, -1.0, 50.0)).item()
    values = [1 / (1 + math.exp(-1)), -1 / (1 + math.exp(1))]
    shares = [math.exp(3 * value) for value in values]
    expected = sum(v * s for v, s in zip(values, shares, strict=True)) / sum(shares)
    assert encoded == pytest.approx(expected, rel=1e-12)


def test_padding_changes_nothing_whatever_stands_there() -> None:
    numbers, positions, hidden, vectors = _random()
    torch.manual_seed(1)
    readout = MolecularReadout(8, 3, 16, LEARNED).double().eval()
    together = readout(numbers, positions, hidden, vectors)
    for row, (z, place) in enumerate(MOLECULES):
        n = len(z)
        alone = readout(z[None], place[None], hidden[row, None, :n], vectors[row, None, :n])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-10, atol=1e-10)
    junk = torch.where(numbers[..., None] > 0, hidden, 1e4)
    torch.testing.assert_close(readout(numbers, positions, junk, vectors), together)


def test_extensive_targets_are_sums_and_u_and_g_follow_u0() -> None:
    targets = ("alpha", "u0", "u", "g")
    readout = _readout(targets, [1.0, 10.0, 100.0, 1000.0, 0.0])
    numbers = torch.tensor([[6, 1, 0]])
    encoded = readout(numbers, torch.zeros(1, 3, 3).double(), _column(1.0, -1.0, 50.0))
    total = (1 / (1 + math.exp(-1)) - 1 / (1 + math.exp(1))) / math.sqrt(TYPICAL_ATOMS)
    expected = [1.0, 10.0, 10 + THERMAL["u"] * 100, 10 + THERMAL["g"] * 1000]
    assert encoded[0].tolist() == pytest.approx([total * value for value in expected])
    alone = _readout(("u",), [100.0, 0.0])(
        numbers, torch.zeros(1, 3, 3).double(), _column(1.0, -1.0, 50.0)
    )
    assert alone.item() == pytest.approx(100 * total), "without U0 it is a sum of its own"


@pytest.mark.parametrize("layers", [1, 2, 3, 8])
def test_depth_counts_all_dense_layers_and_none_lets_values_fade(layers: int) -> None:
    numbers, positions, hidden, _ = _random()
    torch.manual_seed(6)
    readout = MolecularReadout(8, 0, 64, ("homo", "u0"), layers=layers).double()
    shapes = sorted(tuple(p.shape) for p in readout.parameters() if p.dim() == 2)
    assert len(shapes) == layers
    assert shapes.count((64, 64)) == max(layers - 2, 0)
    encoded = readout(numbers, positions, hidden)
    assert encoded.std(dim=0).min() > 1e-3, "different molecules stay different"
    for training in (True, False):
        torch.testing.assert_close(readout.train(training)(numbers, positions, hidden), encoded)


def test_without_a_layer_between_outputs_are_linear() -> None:
    readout = MolecularReadout(8, 0, 64, ("u0",), layers=1).double()
    numbers, positions, hidden, _ = _random()
    values = [readout(numbers, positions, factor * hidden) for factor in (-1.0, 0.0, 1.0)]
    torch.testing.assert_close(values[0] + values[2], 2 * values[1])


def test_outputs_come_in_the_order_of_the_targets() -> None:
    numbers, positions, hidden, vectors = _random()
    torch.manual_seed(2)
    readout = MolecularReadout(8, 3, 16, LEARNED).double().eval()
    encoded = readout(numbers, positions, hidden, vectors)
    for reordered in (LEARNED[::-1], LEARNED[4:] + LEARNED[:4]):
        other = MolecularReadout(8, 3, 16, reordered).double().eval()
        _copy_rows(readout, other)
        shuffled = other(numbers, positions, hidden, vectors)
        columns = [LEARNED.index(name) for name in reordered]
        torch.testing.assert_close(shuffled, encoded[:, columns], rtol=1e-12, atol=1e-12)


def _copy_rows(source: MolecularReadout, target: MolecularReadout) -> None:
    """The same weights for the same target."""

    def rows(readout: MolecularReadout) -> list[str]:
        means = [*readout.means, *(f"weight of {name}" for name in readout.means)]
        return [*readout.sums, *means, *readout.moments, "spread"]

    order = [rows(source).index(name) for name in rows(target)]
    target.first.load_state_dict(source.first.state_dict())
    with torch.no_grad():
        target.last.weight.copy_(source.last.weight[order])
        target.last.bias.copy_(source.last.bias[order])
        moments = [source.moments.index(name) for name in target.moments]
        assert source.dipoles is not None
        assert target.dipoles is not None
        target.dipoles.weight.copy_(source.dipoles.weight[moments])


def test_turning_a_molecule_and_its_vectors_changes_nothing() -> None:
    numbers, positions, hidden, vectors = _random()
    torch.manual_seed(3)
    readout = MolecularReadout(8, 3, 16, LEARNED).double().eval()
    turn = rotation(4)
    turned = torch.einsum("xy,bnyv->bnxv", turn, vectors)
    again = readout(numbers, positions @ turn.t() + 5.0, hidden, turned)
    expected = readout(numbers, positions, hidden, vectors)
    torch.testing.assert_close(again, expected, rtol=1e-9, atol=1e-9)


def test_a_network_without_vectors_has_no_dipoles_of_atoms() -> None:
    numbers, positions, hidden, vectors = _random()
    torch.manual_seed(4)
    readout = MolecularReadout(8, 3, 16, LEARNED).double().eval()
    bare = copy.deepcopy(readout)
    bare.dipoles = None
    torch.testing.assert_close(
        bare(numbers, positions, hidden),
        readout(numbers, positions, hidden, torch.zeros_like(vectors)),
    )


def test_evaluation_rounds_once() -> None:
    numbers, positions, hidden, vectors = (part.float() for part in _random())
    numbers = numbers.long()
    torch.manual_seed(5)
    readout = MolecularReadout(8, 3, 16, LEARNED)
    with torch.inference_mode():
        trained = readout(numbers, positions, hidden, vectors)
        evaluated = readout.eval()(numbers, positions, hidden, vectors)
        doubles = (part.double() for part in (positions, hidden, vectors))
        exact = copy.deepcopy(readout).double()(numbers, *doubles)
    assert evaluated.dtype == torch.float32
    assert torch.equal(evaluated, exact.float())
    assert not torch.equal(trained, evaluated)
    torch.testing.assert_close(trained, evaluated, rtol=1e-4, atol=1e-3)


def test_moments_start_small_beside_other_outputs() -> None:
    torch.manual_seed(7)
    readout = MolecularReadout(64, 64, 64, LEARNED)
    first_charge = sum(readout.sizes[:3])
    charges = readout.last.weight[first_charge : first_charge + 2].std()
    others = readout.last.weight[:first_charge].std()
    assert readout.dipoles is not None
    for moments in (charges, readout.dipoles.weight.std()):
        assert (moments / others).item() == pytest.approx(INITIAL_MOMENTS, rel=0.2)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_fresh_charges_follow_electronegativity(layers: int) -> None:
    """With an element's own numbers for what is known of an atom, HF has 1.78 times 0.3 e."""
    torch.manual_seed(0)
    embedding = ElementEmbedding(32)
    readout = MolecularReadout(32, 0, 32, LEARNED, layers=layers).eval()
    readout.start_charges(embedding)
    numbers, distance = torch.tensor([[9, 1]]), 0.917
    places = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, distance]]])
    values = readout(numbers, places, embedding(numbers))
    charge = CHARGE_UNIT * (ELECTRONEGATIVITY[4] - ELECTRONEGATIVITY[0]) / 2
    expected = _length(charge * distance / BOHR_ANGSTROM)
    assert values[0, LEARNED.index("mu")].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["density", "painn", "schnet"])
def test_fresh_dipoles_point_the_same_way_in_all_kinds_of_molecules(
    name: str, dataset: Dataset
) -> None:
    """Longer where they are longer, before anything is learned."""
    torch.manual_seed(1)
    network = build(MODEL_CONFIGS[name](), LEARNED)
    places = np.arange(0, 130_000, 130)
    molecules = ResidentMolecules.load(dataset, places, None, "cpu")
    fresh = predict_resident(network, molecules, len(LEARNED)).numpy()[:, LEARNED.index("mu")]
    true = dataset.truth()[places][:, TARGETS.index("mu")]
    assert np.corrcoef(fresh, true)[0, 1] > 0.45


def test_a_molecule_without_atoms_is_finite() -> None:
    readout = MolecularReadout(8, 3, 16, LEARNED).eval()
    nothing = torch.zeros(1, 3, dtype=torch.int64)
    encoded = readout(nothing, torch.zeros(1, 3, 3), torch.zeros(1, 3, 8), torch.zeros(1, 3, 3, 3))
    assert encoded.isfinite().all()

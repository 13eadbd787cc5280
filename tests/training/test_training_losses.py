"""Losses: closed forms, weights of targets, and groups that add up to the whole batch."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from qm9flow.config import GAP_GOAL, GOALS, TrainConfig, from_dict
from qm9flow.data.resident import Batch
from qm9flow.errors import ConfigError
from qm9flow.properties import LEARNED
from qm9flow.targets import TargetCodec
from qm9flow.training.flat import FlatParameters
from qm9flow.training.losses import LOSSES, RMSE_FLOOR, compared
from qm9flow.training.property_task import PropertyTerms
from qm9flow.training.steps import Stepper

PREDICTED = torch.tensor([[0.5, 1.0], [3.0, -1.0]])
TRUE = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
CLOSED = {
    "rmse": math.sqrt((0.25 + 0 + 9 + 4) / 4),
    "mae": (0.5 + 0 + 3 + 2) / 4,
    "huber": (0.125 + 0 + 2.5 + 1.5) / 4,
}


class Linear(nn.Module):
    """A network of the contract's shape: one dense layer on the mean position."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2)

    def forward(self, numbers: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.dense(positions.sum(dim=1) / (numbers > 0).sum(dim=1, keepdim=True))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_their_closed_forms(name: str) -> None:
    loss = LOSSES[name]
    mean = loss.pointwise(PREDICTED, TRUE).mean()
    assert loss.outer(mean).item() == pytest.approx(CLOSED[name])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [0.0, 0.3, 50.0])
def test_slope_is_the_derivative_of_outer(name: str, value: float) -> None:
    mean = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name]
    (expected,) = torch.autograd.grad(loss.outer(mean), mean)
    assert loss.slope(mean.detach()).item() == pytest.approx(expected.item(), rel=1e-12)


def _groups(sizes: list[int]) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    groups = []
    for atoms, size in enumerate(sizes, start=2):
        groups.append(
            Batch(
                torch.ones(size, atoms, dtype=torch.int64),
                torch.randn(size, atoms, 3, generator=generator),
                torch.randn(size, 2, generator=generator) * atoms,
                torch.arange(size),
            )
        )
    return groups


def _stepper(
    tiny: TrainConfig, name: str, columns: torch.Tensor | None = None
) -> tuple[Stepper, Linear]:
    torch.manual_seed(0)
    network = Linear()
    flat = FlatParameters(network, ["dense"])
    loss = LOSSES[name]
    config = replace(tiny, loss=name, grad_clip=None)
    return Stepper(config, network, flat, loss, PropertyTerms(loss, columns)), network


@pytest.mark.parametrize("name", LOSSES)
def test_groups_give_loss_and_gradient_of_the_whole_batch(tiny: TrainConfig, name: str) -> None:
    groups = _groups([5, 1, 9])
    stepper, network = _stepper(tiny, name)
    mean = stepper.accumulate(groups)
    gradient = stepper.flat.gradient * stepper.factor

    predicted = torch.cat([network(batch.numbers, batch.positions) for batch in groups])
    true = torch.cat([batch.targets for batch in groups])
    direct = {
        "rmse": lambda: torch.sqrt(nn.functional.mse_loss(predicted, true) + RMSE_FLOOR),
        "mae": lambda: nn.functional.l1_loss(predicted, true),
        "huber": lambda: nn.functional.huber_loss(predicted, true),
    }[name]()
    weight, bias = torch.autograd.grad(direct, [network.dense.weight, network.dense.bias])

    assert stepper.loss.outer(mean).item() == pytest.approx(direct.item(), rel=1e-6)
    torch.testing.assert_close(gradient[:6].view(2, 3), weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient[16:18], bias, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_compared_gives_the_gradient_of_its_loss(tiny: TrainConfig, name: str) -> None:
    """Two weighted targets and their difference."""
    groups = _groups([5, 1, 9])
    stepper, network = _stepper(tiny, name, torch.tensor([[0.25, 0.0, -0.5], [0.0, 1.75, 0.5]]))
    mean = stepper.accumulate(groups)
    gradient = stepper.flat.gradient * stepper.factor

    predicted = torch.cat([network(batch.numbers, batch.positions) for batch in groups])
    error = predicted - torch.cat([batch.targets for batch in groups])
    first, second = error.unbind(1)
    error = torch.stack([first / 4, second * 7 / 4, (second - first) / 2], dim=1)
    small = error.abs() <= 1
    direct = {
        "rmse": lambda: torch.sqrt(error.square().mean() + RMSE_FLOOR),
        "mae": lambda: error.abs().mean(),
        "huber": lambda: torch.where(small, error.square() / 2, error.abs() - 0.5).mean(),
    }[name]()
    weight, bias = torch.autograd.grad(direct, [network.dense.weight, network.dense.bias])

    assert stepper.loss.outer(mean).item() == pytest.approx(direct.item(), rel=1e-6)
    torch.testing.assert_close(gradient[:6].view(2, 3), weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient[16:18], bias, rtol=1e-5, atol=1e-7)


def test_comparing_targets_by_themselves_changes_nothing(tiny: TrainConfig) -> None:
    gradients = []
    for columns in (None, torch.eye(2)):
        stepper, _ = _stepper(tiny, "mae", columns)
        stepper.accumulate(_groups([4, 4]))
        gradients.append(stepper.flat.gradient)
    torch.testing.assert_close(*gradients)


def _codec(scale: np.ndarray) -> TargetCodec:
    return replace(TargetCodec.identity(LEARNED), scale=scale)


def test_a_balanced_loss_counts_errors_in_goals(tiny: TrainConfig) -> None:
    """An error of one goal counts the same in each target, and in the gap."""
    config = replace(tiny, loss="mae", weighting="balanced")
    scale = np.linspace(0.5, 3.0, 10)
    goals = np.array([GOALS[name] for name in LEARNED])
    columns = compared(config, _codec(scale))
    assert columns is not None
    assert columns.shape == (10, 11)
    assert columns.dtype == torch.float32
    assert columns.diagonal().mean().item() == pytest.approx(1.0)
    unit = 1 / (scale / goals).mean()
    errors = torch.tensor(goals / scale, dtype=torch.float32)  # encoded
    torch.testing.assert_close(errors @ columns[:, :10], torch.full((10,), float(unit)))

    lumo_too_high = torch.zeros(10)
    lumo_too_high[LEARNED.index("lumo")] = GAP_GOAL / scale[LEARNED.index("lumo")]
    assert (lumo_too_high @ columns)[10].item() == pytest.approx(unit)
    both_too_high = lumo_too_high.clone()
    both_too_high[LEARNED.index("homo")] = GAP_GOAL / scale[LEARNED.index("homo")]
    assert (both_too_high @ columns)[10].item() == pytest.approx(0, abs=1e-7)
    torch.testing.assert_close(compared(config, _codec(7 * scale)), columns)


def test_equal_targets_are_compared_as_they_are(tiny: TrainConfig) -> None:
    assert tiny.weighting == "equal"
    assert compared(tiny, TargetCodec.identity(LEARNED)) is None


def test_raw_targets_cannot_be_balanced(tiny: TrainConfig) -> None:
    with pytest.raises(
        ConfigError, match='only learned targets have balanced weights: set weighting = "equal"'
    ):
        replace(tiny, targets="raw", weighting="balanced")
    with pytest.raises(ConfigError, match=r"weighting must be one of equal, balanced"):
        from_dict(TrainConfig, {"weighting": "fair"})


def test_rmse_without_error_has_a_finite_gradient(tiny: TrainConfig) -> None:
    stepper, network = _stepper(tiny, "rmse")
    batch = _groups([1])[0]
    exact = network(batch.numbers, batch.positions).detach()
    stepper.accumulate([replace(batch, targets=exact)])
    stepper.apply(1e-3)
    assert torch.isfinite(stepper.flat.weights).all()


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_clipping_bounds_the_norm_and_keeps_the_direction(tiny: TrainConfig, clip: float) -> None:
    stepper, _ = _stepper(tiny, "mae")
    stepper.grad_clip = clip
    stepper.accumulate(_groups([4, 4]))
    before = stepper.flat.gradient.clone()
    stepper.apply(0.0)
    after = stepper.flat.gradient
    assert after.norm().item() == pytest.approx(min(clip, before.norm().item()), rel=1e-5)
    torch.testing.assert_close(after / after.norm(), before / before.norm())


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
def test_one_fused_step_moves_the_network_as_torch_does(tiny: TrainConfig, kind: str) -> None:
    """Muon leaves networks to AdamW that do not say which of their matrices are hidden ones."""
    torch.manual_seed(0)
    network, twin = Linear(), Linear()
    twin.load_state_dict(network.state_dict())
    config = replace(tiny, optimizer=kind, weight_decay=0.1, loss="mae", grad_clip=None)
    loss = LOSSES["mae"]
    flat = FlatParameters(network, ["dense"])
    stepper = Stepper(config, network, flat, loss, PropertyTerms(loss))
    likewise = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    optimizer = likewise(twin.parameters(), lr=0.01, weight_decay=0.1, fused=False)
    for batch in _groups([4, 6]):
        stepper.accumulate([batch])
        stepper.apply(0.01)
        optimizer.zero_grad()
        nn.functional.l1_loss(twin(batch.numbers, batch.positions), batch.targets).backward()
        optimizer.step()
    torch.testing.assert_close(network.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-6)

"""Losses: closed forms, and groups that add up to the whole batch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from qm9flow.config import TrainConfig
from qm9flow.data.resident import Batch
from qm9flow.training.flat import FlatParameters
from qm9flow.training.losses import LOSSES, RMSE_FLOOR
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
    assert loss.outer(loss.summed(PREDICTED, TRUE) / 4).item() == pytest.approx(CLOSED[name])


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


def _stepper(tiny: TrainConfig, name: str) -> tuple[Stepper, Linear]:
    torch.manual_seed(0)
    network = Linear()
    flat = FlatParameters(network, ["dense"])
    return Stepper(replace(tiny, loss=name, grad_clip=None), network, flat), network


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


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_one_fused_step_moves_the_network_as_torch_does(tiny: TrainConfig, kind: str) -> None:
    torch.manual_seed(0)
    network, twin = Linear(), Linear()
    twin.load_state_dict(network.state_dict())
    config = replace(tiny, optimizer=kind, weight_decay=0.1, loss="mae", grad_clip=None)
    stepper = Stepper(config, network, FlatParameters(network, ["dense"]))
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](
        twin.parameters(), lr=0.01, weight_decay=0.1, fused=False
    )
    for batch in _groups([4, 6]):
        stepper.accumulate([batch])
        stepper.apply(0.01)
        optimizer.zero_grad()
        nn.functional.l1_loss(twin(batch.numbers, batch.positions), batch.targets).backward()
        optimizer.step()
    torch.testing.assert_close(network.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-6)

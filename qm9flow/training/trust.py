"""Fitting `qm9flow.nn.trust.Trust` to a trained network."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qm9flow.data.geometries import Geometries
from qm9flow.data.store import Dataset
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.trust import Trust
from qm9flow.training.look import errors_of, look

MOLECULES = 30_000
"""Training molecules that are looked at: more change spreads by less than the noise of a fit."""
EPOCHS = 20
BATCH = 256
RATE, DECAY = 1e-3, 0.1
RIDGE = 1e-3
"""Added to the variance of each feature, so that those which hardly vary do not decide."""


def fit_trust(
    model: PropertyModel,
    geometries: Geometries,
    dataset: Dataset,
    train: npt.NDArray[np.int64],
    seed: int = 0,
) -> Trust:
    """Learn from the network's errors on training molecules.

    Args:
        model: The trained network with its codec, on the CPU; left in evaluation mode.
        geometries: Those that it was trained on.
        dataset: QM9.
        train: (n,), places of training molecules.
        seed: Of the molecules that are drawn, and of the weights.

    Returns:
        Spreads of `properties.spread_names` and a distance.
    """
    known = geometries.known(train)
    drawn = np.random.default_rng(seed).permutation(known)[:MOLECULES]
    seen = look(model, geometries.atoms, geometries.likeliest(drawn))
    errors = torch.from_numpy(np.abs(errors_of(model, seen, dataset, drawn))).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trust = Trust(seen.features.shape[1], errors.shape[1])
        _place(trust, seen.features)
        trust.typical.copy_(errors.mean(dim=0).clamp(min=1e-12))
        _learn(trust, seen.features, errors / trust.typical)
    return trust.eval().requires_grad_(False)


def _place(trust: Trust, features: Tensor) -> None:
    """Centre and directions of the training molecules' features."""
    wide = features.double()
    trust.centre.copy_(wide.mean(dim=0))
    trust.deviation.copy_(wide.std(dim=0).clamp(min=1e-6))
    standard = (wide - trust.centre) / trust.deviation
    covariance = standard.T @ standard / len(standard)
    covariance += RIDGE * torch.eye(len(covariance), dtype=torch.float64)
    trust.whiten.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))


def _learn(trust: Trust, features: Tensor, errors: Tensor) -> None:
    """Maximum likelihood of errors as Laplace's distribution has them, in typical ones."""
    steps = EPOCHS * -(-len(features) // BATCH)
    weights = [*trust.first.parameters(), *trust.last.parameters()]
    nn.init.zeros_(trust.last.weight)
    nn.init.zeros_(trust.last.bias)
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for some in torch.randperm(len(features)).split(BATCH):
            logarithm = trust.log_spread(features[some])
            loss = (logarithm + errors[some] * torch.exp(-logarithm)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

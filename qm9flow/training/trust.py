"""Fitting `qm9flow.nn.trust.Trust` to a trained network."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qm9flow.data.geometries import Geometries
from qm9flow.data.store import Dataset
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.trust import Trust, squared_distances
from qm9flow.training.look import errors_of, look

MOLECULES = 30_000
"""Training molecules that are looked at: more change spreads by less than the noise of a fit."""
EPOCHS = 20
BATCH = 256
RATE, DECAY = 1e-3, 0.1
RIDGE = 1e-3
"""Added to the variance of each direction, so that those which hardly vary do not decide."""
DIRECTIONS = 64
EXAMPLES = 512
EXTREMES = 1000
"""Of the smallest, and of the largest, training molecules: all are looked at, as there are few."""


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
    by_size = known[np.argsort(dataset.sizes[known], kind="stable")]
    drawn = np.unique(np.concatenate([drawn, by_size[:EXTREMES], by_size[-EXTREMES:]]))
    seen = look(model, geometries.atoms, geometries.of(drawn))
    errors = torch.from_numpy(np.abs(errors_of(model, seen, dataset, drawn))).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trust = _placed(seen.features, errors.shape[1])
        trust.typical.copy_(errors.mean(dim=0).clamp(min=1e-12))
        _learn(trust, seen.features, errors / trust.typical)
    return trust.eval().requires_grad_(False)


def _placed(features: Tensor, spreads: int) -> Trust:
    """With the training molecules' centre, directions and examples."""
    wide = features.double()
    centre, deviation = wide.mean(dim=0), wide.std(dim=0).clamp(min=1e-6)
    standard = (wide - centre) / deviation
    variances, directions = torch.linalg.eigh(standard.T @ standard / len(standard))
    whiten = (directions / (variances.clamp(min=0) + RIDGE).sqrt())[:, -DIRECTIONS:].float()
    placed = ((features - centre.float()) / deviation.float()) @ whiten
    trust = Trust(features.shape[1], spreads, whiten, _far_apart(placed))
    trust.centre.copy_(centre)
    trust.deviation.copy_(deviation)
    return trust


def _far_apart(points: Tensor) -> Tensor:
    """(E, D) of (n, D): each the one that lies furthest from those before it."""
    chosen = [0]
    nearest = squared_distances(points, points[:1])[:, 0]
    for _ in range(min(EXAMPLES, len(points)) - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, squared_distances(points, points[chosen[-1:]])[:, 0])
    return points[chosen].clone()


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

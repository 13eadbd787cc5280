"""Fitting `qm9flow.nn.choice.Choice` to a trained network."""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qm9flow.config import balance
from qm9flow.data.geometries import is_the_one
from qm9flow.data.geometry_set import GeometrySet
from qm9flow.data.store import Dataset
from qm9flow.nn.choice import Choice
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import spread_names
from qm9flow.training.look import errors_of, look

MOLECULES = 30_000
EPOCHS = 15
BATCH = 512
"""Molecules a step."""
RATE, DECAY, DROPOUT = 2e-3, 0.05, 0.1
SEED = 0
LABELS = 0.3
"""Weight of knowing the conformer beside that of the values' errors."""

Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class _Conformers:
    """Conformers of molecules, one molecule after another.

    Attributes:
        features: (G, 3 h).
        energies: (G,), kcal/mol above the molecule's lowest.
        errors: (G, C), of balanced targets and the gap, in their goals, with their signs.
        is_known: (G,), whether it is the one that QM9 has.
        starts: (n + 1,).
    """

    features: Tensor
    energies: Tensor
    errors: Tensor
    is_known: Tensor
    starts: Tensor

    def some(self, molecules: Tensor) -> tuple["_Conformers", Tensor]:
        """Those of some molecules, and (g,), whose they are."""
        counts = self.starts.diff()[molecules]
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        owner = torch.repeat_interleave(torch.arange(len(molecules)), counts)
        places = torch.arange(int(starts[-1])) - starts[owner] + self.starts[molecules][owner]
        chosen = _Conformers(
            self.features[places],
            self.energies[places],
            self.errors[places],
            self.is_known[places],
            starts,
        )
        return chosen, owner


def fit_choice(
    model: PropertyModel,
    conformers: GeometrySet,
    relaxed: GeometrySet,
    dataset: Dataset,
    train: Indices,
) -> Choice:
    """Learn which conformer to believe.

    Args:
        model: The trained network with its codec, on the CPU; left in evaluation mode.
        conformers: From SMILES.
        relaxed: QM9's geometries in the same force field.
        dataset: QM9.
        train: (n,), places of training molecules.

    Returns:
        What weighs conformers.
    """
    found = np.asarray(train)[np.diff(conformers.first)[train] > 0]
    drawn = np.random.default_rng(SEED).permutation(found)[:MOLECULES]
    seen = _conformers(model, conformers, relaxed, dataset, drawn)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        deviation = seen.features.std(dim=0).clamp(min=1e-6)
        choice = Choice(seen.features.mean(dim=0), deviation, dropout=DROPOUT)
        _learn(choice, seen, len(drawn))
    return choice.eval().requires_grad_(False)


def _conformers(
    model: PropertyModel,
    conformers: GeometrySet,
    relaxed: GeometrySet,
    dataset: Dataset,
    molecules: Indices,
) -> _Conformers:
    counts = np.diff(conformers.first)[molecules]
    starts = np.concatenate([[0], np.cumsum(counts)])
    lowest = np.repeat(conformers.first[molecules], counts)
    places = lowest + np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    seen = look(model, conformers, places)
    errors = errors_of(model, seen, dataset, np.repeat(molecules, counts))
    goals = balance("smiles")
    scale = [goals.get(name, np.inf) for name in spread_names(model.targets)]
    return _Conformers(
        seen.features,
        torch.from_numpy(conformers.energies[places] - conformers.energies[lowest]),
        torch.from_numpy(errors / np.array(scale)).float(),
        torch.from_numpy(is_the_one(conformers, relaxed)[places]).float(),
        torch.from_numpy(starts),
    )


def _learn(choice: Choice, seen: _Conformers, molecules: int) -> None:
    """The averages' absolute errors, and the likelihood of the conformer that QM9 has."""
    optimizer = torch.optim.AdamW(choice.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-molecules // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    choice.train()
    for _ in range(EPOCHS):
        for some in torch.randperm(molecules).split(BATCH):
            chosen, owner = seen.some(some)
            logits = choice(chosen.features) - choice.per_kcal * chosen.energies
            weights = _softmax(logits, owner, len(some))
            means = logits.new_zeros(len(some), chosen.errors.shape[1])
            means = means.index_add(0, owner, weights[:, None] * chosen.errors)
            known = logits.new_zeros(len(some)).index_add(0, owner, chosen.is_known)
            right = logits.new_zeros(len(some)).index_add(0, owner, weights * chosen.is_known)
            likelihood = torch.log(right[known > 0] + 1e-6)
            loss = means.abs().mean() - LABELS * likelihood.sum() / len(some)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _softmax(logits: Tensor, owner: Tensor, count: int) -> Tensor:
    """(G,), over each owner's own."""
    largest = logits.new_full((count,), -torch.inf).scatter_reduce(0, owner, logits, "amax")
    factors = torch.exp(logits - largest.detach()[owner])
    return factors / logits.new_zeros(count).index_add(0, owner, factors)[owner]

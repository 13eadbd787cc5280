"""Learning which conformer is the one that QM9 has."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from qm9flow.config import TrainConfig
from qm9flow.data.conformers import open_conformers
from qm9flow.data.geometries import candidates
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.resident_conformers import ConformerBatch, ResidentConformers
from qm9flow.data.store import Dataset
from qm9flow.nn.choice import MEMBERS, Choice
from qm9flow.training.metrics import training_sample
from qm9flow.training.mode import evaluating
from qm9flow.training.start import load_trunk
from qm9flow.training.trunk_task import TrunkTask

BLUR_ANGSTROM = 0.03
"""Standard deviation of what is added to every coordinate while it learns: by the exact minimum of
a force field it would know its molecules by heart sooner, and torsions differ by much more."""

SHOWN = 6
"""Conformers of a molecule that are shown at once while it learns: the known one and random others.
Given that one of such a draw is the known one, the others alike likely to be drawn with it, its
odds are the same as among all. One molecule in seven has more than 15, and these hold half of all
conformers: an epoch that shows six looks at 4.1 of a molecule instead of 7.9."""

AT_ONCE = 128
"""Molecules of a batch of the validation."""
LEAST = 1e-6
"""Added to probabilities, whose logarithm has no slope at 0."""


class ConformerTask(TrunkTask):
    """The likelihood of the conformer that QM9 has, among those that were found.

    Molecules that have one only say nothing and are left out. So are those whose conformer was not
    found, where the network is judged; where it learns, they are shown it beside what was found.
    Each member learns from the molecules with random weights of its own, of an exponential
    distribution: the Bayesian bootstrap, D. B. Rubin, Ann. Stat. 9, 130 (1981).
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        """Load the molecules.

        Args:
            config: The training.
            dataset: All molecules.
            device: Where it runs.

        Raises:
            ConfigError: The split has fewer molecules than asked for.
            CacheError: The conformers have not been made yet.
        """
        sets = open_conformers(dataset), open_relaxed(dataset)
        sample = training_sample(config, dataset)
        self._train, self._validation = (
            ResidentConformers.load(shown, part[shown.tells[part]], device)
            for shown, part in (
                (candidates(*sets, are_completed=True), sample.train),
                (candidates(*sets), sample.validation),
            )
        )
        super().__init__(config, Choice, self._train, self._validation)
        generator = torch.Generator().manual_seed(config.seed)
        shares = torch.rand(len(self._train), MEMBERS, generator=generator)
        self._weights = -torch.log1p(-shares).to(device)

    def start(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
        """As in `Task`; all members start from one trunk."""
        assert isinstance(network, Choice)
        for member in network.members:
            load_trunk(member, tensors)
        return False

    def batches(
        self, molecules: int, batch_size: int, generator: torch.Generator
    ) -> Iterator[list[ConformerBatch]]:
        """As in `Task`."""
        for batch in self._train.batches(molecules, batch_size, generator, most=SHOWN):
            yield [_blurred(batch, generator)]

    def terms(self, network: Callable[..., Tensor], group: ConformerBatch) -> Tensor:
        """As in `Task`."""
        logits = network(group.numbers, group.positions, group.energies)
        surprise = -torch.log(_likelihood(logits, group) + LEAST)
        return surprise * self._weights[group.index]

    def validate(self, network: nn.Module) -> dict[str, float]:
        """As in `Task`."""
        surprise = right = 0.0
        with evaluating(network):
            for batch in self._validation.ordered(AT_ONCE):
                logits = network(batch.numbers, batch.positions, batch.energies)
                mean = logits.mean(dim=1, keepdim=True)
                surprise -= float(torch.log(_likelihood(mean, batch) + LEAST).sum())
                best = _largest(mean, batch)[batch.owner]
                right += float((batch.is_known[:, None] & (mean == best)).sum())
        return {
            "val/score": surprise / self.val_molecules,
            "val/right": right / self.val_molecules,
        }


def _blurred(batch: ConformerBatch, generator: torch.Generator) -> ConformerBatch:
    noise = torch.randn(batch.positions.shape, generator=generator).to(batch.positions.device)
    return replace(batch, positions=batch.positions + BLUR_ANGSTROM * noise)


def _likelihood(logits: Tensor, batch: ConformerBatch) -> Tensor:
    """(B, M), of the known conformers, from (G, M)."""
    factors = torch.exp(logits - _largest(logits.detach(), batch)[batch.owner])
    sums = factors.new_zeros(2, len(batch.index), factors.shape[1])
    both = torch.stack([factors * batch.is_known[:, None], factors])
    known, total = sums.index_add(1, batch.owner, both)
    return known / total


def _largest(logits: Tensor, batch: ConformerBatch) -> Tensor:
    """(B, M), from (G, M)."""
    owner = batch.owner[:, None].expand_as(logits)
    least = logits.new_full((len(batch.index), logits.shape[1]), -torch.inf)
    return least.scatter_reduce(0, owner, logits, "amax")

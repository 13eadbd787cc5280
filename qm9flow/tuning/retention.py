"""Which models are kept, and how much room a study takes."""

from collections.abc import Iterable
from dataclasses import dataclass

import optuna
import torch

from qm9flow.config import StudyConfig
from qm9flow.nn.catalog import build
from qm9flow.properties import TARGET_SETS
from qm9flow.tuning.finalists import rounds
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.sampling import SeededSampler
from qm9flow.tuning.spaces import Space, to_train_config

SAMPLED_POINTS = 48
"""Networks that are built, without memory, to estimate their mean size."""

BYTES_A_STUDY = 10_000_000
"""Empty databases, the report and its pictures, tables and logs."""

BYTES_SEEDED = 40_000_000
"""The pretrained model in the registry, and what the final network's bundles take over from it."""

FINAL_COPIES = 8
"""How often the final network is kept, in weights: in its state, its bundles and their graphs."""

BYTES_A_TRIAL = 60_000
"""Run, parameters, tags, pictures and files of one trial, models apart."""

BYTES_AN_EPOCH = 12_000
"""Metrics in the database and TensorBoard's file, and gradient arrays, of one epoch."""


def displaced(records: Iterable[TrialRecord], keep: int | None, dropped: set[int]) -> list[int]:
    """Completed trials whose models are to be deleted.

    Args:
        records: All trials.
        keep: How many models to keep, those of the lowest scores; none means all.
        dropped: Trials whose models were deleted before.

    Returns:
        Numbers of trials, rising.
    """
    if keep is None:
        return []
    complete = [record for record in records if record.state == "complete"]
    complete.sort(key=lambda record: (record.score or 0.0, record.number))
    return sorted(record.number for record in complete[keep:] if record.number not in dropped)


@dataclass(frozen=True)
class SizeEstimate:
    """Room that a study takes, in bytes.

    Attributes:
        models: Weights of completed trials, if all of them completed.
        records: Everything else, if all of them ran to the end, with the networks of the finals and
            the final one.
        largest_model: Weights of the largest network that was drawn.
    """

    models: int
    records: int
    largest_model: int

    @property
    def total(self) -> int:
        """All of it; pruned trials leave no model, so that most studies take less."""
        return self.models + self.records


def estimate_size(space: Space, config: StudyConfig) -> SizeEstimate:
    """How much room a study will take, about.

    Args:
        space: What is searched.
        config: Trials, epochs, and how many models are kept.

    Returns:
        The estimate, from the mean network over the space.
    """
    sizes = _model_sizes(space, config)
    models = min(config.n_trials, config.keep_models or config.n_trials)
    mean = sum(sizes) / len(sizes)
    records = config.n_trials * (BYTES_A_TRIAL + config.max_epochs * BYTES_AN_EPOCH)
    finals = sum(
        size for size, _ in rounds(min(config.finalists, config.n_trials), config.final_minutes)
    )
    records += BYTES_A_STUDY + finals * BYTES_A_TRIAL + round((FINAL_COPIES + finals) * mean)
    records += BYTES_SEEDED if config.seed_pretrained else 0
    return SizeEstimate(round(models * mean), records, max(sizes))


def _model_sizes(space: Space, config: StudyConfig) -> list[int]:
    study = optuna.create_study()
    sampler = SeededSampler("random", space, seed=0)
    sizes = []
    for _ in range(SAMPLED_POINTS):
        trial = study.ask()
        train = to_train_config(sampler.propose(trial), config, trial.number, space)
        with torch.device("meta"):
            network = build(train.model, TARGET_SETS[train.targets])
        sizes.append(sum(item.numel() * item.element_size() for item in network.parameters()))
    return sizes

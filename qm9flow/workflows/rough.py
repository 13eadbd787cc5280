"""The three trainings of a model for geometries that are not DFT's.

One learns to refine such geometries, one to predict properties from refined ones, one to tell which
conformer of a SMILES is the one that QM9 has. All start from a model for DFT's geometries.
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.training.events import Event
from qm9flow.training.start import weights_digest
from qm9flow.workflows.trained import Trained, train_to_end

REFINER, NETWORK, CHOICE = "refiner", "network", "choice"
"""Names of the trainings, and of their folders."""

SHARES = {REFINER: 0.35, NETWORK: 0.45, CHOICE: 0.2}
"""Of the minutes."""

Record = Callable[[str, TrainConfig], AbstractContextManager[Callable[[Event], None]]]
"""Puts a training on record, by its name; gives what takes its events."""


@dataclass(frozen=True)
class Rough:
    """A model for approximate geometries and SMILES.

    Attributes:
        network: Predicts properties of refined geometries.
        refiner: Refines them.
        choice: Weighs conformers.
    """

    network: Trained
    refiner: Trained
    choice: Trained


def refiner_config(train: TrainConfig) -> TrainConfig:
    """How a model's refiner is trained.

    Args:
        train: What was asked for.

    Returns:
        Its own configuration.
    """
    return dataclasses.replace(
        train,
        targets="geometry",
        weighting="equal",
        max_minutes=_share(train, REFINER),
    )


def network_config(train: TrainConfig, refiner: bytes) -> TrainConfig:
    """How a model's network for properties is trained.

    Args:
        train: What was asked for.
        refiner: Weights of the refiner.

    Returns:
        Its own configuration.
    """
    digest = weights_digest(refiner)
    return dataclasses.replace(train, refiner=digest, max_minutes=_share(train, NETWORK))


def choice_config(train: TrainConfig) -> TrainConfig:
    """How a model's choice among conformers is trained.

    Args:
        train: What was asked for.

    Returns:
        Its own configuration.
    """
    return dataclasses.replace(
        train,
        geometry="smiles",
        targets="conformer",
        weighting="equal",
        max_minutes=_share(train, CHOICE),
    )


def _share(train: TrainConfig, name: str) -> float | None:
    return None if train.max_minutes is None else SHARES[name] * train.max_minutes


def train_rough(
    train: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    start: bytes,
    record: Record,
    stop: Callable[[], bool],
) -> Rough:
    """Train all three; go on where an interrupted training was.

    Args:
        train: What was asked for, of approximate geometries.
        dataset: QM9.
        folder: Keeps the states; made if missing.
        start: Weights of a network for DFT's geometries.
        record: Puts each training on record.
        stop: Asked after every epoch.

    Returns:
        The model.

    Raises:
        Stopped: `stop` said so; checkpoints are kept.
        TrainingError: A training failed; the message says why.
        CheckpointError: The folder holds another training.
    """

    def trained(name: str, own: TrainConfig, refiner: bytes | None = None) -> Trained:
        with record(name, own) as on_event:
            return train_to_end(
                own,
                dataset,
                folder / name,
                on_event=on_event,
                stop=stop,
                start=start,
                refiner=refiner,
            )

    refiner = trained(REFINER, refiner_config(train))
    network = trained(NETWORK, network_config(train, refiner.weights), refiner.weights)
    return Rough(network, refiner, trained(CHOICE, choice_config(train)))

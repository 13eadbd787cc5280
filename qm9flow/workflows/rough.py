"""The three trainings of a model for geometries that are not DFT's.

One learns to refine such geometries, one to predict properties from refined ones, one to tell which
conformer of a SMILES is the one that QM9 has. All start from a model for DFT's geometries, or go on
from the networks of the same purpose that stand beside it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.release.bundle import read_rough_weights
from qm9flow.training.events import Event
from qm9flow.training.start import weights_digest
from qm9flow.workflows.start import Start
from qm9flow.workflows.trained import Trained, train_to_end

REFINER, NETWORK, CHOICE = "refiner", "network", "choice"
"""Names of the trainings, and of their folders."""

OWN_OPTIONS: dict[str, dict[str, Any]] = {
    REFINER: {"targets": "geometry", "weighting": "equal"},
    NETWORK: {},
    CHOICE: {"geometry": "smiles", "targets": "conformer", "weighting": "equal"},
}
"""Options of each that are not what was asked for."""

SHARES = {REFINER: 1 / 6, NETWORK: 1 / 3, CHOICE: 1 / 2}
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


def properties_of(made: Trained | Rough) -> Trained:
    """The training whose network predicts properties.

    Args:
        made: A network alone, or a model for other geometries than DFT's.

    Returns:
        That network's training.
    """
    return made.network if isinstance(made, Rough) else made


def starts_of(start: Start) -> dict[str, bytes]:
    """What each of the three starts from.

    The choice always starts from the network for DFT's geometries: from its own weights it would go
    on learning its molecules by heart.

    Args:
        start: The model that they stand beside, or are to.

    Returns:
        safetensors bytes by the training's name.

    Raises:
        BundleError: The model's bundle is damaged.
    """
    rough = read_rough_weights(start.bundle)
    if rough is None:
        return dict.fromkeys((REFINER, NETWORK, CHOICE), start.weights)
    return {REFINER: rough.refiner, NETWORK: rough.network.weights, CHOICE: start.weights}


def stage_config(
    train: TrainConfig, name: str, start: bytes, refiner: bytes | None = None
) -> TrainConfig:
    """How one of the three is trained.

    Args:
        train: What was asked for.
        name: Which of them.
        start: Weights that it starts from.
        refiner: Weights of what refines its geometries; none leaves them as they are.

    Returns:
        Its own configuration.
    """
    return dataclasses.replace(
        train,
        **OWN_OPTIONS[name],
        start=weights_digest(start),
        refiner=train.refiner if refiner is None else weights_digest(refiner),
        max_minutes=None if train.max_minutes is None else SHARES[name] * train.max_minutes,
    )


def train_rough(
    train: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    starts: Mapping[str, bytes],
    record: Record,
    stop: Callable[[], bool],
) -> Rough:
    """Train all three; go on where an interrupted training was.

    Args:
        train: What was asked for, of approximate geometries.
        dataset: QM9.
        folder: Keeps the states; made if missing.
        starts: What each starts from, safetensors bytes by the training's name.
        record: Puts each training on record.
        stop: Asked after every epoch.

    Returns:
        The model.

    Raises:
        Stopped: `stop` said so; checkpoints are kept.
        TrainingError: A training failed; the message says why.
        CheckpointError: The folder holds another training.
    """

    def trained(name: str, refiner: bytes | None = None) -> Trained:
        own = stage_config(train, name, starts[name], refiner)
        with record(name, own) as on_event:
            return train_to_end(
                own,
                dataset,
                folder / name,
                on_event=on_event,
                stop=stop,
                start=starts[name],
                refiner=refiner,
            )

    refiner = trained(REFINER)
    return Rough(trained(NETWORK, refiner.weights), refiner, trained(CHOICE))

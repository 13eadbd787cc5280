"""One training from start to end, whatever happens in between.

A folder holds its state: its configuration in `config.json`, `checkpoint.safetensors` while it
runs, then `weights.safetensors` and `trained.json`; its epochs are in `epochs.jsonl`, for the run
of every further start. Started again on the same folder it goes on, or answers at once if it had
ended.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from qm9flow import config
from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import CheckpointError, TrainingError
from qm9flow.files import replace_file
from qm9flow.training.events import (
    CheckpointReady,
    Ending,
    Event,
    Failed,
    Finished,
    StopReason,
    Verdict,
)
from qm9flow.training.fit import fit
from qm9flow.workflows.console import Stopped

CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"
EPOCHS = "epochs.jsonl"
WEIGHTS = "weights.safetensors"
RECORD = "trained.json"


@dataclass(frozen=True)
class Trained:
    """A training that has ended.

    Attributes:
        train: Its configuration.
        weights: safetensors bytes of the best epoch's network.
        ending: Which budget ended it.
        epochs: Epochs done.
        best_epoch: Epoch of the lowest validation score, 0 for the weights it started from.
        best_metrics: All metrics of that epoch.
        verdict: What the gradients said.
    """

    train: TrainConfig
    weights: bytes
    ending: Ending
    epochs: int
    best_epoch: int
    best_metrics: dict[str, float]
    verdict: Verdict


def load_trained(folder: Path, train: TrainConfig) -> Trained | None:
    """The training that has ended in a folder.

    Args:
        folder: Where `train_to_end` kept its state.
        train: The training's configuration, to which the folder is claimed.

    Returns:
        The training, None if none has ended there.

    Raises:
        CheckpointError: What is there is damaged.
    """
    record = folder / RECORD
    if not record.exists():
        return None
    try:
        values = json.loads(record.read_text())
        return Trained(train=train, weights=(folder / WEIGHTS).read_bytes(), **values)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{record} is damaged ({error}): remove {folder}") from error


def claim(folder: Path, train: TrainConfig) -> None:
    """Make a folder this training's own, before anything of it is put on record.

    Args:
        folder: Keeps the state; made if missing.
        train: What is to be trained. Where it runs may change from start to start.

    Raises:
        CheckpointError: The folder is another training's, or cannot be used.
    """
    path = folder / CONFIG
    mine = config.to_dict(train)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        theirs = json.loads(path.read_text()) if path.exists() else None
        if not isinstance(theirs, dict):
            replace_file(path, json.dumps(mine, indent=2).encode())
            return
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    differing = sorted(
        name
        for name in {**mine, **theirs}
        if name not in config.PLACE_ONLY and mine.get(name) != theirs.get(name)
    )
    if differing:
        named = "; ".join(
            f"{name} {theirs.get(name)!r}, now {mine.get(name)!r}" for name in differing
        )
        raise CheckpointError(
            f"{folder} holds a training with other options ({named}): "
            "give this one another name, or restore them"
        )


def _ended_as(event: Failed) -> str:
    said = f"the training ended as {event.reason}: {event.message}"
    if event.reason in get_args(StopReason) and event.reason != "dead":
        return f"{said}; with --gradient-stop observe it goes on"
    return said


def _keep(folder: Path, trained: Trained) -> None:
    replace_file(folder / WEIGHTS, trained.weights)
    kept_elsewhere = ("weights", "train")
    values = {key: item for key, item in asdict(trained).items() if key not in kept_elsewhere}
    replace_file(folder / RECORD, json.dumps(values, indent=2).encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _trained(train: TrainConfig, event: Finished) -> Trained:
    return Trained(
        train,
        event.weights,
        event.ending,
        event.epochs,
        event.best_epoch,
        event.best_metrics,
        event.verdict,
    )


def _end_of(trained: Trained) -> Finished:
    return Finished(
        trained.ending,
        trained.epochs,
        trained.best_epoch,
        trained.best_metrics,
        trained.weights,
        trained.verdict,
    )


def train_to_end(
    train: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
    start: bytes | None = None,
    refiner: bytes | None = None,
) -> Trained:
    """Train until a budget ends it; go on where an interrupted training was.

    Args:
        train: What to train.
        dataset: QM9.
        folder: Keeps the state; made if missing.
        on_event: Told every event but checkpoints; of a training that had ended, its end.
        stop: Asked after every epoch.
        start: Weights to start from, as safetensors bytes; none means fresh ones.
        refiner: Weights that refine geometries, as safetensors bytes; none leaves them as they are.

    Returns:
        The training.

    Raises:
        Stopped: `stop` said so; the checkpoint is kept.
        TrainingError: The training failed; the message says why.
        CheckpointError: The folder holds another training.
        ConfigError: Weights are not those that the configuration names.
    """
    claim(folder, train)
    done = load_trained(folder, train)
    if done is not None:
        on_event(_end_of(done))
        return done
    path = folder / CHECKPOINT
    checkpoint = path.read_bytes() if path.exists() else None
    stream = fit(
        train,
        dataset,
        checkpoint=checkpoint,
        start=start,
        refiner=refiner,
        wants_checkpoint=stop,
    )
    for event in stream:
        if isinstance(event, CheckpointReady):
            replace_file(path, event.blob)
            if stop():
                stream.close()
                raise Stopped
            continue
        on_event(event)
        if isinstance(event, Failed):
            raise TrainingError(_ended_as(event))
        if isinstance(event, Finished):
            trained = _trained(train, event)
            _keep(folder, trained)
            return trained
    raise TrainingError("the training ended without saying how")

"""Checkpoints of running trials, kept by the coordinator."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qm9flow.files import PART, replace_file
from qm9flow.training.events import Alarm, EpochEnded, Verdict


@dataclass
class Tally:
    """What is known of a trial that has not ended.

    Attributes:
        seconds: Wall time so far.
        epochs: Epochs done.
        parameters: Trainable numbers of the network.
        best_epoch: Epoch of the lowest score, 0 before the first.
        best: Metrics of that epoch.
        verdict: The latest of the gradients.
        alarm: Where they first gave a reason to stop, None if nowhere.
    """

    seconds: float = 0.0
    epochs: int = 0
    parameters: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    verdict: Verdict = "healthy"
    alarm: Alarm | None = None

    def take(self, event: EpochEnded) -> None:
        """Take note of an epoch.

        Args:
            event: What the training said.
        """
        self.epochs = event.epoch
        if event.is_best:
            self.best_epoch = event.epoch
            self.best = dict(event.metrics)
        self.alarm = event.alarm
        if event.gradients is not None:
            self.verdict = event.gradients.verdict


class CheckpointFolder:
    """Files `<trial>.safetensors`, each with the trial's tally as `<trial>.json`."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made before the first checkpoint.

        Args:
            folder: Of the study.
        """
        self._folder = folder

    def save(self, number: int, blob: bytes, tally: Tally) -> None:
        """Keep a trial's newest checkpoint and tally.

        A reader sees an old file or a new one, never half of one.

        Args:
            number: Of the trial.
            blob: The checkpoint.
            tally: What is known of the trial.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        self.save_tally(number, tally)
        replace_file(self._blob(number), blob)

    def save_tally(self, number: int, tally: Tally) -> None:
        """Keep a trial's newest tally.

        It may be an epoch ahead of the checkpoint; training that epoch again makes it the same.

        Args:
            number: Of the trial.
            tally: What is known of the trial.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._tally(number), json.dumps(asdict(tally)).encode())

    def load(self, number: int) -> tuple[bytes | None, Tally]:
        """A trial's newest checkpoint and tally.

        Args:
            number: Of the trial.

        Returns:
            The checkpoint, None if there is none, and the tally, empty if there is none.
        """
        try:
            values: Mapping[str, Any] = json.loads(self._tally(number).read_text())
            tally = Tally(**values)
            tally.alarm = Alarm(**values["alarm"]) if values.get("alarm") else None
        except (OSError, ValueError, TypeError):
            return None, Tally()  # nothing there, or cut off by a power failure
        try:
            return self._blob(number).read_bytes(), tally
        except FileNotFoundError:
            return None, tally

    def delete(self, number: int) -> None:
        """Remove what is kept of a trial.

        Args:
            number: Of the trial.
        """
        for path in (self._blob(number), self._tally(number)):
            path.unlink(missing_ok=True)
            path.with_name(path.name + PART).unlink(missing_ok=True)

    def keep_only(self, numbers: set[int]) -> None:
        """Remove what is kept of all other trials.

        Args:
            numbers: Trials that are still running.
        """
        if not self._folder.is_dir():
            return
        for path in list(self._folder.iterdir()):
            stem = path.name.split(".")[0]
            if stem.isdigit() and int(stem) not in numbers:
                path.unlink(missing_ok=True)

    def _blob(self, number: int) -> Path:
        return self._folder / f"{number:05d}.safetensors"

    def _tally(self, number: int) -> Path:
        return self._folder / f"{number:05d}.json"

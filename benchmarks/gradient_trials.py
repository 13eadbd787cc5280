"""Trials with every sample of their gradients on record, for `gradient_stop.py`.

A study of the group's space in `observe` mode and without halving: every trial runs to its end. Of
each sample that the monitor takes, everything that verdicts look at is kept, so that other
thresholds can be tried afterwards without training again.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow.config import StudyConfig, to_dict
from qm9flow.data.store import Dataset
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.gradients import GradientMonitor
from qm9flow.training.verdicts import Sample
from qm9flow.tuning.coordinator import Coordinator
from qm9flow.tuning.executors import Answer, InProcessExecutor, Job
from qm9flow.tuning.ranges import FloatRange, IntRange
from qm9flow.tuning.spaces import Space, get_space
from qm9flow.tuning.study import open_study

STUDY = "trials"

_SEED = get_space("seed")

SPACES = {
    "seed": _SEED,
    "rough": dataclasses.replace(
        _SEED,
        name="rough",
        parameters={
            **_SEED.parameters,
            "batch_size": IntRange(4, 256, log=True),
            "learning_rate": FloatRange(1e-3, 1.0, log=True),
        },
        recipe=dataclasses.replace(_SEED.recipe, grad_clip=None, warmup_steps=0),
        first=None,
    ),
}
"""The group's space, and the same without what keeps its trials alive: no clipping, no warm-up, and
learning rates up to 1."""


@dataclass(frozen=True)
class Recorded:
    """The samples of one trial.

    Attributes:
        layers: Names of the layers.
        samples: In order.
        seconds: (n_samples,), CPU time of the trial when a sample was looked at.
        total_seconds: CPU time of the whole trial, validations included.
    """

    layers: tuple[str, ...]
    samples: tuple[Sample, ...]
    seconds: npt.NDArray[np.float64]
    total_seconds: float


def save(path: Path, recorded: Recorded) -> None:
    """Write a trial's samples; a reader sees all of them or none."""
    samples = recorded.samples
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            layers=np.array(recorded.layers, dtype=np.str_),
            scalars=np.array([[s.step, s.molecules, s.loss, s.norm] for s in samples]),
            gradient_rms=np.stack([s.gradient_rms for s in samples]).astype(np.float32),
            elasticity=np.stack([s.elasticity for s in samples]).astype(np.float32),
            dead_share=np.stack([s.dead_share for s in samples]).astype(np.float32),
            seconds=recorded.seconds,
            total_seconds=np.array(recorded.total_seconds),
        )
    part.replace(path)


def load(path: Path) -> Recorded:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        by_layer = [
            file[name].astype(np.float64) for name in ("gradient_rms", "elasticity", "dead_share")
        ]
        samples = tuple(
            Sample(int(row[0]), int(row[1]), float(row[2]), float(row[3]), *parts)
            for row, *parts in zip(file["scalars"], *by_layer, strict=True)
        )
        names = tuple(str(name) for name in file["layers"])
        return Recorded(names, samples, file["seconds"], float(file["total_seconds"]))


class Recorder(InProcessExecutor):
    """Trains in this process and keeps all samples, a file a trial, written after every epoch."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._number = -1
        self._kept: Recorded | None = None
        self._layers: tuple[str, ...] = ()
        self._samples: list[Sample] = []
        self._seconds: list[float] = []
        self._spent, self._began = 0.0, 0.0
        self._inner = GradientMonitor.__dict__["_take"]

    def path(self, number: int) -> Path:
        """File of a trial."""
        return self._folder / f"{number:05d}.npz"

    def start(self, slot: int, job: Job) -> None:
        """Begin a file, or go on with one where a checkpoint does."""
        super().start(slot, job)
        trial = job.trials[0]
        self._number = trial.number
        path = self.path(trial.number)
        goes_on = trial.checkpoint is not None and path.exists()
        self._kept = load(path) if goes_on else None
        self._samples, self._seconds = [], []
        self._spent = self._kept.total_seconds if self._kept else 0.0

    def collect(self) -> list[Answer]:
        """Train an epoch, and keep its samples."""
        recorder = self

        def take(monitor: GradientMonitor, step: int, molecules: int, row: npt.NDArray) -> None:  # type: ignore[type-arg]
            recorder._inner(monitor, step, molecules, row)
            recorder._layers = monitor.flat.layers
            recorder._samples.append(monitor.history[-1])
            recorder._seconds.append(recorder._spent + time.process_time() - recorder._began)

        self._began = time.process_time()
        GradientMonitor._take = take  # type: ignore[method-assign]
        try:
            answers = super().collect()
        finally:
            GradientMonitor._take = self._inner  # type: ignore[method-assign]
        self._spent += time.process_time() - self._began
        if self._samples:
            save(self.path(self._number), self._joined())
        return answers

    def _joined(self) -> Recorded:
        """Samples of this start, after those of an earlier one that come before them."""
        samples, seconds = list(self._samples), list(self._seconds)
        if self._kept is not None:
            earlier = [
                (sample, second)
                for sample, second in zip(self._kept.samples, self._kept.seconds, strict=True)
                if sample.step < samples[0].step
            ]
            samples = [sample for sample, _ in earlier] + samples
            seconds = [second for _, second in earlier] + seconds
        return Recorded(self._layers, tuple(samples), np.array(seconds), self._spent)


def stores_in(folder: Path) -> Stores:
    """The stores of one study."""
    base = folder.resolve() / "mlruns"
    base.mkdir(parents=True, exist_ok=True)
    return Stores(
        tracking_uri=f"sqlite:///{folder.resolve()}/mlflow.db",
        optuna_url=f"sqlite:///{base}/optuna.db",
        tensorboard_dir=base / "tensorboard",
        state_dir=base / "state",
    )


def run(
    config: StudyConfig,
    space: Space,
    dataset: Dataset,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> None:
    """Run a study, or go on with it."""
    stores = stores_in(folder)
    with open_study(stores, STUDY, config, dataset.digest, space) as study:
        tracker = StudyTracker.open(
            stores, STUDY, to_dict(config), previous_parent=study.previous_parent
        )
        recorder = Recorder(dataset, folder / "samples")
        result = Coordinator(study, tracker, recorder, progress=progress).run()
        tracker.finish("FINISHED" if result.ending == "complete" else "KILLED")

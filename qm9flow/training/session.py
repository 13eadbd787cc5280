"""Everything that one training holds, and what is done with it in an epoch."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qm9flow.config import TrainConfig
from qm9flow.errors import TrainingError
from qm9flow.training.checkpoint import HISTORY_TENSOR, Checkpoint, Progress, weights_blob
from qm9flow.training.device import peak_memory_mb, seeded
from qm9flow.training.ema import WeightAverage
from qm9flow.training.events import Alarm, Ending, EpochEnded, Finished, Started, StopReason
from qm9flow.training.flat import FlatParameters, forward_order
from qm9flow.training.gradients import EARLY_STEPS, GradientMonitor, is_early_due
from qm9flow.training.schedule import Budget, learning_rate, molecules_of, plateau_after
from qm9flow.training.steps import Stepper
from qm9flow.training.task import Task

CHECK_EVERY = 50
"""Steps between two looks at loss and gradients; each look waits for the device."""
EARLY_CHECK_EVERY = 20
"""The same within the first `EARLY_STEPS`."""

FORWARD_SHARE = 1 / 3
"""Time of a prediction relative to a training step: a guess until a validation was timed."""

_SAID: dict[StopReason, str] = {
    "dead": "the gradients became NaN or infinite",
    "exploding": "loss or gradients exploded",
    "dead_relu": "units are dead: many layers have had a gradient of exactly zero",
    "vanishing": "the gradients vanished on their way to the first layers",
}
_OPTIMIZER = "optimizer/"
_METHANE = [[6, 1, 1, 1, 1]]


class DivergedError(TrainingError):
    """Loss, gradients or predictions left the range in which training makes sense.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, message: str, reason: StopReason) -> None:
        super().__init__(message)
        self.reason: StopReason = reason


def look_every(step: int) -> int:
    """Steps between two looks at loss and gradients.

    Args:
        step: Optimiser steps done.

    Returns:
        Fewer early in a training.
    """
    return EARLY_CHECK_EVERY if step <= EARLY_STEPS else CHECK_EVERY


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of one epoch's random numbers; epoch 0 is the initial weights.

    Args:
        seed: Of the training.
        epoch: Counted from 1.

    Returns:
        A seed for torch.
    """
    sequence = np.random.SeedSequence([seed % 2**63, epoch])
    return int(sequence.generate_state(1, np.uint64)[0]) // 2


class Session:
    """One training: its data, network, optimiser, and how far it is.

    Attributes:
        config: What is trained, and how.
        progress: How far it is.
        monitor: What the gradients say.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        device: torch.device,
        checkpoint: Checkpoint | None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Make the network, restore what a checkpoint holds.

        Args:
            config: What to train, and how.
            task: What is learned.
            device: Where it runs.
            checkpoint: Where to go on; none starts anew.
            start: Weights to start anew from; none means fresh ones.

        Raises:
            ConfigError: The configuration is impossible.
            CheckpointError: The checkpoint does not fit.
        """
        self.config = config
        self.device = device
        self._task = task
        with seeded(epoch_seed(config.seed, 0), self.device):
            network = task.build()
        is_whole = start is not None and task.start(network, start)
        self._network = network.to(self.device)
        numbers = torch.tensor(_METHANE, device=self.device)
        positions = torch.eye(5, 3, device=self.device)[None]
        order = forward_order(self._network, numbers, positions)
        self._flat = FlatParameters(self._network, order)
        self._average = WeightAverage(self._flat.weights, config.ema_decay)
        self._stepper = Stepper(config, self._network, self._flat, task.loss, task.terms)
        self._best = self._average.values.clone()
        self._total_steps = sum(
            -(-self._molecules(epoch) // config.batch_size)
            for epoch in range(1, config.max_epochs + 1)
        )
        self.monitor = GradientMonitor(self._flat)
        self.progress = Progress()
        if checkpoint is not None:
            self._restore(checkpoint)
        elif is_whole:
            self._judge_start()

    def started(self) -> Started:
        """What is set up.

        Returns:
            The event.
        """
        return Started(
            epoch=self.progress.epoch,
            parameters=self._flat.count,
            train_molecules=self._task.train_molecules,
            val_molecules=self._task.val_molecules,
        )

    def _molecules(self, epoch: int) -> int:
        return molecules_of(epoch, self.config, self._task.train_molecules)

    def ending(self) -> Ending | None:
        """Which budget is used up.

        Returns:
            The first of them, None while there is something left of all.
        """
        config, progress = self.config, self.progress
        if progress.is_out_of_time:
            return "max_minutes"
        if progress.epoch >= config.max_epochs:
            return "max_epochs"
        waited = progress.epoch - progress.best_epoch
        if config.patience is not None and waited >= config.patience:
            return "early_stopping"
        return None

    def run_epoch(self) -> EpochEnded:
        """Train on every molecule once, or until time is up, and validate.

        Returns:
            The epoch's metrics.

        Raises:
            DivergedError: The training is dead, or gradients say that it leads nowhere.
        """
        progress = self.progress
        started = time.perf_counter()
        progress.epoch += 1
        with seeded(epoch_seed(self.config.seed, progress.epoch), self.device):
            loss, molecules, rate = self._train(started)
        trained = time.perf_counter()
        with self._average.applied():
            metrics = self._task.validate(self._network)
        ended = time.perf_counter()
        if not math.isfinite(metrics["val/score"]):
            self._alarm("dead", ended - started)
            raise DivergedError(
                f"predictions became {metrics['val/score']} {self._where()}", "dead"
            )
        progress.validation_seconds = ended - trained
        progress.elapsed_seconds += ended - started
        limit = self._training_seconds(0.0)
        progress.is_out_of_time |= limit is not None and progress.elapsed_seconds >= limit
        metrics |= {
            "train/loss": loss,
            "train/lr": rate,
            "train/seconds": trained - started,
            "train/molecules_per_second": molecules / (trained - started),
            "train/peak_memory_mb": peak_memory_mb(self.device),
            "val/seconds": ended - trained,
        }
        return self._ended(metrics)

    def _judge_start(self) -> None:
        """Take the weights that another training left as epoch 0, the one to beat."""
        started = time.perf_counter()
        metrics = self._task.validate(self._network)
        seconds = time.perf_counter() - started
        self.progress.validation_seconds = self.progress.elapsed_seconds = seconds
        if math.isfinite(metrics["val/score"]):
            self.progress.best_metrics = metrics | {"val/seconds": seconds}

    def _train(self, started: float) -> tuple[float, int, float]:
        """One pass over the training molecules: its loss, molecules seen, last learning rate."""
        config, progress, stepper = self.config, self.progress, self._stepper
        generator = torch.Generator().manual_seed(epoch_seed(config.seed, progress.epoch))
        summed = torch.zeros((), dtype=torch.float64, device=self.device)
        molecules, rate = 0, 0.0
        self._network.train()
        due = self._molecules(progress.epoch)
        for groups in self._task.batches(due, config.batch_size, generator):
            elapsed = progress.elapsed_seconds + time.perf_counter() - started
            mean = stepper.accumulate(groups)
            size = sum(len(batch.index) for batch in groups)
            is_due = molecules == 0 or progress.step % config.monitor_every == 0
            if is_due or is_early_due(progress.step):
                loss, step = stepper.loss.outer(mean), progress.step
                self.monitor.sample(loss, stepper.factor, step, size, is_whole=is_due)
            limit = self._training_seconds(molecules / max(elapsed, 1e-9))
            budget = Budget(progress.step, self._total_steps, elapsed, limit)
            rate = learning_rate(config, budget, progress.plateau_factor)
            stepper.apply(rate)
            self._average.update()
            progress.step += 1
            summed += mean * size
            molecules += size
            if progress.step % look_every(progress.step) == 0:
                self._look(summed / molecules, started)
            if limit is not None and elapsed >= limit:
                progress.is_out_of_time = True
                break
        return self._look(summed / molecules, started), molecules, rate

    def _training_seconds(self, molecules_per_second: float) -> float | None:
        """Training time at which the last step ends, so that a validation still fits."""
        if self.config.max_minutes is None:
            return None
        budget = 60.0 * self.config.max_minutes
        reserve = self.progress.validation_seconds
        if not reserve and molecules_per_second:
            reserve = FORWARD_SHARE * self._task.val_molecules / molecules_per_second
        return budget - min(reserve, budget / 2)

    def _look(self, mean: Tensor, started: float) -> float:
        """Wait for the device, and see whether the training is alive; gives the loss so far."""
        loss = float(self._stepper.loss.outer(mean))
        verdict = self.monitor.check() if math.isfinite(loss) else "dead"
        if verdict == "healthy":
            return loss
        self._alarm(verdict, time.perf_counter() - started)
        if verdict == "dead" or self.config.gradient_stop == "on":
            said = _SAID[verdict] if math.isfinite(loss) else f"the loss became {loss}"
            raise DivergedError(f"{said} {self._where()}", verdict)
        return loss

    def _alarm(self, reason: StopReason, seconds: float) -> None:
        """Note the first reason to stop; `seconds` are those of the running epoch."""
        progress = self.progress
        if progress.alarm is None:
            spent = progress.elapsed_seconds + seconds
            progress.alarm = Alarm(reason, progress.step, progress.epoch, round(spent, 3))

    def _where(self) -> str:
        progress = self.progress
        return (
            f"in epoch {progress.epoch}, step {progress.step} or up to "
            f"{look_every(progress.step)} before, at learning rate "
            f"{self._stepper.optimizers.rate:.3g}"
        )

    def _ended(self, metrics: dict[str, float]) -> EpochEnded:
        progress = self.progress
        score = metrics["val/score"]
        is_best = score < progress.best_metrics.get("val/score", math.inf)
        if is_best:
            progress.best_epoch = progress.epoch
            progress.best_metrics = metrics
            self._best.copy_(self._average.values)
        progress.plateau_factor, progress.plateau_waited = plateau_after(
            progress.plateau_factor, progress.plateau_waited, is_best=is_best
        )
        gradients = self.monitor.summarise()
        return EpochEnded(progress.epoch, dict(metrics), gradients, is_best, progress.alarm)

    def checkpoint(self) -> Checkpoint:
        """All that a resumed training needs.

        Returns:
            The state between two epochs.
        """
        progress = replace(
            self.progress,
            average_updates=self._average.updates,
            first_loss=self.monitor.first_loss,
            worst_verdict=self.monitor.worst,
        )
        optimizer_state = self._stepper.optimizers.state()
        tensors = {
            "weights": self._flat.weights,
            "best": self._best,
            HISTORY_TENSOR: torch.from_numpy(self.monitor.history_rows()),
            **{_OPTIMIZER + name: value for name, value in optimizer_state.items()},
        }
        if self.config.ema_decay is not None:
            tensors["average"] = self._average.values
        return Checkpoint(progress, tensors)

    def _restore(self, checkpoint: Checkpoint) -> None:
        weights = self._flat.weights.detach()
        weights.copy_(checkpoint.tensor("weights", weights))
        self._best.copy_(checkpoint.tensor("best", weights))
        if self.config.ema_decay is not None:
            average = checkpoint.tensor("average", weights)
            self._average.restore(average, checkpoint.progress.average_updates)
        blank = self._stepper.optimizers.blank_state()
        self._stepper.optimizers.restore(
            {name: checkpoint.tensor(_OPTIMIZER + name, like) for name, like in blank.items()}
        )
        self.monitor.restore(
            checkpoint.rows(HISTORY_TENSOR, self.monitor.row_width),
            checkpoint.progress.first_loss,
            checkpoint.progress.worst_verdict,
        )
        self.progress = checkpoint.progress

    def finish(self, ending: Ending) -> Finished:
        """The best epoch's weights and metrics; the session is of no use afterwards.

        Args:
            ending: Which budget is used up.

        Returns:
            The event.
        """
        self._flat.weights.detach().copy_(self._best)
        return Finished(
            ending=ending,
            epochs=self.progress.epoch,
            best_epoch=self.progress.best_epoch,
            best_metrics=dict(self.progress.best_metrics),
            weights=weights_blob(self._network),
            verdict=self.monitor.worst,
            alarm=self.progress.alarm,
        )

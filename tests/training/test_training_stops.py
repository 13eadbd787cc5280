"""Trainings that lead nowhere are ended inside an epoch, or only noted, as was asked for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from qm9flow.config import (
    DensityConfig,
    MPNNConfig,
    PaiNNConfig,
    PyGNNConvConfig,
    PyGSchNetConfig,
    SchNetConfig,
    TrainConfig,
)
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import Network
from qm9flow.properties import LEARNED
from qm9flow.training.events import (
    CheckpointReady,
    EpochEnded,
    Event,
    Failed,
    Finished,
    GradientSummary,
)
from qm9flow.training.fit import fit
from qm9flow.training.start import weights_digest

Break = Callable[[Network], None]


def faint(network: Network) -> None:
    """Four dense layers of 1e-4 pass on 1e-16 of what they get, and of its gradient."""
    for layer in network.readout.dense:
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.mul_(1e-4)


def deaf(network: Network) -> None:
    """Biases so low that no input reaches a unit's positive side."""
    network.readout.dense[0].bias.data.fill_(-1e3)


def broken(tiny: TrainConfig, how: Break) -> tuple[TrainConfig, bytes]:
    """A training that starts from a network that somebody broke."""
    model = replace(tiny.model, fc_layers=4)
    torch.manual_seed(0)
    network = build(model, LEARNED)
    how(network)
    start = save({name: tensor.clone() for name, tensor in network.state_dict().items()})
    config = replace(tiny, model=model, start=weights_digest(start), monitor_every=50)
    return config, start


def run(config: TrainConfig, dataset: Dataset, start: bytes | None = None) -> list[Event]:
    return list(fit(config, dataset, start=start))


def ended_as(events: list[Event]) -> Failed:
    assert isinstance(events[-1], Failed), events[-1]
    return events[-1]


@pytest.mark.parametrize(("how", "reason"), [(faint, "vanishing"), (deaf, "dead_relu")])
def test_a_broken_network_is_stopped_inside_an_epoch(
    tiny: TrainConfig, dataset: Dataset, how: Break, reason: str
) -> None:
    config, start = broken(tiny, how)
    config = replace(config, batch_size=4, train_size=480)  # 120 steps an epoch
    failed = ended_as(run(config, dataset, start))
    assert failed.reason == reason
    assert failed.alarm is not None
    assert (failed.alarm.reason, failed.alarm.epoch) == (reason, 1)
    assert 16 < failed.alarm.step <= 100
    assert f"step {failed.alarm.step} or up to 20 before" in failed.message
    assert isinstance(failed.gradients, GradientSummary)
    assert failed.gradients.verdict == reason


@pytest.mark.parametrize(("how", "reason"), [(faint, "vanishing"), (deaf, "dead_relu")])
def test_an_observed_training_goes_on_and_tells(
    tiny: TrainConfig, dataset: Dataset, how: Break, reason: str
) -> None:
    config, start = broken(tiny, how)
    stopped = ended_as(run(config, dataset, start)).alarm
    events = run(replace(config, gradient_stop="observe"), dataset, start)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.ending, finished.epochs) == ("max_epochs", config.max_epochs)
    assert stopped is not None
    assert finished.alarm is not None
    assert (finished.alarm.reason, finished.alarm.step) == (reason, stopped.step)
    assert finished.verdict == reason
    told = [event.alarm for event in events if isinstance(event, EpochEnded)]
    assert told == [None] * (stopped.epoch - 1) + [finished.alarm] * (5 - stopped.epoch)


@pytest.mark.parametrize("how", [faint, deaf])
def test_a_resumed_training_is_stopped_at_the_same_step(
    tiny: TrainConfig, dataset: Dataset, how: Break
) -> None:
    config, start = broken(tiny, how)  # 6 steps an epoch: five samples take three of them
    events = run(config, dataset, start)
    whole = ended_as(events)
    blobs = [event.blob for event in events if isinstance(event, CheckpointReady)]
    assert len(blobs) == 2
    for blob in blobs:
        rest = ended_as(list(fit(config, dataset, checkpoint=blob)))
        assert (rest.reason, rest.message) == (whole.reason, whole.message)
        assert rest.alarm is not None
        assert whole.alarm is not None
        assert rest.alarm.step == whole.alarm.step


def test_a_stopped_training_goes_on_when_asked_to(tiny: TrainConfig, dataset: Dataset) -> None:
    config, start = broken(tiny, deaf)
    blobs = [e.blob for e in run(config, dataset, start) if isinstance(e, CheckpointReady)]
    events = list(fit(replace(config, gradient_stop="observe"), dataset, checkpoint=blobs[-1]))
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("mode", ["on", "observe"])
def test_rates_that_explode(tiny: TrainConfig, dataset: Dataset, mode: str) -> None:
    config = replace(
        tiny,
        model=replace(tiny.model, conv_layers=3, fc_layers=3),
        learning_rate=10.0,
        grad_clip=None,
        warmup_steps=0,
        batch_size=2,
        max_epochs=3,
        gradient_stop=mode,
    )
    last = run(config, dataset)[-1]
    assert isinstance(last, Failed | Finished)
    assert last.alarm is not None
    assert last.alarm.reason in ("exploding", "dead", "dead_relu")
    if mode == "on":
        assert isinstance(last, Failed)
        assert last.reason == last.alarm.reason
        assert last.alarm.step <= 100
    else:
        assert isinstance(last, Finished) or last.reason == "dead"


@pytest.mark.parametrize(
    "model",
    [
        MPNNConfig(conv_layers=4, fc_layers=4, hidden=4, edge_width=4, radial=4),
        DensityConfig(layers=2, hidden=8, vectors=8, channels=4, radial=6),
        PaiNNConfig(interactions=2, hidden=8),
        SchNetConfig(interactions=2, hidden=8),
        PyGNNConvConfig(conv_layers=1, fc_layers=2, hidden=4, edge_width=4, radial=4),
        PyGSchNetConfig(interactions=1, hidden=8),
    ],
    ids=lambda model: model.architecture,
)
def test_healthy_networks_are_left_alone(
    tiny: TrainConfig, dataset: Dataset, model: MPNNConfig
) -> None:
    config = replace(tiny, model=model, batch_size=8, max_epochs=3)  # 72 steps
    finished = run(config, dataset)[-1]
    assert isinstance(finished, Finished)
    assert (finished.alarm, finished.verdict) == (None, "healthy")


def test_gradients_are_sampled_more_often_at_the_start(tiny: TrainConfig, dataset: Dataset) -> None:
    config = replace(tiny, batch_size=1, train_size=600, monitor_every=100, max_epochs=1)
    epoch = next(e for e in fit(config, dataset) if isinstance(e, EpochEnded))
    assert epoch.gradients is not None
    # every 4th of the first 400, then steps 400 and 500
    assert epoch.gradients.samples == 102
    # histograms: only every 100th step
    assert epoch.gradients.histogram.sum(axis=1).max() <= 6 * max(
        p.numel() for p in build(config.model, LEARNED).parameters()
    )

"""Training from weights that are there already."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from qm9flow.config import DensityConfig, MPNNConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.training.events import CheckpointReady, Failed, Finished
from qm9flow.training.fit import fit
from qm9flow.training.start import weights_digest


@pytest.fixture
def weights(tiny: TrainConfig, dataset: Dataset) -> bytes:
    """What a training left."""
    *_, end = fit(tiny, dataset)
    assert isinstance(end, Finished)
    return end.weights


def _further(config: TrainConfig, weights: bytes) -> TrainConfig:
    return replace(config, start=weights_digest(weights), max_epochs=2, learning_rate=1e-8)


def test_a_training_starts_where_the_other_ended(
    tiny: TrainConfig, dataset: Dataset, weights: bytes
) -> None:
    """At a rate of almost zero it stays there."""
    *_, end = fit(_further(tiny, weights), dataset, start=weights)
    assert isinstance(end, Finished)
    before, after = load(weights), load(end.weights)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)


def test_weights_that_no_epoch_beats_come_out_as_they_were(
    tiny: TrainConfig, dataset: Dataset
) -> None:
    *_, before = fit(replace(tiny, max_epochs=12), dataset)
    assert isinstance(before, Finished)
    wild = replace(_further(tiny, before.weights), max_epochs=1, learning_rate=1.0, warmup_steps=0)
    events = list(fit(wild, dataset, start=before.weights))
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.epochs, end.best_epoch, end.weights) == (1, 0, before.weights)
    assert end.best_metrics["val/score"] == before.best_metrics["val/score"]
    (blob,) = (event.blob for event in events if isinstance(event, CheckpointReady))
    *_, resumed = fit(wild, dataset, checkpoint=blob)
    assert isinstance(resumed, Finished)
    assert (resumed.best_epoch, resumed.weights) == (0, before.weights)
    assert resumed.best_metrics == end.best_metrics


def test_it_resumes_without_the_weights(
    tiny: TrainConfig, dataset: Dataset, weights: bytes
) -> None:
    config = replace(_further(tiny, weights), learning_rate=1e-3)
    *_, whole = fit(config, dataset, start=weights)
    blob = next(
        e.blob for e in fit(config, dataset, start=weights) if isinstance(e, CheckpointReady)
    )
    *_, resumed = fit(config, dataset, checkpoint=blob)
    assert isinstance(whole, Finished)
    assert isinstance(resumed, Finished)
    assert whole.weights == resumed.weights


def test_other_weights_are_refused_at_once(
    tiny: TrainConfig, dataset: Dataset, weights: bytes
) -> None:
    config = _further(tiny, weights)
    with pytest.raises(ConfigError, match="name the model that has them"):
        fit(config, dataset)
    with pytest.raises(ConfigError, match="the ones at hand have"):
        fit(config, dataset, start=save({"a": torch.zeros(1)}))
    with pytest.raises(ConfigError, match="start does not name them"):
        fit(tiny, dataset, start=weights)
    rubbish = b"rubbish"
    with pytest.raises(ConfigError, match="no safetensors"):
        fit(replace(config, start=weights_digest(rubbish)), dataset, start=rubbish)


def test_weights_of_another_network_are_refused(
    tiny: TrainConfig, dataset: Dataset, weights: bytes
) -> None:
    wider = MPNNConfig(conv_layers=1, fc_layers=1, hidden=9, edge_width=8, radial=8)
    (end,) = fit(replace(_further(tiny, weights), model=wider), dataset, start=weights)
    assert isinstance(end, Failed)
    assert end.reason == "impossible"
    assert "of another network" in end.message
    assert "must have shape" in end.message


def test_heads_can_be_added_and_change_nothing_at_first(
    tiny: TrainConfig, dataset: Dataset
) -> None:
    """At a rate of almost zero the network with heads predicts what the one without did."""
    plain = replace(tiny, model=DensityConfig(1, 8, 4, 4, 4, heads=0))
    *_, before = fit(plain, dataset)
    assert isinstance(before, Finished)
    headed = replace(plain, model=replace(plain.model, heads=3))
    *_, after = fit(_further(headed, before.weights), dataset, start=before.weights)
    assert isinstance(after, Finished)
    added = load(after.weights).keys() - load(before.weights).keys()
    assert added
    assert all(name.startswith("readout.heads.") for name in added)
    score = before.best_metrics["val/score"]
    assert after.best_metrics["val/score"] == pytest.approx(score, rel=1e-4)

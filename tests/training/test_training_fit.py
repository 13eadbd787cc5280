"""Training as a stream: what comes out, again and again the same."""

import gc
import resource
import weakref
from dataclasses import replace
from pathlib import Path

import few_geometries
import numpy as np
import pytest
import torch
from safetensors.torch import load

from qm9flow.config import RECIPES, DensityConfig, Optimizer, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import CheckpointError
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.training import fit as fit_module
from qm9flow.training.events import (
    HISTOGRAM_EDGES,
    CheckpointReady,
    EpochEnded,
    Event,
    Finished,
    Started,
)
from qm9flow.training.fit import fit
from qm9flow.training.metrics import (
    learned_scale,
    mean_absolute_errors,
    training_codec,
    training_sample,
    val_score,
)
from qm9flow.training.predict import predict
from qm9flow.training.property_task import PropertyTask
from qm9flow.training.session import Session, epoch_seed

TIMED = ("train/seconds", "train/molecules_per_second", "train/peak_memory_mb", "val/seconds")
METRICS = {
    "train/loss",
    "train/lr",
    "val/score",
    "val/rmse_pooled",
    "val/rmse_pooled_without_a",
    *TIMED,
    *(f"val/{name}/mae" for name in TARGETS),
}
STATM = Path("/proc/self/statm")
TINY_DENSITY = DensityConfig(layers=2, hidden=8, vectors=4, channels=4, radial=4)


def untimed(event: Event) -> object:
    """What must repeat exactly."""
    if isinstance(event, EpochEnded):
        metrics = {key: value for key, value in event.metrics.items() if key not in TIMED}
        gradients = event.gradients
        shown = None
        if gradients is not None:
            shown = (gradients.norm.tolist(), gradients.histogram.tolist(), gradients.verdict)
        return event.epoch, metrics, event.is_best, shown
    if isinstance(event, Finished):
        best = {key: value for key, value in event.best_metrics.items() if key not in TIMED}
        return event.ending, event.epochs, event.best_epoch, best, event.weights, event.verdict
    return None


def run(config: TrainConfig, dataset: Dataset, checkpoint: bytes | None = None) -> list[Event]:
    return list(fit(config, dataset, checkpoint=checkpoint))


def story(events: list[Event]) -> list[object]:
    return [untimed(event) for event in events if untimed(event) is not None]


def test_the_events_come_in_order_and_are_complete(tiny: TrainConfig, dataset: Dataset) -> None:
    events = run(replace(tiny, checkpoint_every=3), dataset)
    kinds = [type(event).__name__ for event in events]
    epoch, saved = "EpochEnded", "CheckpointReady"
    assert kinds == ["Started", epoch, epoch, epoch, saved, epoch, saved, "Finished"]
    started, *_, finished = events
    assert isinstance(started, Started)
    assert (started.epoch, started.train_molecules, started.val_molecules) == (0, 192, 48)
    assert isinstance(finished, Finished)
    assert (finished.ending, finished.epochs, finished.verdict) == ("max_epochs", 4, "healthy")
    assert started.parameters == sum(value.numel() for value in load(finished.weights).values())
    for number, event in enumerate((e for e in events if isinstance(e, EpochEnded)), start=1):
        assert event.epoch == number
        assert set(event.metrics) == METRICS
        assert all(np.isfinite(value) and value >= 0 for value in event.metrics.values())


def test_gradients_are_sampled_each_epoch(tiny: TrainConfig, dataset: Dataset) -> None:
    events = [e for e in run(tiny, dataset) if isinstance(e, EpochEnded)]
    for event in events:
        gradients = event.gradients
        assert gradients is not None
        assert gradients.samples == 3  # 6 steps, every second
        n_layers = len(gradients.layers)
        assert gradients.histogram.shape == (n_layers, len(HISTOGRAM_EDGES) - 1)
        assert gradients.norm.shape == gradients.maximum.shape == (n_layers,)
        assert (gradients.maximum <= gradients.norm * np.sqrt(gradients.samples)).all()
        assert gradients.verdict == "healthy"
    rare = [e for e in run(replace(tiny, monitor_every=1000), dataset) if isinstance(e, EpochEnded)]
    # The first step of each epoch of six, and at the start of a training every fourth.
    assert [event.gradients.samples for event in rare if event.gradients] == [2, 2, 2, 2]


def test_a_few_molecules_are_learnt(tiny: TrainConfig, dataset: Dataset) -> None:
    config = replace(
        tiny,
        model=replace(tiny.model, hidden=32, conv_layers=2, fc_layers=2),
        learning_rate=0.003,
        train_size=16,
        val_size=4,
        batch_size=16,
        max_epochs=80,
        checkpoint_every=1000,
    )
    losses = [e.metrics["train/loss"] for e in run(config, dataset) if isinstance(e, EpochEnded)]
    assert min(losses[-5:]) < 0.9  # a constant has 1


@pytest.fixture
def flagship(tiny: TrainConfig) -> TrainConfig:
    """The flagship's recipe on a few molecules, which it can learn by heart."""
    return replace(
        RECIPES["flagship"],
        model=DensityConfig(layers=2, hidden=16, vectors=8, channels=4, radial=6, heads=4),
        learning_rate=0.01,
        warmup_steps=5,
        ema_decay=None,
        train_size=32,
        val_size=4,
        batch_size=16,
        max_epochs=60,
        checkpoint_every=1000,
        device=tiny.device,
        threads=tiny.threads,
    )


@pytest.mark.parametrize("optimizer", ["soap", "muon", "adamw"])
def test_the_flagship_learns_with_every_optimiser(
    flagship: TrainConfig, dataset: Dataset, optimizer: Optimizer
) -> None:
    events = run(replace(flagship, optimizer=optimizer), dataset)
    losses = [e.metrics["train/loss"] for e in events if isinstance(e, EpochEnded)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.skipif(not STATM.exists(), reason="only Linux says how much memory is in use")
def test_memory_stays_flat(flagship: TrainConfig, dataset: Dataset) -> None:
    used = [_memory_mb() for e in fit(flagship, dataset) if isinstance(e, EpochEnded)]
    assert used[-1] - used[5] < 4.0


def _memory_mb() -> float:
    """Of this process, resident."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize() / 2**20


def test_the_same_seed_gives_the_same_numbers(tiny: TrainConfig, dataset: Dataset) -> None:
    first = story(run(tiny, dataset))
    torch.manual_seed(99)
    assert story(run(tiny, dataset)) == first
    assert story(run(replace(tiny, seed=1), dataset)) != first


def test_trainings_side_by_side_do_not_disturb_each_other(
    tiny: TrainConfig, dataset: Dataset
) -> None:
    other = replace(tiny, seed=3, batch_size=50)
    both: tuple[list[Event], list[Event]] = ([], [])
    streams = [fit(tiny, dataset), fit(other, dataset)]
    for pair in zip(*streams, strict=True):
        for events, event in zip(both, pair, strict=True):
            events.append(event)
    assert story(both[0]) == story(run(tiny, dataset))
    assert story(both[1]) == story(run(other, dataset))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_resuming_changes_nothing(tiny: TrainConfig, dataset: Dataset, schedule: str) -> None:
    # the rate is high enough for epochs without a better score, so that the plateau acts
    config = replace(tiny, schedule=schedule, learning_rate=0.03, max_epochs=6, patience=5)
    whole = run(config, dataset)
    blobs = [event.blob for event in whole if isinstance(event, CheckpointReady)]
    for done in (1, 4):
        rest = run(replace(config, checkpoint_every=2), dataset, checkpoint=blobs[done - 1])
        started = rest[0]
        assert isinstance(started, Started)
        assert started.epoch == done
        assert story(rest) == story(whole)[done:]


@pytest.mark.parametrize(
    "change",
    [
        {"ema_decay": None},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"targets": "raw"},
        {"weighting": "balanced"},
        {"optimizer": "muon", "weight_decay": 0.1},
        {"optimizer": "muon", "model": TINY_DENSITY},
        {"optimizer": "soap", "model": TINY_DENSITY},
    ],
)
def test_resuming_changes_nothing_in_other_recipes(
    tiny: TrainConfig, dataset: Dataset, change: dict[str, object]
) -> None:
    config = replace(tiny, max_epochs=3, **change)
    whole = run(config, dataset)
    blobs = [event.blob for event in whole if isinstance(event, CheckpointReady)]
    assert story(run(config, dataset, checkpoint=blobs[1])) == story(whole)[2:]


def test_a_resumed_resume_changes_nothing(tiny: TrainConfig, dataset: Dataset) -> None:
    whole = run(tiny, dataset)
    blob, resumed = None, []
    for _ in range(tiny.max_epochs):
        stream = fit(tiny, dataset, checkpoint=blob)
        for event in stream:
            resumed.append(event)
            if isinstance(event, CheckpointReady):
                blob = event.blob
                break
        stream.close()
    resumed += run(tiny, dataset, checkpoint=blob)
    assert story(resumed) == story(whole)


def test_checkpoints_of_other_trainings_are_refused_at_once(
    tiny: TrainConfig, dataset: Dataset
) -> None:
    blob = next(e.blob for e in fit(tiny, dataset) if isinstance(e, CheckpointReady))
    with pytest.raises(CheckpointError):
        fit(replace(tiny, seed=1), dataset, checkpoint=blob)
    with pytest.raises(CheckpointError):
        fit(tiny, replace(dataset, digest="other"), checkpoint=blob)


def test_a_growing_training_set_takes_the_steps_that_it_has_molecules_for(
    tiny: TrainConfig, dataset: Dataset
) -> None:
    config = replace(tiny, train_size=90, batch_size=10, max_epochs=9, growth=2)
    cpu = torch.device("cpu")
    session = Session(config, PropertyTask(config, dataset, cpu), cpu, None)
    steps = []
    for _ in range(9):
        session.run_epoch()
        steps.append(session.progress.step)
    assert np.diff(steps, prepend=0).tolist() == [1, 3, 3, *[9] * 6]


def test_early_stopping_waits_for_its_patience(
    tiny: TrainConfig, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.7, 0.8, 0.7, 0.75, 0.1])

    def validate(*_: object) -> dict[str, float]:
        return {"val/score": next(scores)}

    monkeypatch.setattr("qm9flow.training.loaded.LoadedData.validate", validate)
    events = run(replace(tiny, patience=3, max_epochs=20), dataset)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.ending, finished.epochs, finished.best_epoch) == ("early_stopping", 5, 2)
    assert finished.best_metrics["val/score"] == 0.7
    assert [e.is_best for e in events if isinstance(e, EpochEnded)] == [True, True] + [False] * 3


@pytest.mark.parametrize("targets", ["learned", "raw"])
def test_the_weights_are_those_of_the_best_epoch(
    tiny: TrainConfig, dataset: Dataset, targets: str
) -> None:
    config = replace(tiny, targets=targets, learning_rate=0.05, max_epochs=5)
    finished = run(config, dataset)[-1]
    assert isinstance(finished, Finished)
    codec = training_codec(config, dataset)
    network = build(config.model, codec.names)
    network.load_state_dict(load(finished.weights))
    sample = training_sample(config, dataset)
    values = predict(PropertyModel(network, codec), dataset, sample.validation)
    truth = dataset.truth()[sample.validation]
    for column, name in enumerate(codec.names):
        error = np.abs(values[:, column] - truth[:, TARGETS.index(name)]).mean()
        assert error == pytest.approx(finished.best_metrics[f"val/{name}/mae"], rel=1e-6)
    learned = [finished.best_metrics[f"val/{name}/mae"] for name in LEARNED]
    score = np.mean(np.array(learned) / learned_scale(dataset, sample.train))
    assert finished.best_metrics["val/score"] == pytest.approx(score)


def test_raw_targets_score_on_the_same_scale(tiny: TrainConfig, dataset: Dataset) -> None:
    finished = run(replace(tiny, targets="raw", max_epochs=1), dataset)[-1]
    assert isinstance(finished, Finished)
    # untrained, it misses total energies of thousands of eV by all of them
    assert finished.best_metrics["val/score"] > 100
    assert finished.best_metrics["val/rmse_pooled"] > 1000
    sample = training_sample(tiny, dataset)
    errors = mean_absolute_errors(np.zeros((48, 19)), dataset.truth()[sample.validation])
    scale = learned_scale(dataset, sample.train)
    assert finished.best_metrics["val/score"] == pytest.approx(val_score(errors, scale), rel=0.2)


def test_the_averaged_weights_are_judged(tiny: TrainConfig, dataset: Dataset) -> None:
    averaged = run(replace(tiny, max_epochs=1), dataset)[-1]
    plain = run(replace(tiny, max_epochs=1, ema_decay=None), dataset)[-1]
    assert isinstance(averaged, Finished)
    assert isinstance(plain, Finished)
    assert averaged.weights != plain.weights
    assert averaged.best_metrics["train/loss"] == plain.best_metrics["train/loss"]


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Session]]:
    """References to all sessions made."""
    made: list[weakref.ref[Session]] = []

    class Noted(Session):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            made.append(weakref.ref(self))

    monkeypatch.setattr(fit_module, "Session", Noted)
    return made


def test_closing_leaves_nothing_behind(
    tiny: TrainConfig, dataset: Dataset, sessions: list[weakref.ref[Session]]
) -> None:
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    config = replace(tiny, threads=threads + 1, train_size=16, val_size=4)
    stream = fit(config, dataset)
    for _ in range(4):
        next(stream)
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.get_rng_state(), random)
    assert sessions[0]() is not None
    stream.close()
    gc.collect()
    assert sessions[0]() is None
    assert list(stream) == []


def test_a_stream_that_is_never_read_does_nothing(
    tiny: TrainConfig, dataset: Dataset, sessions: list[weakref.ref[Session]]
) -> None:
    fit(tiny, dataset).close()
    assert sessions == []


def test_epochs_have_seeds_of_their_own() -> None:
    seeds = {epoch_seed(seed, epoch) for seed in (-1, 0, 1, 2) for epoch in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_network_learns_from_approximate_geometries(
    tiny: TrainConfig, dataset: Dataset, tmp_path: Path
) -> None:
    sample = training_sample(tiny, dataset)
    chosen = [*sample.train[:40].tolist(), *sample.validation[:12].tolist()]
    beside = few_geometries.with_geometries(dataset, tmp_path, chosen, "approximate")
    config = replace(tiny, geometry="approximate")
    events = list(fit(config, beside))
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert started.train_molecules >= 38
    assert started.val_molecules >= 10
    assert isinstance(finished, Finished)
    scores = [item.metrics["val/score"] for item in events if isinstance(item, EpochEnded)]
    assert scores[-1] < scores[0]

"""One training outside a study: from a configuration, or the repetition of a recorded run."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm9flow import config
from qm9flow.config import TrainConfig
from qm9flow.data.geometries import require_geometries
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import ConfigError, TrackingError
from qm9flow.tracking.places import training_place
from qm9flow.tracking.runs import fetch_config
from qm9flow.tracking.stores import Stores, connect, resolve_stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.device import pick_device
from qm9flow.training.events import Event
from qm9flow.training.metrics import training_sample
from qm9flow.tuning.locks import FileLock
from qm9flow.workflows.console import Console
from qm9flow.workflows.journal import closing, log_file, logged, on_record
from qm9flow.workflows.publish import Published, publish, put_on_record
from qm9flow.workflows.rough import CHOICE, NETWORK, REFINER, Rough, starts_of, train_rough
from qm9flow.workflows.start import Start
from qm9flow.workflows.trained import EPOCHS, RECORD, WEIGHTS, Trained, claim, train_to_end

LOG = "train.log"


@dataclass(frozen=True)
class Repeated:
    """A run that a training repeats.

    Attributes:
        run_id: The run.
        best_metrics: What it recorded of its best epoch.
    """

    run_id: str
    best_metrics: dict[str, float]


def config_of_run(run_id: str) -> tuple[TrainConfig, Repeated]:
    """The configuration of a recorded trial or training.

    Args:
        run_id: MLflow's run.

    Returns:
        The configuration, and what the run recorded.

    Raises:
        TrackingError: There is no such run, or it is no training.
        ConfigError: It was made by a version with other options.
    """
    stores = resolve_stores()
    values = fetch_config(stores, run_id)
    if "model" not in values:
        raise TrackingError(f"run {run_id} is a study, not a training: name one of its trials")
    metrics = connect(stores).get_run(run_id).data.metrics
    best = {
        name.removeprefix("best/"): value
        for name, value in metrics.items()
        if name.startswith("best/")
    }
    train = config.from_dict(TrainConfig, config.before_heads(values))
    return train, Repeated(run_id, best)


def training_name(train: TrainConfig, repeats: Repeated | None = None) -> str:
    """A name for a training that was given none: the same training has the same name.

    Args:
        train: Its configuration.
        repeats: The run that it repeats, whose own name it must not take.

    Returns:
        Architecture and digest of the configuration, without what may change from start to start.
    """
    options = config.to_dict(train)
    values: dict[str, Any] = {
        key: value for key, value in options.items() if key not in config.PLACE_ONLY
    }
    if repeats is not None:
        values["repeats"] = repeats.run_id
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return f"train-{train.model.architecture}-{digest}"


def run_training(
    train: TrainConfig,
    console: Console,
    *,
    name: str | None = None,
    repeats: Repeated | None = None,
    start: Start | None = None,
    is_to_be_registered: bool = False,
    seed_pretrained: bool = True,
) -> tuple[Trained | Rough, Published | None] | None:
    """Train one network on record, or the three of a model for geometries that are not DFT's.

    Started again under its name, it goes on.

    Args:
        train: What to train.
        console: Lines, progress, the wish to stop.
        name: None makes one of the configuration.
        repeats: The run that this one repeats, if any.
        start: The model that it starts from; none means fresh weights.
        is_to_be_registered: Release and register the network, too.
        seed_pretrained: Before the first version of a registry, register the model that comes
            with qm9flow.

    Returns:
        The training, or trainings, and the registered version, None if it was asked to stop before.

    Raises:
        TrainingError: The training failed.
        Qm9FlowError: Data, stores or registry cannot be used.
    """
    stores = resolve_stores()
    dataset = open_dataset(progress=console.progress)
    _check(train, dataset, start)
    name = name or training_name(train, repeats)
    with _begun(name, train, stores, console) as begun:
        begun.console.say(_plan(begun, train, dataset, start))
        _describe(train, dataset, begun.tracker, repeats, start)
        made = _train(begun, train, dataset, start)
        if isinstance(made, Trained):
            _compare(made, repeats, begun.console)
        published = None
        if is_to_be_registered:
            published = publish(
                made,
                dataset,
                begun.state,
                run_id=begun.tracker.parent_run_id,
                release_id=name,
                tracking_uri=stores.tracking_uri,
                seed_pretrained=seed_pretrained,
                console=begun.console,
                base=start.bundle if start else None,
            )
            put_on_record(published, begun.tracker)
        weights = begun.state / WEIGHTS if isinstance(made, Trained) else begun.state
        begun.console.say(_outcome(published, weights))
        return made, published
    return None


def _check(train: TrainConfig, dataset: Dataset, start: Start | None) -> None:
    """Refuse what could not be trained, before anything of it is put on record."""
    require_geometries(train.geometry, dataset)
    if train.geometry != "dft" and start is None:
        raise ConfigError(
            f"networks for {train.geometry} geometries start from a model for DFT's, and are "
            "registered beside it: name it with --start-from"
        )
    if start is not None:
        start.check(dataset)
    pick_device(train.device)
    training_sample(train, dataset)


@dataclass(frozen=True)
class _Begun:
    """A training that this process works on, and where it leaves its traces.

    Attributes:
        name: Of the training.
        state: Its folder, locked.
        tracker: Of its run.
        console: Lines for people and the log, progress, the wish to stop.
    """

    name: str
    state: Path
    tracker: StudyTracker
    console: Console


@contextmanager
def _begun(name: str, train: TrainConfig, stores: Stores, console: Console) -> Iterator[_Begun]:
    """Work on a training alone and on record; asked to stop, say so and leave it for later."""
    config.check_name("name", name)
    state = training_place(stores, name).state
    with FileLock(f"training {name!r}", state / "lock"), log_file(state / LOG):
        claim(state, train)
        console = logged(console)
        tracker = StudyTracker.open(stores, name, config.to_dict(train), kind="training")
        with closing(tracker, state / LOG, console, lambda: "stopped; the same command goes on"):
            yield _Begun(name, state, tracker, console)


def _train(
    begun: _Begun, train: TrainConfig, dataset: Dataset, start: Start | None
) -> Trained | Rough:
    """One network, or the three of a model for other geometries than DFT's."""
    if train.geometry != "dft":
        assert start is not None
        return _all_three(begun, train, dataset, start)
    return _only_one(begun, train, dataset, start)


def _only_one(begun: _Begun, train: TrainConfig, dataset: Dataset, start: Start | None) -> Trained:
    spool = begun.state / EPOCHS
    training = begun.tracker.open_training(config.to_dict(train), spool, name=begun.name)
    with on_record(training, begun.console) as on_event:
        trained = train_to_end(
            train,
            dataset,
            begun.state,
            on_event=on_event,
            stop=begun.console.stop,
            start=start.weights if start else None,
        )
    begun.tracker.log_artifact(begun.state / WEIGHTS, "model")
    return trained


def _all_three(begun: _Begun, train: TrainConfig, dataset: Dataset, start: Start) -> Rough:
    tracker, console = begun.tracker, begun.console

    @contextmanager
    def record(name: str, own: TrainConfig) -> Iterator[Callable[[Event], None]]:
        console.say(_AIMS[name])
        spool = begun.state / name / EPOCHS
        training = tracker.open_training(config.to_dict(own), spool, name=name, folder=name)
        with on_record(training, console) as on_event:
            yield on_event
        tracker.log_artifact(begun.state / name / WEIGHTS, f"model/{name}")

    return train_rough(
        train, dataset, begun.state, starts=starts_of(start), record=record, stop=console.stop
    )


_AIMS = {
    REFINER: "1 of 3: learning to refine approximate geometries; the score is in 1/angstrom",
    NETWORK: "2 of 3: learning properties from refined geometries",
    CHOICE: "3 of 3: learning which conformer QM9 has; the score is a cross entropy",
}


def _plan(begun: _Begun, train: TrainConfig, dataset: Dataset, start: Start | None) -> str:
    """What is about to be done, in words."""
    name = begun.name
    last = begun.state if train.geometry == "dft" else begun.state / CHOICE
    if (last / RECORD).exists():
        return f"training {name} had ended before: nothing is trained; another --name trains anew"
    sample = training_sample(train, dataset)
    limits = [f"{train.max_epochs} epochs"]
    if train.max_minutes is not None:
        limits.append(f"{train.max_minutes:g} min")
    lines = [
        f"training {name}: {train.model.architecture}, {len(sample.train):,} molecules of split "
        f"{train.split}, {len(sample.validation):,} for validation, "
        f"at most {' or '.join(limits)}"
    ]
    if start is not None:
        before = start.record.metrics.get("val/score")
        score = "" if before is None else f", whose best validation score was {before:.4f}"
        lines.append(f"  starts from the weights of {start.label}{score}")
    return "\n".join(lines)


def _outcome(published: Published | None, weights: Path) -> str:
    """What can be done with the network, in words."""
    if published is not None:
        return f"{published.table()}\n\n{published.verdict()}"
    return (
        f"weights: {weights}; --register makes them a version that can be served, the same "
        "command with it does so now"
    )


def _describe(
    train: TrainConfig,
    dataset: Dataset,
    tracker: StudyTracker,
    repeats: Repeated | None,
    start: Start | None,
) -> None:
    split = make_split(train.split, len(dataset), train.split_seed)
    tracker.log_dataset(
        digest=dataset.digest,
        molecules=len(dataset),
        split=split.name,
        split_digest=split.digest,
        sizes={"train": train.train_size or len(split.train)},
    )
    if repeats:
        tracker.set_tags({"repeats": repeats.run_id})
    if start:
        tracker.set_tags({"starts_from": start.label})


def _compare(trained: Trained, repeats: Repeated | None, console: Console) -> None:
    """Say what came out, beside what the repeated run had recorded."""
    now = trained.best_metrics
    best = f"best epoch {trained.best_epoch}"
    if trained.best_epoch == 0:
        best = "no epoch was better than the weights it started from, which are what comes out"
    console.say(
        f"{best}: validation score {now['val/score']:.6f} "
        f"on {trained.train.val_size or 'all'} validation molecules"
    )
    if repeats is None:
        return
    before = repeats.best_metrics.get("val/score")
    if before is None:
        console.say(f"run {repeats.run_id} recorded no best score to compare with")
        return
    same = "the same" if before == now["val/score"] else f"differs by {now['val/score'] - before:g}"
    console.say(f"run {repeats.run_id} recorded {before:.6f}: {same}")


def with_options(train: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """A configuration with some options changed.

    Args:
        train: The configuration.
        changes: Options by name; None where nothing was said.

    Returns:
        The changed configuration.

    Raises:
        ConfigError: A value is out of range.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(train, **given)

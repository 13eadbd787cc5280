"""A study from start to end: search, choose, train to the end, release, register."""

import dataclasses
import os
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm9flow import config
from qm9flow.config import StudyConfig, TrainConfig
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import Qm9FlowError, StudyError
from qm9flow.evaluation.leaderboard import leaderboard
from qm9flow.evaluation.report.facts import read_facts
from qm9flow.evaluation.report.write import FOLDER, PAGE, log_report
from qm9flow.evaluation.text_tables import counted
from qm9flow.tracking.runs import fetch_artifact
from qm9flow.tracking.stores import Stores, connect, resolve_stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.metrics import training_sample
from qm9flow.tuning import chosen
from qm9flow.tuning.coordinator import Coordinator, StudyResult
from qm9flow.tuning.executors import Placement
from qm9flow.tuning.placing import open_executor, place
from qm9flow.tuning.records import TrialRecord, show_study
from qm9flow.tuning.retention import estimate_size
from qm9flow.tuning.selection import Selection, best_final, by_score, select, with_speeds
from qm9flow.tuning.study import OpenStudy, default_name, open_study, recorded
from qm9flow.workflows import report
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.final_training import final_config, final_name, on_fastest_threads
from qm9flow.workflows.finals import Finals
from qm9flow.workflows.fitting import fitted
from qm9flow.workflows.journal import closing, log_file, logged, on_record
from qm9flow.workflows.publish import Published, publish, put_on_record
from qm9flow.workflows.trained import EPOCHS, RECORD, Trained, claim, train_to_end

LOG = "study.log"

FINAL = "final"
"""Prefix and folder of everything that belongs to the final training."""

HEAT_MAPS = 20
"""The best trials whose gradients are drawn at the end of a study."""


@dataclass(frozen=True)
class StudyOutcome:
    """What a study came to.

    Attributes:
        result: All trials.
        selection: The candidate and how it was found.
        trained: The candidate, trained to the end.
        published: The registered version, and whether it is champion.
    """

    result: StudyResult
    selection: Selection
    trained: Trained
    published: Published


def run_study(
    study: StudyConfig, console: Console, *, unsaid: Collection[str] = ()
) -> StudyOutcome | None:
    """Run a study, or go on with one, to a registered version.

    Args:
        study: Its options.
        console: Lines, progress, the wish to stop.
        unsaid: Options of `fitting.FITTED` that are to be chosen to fit the machine, or are what
            the study was begun with.

    Returns:
        What it came to, None if it was asked to stop before.

    Raises:
        StudyError: It is busy, was started with other options, or no trial completed.
        Qm9FlowError: Data, stores or registry cannot be used.
    """
    stores = resolve_stores(study.storage)
    dataset = open_dataset(progress=console.progress)
    placement = _check(study, dataset)
    fit = fitted(study, unsaid, stores, dataset, placement)
    study = fit.study
    run_id = os.environ.get("MLFLOW_RUN_ID") or uuid.uuid4().hex
    name = study.study_name or default_name(study, dataset.digest, run_id)
    with (
        open_study(stores, name, study, dataset.digest) as opened,
        log_file(opened.state / LOG),
    ):
        console = logged(console)
        console.say(report.plan(opened, estimate_size(opened.space, study), placement, fit))
        tracker = StudyTracker.open(
            stores, name, recorded(study), previous_parent=opened.previous_parent
        )
        log = opened.state / LOG
        with closing(tracker, log, console, lambda: report.how_to_continue(opened)):
            outcome = _search_and_publish(opened, dataset, tracker, placement, console)
            console.say(report.outcome(opened, tracker, outcome.published))
            return outcome
    return None


def _check(study: StudyConfig, dataset: Dataset) -> Placement | None:
    """Refuse at once what every single trial would fail at; say where they run."""
    placement = place(study)
    sizes = TrainConfig(split=study.split, train_size=study.train_size, val_size=study.val_size)
    training_sample(sizes, dataset)
    return placement


def _search_and_publish(
    opened: OpenStudy,
    dataset: Dataset,
    tracker: StudyTracker,
    placement: Placement | None,
    console: Console,
) -> StudyOutcome:
    _log_data(opened.config, dataset, tracker)
    coordinator = Coordinator(
        opened,
        tracker,
        open_executor(placement, dataset),
        stop=console.stop,
        progress=console.progress,
    )
    result = coordinator.run()
    if result.ending == "interrupted":
        raise Stopped
    console.say(report.search(result))
    selection = _select(opened, dataset, result, console)
    finals = Finals(opened, dataset, placement, tracker, console)
    selection = finals.hold(selection, result.trials)
    _log_search(opened, result, selection, tracker)
    _write_report(opened, tracker, console)
    console.say(report.choice(result, selection))
    name = final_name(selection.candidate.number, opened.config.final_minutes)
    folder = opened.state / FINAL / name
    trained = _train_candidate(opened, dataset, selection, folder, tracker=tracker, console=console)
    published = publish(
        trained,
        dataset,
        folder,
        run_id=tracker.parent_run_id,
        release_id=f"{opened.name}/{name}",
        tracking_uri=opened.stores.tracking_uri,
        seed_pretrained=opened.config.seed_pretrained,
        console=console,
    )
    put_on_record(published, tracker)
    _write_report(opened, tracker, console)
    return StudyOutcome(result, selection, trained, published)


def _log_data(study: StudyConfig, dataset: Dataset, tracker: StudyTracker) -> None:
    split = make_split(study.split, len(dataset))
    tracker.log_dataset(
        digest=dataset.digest,
        molecules=len(dataset),
        split=split.name,
        split_digest=split.digest,
        sizes={
            "train": study.train_size or len(split.train),
            "validation": study.val_size or len(split.validation),
        },
    )


def _select(
    opened: OpenStudy, dataset: Dataset, result: StudyResult, console: Console
) -> Selection:
    known = chosen.find(opened.history, result.trials)
    if known is not None:
        return known
    client = connect(opened.stores)

    def load_weights(record: TrialRecord) -> bytes:
        if record.run_id is None:
            raise StudyError(f"trial {record.number} has no run that could hold its model")
        scratch = opened.state / "weights"
        scratch.mkdir(parents=True, exist_ok=True)
        path = fetch_artifact(client, record.run_id, "model/weights.safetensors", scratch)
        return Path(path).read_bytes()

    selection = select(
        result.trials,
        opened.config,
        opened.space,
        dataset,
        load_weights,
        progress=console.progress,
    )
    chosen.keep(opened.history, selection, result.trials)
    return selection


def _log_search(
    opened: OpenStudy, result: StudyResult, selection: Selection, tracker: StudyTracker
) -> None:
    trials = with_speeds(result.trials, selection.speeds)
    rows = leaderboard(opened.stores, tracker.parent_run_id)
    tracker.log_table(report.marked(rows, selection), "leaderboard")
    if (winner := best_final(selection.finals)) is not None:
        tracker.log_metrics({"candidate/score_in_finals": winner.score or 0.0})
    if selection.finals:
        tracker.log_table(report.finals_table(selection, result.trials), "finals")
    tracker.log_metrics(
        {
            "candidate/trial": float(selection.candidate.number),
            "candidate/score": selection.candidate.score or 0.0,
            "candidate/score_standard_error": selection.standard_error,
        }
    )
    for record in by_score(trials)[:HEAT_MAPS]:
        if record.run_id:
            tracker.log_heat_map(record.run_id, record.number)


def _train_candidate(
    opened: OpenStudy,
    dataset: Dataset,
    selection: Selection,
    folder: Path,
    *,
    tracker: StudyTracker,
    console: Console,
) -> Trained:
    """Train it to the end, in the study's own run."""
    final = final_config(opened, selection.candidate, opened.config.final_minutes)
    claim(folder, final)
    if (folder / RECORD).exists():
        console.say("the candidate was trained on the whole split before")
    else:
        final = on_fastest_threads(final, dataset)
        threads = "" if final.threads is None else f" on {counted(final.threads, 'thread')}"
        minutes = f"{opened.config.final_minutes:g} min"
        console.say(f"training the candidate on the whole split, {minutes}{threads}")
    training = tracker.open_training(
        config.to_dict(final), folder / EPOCHS, name="final training", folder=FINAL
    )
    with on_record(training, console) as on_event:
        trained = train_to_end(final, dataset, folder, on_event=on_event, stop=console.stop)
    if (warning := report.worse_than_in_finals(trained, selection)) is not None:
        console.say(warning)
    return trained


def _write_report(opened: OpenStudy, tracker: StudyTracker, console: Console) -> None:
    """After the search and once more at the end; what cannot be drawn must not fail the work."""
    console.say(f"writing the report, {FOLDER}/{PAGE} in the run")
    try:
        log_report(read_facts(opened.stores, opened.name), tracker)
    except (Qm9FlowError, OSError) as error:
        console.say(f"no report: {error}")


def resume_study(
    name: str, storage: str | None, changes: Mapping[str, Any], console: Console
) -> StudyOutcome | None:
    """Go on with a study under the options that it was started with.

    Args:
        name: The study.
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`.
        changes: Options that may differ from start to start (`n_trials`, `finalists`,
            `final_minutes`, `timeout_minutes`).
        console: Lines, progress, the wish to stop.

    Returns:
        As `run_study`.

    Raises:
        StudyError: There is no such study.
    """
    stores: Stores = resolve_stores(storage)
    recorded = show_study(stores, name).config
    study = dataclasses.replace(recorded, study_name=name, storage=storage, **changes)
    return run_study(study, console)

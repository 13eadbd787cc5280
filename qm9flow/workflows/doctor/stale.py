"""Runs and trials that a killed process left in work.

Whatever is started again under its name settles its own; this is for those that nobody will start
again, and for people who wonder. What a living process holds, here or on another machine, is left
alone, and so is what nothing proves to be dead.
"""

import importlib.util
import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENTRY_POINT

from qm9flow.errors import TrackingError
from qm9flow.evaluation.text_tables import counted
from qm9flow.tracking.places import Place, study_place, training_place
from qm9flow.tracking.resume import end_run
from qm9flow.tracking.runs import TAG_HOME, TAG_KEY, TAG_KIND, search
from qm9flow.tracking.stores import Stores, connect, is_server, sqlite_path, store_errors
from qm9flow.tuning.locks import FileLock, Holder, living_holder, parse_holder_file
from qm9flow.workflows.doctor.findings import Finding, Remedy

UNBEGUN_SECONDS = 3600.0
"""Age at which a run that `mlflow run` made, and our code never took up, is taken for dead: making
an environment for it may take a while."""

ENTRY_POINTS = {
    "main": {"n_trials", "preset", "sampler", "train_size", "max_epochs", "final_minutes"},
    "train": {"from_run", "config", "minutes", "device"},
    "evaluate": {"model", "part", "targets", "worst", "limit", "output"},
}
"""Parameters of our project's entry points that run for a while: MLflow records those and no name
of the project, and runs of other projects are none of our business."""


def examine(stores: Stores) -> Iterator[Finding]:
    """Look for what is RUNNING although nobody runs it.

    Args:
        stores: The addresses.

    Yields:
        One finding a study or training, one for runs that never began; one that says so where
        there is nothing.
    """
    running = _running(stores)
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in running:
        tags = run.data.tags
        kind = "training" if tags.get(TAG_KIND) == "training" else "study"
        if TAG_KEY in tags and kind in tags:
            groups.setdefault((kind, tags[kind], tags[TAG_KEY]), []).append(run)
    found = [
        *_studies(stores, groups),
        *(
            _training(stores, training_place(stores, name), runs)
            for (kind, name, _), runs in groups.items()
            if kind == "training"
        ),
        *_unbegun(stores, running),
    ]
    yield from found or [Finding("runs", "good", "no run was left RUNNING")]


def _running(stores: Stores) -> list[Run]:
    path = sqlite_path(stores.tracking_uri)
    if path is not None and not path.exists():
        return []
    with store_errors("look for runs that are RUNNING", path):
        return list(search(connect(stores), "attributes.status = 'RUNNING'"))


def _studies(stores: Stores, groups: dict[tuple[str, str, str], list[Run]]) -> Iterator[Finding]:
    runs_of = {name: runs for (kind, name, key), runs in groups.items() if kind == "study"}
    elsewhere = [
        name
        for (kind, name, key) in groups
        if kind == "study" and key != study_place(stores, name).key
    ]
    for name in elsewhere:
        text = f"study {name} of another Optuna storage: {_runs(runs_of.pop(name))} RUNNING"
        yield Finding("runs", "note", f"{text}; `--storage URL` looks at it")
    if importlib.util.find_spec("optuna") is None:
        for name, runs in runs_of.items():
            text = f"study {name}: {_runs(runs)} RUNNING; whether it is, only optuna could tell"
            yield Finding("runs", "note", text)
        return
    from qm9flow.tuning.settling import open_trials

    trials = {item.study: item for item in open_trials(stores)}
    for name in dict.fromkeys([*trials, *runs_of]):
        place, runs = study_place(stores, name), runs_of.get(name, [])
        item = trials.get(name)
        begun, untold = (item.begun, item.untold) if item else (0, 0)
        holder = (item and item.holder) or living_holder(place.state / "lease")
        again = f"to go on: qm9flow study resume {shlex.quote(name)}"
        if holder is not None:
            yield Finding("runs", "good", f"study {name} is in work, by {_who(holder)}")
        elif runs or untold:
            left = [_runs(runs) + " RUNNING"] if runs else []
            left += [f"{counted(untold, 'trial')} ended but not told"] if untold else []
            left += [f"{counted(begun, 'trial')} begun"] if begun else []
            text = f"study {name} was killed: {', '.join(left)}; {again}"
            yield Finding("runs", "bad", text, _study_remedy(stores, name, runs))
        else:
            text = f"study {name} was stopped, {counted(begun, 'trial')} begun; {again}"
            yield Finding("runs", "note", text)


def _study_remedy(stores: Stores, name: str, runs: list[Run]) -> Remedy:
    def apply() -> str:
        from qm9flow.tuning.records import list_studies
        from qm9flow.tuning.settling import settle_study

        if name not in {study.name for study in list_studies(stores)}:
            with FileLock(f"study {name!r}", study_place(stores, name).state / "lease"):
                _end(connect(stores), runs)
            return f"ended {_runs(runs)} of study {name}, which is gone"
        done = settle_study(stores, name)
        told = f", told {counted(done.untold, 'trial')}" if done.untold else ""
        begun = f", {counted(done.begun, 'trial')} begun" if done.begun else ""
        return f"ended the runs of study {name}{told}{begun}; it can be gone on with"

    return Remedy("end its runs as Ctrl-C would have; it can still be gone on with", apply)


def _training(stores: Stores, place: Place, runs: list[Run]) -> Finding:
    name = place.name
    lock = place.state / "lock"
    holder = parse_holder_file(lock)
    if holder is None or not all(_is_kept_here(stores, place, run) for run in runs):
        where = next((run.data.tags[TAG_HOME] for run in runs if TAG_HOME in run.data.tags), None)
        text = f"training {name}: {_runs(runs)} RUNNING, begun in {where or 'another folder'}"
        return Finding("runs", "note", f"{text}; look there whether it is")
    if holder.host != socket.gethostname():
        text = (
            f"training {name}: {_runs(runs)} RUNNING, by {_who(holder)}; look there whether it is"
        )
        return Finding("runs", "note", text)
    if living_holder(lock) is not None:
        return Finding("runs", "good", f"training {name} is in work, by {_who(holder)}")
    text = f"training {name} was killed: {_runs(runs)} RUNNING; to go on: the same command again"
    plan = "end its run as Ctrl-C would have; it can still be gone on with"
    return Finding("runs", "bad", text, Remedy(plan, lambda: _settle_training(stores, place, runs)))


def _is_kept_here(stores: Stores, place: Place, run: Run) -> bool:
    """Whether the lock beside us is the one of a run; a server has runs from many folders."""
    if not is_server(stores.tracking_uri) and sqlite_path(stores.tracking_uri) is not None:
        return True
    return bool(run.data.tags.get(TAG_HOME) == place.home)


def _settle_training(stores: Stores, place: Place, runs: list[Run]) -> str:
    from qm9flow.tracking.study import StudyTracker
    from qm9flow.workflows.trained import EPOCHS

    client = connect(stores)
    with FileLock(f"training {place.name!r}", place.state / "lock"):
        for run in runs:
            tracker = StudyTracker(client, place, run)
            training = tracker.open_training(run.data.params, place.state / EPOCHS, name=place.name)
            training.finish("interrupted")
            tracker.finish("KILLED")
            if tracker.errors:
                raise TrackingError(
                    f"MLflow did not take everything of training {place.name}; nothing is lost: "
                    "try again"
                )
    return f"ended {_runs(runs)} of training {place.name}"


def _unbegun(stores: Stores, running: list[Run]) -> Iterator[Finding]:
    oldest = 1000.0 * (time.time() - UNBEGUN_SECONDS)
    runs = [
        run
        for run in running
        if TAG_KEY not in run.data.tags
        and run.info.start_time < oldest
        and _is_of_our_project(run)
        and not _is_taken_up(run.info.run_id)
    ]
    if runs:
        text = f"{_runs(runs)} of `mlflow run` never began: its environment could not be made"
        plan = f"end {_runs(runs)} as interrupted"
        yield Finding("runs", "bad", text, Remedy(plan, lambda: _end(connect(stores), runs)))


def _is_of_our_project(run: Run) -> bool:
    entry_point = run.data.tags.get(MLFLOW_PROJECT_ENTRY_POINT, "")
    expected = ENTRY_POINTS.get(entry_point)
    return expected is not None and expected <= run.data.params.keys()


def _is_taken_up(run_id: str) -> bool:
    """Whether a process of this machine was started for a run, whatever it does meanwhile."""
    wanted = f"MLFLOW_RUN_ID={run_id}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue  # ended, or somebody else's
    return False


def _end(client: MlflowClient, runs: list[Run]) -> str:
    with store_errors("end runs"):
        for run in runs:
            end_run(client, run)
    return f"ended {_runs(runs)}"


def _who(holder: Holder) -> str:
    return f"process {holder.pid} on {holder.host}"


def _runs(runs: list[Run]) -> str:
    return counted(len(runs), "run")

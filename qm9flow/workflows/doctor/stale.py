"""Runs and trials that a killed process left in work.

Whatever is started again under its name settles its own; this is for those that nobody will start
again, and for people who wonder.
"""

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENTRY_POINT

from qm9flow.errors import StudyError, TrackingError
from qm9flow.tracking.places import Place, study_place, training_place
from qm9flow.tracking.resume import end_run
from qm9flow.tracking.runs import TAG_KEY, TAG_KIND, search
from qm9flow.tracking.stores import Stores, connect, sqlite_path, store_errors
from qm9flow.tuning.locks import parse_holder_file
from qm9flow.workflows.doctor.findings import Finding, Remedy

UNBEGUN_SECONDS = 3600.0
"""Age at which a run that `mlflow run` made, and our code never took up, is taken for dead: making
an environment for it may take a while."""


@dataclass(frozen=True)
class _Owner:
    """Whose a run is."""

    place: Place
    restart: str


def examine(stores: Stores) -> Iterator[Finding]:
    """Look for what is RUNNING although nobody runs it.

    Args:
        stores: The addresses.

    Yields:
        One finding a study or training, one for runs that never began; one that says so where
        there is nothing.
    """
    path = sqlite_path(stores.tracking_uri)
    if path is not None and not path.exists():
        return
    try:
        client = connect(stores)
        with store_errors("look for runs that are RUNNING"):
            running = list(search(client, "attributes.status = 'RUNNING'"))
    except TrackingError:
        return  # said where the store itself is looked at
    found = [*_owned(stores, client, running), *_unbegun(client, running)]
    yield from found or [Finding("runs", "good", "no run was left RUNNING")]


def _owned(stores: Stores, client: MlflowClient, running: list[Run]) -> Iterator[Finding]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in running:
        tags = run.data.tags
        kind = "training" if tags.get(TAG_KIND) == "training" else "study"
        if TAG_KEY in tags and kind in tags:
            groups.setdefault((kind, tags[kind]), []).append(run)
    for (kind, name), runs in groups.items():
        owner = _owner(stores, kind, name)
        key = runs[0].data.tags[TAG_KEY]
        if owner.place.key != key:
            text = f"{kind} {name}: {_runs(runs)} RUNNING, of another Optuna storage: name it"
            yield Finding("runs", "note", text)
        elif _is_alive(stores, owner.place):
            yield Finding("runs", "good", f"{kind} {name} is in work, {_runs(runs)} RUNNING")
        else:
            yield _left(client, owner, runs)


def _owner(stores: Stores, kind: str, name: str) -> _Owner:
    if kind == "training":
        return _Owner(training_place(stores, name), "the command that began it, once more")
    return _Owner(study_place(stores, name), f"qm9flow study resume {shlex.quote(name)}")


def _is_alive(stores: Stores, place: Place) -> bool:
    lock = place.state / ("lock" if place.kind == "training" else "lease")
    holder = parse_holder_file(lock)
    if holder is not None and holder.is_alive:
        return True
    if place.kind == "training":
        return False
    from qm9flow.tuning.records import show_study

    try:
        return show_study(stores, place.name).holder is not None
    except StudyError:
        return False  # deleted since


def _left(client: MlflowClient, owner: _Owner, runs: list[Run]) -> Finding:
    place = owner.place
    text = f"{place.kind} {place.name} was killed: {_runs(runs)} RUNNING; to go on: {owner.restart}"
    plan = f"end {_runs(runs)} as interrupted; the {place.kind} can still be gone on with"
    return Finding("runs", "bad", text, Remedy(plan, lambda: _end(client, runs)))


def _unbegun(client: MlflowClient, running: list[Run]) -> Iterator[Finding]:
    oldest = 1000.0 * (time.time() - UNBEGUN_SECONDS)
    runs = [
        run
        for run in running
        if TAG_KEY not in run.data.tags
        and MLFLOW_PROJECT_ENTRY_POINT in run.data.tags
        and run.info.start_time < oldest
    ]
    if runs:
        text = f"{_runs(runs)} of `mlflow run` never began: its environment could not be made"
        plan = f"end {_runs(runs)} as interrupted"
        yield Finding("runs", "bad", text, Remedy(plan, lambda: _end(client, runs)))


def _end(client: MlflowClient, runs: list[Run]) -> str:
    with store_errors("end runs"):
        for run in runs:
            end_run(client, run)
    return f"ended {_runs(runs)}"


def _runs(runs: list[Run]) -> str:
    return f"{len(runs)} run{'s' * (len(runs) != 1)}"

"""Joining the runs of several starts of one study under the newest parent.

`mlflow run` makes a new parent at every start, so trials move. Any start can be killed at any
instant: `resumes` is set when a parent is made, `superseded_by` when its trials have moved, so the
next start finds trials that a killed one left behind.
"""

import shlex

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_PROJECT_ENTRY_POINT

from qm9flow.tracking.places import Place
from qm9flow.tracking.runs import (
    KIND_FINAL,
    TAG_KEY,
    TAG_KIND,
    TAG_RESUMES,
    TAG_STATE,
    TAG_SUPERSEDED,
    search,
    search_children,
)


def earlier_parents(client: MlflowClient, previous: str, own: str) -> list[Run]:
    """Parents that may still hold trials of the study.

    Args:
        client: From `connect`.
        previous: The parent that the study names.
        own: The new parent.

    Returns:
        The previous one; those it resumed, if it was killed while their trials moved; those that
        resumed it, but were killed before the study named them.
    """
    first = client.get_run(previous)
    found = {previous: first}
    above = first.data.tags.get(TAG_RESUMES)
    while above and above not in found:
        run = client.get_run(above)
        if TAG_SUPERSEDED in run.data.tags:
            break
        found[above] = run
        above = run.data.tags.get(TAG_RESUMES)
    resuming = f"tags.{TAG_RESUMES} = '{previous}'"
    for run in search(client, resuming):
        if TAG_SUPERSEDED not in run.data.tags:
            found[run.info.run_id] = run
    found.pop(own, None)
    return list(found.values())


def adopt(client: MlflowClient, parent: Run, new_parent: str) -> None:
    """Move a parent's trials to another one, and end it.

    Args:
        client: From `connect`.
        parent: The old parent.
        new_parent: The new one.
    """
    for child in search_children(client, parent):
        client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, new_parent)
    client.set_tag(parent.info.run_id, TAG_SUPERSEDED, new_parent)
    if parent.info.status == "RUNNING":
        end_run(client, parent)


def end_orphans(client: MlflowClient, place: Place, own: str) -> None:
    """End runs of killed starts that nothing else knows of: parents, and trials trained further.

    Whoever calls holds the lease of the study or training, so no other start of it is alive.

    Args:
        client: From `connect`.
        place: The study or training.
        own: The parent that is alive.
    """
    for kind in (place.kind, KIND_FINAL):
        found = f"tags.{TAG_KEY} = '{place.key}' and tags.{TAG_KIND} = '{kind}'"
        for run in search(client, f"{found} and attributes.status = 'RUNNING'"):
            if run.info.run_id != own:
                end_run(client, run)
    if place.kind == "study":
        _end_unbegun(client, place.name, own)


def _end_unbegun(client: MlflowClient, name: str, own: str) -> None:
    """End runs that `mlflow run` made for the study, killed before our code began.

    One that is alive after all is none the worse: it takes its run up again when it begins.
    """
    recorded = shlex.quote(name)  # as `mlflow run` logs a parameter
    wanted = f"params.study_name = \"{recorded}\" and attributes.status = 'RUNNING'"
    for run in search(client, wanted):
        is_unbegun = TAG_KEY not in run.data.tags and MLFLOW_PROJECT_ENTRY_POINT in run.data.tags
        if is_unbegun and run.info.run_id != own:
            end_run(client, run)


def end_run(client: MlflowClient, run: Run) -> None:
    """End a run whose process is gone.

    Args:
        client: From `connect`.
        run: The run.
    """
    client.set_tag(run.info.run_id, TAG_STATE, "interrupted")
    client.set_terminated(run.info.run_id, "KILLED")

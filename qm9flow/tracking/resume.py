"""Joining the runs of several starts of one study under the newest parent.

`mlflow run` makes a new parent at every start, so trials move. Any start can be killed at any
instant: `resumes` is set when a parent is made, `superseded_by` when its trials have moved, so the
next start finds trials that a killed one left behind.
"""

import hashlib

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from qm9flow.tracking.runs import (
    TAG_KIND,
    TAG_RESUMES,
    TAG_STATE,
    TAG_STUDY_KEY,
    TAG_SUPERSEDED,
    search,
    search_children,
)
from qm9flow.tracking.stores import Stores


def study_key(stores: Stores, study_name: str) -> str:
    """What tells a study from one of the same name in another Optuna storage.

    Args:
        stores: The addresses.
        study_name: The study.

    Returns:
        A short digest.
    """
    return hashlib.sha256(f"{stores.optuna_url}\n{study_name}".encode()).hexdigest()[:16]


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
    for run in search(client, first.info.experiment_id, resuming):
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
        _end(client, parent)


def end_orphans(client: MlflowClient, experiment_id: str, key: str, own: str) -> None:
    """End parents that were killed before the study named them; they have no trials.

    Whoever calls holds the study's lease, so no other parent of the study is alive.

    Args:
        client: From `connect`.
        experiment_id: Where to look.
        key: The study's key.
        own: The parent that is alive.
    """
    found = f"tags.{TAG_STUDY_KEY} = '{key}' and tags.{TAG_KIND} = 'study'"
    for run in search(client, experiment_id, f"{found} and attributes.status = 'RUNNING'"):
        if run.info.run_id != own:
            _end(client, run)


def _end(client: MlflowClient, run: Run) -> None:
    client.set_tag(run.info.run_id, TAG_STATE, "interrupted")
    client.set_terminated(run.info.run_id, "KILLED")

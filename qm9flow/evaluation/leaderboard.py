"""The trials of a study beside each other, error per target in its unit, from MLflow alone.

Needs neither the study's Optuna storage nor its machine: any copy of the tracking store will do.
"""

import math
from collections.abc import Iterable
from typing import Any

from mlflow.entities import Run

from qm9flow.errors import TrackingError
from qm9flow.properties import PROPERTIES
from qm9flow.tracking.runs import KIND_FINAL, TAG_KIND, TAG_STATE, TAG_TRIAL, find_children
from qm9flow.tracking.stores import Stores, connect

_STATES = ("complete", "pruned", "failed")


def leaderboard(stores: Stores, parent_run_id: str) -> list[dict[str, Any]]:
    """The trials of a study, the best first.

    Args:
        stores: Where its runs are.
        parent_run_id: The study's run.

    Returns:
        As `rank` makes them.

    Raises:
        TrackingError: There is no such run, or it has no trials.
    """
    children = find_children(connect(stores), parent_run_id)
    rows = rank(run for run in children if run.data.tags.get(TAG_KIND) != KIND_FINAL)
    if not rows:
        raise TrackingError(f"run {parent_run_id} has no trials that ended")
    return rows


def rank(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Rows of a leaderboard.

    Args:
        runs: Runs of trials; those that have not ended are left out.

    Returns:
        One a trial, all with the same keys: `trial`, `state`, `score`, `<target>_mae [<unit>]` for
        each target that any trial has, speed, size, verdict, reason, the searched parameters and
        `run_id`. Completed trials come first, then pruned, then failed ones; the lowest score
        first. What a trial lacks is None.
    """
    ended = [run for run in runs if run.data.tags.get(TAG_STATE) in _STATES]
    names = sorted({name for run in ended for name in run.data.params})
    targets = [
        (f"{item.name}_mae [{item.unit}]", f"best/val/{item.name}/mae")
        for item in PROPERTIES
        if any(f"best/val/{item.name}/mae" in run.data.metrics for run in ended)
    ]
    rows = [_row(run, targets, names) for run in ended]
    return sorted(rows, key=_order)


def _row(run: Run, targets: list[tuple[str, str]], names: list[str]) -> dict[str, Any]:
    metrics, tags = run.data.metrics, run.data.tags
    best_epoch = metrics.get("best_epoch")
    size = metrics.get("model/parameters")
    return {
        "trial": int(tags.get(TAG_TRIAL, -1)),
        "state": tags[TAG_STATE],
        "score": metrics.get("best/val/score"),
        **{column: metrics.get(metric) for column, metric in targets},
        "best_epoch": None if best_epoch is None else int(best_epoch),
        "molecules_per_second": metrics.get("best/train/molecules_per_second"),
        "parameters": None if size is None else int(size),
        "verdict": tags.get("verdict"),
        "reason": tags.get("reason"),
        **{name: run.data.params.get(name) for name in names},
        "run_id": run.info.run_id,
    }


def _order(row: dict[str, Any]) -> tuple[int, float, int]:
    score = row["score"]
    is_known = score is not None and math.isfinite(score)
    return _STATES.index(row["state"]), score if is_known else math.inf, row["trial"]

"""A run for a model that was trained elsewhere: what is known of it, in one go."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from qm9flow.properties import PROPERTIES
from qm9flow.tracking.curves import Curves
from qm9flow.tracking.describe import parameters_of
from qm9flow.tracking.runs import CONFIG_FILE, TAG_KIND, TAG_STATE, TAG_UNITS, search
from qm9flow.tracking.stores import store_errors

TAG_RELEASE = "release_id"


def record_elsewhere(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    *,
    release_id: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    curves: Curves,
    tags: Mapping[str, str],
    files: tuple[Path, ...] = (),
) -> str:
    """Make the run of such a model, once; after a kill, complete the one that was begun.

    Args:
        client: From `connect`.
        experiment_id: Where a new run goes.
        name: The run's name and kind.
        release_id: What the model is known by.
        config: Of its training; parameters `cfg.<name>` and `config.json`, enough to repeat it.
        metrics: Names and values.
        curves: Metrics of its epochs.
        tags: What else it says about itself.
        files: Stored with the run.

    Returns:
        The run's id; it has ended.

    Raises:
        TrackingError: The store cannot be reached or refuses.
    """
    with store_errors(f"record the {name} model"):
        known = f"tags.{TAG_KIND} = '{name}' and tags.{TAG_RELEASE} = '{release_id}'"
        run = next(search(client, known), None)
        if run is None:
            labels = {
                **tags,
                TAG_KIND: name,
                TAG_RELEASE: release_id,
                TAG_STATE: "running",
                TAG_UNITS: json.dumps({item.name: item.unit for item in PROPERTIES}),
                MLFLOW_SOURCE_NAME: "qm9flow",
                MLFLOW_SOURCE_TYPE: "LOCAL",
            }
            run = client.create_run(experiment_id, tags=labels, run_name=name)
        run_id = str(run.info.run_id)
        if run.info.status != "FINISHED":
            _fill(client, run, config, metrics, files)
            _draw(client, run, curves)
            client.log_batch(run_id, tags=[RunTag(TAG_STATE, "complete")])
            client.set_terminated(run_id, "FINISHED")
        return run_id


def _fill(
    client: MlflowClient,
    run: Run,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    files: tuple[Path, ...],
) -> None:
    run_id, now = run.info.run_id, int(time.time() * 1000)
    for path in files:
        client.log_artifact(run_id, str(path))
    client.log_text(run_id, json.dumps(config, indent=1), CONFIG_FILE)
    client.log_batch(run_id, params=parameters_of({"cfg": config}))
    missing = metrics.keys() - run.data.metrics.keys()
    points = [Metric(name, float(metrics[name]), now, 0) for name in sorted(missing)]
    client.log_batch(run_id, metrics=points)


def _draw(client: MlflowClient, run: Run, curves: Curves) -> None:
    """Log curves; done twice, they are there once, since a point's time is the run's."""
    for epoch, values in curves.items():
        points = [Metric(name, value, run.info.start_time, epoch) for name, value in values.items()]
        client.log_batch(run.info.run_id, metrics=points)

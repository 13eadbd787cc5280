"""A study's figures, drawn again."""

import tempfile
from pathlib import Path

from qm9flow.errors import ConfigError, StudyError
from qm9flow.evaluation.study_plots import write_study_figures
from qm9flow.tracking.stores import Stores, connect, resolve_stores, store_errors
from qm9flow.tuning.records import list_studies, show_study


def draw_study(name: str | None, storage: str | None, output: str | None) -> str:
    """Draw a study's figures into a folder, or into the study's run.

    Args:
        name: The study; None means the one that changed last.
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`.
        output: A folder; None means the study's run in MLflow.

    Returns:
        Where they are, in words.

    Raises:
        StudyError: There is no such study, or its run was deleted.
        TrackingError: Its run cannot be reached.
        ConfigError: The folder cannot be written to.
    """
    stores = resolve_stores(storage)
    study = show_study(stores, name or _latest(stores))
    if output:
        try:
            written = write_study_figures(stores, study.name, Path(output))
        except OSError as error:
            raise ConfigError(f"cannot write figures to {output}: {error.strerror}") from error
        return f"{len(written.files)} figures of study {study.name} in {output}"
    if study.parent_run_id is None:
        raise StudyError(f"study {study.name} has no run yet; name a folder with --output")
    with tempfile.TemporaryDirectory() as folder:
        written = write_study_figures(stores, study.name, Path(folder))
        _store(stores, study.parent_run_id, folder)
    return f"{len(written.files)} figures of study {study.name} in run {study.parent_run_id}"


def _store(stores: Stores, run_id: str, folder: str) -> None:
    client = connect(stores)
    with store_errors(f"store the figures with run {run_id}"):
        if client.get_run(run_id).info.lifecycle_stage != "active":
            raise StudyError(f"run {run_id} of the study was deleted; name a folder with --output")
        client.log_artifacts(run_id, folder, "figures")


def _latest(stores: Stores) -> str:
    studies = [item for item in list_studies(stores) if item.changed is not None]
    if not studies:
        raise StudyError("there is no study yet; `make study` or `qm9flow study run` makes one")
    return max(studies, key=lambda item: str(item.changed)).name

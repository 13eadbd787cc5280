"""The pretrained model enters an empty registry first, so that later models have to beat it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt
from mlflow import MlflowClient

import qm9flow
from qm9flow import config, locations
from qm9flow.errors import BundleError, RegistryError, StudyBusyError, TrackingError
from qm9flow.registry import pretrained
from qm9flow.registry.aliases import CHAMPION, judged_before, promote
from qm9flow.registry.checksum import folder_sha256
from qm9flow.registry.gate import mean_normalised
from qm9flow.registry.versions import Version, list_versions, register, resolve
from qm9flow.release.bundle import read_bundle
from qm9flow.release.record import BundleRecord
from qm9flow.tracking.curves import Curves, read_curves
from qm9flow.tracking.elsewhere import record_elsewhere
from qm9flow.tracking.stores import store_errors
from qm9flow.tuning.locks import FileLock
from qm9flow.workflows.console import Console
from qm9flow.workflows.version_tags import version_tags

TAG = "pretrained"
"""Set on the version, to the qm9flow that it came with."""

LOCK = "pretrained.lock"
LOCK_SECONDS = 120.0
"""How long another process may take to register it; seconds on an idle machine."""

Evidence = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]


def seed_registry(tracking_uri: str, run_id: str, console: Console) -> Version | None:
    """Register the model that comes with qm9flow as the first version, and champion.

    Nothing happens in a registry that holds other versions. Killed at any point and called again,
    it goes on; of two processes with one folder of state, one does it.

    Args:
        tracking_uri: The registry's store, which exists.
        run_id: A run; its experiment also gets the pretrained model's own.
        console: Told what is done, and why not if the model cannot be used.

    Returns:
        The pretrained model's version as it stands now; None if the registry has none.

    Raises:
        RegistryError: The registry refuses.
        TrackingError: The run cannot be made.
    """
    if not pretrained.is_there():
        return None
    with _alone(tracking_uri):
        versions = list_versions(tracking_uri)
        version = next((item for item in versions if TAG in item.tags), None)
        if version is None:
            if versions:
                return None
            try:
                record, _ = read_bundle(pretrained.bundle())
                evidence = pretrained.validation_errors()
                curves = _curves()
            except (RegistryError, BundleError, TrackingError) as error:
                console.say(f"the pretrained model is left out: {error}")
                return None
            console.say("no model is registered: the pretrained one enters first, as champion")
            version = _register(record, evidence, curves, tracking_uri, run_id)
        others = [item for item in versions if item.number != version.number]
        is_first = not any(CHAMPION in item.aliases for item in others)
        if is_first and judged_before(version) is None:  # just registered, or killed before this
            promote(version, tracking_uri=tracking_uri)
        return resolve(version.number, tracking_uri)


def _curves() -> Curves:
    """Of all of its trainings."""
    curves = read_curves(pretrained.FOLDER / pretrained.CURVES)
    rough = pretrained.FOLDER / pretrained.ROUGH_CURVES
    if rough.exists():
        for epoch, values in read_curves(rough).items():
            curves[epoch] = curves.get(epoch, {}) | values
    return dict(sorted(curves.items()))


def _register(
    record: BundleRecord, evidence: Evidence, curves: Curves, tracking_uri: str, run_id: str
) -> Version:
    folder = pretrained.FOLDER / pretrained.BUNDLE
    release_id = f"{pretrained.NAME}/{folder_sha256(folder)[:12]}"
    tags = version_tags(record, release_id) | {TAG: qm9flow.__version__}
    errors, scale = evidence
    maes = {"val": record.validation_mae, "test": record.test_mae}
    if record.rough is not None:
        for source in record.rough.test_mae:
            maes[f"{source}/val"] = record.rough.validation_mae[source]
            maes[f"{source}/test"] = record.rough.test_mae[source]
    metrics = {f"best/{name}": value for name, value in record.metrics.items()}
    metrics |= {f"final/{part}/{k}/mae": v for part, mae in maes.items() for k, v in mae.items()}
    client = MlflowClient(tracking_uri)
    with store_errors("find the experiment"):
        experiment = client.get_run(run_id).info.experiment_id
    made_by = record_elsewhere(
        client,
        str(experiment),
        pretrained.NAME,
        release_id=release_id,
        config=config.to_dict(record.train),
        metrics=metrics | {"final/val/score": mean_normalised(errors, scale)},
        curves=curves,
        tags={name: value for name, value in tags.items() if not name.endswith("/mae")},
        files=(folder / "card.md",),
    )
    return register(
        folder,
        made_by,
        validation_errors=errors,
        scale=scale,
        elsewhere=pretrained.elsewhere(),
        tags=tags,
        tracking_uri=tracking_uri,
    )


@contextmanager
def _alone(tracking_uri: str) -> Iterator[None]:
    """One process at a time of those that keep their state in the same folder; the others wait.

    Two that share a tracking server but no folder may both register it, which costs a version.
    """
    file = locations.base_folder(tracking_uri) / "state" / LOCK
    until = time.monotonic() + LOCK_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(FileLock("the pretrained model's registration", file))
                break
            except StudyBusyError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield

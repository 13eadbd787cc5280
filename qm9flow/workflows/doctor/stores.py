"""Data, databases, registry and disks: whether they can be used as they are."""

import importlib.util
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from qm9flow.data import store as data
from qm9flow.errors import CacheError, DataError, Qm9FlowError, TrackingError
from qm9flow.evaluation.text_tables import counted
from qm9flow.locations import without_password
from qm9flow.registry import client as registry_client
from qm9flow.registry.versions import list_versions, resolve, verify
from qm9flow.tracking.stores import (
    Stores,
    connect,
    is_server,
    sqlite_path,
    store_errors,
    target_experiment,
)
from qm9flow.workflows.doctor.findings import Finding, Remedy, answering, one_line

FULL_BYTES = 200e6
"""Free room in which not even a small study comes to its end."""

LOW_BYTES = 2e9
"""Free room below which a study of some length may come to a halt."""

VERSION_SECONDS = 10.0
"""For a server to say which version it is."""


def examine(stores: Stores) -> Iterator[Finding]:
    """Look at everything that is stored.

    Args:
        stores: The addresses.

    Yields:
        One finding a store. What lies in a store that cannot be read is left out.
    """
    yield _data()
    yield from _disks(stores)
    tracking = _tracking(stores)
    yield tracking
    if tracking.state == "good":
        yield answering("artifacts", lambda: _artifacts(stores))
        yield from _registry(stores)
    yield _optuna(stores)


def _data() -> Finding:
    try:
        dataset = data.verify()
    except CacheError as error:
        if not data.is_prepared():
            text = "QM9 is not prepared yet: the first study or training does it, in seconds"
            return Finding("data", "note", text)
        plan = "prepare QM9 anew from its tables"
        return Finding("data", "bad", one_line(str(error)), Remedy(plan, _prepared))
    except DataError as error:
        return Finding("data", "bad", one_line(str(error)))
    text = f"{len(dataset):,} molecules in {dataset.folder}, every byte as recorded"
    return Finding("data", "good", text)


def _prepared() -> str:
    return f"prepared {len(data.prepare(replace=True)):,} molecules"


def _disks(stores: Stores) -> Iterator[Finding]:
    places = {"runs": stores.base, "data": data.cache_dir()}
    for what, folder in places.items():
        free = shutil.disk_usage(_existing(folder)).free
        text = f"{_size(free)} free for {what} in {folder}"
        if complaint := _unwritable(folder):
            yield Finding("disk", "bad", complaint)
        elif free < FULL_BYTES:
            yield Finding("disk", "bad", f"{text}: make room")
        elif free < LOW_BYTES:
            yield Finding("disk", "note", f"{text}: a long study may need more")
        else:
            yield Finding("disk", "good", text)


def _existing(folder: Path) -> Path:
    """The folder, or the one that it would be made in."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.0f} GB" if n_bytes >= 10e9 else f"{n_bytes / 1e6:,.0f} MB"


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written to a folder, None if it can; nothing is left there."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return None
    except OSError as error:
        reason = error.strerror or str(error)
        return f"{folder} cannot be written to ({reason}): change its rights, or work elsewhere"


def _tracking(stores: Stores) -> Finding:
    path = sqlite_path(stores.tracking_uri)
    if path is not None and not path.exists():
        return Finding("tracking", "note", f"nothing is recorded yet: there is no {path}")

    def ask() -> str:
        registry_client.connect(stores.tracking_uri)  # says at once if a server does not answer
        client = connect(stores)
        with store_errors("read the experiments", path):
            experiments = client.search_experiments()
        shown = without_password(stores.tracking_uri)
        return f"MLflow answers at {shown}: {counted(len(experiments), 'experiment')}"

    finding = answering("tracking", ask)
    other = _other_version(stores.tracking_uri) if finding.state == "good" else None
    if other is not None:
        text = f"{finding.text}; the server has MLflow {other}, this machine {mlflow.__version__}"
        return Finding("tracking", "good", text)
    return finding


def _other_version(uri: str) -> str | None:
    """The version of a server, if it is not ours."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/version", timeout=VERSION_SECONDS) as said:
            version: str = said.read(40).decode().strip()
    except (urllib.error.URLError, OSError, ValueError):
        return None  # behind a login, or of an older kind
    return version if version != mlflow.__version__ else None


def _artifacts(stores: Stores) -> str:
    """Write a small file where runs keep their files, and take it away again."""
    client = connect(stores)
    experiment = target_experiment(client)
    if experiment is None:
        return "the experiment in MLFLOW_EXPERIMENT_NAME is made by the first run"
    root = str(experiment.artifact_location)
    if is_local_uri(root):
        folder = Path(local_file_uri_to_path(root))
        if complaint := _unwritable(folder):
            raise TrackingError(complaint)
        return f"files of runs go to {folder}"
    with store_errors(f"write files of runs to {root}"), tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / f"qm9flow-doctor-{os.getpid()}"
        probe.write_bytes(b"written by `qm9flow doctor`, to be deleted at once")
        repository = get_artifact_repository(root, tracking_uri=stores.tracking_uri)
        repository.log_artifact(str(probe))
        repository.delete_artifacts(probe.name)
    through = "through the server" if is_server(stores.tracking_uri) else "directly"
    return f"files of runs go to {root}, {through}"


def _optuna(stores: Stores) -> Finding:
    path = sqlite_path(stores.optuna_url)
    if path is not None and not path.exists():
        return Finding("studies", "note", "no study was started here yet")
    if importlib.util.find_spec("optuna") is None:
        text = "there are studies, but no optuna to read them: pip install 'qm9flow[train]'"
        return Finding("studies", "note", text)
    from qm9flow.tuning.records import list_studies

    def ask() -> str:
        found = list_studies(stores)
        if path is not None and not os.access(path, os.W_OK):
            raise TrackingError(f"{path} is read-only for this user: change its rights")
        return f"{counted(len(found), 'study', 'studies')} in {without_password(stores.optuna_url)}"

    return answering("studies", ask)


def _registry(stores: Stores) -> Iterator[Finding]:
    try:
        versions = list_versions(stores.tracking_uri)
    except Qm9FlowError as error:
        yield Finding("registry", "bad", one_line(str(error)))
        return
    if not versions:
        yield Finding("registry", "note", "no model is registered: the pretrained one is served")
    for version in versions:
        if version.aliases:
            yield _version(stores, version.number, ", ".join(version.aliases))


def _version(stores: Stores, number: int, aliases: str) -> Finding:
    def ask() -> str:
        verify(resolve(number, stores.tracking_uri), stores.tracking_uri)
        return f"version {number}, {aliases}, has the checksum that was recorded"

    return answering("registry", ask)

"""Data, databases, registry and disks: whether they can be used as they are."""

import shutil
from collections.abc import Callable, Iterator

from qm9flow.data import store as data
from qm9flow.errors import CacheError, DataError, Qm9FlowError
from qm9flow.registry import database
from qm9flow.registry.versions import list_versions, resolve, verify
from qm9flow.tracking.stores import Stores, connect, sqlite_path
from qm9flow.workflows.doctor.findings import Finding, Remedy

LOW_BYTES = 2e9
"""Free room below which a study of some length may come to a halt."""


def examine(stores: Stores) -> Iterator[Finding]:
    """Look at everything that is stored.

    Args:
        stores: The addresses.

    Yields:
        One finding a store.
    """
    yield _data()
    yield from _disks(stores)
    yield _tracking(stores)
    yield _optuna(stores)
    yield from _registry(stores)


def _data() -> Finding:
    try:
        dataset = data.verify()
    except CacheError as error:
        if not data.is_prepared():
            text = "QM9 is not prepared yet: the first study or training does it, in seconds"
            return Finding("data", "note", text)
        plan = "prepare QM9 anew from its tables"
        return Finding("data", "bad", str(error), Remedy(plan, _prepared))
    except DataError as error:
        return Finding("data", "bad", str(error))
    text = f"{len(dataset):,} molecules in {dataset.folder}, every byte as recorded"
    return Finding("data", "good", text)


def _prepared() -> str:
    return f"prepared {len(data.prepare(replace=True)):,} molecules"


def _disks(stores: Stores) -> Iterator[Finding]:
    places = {"runs": stores.base, "data": data.cache_dir()}
    for what, folder in places.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        text = f"{free / 1e9:.0f} GB free for {what} in {folder}"
        is_low = free < LOW_BYTES
        yield Finding("disk", "bad" if is_low else "good", text + (": make room" * is_low))


def _tracking(stores: Stores) -> Finding:
    path = sqlite_path(stores.tracking_uri)
    if path is not None:
        if not path.exists():
            return Finding("tracking", "note", f"nothing is recorded yet: there is no {path}")
        if complaint := database.check_database(path):
            return Finding("tracking", "bad", complaint)
    return _answering(
        "tracking", lambda: f"MLflow answers at {stores.tracking_uri}: {_count_runs(stores)}"
    )


def _count_runs(stores: Stores) -> str:
    experiments = connect(stores).search_experiments()
    return f"{len(experiments)} experiment{'s' * (len(experiments) != 1)}"


def _optuna(stores: Stores) -> Finding:
    path = sqlite_path(stores.optuna_url)
    if path is not None and not path.exists():
        return Finding("studies", "note", "no study was started here yet")
    from qm9flow.tuning.records import list_studies

    def answer() -> str:
        found = list_studies(stores)
        return f"{len(found)} stud{'y' if len(found) == 1 else 'ies'} in {stores.optuna_url}"

    return _answering("studies", answer)


def _registry(stores: Stores) -> Iterator[Finding]:
    path = sqlite_path(stores.tracking_uri)
    if path is not None and not path.exists():
        return
    try:
        versions = list_versions(stores.tracking_uri)
    except Qm9FlowError as error:
        yield Finding("registry", "bad", str(error))
        return
    if not versions:
        yield Finding("registry", "note", "no model is registered: the pretrained one is served")
    for version in versions:
        if version.aliases:
            yield _version(stores, version.number, ", ".join(version.aliases))


def _version(stores: Stores, number: int, aliases: str) -> Finding:
    def answer() -> str:
        verify(resolve(number, stores.tracking_uri), stores.tracking_uri)
        return f"version {number}, {aliases}, has the checksum that was recorded"

    return _answering("registry", answer)


def _answering(area: str, answer: Callable[[], str]) -> Finding:
    try:
        return Finding(area, "good", answer())
    except Qm9FlowError as error:
        return Finding(area, "bad", str(error))

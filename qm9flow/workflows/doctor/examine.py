"""The whole examination."""

from collections.abc import Callable, Iterator

from qm9flow.tracking.stores import Stores, resolve_stores
from qm9flow.workflows.doctor import installation, stale
from qm9flow.workflows.doctor import stores as stores_
from qm9flow.workflows.doctor.findings import Finding


def examine(storage: str | None, say: Callable[[Finding], None]) -> list[Finding]:
    """Look at installation, stores and records; nothing is changed.

    Args:
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`.
        say: Told each finding as soon as it is there.

    Returns:
        All findings.

    Raises:
        ConfigError: An address is wrong.
    """
    stores = resolve_stores(storage)
    found: list[Finding] = []
    for part in (installation.examine(), stores_.examine(stores), _records(stores, found)):
        for finding in part:
            say(finding)
            found.append(finding)
    return found


def _records(stores: Stores, found: list[Finding]) -> Iterator[Finding]:
    """Runs and trials, if the stores that hold them could be read."""
    broken = {item.area for item in found if item.state == "bad"} & {"tracking", "studies"}
    if not broken:
        yield from stale.examine(stores)

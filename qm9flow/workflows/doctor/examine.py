"""The whole examination."""

from collections.abc import Callable

from qm9flow.tracking.stores import resolve_stores
from qm9flow.workflows.doctor import installation, stale
from qm9flow.workflows.doctor import stores as stores_
from qm9flow.workflows.doctor.findings import Finding


def examine(storage: str | None, say: Callable[[Finding], None]) -> list[Finding]:
    """Look at installation, stores and records.

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
    for part in (installation.examine(), stores_.examine(stores), stale.examine(stores)):
        for finding in part:
            say(finding)
            found.append(finding)
    return found

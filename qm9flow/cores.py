"""Cores of this machine that this process may use."""

import os


def usable_cores() -> int:
    """Count them.

    Returns:
        Fewer than the machine has where an operator or a batch system allows fewer.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

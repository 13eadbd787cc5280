"""How many trials at a time, and what each of them takes: from options and what there is."""

import importlib.util
import logging
import math
import socket

import torch

from qm9flow.config import StudyConfig
from qm9flow.cores import usable_cores
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError, DependencyError, StudyError
from qm9flow.training.device import pick_device
from qm9flow.tuning.executors import (
    TRIALS_PER_GPU,
    Executor,
    InProcessExecutor,
    Placement,
)

MAX_TRIALS_A_CORE = 4
"""More of them would only wait for each other, each with a process of its own."""

KNOCK_SECONDS = 5.0
"""For a cluster to take a connection."""

log = logging.getLogger(__name__)


def place(study: StudyConfig) -> Placement | None:
    """Where a study's trials run.

    Args:
        study: Its options.

    Returns:
        What to ask of Ray; None for one trial at a time in this process. Without a number of
        trials on a cluster, as many as it holds.

    Raises:
        ConfigError: More of a GPU is asked for than there is, or more trials at a time than the
            machine can bear.
        StudyError: Nobody listens at the cluster's address.
        DependencyError: Ray is asked for and not installed.
    """
    if study.ray_address is not None:
        _require_ray()
        _knock(study.ray_address)
        gpus = study.gpus_per_trial
        if gpus is None:
            gpus = 0.0 if study.device == "cpu" else None
        return Placement(study.n_jobs, gpus, address=study.ray_address)
    n_gpus = torch.cuda.device_count() if pick_device(study.device).type == "cuda" else 0
    n_jobs = min(study.n_jobs or _fitting(study.gpus_per_trial, n_gpus), study.n_trials)
    _check_load(n_jobs)
    if n_jobs == 1:
        return None
    if study.n_jobs is None and not _has_ray():
        log.warning("trials run one at a time: more need Ray (pip install 'qm9flow[cluster]')")
        return None
    _require_ray()
    return Placement(n_jobs, _share(study.gpus_per_trial, n_gpus, n_jobs))


def open_executor(placement: Placement | None, dataset: Dataset) -> Executor:
    """Who trains.

    Args:
        placement: What `place` said.
        dataset: All molecules.

    Returns:
        Slots, the first of them perhaps not ready yet.

    Raises:
        StudyError: Ray cannot be started or reached.
    """
    if placement is None:
        return InProcessExecutor(dataset)
    from qm9flow.tuning.remote import RayExecutor

    return RayExecutor(dataset, placement)


def _check_load(n_jobs: int) -> None:
    cores = usable_cores()
    most = MAX_TRIALS_A_CORE * cores
    if n_jobs > most:
        raise ConfigError(f"n_jobs is {n_jobs}, this machine has {cores} cores: at most {most}")
    if n_jobs > cores:
        log.warning("%d trials at a time share %d cores", n_jobs, cores)


def _knock(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes."""
    if "://" in address:
        raise StudyError(
            f"ray_address is {address}: the coordinator takes part in the cluster, so start it on "
            "one of its machines, with ray_address auto"
        )
    if address == "auto":
        return  # which Ray looks up at once
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"ray_address is {address!r}: it is auto, or a machine's name:port")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS):
            pass
    except (OSError, OverflowError) as error:
        raise StudyError(f"cannot use Ray at {address}: {error}") from error


def _fitting(share: float | None, n_gpus: int) -> int:
    """One trial a core, or as many as share the GPUs."""
    if not n_gpus or share == 0:
        return usable_cores()
    wanted = n_gpus / share if share else n_gpus * TRIALS_PER_GPU
    return max(1, min(math.floor(wanted), usable_cores()))


def _share(share: float | None, n_gpus: int, n_jobs: int) -> float:
    if share is None:
        # Rounded down to what Ray counts in, so that n_jobs shares fit.
        return math.floor(1e4 * min(1.0, n_gpus / n_jobs)) / 1e4
    if share > n_gpus:
        raise ConfigError(f"gpus_per_trial is {share:g}, this machine has {n_gpus} GPUs to share")
    return share


def _has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def _require_ray() -> None:
    if not _has_ray():
        raise DependencyError(
            "trials in several processes need ray, which is not installed: "
            "pip install 'qm9flow[cluster]', or set n_jobs to 1"
        )

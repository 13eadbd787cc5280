"""Slots in processes of their own, on this machine or on a cluster: Ray's actors.

Ray places workers, shares GPUs out and notices when a worker or its machine dies. It decides
nothing about trials: a lost worker is an answer like any other, and the coordinator retries.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import ray.exceptions

from qm9flow import __version__
from qm9flow.data.store import Dataset
from qm9flow.errors import StudyError
from qm9flow.training.events import Failed, FailureReason
from qm9flow.tuning.executors import (
    TRIALS_PER_GPU,
    Answer,
    Executor,
    Job,
    Placement,
    TrialEvent,
)
from qm9flow.tuning.worker import Worker

RAY_OPTIONS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "5"}
"""No telemetry. The coordinator goes first, but a worker with Ray's own niceness of 15 would starve
beside anything else on its core."""

NOISY = ("ray._private.authentication.authentication_token_setup",)
"""Loggers that warn of what is as it should be."""

ADVICE = (
    "; start this on a machine of the cluster, and if the cluster asks for a token, set "
    "RAY_AUTH_MODE=token, with the cluster's token in ~/.ray/auth_token"
)
"""What is wrong most often where a cluster was named."""

WAIT_SECONDS = 1.0
"""At most, for an answer; then the coordinator looks whether it is to stop."""

STORE_BYTES = 200 * 2**20
"""Ray's shared memory on this machine: events and checkpoints pass through it, data do not."""

MAX_FAILED_STARTS = 3
"""Workers in a row that may give up before their first answer; then the next ones would, too."""

MAX_KILLED_STARTS = 20
"""Workers in a row that may be killed before their first answer. It is no fault of theirs, and on a
busy machine, where a start takes long, it may hit several; but it must end somewhere."""

log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """A worker and what it does.

    Attributes:
        actor: Ray's handle.
        ready: Its first answer, None when that has come.
        asked: The epoch in flight.
        numbers: Trials in it.
    """

    actor: Any
    ready: Any
    asked: Any = None
    numbers: list[int] = field(default_factory=list)


class RayExecutor(Executor):
    """One actor a slot; a lost one is replaced wherever Ray finds room."""

    works_beside = True

    def __init__(self, dataset: Dataset, placement: Placement) -> None:
        """Start or join Ray, and start the workers; they get ready meanwhile.

        Args:
            dataset: All molecules. Workers on this machine open the same cache; to others that
                have none it is sent once a machine.
            placement: How many slots, and what each takes.

        Raises:
            StudyError: Ray cannot be started, the cluster does not answer, or it cannot hold a
                single slot.
        """
        _connect(placement)
        placement = self._placement = _settled(placement)
        self._digest = dataset.digest
        self._stillborn = 0
        self._home = ray.get_runtime_context().get_node_id()
        self._is_cut_off = False
        self._fetch = None if placement.address is None else _shipped(dataset)
        self._actor: Any = ray.remote(
            num_cpus=placement.threads,
            num_gpus=placement.gpus or 0.0,
            max_restarts=0,
            max_task_retries=0,
        )(Worker)
        self._slots = [self._hire() for _ in range(placement.slots or 0)]

    @property
    def placement(self) -> Placement:
        """What the slots take, with all that was left open decided."""
        return self._placement

    def _hire(self) -> _Slot:
        actor = self._actor.remote(self._digest, self._placement.threads, self._fetch)
        return _Slot(actor, actor.version.remote())

    def idle(self) -> tuple[int, ...]:
        """Slots whose worker is ready and has no trial.

        Returns:
            Their numbers.
        """
        return tuple(
            number
            for number, slot in enumerate(self._slots)
            if slot.ready is None and not slot.numbers
        )

    def start(self, slot: int, job: Job) -> None:
        """Put a job into a slot.

        Args:
            slot: Which.
            job: What to train.
        """
        here = self._slots[slot]
        assert here.ready is None, f"slot {slot} has no worker"
        assert not here.numbers, f"slot {slot} is not empty"
        here.numbers = [item.number for item in job.trials]
        here.actor.start.remote(job)

    def advance(self, slot: int) -> None:
        """Ask for an epoch.

        Args:
            slot: Which.
        """
        here = self._slots[slot]
        if here.asked is None:
            here.asked = here.actor.epoch.remote()

    def collect(self) -> list[Answer]:
        """Wait for the first answer, a second at most.

        Returns:
            All answers that are there. That of a worker which died says so for each of its trials.

        Raises:
            StudyError: One worker after another gives up or is killed before it is ready, or Ray
                has died on this machine.
        """
        waiting = {
            ref: number
            for number, slot in enumerate(self._slots)
            for ref in (slot.ready, slot.asked)
            if ref is not None
        }
        if not waiting:
            return []
        ray.wait(list(waiting), num_returns=1, timeout=WAIT_SECONDS)
        there, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        if not there:
            self._check_home()
        answers = [self._take(waiting[ref], ref) for ref in there]
        return [answer for answer in answers if answer is not None]

    def _check_home(self) -> None:
        """Notice that this machine's own daemon is gone: no answer would ever come."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if self._home not in alive:
            self._is_cut_off = True
            raise StudyError(
                "Ray's daemon on this machine has died, and its workers with it; start the study "
                "again: it goes on where it was"
            )

    def _take(self, number: int, ref: Any) -> Answer | None:
        slot = self._slots[number]
        try:
            value = ray.get(ref)
        except ray.exceptions.OutOfMemoryError as error:
            return self._lose(number, "out_of_memory", error)
        except ray.exceptions.RayError as error:
            return self._lose(number, "crash", error)
        if ref is slot.ready:
            _check_version(value)
            slot.ready, self._stillborn = None, 0
            return None
        slot.asked = None
        return Answer(number, value)

    def _lose(self, number: int, reason: FailureReason, error: Exception) -> Answer | None:
        """Put another worker in a dead one's place, and say what became of its trials."""
        slot = self._slots[number]
        with suppress(ray.exceptions.RayError):
            ray.kill(slot.actor)
        why = _first_lines(error)
        if slot.ready is not None:
            self._stillborn += 1
            gave_up = isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed
            if self._stillborn >= (MAX_FAILED_STARTS if gave_up else MAX_KILLED_STARTS):
                raise StudyError(
                    f"{self._stillborn} workers in a row died before they were ready: {why}"
                ) from error
        log.warning("the worker of slot %d is lost: %s", number, why)
        self._slots[number] = self._hire()
        if not slot.numbers:
            return None
        lost = Failed(reason, f"its worker is lost: {why}")
        return Answer(number, tuple(TrialEvent(trial, lost) for trial in slot.numbers))

    def close(self, slot: int, number: int) -> None:
        """Take a trial out of a slot.

        Args:
            slot: Which.
            number: Of the trial.
        """
        here = self._slots[slot]
        if number in here.numbers:
            here.numbers.remove(number)
            here.actor.close.remote(number)

    def shut_down(self) -> None:
        """End the workers, and Ray where it was started for them."""
        if self._is_cut_off:
            return  # Ray would end this process at once, before records are closed
        for slot in self._slots:
            with suppress(ray.exceptions.RayError):
                ray.kill(slot.actor)
        self._slots = []
        ray.shutdown()


def _connect(placement: Placement) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if placement.address is None:
        options |= {
            "address": "local",
            "num_cpus": (placement.slots or 1) * placement.threads,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
        }
    else:
        options |= {"address": placement.address}
    for name, value in RAY_OPTIONS.items():
        os.environ.setdefault(name, value)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Its daemons' remarks on lost workers go to standard output, whatever `log_to_driver` says, and
    # there is no public switch for them. What matters of them comes back as an error of the call.
    vars(ray._private.worker)["_worker_logs_enabled"] = False
    with _undisturbed():
        try:
            ray.init(**options)
        except Exception as error:  # nothing narrower where a daemon is not there in time
            where = "here" if placement.address is None else f"at {placement.address}"
            advice = "" if placement.address is None else ADVICE
            raise StudyError(f"cannot use Ray {where}: {_first_lines(error)}{advice}") from error


def _settled(placement: Placement) -> Placement:
    """Decide what depends on the machines that there are."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = placement.gpus
    if gpus is None:
        gpus = 1 / TRIALS_PER_GPU if any(item.get("GPU") for item in machines) else 0.0
    room = sum(_room(item, placement.threads, gpus) for item in machines)
    if room == 0:
        ray.shutdown()
        share = f" and {gpus:g} GPU" if gpus else ""
        raise StudyError(
            f"no machine of the cluster has what one trial takes: {placement.threads} CPU{share}"
        )
    slots = placement.slots or room
    if slots > room:
        log.warning("%d trials at a time are asked for, there is room for %d", slots, room)
    return replace(placement, slots=slots, gpus=gpus)


def _room(resources: Mapping[str, float], threads: int, gpus: float) -> int:
    """Slots that a machine holds."""
    room = int(resources.get("CPU", 0.0) / threads)
    return min(room, int(resources.get("GPU", 0.0) / gpus + 1e-6)) if gpus else room


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ray start without taking Ctrl-C and SIGTERM away from this process.

    It puts a handler of its own in SIGTERM's place and makes this process the leader of a new
    process group, which a terminal's Ctrl-C does not reach. Only this process leaves that group
    again. Ray's daemons end when this process does; where it was killed, the last of them, its
    agents, within two minutes.
    """
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}
    group = os.getpgrp()
    try:
        yield
    finally:
        if os.getpgrp() != group:
            with suppress(OSError):
                os.setpgid(0, group)
        with suppress(ValueError):  # not in the main thread, where Ray sets none either
            for name in names:
                signal.signal(name, before[name])


def _shipped(dataset: Dataset) -> Callable[[], Any]:
    """A function that gives the arrays on any machine; Ray sends them there once."""
    inside = [ray.put(dataset.arrays())]  # in a list: not fetched before it is asked for

    def fetch() -> Any:
        return ray.get(inside[0])

    return fetch


def _check_version(theirs: str) -> None:
    if theirs != __version__:
        raise StudyError(
            f"a machine of the cluster has qm9flow {theirs}, this one {__version__}: install the "
            "same everywhere"
        )


def _first_lines(error: Exception) -> str:
    """What happened, in plain words; other errors hold a whole remote traceback."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "the machine's memory ran out, and Ray ended it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ray.exceptions.RayActorError):
        if error.actor_init_failed:
            return lines[-1]  # of its traceback
        return "its process has ended, killed or with its machine"
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return f"{type(cause).__name__}: {cause}"
    return " ".join(lines[:2]) or type(error).__name__

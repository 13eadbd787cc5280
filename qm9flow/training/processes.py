"""The processes of a training that has several: one leads, the others take part in its epochs."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist

from qm9flow.config import TrainConfig
from qm9flow.cores import usable_cores
from qm9flow.data.store import Dataset, load_dataset
from qm9flow.errors import ConfigError, Qm9FlowError
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.checkpoint import unpack
from qm9flow.training.device import pick_device, thread_count
from qm9flow.training.session import Session
from qm9flow.training.start import starting_weights
from qm9flow.training.team import ALONE, MemberLostError, Members, Team

_HOST = "127.0.0.1"
_READY = "ready/"
_LOOK_SECONDS = 0.05
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Beginning:
    """What every process of a training starts from.

    Attributes:
        config: The training.
        cache: Where QM9 is kept.
        digest: Of the training, which its checkpoints carry.
        checkpoint: Where it goes on, as bytes; none starts anew.
        start: The weights that it starts from, as bytes; none means fresh ones.
    """

    config: TrainConfig
    cache: Path
    digest: str
    checkpoint: bytes | None
    start: bytes | None

    def session(self, dataset: Dataset, members: Members) -> Session:
        """The training in one process.

        Args:
            dataset: All molecules.
            members: Whom it shares the steps with.

        Returns:
            The session.

        Raises:
            CheckpointError: The checkpoint is damaged, or belongs to another training.
            ConfigError: The weights to start from are not those that the configuration names.
        """
        state = None if self.checkpoint is None else unpack(self.checkpoint, self.digest)
        weights = None if state else starting_weights(self.config, self.start)
        return Session(self.config, dataset, state, weights, members)


def threads_each(config: TrainConfig) -> int | None:
    """Threads of torch in each process.

    Args:
        config: The training.

    Returns:
        As configured; None leaves torch's choice to a process that is alone, several share it.
    """
    if config.threads is None and config.processes > 1:
        return max(1, usable_cores() // config.processes)
    return config.threads


@contextmanager
def members_of(beginning: Beginning) -> Iterator[Members]:
    """Start the other processes of a training, and end them with the block.

    Args:
        beginning: What all start from.

    Yields:
        Whom this process, the leader, shares its steps with.

    Raises:
        ConfigError: The training runs on a GPU, or this process leads another one already.
        MemberLostError: One of them ended before it took part.
    """
    config = beginning.config
    if config.processes == 1:
        yield ALONE
        return
    if pick_device(config.device).type != "cpu":
        raise ConfigError("processes share the cores of a CPU: leave it at 1 on a GPU")
    if dist.is_initialized():
        raise ConfigError(
            "this process runs a training on several processes already: leave processes at 1, or "
            "start the second one from another process"
        )
    store = dist.TCPStore(_HOST, 0, config.processes, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_take_part, args=(beginning, store.port, rank), daemon=True)
        for rank in range(1, config.processes)
    ]
    try:
        with _deaf_to_ctrl_c():
            for process in others:
                process.start()
        _wait_for(others, store)
        yield Team(store, 0, config.processes)
    finally:
        for process in others:  # they keep nothing that could be lost
            if process.pid is not None:
                process.kill()
                process.join(_END_SECONDS)
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started in the block never see Ctrl-C, which reaches all: one decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(others: Sequence[BaseProcess], store: dist.Store) -> None:
    """Wait until all are about to join; joining itself could not be interrupted."""
    while not store.check([f"{_READY}{rank}" for rank in range(1, len(others) + 1)]):
        for process in others:
            if process.exitcode is not None:
                raise MemberLostError(
                    f"a process of the training ended before it took part (exit code "
                    f"{process.exitcode})"
                )
        time.sleep(_LOOK_SECONDS)


def _take_part(beginning: Beginning, port: int, rank: int) -> None:
    """The life of a process that does not lead. It is killed, or ends when the leader is gone."""
    keep_freed_memory()
    config = beginning.config
    try:
        store = dist.TCPStore(_HOST, port, config.processes, is_master=False)
        store.set(f"{_READY}{rank}", "")
        team = Team(store, rank, config.processes)
        with thread_count(threads_each(config)):
            session = beginning.session(load_dataset(beginning.cache), team)
            while True:
                session.train_epoch()
    except (Qm9FlowError, RuntimeError):  # the leader says why: it sees the same, or is gone
        os._exit(1)

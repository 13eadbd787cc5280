"""Training as a stream of events."""

import logging
from collections.abc import Callable, Generator
from functools import partial

import torch
from torch import Tensor

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import CheckpointError, Qm9FlowError
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.checkpoint import Checkpoint, config_digest, pack, unpack
from qm9flow.training.device import (
    is_out_of_memory,
    pick_device,
    release_memory,
    reset_peak_memory,
    thread_count,
)
from qm9flow.training.events import CheckpointReady, Event, Failed
from qm9flow.training.session import DivergedError, Session
from qm9flow.training.start import named_weights, starting_weights
from qm9flow.training.task import Task
from qm9flow.training.tasks import task_of

logger = logging.getLogger(__name__)


def fit(
    config: TrainConfig,
    dataset: Dataset,
    *,
    checkpoint: bytes | None = None,
    start: bytes | None = None,
    refiner: bytes | None = None,
    wants_checkpoint: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Train, and tell about it.

    The events are `Started`, then for each epoch an `EpochEnded` and every `checkpoint_every`
    epochs, and after the last one, a `CheckpointReady`, at the end `Finished`; or, instead of
    what is left, `Failed`. Whatever goes wrong inside the training is such an event, not an
    exception. To stop early, close the generator. Nothing is written anywhere. Weights to start
    from are judged first, as epoch 0: what comes out is never worse than they are.

    The same configuration and data give the same numbers on one device with one number of
    threads, also when resumed from a checkpoint; unless `max_minutes` cuts it short. torch's
    global random numbers and number of threads are the caller's again between events. On glibc,
    the process keeps the memory that a training frees.

    Args:
        config: What to train, and how.
        dataset: All molecules.
        checkpoint: Blob of a `CheckpointReady` of the same training, to go on from there.
        start: The weights that `config.start` names, as safetensors bytes; not looked at where
            there is a checkpoint.
        refiner: The weights that `config.refiner` names, as safetensors bytes.
        wants_checkpoint: Asked after every epoch whether to give a checkpoint out of turn.

    Returns:
        The events.

    Raises:
        CheckpointError: The checkpoint is damaged, or belongs to another training.
        ConfigError: `start` or `refiner` is not what the configuration names.
    """
    digest = config_digest(config, dataset.digest)
    state = None if checkpoint is None else unpack(checkpoint, digest)
    weights = None if state else starting_weights(config, start)
    refines = named_weights(config.refiner, refiner, "refines geometries by")
    make = partial(task_of, config, dataset, refiner=refines)
    return _events(config, make, state, weights, digest, wants_checkpoint=wants_checkpoint)


def _events(
    config: TrainConfig,
    make_task: Callable[[torch.device], Task],
    state: Checkpoint | None,
    weights: dict[str, Tensor] | None,
    digest: str,
    *,
    wants_checkpoint: Callable[[], bool],
) -> Generator[Event, None, None]:
    keep_freed_memory()
    session = None
    failure = None
    try:
        with thread_count(config.threads):
            device = pick_device(config.device)
            reset_peak_memory(device)
            session = Session(config, make_task(device), device, state, weights)
        yield session.started()
        while (ending := session.ending()) is None:
            with thread_count(config.threads):
                ended = session.run_epoch()
            yield ended
            is_due = ended.epoch % config.checkpoint_every == 0 or session.ending() is not None
            if is_due or wants_checkpoint():
                yield CheckpointReady(ended.epoch, pack(session.checkpoint(), digest))
        yield session.finish(ending)
    except CheckpointError:
        raise
    except (Qm9FlowError, MemoryError, RuntimeError) as error:
        failure = _failure(error, session)
    finally:
        del session
        release_memory()
    if failure is not None:
        yield failure


def _failure(error: Exception, session: Session | None) -> Failed:
    """What an error means for a training."""
    if isinstance(error, DivergedError):
        assert session is not None
        gradients = session.monitor.summarise()
        return Failed(error.reason, str(error), gradients, session.progress.alarm)
    if isinstance(error, Qm9FlowError):
        return Failed("impossible", str(error))
    where = "before the first epoch" if session is None else f"in epoch {session.progress.epoch}"
    if is_out_of_memory(error):
        return Failed("out_of_memory", f"memory ran out {where}: {error}")
    logger.error("training crashed %s", where, exc_info=error)
    return Failed("crash", f"{type(error).__name__} {where}: {error}")

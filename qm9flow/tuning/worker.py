"""What runs in a process of its own and trains one slot's jobs; knows no store and no ray."""

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from qm9flow import __version__
from qm9flow.data.store import Dataset, load_dataset
from qm9flow.errors import CacheError, DataError
from qm9flow.tuning.executors import InProcessExecutor, Job, TrialEvent

Arrays = dict[str, npt.NDArray[np.generic]]

log = logging.getLogger(__name__)


class Worker:
    """One slot, in the process that this is made in."""

    def __init__(self, digest: str, threads: int, fetch: Callable[[], Arrays] | None) -> None:
        """Open the data.

        Args:
            digest: Of the data set that the coordinator has.
            threads: Threads inside torch's operations.
            fetch: Gives the data set's arrays where this machine has none of that digest; None
                on the coordinator's own machine.

        Raises:
            DataError: There is no such data set here, and nobody to ask for it.
        """
        torch.set_num_threads(threads)
        self._executor = InProcessExecutor(_open(digest, fetch))

    def version(self) -> str:
        """Of the qm9flow that runs here; the first answer, when everything is ready.

        Returns:
            The version.
        """
        return __version__

    def start(self, job: Job) -> None:
        """Put a job into the slot.

        Args:
            job: What to train.
        """
        self._executor.start(0, job)

    def epoch(self) -> tuple[TrialEvent, ...]:
        """Train one epoch of every trial in the slot.

        Returns:
            What the trainings said, in order.
        """
        self._executor.advance(0)
        (answer,) = self._executor.collect()
        return answer.events

    def close(self, number: int) -> None:
        """Take a trial out of the slot.

        Args:
            number: Of the trial.
        """
        self._executor.close(0, number)


def _open(digest: str, fetch: Callable[[], Arrays] | None) -> Dataset:
    """The data set by memory map, or, on another machine without it, out of what was shipped."""
    try:
        dataset = load_dataset()
        if dataset.digest == digest:
            return dataset
    except (FileNotFoundError, CacheError) as error:
        log.info("no data set here: %s", error)
    if fetch is None:
        raise DataError(
            f"the data set {digest[:12]} is gone from this machine's cache: make it again with "
            "`qm9flow data prepare`"
        )
    return Dataset.from_arrays(digest, fetch())

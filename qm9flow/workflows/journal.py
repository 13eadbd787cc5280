"""Where a long run leaves its traces: a log file, its run in MLflow, its training on record."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qm9flow.tracking.parent import StudyStatus
from qm9flow.tracking.study import StudyTracker
from qm9flow.tracking.training import TrainingTracker, TrialState
from qm9flow.training.events import EpochEnded, Event
from qm9flow.workflows.console import Console, Stopped

_log = logging.getLogger(__name__)


class _LogFile(logging.FileHandler):
    """A log file that a full disk silences: what it misses is said on the terminal as well."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Not logging's own way, a traceback for each line."""

    def close(self) -> None:
        """Close it, losing what cannot be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Keep what qm9flow logs, from INFO on, in a file as well; later starts append.

    Args:
        path: The file; its folder is made.

    Yields:
        Nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("qm9flow")
    level = logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def logged(console: Console) -> Console:
    """A console whose lines go to the log as well.

    Args:
        console: Lines for people.

    Returns:
        The same for both.
    """

    def say(text: str) -> None:
        _log.info("%s", text)
        console.say(text)

    return dataclasses.replace(console, say=say)


@contextmanager
def closing(
    tracker: StudyTracker, log: Path, console: Console, farewell: Callable[[], str]
) -> Iterator[None]:
    """End a run, whatever happens: it never stays RUNNING.

    Asked to stop, the block ends here, without an error.

    Args:
        tracker: Of the run.
        log: The log file, kept with the run.
        console: Lines for people.
        farewell: What they are told when it was asked to stop.

    Yields:
        Nothing.
    """
    status: StudyStatus = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (Stopped, KeyboardInterrupt):
        status = "KILLED"
        console.say(farewell())
    finally:
        tracker.log_artifact(log)
        tracker.finish(status)


@contextmanager
def on_record(tracker: TrainingTracker, console: Console) -> Iterator[Callable[[Event], None]]:
    """Put a training on record and tell people how it goes.

    Args:
        tracker: Of the training; ended with the block.
        console: Lines for people.

    Yields:
        What takes the training's events.
    """
    state: TrialState = "failed"

    def take(event: Event) -> None:
        tracker.log(event)
        if isinstance(event, EpochEnded):
            console.say(
                f"  epoch {event.epoch}: validation score {event.metrics['val/score']:.4f}, "
                f"{event.metrics['train/molecules_per_second']:.0f} molecules/s"
            )

    try:
        yield take
        state = "complete"
    except (Stopped, KeyboardInterrupt):
        state = "interrupted"
        raise
    finally:
        tracker.finish(state)

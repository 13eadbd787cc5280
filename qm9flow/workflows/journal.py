"""Where a long run leaves its traces: a log file, and the metrics of its final training."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import EpochEnded, Event, Finished
from qm9flow.workflows.console import Console

_log = logging.getLogger(__name__)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Keep what qm9flow logs, from INFO on, in a file as well; later starts append.

    Args:
        path: The file; its folder is made.

    Yields:
        Nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
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


class EventLog:
    """Writes a training's metrics to a run and tells people how it goes."""

    def __init__(self, tracker: StudyTracker, console: Console, prefix: str = "final/") -> None:
        """Nothing is written yet.

        Args:
            tracker: Of the run.
            console: Lines for people.
            prefix: Of the metrics' names.
        """
        self._prefix = prefix
        self._tracker = tracker
        self._console = console

    def __call__(self, event: Event) -> None:
        """Take note of an event.

        Args:
            event: What the training said.
        """
        if isinstance(event, EpochEnded):
            named = {f"{self._prefix}{name}": value for name, value in event.metrics.items()}
            self._tracker.log_metrics(named, step=event.epoch)
            self._console.say(
                f"  epoch {event.epoch}: validation score {event.metrics['val/score']:.4f}, "
                f"{event.metrics['train/molecules_per_second']:.0f} molecules/s"
            )
        elif isinstance(event, Finished):
            best = {
                f"{self._prefix}best/{name}": value for name, value in event.best_metrics.items()
            }
            self._tracker.log_metrics(best, step=event.best_epoch)
            self._tracker.set_tags({"verdict": event.verdict, "ending": event.ending})
        _log.info("training: %s", type(event).__name__)

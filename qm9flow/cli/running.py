"""Long work in the foreground: signals become a wish to stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from qm9flow.cli import extras
from qm9flow.cli.progress import progress_bar
from qm9flow.cli.show import remark, say

if TYPE_CHECKING:
    from qm9flow.workflows.console import Console

INTERRUPTED = 130
"""Exit status of work that was asked to stop, as shells give it for Ctrl-C."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag.

    Under `mlflow run`, one Ctrl-C arrives here as SIGINT and then as SIGTERM, so that signals of
    different kinds are one wish; a second Ctrl-C ends the work at once.

    Yields:
        Whether to stop at the next good moment.
    """
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number in seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not seen:
            click.echo(
                "\nStopping when what is running is done, an epoch for instance; once more ends "
                "at once, and loses it.",
                err=True,
            )
        seen.append(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def resumable(goes_on: str) -> Iterator[None]:
    """Let Ctrl-C or SIGTERM end work that may end anywhere: with a line and an exit status.

    Args:
        goes_on: How it goes on, for the line.

    Yields:
        Nothing.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        remark(f"\nInterrupted: {goes_on}")
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def foreground() -> Iterator["Console"]:
    """What a workflow needs of a terminal: lines, a progress bar, the wish to stop.

    Yields:
        The console.

    Raises:
        DependencyError: The extra `train` is not installed; hours of work would end in that.
    """
    extras.require("train")
    from qm9flow.workflows.console import Console

    with interruptible() as stop, progress_bar() as progress:
        yield Console(say=say, progress=progress, stop=stop, remark=remark)

"""Progress on standard error: bars, gone when it is no terminal, where long runs get lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

from qm9flow.bulk.meter import Meter
from qm9flow.cli.show import remark

if TYPE_CHECKING:
    from qm9flow.bulk.meter import Standing

LINE_EVERY_S = 60.0
"""Seconds between lines about a long run where there is no terminal."""


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """One bar that shows whatever is being done.

    Yields:
        A callback for library functions: what is being done, how much of it is done, how much
        there is.
    """
    with tqdm(disable=None, leave=False, bar_format="{desc}{bar} {n_fmt}/{total_fmt}") as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        yield show


@contextmanager
def row_progress() -> Iterator[Callable[["Standing"], None]]:
    """How far a bulk run is: a bar on a terminal, elsewhere a line now and then.

    Yields:
        A callback for how far it is.
    """
    with tqdm(total=1.0, disable=None, leave=False, bar_format="{bar:20} {desc}") as bar:
        said = time.monotonic()

        def show(standing: "Standing") -> None:
            nonlocal said
            if not bar.disable:
                bar.set_description_str(standing.text, refresh=False)
                bar.n = standing.fraction or 0.0
                bar.refresh()
            elif time.monotonic() - said >= LINE_EVERY_S:
                said = time.monotonic()
                remark(standing.text)

        yield show


@contextmanager
def long_progress() -> Iterator[Callable[[str, int, int], None]]:
    """How far hours of work are, with rate and time left: shown as `row_progress` does.

    Yields:
        A callback for library functions: what is counted, how much of it is done, how much there
        is. The first call is where the work begins.
    """
    meter: Meter | None = None
    with row_progress() as show:

        def tell(what: str, done: int, total: int) -> None:
            nonlocal meter
            meter = meter or Meter(total, show, noun=what)
            meter.tell(done)

        yield tell

"""Progress bars on standard error, gone when it is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


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

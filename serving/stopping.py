"""The end of a process: told to stop, it says so at once, and ends a little later.

Between the two it goes on answering, so that a load balancer can take note before connections are
refused; what was accepted until then is answered before the process ends.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

_TOLD = (signal.SIGTERM, signal.SIGINT)


def on_stop(tell: Callable[[], None], linger_s: float) -> None:
    """Stand before the server's own handlers of signals.

    Does nothing outside a process's main thread, where there are none.

    Args:
        tell: Called when the process is told to stop, at once.
        linger_s: Seconds before the server is told; a second one of the same kind is
            passed on at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in _TOLD:
        _stand_before(number, tell, linger_s, loop)


def _stand_before(
    number: signal.Signals,
    tell: Callable[[], None],
    linger_s: float,
    loop: asyncio.AbstractEventLoop,
) -> None:
    before = signal.getsignal(number)
    if not callable(before):
        return
    pass_on = before
    has_been_told = False

    def handle(got: int, frame: FrameType | None) -> None:
        nonlocal has_been_told
        is_first, has_been_told = not has_been_told, True
        tell()
        if is_first and linger_s > 0:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(loop.call_later, linger_s, pass_on, got, None)
                return
        pass_on(got, frame)

    signal.signal(number, handle)

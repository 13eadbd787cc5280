"""How much is under way, and when it is too much."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import anyio

from qm9flow.config import ServeConfig
from serving.requests import RequestError

_LONGEST_RETRY_S = 60
_WEIGHT = 0.1
"""Of the last request in the running mean."""


class Load:
    """Requests and bytes under way in one event loop.

    Attributes:
        requests: Under way or waiting.
        limiter: Threads that requests may have at a time.
    """

    def __init__(self, settings: ServeConfig) -> None:
        """Nothing is under way.

        Args:
            settings: With the limits.
        """
        self._settings = settings
        self._bytes = 0
        self._mean_s = 1.0
        self.requests = 0
        self.limiter = anyio.CapacityLimiter(settings.max_requests)

    def refuse_if_full(self) -> None:
        """Refuse another request while too many are under way.

        Raises:
            RequestError: 503, with the time after which trying again makes sense.
        """
        if self.requests >= self._settings.max_requests:
            raise self._busy("too many requests are waiting: try again")

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request until the block is left.

        Raises:
            RequestError: There are too many.
        """
        self.refuse_if_full()
        started = time.monotonic()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self._mean_s += _WEIGHT * (time.monotonic() - started - self._mean_s)

    @contextlib.contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes of a body until the block is left.

        Yields:
            What is to be told of each part, before it is kept; raises a RequestError when all
            bodies together would be too large.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._bytes + size > self._settings.max_waiting_bytes:
                raise self._busy("the bodies of waiting requests fill the memory: try again")
            held += size
            self._bytes += size

        try:
            yield hold
        finally:
            self._bytes -= held

    def _busy(self, message: str) -> RequestError:
        """As long as a request took lately: by then most of those under way have ended."""
        seconds = min(max(1, math.ceil(self._mean_s)), _LONGEST_RETRY_S)
        return RequestError(503, "busy", message, seconds)

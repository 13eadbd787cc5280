"""Work of many requests at a time: batches bounded by cost, fair to each request, cut off in time.

A batch is made when something is free to compute it: on an idle service a request starts at once
and alone, and what arrives while a batch is computed forms the next one. So nobody waits for a
batch to fill, and batches grow exactly as far as the load does, up to a bound.

BentoML's own batching is not used. It counts items, where memory and time of a network follow from
pairs of atoms: 100 waters are nothing, 100 molecules of 200 atoms fill a machine. One exception in
it fails every request of the batch. And it works off requests in the order of their coming, so that
one of a thousand molecules keeps all others waiting.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

logger = logging.getLogger("bentoml.qm9flow")

In = TypeVar("In")
Out = TypeVar("Out")


class CallOverError(Exception):
    """Nobody waits for the answer any more, or it comes too late."""


class Call:
    """How long an answer is wanted.

    Attributes:
        until: On the monotonic clock, when it comes too late.
    """

    def __init__(self, seconds: float) -> None:
        """A call that begins now.

        Args:
            seconds: How long its caller waits.
        """
        self.until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._waiting: list[threading.Event] = []
        self._is_given_up = False

    @property
    def is_given_up(self) -> bool:
        """Whether its caller has gone."""
        return self._is_given_up

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._is_given_up or time.monotonic() >= self.until

    @property
    def seconds_left(self) -> float:
        """How long its caller will wait; 0 if nobody waits any more."""
        return 0.0 if self._is_given_up else max(0.0, self.until - time.monotonic())

    def give_up(self) -> None:
        """Nobody wants the answer: what was not computed yet never will be."""
        with self._lock:
            self._is_given_up = True
            for event in self._waiting:
                event.set()

    def wait_for(self, event: threading.Event, seconds: float) -> None:
        """Wait for something, no longer than the answer is wanted.

        Args:
            event: What to wait for.
            seconds: At most.
        """
        with self._lock:
            if self._is_given_up:
                return
            self._waiting.append(event)
        event.wait(min(seconds, self.seconds_left))
        with self._lock:
            self._waiting.remove(event)


class _Ticket(Generic[In, Out]):
    """The items of one request that wait or are worked on."""

    def __init__(self, items: Sequence[In], costs: Sequence[int], call: Call, until: float) -> None:
        # Cheap ones first: molecules of a batch are then of similar size.
        order = sorted(range(len(items)), key=costs.__getitem__)
        self.pending = deque((index, items[index], costs[index]) for index in order)
        self.results: list[Out | None] = [None] * len(items)
        self.done = threading.Event()
        self.since = time.monotonic()
        self._left = len(items)
        self._call = call
        self._until = until

    @property
    def is_over(self) -> bool:
        return self._call.is_over or time.monotonic() >= self._until

    def settle(self, index: int, result: "Out | None") -> None:
        """Called by one lane at a time, under the lock."""
        self.results[index] = result
        self._left -= 1
        if self._left == 0:
            self.done.set()


@dataclass(frozen=True)
class Batch:
    """What is known of a batch that was worked on.

    Attributes:
        items: How many it has.
        cost: What they cost together.
        waited_s: How long its longest-waiting item had waited, seconds.
    """

    items: int
    cost: int
    waited_s: float


@dataclass(frozen=True)
class _Part(Generic[In, Out]):
    """One item of a batch, and where its result belongs."""

    ticket: _Ticket[In, Out]
    index: int
    item: In
    cost: int


class Batcher(Generic[In, Out]):
    """One line of work, in which all requests take turns item by item.

    Safe to use from any number of threads, each of which waits for its own results.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[In]], Sequence[Out]],
        *,
        cost: Callable[[In], int] = lambda item: 1,
        budget: int = 1,
        lanes: int = 1,
        observe: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        """Start its lanes.

        Args:
            name: For threads and logs.
            work: Makes one result of each item, in order. It should never raise: the items of a
                batch for which it does have no result.
            cost: Of an item.
            budget: Most cost of a batch of several items; an item that costs more goes alone.
            lanes: Batches worked on at a time.
            observe: Told of every batch; what it raises is logged.
        """
        self._name = name
        self._work = work
        self._cost = cost
        self._budget = budget
        self._observe = observe
        self._turns: deque[_Ticket[In, Out]] = deque()
        self._ready = threading.Condition()
        self._is_closed = False
        self._lanes = [
            threading.Thread(target=self._lane, name=f"{name}-{number}", daemon=True)
            for number in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    def run(self, items: Sequence[In], call: Call, seconds: float = 1e6) -> list[Out | None]:
        """Have items worked on, and wait.

        Args:
            items: Any number.
            call: Says how long the results are wanted.
            seconds: How long they may take at most.

        Returns:
            One result an item, in order; None for those that were not done in time, or on which
            the work broke down.
        """
        if not items:
            return []
        costs = [self._cost(item) for item in items]
        ticket: _Ticket[In, Out] = _Ticket(items, costs, call, time.monotonic() + seconds)
        with self._ready:
            if self._is_closed:
                return ticket.results
            self._turns.append(ticket)
            self._ready.notify(len(items))
        call.wait_for(ticket.done, seconds)
        with self._ready:
            ticket.pending.clear()
            return list(ticket.results)

    @property
    def waiting(self) -> int:
        """Items that wait."""
        with self._ready:
            return sum(len(ticket.pending) for ticket in self._turns)

    def stop(self) -> None:
        """Begin nothing any more; what waits has no results."""
        with self._ready:
            self._is_closed = True
            for ticket in self._turns:
                ticket.pending.clear()
                ticket.done.set()
            self._ready.notify_all()

    def close(self) -> None:
        """Stop, and wait for the lanes to end."""
        self.stop()
        for lane in self._lanes:
            lane.join()

    def _lane(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            results = self._results(batch)
            with self._ready:
                for part, result in zip(batch, results, strict=True):
                    part.ticket.settle(part.index, result)
            self._tell(batch, began)

    def _tell(self, batch: Sequence[_Part[In, Out]], began: float) -> None:
        """A metric that cannot be written must not end the lane."""
        waited = max(began - part.ticket.since for part in batch)
        try:
            self._observe(Batch(len(batch), sum(part.cost for part in batch), waited))
        except Exception:
            logger.exception("%s: a batch could not be observed", self._name)

    def _results(self, batch: Sequence[_Part[In, Out]]) -> Sequence[Out | None]:
        try:
            return self._work([part.item for part in batch])
        except Exception:
            logger.exception("%s broke down on a batch", self._name)
            return [None] * len(batch)

    def _next(self) -> list[_Part[In, Out]]:
        """The next batch, once there is one; none when there will never be any."""
        with self._ready:
            while True:
                if batch := self._gather():
                    return batch
                if self._is_closed:
                    return []
                self._ready.wait()

    def _gather(self) -> list[_Part[In, Out]]:
        """Half a batch from the oldest request, the rest one item from each request in turn.

        By turns alone, requests of one size would all end at once: then all answers are written and
        all new requests read while no lane has work.
        """
        batch: list[_Part[In, Out]] = []
        self._turns = deque(item for item in self._turns if item.pending and not item.is_over)
        if not self._turns:
            return batch
        oldest = min(self._turns, key=lambda ticket: ticket.since)
        half, left = self._budget // 2, self._budget
        while oldest.pending and oldest.pending[0][2] <= half:
            cost = self._take(oldest, batch)
            half, left = half - cost, left - cost
        if batch and self._turns[0] is oldest:  # that was its turn
            self._turns.rotate(-1)
        while self._turns:
            ticket = self._turns[0]
            if ticket.pending:
                if batch and ticket.pending[0][2] > left:
                    break
                left -= self._take(ticket, batch)
                self._turns.rotate(-1)
            else:
                self._turns.popleft()
        return batch

    @staticmethod
    def _take(ticket: _Ticket[In, Out], batch: list[_Part[In, Out]]) -> int:
        """Move a request's next item into a batch; gives its cost."""
        index, item, cost = ticket.pending.popleft()
        batch.append(_Part(ticket, index, item, cost))
        return cost

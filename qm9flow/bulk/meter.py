"""How far a run is, how fast, and how long it will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        rows: Rows done, those of earlier runs included.
        total: Rows of the file; None for a pipe, whose rows cannot be counted beforehand.
        rate: Rows a second since this run began; None before there are any.
        seconds_left: None where it cannot be told yet.
        noun: What is counted.
    """

    rows: int
    total: int | None
    rate: float | None
    seconds_left: float | None
    noun: str = "rows"

    @property
    def fraction(self) -> float | None:
        """Share of the file done, 0 to 1; None for a pipe."""
        return self.rows / self.total if self.total else None

    @property
    def text(self) -> str:
        """For people, in one line."""
        of = "" if self.total is None else f" of {self.total:,}"
        share = "" if self.fraction is None else f" ({self.fraction:.0%})"
        parts = [f"{self.rows:,}{of} {self.noun}{share}"]
        if self.rate is not None:
            digits = 1 if self.rate < 100 else 0
            parts.append(f"{self.rate:,.{digits}f} {self.noun}/s")
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


Show = Callable[[Standing], None]


class Meter:
    """Turns counts into standings, and shows them."""

    def __init__(self, total: int | None, show: Show | None = None, *, noun: str = "rows") -> None:
        """Show nothing yet.

        Args:
            total: Rows of the file; None if unknown.
            show: Called with each standing.
            noun: What is counted.
        """
        self._total = total
        self._show = show
        self._noun = noun
        self._began: tuple[float, int] | None = None

    def tell(self, rows: int) -> None:
        """Note how far the run is; the first call is where it begins.

        Args:
            rows: Rows done.
        """
        now = time.monotonic()
        if self._began is None:
            self._began = now, rows
        elapsed, gained = now - self._began[0], rows - self._began[1]
        rate = gained / elapsed if gained and elapsed > 0 else None
        left = (self._total - rows) / rate if rate and self._total is not None else None
        if self._show is not None:
            self._show(Standing(rows, self._total, rate, left, self._noun))


def duration(seconds: float) -> str:
    """A time for people.

    Args:
        seconds: How long.

    Returns:
        Such as `40 s`, `12 min`, `3 h 20 min`.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"

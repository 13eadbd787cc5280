"""What a single parameter of a search space may be."""

from dataclasses import dataclass

from qm9flow.errors import ConfigError

Value = int | float | str | bool


@dataclass(frozen=True)
class IntRange:
    """Whole numbers between two bounds, both included.

    Attributes:
        low: Smallest.
        high: Largest.
        log: Whether they are drawn evenly on a logarithmic scale.
        grid: The values that the grid search visits.
    """

    low: int
    high: int
    log: bool = False
    grid: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_range(self)


@dataclass(frozen=True)
class FloatRange:
    """Numbers between two bounds.

    Attributes:
        low: Smallest.
        high: Largest.
        log: Whether they are drawn evenly on a logarithmic scale.
        grid: The values that the grid search visits.
    """

    low: float
    high: float
    log: bool = False
    grid: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_range(self)


@dataclass(frozen=True)
class Choice:
    """One of a few values without an order; the grid search visits all of them.

    Attributes:
        options: The values.
    """

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(set(self.options)) < len(self.options) or not self.options:
            raise ConfigError(f"a choice needs distinct options, got {self.options}")

    @property
    def grid(self) -> tuple[Value, ...]:
        """The values that the grid search visits."""
        return self.options


Parameter = IntRange | FloatRange | Choice


def _check_range(range_: IntRange | FloatRange) -> None:
    if not range_.low < range_.high:
        raise ConfigError(f"a range needs low below high, got {range_.low} and {range_.high}")
    if range_.log and range_.low <= 0:
        raise ConfigError(f"a logarithmic range needs bounds above 0, got {range_.low}")
    outside = [value for value in range_.grid if not range_.low <= value <= range_.high]
    if outside or len(set(range_.grid)) < len(range_.grid):
        raise ConfigError(
            f"grid points must be distinct and lie between {range_.low} and {range_.high}, "
            f"got {range_.grid}"
        )


def contains(parameter: Parameter, value: Value) -> bool:
    """Whether a value lies in a parameter's range.

    Args:
        parameter: The range.
        value: Of the right type, too: 8.0 is no whole number.

    Returns:
        True if it does.
    """
    if isinstance(parameter, Choice):
        return value in parameter.options
    if isinstance(value, str | bool):
        return False
    if isinstance(parameter, IntRange) and not isinstance(value, int):
        return False
    return parameter.low <= value <= parameter.high

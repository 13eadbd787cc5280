"""Rows of results as people read them: in a terminal, in a document."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def number(value: float | None, digits: int = 4) -> str:
    """A number without an exponent where people read numbers: 0.0312, 1234, 2.1e-06.

    Args:
        value: Any number; None is a dash.
        digits: Significant ones.

    Returns:
        The text.
    """
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(decimals, 0)}f}"


def percent(share: float) -> str:
    """A share as people write it.

    Args:
        share: 0 to 1.

    Returns:
        Whole percents; `<1%` of what is there but less, `0` of nothing.
    """
    if share <= 0:
        return "0"
    return "<1%" if share < 0.005 else f"{share:.0%}"


def counted(number: int, noun: str, many: str | None = None) -> str:
    """A number with its noun.

    Args:
        number: How many.
        noun: Of one.
        many: Of several; none means with an s behind it.

    Returns:
        `1 trial`, `1,800 trials`.
    """
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def aligned(rows: Rows) -> str:
    """Rows for a terminal.

    Args:
        rows: At least one, all with the same keys, which are the header.

    Returns:
        Columns with two blanks between them; numbers to the right, texts to the left.
    """
    cells, is_number = _cells(rows)
    widths = [max(len(line[i]) for line in cells) for i in range(len(is_number))]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def markdown(rows: Rows) -> str:
    """Rows for a document.

    Args:
        rows: At least one, all with the same keys, which are the header.

    Returns:
        A markdown table.
    """
    cells, is_number = _cells(rows)
    rule = ["---:" if right else "---" for right in is_number]
    escaped = [[text.replace("|", "\\|") for text in line] for line in cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in [escaped[0], rule, *escaped[1:]])


def _cells(rows: Rows) -> tuple[list[list[str]], list[bool]]:
    """All texts, header first, and which columns hold numbers."""
    names = list(rows[0])
    body = [[_shown(row[name]) for name in names] for row in rows]
    is_number = [all(map(_is_number, column)) for column in zip(*body, strict=True)]
    return [names, *body], is_number


def _is_number(text: str) -> bool:
    try:
        return text == "-" or float(text.replace(",", "")) is not None
    except ValueError:
        return False


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float | None) else str(value)

"""A table of results in the forms that readers want."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def to_mlflow(rows: Rows) -> str:
    """The form that MLflow's table view reads (pandas' `split` orientation).

    Args:
        rows: All with the same keys.

    Returns:
        JSON; numbers that are not finite become null.
    """
    columns = list(rows[0]) if rows else []
    data = [[_plain(row[name]) for name in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data})


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(rows: Rows) -> str:
    """Comma-separated values with a header.

    Args:
        rows: All with the same keys.

    Returns:
        The text; what is missing is empty.
    """
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def to_markdown(rows: Rows) -> str:
    """A table for people: four digits, numbers to the right.

    Args:
        rows: All with the same keys.

    Returns:
        Markdown.
    """
    if not rows:
        return "(no rows)\n"
    columns = list(rows[0])
    cells = [[_shown(row[name]) for name in columns] for row in rows]
    is_number = [all(isinstance(row[name], int | float | None) for row in rows) for name in columns]
    widths = [
        max(3, len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(columns)
    ]

    def line(texts: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, is_number, strict=True)
        ]
        return "| " + " | ".join(padded) + " |\n"

    rule = "".join(
        "|" + "-" * (width + 1) + (":" if right else "-")
        for width, right in zip(widths, is_number, strict=True)
    )
    return line(columns) + rule + "|\n" + "".join(map(line, cells))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|")

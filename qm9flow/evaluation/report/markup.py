"""Small pieces of HTML; every text that comes from outside is escaped here."""

import base64
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qm9flow.evaluation.report.interactive import Plot

NOTHING = "&ndash;"
"""Stands where there is no value."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        markup: Its content, escaped.
        is_number: Whether it stands at the right.
        kind: A class of the style sheet, or none.
    """

    markup: str
    is_number: bool = False
    kind: str = ""


def text(value: Any) -> str:
    """Any value as text.

    Args:
        value: Anything.

    Returns:
        Its text, escaped, also for attributes.
    """
    return html.escape(str(value))


def missing(reason: str) -> str:
    """A part that is not there.

    Args:
        reason: Why.

    Returns:
        A box that says so.
    """
    return f'<p class="missing">{text(reason[:1].upper() + reason[1:])}.</p>'


def fine(text_: str) -> str:
    """A part that is not there because all is well.

    Args:
        text_: What is well.

    Returns:
        A box that says so.
    """
    return f'<p class="missing fine">{text(text_[:1].upper() + text_[1:])}.</p>'


def section(name: str, title: str, lead: str, *parts: str) -> str:
    """A part of the page.

    Args:
        name: What links lead to.
        title: Over it.
        lead: What it shows, as markup; may be empty.
        parts: What follows, as markup.

    Returns:
        The section.
    """
    under = f'<p class="lead">{lead}</p>' if lead else ""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n{under}\n{body}\n</section>'


def run_link(run_id: str | None, url: str | None) -> str:
    """A run of MLflow: a link where it is a server, else the run's id to look for.

    Args:
        run_id: The run; None or empty if there is none.
        url: MLflow's page of it.

    Returns:
        Markup.
    """
    if not run_id:
        return NOTHING
    if url is None:
        return f'<code class="id" title="{text(run_id)}">{text(run_id)}</code>'
    return f'<a href="{text(url)}" title="{text(run_id)}"><code>{text(run_id[:8])}</code></a>'


def picture(content: bytes, title: str, *, min_width: int, note: str = "") -> str:
    """A picture that is part of the page.

    Args:
        content: PNG.
        title: For those who do not see it.
        min_width: Pixels below which it is scrolled, not squeezed.
        note: Under it.

    Returns:
        The figure.
    """
    data = base64.b64encode(content).decode()
    under = f"<figcaption>{text(note)}</figcaption>" if note else ""
    return (
        f'<figure><div class="scroll" style="--min:{min_width}px">'
        f'<img alt="{text(title)}" src="data:image/png;base64,{data}"></div>{under}</figure>'
    )


def plot(item: Plot) -> str:
    """An interactive figure, drawn when it comes near the window.

    Args:
        item: The figure.

    Returns:
        Its place with what plotly needs.
    """
    label = f'<p class="plot-name">{text(item.label)}</p>' if item.label else ""
    style = f"--height:{item.height}px;--min:{item.min_width}px"
    return (
        f'<div>{label}<div class="scroll"><div class="plot" style="{style}">'
        f"{data_script(item.figure.to_json())}</div></div></div>"
    )


def data_script(content: str, name: str = "") -> str:
    """JSON that is part of the page.

    Args:
        content: JSON.
        name: Its id, if it has one.

    Returns:
        A script element that runs nothing and that no text inside can close.
    """
    known = f' id="{name}"' if name else ""
    harmless = content.replace("<", "\\u003c")
    return f'<script type="application/json"{known}>{harmless}</script>'


def json_script(value: Any, name: str) -> str:
    """Plain values as `data_script`.

    Args:
        value: JSON values.
        name: Its id.

    Returns:
        The element.
    """
    return data_script(json.dumps(value, separators=(",", ":")), name)


def bars(rows: Iterable[tuple[str, float, str, str]]) -> str:
    """Bars of a share each.

    Args:
        rows: Name, share of the longest bar (0 to 1), what stands beside the bar, colour.

    Returns:
        The bars.
    """
    lines = "".join(
        f'<span>{text(name)}</span><span class="bar" style="--share:{share:.4f};--colour:{colour}">'
        f"<i></i>{text(beside)}</span>"
        for name, share, beside, colour in rows
    )
    return f'<div class="bars">{lines}</div>'


def table(head: Sequence[Cell], rows: Iterable[tuple[str, Sequence[Cell]]], kind: str = "") -> str:
    """A table that is scrolled where it is too wide.

    Args:
        head: Names of the columns.
        rows: A class of the style sheet (or none) and the cells, row by row.
        kind: A class of the style sheet for all of it, or none.

    Returns:
        The table.
    """
    top = "".join(_cell(cell, "th") for cell in head)
    body = "\n".join(
        f'<tr class="{of_row}">{"".join(_cell(cell, "td") for cell in cells)}</tr>'
        for of_row, cells in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def _cell(cell: Cell, element: str) -> str:
    kinds = " ".join(kind for kind in ("n" if cell.is_number else "", cell.kind) if kind)
    given = f' class="{kinds}"' if kinds else ""
    return f"<{element}{given}>{cell.markup}</{element}>"

"""What is written of a prediction: names, kinds and values of columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Literal

from qm9flow import properties
from qm9flow.errors import MoleculeError
from qm9flow.inference.prediction import Prediction

Kind = Literal["text", "number", "count", "truth"]
Value = str | float | int | bool | None

PREFIX = "qm9flow_"
"""Before a column of ours whose name the input has already."""


@dataclass(frozen=True)
class Column:
    """One column of the output.

    Attributes:
        name: Unique among those of a file.
        kind: What its values are.
        unit: Of a number; empty where it has none.
        family: What it belongs to, such as a target with both ends of its interval; empty for one
            that stands by itself.
    """

    name: str
    kind: Kind = "text"
    unit: str = ""
    family: str = ""


@dataclass(frozen=True)
class ModelName:
    """What is said of the model with each prediction.

    Attributes:
        name: Of the registered model.
        version: Its number, `pretrained`, or nothing for a folder.
        digest: Of the bundle; the same for the same model only.
    """

    name: str
    version: str
    digest: str


def own_columns(targets: Sequence[str], level: float | None) -> list[Column]:
    """The columns of a prediction.

    Args:
        targets: Names of targets, in order.
        level: Of the model's intervals; None for a model without any.

    Returns:
        For each target its value, and where there is a level both ends of its interval; then what
        the answer says beside values; then the model.
    """
    found = []
    for target in targets:
        unit = properties.get(target).unit
        ends = ("", "_low", "_high") if level is not None else ("",)
        found += [Column(target + end, "number", unit, target) for end in ends]
    return [
        *found,
        Column("in_domain", "truth", family="domain"),
        Column("domain_score", "number", family="domain"),
        Column("geometry"),
        Column("conformers", "count"),
        Column("warnings"),
        Column("error_code", family="error"),
        Column("error", family="error"),
        Column("model", family="model"),
        Column("version", family="model"),
    ]


def own_values(
    result: Prediction | MoleculeError,
    targets: Sequence[str],
    level: float | None,
    model: ModelName,
    remarks: Sequence[str] = (),
) -> list[Value]:
    """The values of `own_columns` for one molecule.

    Args:
        result: Its prediction, or why there is none.
        targets: As in `own_columns`.
        level: As in `own_columns`.
        model: What predicted it.
        remarks: Further warnings.

    Returns:
        One value a column; None where there is none.
    """
    identity: list[Value] = [model.name, model.version or None]
    if isinstance(result, MoleculeError):
        width = len(targets) * (1 if level is None else 3)
        warned: Value = "; ".join(remarks) or None
        empty: list[Value] = [None] * (width + 4)
        return [*empty, warned, result.code, str(result), *identity]
    found: list[Value] = []
    for target in targets:
        found.append(result.values[target])
        if level is not None:
            found += result.intervals.get(target) or (None, None)
    warnings = "; ".join((*result.warnings, *remarks)) or None
    domain = result.domain
    said: list[Value] = [domain.is_inside, domain.score, result.geometry, result.conformers]
    return [*found, *said, warnings, None, None, *identity]


def named(inputs: Sequence[str], own: Sequence[Column]) -> list[Column]:
    """All columns of the output, each with a name of its own.

    The input's columns come first and keep their names, but for one without any, which is called
    `column_3` by its place, and for one whose name stood before, which gets `_2` behind it (or the
    next free number). A column of ours whose name is taken, in whatever case, gets `PREFIX` before
    it, and so do those of its family: an interval never stands as if it were that of the input's
    value.

    Args:
        inputs: Names of the input's columns.
        own: Ours.

    Returns:
        The input's columns, then ours.
    """
    taken: set[str] = set()
    given = {name for name in inputs if name}
    found = []
    for place, name in enumerate(inputs, start=1):
        wanted = name or f"column_{place}"
        is_first = bool(name) and name not in taken
        found.append(Column(wanted if is_first else _free(wanted, taken | given)))
        taken.add(found[-1].name)
    return [*found, *_own_named(own, {name.casefold() for name in taken})]


def _own_named(own: Sequence[Column], taken: set[str]) -> Iterator[Column]:
    """Our columns, those of a family under one form of names, of which none is taken."""
    families: dict[str, list[str]] = {}
    for column in own:
        families.setdefault(column.family or column.name, []).append(column.name)
    forms = {family: _free_form(names, taken) for family, names in families.items()}
    for column in own:
        yield replace(column, name=forms[column.family or column.name].format(column.name))


def _free_form(names: Sequence[str], taken: set[str]) -> str:
    forms = chain(["{}", PREFIX + "{}"], (f"{PREFIX}{{}}_{number}" for number in count(2)))
    return next(form for form in forms if taken.isdisjoint(map(form.format, names)))


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free

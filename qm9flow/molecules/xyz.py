"""Molecules from XYZ texts, extended ones and QM9's own among them, and back."""

import re

from qm9flow.elements import NUMBER_OF, NUMBERS, SYMBOL_OF
from qm9flow.errors import (
    ChargedError,
    EmptyMoleculeError,
    NonFiniteError,
    TooLargeError,
    UnreadableError,
    UnsupportedElementError,
)
from qm9flow.molecules.arrays import from_arrays
from qm9flow.molecules.given import KNOWN, require_text, shown
from qm9flow.molecules.molecule import Geometry, Molecule
from qm9flow.molecules.pool import MAX_ATOMS

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)((?:[eEdD]|\*\^)[+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE | re.ASCII)
_ATOM = re.compile(r"([A-Za-z]{1,3})\d*", re.ASCII)
_ROUNDED_CHARGE = 0.01
"""How far the sum of computed charges of atoms may be from a whole number."""

_CHARGE = re.compile(
    r"\b(?:(?:total|net|formal)_)?charge\s*=\s*[\"']?([+-]?\d{1,4}(?:\.\d*)?)(?!\w)",
    re.IGNORECASE | re.ASCII,
)
_PROPERTIES = re.compile(r"\bproperties\s*=\s*\"?(\S+)", re.IGNORECASE | re.ASCII)


def from_xyz(text: str, geometry: Geometry = "dft", max_atoms: int = MAX_ATOMS) -> Molecule:
    """A molecule from an XYZ text.

    Read are: the number of atoms, a comment, then `symbol x y z` a line, in angstrom. The number
    and the comment may be left out together, the comment alone too. Columns behind z are ignored,
    as is what follows the atoms in QM9's own files (`gdb` comment). `Properties` in an extended
    comment may give another order of columns. Exponents may be written with E, D or *^. A net
    charge in the comment (`charge`, or that with `total_`, `net_` or `formal_` before) is refused.

    Args:
        text: One molecule.
        geometry: Where the coordinates come from.
        max_atoms: Most atoms allowed.

    Returns:
        The molecule, named by its comment.

    Raises:
        MoleculeError: It cannot be read, or is a molecule that is refused.
    """
    lines = re.split(r"\r\n|\r|\n", require_text(text, "an XYZ text"))
    first, lines = _skip_blank(lines)
    if not lines:
        raise EmptyMoleculeError("the XYZ text is empty")
    comment, start, count = _head(lines, first)
    columns = _columns(comment, first + 2)
    if count > max_atoms:
        raise TooLargeError(f"the molecule has {count} atoms; the limit is {max_atoms}")
    numbers, positions = [], []
    for atom in range(count):
        where = f"line {first + start + atom + 1}, atom {atom + 1}"
        number, position = _atom(lines[start + atom], where, columns)
        numbers.append(number)
        positions.append(position)
    name = "" if "=" in comment else comment.strip()[:80]
    return from_arrays(numbers, positions, geometry, max_atoms=max_atoms, name=name)


def to_xyz(molecule: Molecule) -> str:
    """A molecule as an XYZ text.

    Args:
        molecule: Any.

    Returns:
        The text, without a comment.
    """
    lines = [
        f"{SYMBOL_OF[number]} {x:.6f} {y:.6f} {z:.6f}"
        for number, (x, y, z) in zip(
            molecule.numbers.tolist(), molecule.positions.tolist(), strict=True
        )
    ]
    return "\n".join([str(len(lines)), "", *lines, ""])


def _skip_blank(lines: list[str]) -> tuple[int, list[str]]:
    """How many lines at the start are blank, and the lines without blank ones at either end."""
    start, end = 0, len(lines)
    while start < end and not lines[start].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return start, lines[start:end]


def _count(line: str) -> int | None:
    """The number of atoms, where a line holds nothing else."""
    return int(line) if re.fullmatch(r"\s*\d{1,9}\s*", line, re.ASCII) else None


def _is_atom(line: str) -> bool:
    words = line.split()
    return len(words) >= 4 and all(_NUMBER.fullmatch(word) for word in words[1:4])


def _head(lines: list[str], first: int) -> tuple[str, int, int]:
    """The comment, the index of the first atom's line, the number of atoms."""
    count = _count(lines[0])
    if count is None:
        if not _is_atom(lines[0]) and len(lines[0].split()) != 4:
            raise UnreadableError(
                f"line {first + 1}: expected the number of atoms, or `symbol x y z`, got "
                f"{shown(lines[0])}"
            )
        return "", 0, len(lines)
    if count == 0:
        raise EmptyMoleculeError(f"line {first + 1}: the number of atoms is 0: give at least one")
    if len(lines) == count + 1 and _is_atom(lines[1]):
        return "", 1, count
    comment = lines[1] if len(lines) > 1 else ""
    if len(lines) < count + 2:
        raise UnreadableError(
            f"line {first + 1} announces {count} atoms, but only {max(len(lines) - 2, 0)} lines "
            "follow the comment"
        )
    if len(lines) > count + 2 and not comment.startswith("gdb"):
        raise UnreadableError(
            f"line {first + count + 3}: expected the end after {count} atoms, got "
            f"{shown(lines[count + 2])}; give one molecule at a time"
        )
    _refuse_comment(comment, first + 2)
    return comment, 2, count


def _refuse_comment(comment: str, line: int) -> None:
    """Refuse what an extended XYZ comment says and we would otherwise overlook."""
    found = _CHARGE.search(comment)
    charge = float(found[1]) if found else 0.0
    if abs(charge) > _ROUNDED_CHARGE:
        near = round(charge)
        said = f"{near:+d}" if abs(charge - near) <= _ROUNDED_CHARGE else f"{charge:+g}"
        raise ChargedError(
            f"line {line}: the molecule has the net charge {said}: QM9 holds only molecules "
            "without net charge"
        )


def _columns(comment: str, line: int) -> tuple[int, int]:
    """Which word of an atom's line is its symbol, and which is its x."""
    found = _PROPERTIES.search(comment)
    if found is None:
        return 0, 1
    parts = found[1].rstrip('"').lower().split(":")
    names, widths = parts[::3], parts[2::3]
    places: dict[str, int] = {}
    place = 0
    for name, width in zip(names, widths, strict=False):
        places.setdefault(f"{name}:{width}", place)
        place += int(width) if re.fullmatch(r"[1-9]\d{0,2}", width, re.ASCII) else 1
    symbol = places.get("species:1", places.get("z:1"))
    if symbol is None or "pos:3" not in places:
        raise UnreadableError(
            f"line {line}: Properties must name the columns species:S:1 and pos:R:3, got "
            f"{shown(found[1])}"
        )
    return symbol, places["pos:3"]


def _atom(line: str, where: str, columns: tuple[int, int]) -> tuple[int, list[float]]:
    words = line.split()
    symbol_at, x_at = columns
    if len(words) < max(symbol_at + 1, x_at + 3):
        what = "`symbol x y z`" if columns == (0, 1) else "what Properties announces"
        raise UnreadableError(f"{where}: expected {what}, got {shown(line)}")
    words = [words[symbol_at], *words[x_at : x_at + 3]]
    symbol = _ATOM.fullmatch(words[0])
    number = NUMBER_OF.get(symbol[1].capitalize()) if symbol else None
    if words[0] in map(str, NUMBERS):
        number = int(words[0])
    if number is None:
        raise UnsupportedElementError(f"{where}: {shown(words[0])}; QM9 holds only {KNOWN}")
    return number, [_coordinate(word, where) for word in words[1:4]]


def _coordinate(word: str, where: str) -> float:
    if not _NUMBER.fullmatch(word):
        what = "not finite" if _NOT_FINITE.fullmatch(word) else "no number"
        raise NonFiniteError(f"{where}: the coordinate {shown(word)} is {what}")
    return float(re.sub(r"[dD]|\*\^", "e", word))

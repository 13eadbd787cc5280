"""Molecules from what users have: SMILES, XYZ, mol blocks, arrays, records of an HTTP request.

Whatever comes in, these functions give a valid molecule or raise a `MoleculeError` that says which
atom or line is wrong and why. SMILES and mol blocks go through `qm9flow.molecules.pool`.
"""

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt

from qm9flow.elements import NUMBER_OF, NUMBERS, SYMBOL_OF
from qm9flow.errors import (
    ChargedError,
    EmptyMoleculeError,
    InvalidRecordError,
    InvalidSmilesError,
    MoleculeError,
    NonFiniteError,
    TooLargeError,
    UnreadableError,
    UnsupportedElementError,
)
from qm9flow.molecules.molecule import Conformers, Geometry, Molecule, Structure, validate
from qm9flow.molecules.pool import (
    MAX_ATOMS,
    TIMEOUT_S,
    DrawingJob,
    Job,
    MoleculePool,
    Progress,
    shared_pool,
)

MAX_SMILES_CHARACTERS = 2000
"""Longer SMILES cannot describe a molecule within `MAX_ATOMS`."""

MAX_TEXT_CHARACTERS = 1_000_000
"""Longer XYZ or SDF texts cannot either."""

_KNOWN = ", ".join(NUMBER_OF)
_KNOWN_NUMBERS = frozenset(NUMBERS)
_LARGEST = 10**9
"""Larger coordinates are not even read."""
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong = 2, 50, 40
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)((?:[eEdD]|\*\^)[+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE | re.ASCII)
_ATOM = re.compile(r"([A-Za-z]{1,3})\d*", re.ASCII)
_CHARGE = re.compile(r"\bcharge\s*=\s*\"?([+-]?\d{1,4})\b", re.IGNORECASE | re.ASCII)
_PROPERTIES = re.compile(r"\bproperties\s*=\s*\"?(\S+)", re.IGNORECASE | re.ASCII)


def from_smiles(text: str, timeout_s: float = TIMEOUT_S) -> Conformers:
    """Conformers from a SMILES; RDKit makes them, in a process that can be killed.

    Args:
        text: A SMILES of one molecule without net charge.
        timeout_s: Seconds after which the attempt is given up, at most `TIMEOUT_S`.

    Returns:
        Its geometries.

    Raises:
        MoleculeError: No SMILES, or a molecule that is refused, or no geometry (in time).
    """
    found = _or_raise(shared_pool().build([_smiles_job(text)], budget_s=timeout_s)[0])
    return cast(Conformers, found)


def from_sdf(text: str, geometry: Geometry = "approximate") -> Molecule:
    """A molecule from a mol block or an SDF record, with its own coordinates.

    Args:
        text: One mol block (V2000 or V3000) with 3D coordinates and explicit hydrogens; data
            items behind it are ignored.
        geometry: Where the coordinates come from; such files seldom hold QM9's level of theory.

    Returns:
        The molecule.

    Raises:
        MoleculeError: It cannot be read, lacks hydrogens, or is a molecule that is refused.
    """
    return cast(Molecule, _or_raise(shared_pool().build([_sdf_job(text, geometry)])[0]))


def from_xyz(text: str, geometry: Geometry = "dft", max_atoms: int = MAX_ATOMS) -> Molecule:
    """A molecule from an XYZ text.

    Read are: the number of atoms, a comment, then `symbol x y z` a line, in angstrom. The number
    and the comment may be left out together, the comment alone too. Columns behind z are ignored,
    as is what follows the atoms in QM9's own files (`gdb` comment). `Properties` in an extended
    comment may give another order of columns. Exponents may be written with E, D or *^.

    Args:
        text: One molecule.
        geometry: Where the coordinates come from.
        max_atoms: Most atoms allowed.

    Returns:
        The molecule, named by its comment.

    Raises:
        MoleculeError: It cannot be read, or is a molecule that is refused.
    """
    _refuse_text(text, "an XYZ text")
    lines = re.split(r"\r\n|\r|\n", text)
    first, lines = _skip_blank(lines)
    if not lines:
        raise EmptyMoleculeError("the XYZ text is empty")
    comment, start, count = _xyz_head(lines, first)
    columns = _xyz_columns(comment, first + 2)
    if count > max_atoms:
        raise TooLargeError(f"the molecule has {count} atoms; the limit is {max_atoms}")
    numbers, positions = [], []
    for atom in range(count):
        where = f"line {first + start + atom + 1}, atom {atom + 1}"
        number, position = _xyz_atom(lines[start + atom], where, columns)
        numbers.append(number)
        positions.append(position)
    name = "" if "=" in comment else comment.strip()[:80]
    return from_arrays(numbers, positions, geometry, max_atoms=max_atoms, name=name)


def from_arrays(
    numbers: Any,
    positions: Any,
    geometry: Geometry = "dft",
    *,
    max_atoms: int = MAX_ATOMS,
    name: str = "",
) -> Molecule:
    """A molecule from atomic numbers and positions.

    Args:
        numbers: (n_atoms,), a list or array of integers.
        positions: (n_atoms, 3), a list or array of numbers, angstrom.
        geometry: Where the positions come from: `dft` or `approximate`.
        max_atoms: Most atoms allowed.
        name: Whatever the user calls it.

    Returns:
        The molecule.

    Raises:
        MoleculeError: The arrays cannot be read, or are a molecule that is refused.
    """
    if geometry not in get_args(Geometry):
        raise InvalidRecordError(
            f"geometry must be one of {', '.join(get_args(Geometry))}, got {shown(geometry)}"
        )
    numbers, positions = _plain_list(numbers, "numbers"), _plain_list(positions, "positions")
    if len(numbers) > max_atoms:
        raise TooLargeError(f"the molecule has {len(numbers)} atoms; the limit is {max_atoms}")
    if len(numbers) != len(positions):
        raise UnreadableError(
            f"numbers names {len(numbers)} atoms, positions {len(positions)}: both must name the "
            "same atoms"
        )
    shaped = _plain_array(numbers, positions)
    if shaped is None:
        shaped = _array_of(numbers, positions)
    molecule = Molecule(np.array(numbers, dtype=np.int64), shaped, geometry, name)
    validate(molecule, max_atoms)
    return molecule


def _plain_array(numbers: list[Any], positions: list[Any]) -> npt.NDArray[np.float64] | None:
    """(N, 3), at once; None where something may have to be said of an atom."""
    if not (set(map(type, numbers)) == {int} and _KNOWN_NUMBERS.issuperset(numbers)):
        return None
    if not set(map(type, positions)) <= {list, tuple} or set(map(len, positions)) != {3}:
        return None
    if not set(map(type, chain.from_iterable(positions))) <= {float, int}:
        return None
    try:
        found = np.array(positions, dtype=np.float64)
    except OverflowError:
        return None
    return found if (np.abs(found) <= _LARGEST).all() else None


def _array_of(numbers: list[Any], positions: list[Any]) -> npt.NDArray[np.float64]:
    """(N, 3), atom by atom, to say which one is wrong."""
    for atom, number in enumerate(numbers, start=1):
        if type(number) is not int or number not in NUMBERS:
            raise UnsupportedElementError(
                f"atom {atom} has the atomic number {shown(number)}; QM9 holds only {_KNOWN} "
                f"({', '.join(map(str, NUMBERS))})"
            )
    rows = [
        _position(row, f"atom {atom} ({SYMBOL_OF[number]})")
        for atom, (number, row) in enumerate(zip(numbers, positions, strict=True), start=1)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 3)


def from_record(record: object, timeout_s: float = TIMEOUT_S) -> Structure:
    """A molecule from one entry of an HTTP request.

    Args:
        record: `{"smiles": ...}`, `{"xyz": ...}`, `{"sdf": ...}` or `{"numbers": ...,
            "positions": ...}`; all but the first may add `"geometry": "dft" | "approximate"`.
        timeout_s: Seconds for a SMILES.

    Returns:
        The molecule; conformers of a SMILES.

    Raises:
        MoleculeError: The entry cannot be read, or is a molecule that is refused.
    """
    return _or_raise(from_records([record], shared_pool(), budget_s=timeout_s)[0])


def from_records(
    records: Sequence[object],
    pool: MoleculePool,
    *,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> list[Structure | MoleculeError]:
    """Molecules from the entries of an HTTP request, each judged by itself.

    Args:
        records: As in `from_record`.
        pool: Does the SMILES and mol blocks, and holds the limit of atoms.
        budget_s: Seconds for all SMILES and mol blocks together; none means no limit.
        progress: Called with (what, done, total) after each of them.

    Returns:
        A molecule, conformers or an error for each entry, in order.
    """
    results = read_records(records, pool.max_atoms)
    jobs = [item for item in results if isinstance(item, Job)]
    built = iter(pool.build(jobs, budget_s=budget_s, progress=progress)) if jobs else iter(())
    return [next(built) if isinstance(item, Job) else item for item in results]


def draw_records(
    records: Sequence[object], pool: MoleculePool, *, budget_s: float | None = None
) -> list[str | MoleculeError]:
    """Drawings of the entries of an HTTP request, each judged by itself.

    A SMILES or a mol block is drawn whatever its elements and charge; bonds of a geometry are
    perceived from the distances.

    Args:
        records: As in `from_record`.
        pool: Draws, and holds the limit of atoms.
        budget_s: Seconds for all of them together; none means no limit.

    Returns:
        An SVG document or an error for each entry, in order.
    """
    results = read_drawings(records, pool.max_atoms)
    jobs = [item for item in results if isinstance(item, DrawingJob)]
    drawn = iter(pool.draw(jobs, budget_s=budget_s)) if jobs else iter(())
    return [next(drawn) if isinstance(item, DrawingJob) else item for item in results]


def read_drawings(
    records: Sequence[object], max_atoms: int = MAX_ATOMS
) -> list[DrawingJob | MoleculeError]:
    """The quick part of `draw_records`: all that needs no RDKit.

    Args:
        records: As in `from_record`.
        max_atoms: Most atoms of a molecule.

    Returns:
        For each entry what a `MoleculePool` has to draw, or why it is refused.
    """
    return [
        item if isinstance(item, MoleculeError) else _drawing_job(item)
        for item in read_records(records, max_atoms)
    ]


def _drawing_job(item: Molecule | Job) -> DrawingJob:
    if isinstance(item, Job):
        return DrawingJob("smiles" if item.kind == "smiles" else "sdf", item.text)
    return DrawingJob("xyz", to_xyz(item))


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


def read_records(
    records: Sequence[object], max_atoms: int = MAX_ATOMS
) -> list[Molecule | Job | MoleculeError]:
    """The quick part of `from_records`: all that needs no RDKit.

    Args:
        records: As in `from_record`.
        max_atoms: Most atoms of a molecule.

    Returns:
        For each entry a molecule, what a `MoleculePool` has to build, or why it is refused.
    """
    results: list[Molecule | Job | MoleculeError] = []
    for record in records:
        try:
            results.append(_read(record, max_atoms))
        except MoleculeError as error:
            results.append(error)
    return results


def split_xyz(text: str) -> list[str]:
    """The molecules of an XYZ text that holds several, one behind the other.

    Args:
        text: XYZ, each molecule with its number of atoms; or one molecule in any form.

    Returns:
        One text a molecule; the whole text where no further molecule can be told apart.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    parts: list[str] = []
    _, rest = _skip_blank(lines)
    while rest:
        count = _count(rest[0])
        size = len(rest) if count is None else count + 2
        following = _skip_blank(rest[size:])[1]
        if following and _count(following[0]) is None:
            size, following = len(rest), []
        parts.append("\n".join(rest[:size]))
        rest = following
    return parts or [text]


def split_sdf(text: str) -> list[str]:
    """The records of an SDF text.

    Args:
        text: Mol blocks, each closed by a line `$$$$`; the last one need not be.

    Returns:
        One mol block a record.
    """
    records = re.split(r"^\$\$\$\$[^\n]*\n?", re.sub(r"\r\n?", "\n", text), flags=re.MULTILINE)
    return [record for record in records if record.strip()] or [text]


def shown(value: object) -> str:
    """What a user sent, for an error message: short, in ASCII, whatever it is.

    Args:
        value: Anything.

    Returns:
        At most 60 characters.
    """
    try:
        text = _SHORT.repr(value).encode("ascii", "backslashreplace").decode()
    except ValueError:  # an integer of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _or_raise(result: Structure | MoleculeError) -> Structure:
    if isinstance(result, MoleculeError):
        raise result
    return result


def _refuse_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise UnreadableError(f"expected {what}, got {shown(text)}")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise TooLargeError(
            f"the text has {len(text):,} characters; the limit is {MAX_TEXT_CHARACTERS:,}"
        )


def _smiles_job(text: object) -> Job:
    if not isinstance(text, str):
        raise InvalidSmilesError(f"a SMILES is a text, got {shown(text)}")
    text = text.strip()
    if not text:
        raise EmptyMoleculeError("the SMILES is empty")
    if len(text) > MAX_SMILES_CHARACTERS:
        raise TooLargeError(
            f"the SMILES has {len(text):,} characters; the limit is {MAX_SMILES_CHARACTERS:,}"
        )
    strange = re.search(r"[^!-~]", text)
    if strange:
        raise InvalidSmilesError(
            f"not a SMILES: character {strange.start() + 1} is {shown(strange[0])}"
        )
    return Job("smiles", text)


def _sdf_job(text: object, geometry: object) -> Job:
    _refuse_text(text, "a mol block")
    if geometry not in ("dft", "approximate"):
        raise InvalidRecordError(f"geometry must be dft or approximate, got {shown(geometry)}")
    block = split_sdf(cast(str, text))
    if len(block) > 1:
        raise UnreadableError(f"the SDF text holds {len(block)} molecules: give one at a time")
    if not block[0].strip():
        raise EmptyMoleculeError("the mol block is empty")
    return Job("sdf", block[0], geometry)


_FORMS: dict[str, tuple[set[str], set[str]]] = {
    "smiles": ({"smiles"}, set()),
    "xyz": ({"xyz"}, {"geometry"}),
    "sdf": ({"sdf"}, {"geometry"}),
    "arrays": ({"numbers", "positions"}, {"geometry"}),
}
"""Keys that an entry must have, and those that it may have, for each form."""


def _read(record: object, max_atoms: int) -> Molecule | Job:
    if not isinstance(record, Mapping):
        raise InvalidRecordError(f"a molecule must be an object, got {shown(record)}")
    keys = set(record)
    form = next((f for f, (must, may) in _FORMS.items() if must <= keys <= must | may), None)
    if form is None:
        raise InvalidRecordError(
            'a molecule is {"smiles": ...}, {"xyz": ...}, {"sdf": ...} or {"numbers": ..., '
            '"positions": ...}, all but the first with "geometry" if you like; got the keys '
            f"{shown(sorted(map(str, keys)))}"
        )
    if form == "smiles":
        return _smiles_job(record["smiles"])
    if form == "sdf":
        return _sdf_job(record["sdf"], record.get("geometry", "approximate"))
    geometry = record.get("geometry", "dft")
    if geometry not in ("dft", "approximate"):
        raise InvalidRecordError(f"geometry must be dft or approximate, got {shown(geometry)}")
    if form == "xyz":
        return from_xyz(record["xyz"], cast(Geometry, geometry), max_atoms)
    numbers, positions = record["numbers"], record["positions"]
    return from_arrays(numbers, positions, cast(Geometry, geometry), max_atoms=max_atoms)


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


def _xyz_head(lines: list[str], first: int) -> tuple[str, int, int]:
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
    charge = _CHARGE.search(comment)
    if charge and int(charge[1]):
        raise ChargedError(
            f"line {line}: the molecule has the net charge {int(charge[1]):+d}: QM9 holds only "
            "molecules without net charge"
        )


def _xyz_columns(comment: str, line: int) -> tuple[int, int]:
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


def _xyz_atom(line: str, where: str, columns: tuple[int, int]) -> tuple[int, list[float]]:
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
        raise UnsupportedElementError(f"{where}: {shown(words[0])}; QM9 holds only {_KNOWN}")
    return number, [_coordinate(word, where) for word in words[1:4]]


def _coordinate(word: str, where: str) -> float:
    if not _NUMBER.fullmatch(word):
        what = "not finite" if _NOT_FINITE.fullmatch(word) else "no number"
        raise NonFiniteError(f"{where}: the coordinate {shown(word)} is {what}")
    return float(re.sub(r"[dD]|\*\^", "e", word))


def _plain_list(values: Any, what: str) -> list[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise UnreadableError(f"{what} must be a list, got {shown(values)}")
    return list(values)


def _position(row: Any, where: str) -> list[float]:
    if not isinstance(row, list | tuple) or len(row) != 3:
        raise UnreadableError(f"{where}: a position is [x, y, z], got {shown(row)}")
    for value in row:
        if type(value) is int and abs(value) > _LARGEST:
            raise NonFiniteError(f"{where}: the coordinate {shown(value)} is too large")
        if type(value) not in (int, float) or not math.isfinite(value):
            raise NonFiniteError(f"{where}: the coordinate {shown(value)} is no finite number")
    return [float(value) for value in row]

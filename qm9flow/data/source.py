"""QM9's tables in the package `qm9pack`: find, verify, parse.

The package is never imported (its import needs `pkg_resources`, which new setuptools lack): its
files are found through the metadata of the installed distribution.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow.elements import NUMBER_OF
from qm9flow.errors import SourceCorruptError, SourceMissingError
from qm9flow.properties import RAW_COLUMNS

Floats = npt.NDArray[np.float64]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

PACKAGE = "qm9pack"
VERSION = "1.0.3"
N_MOLECULES = 130_831

TABLES: dict[str, str] = {
    "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
    "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
    "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
    "qm9_polarizability.csv": "1729ebca7da76850ca1091c050933901c84b90edb30d06f34df1ebd47789d23a",
}
"""SHA-256 of each table of version 1.0.3."""

CITATION = (
    "R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld: Quantum chemistry structures and "
    "properties of 134 kilo molecules. Scientific Data 1, 140022 (2014). "
    "doi:10.1038/sdata.2014.22"
)
LICENCE = (
    "The data of QM9 are in the public domain (CC0). The tables come with the Python package "
    "qm9pack 1.0.3, which its author, R. Ramakrishnan, gives out under the MIT License. It holds "
    "the 130,831 molecules of QM9's 133,885 that pass the consistency check of the original "
    "article; cite that article when you use them."
)

_INSTALL = f'install them with `pip install --force-reinstall --no-deps "{PACKAGE}=={VERSION}"`'
_QUOTED_COLUMNS = (
    "XYZ_file",
    "SMILES",
    "InChi",
    "Stoichiometry",
    "Elements",
    "XYZ_Ang",
    "Mulliken_pop",
    "Harmonic_Freq_cmi",
)


@dataclass(frozen=True)
class Records:
    """The parsed tables: all molecules one after another, in the order of the tables.

    Attributes:
        index: (M,), QM9's own numbers of the molecules, 1 to 133,885.
        smiles: M texts.
        inchi: M texts.
        sizes: (M,), atoms of each molecule.
        numbers: (A,), atomic numbers.
        positions: (A, 3), angstrom.
        charges: (A,), Mulliken charges, elementary charges.
        n_frequencies: (M,), vibrational modes of each molecule.
        frequencies: (F,), harmonic frequencies, 1/cm.
        raw: (M, 15), in the order of `properties.RAW_COLUMNS`, in the tables' units.
        polarizability: (M, 6), xx, xy, yy, xz, yz, zz, bohr^3.
    """

    index: npt.NDArray[np.int32]
    smiles: list[str]
    inchi: list[str]
    sizes: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.uint8]
    positions: Floats
    charges: Floats
    n_frequencies: npt.NDArray[np.int64]
    frequencies: Floats
    raw: Floats
    polarizability: Floats


def find_tables() -> dict[str, Path]:
    """The four tables of the installed package.

    Returns:
        Path of each table, by its name.

    Raises:
        SourceMissingError: The package is not installed, or lacks a table.
    """
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise SourceMissingError(
            f"QM9's tables are in the package {PACKAGE}, which is not installed: {_INSTALL}, or "
            'everything that training needs with `pip install "qm9flow[train]"`'
        ) from error
    paths = {name: Path(str(distribution.locate_file(f"{PACKAGE}/data/{name}"))) for name in TABLES}
    for path in paths.values():
        if not path.is_file():
            raise SourceMissingError(
                f"the installed package {PACKAGE} {distribution.version} lacks the table {path}: "
                f"{_INSTALL}"
            )
    return paths


def read_records(paths: dict[str, Path], progress: Progress | None = None) -> Records:
    """Verify and parse the tables.

    Args:
        paths: The four tables, by name, as `find_tables` gives them.
        progress: Called before each table and at the end.

    Returns:
        All molecules, in float64.

    Raises:
        SourceMissingError: A table cannot be read.
        SourceCorruptError: A table differs from the recorded one.
    """
    parts = []
    for done, (name, path) in enumerate(paths.items()):
        if progress is not None:
            progress(f"reading {name}", done, len(paths))
        text = _read_verified(path, TABLES[name])
        if name != "qm9_polarizability.csv":
            parts.append(_parse_part(path, text))
        else:
            files, polarizability = _parse_polarizability(path, text)
    if progress is not None:
        progress("tables read", len(paths), len(paths))
    joined = _concatenate(parts)
    if joined.pop("files") != files:
        raise SourceCorruptError(f"the tables list different molecules: {_INSTALL}")
    return Records(polarizability=polarizability, **joined)


def _read_verified(path: Path, expected: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceMissingError(f"cannot read the table {path} ({error}): {_INSTALL}") from error
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise SourceCorruptError(
            f"the table {path} ({len(content):,} bytes) differs from that of {PACKAGE} {VERSION}: "
            f"its SHA-256 is {got}, not {expected}; it was changed or cut short: {_INSTALL}"
        )
    return content


def _split_quoted(path: Path, content: bytes, n_quoted: int) -> tuple[list[str], list[str]]:
    """The header's names, and the text cut at its quotation marks.

    The tables hold no quotation marks inside fields, so record after record has the same number
    of pieces and a column is a slice with that stride. That is ten times as fast as a CSV reader.
    """
    header, _, body = content.decode().partition("\n")
    pieces = body.split('"')
    if len(pieces) % (2 * n_quoted) != 1:
        raise SourceCorruptError(f"the table {path} has records cut short: {_INSTALL}")
    return header.split(","), pieces


def _floats(texts: Sequence[str], expected: int) -> Floats:
    """All numbers of lists such as `[[1.5,0.],[-2.,3.]]`, one list after another, in float64.

    Arrow reads them twice as fast as NumPy does; its array of texts is made from the whole text
    without commas and the places where they were.
    """
    import pyarrow  # only preparing needs it, and it takes a quarter of a second

    listed = ",".join(texts).encode().translate(None, b"[]\n")
    commas = np.flatnonzero(np.frombuffer(listed, dtype=np.uint8) == ord(","))
    if len(commas) + 1 != expected:
        raise SourceCorruptError(
            f"a column of the tables holds {len(commas) + 1} numbers, not {expected}: {_INSTALL}"
        )
    offsets = np.empty(expected + 1, dtype=np.int32)
    offsets[0], offsets[1:-1] = 0, commas - np.arange(len(commas))
    offsets[-1] = len(listed) - len(commas)
    buffers = pyarrow.py_buffer(offsets), pyarrow.py_buffer(listed.translate(None, b","))
    numbers = pyarrow.StringArray.from_buffers(expected, *buffers).cast(pyarrow.float64())
    return np.asarray(numbers.to_numpy())


def _parse_part(path: Path, content: bytes) -> dict[str, Any]:
    header, pieces = _split_quoted(path, content, len(_QUOTED_COLUMNS))
    stride = 2 * len(_QUOTED_COLUMNS)
    quoted = {name: pieces[2 * i + 1 :: stride] for i, name in enumerate(_QUOTED_COLUMNS)}
    index = np.array([text.strip(",") for text in pieces[2::stride]], dtype=np.int32)
    sizes = np.array([text.strip(",") for text in pieces[6::stride]], dtype=np.int64)
    scalars = header[header.index(_QUOTED_COLUMNS[-1]) + 1 :]
    n_atoms, n_records = int(sizes.sum()), len(sizes)
    listed = [text[1:] for text in pieces[stride::stride]]
    values = _floats(listed, n_records * len(scalars)).reshape(n_records, -1)
    n_frequencies = np.array([text.count(",") + 1 for text in quoted["Harmonic_Freq_cmi"]])
    return {
        "files": quoted["XYZ_file"],
        "index": index,
        "smiles": quoted["SMILES"],
        "inchi": quoted["InChi"],
        "sizes": sizes,
        "numbers": _atomic_numbers(path, quoted["Elements"], n_atoms),
        "positions": _floats(quoted["XYZ_Ang"], 3 * n_atoms).reshape(-1, 3),
        "charges": _floats(quoted["Mulliken_pop"], n_atoms),
        "n_frequencies": n_frequencies,
        "frequencies": _floats(quoted["Harmonic_Freq_cmi"], int(n_frequencies.sum())),
        "raw": values[:, [scalars.index(name) for name in RAW_COLUMNS]],
    }


def _atomic_numbers(path: Path, texts: list[str], n_atoms: int) -> npt.NDArray[np.uint8]:
    symbols = "".join(texts).encode().translate(None, b"[]', ")
    number_of = np.zeros(256, dtype=np.uint8)
    for symbol, number in NUMBER_OF.items():
        number_of[ord(symbol)] = number
    numbers = number_of[np.frombuffer(symbols, dtype=np.uint8)]
    if len(numbers) != n_atoms or not numbers.all():
        raise SourceCorruptError(f"the table {path} names atoms that it should not: {_INSTALL}")
    return numbers


def _parse_polarizability(path: Path, content: bytes) -> tuple[list[str], Floats]:
    header, pieces = _split_quoted(path, content, 1)
    files = pieces[1::2]
    n_columns = len(header) - 1
    values = _floats([text[1:] for text in pieces[2::2]], len(files) * n_columns)
    return files, values.reshape(-1, n_columns)


def _concatenate(parts: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for name, first in parts[0].items():
        pieces = [part[name] for part in parts]
        is_text = isinstance(first, list)
        joined[name] = list(chain.from_iterable(pieces)) if is_text else np.concatenate(pieces)
    return joined

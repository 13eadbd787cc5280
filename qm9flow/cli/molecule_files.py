"""Molecules named on a command line, as the records that a request to the service would hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qm9flow.bulk.readers.lines import Lines
from qm9flow.bulk.readers.smi import SmilesReader
from qm9flow.bulk.writers.writer import without_surrogates
from qm9flow.errors import ConfigError, MoleculeError
from qm9flow.molecules.sdf import split_sdf
from qm9flow.molecules.xyz import split_xyz

FORMAT_OF = {
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".sdf": "sdf",
    ".sd": "sdf",
    ".mol": "sdf",
    ".smi": "smiles",
    ".smiles": "smiles",
    ".ism": "smiles",
}
"""A file's format by its suffix."""


@dataclass(frozen=True)
class NamedRecord:
    """One molecule to predict.

    Attributes:
        name: What to call it in the output.
        record: As in an HTTP request.
    """

    name: str
    record: dict[str, str]


def read_file(
    path: Path, kind: str | None = None, geometry: str | None = None
) -> list[NamedRecord]:
    """The molecules of a file.

    Args:
        path: XYZ (several frames are several molecules), SDF or mol, or SMILES, one a line with a
            name behind it if you like.
        kind: `xyz`, `sdf` or `smiles`; None goes by the suffix.
        geometry: `dft` or `approximate`; None means the format's default.

    Returns:
        One record a molecule, in order, named by the file and its place in it.

    Raises:
        ConfigError: The file cannot be read, or its suffix says nothing.
        InputFileError: The same of a file of SMILES.
    """
    kind = kind or FORMAT_OF.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(FORMAT_OF)
        raise ConfigError(f"{path}: unknown kind of file; known are {known}, or use --xyz or --sdf")
    if kind == "smiles":
        return _smiles(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    parts = split_xyz(text) if kind == "xyz" else split_sdf(text)
    said = {"geometry": geometry} if geometry else {}
    return [
        NamedRecord(name, {kind: part, **said})
        for name, part in zip(_names(path.name, len(parts)), parts, strict=True)
    ]


def _smiles(path: Path) -> list[NamedRecord]:
    found = []
    with Lines(path) as lines:
        for row in SmilesReader(lines).rows():
            if isinstance(row.record, MoleculeError):
                raise ConfigError(f"{path}: {row.record}")
            smiles, name = map(without_surrogates, row.cells)
            found.append(NamedRecord(name or smiles, {"smiles": smiles}))
    return found


def _names(file: str, count: int) -> Sequence[str]:
    return [file] if count == 1 else [f"{file}:{place}" for place in range(1, count + 1)]

"""The model that comes with qm9flow, inside the package: a bundle, and what the gate compares.

`docs/pretrained.md` says how it is replaced.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

import qm9flow
from qm9flow.errors import RegistryError
from qm9flow.registry import evidence
from qm9flow.registry.checksum import file_sha256, folder_sha256

NAME = "pretrained"
FOLDER = Path(qm9flow.__file__).resolve().parent / NAME
BUNDLE = "bundle"
CURVES = "curves.csv"
ROUGH_CURVES = "rough.csv"
"""Of the networks for other geometries than DFT's, where there are some."""


def is_there() -> bool:
    """Whether this copy of qm9flow comes with a model.

    Returns:
        False for a checkout without it.
    """
    return (FOLDER / BUNDLE).is_dir()


def bundle() -> Path:
    """The shipped bundle, its graph and weights verified.

    Returns:
        Its folder, not to be changed.

    Raises:
        RegistryError: There is none, or it is damaged.
    """
    folder = FOLDER / BUNDLE
    if not is_there():
        raise RegistryError(
            f"this copy of qm9flow comes without a pretrained model ({folder} is missing): "
            "train one with `make study` or `qm9flow study run`"
        )
    try:
        files = json.loads((folder / "config.json").read_text())["files"]
        changed = [name for name in files if file_sha256(folder / name) != files[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error
    if changed:
        raise _damaged(folder, f"the SHA-256 of {changed[0]} differs from the one in config.json")
    return folder


def validation_errors() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """What the gate compares of the shipped model.

    Returns:
        |errors| on `standard`'s validation molecules, (n_molecules, 10), and scale, (10,), in the
        targets' units.

    Raises:
        RegistryError: The file is missing or damaged.
    """
    try:
        return evidence.load(FOLDER / evidence.FILE)
    except RegistryError as error:
        raise _damaged(FOLDER, str(error)) from error


def elsewhere() -> dict[str, npt.NDArray[np.float32]]:
    """The same from other geometries than DFT's.

    Returns:
        As `evidence.load_elsewhere`.

    Raises:
        RegistryError: The file is missing or damaged.
    """
    try:
        return evidence.load_elsewhere(FOLDER / evidence.FILE)
    except RegistryError as error:
        raise _damaged(FOLDER, str(error)) from error


def write(folder: Path, errors: Path | None = None, curves: Path | None = None) -> Path:
    """Copy the shipped bundle to a folder, and what lies beside it to files.

    Args:
        folder: The bundle's folder to be, missing or empty or holding this very bundle.
        errors: Where the validation errors go; None leaves them out.
        curves: Where the metrics of its training's epochs go; None leaves them out.

    Returns:
        The folder.

    Raises:
        RegistryError: The shipped files are missing or damaged, or the folder holds something
            else or cannot be written.
    """
    source = bundle()
    validation_errors()
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if folder_sha256(folder) != folder_sha256(source):
                raise RegistryError(f"{folder} is not empty; name a new folder")
        else:
            shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for name, path in ((evidence.FILE, errors), (CURVES, curves)):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(FOLDER / name, path)
    except (OSError, shutil.Error) as error:
        raise RegistryError(f"{folder} or a file beside it cannot be written: {error}") from error
    return folder


def _damaged(folder: Path, what: str) -> RegistryError:
    return RegistryError(
        f"the pretrained model in {folder} is damaged ({what}): install qm9flow again, or name "
        "another model"
    )

"""The model that comes with qm9flow, inside the package: a bundle, and what the gate compares.

`docs/pretrained.md` says how it is replaced.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

import qm9flow
from qm9flow.errors import RegistryError
from qm9flow.registry import evidence
from qm9flow.registry.checksum import file_sha256

NAME = "pretrained"
FOLDER = Path(qm9flow.__file__).resolve().parent / NAME
BUNDLE = "bundle"
CURVES = "curves.csv"

_CHECKED = ("model.onnx", "weights.safetensors")


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
        changed = [name for name in _CHECKED if file_sha256(folder / name) != files[name]]
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


def _damaged(folder: Path, what: str) -> RegistryError:
    return RegistryError(
        f"the pretrained model in {folder} is damaged ({what}): install qm9flow again, or name "
        "another model"
    )

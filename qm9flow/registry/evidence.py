"""Validation errors beside a registered model: what the gate compares, kept with the version."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow.errors import RegistryError
from qm9flow.properties import LEARNED

FILE = "validation.npz"
_ELSEWHERE = "errors_"

Elsewhere = Mapping[str, npt.NDArray[np.floating]]
"""By the source of the geometries: (n_molecules, 10), |error| of the learned targets, in their
units, on the same molecules; NaN for those that have no such geometry."""


def check(errors: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]) -> None:
    """Refuse errors that the gate could not use.

    Args:
        errors: (n_molecules, 10), |error| of the learned targets, in their units.
        scale: (10,), training standard deviations, in their units.

    Raises:
        RegistryError: Wrong shapes, negative errors, or a scale that is not above 0.
    """
    width = len(LEARNED)
    if errors.ndim != 2 or errors.shape[1] != width or len(errors) == 0:
        raise RegistryError(
            f"validation errors must have the shape (molecules, {width}), got {errors.shape}"
        )
    if (errors < 0).any():
        raise RegistryError("validation errors are absolute values; some are negative")
    if scale.shape != (width,) or not (scale > 0).all():
        raise RegistryError(f"the scale must hold {width} numbers above 0, got {scale.tolist()}")


def save(
    path: Path,
    errors: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    elsewhere: Elsewhere | None = None,
) -> None:
    """Write validation errors.

    Args:
        path: The file.
        errors: (n_molecules, 10), |error| of the learned targets, in their units.
        scale: (10,), training standard deviations, in their units.
        elsewhere: The same of networks for other geometries than DFT's.
    """
    np.savez_compressed(
        path,
        allow_pickle=False,
        errors=errors.astype(np.float32),
        scale=scale.astype(np.float64),
        targets=np.array(LEARNED),
        **{_ELSEWHERE + name: item.astype(np.float32) for name, item in (elsewhere or {}).items()},
    )


def load_elsewhere(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read the validation errors of networks for other geometries than DFT's.

    Args:
        path: The file, from which `load` has read.

    Returns:
        (n_molecules, 10) by the source of the geometries, in the targets' units, NaN for
        molecules that have no such geometry; none where the model has no such network.

    Raises:
        RegistryError: The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith(_ELSEWHERE)]
            found = {name.removeprefix(_ELSEWHERE): arrays[name] for name in names}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RegistryError(f"the validation errors in {path} cannot be read: {error}") from error
    for name, item in found.items():
        if item.ndim != 2 or item.shape[1] != len(LEARNED):
            raise RegistryError(f"{path} holds errors from {name} of the shape {item.shape}")
    return found


def load(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Read validation errors.

    Args:
        path: The file.

    Returns:
        Errors, (n_molecules, 10), and scale, (10,), in the targets' units.

    Raises:
        RegistryError: The file is damaged or of other targets.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            errors, scale = arrays["errors"], arrays["scale"]
            names = tuple(arrays["targets"].tolist())
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise RegistryError(f"the validation errors in {path} cannot be read: {error}") from error
    if names != LEARNED:
        raise RegistryError(f"{path} holds errors of {names}, expected {LEARNED}")
    check(errors, scale)
    return errors, scale

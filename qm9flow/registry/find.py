"""A model by what users call it: an alias, a version's number, or a bundle's folder."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm9flow.errors import RegistryError
from qm9flow.registry.checksum import file_sha256

NAME = "qm9flow"
FACTS = (
    "created",
    "git_commit",
    "data_digest",
    "split_name",
    "split_seed",
    "verdict",
    "validation_mae",
    "test_mae",
)


@dataclass(frozen=True)
class FoundModel:
    """A bundle on this machine, and what it is.

    Attributes:
        bundle: Its folder.
        version: Its number in the registry; None for a folder that was named directly.
        alias: The alias it was asked for by, else the first that points at it, else None.
        name: Of the registered model.
    """

    bundle: Path
    version: int | None = None
    alias: str | None = None
    name: str = NAME

    def facts(self) -> dict[str, Any]:
        """What the bundle says about its training, as plain JSON values.

        Returns:
            `FACTS`, as far as `config.json` holds them.
        """
        config = _config(self.bundle)
        return {name: config[name] for name in FACTS if name in config}


def find_model(reference: str, tracking_uri: str | None = None) -> FoundModel:
    """Find a model; fetch it from the registry if it is not here yet.

    Args:
        reference: An alias such as `champion`, a version's number, or a bundle's folder. What
            holds a path separator, or names a folder with a `model.onnx` in it, is a folder.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The model.

    Raises:
        RegistryError: There is no such model, or it is damaged.
    """
    folder = Path(reference)
    is_bundle = (folder / "model.onnx").is_file()
    if is_bundle or os.sep in reference or reference in (".", ".."):
        if not is_bundle:
            raise RegistryError(f"{reference} is no bundle: it holds no model.onnx")
        _check_file(folder)
        return FoundModel(folder.absolute())
    from qm9flow.registry.versions import fetch, resolve  # mlflow takes a second to import

    version = resolve(reference, tracking_uri)
    alias = reference if reference in version.aliases else next(iter(version.aliases), None)
    return FoundModel(fetch(version, tracking_uri=tracking_uri), version.number, alias)


def _config(bundle: Path) -> dict[str, Any]:
    try:
        config = json.loads((bundle / "config.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RegistryError(f"{bundle / 'config.json'} cannot be read: {error}") from error
    return config if isinstance(config, dict) else {}


def _check_file(bundle: Path) -> None:
    """Versions are verified when they are fetched; a folder says itself what its graph must be."""
    files = _config(bundle).get("files")
    expected = files.get("model.onnx") if isinstance(files, dict) else None
    if expected is not None and file_sha256(bundle / "model.onnx") != expected:
        raise RegistryError(
            f"{bundle / 'model.onnx'} is damaged or changed: its SHA-256 differs from the one in "
            "config.json; fetch or write the bundle again"
        )

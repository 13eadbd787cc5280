"""A model by what users call it: an alias, a version's number, or a bundle's folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from qm9flow.errors import RegistryError

NAME = "qm9flow"


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
        return FoundModel(folder.absolute())
    from qm9flow.registry.versions import fetch, resolve  # mlflow takes a second to import

    version = resolve(reference, tracking_uri)
    alias = reference if reference in version.aliases else next(iter(version.aliases), None)
    return FoundModel(fetch(version, tracking_uri=tracking_uri), version.number, alias)

"""A model by what users call it: an alias, a version's number, a bundle's folder, `pretrained`."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qm9flow
from qm9flow import locations
from qm9flow.errors import NothingRegisteredError, RegistryError
from qm9flow.registry import pretrained
from qm9flow.registry.checksum import file_sha256

NAME = "qm9flow"
CHAMPION = "champion"
RESERVED = (CHAMPION, "challenger", "previous", pretrained.NAME)
"""Names that never mean a folder: a copy beside the registry would stay behind when the alias moves
on. `./champion` is the folder."""
_URI = re.compile(r"models:/+([^/@]+)(?:@([^/@]+)|/([0-9]+))")
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
        version: Its number in the registry; None for one that is not from there.
        alias: The alias it was asked for by, else the first that points at it, else None;
            `pretrained` for the one that comes with qm9flow.
        name: Of the registered model.
        stands_in: Whether it was taken because nothing is registered.
    """

    bundle: Path
    version: int | None = None
    alias: str | None = None
    name: str = NAME
    stands_in: bool = False

    @property
    def label(self) -> str:
        """What to call it in messages."""
        if self.version is not None:
            return f"version {self.version}"
        return self.alias or str(self.bundle)

    @property
    def remark(self) -> str | None:
        """What users should know of the choice, None if it is the one that they asked for."""
        if not self.stands_in:
            return None
        return (
            "no model is registered; using the pretrained one that comes with qm9flow "
            f"{qm9flow.__version__}"
        )

    def facts(self) -> dict[str, Any]:
        """What the bundle says about its training, as plain JSON values.

        Returns:
            `FACTS`, as far as `config.json` holds them.
        """
        config = _config(self.bundle)
        return {name: config[name] for name in FACTS if name in config}


def alias_of(reference: str) -> str | None:
    """The alias in a model's name, which may mean another model tomorrow.

    Args:
        reference: As for `find_model`.

    Returns:
        None for a folder, a version's number, and `pretrained`.

    Raises:
        RegistryError: It is an address of MLflow's, but none of qm9flow's model.
    """
    is_uri = reference.startswith("models:")
    name = _in_registry(reference) if is_uri else reference
    is_folder = not is_uri and _is_folder(name)
    return None if is_folder or name.isdecimal() or name == pretrained.NAME else name


def find_model(reference: str, tracking_uri: str | None = None) -> FoundModel:
    """Find a model; fetch it from the registry if it is not here yet.

    Args:
        reference: An alias such as `champion`, a version's number, the two as MLflow writes them
            (`models:/qm9flow@champion`, `models:/qm9flow/3`), or a bundle's folder. What
            holds a path separator is a folder; a name without one is a folder if that holds a
            `model.onnx` and the name is none of `RESERVED` and no number.
            `pretrained` is the model that comes with qm9flow; it also stands in for the champion
            where nothing is registered, unless a store was named that does not exist.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The model.

    Raises:
        RegistryError: There is no such model, or it is damaged.
    """
    is_uri = reference.startswith("models:")
    reference = _in_registry(reference) if is_uri else reference
    folder = Path(reference)
    if not is_uri and _is_folder(reference):
        if not _holds_model(folder):
            raise RegistryError(f"{reference} is no bundle: it holds no model.onnx")
        check_bundle(folder)
        return FoundModel(folder.absolute())
    if reference == pretrained.NAME:
        return FoundModel(pretrained.bundle(), alias=pretrained.NAME)
    may_stand_in = reference == CHAMPION and pretrained.is_there()
    if pretrained.is_there() and _is_first_use(tracking_uri):
        if may_stand_in:
            return _stand_in()
        raise _nothing_registered(reference)
    from qm9flow.registry.versions import fetch, resolve  # mlflow takes a second to import

    try:
        version = resolve(reference, tracking_uri)
    except NothingRegisteredError as error:
        if may_stand_in:
            return _stand_in()
        raise _nothing_registered(reference) from error
    alias = reference if reference in version.aliases else next(iter(version.aliases), None)
    return FoundModel(fetch(version, tracking_uri=tracking_uri), version.number, alias)


def _in_registry(uri: str) -> str:
    """The alias or number in MLflow's own way to write a registered model."""
    found = _URI.fullmatch(uri)
    if found is None or found[1] != NAME:
        raise RegistryError(
            f"{uri} names no model of qm9flow's: write models:/{NAME}@{CHAMPION}, with any alias, "
            f"or models:/{NAME}/3, with a version's number"
        )
    return found[2] or found[3]


def _is_folder(reference: str) -> bool:
    is_path = os.sep in reference or reference in (".", "..")
    is_reserved = reference in RESERVED or reference.isdecimal()
    return is_path or (_holds_model(Path(reference)) and not is_reserved)


def _holds_model(folder: Path) -> bool:
    return (folder / "model.onnx").is_file()


def _nothing_registered(reference: str) -> NothingRegisteredError:
    return NothingRegisteredError(
        f"there is no model {reference!r}: it is no bundle's folder, and nothing is registered "
        f"here: run `make study`, or take `{pretrained.NAME}`, the model that comes with qm9flow"
    )


def _is_first_use(tracking_uri: str | None) -> bool:
    """No store was named, and none has been made here."""
    database = locations.sqlite_file(locations.tracking_uri(tracking_uri))
    is_missing = database is not None and not database.exists()
    return is_missing and not locations.is_store_named(tracking_uri)


def _stand_in() -> FoundModel:
    return FoundModel(pretrained.bundle(), alias=pretrained.NAME, stands_in=True)


def _config(bundle: Path) -> dict[str, Any]:
    try:
        config = json.loads((bundle / "config.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RegistryError(
            f"{bundle / 'config.json'} cannot be read, so that nothing is known of its model: "
            f"{error}; fetch or write the bundle again"
        ) from error
    if not isinstance(config, dict):
        raise RegistryError(f"{bundle / 'config.json'} holds no table: it is no bundle's")
    return config


def check_bundle(bundle: Path) -> None:
    """Compare what a folder is used for with what it says itself that it must be.

    Versions are verified by the registry when they are fetched; this needs none.

    Args:
        bundle: The folder.

    Raises:
        RegistryError: It is missing, damaged or changed.
    """
    files = _config(bundle).get("files")
    for name, expected in (files if isinstance(files, dict) else {}).items():
        is_used = name.endswith(".onnx") or name == "calibration.json"
        if is_used and _sha256_or_none(bundle / name) != expected:
            raise RegistryError(
                f"{bundle / name} is damaged or changed: its SHA-256 differs from the one in "
                "config.json; fetch or write the bundle again"
            )


def _sha256_or_none(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None

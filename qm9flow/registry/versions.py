"""Versions of the registered model: register, list, find, fetch."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from qm9flow import locations, properties
from qm9flow.errors import NothingRegisteredError, RegistryError
from qm9flow.registry import evidence
from qm9flow.registry.checksum import file_sha256, folder_sha256
from qm9flow.registry.client import START_HINT, Connection, connect
from qm9flow.registry.gate import Evidence, mean_normalised
from qm9flow.registry.packing import BUNDLE, GATE, store_model

MODEL_NAME = "qm9flow"
ALIASES = ("champion", "challenger", "previous")

REQUIRED_TAGS = (
    "release_id",
    "data_digest",
    "split",
    "split_seed",
    "split_digest",
    "parity",
    "git_commit",
    "architecture",
)
"""What every version says about itself; `val/<target>/mae` and `test/<target>/mae` besides."""

_CHECKSUM = "bundle_sha256"
_EVIDENCE_CHECKSUM = "evidence_sha256"
_SCORE = "val/score"
_CARD_CHARACTERS = 5000  # what MLflow's database holds of a description


@dataclass(frozen=True)
class Version:
    """One version of the registered model.

    Attributes:
        number: Counted from 1.
        aliases: Those of `ALIASES`, and users' own, that point at it.
        run_id: The run that made it.
        created: When it was registered, UTC.
        tags: What it says about itself.
        location: Where its MLflow model lies.
    """

    number: int
    aliases: tuple[str, ...]
    run_id: str
    created: datetime
    tags: Mapping[str, str]
    location: str

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return f"version {self.number}"

    @property
    def score(self) -> float:
        """Mean normalised error on `standard`'s validation molecules, NaN if unknown."""
        return float(self.tags.get(_SCORE, "nan"))

    def mae(self, part: str) -> dict[str, float]:
        """Mean absolute errors, in the targets' units.

        Args:
            part: `val` or `test`.

        Returns:
            By target, as far as they were recorded.
        """
        found = {name: self.tags.get(f"{part}/{name}/mae") for name in properties.TARGETS}
        return {name: float(value) for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "version": self.number,
            "aliases": list(self.aliases),
            "run_id": self.run_id,
            "created": self.created.isoformat(),
            "location": self.location,
            "tags": dict(self.tags),
        }


def register(
    bundle: Path,
    run_id: str,
    *,
    validation_errors: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    tags: Mapping[str, str],
    elsewhere: evidence.Elsewhere | None = None,
    tracking_uri: str | None = None,
) -> Version:
    """Register a bundle, once for each `release_id`.

    Killed at any point and called again, it goes on; a version that is there is not made twice.

    Args:
        bundle: A bundle's folder.
        run_id: The run that made it.
        validation_errors: (n_molecules, 10), |error| of the learned targets on `standard`'s
            validation molecules, in the split's order and the targets' units.
        scale: (10,), training standard deviations of the objective, in the targets' units.
        tags: `REQUIRED_TAGS`, and mean absolute errors by `val/<target>/mae` and
            `test/<target>/mae`.
        elsewhere: Errors of networks for other geometries than DFT's.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The version.

    Raises:
        DependencyError: The package onnx is not installed.
        RegistryError: A tag is missing, the bundle or the errors are unusable, or the store
            refuses.
    """
    if missing := [name for name in REQUIRED_TAGS if name not in tags]:
        raise RegistryError(f"a version needs the tags {', '.join(missing)}")
    evidence.check(validation_errors, scale)
    connection = connect(tracking_uri)
    client = connection.client
    for version in list_versions(connection.uri):
        if version.tags.get("release_id") == tags["release_id"]:
            return version
    checksum = folder_sha256(bundle)
    model, evidence_checksum = store_model(
        connection,
        bundle,
        name=MODEL_NAME,
        run_id=run_id,
        release_id=tags["release_id"],
        validation_errors=validation_errors,
        scale=scale,
        elsewhere=elsewhere,
    )
    all_tags = {
        **tags,
        _SCORE: repr(mean_normalised(validation_errors, scale)),
        "units": json.dumps({item.name: item.unit for item in properties.PROPERTIES}),
        _CHECKSUM: checksum,
        _EVIDENCE_CHECKSUM: evidence_checksum,
    }
    _ensure_registered_model(connection)
    made = connection.call(
        "registering",
        lambda: client.create_model_version(
            MODEL_NAME,
            # Not models:/<id>: MLflow would look that up in the process's global store.
            source=model.artifact_location,
            run_id=run_id,
            model_id=model.model_id,
            tags=all_tags,
            description=_card(bundle),
            await_creation_for=0,
        ),
    )
    return _version(made, {})


def list_versions(tracking_uri: str | None = None) -> list[Version]:
    """All versions.

    Args:
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The newest first; none where nothing was registered.

    Raises:
        RegistryError: There is no store, or it cannot be read.
    """
    connection = connect(tracking_uri)
    aliases = _aliases(connection)
    found: list[Version] = []
    token: str | None = None
    while True:
        page = connection.call(
            "listing versions",
            lambda token=token: connection.client.search_model_versions(  # type: ignore[misc]
                f"name = '{MODEL_NAME}'", page_token=token
            ),
        )
        found += [_version(item, aliases) for item in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number, reverse=True)


def alias_numbers(tracking_uri: str | None = None) -> dict[str, int]:
    """Where each alias points; one short question.

    Args:
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        Version number by alias; none where nothing was registered.

    Raises:
        RegistryError: There is no store, or it cannot be read.
    """
    return _aliases(connect(tracking_uri))


def resolve(which: str | int | None = None, tracking_uri: str | None = None) -> Version:
    """Find one version.

    Args:
        which: A version's number or an alias; None means the champion.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The version.

    Raises:
        NothingRegisteredError: There is none at all.
        RegistryError: There is no such version; the message says which there are.
    """
    versions = list_versions(tracking_uri)
    wanted = "champion" if which is None else str(which)
    for version in versions:
        if wanted in version.aliases or wanted == str(version.number):
            return version
    if not versions:
        raise NothingRegisteredError(f"no model is registered yet; {START_HINT}")
    known = [str(version.number) for version in versions]
    known += sorted(alias for version in versions for alias in version.aliases)
    if wanted == "champion":
        raise RegistryError(
            f"no version is champion yet; the versions are {', '.join(known)}: "
            "`qm9flow promote VERSION` makes one champion"
        )
    raise RegistryError(f"there is no version {wanted!r}; there are {', '.join(known)}")


def fetch_evidence(version: Version, path: Path, tracking_uri: str | None = None) -> None:
    """Copy a version's validation errors, which the gate compares, to a local file.

    Args:
        version: The version.
        path: The file to write, over an older one.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Raises:
        RegistryError: They are missing or damaged, or the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = _download_evidence(version, Path(scratch), tracking_uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copy, path)
        except OSError as error:
            raise RegistryError(f"{path} cannot be written: {error}") from error


def fetch(version: Version, folder: Path | None = None, tracking_uri: str | None = None) -> Path:
    """Copy a version's bundle to a local folder and verify it.

    Args:
        version: The version.
        folder: The bundle's folder to be, missing or empty or holding this very bundle; None
            means a folder of the cache that later calls find again.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The folder.

    Raises:
        RegistryError: The stored bundle is missing or damaged, or the folder holds something
            else or cannot be written.
    """
    checksum = version.tags.get(_CHECKSUM)
    if checksum is None:
        raise RegistryError(f"{version.label} has no checksum: it was not registered by qm9flow")
    is_cache = folder is None
    target = folder or locations.cache_folder() / "models" / checksum[:20]
    try:
        if target.is_dir() and any(target.iterdir()):
            if folder_sha256(target) == checksum:
                return target
            if not is_cache:
                raise RegistryError(f"{target} is not empty; name a new folder")
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
            copy = _download_bundle(version, Path(scratch), tracking_uri)
            _put(copy, target, checksum)
    except OSError as error:
        raise RegistryError(f"{target} cannot be written: {error}") from error
    return target


def verify(version: Version, tracking_uri: str | None = None) -> None:
    """Make sure that a version's bundle is there and undamaged.

    Args:
        version: The version.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Raises:
        RegistryError: It is not.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _download_bundle(version, Path(scratch), tracking_uri)


def load_evidence(version: Version, tracking_uri: str | None = None) -> Evidence:
    """What the gate compares.

    Args:
        version: The version.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The evidence.

    Raises:
        RegistryError: It is missing or damaged.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = _download_evidence(version, Path(scratch), tracking_uri)
        errors, scale = evidence.load(path)
        elsewhere = evidence.load_elsewhere(path)
    return Evidence(
        label=version.label,
        data_digest=version.tags.get("data_digest", ""),
        split_seed=version.tags.get("split_seed", ""),
        parity=float(version.tags.get("parity", "nan")),
        errors=errors,
        scale=scale,
        elsewhere=elsewhere,
    )


def _download_evidence(version: Version, scratch: Path, tracking_uri: str | None) -> Path:
    location = f"{version.location}/{GATE}/{evidence.FILE}"
    path = connect(tracking_uri).download(location, scratch)
    if file_sha256(path) != version.tags.get(_EVIDENCE_CHECKSUM):
        raise RegistryError(f"the validation errors of {version.label} are damaged")
    return path


def _download_bundle(version: Version, scratch: Path, tracking_uri: str | None) -> Path:
    copy = connect(tracking_uri).download(f"{version.location}/{BUNDLE}", scratch)
    if folder_sha256(copy) != version.tags.get(_CHECKSUM):
        raise RegistryError(
            f"the bundle of {version.label} in {version.location} differs from what was "
            "registered: do not use it; restore the file or promote another version"
        )
    return copy


def _put(copy: Path, target: Path, checksum: str) -> None:
    try:
        os.replace(copy, target)
    except OSError:
        # Another process fetched the same bundle meanwhile.
        if not target.is_dir() or folder_sha256(target) != checksum:
            raise


def _ensure_registered_model(connection: Connection) -> None:
    def create() -> None:
        try:
            connection.client.create_registered_model(MODEL_NAME)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    connection.call("creating the registered model", create)


def _card(bundle: Path) -> str | None:
    path = bundle / "card.md"
    if not path.exists():
        return None
    text = path.read_text()
    end = "\n\n... (all of it: card.md in the bundle)"
    return text if len(text) <= _CARD_CHARACTERS else text[: _CARD_CHARACTERS - len(end)] + end


def _aliases(connection: Connection) -> dict[str, int]:
    """Version number by alias."""
    model = connection.find(
        "reading aliases", lambda: connection.client.get_registered_model(MODEL_NAME)
    )
    return {alias: int(number) for alias, number in model.aliases.items()} if model else {}


def _version(item: ModelVersion, aliases: Mapping[str, int]) -> Version:
    number = int(item.version)
    return Version(
        number=number,
        aliases=tuple(sorted(alias for alias, at in aliases.items() if at == number)),
        run_id=item.run_id or "",
        created=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC),
        tags=dict(item.tags),
        location=item.source or "",
    )

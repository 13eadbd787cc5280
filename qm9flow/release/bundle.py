"""Bundles: a trained model as a folder that says everything about itself. No pickle.

| file | what |
| --- | --- |
| `config.json` | a `BundleRecord`, format number first |
| `weights.safetensors` | the network's weights |
| `model.onnx` | the whole model as a graph, for use without torch |
| `smiles.onnx`, `smiles.safetensors` | the same of a network for conformers, if there is one |
| `approximate.onnx`, `approximate.safetensors` | the same for other approximate geometries |
| `calibration.json` | what makes intervals and the domain, if it was measured |
| `card.md` | the record in words |
"""

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import BundleError
from qm9flow.inference.calibration import FILE as CALIBRATION
from qm9flow.inference.calibration import Calibration
from qm9flow.nn.catalog import build
from qm9flow.nn.choice import Choice
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.trust import Trust
from qm9flow.nn.weights import misfit
from qm9flow.release.card import model_card
from qm9flow.release.export import check_parity, export_onnx
from qm9flow.release.record import BundleRecord, Companion
from qm9flow.targets import TargetCodec

CONFIG, WEIGHTS, ONNX, CARD = "config.json", "weights.safetensors", "model.onnx", "card.md"


Measure = Callable[[Path, BundleRecord], tuple[BundleRecord, Calibration]]
"""From a bundle's folder, whose graphs are there, and its record to the record with what was
measured with them, and what makes intervals."""


@dataclass(frozen=True)
class Released:
    """A trained network as it goes into a bundle.

    Attributes:
        weights: safetensors bytes, named as in the network's state dict.
        trust: Fitted to it; None for a graph that gives values alone.
        choice: Fitted to a network for conformers.
    """

    weights: bytes
    trust: Trust | None = None
    choice: Choice | None = None


def write_bundle(
    folder: Path,
    record: BundleRecord,
    released: Released,
    *,
    dataset: Dataset,
    measure: Measure | None = None,
) -> BundleRecord:
    """Write a bundle: export the graph, prove parity, describe, and only then show the folder.

    Args:
        folder: Must not exist, or be empty. Appears complete or not at all.
        record: Without parity and files.
        released: The network's weights.
        dataset: Molecules for the parity check.
        measure: Completes the record; None leaves it as it is, without intervals.

    Returns:
        The record with parity and files, as written.

    Raises:
        BundleError: The weights do not fit the record, the folder holds something, or cannot be
            written.
        ExportError: The network cannot be exported.
        ParityError: The graph does not give the network's numbers.
    """
    model = _assemble(record.train, record.codec, released, "the weights")

    def fill(place: Path) -> BundleRecord:
        (place / WEIGHTS).write_bytes(released.weights)
        export_onnx(model, place / ONNX)
        parity = check_parity(model, place / ONNX, dataset)
        return _described(place, dataclasses.replace(record, parity=parity), measure)

    return _appear(folder, fill)


def extend_bundle(
    base: Path,
    folder: Path,
    companion: Companion,
    released: Released,
    *,
    dataset: Dataset,
    main: Released | None = None,
    measure: Measure | None = None,
) -> BundleRecord:
    """Write a bundle with one network more, or another one for the same source.

    Args:
        base: The bundle that gets it; it stays as it is.
        folder: Must not exist, or be empty. Appears complete or not at all.
        companion: The network, without parity.
        released: Its weights.
        dataset: Molecules for the parity check.
        main: The base's own network, whose graph is to be made anew; None leaves it as it is.
        measure: Completes the record; None leaves it as it is, and drops the intervals.

    Returns:
        The record of the new bundle.

    Raises:
        BundleError: As from `write_bundle`, or the base is damaged.
        ExportError: The network cannot be exported.
        ParityError: The graph does not give the network's numbers.
    """
    record, _ = read_bundle(base)
    source = companion.train.geometry
    model = _assemble(companion.train, record.codec, released, "the weights")

    def fill(place: Path) -> BundleRecord:
        for name in record.files:
            shutil.copyfile(base / name, place / name)
        parity_of_main = record.parity
        if main is not None:
            network = _assemble(record.train, record.codec, main, "the weights")
            export_onnx(network, place / ONNX)
            parity_of_main = check_parity(network, place / ONNX, dataset)
        weights, graph = companion_files(source)
        (place / weights).write_bytes(released.weights)
        export_onnx(model, place / graph)
        parity = check_parity(model, place / graph, dataset)
        added = dataclasses.replace(companion, parity=parity)
        companions = {**record.companions, source: added}
        whole = dataclasses.replace(record, companions=companions, parity=parity_of_main)
        return _described(place, whole, measure)

    return _appear(folder, fill)


def companion_files(source: str) -> tuple[str, str]:
    """Names of a companion's files.

    Args:
        source: Of the geometries that it is for.

    Returns:
        Weights and graph.
    """
    return f"{source}.safetensors", f"{source}.onnx"


def _appear(folder: Path, fill: Callable[[Path], BundleRecord]) -> BundleRecord:
    """Fill a folder under another name, then show it."""
    try:
        if folder.exists() and any(folder.iterdir()):
            raise BundleError(f"{folder} exists and is not empty: name a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            record = fill(temporary)
            temporary.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {folder}: {error}") from error
    return record


def _described(place: Path, record: BundleRecord, measure: Measure | None) -> BundleRecord:
    """Write what tells of the networks that lie there already."""
    (place / CALIBRATION).unlink(missing_ok=True)
    calibration = None
    if measure is not None:
        record, calibration = measure(place, record)
        (place / CALIBRATION).write_text(calibration.to_json())
    names = _binaries(record, has_calibration=calibration is not None)
    files = {name: _sha256((place / name).read_bytes()) for name in names}
    record = dataclasses.replace(record, files=files)
    (place / CONFIG).write_text(record.to_json())
    (place / CARD).write_text(model_card(record, calibration))
    return record


def _binaries(record: BundleRecord, *, has_calibration: bool) -> list[str]:
    """Files whose SHA-256 the record holds."""
    names = [WEIGHTS, ONNX]
    for source in record.companions:
        names += companion_files(source)
    return [*names, CALIBRATION] if has_calibration else names


def read_bundle(folder: Path) -> tuple[BundleRecord, bytes]:
    """Read a bundle and check all of it.

    Args:
        folder: As written by `write_bundle`.

    Returns:
        The record, and the weights as safetensors bytes.

    Raises:
        BundleError: A file is missing or changed, the format is unknown, or a key, shape or type
            is wrong; the message names the culprit.
    """
    record, weights = _read(folder)
    _assemble(record.train, record.codec, Released(weights), str(folder / WEIGHTS))
    return record, weights


def companion_weights(folder: Path, record: BundleRecord, source: str) -> bytes:
    """Weights of a bundle's network for other geometries.

    Args:
        folder: As written by `extend_bundle`.
        record: Of the bundle.
        source: Of the geometries.

    Returns:
        safetensors bytes.

    Raises:
        BundleError: There is no such network, or it is damaged.
    """
    name, _ = companion_files(source)
    if source not in record.companions:
        raise BundleError(f"{folder} has no network for geometries of the source {source}")
    weights = _verified(folder, name, record)
    where = str(folder / name)
    _assemble(record.companions[source].train, record.codec, Released(weights), where)
    return weights


def load_model(folder: Path) -> PropertyModel:
    """The model of a bundle, in torch.

    Args:
        folder: As written by `write_bundle`.

    Returns:
        On the CPU, in evaluation mode.

    Raises:
        BundleError: As from `read_bundle`.
    """
    record, weights = _read(folder)
    return _assemble(record.train, record.codec, Released(weights), str(folder / WEIGHTS))


def _read(folder: Path) -> tuple[BundleRecord, bytes]:
    record = BundleRecord.from_json(
        _bytes(folder, CONFIG).decode(errors="replace"), str(folder / CONFIG)
    )
    has_calibration = CALIBRATION in record.files or (folder / CALIBRATION).exists()
    for name in _binaries(record, has_calibration=has_calibration):
        _verified(folder, name, record)
    return record, _verified(folder, WEIGHTS, record)


def _verified(folder: Path, name: str, record: BundleRecord) -> bytes:
    blob = _bytes(folder, name)
    if name not in record.files:
        raise BundleError(f"{folder / CONFIG}: files lacks the key {name!r}")
    digest = _sha256(blob)
    if digest != record.files[name]:
        raise BundleError(
            f"{folder / name} is damaged or changed: its SHA-256 is {digest}, "
            f"{CONFIG} says {record.files[name]}; fetch or write the bundle again"
        )
    return blob


def _bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        what = "is no bundle" if not (folder / CONFIG).exists() else "is incomplete"
        raise BundleError(f"{folder} {what}: it has no file {name}") from error
    except OSError as error:
        raise BundleError(f"cannot read {folder / name}: {error}") from error


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _assemble(
    train: TrainConfig, codec: TargetCodec, released: Released, where: str
) -> PropertyModel:
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten at once
        network = build(train.model, codec.names)
    try:
        tensors = load(released.weights)
    except SafetensorError as error:
        raise BundleError(f"{where} cannot be read as safetensors: {error}") from error
    if problem := misfit(network.state_dict(), tensors):
        raise BundleError(f"{where}: {problem}")
    network.load_state_dict(tensors)
    return PropertyModel(network, codec, released.trust, released.choice).eval()

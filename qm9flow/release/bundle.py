"""Bundles: a trained model as a folder that says everything about itself. No pickle.

| file | what |
| --- | --- |
| `config.json` | a `BundleRecord`, format number first |
| `weights.safetensors` | the network's weights |
| `model.onnx` | the whole model as a graph, for use without torch |
| `card.md` | the record in words |
"""

import dataclasses
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from qm9flow.data.store import Dataset
from qm9flow.errors import BundleError
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.weights import misfit
from qm9flow.release.card import model_card
from qm9flow.release.export import check_parity, export_onnx
from qm9flow.release.record import BundleRecord

CONFIG, WEIGHTS, ONNX, CARD = "config.json", "weights.safetensors", "model.onnx", "card.md"


def write_bundle(
    folder: Path, record: BundleRecord, weights: bytes, *, dataset: Dataset
) -> BundleRecord:
    """Write a bundle: export the graph, prove parity, describe, and only then show the folder.

    Args:
        folder: Must not exist, or be empty. Appears complete or not at all.
        record: Without parity and files.
        weights: safetensors bytes, named as in the network's state dict.
        dataset: Molecules for the parity check.

    Returns:
        The record with parity and files, as written.

    Raises:
        BundleError: The weights do not fit the record, the folder holds something, or cannot be
            written.
        ExportError: The network cannot be exported.
        ParityError: The graph does not give the network's numbers.
    """
    model = _assemble(record, weights, "the weights")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise BundleError(f"{folder} exists and is not empty: name a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            record = _fill(temporary, record, model, weights, dataset)
            temporary.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {folder}: {error}") from error
    return record


def _fill(
    folder: Path, record: BundleRecord, model: PropertyModel, weights: bytes, dataset: Dataset
) -> BundleRecord:
    (folder / WEIGHTS).write_bytes(weights)
    export_onnx(model, folder / ONNX)
    record = dataclasses.replace(
        record,
        parity=check_parity(model, folder / ONNX, dataset),
        files={name: _sha256((folder / name).read_bytes()) for name in (WEIGHTS, ONNX)},
    )
    (folder / CONFIG).write_text(record.to_json())
    (folder / CARD).write_text(model_card(record))
    return record


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
    _assemble(record, weights, str(folder / WEIGHTS))
    return record, weights


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
    return _assemble(record, weights, str(folder / WEIGHTS))


def _read(folder: Path) -> tuple[BundleRecord, bytes]:
    record = BundleRecord.from_json(
        _bytes(folder, CONFIG).decode(errors="replace"), str(folder / CONFIG)
    )
    blobs = {name: _bytes(folder, name) for name in (WEIGHTS, ONNX)}
    for name, blob in blobs.items():
        if name not in record.files:
            raise BundleError(f"{folder / CONFIG}: files lacks the key {name!r}")
        digest = _sha256(blob)
        if digest != record.files[name]:
            raise BundleError(
                f"{folder / name} is damaged or changed: its SHA-256 is {digest}, "
                f"{CONFIG} says {record.files[name]}; fetch or write the bundle again"
            )
    return record, blobs[WEIGHTS]


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


def _assemble(record: BundleRecord, weights: bytes, where: str) -> PropertyModel:
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten at once
        network = build(record.train.model, record.codec.names)
    try:
        tensors = load(weights)
    except SafetensorError as error:
        raise BundleError(f"{where} cannot be read as safetensors: {error}") from error
    if problem := misfit(network.state_dict(), tensors):
        raise BundleError(f"{where}: {problem}")
    network.load_state_dict(tensors)
    return PropertyModel(network, record.codec).eval()

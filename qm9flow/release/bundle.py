"""Bundles: a trained model as a folder that says everything about itself. No pickle.

| file | what |
| --- | --- |
| `config.json` | a `BundleRecord`, format number first |
| `weights.safetensors` | the network's weights |
| `model.onnx` | the whole model as a graph, for use without torch |
| `rough.onnx`, `rough.safetensors` | the same of a network for other geometries, if there is one |
| `refiner.safetensors` | what refines geometries for it, a part of its graph |
| `choice.onnx`, `choice.safetensors` | what weighs conformers |
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
from torch import Tensor, nn

from qm9flow.config import DensityConfig, GeometrySource, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import BundleError, ConfigError
from qm9flow.inference.calibration import FILE as CALIBRATION
from qm9flow.inference.calibration import Calibration, SourceCalibration
from qm9flow.inference.predictor import CHOICE, ROUGH
from qm9flow.nn.catalog import build
from qm9flow.nn.choice import Choice
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.refiner import Refiner, make_refiner
from qm9flow.nn.trust import Trust
from qm9flow.nn.weights import misfit
from qm9flow.release.card import model_card
from qm9flow.release.export import check_choice, check_parity, export_choice, export_onnx
from qm9flow.release.record import BundleRecord, RoughRecord
from qm9flow.targets import TargetCodec

CONFIG, WEIGHTS, ONNX, CARD = "config.json", "weights.safetensors", "model.onnx", "card.md"
ROUGH_WEIGHTS, REFINER_WEIGHTS = "rough.safetensors", "refiner.safetensors"
CHOICE_WEIGHTS = "choice.safetensors"
_COMPANIONS = (ROUGH_WEIGHTS, REFINER_WEIGHTS, CHOICE_WEIGHTS, ROUGH, CHOICE)

Measure = Callable[[Path, BundleRecord], tuple[BundleRecord, Calibration]]
"""From a bundle's folder, whose graphs are there, and its record to the record with what was
measured with them, and what makes intervals."""


@dataclass(frozen=True)
class Released:
    """A trained network as it goes into a bundle.

    Attributes:
        weights: safetensors bytes, named as in the network's state dict.
        trust: Fitted to it; None for a graph that gives values alone.
    """

    weights: bytes
    trust: Trust | None = None


@dataclass(frozen=True)
class ReleasedRough:
    """Trained networks for other geometries than DFT's.

    Attributes:
        network: Predicts properties of refined geometries.
        refiner: safetensors bytes of what refines them.
        choice: safetensors bytes of what weighs conformers.
    """

    network: Released
    refiner: bytes
    choice: bytes


@dataclass(frozen=True)
class Companions:
    """Networks for other geometries than DFT's that a bundle takes over from another one.

    Attributes:
        bundle: The other one's folder.
        record: What the new one says of them.
        calibration: What makes their intervals.
    """

    bundle: Path
    record: RoughRecord
    calibration: dict[GeometrySource, SourceCalibration]


def write_bundle(
    folder: Path,
    record: BundleRecord,
    released: Released,
    *,
    dataset: Dataset,
    companions: Companions | None = None,
    measure: Measure | None = None,
) -> BundleRecord:
    """Write a bundle: export the graph, prove parity, describe, and only then show the folder.

    Args:
        folder: Must not exist, or be empty. Appears complete or not at all.
        record: Without parity and files.
        released: The network's weights.
        dataset: Molecules for the parity check.
        companions: Networks for other geometries, which come to stand beside it as they are.
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
        whole = dataclasses.replace(record, parity=check_parity(model, place / ONNX, dataset))
        if companions is not None:
            for name in _COMPANIONS:
                shutil.copyfile(companions.bundle / name, place / name)
            whole = dataclasses.replace(whole, rough=companions.record)
        return _described(place, whole, measure)

    return _appear(folder, fill)


def extend_bundle(
    base: Path,
    folder: Path,
    rough: RoughRecord,
    released: ReleasedRough,
    *,
    dataset: Dataset,
    main: Released | None = None,
    measure: Measure | None = None,
) -> BundleRecord:
    """Write a bundle with networks for other geometries beside another bundle's network.

    Args:
        base: The bundle that gets them; it stays as it is.
        folder: Must not exist, or be empty. Appears complete or not at all.
        rough: The networks, without parity.
        released: Their weights.
        dataset: Molecules for the parity check.
        main: The base's own network, whose graph is to be made anew; None leaves it as it is.
        measure: Completes the record; None leaves it as it is, and drops the intervals.

    Returns:
        The record of the new bundle.

    Raises:
        BundleError: As from `write_bundle`, or the base is damaged.
        ExportError: A network cannot be exported.
        ParityError: A graph does not give its network's numbers.
    """
    record, _ = read_bundle(base)
    model = _assemble(rough.train, record.codec, released.network, "the weights", released.refiner)
    choice = _choice(rough.choice, released.choice, "the weights of the choice")

    def fill(place: Path) -> BundleRecord:
        for name in _binaries(record, has_calibration=False):
            shutil.copyfile(base / name, place / name)
        parity_of_main = record.parity
        if main is not None:
            network = _assemble(record.train, record.codec, main, "the weights")
            export_onnx(network, place / ONNX)
            parity_of_main = check_parity(network, place / ONNX, dataset)
        (place / ROUGH_WEIGHTS).write_bytes(released.network.weights)
        (place / REFINER_WEIGHTS).write_bytes(released.refiner)
        (place / CHOICE_WEIGHTS).write_bytes(released.choice)
        export_onnx(model, place / ROUGH)
        export_choice(choice, place / CHOICE)
        check_choice(choice, place / CHOICE, dataset)
        parity = check_parity(model, place / ROUGH, dataset)
        added = dataclasses.replace(rough, parity=parity)
        whole = dataclasses.replace(record, rough=added, parity=parity_of_main)
        return _described(place, whole, measure)

    return _appear(folder, fill)


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
    if record.rough is not None:
        names += _COMPANIONS
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


def read_rough_weights(folder: Path) -> ReleasedRough | None:
    """The weights of the networks for other geometries in a bundle.

    Args:
        folder: As written by `extend_bundle`.

    Returns:
        The weights; None for a bundle that has no such networks.

    Raises:
        BundleError: As from `read_bundle`.
    """
    record, _ = _read(folder)
    if record.rough is None:
        return None
    network, refiner, choice = (
        _verified(folder, name, record) for name in (ROUGH_WEIGHTS, REFINER_WEIGHTS, CHOICE_WEIGHTS)
    )
    return ReleasedRough(Released(network), refiner, choice)


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
    train: TrainConfig,
    codec: TargetCodec,
    released: Released,
    where: str,
    refiner: bytes | None = None,
) -> PropertyModel:
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten at once
        network = build(train.model, codec.names)
    _fill(network, released.weights, where)
    refines = None if refiner is None else _refiner(train, refiner, f"{where} of the refiner")
    return PropertyModel(network, codec, released.trust, refines).eval()


def _refiner(train: TrainConfig, weights: bytes, where: str) -> Refiner:
    try:
        return make_refiner(train.model, _tensors(weights, where))
    except ConfigError as error:
        raise BundleError(f"{where}: {error}") from error


def _choice(train: TrainConfig, weights: bytes, where: str) -> Choice:
    if not isinstance(train.model, DensityConfig):
        raise BundleError(f"{where}: conformers are weighed by networks of the kind density only")
    with torch.random.fork_rng(devices=[]):
        choice = Choice(train.model)
    _fill(choice, weights, where)
    return choice.eval()


def _fill(network: nn.Module, weights: bytes, where: str) -> None:
    tensors = _tensors(weights, where)
    if problem := misfit(network.state_dict(), tensors):
        raise BundleError(f"{where}: {problem}")
    network.load_state_dict(tensors)


def _tensors(weights: bytes, where: str) -> dict[str, Tensor]:
    try:
        return load(weights)
    except SafetensorError as error:
        raise BundleError(f"{where} cannot be read as safetensors: {error}") from error

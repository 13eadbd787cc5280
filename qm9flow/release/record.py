"""What a bundle says about its model, as plain JSON."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from qm9flow import config
from qm9flow.config import TrainConfig, before_heads
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.elements import MAX_NUMBER
from qm9flow.errors import BundleError, ConfigError
from qm9flow.properties import TARGET_SETS
from qm9flow.release.export import Parity
from qm9flow.targets import TargetCodec
from qm9flow.training.metrics import training_codec

FORMAT = 8
"""Number of the format that is written."""


def _with_spread(data: dict[str, Any]) -> dict[str, Any]:
    """Format 1 knew nothing of the nuclear extent: none of it is a known part of any target."""
    codec = data.get("codec")
    if isinstance(codec, dict) and isinstance(codec.get("names"), list):
        return data | {"codec": {**codec, "spread": [0.0] * len(codec["names"])}}
    return data


def _from_fresh_weights(data: dict[str, Any]) -> dict[str, Any]:
    """Up to format 2 every training started from fresh weights."""
    train = data.get("train")
    return data | {"train": {**train, "start": None}} if isinstance(train, dict) else data


def _without_heads(data: dict[str, Any]) -> dict[str, Any]:
    """Up to format 3 no network had heads."""
    train = data.get("train")
    return data | {"train": before_heads(train)} if isinstance(train, dict) else data


def _at_full_size(data: dict[str, Any]) -> dict[str, Any]:
    """Up to format 4 no training set grew, and gradients stopped nothing but explosions."""
    train = data.get("train")
    if not isinstance(train, dict):
        return data
    return data | {"train": {**train, "growth": 0, "gradient_stop": "observe"}}


def _from_dft_alone(data: dict[str, Any]) -> dict[str, Any]:
    """Up to format 5 all networks learned from QM9's own geometries, and a bundle had one."""
    train = data.get("train")
    if not isinstance(train, dict):
        return data
    return data | {"train": {**train, "geometry": "dft"}, "companions": {}}


def _without_refiners(data: dict[str, Any]) -> dict[str, Any]:
    """Up to format 6 networks saw geometries as they were given, each source its own network; no
    model that was released had one for another source than DFT's."""
    data = {name: item for name, item in data.items() if name != "companions"}
    train = data.get("train")
    if not isinstance(train, dict):
        return data
    return data | {"train": {**train, "refiner": None}, "rough": None}


def _made_here(data: dict[str, Any]) -> dict[str, Any]:
    """Up to format 7 no networks for other geometries were taken over from another model."""
    rough = data.get("rough")
    return data | {"rough": {**rough, "inherited": None}} if isinstance(rough, dict) else data


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _with_spread,
    2: _from_fresh_weights,
    3: _without_heads,
    4: _at_full_size,
    5: _from_dft_alone,
    6: _without_refiners,
    7: _made_here,
}
"""From what a format held to what the next one holds, by the older one's number."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Origin:
    """The model that networks for other geometries than DFT's were made for.

    Attributes:
        model: What it was called where they were first taken over from it.
        weights: SHA-256 of its `weights.safetensors`, the network for DFT's geometries.
    """

    model: str
    weights: str


@dataclass(frozen=True)
class RoughRecord:
    """Networks beside the main one, for approximate geometries and SMILES.

    Attributes:
        train: How the network for properties was trained.
        refiner: How the one that refines geometries was trained.
        choice: How the one that weighs conformers was trained.
        validation_mae: By source of geometries, by target, in its unit.
        test_mae: By source of geometries, by target, in its unit.
        metrics: Whatever else was measured, by name; those of the refiner and the choice have
            their names in front.
        verdict: What the gradients said over the whole training of the first one.
        git_commit: Of the code, None if unknown.
        hardware: What they were trained on, in words.
        versions: Of the packages they were trained with.
        created: When, ISO 8601, UTC.
        parity: Of their graph; set when the bundle is written.
        inherited: The model that they, and all that is said of them here, come from unchanged;
            None where they were made for this bundle.
    """

    train: TrainConfig
    refiner: TrainConfig
    choice: TrainConfig
    validation_mae: dict[str, dict[str, float]] = field(default_factory=dict)
    test_mae: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    verdict: str = "healthy"
    git_commit: str | None = None
    hardware: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=_now)
    parity: Parity | None = None
    inherited: Origin | None = None

    def plain(self) -> dict[str, Any]:
        """As plain JSON values.

        Returns:
            What `_rough` reads.
        """
        trains = {name: config.to_dict(getattr(self, name)) for name in _TRAININGS}
        nested = {name: _plain(getattr(self, name)) for name in ("parity", "inherited")}
        return {**_fields(self), **trains, **nested}


_TRAININGS = ("train", "refiner", "choice")


@dataclass(frozen=True)
class BundleRecord:
    """Everything about a released model that is no weight.

    Attributes:
        train: How it was trained; names the network.
        codec: Between what the network says and physical values.
        data_digest: Of the data set.
        split_name: Of the split it was trained on.
        split_seed: Of that split.
        split_digest: Of that split.
        validation_mae: By target, in its unit; may be empty.
        test_mae: By target, in its unit; may be empty.
        metrics: Whatever else was measured, by name.
        verdict: What the gradients said over the whole training.
        git_commit: Of the code, None if unknown.
        hardware: What it was trained on, in words.
        versions: Of the packages it was trained with.
        created: When, ISO 8601, UTC.
        parity: Of `model.onnx`; set by `write_bundle`.
        files: SHA-256 of all files but `config.json` and `card.md`, by name; set by
            `write_bundle`.
        rough: Networks for other geometries than DFT's, if there are any.
    """

    train: TrainConfig
    codec: TargetCodec
    data_digest: str
    split_name: str
    split_seed: int
    split_digest: str
    validation_mae: dict[str, float] = field(default_factory=dict)
    test_mae: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    verdict: str = "healthy"
    git_commit: str | None = None
    hardware: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=_now)
    parity: Parity | None = None
    files: dict[str, str] = field(default_factory=dict)
    rough: RoughRecord | None = None

    def to_json(self) -> str:
        """As the text of `config.json`.

        Returns:
            What `from_json` reads.

        Raises:
            BundleError: A number is not finite.
        """
        plain = _fields(self) | {
            "train": config.to_dict(self.train),
            "codec": self.codec.to_dict(),
            "parity": _plain(self.parity),
            "rough": None if self.rough is None else self.rough.plain(),
        }
        try:
            return json.dumps({"format": FORMAT, **plain}, indent=2, allow_nan=False) + "\n"
        except ValueError as error:
            culprit = next((key for key in plain if not _is_finite(plain[key])), "a value")
            raise BundleError(f"{culprit} of the record holds a number that is not finite") from (
                error
            )

    @classmethod
    def from_json(cls, text: str, where: str) -> "BundleRecord":
        """The record that `to_json` wrote, of this or an older format.

        Args:
            text: Of `config.json`.
            where: Name of the file, for messages.

        Returns:
            The record.

        Raises:
            BundleError: The text is no record, of an unknown format, or a key is missing, unknown
                or of a wrong type; the message names it.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{where} is no JSON, or cut short: {error}") from error
        if not isinstance(data, dict):
            raise BundleError(f"{where} must hold an object, got {type(data).__name__}")
        values = _checked(_upgraded(data, where), _VALUES, _TABLES, where)
        values["train"] = _train(values["train"], where)
        values["rough"] = _rough(values["rough"], f"{where}: rough")
        values["codec"] = _codec(values["codec"], f"{where}: codec")
        values["parity"] = _parity(values["parity"], f"{where}: parity")
        return cls(**values)


def record_of(train: TrainConfig, dataset: Dataset) -> BundleRecord:
    """What is known of a model before it is measured.

    Args:
        train: How it was trained.
        dataset: What it was trained on.

    Returns:
        The record, to be completed.

    Raises:
        ConfigError: The split has fewer molecules than the training asks for.
    """
    split = make_split(train.split, len(dataset), train.split_seed)
    return BundleRecord(
        train=train,
        codec=training_codec(train, dataset, split),
        data_digest=dataset.digest,
        split_name=split.name,
        split_seed=split.seed,
        split_digest=split.digest,
    )


_VALUES: dict[str, type | tuple[type, ...]] = {
    "train": dict,
    "codec": dict,
    "data_digest": str,
    "split_name": str,
    "split_seed": int,
    "split_digest": str,
    "verdict": str,
    "git_commit": (str, type(None)),
    "created": str,
    "parity": (dict, type(None)),
    "rough": (dict, type(None)),
}
_TABLES: dict[str, type] = {
    "validation_mae": float,
    "test_mae": float,
    "metrics": float,
    "hardware": str,
    "versions": str,
    "files": str,
}
"""Keys that hold a table, and what its values are."""
_ROUGH_VALUES = {
    **dict.fromkeys((*_TRAININGS, "validation_mae", "test_mae"), dict),
    **{name: _VALUES[name] for name in ("verdict", "git_commit", "created", "parity")},
    "inherited": (dict, type(None)),
}
_ROUGH_TABLES = {name: _TABLES[name] for name in ("metrics", "hardware", "versions")}


def _upgraded(data: dict[str, Any], where: str) -> dict[str, Any]:
    number = data.pop("format", None)
    while number in UPGRADES:
        data = UPGRADES[number](data)
        number += 1
    if number != FORMAT:
        newer = isinstance(number, int) and number > FORMAT
        hint = "install a newer qm9flow" if newer else "write the bundle again"
        raise BundleError(
            f"{where} has format {number!r}, this version reads formats up to {FORMAT}: {hint}"
        )
    return data


def _checked(
    data: dict[str, Any],
    single: Mapping[str, type | tuple[type, ...]],
    tables: Mapping[str, type],
    where: str,
) -> dict[str, Any]:
    known = single.keys() | tables.keys()
    if missing := sorted(known - data.keys()):
        raise BundleError(f"{where} lacks the key {missing[0]!r}: the bundle is incomplete")
    if unknown := sorted(data.keys() - known):
        raise BundleError(f"{where} has an unknown key {unknown[0]!r}")
    for key, kind in single.items():
        _require_kind(data[key], kind, f"{where}: {key}")
    for key, kind in tables.items():
        _require_kind(data[key], dict, f"{where}: {key}")
        for name, item in data[key].items():
            _require_kind(item, (int, float) if kind is float else kind, f"{where}: {key}.{name}")
    return data


def _require_kind(value: Any, kind: type | tuple[type, ...], where: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(item.__name__ for item in kinds)
        raise BundleError(f"{where} must be {expected}, got {value!r}")


def _train(data: Mapping[str, Any], where: str) -> TrainConfig:
    try:
        return config.from_dict(TrainConfig, data)
    except ConfigError as error:
        raise BundleError(f"{where}: train: {error}") from error


def _rough(data: Any, where: str) -> RoughRecord | None:
    if data is None:
        return None
    values = dict(_checked(data, _ROUGH_VALUES, _ROUGH_TABLES, where))
    for name in _TRAININGS:
        values[name] = _train(values[name], f"{where}: {name}")
    for name in ("validation_mae", "test_mae"):
        for source, table in values[name].items():
            _require_kind(table, dict, f"{where}: {name}.{source}")
            for target, item in table.items():
                _require_kind(item, (int, float), f"{where}: {name}.{source}.{target}")
    values["parity"] = _parity(values["parity"], f"{where}: parity")
    values["inherited"] = _origin(values["inherited"], f"{where}: inherited")
    return RoughRecord(**values)


def _origin(data: dict[str, Any] | None, where: str) -> Origin | None:
    if data is None:
        return None
    return Origin(**_checked(data, {"model": str, "weights": str}, {}, where))


def _fields(record: Any) -> dict[str, Any]:
    return {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}


def _plain(item: Parity | Origin | None) -> dict[str, Any] | None:
    return None if item is None else dataclasses.asdict(item)


def _codec(data: dict[str, Any], where: str) -> TargetCodec:
    try:
        codec = TargetCodec.from_dict(data)
    except KeyError as error:
        raise BundleError(f"{where} lacks the key {error}") from error
    except (TypeError, ValueError) as error:
        raise BundleError(f"{where} holds what is no array of numbers: {error}") from error
    if codec.names not in TARGET_SETS.values():
        raise BundleError(f"{where}: names are of no target set of this version: {codec.names}")
    width = len(codec.names)
    shapes: dict[str, tuple[int, ...]] = {"references": (MAX_NUMBER + 1, width)}
    shapes |= dict.fromkeys(("spread", "offset", "scale"), (width,))
    for name, shape in shapes.items():
        array = getattr(codec, name)
        if array.shape != shape:
            raise BundleError(f"{where}: {name} must have shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise BundleError(f"{where}: {name} holds a number that is not finite")
    if (codec.scale <= 0).any():
        raise BundleError(f"{where}: scale must be above 0, got {codec.scale.min()}")
    return codec


def _parity(data: dict[str, Any] | None, where: str) -> Parity | None:
    if data is None:
        return None
    try:
        return Parity(**data)
    except TypeError as error:
        raise BundleError(f"{where} cannot be read: {error}") from error


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True

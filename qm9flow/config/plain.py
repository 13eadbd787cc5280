"""Configurations to plain values and back, and the files that hold such values."""

import dataclasses
import json
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from qm9flow.config.networks import MODEL_CONFIGS, ModelConfig
from qm9flow.errors import ConfigError

C = TypeVar("C")

_EXAMPLE = '`[model]` and below it `architecture = "density"` in TOML'


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values.

    Args:
        config: A configuration dataclass.

    Returns:
        What `from_dict` reads; a network's table has the key `architecture`.
    """
    values: dict[str, Any] = {}
    if hasattr(config, "architecture"):
        values["architecture"] = config.architecture
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        values[item.name] = to_dict(value) if dataclasses.is_dataclass(value) else value
    return values


def _matches(value: Any, expected: Any) -> bool:
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return any(_matches(value, option) for option in get_args(expected))
    if origin is Literal:
        return value in get_args(expected)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def _exact(value: Any, expected: Any) -> Any:
    """A whole number as a float where one is expected: 45 and 45.0 are the same training."""
    options = get_args(expected) or (expected,)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_whole and float in options and int not in options else value


def _describe(expected: Any) -> str:
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(str, get_args(expected)))
    if get_origin(expected) in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(expected))
    return "nothing" if expected is type(None) else str(expected.__name__)


def model_from_dict(data: Mapping[str, Any]) -> ModelConfig:
    """A network's configuration from its table.

    Args:
        data: `architecture` and its options.

    Returns:
        The configuration.

    Raises:
        ConfigError: Unknown architecture or option, or a value of a wrong type or out of range.
    """
    options = dict(data)
    name = options.pop("architecture", None)
    known = ", ".join(MODEL_CONFIGS)
    if name is None:
        raise ConfigError(f"model needs an architecture, one of {known}: {_EXAMPLE}")
    if not isinstance(name, str) or name not in MODEL_CONFIGS:
        raise ConfigError(f"unknown architecture {name!r}; the architectures are {known}")
    return from_dict(MODEL_CONFIGS[name], options)


def from_dict(kind: type[C], data: Mapping[str, Any]) -> C:
    """A configuration from plain values, over the defaults.

    Args:
        kind: The dataclass to make.
        data: Some or all of its fields.

    Returns:
        The configuration.

    Raises:
        ConfigError: An unknown key, or a value of a wrong type or out of range.
    """
    types_of = get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(cast(Any, kind))]
    hints = {name: types_of[name] for name in names}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            raise ConfigError(f"unknown option {key!r}; the options are {', '.join(hints)}")
        if key == "model" and isinstance(value, Mapping):
            values[key] = model_from_dict(value)
        elif _matches(value, hints[key]):
            values[key] = _exact(value, hints[key])
        elif key == "model":
            raise ConfigError(f"model must be a table, got {value!r}: {_EXAMPLE}")
        else:
            raise ConfigError(f"{key} must be {_describe(hints[key])}, got {value!r}")
    return kind(**values)


def load_file(path: Path) -> dict[str, Any]:
    """Options from a TOML or JSON file.

    Args:
        path: A `.toml` or `.json` file.

    Returns:
        Its top-level table.

    Raises:
        ConfigError: The file cannot be read or holds no table.
    """
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"the configuration file {path} must hold a table of options")
    return data

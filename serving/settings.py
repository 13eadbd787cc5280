"""The configuration that the starter of a service hands to its processes.

A model that lies in the folder `bundle` beside this file, as a bento may carry one, is served
unless another is named.

Environment variables:
    QM9FLOW_SERVING: Fields of `ServeConfig` as a JSON object, as `qm9flow serve` sets them.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from qm9flow.config import SERVE_ENVIRONMENT, ServeConfig, from_dict
from qm9flow.errors import ConfigError

BUILT_IN = Path(__file__).resolve().parent / "bundle"
"""A bundle that travels with the code."""


def read_settings(
    environment: Mapping[str, str] = os.environ, built_in: Path = BUILT_IN
) -> ServeConfig:
    """The configuration of this process's service.

    Args:
        environment: Environment variables.
        built_in: Where a bundle may lie that is served if nothing else is named.

    Returns:
        The configuration; defaults where nothing is set.

    Raises:
        ConfigError: The variable holds something else.
    """
    text = environment.get(SERVE_ENVIRONMENT) or "{}"
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{SERVE_ENVIRONMENT} must hold a JSON object, got {text!r}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{SERVE_ENVIRONMENT} must hold a JSON object, got {text!r}")
    if not {"model", "bundle"} & set(values) and (built_in / "model.onnx").is_file():
        values["model"] = str(built_in)
    return from_dict(ServeConfig, values)

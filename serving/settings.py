"""The configuration that the starter of a service hands to its processes.

Environment variables:
    QM9FLOW_SERVING: Fields of `ServeConfig` as a JSON object, as `qm9flow serve` sets them.
"""

import json
import os
from collections.abc import Mapping

from qm9flow.config import SERVE_ENVIRONMENT, ServeConfig, from_dict
from qm9flow.errors import ConfigError


def read_settings(environment: Mapping[str, str] = os.environ) -> ServeConfig:
    """The configuration of this process's service.

    Args:
        environment: Environment variables.

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
    return from_dict(ServeConfig, values)

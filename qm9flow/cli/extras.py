"""Which extra of qm9flow brings which module, and what to say where one is missing."""

import importlib.util
from collections.abc import Sequence

from qm9flow.errors import DependencyError

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": (
        "torch",
        "torch_geometric",
        "pytorch_optimizer",
        "safetensors",
        "onnx",
        "onnxscript",
        "optuna",
        "scipy",
        "tensorboard",
        "matplotlib",
        "plotly",
        "qm9pack",
        "pyarrow",
    ),
    "serve": ("bentoml", "chemiscope", "httptools", "orjson", "uvloop"),
    "cluster": ("ray",),
    "postgres": ("psycopg",),
}
"""Modules by extra, in pyproject.toml's order."""


def require(extra: str) -> None:
    """Find out before the work begins whether an extra is installed, without loading it.

    Args:
        extra: A key of `EXTRAS`.

    Raises:
        DependencyError: Modules of it are missing; the message names them and the remedy.
    """
    missing = [module for module in EXTRAS[extra] if _is_missing(module)]
    if missing:
        raise _error(extra, missing)


def explained(error: ModuleNotFoundError) -> DependencyError | None:
    """What to say of a module that was not found.

    Args:
        error: Raised by an import.

    Returns:
        The error to show; None if no extra brings the module, or if it is there but broken.
    """
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules and _is_missing(module):
            return _error(extra, [module])
    return None


def _is_missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ImportError:
        return True


def _error(extra: str, missing: Sequence[str]) -> DependencyError:
    verb = "is" if len(missing) == 1 else "are"
    return DependencyError(
        f"this needs {', '.join(missing)}, which {verb} not installed: "
        f"pip install 'qm9flow[{extra}]'"
    )

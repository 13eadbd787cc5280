"""qm9flow: from QM9's tables to a promoted, exported, served graph neural network.

For Python programs: `qm9flow.load("models:/qm9flow@champion").predict(["CCO"])`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qm9flow.model import Model as Model
    from qm9flow.model import load as load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> object:
    """`load` and `Model`, imported when first asked for: `import qm9flow` alone loads nothing."""
    if name in ("load", "Model"):
        from qm9flow import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

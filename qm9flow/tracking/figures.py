"""Figures of one trial, drawn without a display."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def write_heat_map(arrays: Mapping[str, npt.NDArray[Any]], title: str, path: Path) -> None:
    """Draw a trial's gradients, layer by epoch.

    Args:
        arrays: As `qm9flow.tracking.spool.gradient_arrays` makes them.
        title: What the figure shows.
        path: The PNG to write.
    """
    layers = [str(name) for name in arrays["layers"]]
    epochs = arrays["epoch"]
    norm = np.asarray(arrays["norm"], dtype=np.float64).T
    size = np.full(norm.shape, np.nan)
    usable = np.isfinite(norm) & (norm > 0)
    size[usable] = np.log10(norm[usable])
    zeros = 100 * np.asarray(arrays["zero_share"], dtype=np.float64).T

    width = min(18.0, 6.5 + 0.3 * len(epochs))
    figure = Figure(figsize=(width, 1.8 + 0.24 * len(layers)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    panels = (
        (left, size, "viridis", "log10 of the gradient norm (grey: zero, NaN or inf)", None, None),
        (right, zeros, "magma", "components that are exactly zero, %", 0, 100),
    )
    for axes, values, colours, label, low, high in panels:
        axes.set_facecolor("0.75")
        image = axes.imshow(
            values, aspect="auto", interpolation="nearest", cmap=colours, vmin=low, vmax=high
        )
        figure.colorbar(image, ax=axes, shrink=0.9)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("epoch")
        shown = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 10)).round().astype(int))
        axes.set_xticks(shown, [str(epochs[index]) for index in shown])
    left.set_yticks(range(len(layers)), layers, fontsize=8)
    left.set_ylabel("layer, input at the top")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110, metadata={"Software": None})

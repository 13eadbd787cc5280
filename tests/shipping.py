"""A small model in the place of the one that comes with qm9flow."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import registering
import served

from qm9flow.data.store import Dataset
from qm9flow.registry import evidence, pretrained
from qm9flow.tracking.curves import write_curves

CODE = """
import sys
from pathlib import Path
from qm9flow.registry import pretrained
pretrained.FOLDER = Path({folder!r})
"""
"""What a process of its own runs first to have that model."""


CURVES = {epoch: {"val/score": 0.5 / epoch, "train/loss": 0.25 / epoch} for epoch in (1, 2, 4)}


COMPANIONS = Path(__file__).resolve().parent / "release" / "format_7"
"""A small bundle with networks for other geometries than DFT's."""


def ship(dataset: Dataset, folder: Path, factor: float = 1.0, n: int = 400) -> Path:
    """Write it: the served bundle, with errors as `Registry.add` gives its versions."""
    shutil.copytree(served.bundle(dataset), folder / pretrained.BUNDLE)
    errors = registering.errors(factor, n).astype(np.float32)
    evidence.save(folder / evidence.FILE, errors, registering.SCALE)
    write_curves(CURVES, folder / pretrained.CURVES)
    return folder


def ship_with_companions(folder: Path, factor: float = 1.0, n: int = 400) -> Path:
    """Write one that has networks for other geometries; a few molecules have none."""
    shutil.copytree(COMPANIONS, folder / pretrained.BUNDLE)
    errors = registering.errors(factor, n).astype(np.float32)
    elsewhere = {"smiles": errors * 3, "approximate": errors * 2}
    for item in elsewhere.values():
        item[::7] = np.nan
    evidence.save(folder / evidence.FILE, errors, registering.SCALE, elsewhere)
    for name in (pretrained.CURVES, pretrained.ROUGH_CURVES):
        write_curves(CURVES, folder / name)
    return folder


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let this process have it."""
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    return folder

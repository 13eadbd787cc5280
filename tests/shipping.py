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


def ship(dataset: Dataset, folder: Path, factor: float = 1.0, n: int = 400) -> Path:
    """Write it: the served bundle, with errors as `Registry.add` gives its versions."""
    shutil.copytree(served.bundle(dataset), folder / pretrained.BUNDLE)
    errors = registering.errors(factor, n).astype(np.float32)
    evidence.save(folder / evidence.FILE, errors, registering.SCALE)
    write_curves(CURVES, folder / pretrained.CURVES)
    return folder


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let this process have it."""
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    return folder

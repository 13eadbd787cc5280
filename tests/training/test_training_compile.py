"""Compiled training steps."""

import shutil
from dataclasses import replace

import pytest

from qm9flow.config import DensityConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.training.events import CheckpointReady, Finished
from qm9flow.training.fit import fit


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler"
)
def test_compiled_steps_are_the_same_steps(tiny: TrainConfig, dataset: Dataset) -> None:
    """Up to rounding, and a training that was begun without goes on with them."""
    network = DensityConfig(layers=2, hidden=8, vectors=4, channels=3, radial=4)
    config = replace(tiny, model=network, max_epochs=2, optimizer="muon", learning_rate=1e-4)
    *_, plain = fit(config, dataset)
    *_, compiled = fit(replace(config, compile=True), dataset)
    assert isinstance(plain, Finished)
    assert isinstance(compiled, Finished), compiled
    score = plain.best_metrics["val/score"]
    assert compiled.best_metrics["val/score"] == pytest.approx(score, rel=1e-3)
    blob = next(e.blob for e in fit(config, dataset) if isinstance(e, CheckpointReady))
    *_, resumed = fit(replace(config, compile=True), dataset, checkpoint=blob)
    assert isinstance(resumed, Finished)
    assert resumed.best_metrics["val/score"] == pytest.approx(score, rel=1e-3)

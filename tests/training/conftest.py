"""A training small enough for tests."""

import pytest
from hypothesis import settings

from qm9flow.config import MPNNConfig, TrainConfig

settings.register_profile("shared_cores", deadline=None)
settings.load_profile("shared_cores")


@pytest.fixture
def tiny() -> TrainConfig:
    """A few hundred molecules, a few hundred weights, on the CPU."""
    return TrainConfig(
        model=MPNNConfig(conv_layers=1, fc_layers=1, hidden=8, edge_width=8, radial=8),
        train_size=192,
        val_size=48,
        batch_size=32,
        max_epochs=4,
        warmup_steps=3,
        monitor_every=2,
        device="cpu",
        threads=1,
    )

"""One small bundle, written once."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from qm9flow.config import MPNNConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.release.bundle import Released, write_bundle
from qm9flow.release.record import BundleRecord, record_of

SMALL = MPNNConfig(conv_layers=2, fc_layers=2, hidden=8, edge_width=4, radial=8)


@pytest.fixture(scope="session")
def record(dataset: Dataset) -> BundleRecord:
    """Of a small untrained network."""
    train = TrainConfig(model=SMALL, split="standard", train_size=2000)
    return dataclasses.replace(
        record_of(train, dataset),
        validation_mae={"homo": 0.0512, "u0": 0.0314},
        test_mae={"homo": 0.0533},
        metrics={"val/score": 0.07},
        git_commit="0123abc",
        hardware={"processor": "one core"},
        versions={"torch": torch.__version__},
    )


@pytest.fixture(scope="session")
def weights() -> bytes:
    """Of that network."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return save(build(SMALL, LEARNED).state_dict())


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, record: BundleRecord, weights: bytes, dataset: Dataset
) -> Path:
    """Its folder; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_bundle(folder, record, Released(weights), dataset=dataset)
    return folder

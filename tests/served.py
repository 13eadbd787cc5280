"""A small model, made as the real ones are: network, bundle, registered version, champion."""

import dataclasses
import tempfile
from functools import cache
from pathlib import Path

import registering
import torch
from databases import put_database
from mlflow import MlflowClient
from safetensors.torch import save

from qm9flow.config import MPNNConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.registry.aliases import promote
from qm9flow.registry.versions import register
from qm9flow.release.bundle import Released, write_bundle
from qm9flow.release.record import record_of

WATER = "3\nwater\nO 0.0 0.0 0.1173\nH 0.0 0.7572 -0.4692\nH 0.0 -0.7572 -0.4692\n"


@cache
def bundle(dataset: Dataset, seed: int = 3) -> Path:
    """Its bundle; made once in a test run, not to be changed. Another seed, other numbers."""
    network = MPNNConfig(conv_layers=1, fc_layers=1, hidden=8, edge_width=4, radial=8)
    train = TrainConfig(model=network, split="standard", train_size=2000)
    record = dataclasses.replace(
        record_of(train, dataset), validation_mae={"homo": 0.05}, git_commit="0123abc"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = save(build(network, LEARNED).state_dict())
    folder = Path(tempfile.mkdtemp(prefix="qm9flow-served-")) / "bundle"
    write_bundle(folder, record, Released(weights), dataset=dataset)
    return folder


@cache
def store(dataset: Dataset) -> str:
    """URI of a store where that bundle is version 1 and champion."""
    folder = Path(tempfile.mkdtemp(prefix="qm9flow-served-store-"))
    uri = f"sqlite:///{put_database(folder)}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("served", str(folder / "mlruns"))
    run_id = client.create_run(experiment).info.run_id
    version = register(
        bundle(dataset),
        run_id,
        validation_errors=registering.errors(),
        scale=registering.SCALE,
        tags=registering.facts("served"),
        tracking_uri=uri,
    )
    promote(version, tracking_uri=uri)
    return uri

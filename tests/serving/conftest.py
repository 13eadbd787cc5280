"""The service in this process, with a real registered model; no port, no second process."""

import dataclasses
import json
from collections.abc import Iterator

import pytest
import served
from starlette.testclient import TestClient

from qm9flow.config import SERVE_ENVIRONMENT, ServeConfig
from qm9flow.data.store import Dataset
from qm9flow.registry.find import FoundModel, find_model
from serving.service import QM9Flow, current_runtime

LIMITS = ServeConfig(
    max_molecules=20, max_body_bytes=50_000, max_atoms=100, conformer_workers=1, device="cpu"
)


@pytest.fixture(scope="session")
def champion(dataset: Dataset) -> FoundModel:
    """Version 1 of a real registry, fetched."""
    return find_model("champion", served.store(dataset))


@pytest.fixture(scope="session")
def client(champion: FoundModel, dataset: Dataset) -> Iterator[TestClient]:
    """The service with small limits, ready."""
    config = dataclasses.replace(
        LIMITS,
        bundle=str(champion.bundle),
        version=champion.version,
        alias=champion.alias,
        tracking_uri=served.store(dataset),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SERVE_ENVIRONMENT, json.dumps(dataclasses.asdict(config)))
        with TestClient(QM9Flow.to_asgi(), raise_server_exceptions=False) as client:
            runtime = current_runtime()
            assert runtime is not None
            runtime.wait(120)
            yield client

"""The service in this process, with a real registered model; and one as a real server."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import registering
import served
from live import SEEDS, Setting, environment_of
from real_server import real_server
from starlette.testclient import TestClient

from qm9flow.config import SERVE_ENVIRONMENT, ServeConfig
from qm9flow.config.keys import append_key, make_key
from qm9flow.data.store import Dataset
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.xyz import from_xyz
from qm9flow.registry.aliases import promote
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


@pytest.fixture(scope="module")
def setting(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A server that follows the champion of a registry of three versions."""
    folder = tmp_path_factory.mktemp("registry")
    registry = registering.open_registry(folder, served.bundle(dataset))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(folder).items():
            patch.setenv(name, value)
        for number, seed in SEEDS.items():
            bundle = Path(shutil.copytree(served.bundle(dataset, seed), folder / f"b{number}"))
            (bundle / "card.md").write_text(f"version {number}")
            version = registry.add(str(number), bundle=bundle)
            if number == 1:
                promote(version)
        key, line = make_key("tests")
        append_key(folder / "keys.txt", line)
        options = ("--keys", str(folder / "keys.txt"), "--poll-seconds", "0.3")
        with real_server(
            folder, *options, "--access-log", "access.log", environment=environment_of(folder)
        ) as server:
            yield Setting(server, registry, key)


@pytest.fixture(scope="module")
def gaps(dataset: Dataset) -> dict[int, float]:
    """The gap of water, by version."""
    water = from_xyz(served.WATER)
    found = {}
    for number, seed in SEEDS.items():
        predictor = Predictor(served.bundle(dataset, seed), provider="cpu", threads=1)
        gap = predictor.predict([water], ["gap"])[0].values["gap"]
        assert gap is not None
        found[number] = gap
    assert abs(found[1] - found[2]) > 0.01
    return found

from collections.abc import Iterator
from pathlib import Path

import pytest
import served

from qm9flow.data.store import Dataset
from qm9flow.model import Model
from qm9flow.molecules.pool import MoleculePool
from qm9flow.registry.find import find_model


@pytest.fixture(scope="session")
def bundle(dataset: Dataset) -> Path:
    """A bundle with a real, small network."""
    return served.bundle(dataset)


@pytest.fixture(scope="session")
def model(bundle: Path) -> Model:
    """That network, open on the CPU."""
    return Model(find_model(str(bundle)), "cpu")


@pytest.fixture(scope="session")
def pool() -> Iterator[MoleculePool]:
    """Processes that tests share."""
    with MoleculePool(2) as pool:
        yield pool

from pathlib import Path

import pytest
import served
from registering import Registry, open_registry

from qm9flow.data.store import Dataset


@pytest.fixture
def registry(stores_in: Path, dataset: Dataset) -> Registry:
    """An empty registry in the current folder, a run and a real bundle to register."""
    return open_registry(stores_in, served.bundle(dataset))

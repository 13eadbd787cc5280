from pathlib import Path

import pytest
import served

from qm9flow.data.store import Dataset
from qm9flow.inference.predictor import Predictor


@pytest.fixture(scope="session")
def bundle(dataset: Dataset) -> Path:
    """A bundle with a real, small network."""
    return served.bundle(dataset)


@pytest.fixture(scope="session")
def predictor(bundle: Path) -> Predictor:
    """That network, open on the CPU."""
    return Predictor(bundle, provider="cpu", threads=1)

"""Predictions of many molecules."""

import numpy as np
import pytest
import torch

from qm9flow.config import MPNNConfig
from qm9flow.data.store import Dataset
from qm9flow.elements import MAX_NUMBER
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED
from qm9flow.targets import TargetCodec
from qm9flow.training.predict import predict


@pytest.fixture
def model() -> PropertyModel:
    torch.manual_seed(0)
    network = build(MPNNConfig(conv_layers=1, fc_layers=1, hidden=8, radial=8), LEARNED)
    references = np.zeros((MAX_NUMBER + 1, len(LEARNED)))
    references[6] = -1000.0
    spread = (np.array(LEARNED) == "r2").astype(np.float64)
    codec = TargetCodec(LEARNED, references, spread, np.ones(10), np.full(10, 2.0))
    return PropertyModel(network, codec)


def test_predictions_come_in_the_order_asked_for(model: PropertyModel, dataset: Dataset) -> None:
    indices = np.array([9000, 0, 130_830, 5, 5, 777])
    values = predict(model, dataset, indices)
    assert values.shape == (6, 10)
    assert values.dtype == np.float64
    for row, index in enumerate(indices):
        molecule = dataset.molecule(int(index))
        numbers = torch.from_numpy(molecule.numbers)[None]
        positions = torch.from_numpy(molecule.positions.astype(np.float32))[None]
        with torch.no_grad():
            alone = model(numbers, positions)[0].numpy()
        np.testing.assert_allclose(values[row], alone, rtol=1e-6, atol=1e-5)


def test_the_batches_do_not_matter(
    model: PropertyModel, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = np.arange(0, 130_000, 1300)
    together = predict(model, dataset, indices)
    monkeypatch.setattr("qm9flow.training.predict.BATCH_ATOMS", {"cpu": 1})
    np.testing.assert_allclose(predict(model, dataset, indices), together, rtol=1e-6, atol=1e-5)


def test_the_mode_is_left_alone_and_nothing_is_predicted_of_nothing(
    model: PropertyModel, dataset: Dataset
) -> None:
    model.train()
    predict(model, dataset, np.arange(3))
    assert model.training
    assert predict(model, dataset, np.arange(0)).shape == (0, 10)

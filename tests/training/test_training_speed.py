"""How fast a training is, and on how many threads."""

import dataclasses

import pytest
import torch

from qm9flow.config import MPNNConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import TrainingError
from qm9flow.training import speed
from qm9flow.training.device import thread_count
from qm9flow.training.speed import fastest_threads, measure_speed

SMALL = TrainConfig(model=MPNNConfig(conv_layers=1, hidden=4), batch_size=32, device="cpu")


@pytest.fixture(autouse=True)
def few_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "TIMED_MOLECULES", 256)


def test_speed_is_that_of_training_alone(dataset: Dataset) -> None:
    large = dataclasses.replace(
        SMALL, model=dataclasses.replace(SMALL.model, conv_layers=4, hidden=64)
    )
    speeds = [measure_speed(config, dataset, 0.2) for config in (SMALL, large)]
    assert speeds[0] > speeds[1] > 1


def test_what_cannot_be_trained_cannot_be_timed(dataset: Dataset) -> None:
    impossible = dataclasses.replace(SMALL, device="cuda", val_size=10**6)
    with pytest.raises(TrainingError, match="cannot be timed"):
        measure_speed(impossible, dataset, 0.1)


@pytest.mark.parametrize(
    ("most", "speeds", "fastest"),
    [
        (1, {}, 1),
        (2, {1: 10.0, 2: 15.0}, 2),
        (2, {1: 10.0, 2: 2.0}, 1),
        (6, {1: 10.0, 2: 15.0, 4: 20.0, 6: 21.0}, 6),
        (8, {1: 10.0, 2: 15.0, 4: 12.0}, 2),  # 8 is not tried
    ],
)
def test_threads_are_added_while_they_help(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    speeds: dict[int, float],
    fastest: int,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: most)
    monkeypatch.setattr(speed, "measure_speed", lambda *given: speeds.pop(given[-1]))
    assert fastest_threads(SMALL, dataset) == fastest
    assert not speeds


def test_no_more_threads_are_taken_than_torch_would(dataset: Dataset) -> None:
    with thread_count(1):
        assert fastest_threads(SMALL, dataset, 0.1) == 1
        assert torch.get_num_threads() == 1

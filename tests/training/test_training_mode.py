"""Networks in evaluation mode for a while."""

import pytest
import torch
from torch import Tensor, nn

from qm9flow.training.mode import evaluating


@pytest.mark.parametrize("is_training", [True, False])
def test_the_mode_comes_back_also_after_an_error(is_training: bool) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train(is_training)
    answers: list[Tensor] = []

    def ask() -> None:
        with evaluating(network):
            assert not any(part.training for part in network.modules())
            answers.append(network(torch.ones(1, 2)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask()
    assert not answers[0].requires_grad
    assert {part.training for part in network.modules()} == {is_training}
    assert not torch.is_inference_mode_enabled()

"""Elements as networks meet them."""

import torch
from network_suite import MOLECULES, pad

from qm9flow.nn.embedding import ElementEmbedding


def test_one_hot_times_rows_is_the_embedding() -> None:
    embedding = ElementEmbedding(7).double()
    numbers, _ = pad(MOLECULES)
    one_hot = embedding.one_hot(numbers)
    assert one_hot.dtype == torch.float64
    assert torch.equal(one_hot.sum(dim=2), (numbers > 0).double())
    assert torch.equal(one_hot @ embedding.rows(), embedding(numbers))


def test_only_the_weights_are_kept() -> None:
    assert list(ElementEmbedding(7).state_dict()) == ["weight"]

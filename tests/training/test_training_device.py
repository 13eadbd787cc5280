"""Devices, threads, random numbers, memory."""

import pytest
import torch

from qm9flow.errors import ConfigError
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.device import (
    is_out_of_memory,
    peak_memory_mb,
    pick_device,
    seeded,
    thread_count,
)


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="sees no GPU"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert pick_device("auto") == torch.device("cuda", 1)
    assert pick_device("cpu") == torch.device("cpu")


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with thread_count(None):
        assert torch.get_num_threads() == before


def test_random_numbers_are_restored() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1, torch.device("cpu")):
        inside = torch.rand(3)
    with seeded(1, torch.device("cpu")):
        assert torch.equal(torch.rand(3), inside)
    assert torch.equal(torch.rand(3), expected)


def test_peak_memory_is_that_of_a_process_with_torch() -> None:
    assert 50 < peak_memory_mb(torch.device("cpu")) < 1e6


def test_out_of_memory_is_told_from_other_trouble() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.float32)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_freed_memory_can_be_kept_twice() -> None:
    assert keep_freed_memory() == keep_freed_memory()

"""Where a training runs: device, threads, memory."""

import contextlib
import resource
import sys
from collections.abc import Iterator

import torch

from qm9flow.config import Device
from qm9flow.errors import ConfigError

_MEBIBYTE = 2**20


def pick_device(name: Device) -> torch.device:
    """The torch device of that name.

    Args:
        name: `cpu`, `cuda`, or `auto` for a GPU where there is one.

    Returns:
        The device.

    Raises:
        ConfigError: `cuda` is asked for and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device is cuda, but torch sees no GPU; use auto or cpu")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


@contextlib.contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Run a block with that many threads of torch, and restore the count after it.

    Args:
        threads: Threads inside operations; none leaves the count alone.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with torch's global random numbers seeded, and restore them after it.

    Args:
        seed: The seed.
        device: Its generator is seeded and restored too.

    Yields:
        Nothing.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak, where the device counts one; a process's own peak cannot be reset.

    Args:
        device: The training's device.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory in use so far.

    Args:
        device: The training's device.

    Returns:
        MiB: on a GPU what torch allocated there since the last reset, on a CPU the peak of the
        whole process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MEBIBYTE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEBIBYTE if sys.platform == "darwin" else peak / 1024


def release_memory() -> None:
    """Give cached memory of a GPU back, so that the next training, of any process, finds it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    Args:
        error: What was raised.

    Returns:
        True for torch's own error, Python's, and the text of torch's CPU allocator.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text
    )

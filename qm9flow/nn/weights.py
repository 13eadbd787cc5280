"""Whether tensors are a network's weights."""

from collections.abc import Mapping

from torch import Tensor


def misfit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    """What keeps tensors from being a network's weights.

    Args:
        expected: The network's own, by name.
        tensors: Those from elsewhere, by name.

    Returns:
        The first difference in words; None if there is none and all numbers are finite.
    """
    if missing := sorted(expected.keys() - tensors.keys()):
        return f"the tensor {missing[0]} is missing"
    if unknown := sorted(tensors.keys() - expected.keys()):
        return f"the network has no tensor {unknown[0]}"
    for name, tensor in expected.items():
        got = tensors[name]
        if got.shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)}, got {tuple(got.shape)}"
            return f"the tensor {name} must have shape {shapes}"
        if got.dtype != tensor.dtype:
            return f"the tensor {name} must be {tensor.dtype}, got {got.dtype}"
        if got.is_floating_point() and not got.isfinite().all():
            return f"the tensor {name} holds a number that is not finite"
    return None

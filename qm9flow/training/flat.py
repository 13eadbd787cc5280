"""All weights of a network as one vector, and all gradients as another.

The optimiser, clipping, averaging and the gradient monitor then are one operation each instead of
one for every tensor: on small networks and small batches those calls would cost as much as the
network itself.
"""

import torch
from torch import Tensor, nn

from qm9flow.errors import ConfigError

_ALIGNMENT = 16
"""Each tensor starts at a multiple of so many numbers: 64 bytes, a cache line."""


def forward_order(network: nn.Module, numbers: Tensor, positions: Tensor) -> list[str]:
    """Layers, i.e. modules with weights of their own, in the order in which they run.

    A layer that is never called as a module (only its weights are used) comes right after the one
    registered before it.

    Args:
        network: Any network of the contract.
        numbers: (B, N) int64, of an example.
        positions: (B, N, 3) float32, angstrom, of the same example.

    Returns:
        Names of the modules.
    """
    names = {
        module: name
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    seen: dict[str, int] = {}

    def note(module: nn.Module, _: object) -> None:
        seen.setdefault(names[module], len(seen))

    hooks = [module.register_forward_pre_hook(note) for module in names]
    with torch.no_grad():
        network(numbers, positions)
    for hook in hooks:
        hook.remove()
    positions_of: dict[str, int] = {}
    latest = -1
    for name in names.values():
        latest = seen.get(name, latest)
        positions_of[name] = latest
    return sorted(positions_of, key=positions_of.__getitem__)


class FlatParameters:
    """The weights of a network in one tensor, layer after layer.

    The network's own parameters become views of it, and their gradients views of `gradient`, for
    as long as nobody sets a gradient to None or converts the network. Buffers are constants by
    the networks' contract and stay where they are.

    Attributes:
        weights: (n,), what the optimiser works on; tensors are padded with zeros to whole cache
            lines, so n is a little above the number of weights.
        gradient: (n,), where `backward` adds to.
        layers: Names of the layers, in order.
        layer_of: (n,) int64, index of the layer, len(layers) for padding.
        biases: (n_biases,) int64, places of the layers' biases, one for each unit.
        count: Trainable numbers.
    """

    def __init__(self, network: nn.Module, layers: list[str]) -> None:
        """Move the network's weights into one tensor.

        Args:
            network: Its trainable parameters are all float32 and on one device.
            layers: Modules that hold them, in the wanted order; those without are left out.

        Raises:
            ConfigError: The network has no trainable parameters, or some are not float32.
        """
        by_layer: dict[str, list[nn.Parameter]] = {name: [] for name in layers}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                by_layer[name.rpartition(".")[0]].append(parameter)
        layers = [name for name in layers if by_layer[name]]
        ordered = [(index, p) for index, name in enumerate(layers) for p in by_layer[name]]
        if not ordered or any(p.dtype != torch.float32 for _, p in ordered):
            raise ConfigError("a network needs trainable weights, all of them float32")
        sizes = [-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for _, p in ordered]
        device = ordered[0][1].device
        names = {id(p): name for name, p in network.named_parameters()}
        biases = [torch.zeros(0, dtype=torch.int64)]
        self.layers = tuple(layers)
        self.count = sum(p.numel() for _, p in ordered)
        self.weights = nn.Parameter(torch.zeros(sum(sizes), device=device))
        self.gradient = torch.zeros_like(self.weights)
        self.weights.grad = self.gradient
        self.layer_of = torch.full_like(self.gradient, len(layers), dtype=torch.int64)
        start = 0
        for (index, parameter), size in zip(ordered, sizes, strict=True):
            end = start + parameter.numel()
            view = self.weights.data[start:end].view_as(parameter)
            view.copy_(parameter.data)
            parameter.data = view
            parameter.grad = self.gradient[start:end].view_as(parameter)
            self.layer_of[start:end] = index
            if names[id(parameter)].rpartition(".")[2] == "bias" and parameter.dim() == 1:
                biases.append(torch.arange(start, end))
            start += size
        self.biases = torch.cat(biases).to(device)

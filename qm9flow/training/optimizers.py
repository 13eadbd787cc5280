"""The optimisers of a training, behind one step and one state.

`muon` and `soap` are two of them. Muon moves the matrices inside the network by orthogonalised
momentum, SOAP all matrices by Adam in the eigenbasis of their gradients' correlations; AdamW moves
what is left, at the same learning rate: Muon's steps are scaled to the root mean square that
AdamW's have, SOAP's have it by themselves.

Sources: I. Loshchilov, F. Hutter, ICLR 2019 (arXiv:1711.05101); K. Jordan, "Muon: an optimizer for
hidden layers in neural networks" (2024); its rate beside AdamW's, J. Liu et al.
(arXiv:2502.16982); N. Vyas et al., "SOAP", ICLR 2025 (arXiv:2409.11321).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qm9flow.config import TrainConfig
from qm9flow.nn.contract import Network
from qm9flow.training.flat import FlatParameters

MUON_MOMENTUM = 0.95
SOAP_BETAS = (0.95, 0.95)
"""Decay of SOAP's averages of gradients, and of their squares and correlations."""
SOAP_EVERY = 10
"""Steps between two updates of SOAP's eigenbases."""
SOAP_LARGEST = 1024
"""Rows or columns above which a matrix is left to AdamW: SOAP keeps the square of their number, and
decomposes it."""

_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
_MUON_STATE = ("momentum_buffer",)
_SOAP_STATE = ("exp_avg", "exp_avg_sq", "GG/0", "GG/1", "Q/0", "Q/1")
"""GG: correlations of a gradient's rows and of its columns; Q: their eigenvectors."""


@dataclass(frozen=True, eq=False)
class _Part:
    """One optimiser, and what it keeps for each parameter."""

    optimizer: Optimizer
    keys: tuple[str, ...]

    def parameters(self) -> list[nn.Parameter]:
        """What it moves."""
        parameters: list[nn.Parameter] = self.optimizer.param_groups[0]["params"]
        return parameters


class Optimizers:
    """One or two optimisers that step together."""

    def __init__(self, config: TrainConfig, network: nn.Module, flat: FlatParameters) -> None:
        """Set up for a network.

        Args:
            config: Kind, rate and weight decay.
            network: What is trained.
            flat: Its weights: one vector, so that Adam is one pass over them.
        """
        self._parts: list[_Part] = []
        self.rate = 0.0
        decay = config.weight_decay
        if config.optimizer in ("adam", "adamw"):
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
            adam = kind([flat.weights], weight_decay=decay, fused=True)
            self._parts.append(_Part(adam, _ADAM_STATE))
            return
        choose, make = {"muon": (_inside, _muon), "soap": (_matrices, _soap)}[config.optimizer]
        matrices = [matrix for matrix in choose(network) if matrix.requires_grad]
        chosen = {id(matrix) for matrix in matrices}
        rest = [p for p in network.parameters() if p.requires_grad and id(p) not in chosen]
        if matrices:
            self._parts.append(make(matrices, decay))
        adamw = torch.optim.AdamW(rest, weight_decay=decay, fused=True)
        self._parts.append(_Part(adamw, _ADAM_STATE))

    def step(self, rate: float) -> None:
        """Move the weights by their gradients.

        Args:
            rate: Learning rate.
        """
        self.rate = rate
        for part in self._parts:
            for group in part.optimizer.param_groups:
                group["lr"] = rate
            part.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs.

        Returns:
            Tensors by name; after at least one step.
        """
        return {
            name: _kept(part.optimizer.state[parameter], key)
            for name, (part, parameter, key) in self._places().items()
        }

    def blank_state(self) -> dict[str, Tensor]:
        """What a state looks like.

        Returns:
            Tensors of the names, shapes and dtypes of `state`, whatever their values.
        """
        return {
            name: _blank(parameter, key) for name, (_, parameter, key) in self._places().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on.

        Args:
            state: What `state` gave.
        """
        steps = int(next(value for name, value in state.items() if name.endswith("/step")))
        for part in self._parts:
            _begin(part.optimizer, steps)
        for name, (part, parameter, key) in self._places().items():
            value = state[name].to(parameter.device, copy=True)
            _keep(part.optimizer.state[parameter], key, value)

    def _places(self) -> dict[str, tuple[_Part, nn.Parameter, str]]:
        """Where each tensor of the state lives."""
        return {
            f"{number}/{index}/{key}": (part, parameter, key)
            for number, part in enumerate(self._parts)
            for index, parameter in enumerate(part.parameters())
            for key in part.keys
        }


def _inside(network: nn.Module) -> list[nn.Parameter]:
    """What Muon is for: from hidden values to hidden values."""
    return network.hidden_matrices() if isinstance(network, Network) else []


def _matrices(network: nn.Module) -> list[nn.Parameter]:
    """All with more than one row and column, and not too many."""
    matrices = (p for p in network.parameters() if p.ndim == 2)
    return [p for p in matrices if min(p.shape) > 1 and max(p.shape) <= SOAP_LARGEST]


def _muon(matrices: list[nn.Parameter], decay: float) -> _Part:
    muon = torch.optim.Muon(
        matrices, weight_decay=decay, momentum=MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )
    return _Part(muon, _MUON_STATE)


def _soap(matrices: list[nn.Parameter], decay: float) -> _Part:
    from pytorch_optimizer import SOAP  # more than a second, for a hundred optimisers

    soap = SOAP(matrices, betas=SOAP_BETAS, weight_decay=decay, precondition_frequency=SOAP_EVERY)
    return _Part(soap, _SOAP_STATE)


def _begin(optimizer: Optimizer, steps: int) -> None:
    """Make what SOAP makes in its first step, which moves nothing; others start without."""
    if hasattr(optimizer, "init_group"):
        for group in optimizer.param_groups:
            optimizer.init_group(group)
            group["step"] = steps


def _blank(parameter: Tensor, key: str) -> Tensor:
    name, _, side = key.partition("/")
    if name == "step":
        return torch.zeros(())
    if not side:
        return torch.zeros_like(parameter)
    size = parameter.shape[int(side)]
    return parameter.new_zeros(size, size)


def _kept(state: Mapping[str, Any], key: str) -> Tensor:
    """The tensor at `key`, in a list if there is an index behind the name."""
    name, _, side = key.partition("/")
    value: Tensor = state[name][int(side)] if side else state[name]
    return value.contiguous()


def _keep(state: dict[str, Any], key: str, value: Tensor) -> None:
    name, _, side = key.partition("/")
    if side:
        state[name][int(side)].copy_(value)  # columns stay together in memory, as LAPACK has them
    else:
        state[name] = value

"""The optimisers of a training, behind one step and one state.

`muon` is two of them: matrices inside the network are moved by orthogonalised momentum, all else
(embeddings, biases, norms, readouts) by AdamW, at the same learning rate: Muon's steps are scaled
to the root mean square that AdamW's have.

Sources: I. Loshchilov, F. Hutter, ICLR 2019 (arXiv:1711.05101); K. Jordan, "Muon: an optimizer for
hidden layers in neural networks" (2024); its rate beside AdamW's, J. Liu et al.
(arXiv:2502.16982).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qm9flow.config import TrainConfig
from qm9flow.nn.contract import Network
from qm9flow.training.flat import FlatParameters

MUON_MOMENTUM = 0.95


class Optimizers:
    """One or two optimisers that step together."""

    def __init__(self, config: TrainConfig, network: nn.Module, flat: FlatParameters) -> None:
        """Set up for a network.

        Args:
            config: Kind, rate and weight decay.
            network: What is trained.
            flat: Its weights: one vector, so that Adam is one pass over them.
        """
        self._parts: list[torch.optim.Optimizer] = []
        decay = config.weight_decay
        if config.optimizer == "muon":
            matrices = network.hidden_matrices() if isinstance(network, Network) else []
            matrices = [matrix for matrix in matrices if matrix.requires_grad]
            inside = {id(matrix) for matrix in matrices}
            rest = [p for p in network.parameters() if p.requires_grad and id(p) not in inside]
            if matrices:
                muon = torch.optim.Muon(
                    matrices,
                    weight_decay=decay,
                    momentum=MUON_MOMENTUM,
                    adjust_lr_fn="match_rms_adamw",
                )
                self._parts.append(muon)
            self._parts.append(torch.optim.AdamW(rest, weight_decay=decay, fused=True))
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
            self._parts.append(kind([flat.weights], weight_decay=decay, fused=True))
        self.rate = 0.0

    def step(self, rate: float) -> None:
        """Move the weights by their gradients.

        Args:
            rate: Learning rate.
        """
        self.rate = rate
        for optimizer in self._parts:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs.

        Returns:
            Tensors by name; after at least one step.
        """
        return {
            name: optimizer.state[parameter][key]
            for name, (optimizer, parameter, key) in self._places().items()
        }

    def blank_state(self) -> dict[str, Tensor]:
        """What a state looks like.

        Returns:
            Tensors of the names, shapes and dtypes of `state`, whatever their values.
        """
        return {
            name: torch.zeros(()) if key == "step" else torch.zeros_like(parameter)
            for name, (_, parameter, key) in self._places().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on.

        Args:
            state: What `state` gave.
        """
        for name, (optimizer, parameter, key) in self._places().items():
            optimizer.state[parameter][key] = state[name].to(parameter.device, copy=True)

    def _places(self) -> dict[str, tuple[torch.optim.Optimizer, nn.Parameter, str]]:
        """Where each tensor of the state lives."""
        places = {}
        for part, optimizer in enumerate(self._parts):
            parameters = optimizer.param_groups[0]["params"]
            is_muon = isinstance(optimizer, torch.optim.Muon)
            keys = ("momentum_buffer",) if is_muon else ("step", "exp_avg", "exp_avg_sq")
            for index, parameter in enumerate(parameters):
                for key in keys:
                    places[f"{part}/{index}/{key}"] = (optimizer, parameter, key)
        return places

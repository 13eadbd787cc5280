"""PyG's own networks with the weights of ours."""

import math

import torch
from torch import Tensor, nn
from torch_geometric.nn.models.schnet import ShiftedSoftplus

from qm9flow.config import PyGNNConvConfig, PyGSchNetConfig
from qm9flow.nn.contract import Network
from qm9flow.nn.molecular import MolecularReadout
from qm9flow.nn.mpnn import MPNN
from qm9flow.nn.pyg import PyGNNConv, PyGSchNet
from qm9flow.nn.schnet import SchNet


def mpnn_on_pyg(ours: Network) -> PyGNNConv:
    """Every layer PyG's `NNConv`."""
    assert isinstance(ours, MPNN)
    first = ours.convs[0]
    config = PyGNNConvConfig(
        conv_layers=len(ours.convs),
        fc_layers=len(ours.readout.dense) // 2 + 1,
        hidden=ours.embedding.embedding_dim,
        edge_width=first.edge_width,
        radial=len(ours.edges.basis.centres),
        cutoff_angstrom=ours.cutoff_angstrom,
    )
    theirs = PyGNNConv(config, ours.targets).double()
    theirs.load_state_dict(ours.state_dict())
    return theirs


class KeepAtoms(nn.Module):
    """In place of PyG's readout, which sums over molecules."""

    def forward(self, values: Tensor, _batch: Tensor, dim: int) -> Tensor:
        """Whatever it gets."""
        assert dim == 0
        return values


class SchNetOnPyG(nn.Module):
    """PyG's `SchNet` up to the atoms, then a readout of ours."""

    def __init__(self, theirs: PyGSchNet, readout: MolecularReadout) -> None:
        """Of PyG's network without its own two dense layers."""
        super().__init__()
        theirs.schnet.lin1, theirs.schnet.act = nn.Identity(), nn.Identity()
        theirs.schnet.lin2, theirs.schnet.readout = nn.Identity(), KeepAtoms()
        self.schnet, self.readout = theirs.schnet, readout

    def represent(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """(B, N) and (B, N, 3) to (B, N, h), as PyG computes it."""
        hidden: Tensor = self.schnet(numbers.flatten(), positions, numbers > 0)
        return hidden.view(*numbers.shape, -1)

    def forward(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """(B, N) and (B, N, 3) to (B, T), encoded targets."""
        encoded: Tensor = self.readout(numbers, positions, self.represent(numbers, positions))
        return encoded


def schnet_on_pyg(ours: Network) -> SchNetOnPyG:
    """Embedding and interactions PyG's, with the weights of ours."""
    assert isinstance(ours, SchNet)
    config = PyGSchNetConfig(
        hidden=ours.embedding.embedding_dim,
        interactions=len(ours.interactions),
        radial=len(ours.basis.centres),
        cutoff_angstrom=ours.cutoff_angstrom,
    )
    theirs = PyGSchNet(config, ours.targets).double()
    # PyG takes the Gaussians' width and ln 2 from tensors in float32
    theirs.schnet.distance_expansion.coeff = -0.5 / ours.basis.spacing**2
    for module in theirs.modules():
        if isinstance(module, ShiftedSoftplus):
            module.shift = math.log(2)
    with torch.no_grad():
        theirs.schnet.embedding.weight[: len(ours.embedding.weight)] = ours.embedding.weight
    theirs.schnet.interactions.load_state_dict(with_shared_filters(ours.interactions.state_dict()))
    return SchNetOnPyG(theirs, ours.readout)


def with_shared_filters(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """PyG's `CFConv` lists the filter network that it shares with its block once more."""
    again = {key.replace(".mlp.", ".conv.nn."): value for key, value in weights.items()}
    return weights | again

"""Same weights on PyG's NNConv; molecules as PyG data."""

import numpy as np
import torch
from network_suite import MOLECULES, pad
from torch_geometric.data import Batch, Data
from torch_geometric.nn.models.schnet import SchNet

from qm9flow.config import MPNNConfig, PyGNNConvConfig, PyGSchNetConfig
from qm9flow.nn.catalog import build
from qm9flow.nn.pyg import PyGSchNet, to_pyg
from qm9flow.properties import LEARNED


def test_whole_networks_agree() -> None:
    torch.manual_seed(0)
    ours = build(MPNNConfig(3, 2, hidden=8, edge_width=6, radial=9), LEARNED).double()
    torch.manual_seed(0)
    theirs = build(PyGNNConvConfig(3, 2, hidden=8, edge_width=6, radial=9), LEARNED).double()
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    batch = pad(MOLECULES)
    results = []
    for network in (ours, theirs):
        value = network(*batch)
        value.square().sum().backward()
        results.append([value, *(p.grad for p in network.parameters())])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def test_schnet_on_a_graph_of_near_pairs_only() -> None:
    """All pairs at weight zero give what PyG gives on edges within the cutoff."""
    torch.manual_seed(0)
    network = build(PyGSchNetConfig(hidden=8, interactions=2, radial=9), ("u0",)).double()
    assert isinstance(network, PyGSchNet)
    numbers, positions = MOLECULES[-1]
    data = to_pyg(numbers, positions)
    plain = SchNet(8, 8, 2, 9, 5.0, interaction_graph=lambda _pos, _batch: _graph(data)).double()
    plain.lin2 = torch.nn.Linear(4, 1).double()
    plain.load_state_dict(network.schnet.state_dict())
    expected = plain(data.z, data.pos) / 18
    torch.testing.assert_close(network(numbers[None], positions[None]), expected)


def _graph(data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    return data.edge_index, data.edge_attr[:, 0]


def test_to_pyg_one_molecule() -> None:
    numbers, positions = MOLECULES[-1]
    data = to_pyg(numbers.numpy(), positions.numpy(), np.arange(3.0))
    assert isinstance(data, Data)
    distance = torch.cdist(positions, positions)
    near = (distance < 5.0) & ~torch.eye(29, dtype=torch.bool)
    assert data.num_nodes == 29
    assert data.edge_index.shape == (2, int(near.sum()))
    src, dst = data.edge_index
    torch.testing.assert_close(data.edge_attr[:, 0], distance[src, dst])
    assert data.y.tolist() == [[0.0, 1.0, 2.0]]


def test_to_pyg_batch_drops_padding() -> None:
    numbers, positions = pad(MOLECULES)
    items = to_pyg(numbers, positions, torch.arange(5.0)[:, None])
    assert isinstance(items, list)
    assert [item.num_nodes for item in items] == [1, 2, 9, 18, 29]
    assert items[0].edge_index.shape == (2, 0)
    batch = Batch.from_data_list(items)
    assert batch.y.shape == (5, 1)
    assert int(batch.edge_index.max()) < batch.num_nodes == 59

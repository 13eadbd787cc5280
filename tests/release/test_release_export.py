"""Exported graphs say what their networks say, at every size; what does not is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import qm9flow
from qm9flow.config import (
    DensityConfig,
    ModelConfig,
    MPNNConfig,
    PaiNNConfig,
    PyGNNConvConfig,
    PyGSchNetConfig,
    SchNetConfig,
    TrainConfig,
)
from qm9flow.data.store import Dataset
from qm9flow.errors import ExportError, ParityError
from qm9flow.inference.session import open_session
from qm9flow.nn.catalog import ARCHITECTURES, build
from qm9flow.nn.contract import Network, PropertyModel
from qm9flow.nn.mpnn import MPNN
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.release.bundle import load_model
from qm9flow.release.export import PARITY_LIMIT, check_parity, export_onnx, parity_batches
from qm9flow.release.record import BundleRecord
from qm9flow.targets import TargetCodec
from qm9flow.training.metrics import training_codec

CONFIGS: dict[str, ModelConfig] = {
    "mpnn": MPNNConfig(conv_layers=2, fc_layers=2, hidden=8, edge_width=4, radial=8),
    "pyg_nnconv": PyGNNConvConfig(conv_layers=2, fc_layers=2, hidden=8, edge_width=4, radial=8),
    "pyg_schnet": PyGSchNetConfig(hidden=16, interactions=1, radial=8),
    "schnet": SchNetConfig(hidden=16, interactions=1, radial=8),
    "painn": PaiNNConfig(hidden=16, interactions=1, radial=8),
    "density": DensityConfig(layers=2, hidden=16, vectors=8, channels=4, radial=4),
}


@pytest.fixture(scope="module", params=["mpnn", "pyg_schnet"])
def exported(
    request: pytest.FixtureRequest,
    record: BundleRecord,
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PropertyModel, Path]:
    """A model, and its graph; the bundle's is there already."""
    if request.param == "mpnn":
        return load_model(bundle), bundle / "model.onnx"
    torch.manual_seed(5)
    model = PropertyModel(build(CONFIGS[request.param], LEARNED), record.codec)
    path = tmp_path_factory.mktemp("graphs") / "model.onnx"
    export_onnx(model, path)
    assert model.training, "the exporter changed the model"
    return model, path


def test_every_architecture_is_tried() -> None:
    assert set(CONFIGS) == set(ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(CONFIGS))
@pytest.mark.parametrize("targets", [LEARNED, TARGETS])
def test_parity_of_every_architecture(
    architecture: str, targets: tuple[str, ...], dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(6)
    train = TrainConfig(targets="learned" if targets == LEARNED else "raw", train_size=2000)
    network = build(CONFIGS[architecture], targets)
    model = PropertyModel(network, training_codec(train, dataset))
    export_onnx(model, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", dataset).holds


def test_nnconv_is_exported_as_its_twin(bundle: Path, dataset: Dataset) -> None:
    """PyG's network with the bundle's weights gives the numbers of the bundle's graph."""
    model = load_model(bundle)
    network = build(CONFIGS["pyg_nnconv"], LEARNED)
    network.load_state_dict(model.network.state_dict())
    assert isinstance(network.exportable(), MPNN)
    assert check_parity(PropertyModel(network, model.codec), bundle / "model.onnx", dataset).holds


def test_parity(exported: tuple[PropertyModel, Path], dataset: Dataset) -> None:
    model, path = exported
    parity = check_parity(model, path, dataset)
    assert parity.holds
    assert parity.largest == 87
    assert parity.molecules > 150
    assert parity.allowed["u0"] == pytest.approx(43e-6)


class _Distance(Network):
    """Of the last atom from the first, for every target."""

    targets = LEARNED
    cutoff_angstrom = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, None]:
        return pair_distances(positions, pair_mask(numbers > 0)), None

    def read_out(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        return hidden[:, 0, -1:].expand(-1, len(LEARNED))


def test_graphs_have_the_networks_distances_to_the_last_bit(tmp_path: Path) -> None:
    model = PropertyModel(_Distance(), TargetCodec.identity(LEARNED))
    export_onnx(model, tmp_path / "model.onnx")
    numbers = np.full((2000, 2), 6)
    positions = np.random.default_rng(0).normal(size=(2000, 2, 3)).astype(np.float32) * 3
    values = open_session(tmp_path / "model.onnx", "cpu", threads=1).run(numbers, positions)
    expected = model(torch.from_numpy(numbers), torch.from_numpy(positions)).detach().numpy()
    assert np.array_equal(values, expected)


def test_parity_of_a_network_that_looks_far(
    record: BundleRecord, dataset: Dataset, tmp_path: Path
) -> None:
    """Training r2 gives large weights to pairs near the cutoff, which show all rounding there."""
    torch.manual_seed(11)
    network = MPNN(MPNNConfig(1, 1, hidden=8, edge_width=4, radial=16), LEARNED)
    first = network.convs[0].get_submodule("nn.0")
    far = network.edges.basis.centres > 0.9 * network.cutoff_angstrom
    with torch.no_grad():
        first.get_parameter("weight")[:, far] = 100.0
    model = PropertyModel(network, record.codec)
    export_onnx(model, tmp_path / "model.onnx")
    parity = check_parity(model, tmp_path / "model.onnx", dataset)
    assert parity.difference["r2"] < 0.5 * parity.allowed["r2"]


def test_graph_describes_itself(exported: tuple[PropertyModel, Path]) -> None:
    model, path = exported
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    said = {item.key: item.value for item in graph.metadata_props}
    assert json.loads(said["targets"]) == list(LEARNED)
    assert json.loads(said["units"]) == model.units
    assert float(said["cutoff_angstrom"]) == 5.0
    assert json.loads(said["elements"]) == [1, 6, 7, 8, 9]
    assert [item.version for item in graph.opset_import if item.domain == ""] == [20]
    sizes = [
        [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in (*graph.graph.input, *graph.graph.output)
    ]
    assert sizes == [["molecules", "atoms"], ["molecules", "atoms", 3], ["molecules", 10]]


def test_graph_names_no_file_of_the_machine_that_made_it(
    exported: tuple[PropertyModel, Path],
) -> None:
    graph = exported[1].read_bytes()
    assert str(Path(qm9flow.__file__).parent).encode() not in graph
    assert b"File " not in graph


def test_batches_cover_what_is_promised(dataset: Dataset) -> None:
    batches = parity_batches(dataset)
    shapes = [numbers.shape for numbers, _ in batches]
    sizes = np.concatenate([(numbers > 0).sum(axis=1) for numbers, _ in batches])
    assert (1, 1) in shapes
    assert (5, 1) in shapes
    assert set(range(3, 30)) - {28} <= set(sizes.tolist())  # QM9 has no molecule of 28 atoms
    assert max(sizes) == 87
    single = {int(n[0]) for numbers, _ in batches for n in numbers if (n > 0).sum() == 1}
    assert single == {1, 6, 7, 8, 9}
    for numbers, positions in batches:
        distance = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
        real = (numbers[:, :, None] > 0) & (numbers[:, None] > 0)
        real &= ~np.eye(numbers.shape[1], dtype=bool)
        assert distance[real].min(initial=1.0) > 0.5


def test_total_energies_keep_float64(exported: tuple[PropertyModel, Path]) -> None:
    """A change of a tenth of a float32 step of the total comes through."""
    model, path = exported
    session = open_session(path, "cpu", threads=1)
    numbers = np.array([[6] * 9 + [1] * 20])
    positions = np.random.default_rng(0).normal(size=(1, 29, 3)).astype(np.float32) * 3
    values = session.run(numbers, positions)
    expected = model(torch.from_numpy(numbers), torch.from_numpy(positions)).detach().numpy()
    column = LEARNED.index("u0")
    assert abs(expected[0, column]) > 9000
    assert abs(values[0, column] - expected[0, column]) < 1e-4


def test_a_graph_of_other_weights_is_refused(
    exported: tuple[PropertyModel, Path], dataset: Dataset
) -> None:
    model, path = exported
    changed = dict(model.codec.to_dict())
    changed["offset"] = [value + 2 * PARITY_LIMIT * 0.1 for value in changed["offset"]]
    other = PropertyModel(model.network, TargetCodec.from_dict(changed))
    with pytest.raises(ParityError, match=r"differs from its network: .* is accepted"):
        check_parity(other, path, dataset)


def test_a_graph_of_other_targets_is_refused(
    exported: tuple[PropertyModel, Path], dataset: Dataset
) -> None:
    raw = PropertyModel(build(CONFIGS["mpnn"], TARGETS), TargetCodec.identity(TARGETS))
    with pytest.raises(ParityError, match="predicts"):
        check_parity(raw, exported[1], dataset)


class _Unexportable(Network):
    """Decides by data."""

    targets = LEARNED
    cutoff_angstrom = 5.0

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, None]:
        return positions, None

    def read_out(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        if positions.sum().item() > 0:
            return positions.new_zeros(len(numbers), len(LEARNED))
        return positions.new_ones(len(numbers), len(LEARNED))


def test_what_cannot_be_exported_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="_Unexportable cannot be exported"):
        export_onnx(
            PropertyModel(_Unexportable(), TargetCodec.identity(LEARNED)), tmp_path / "model.onnx"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    network = build(MPNNConfig(1, 1, hidden=2, edge_width=2, radial=2), LEARNED)
    with pytest.raises(ExportError, match="cannot write"):
        export_onnx(
            PropertyModel(network, TargetCodec.identity(LEARNED)),
            tmp_path / "nowhere" / "model.onnx",
        )

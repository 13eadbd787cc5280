"""Small models for tests of what comes after training: a real network, and hand-made graphs."""

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from qm9flow.config import MPNNConfig
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.targets import TargetCodec


def network(dataset: Dataset) -> PropertyModel:
    """A small untrained network whose codec is fitted on QM9: energies come out real."""
    some = np.arange(0, len(dataset), 100)
    columns = [TARGETS.index(name) for name in LEARNED]
    codec = TargetCodec.fit(LEARNED, dataset.counts()[some], dataset.truth()[some][:, columns])
    torch.manual_seed(0)
    small = MPNNConfig(conv_layers=2, fc_layers=2, hidden=16, edge_width=16, radial=16)
    return PropertyModel(build(small, LEARNED), codec).eval()


@cache
def bundle(dataset: Dataset) -> Path:
    """The bundle of that network; made once in a test run."""
    folder = Path(tempfile.mkdtemp(prefix="qm9flow-test-bundle-"))
    model = network(dataset)
    numbers, positions = torch.ones(3, 7, dtype=torch.int64), torch.randn(3, 7, 3)
    torch.onnx.export(
        model,
        (numbers, positions),
        folder / "model.onnx",
        dynamo=True,
        verbose=False,
        input_names=["numbers", "positions"],
        output_names=["values"],
        dynamic_shapes={"numbers": {0: "B", 1: "N"}, "positions": {0: "B", 1: "N"}},
        external_data=False,
    )
    graph = onnx.load(folder / "model.onnx")
    helper.set_model_props(graph, {"targets": json.dumps(LEARNED), "cutoff_angstrom": "5.0"})
    onnx.save(graph, folder / "model.onnx")
    (folder / "card.md").write_text("# A small model\n\nFor tests.\n")
    (folder / "config.json").write_text('{"format": 1}\n')
    return folder


def hand_made(path: Path, targets: Sequence[str], positions_type: int = TensorProto.FLOAT) -> None:
    """A graph of qm9flow's shape: target k of a molecule is k plus its mean atomic number."""
    inputs = [
        helper.make_tensor_value_info("numbers", TensorProto.INT64, ["B", "N"]),
        helper.make_tensor_value_info("positions", positions_type, ["B", "N", 3]),
    ]
    output = helper.make_tensor_value_info("values", TensorProto.DOUBLE, ["B", len(targets)])
    index = np.arange(len(targets), dtype=np.float64)
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("index", TensorProto.DOUBLE, [len(targets)], index),
        helper.make_tensor("zero", TensorProto.DOUBLE, [], [0.0]),
    ]
    nodes = [
        helper.make_node("Cast", ["numbers"], ["z"], to=TensorProto.DOUBLE),
        helper.make_node("Greater", ["z", "zero"], ["is_atom"]),
        helper.make_node("Cast", ["is_atom"], ["ones"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSum", ["z", "axis"], ["total"]),
        helper.make_node("ReduceSum", ["ones", "axis"], ["count"]),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("Add", ["mean", "index"], ["values"]),
    ]
    graph = helper.make_graph(nodes, "hand_made", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"targets": json.dumps(list(targets))})
    onnx.save(model, path)

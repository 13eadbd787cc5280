"""ONNX graphs of qm9flow's shape, made by hand: for what no real network can show."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def write_graph(
    path: Path, targets: Sequence[str], positions_type: int = TensorProto.FLOAT
) -> None:
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

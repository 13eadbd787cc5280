"""How long a prediction takes on the CPU: one ethanol, 64 molecules, geometry given.

    python benchmarks/predict.py

The group's network with fresh weights, exported as it is released. Median and best of repeated
calls of `Predictor.predict`, validation and all 19 targets included; `graph_ms` is the part inside
ONNX Runtime. The last line is JSON.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch

from qm9flow.config import MPNNConfig
from qm9flow.data.store import open_dataset
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Molecule
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED
from qm9flow.release.export import export_onnx
from qm9flow.targets import TargetCodec

REPEATS = 50


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Median and best wall time of a call, after a warm-up, in seconds."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times), min(times)


def measure(predictor: Predictor, molecules: list[Molecule]) -> dict[str, float]:
    """Milliseconds of a prediction, and of its runs of the graph."""
    middle, best = seconds(lambda: predictor.predict(molecules))
    graph, _ = seconds(lambda: predictor._run(predictor.session, molecules))
    return {"median_ms": middle * 1e3, "best_ms": best * 1e3, "graph_ms": graph * 1e3}


def main() -> None:
    """Export, measure with one thread and with two, print."""
    dataset = open_dataset()
    ethanol = next(i for i in range(200) if dataset.smiles(i) == "CCO")
    chosen = np.random.default_rng(0).integers(0, len(dataset), 64)
    cases = {
        "ethanol": [dataset.molecule(ethanol)],
        "64 molecules": [dataset.molecule(int(i)) for i in chosen],
    }
    torch.manual_seed(0)
    model = PropertyModel(build(MPNNConfig(), LEARNED), TargetCodec.identity(LEARNED))
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path)
        for threads in (1, 2):
            predictor = Predictor(path, provider="cpu", threads=threads)
            for name, molecules in cases.items():
                result = measure(predictor, molecules)
                results[f"{name}, {threads} threads"] = result
                numbers = ", ".join(f"{key} {value:.2f}" for key, value in result.items())
                print(f"{name:14} {threads} threads  {numbers}", flush=True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, ", end="")
    print(f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()

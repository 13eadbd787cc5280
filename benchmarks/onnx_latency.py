"""Exported graphs beside their networks: parity, size, and how long a prediction takes.

    python benchmarks/onnx_latency.py
    python benchmarks/onnx_latency.py --only density --threads 2 --no-compile

The pretrained model as it is shipped, and every architecture of the catalogue with fresh weights
and QM9's own scales (the flagship as in `peers.FLAGSHIP`, the others with their defaults), are
exported as they are released. Parity is the
release's own check: the largest difference of any target over what is accepted, where 1 would be
refused. Then one molecule (ethanol) and batches of random ones, from atoms to physical values: ONNX
Runtime, torch, and torch with `torch.compile` (which takes minutes an architecture, given apart)
take turns, and medians count. The last line is JSON.

`pyg_nnconv` is exported as `mpnn`, the same function; its own network is left out of large batches,
where it would fill gigabytes with matrices of edges.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from peers import FLAGSHIP, machine, note
from safetensors.torch import load

from qm9flow.config import MODEL_CONFIGS, ModelConfig
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import ParityError
from qm9flow.inference.session import open_session
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED
from qm9flow.registry import pretrained
from qm9flow.release.bundle import read_bundle
from qm9flow.release.export import check_parity, export_onnx
from qm9flow.targets import TargetCodec
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.metrics import training_codec

NETWORKS = (pretrained.NAME, *MODEL_CONFIGS)
ETHANOL = "CCO"
LARGE_BATCH = 64
"""Molecules above which NNConv's own network is left out."""

Case = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


@dataclass
class Measured:
    """One network.

    Attributes:
        parameters: Trainable numbers.
        megabytes: Size of the graph's file.
        parity: Largest difference over the accepted one; None where it was refused.
        worst: The target of that difference, or why it was refused.
        compile_seconds: First calls of the compiled network on all cases.
        milliseconds: By case, then by `onnx`, `torch`, `compiled`.
    """

    parameters: int
    megabytes: float
    parity: float | None
    worst: str
    compile_seconds: float | None = None
    milliseconds: dict[str, dict[str, float]] = field(default_factory=dict)


def config_of(name: str) -> ModelConfig:
    """The flagship's configuration, or an architecture's defaults."""
    return FLAGSHIP.model if name == "density" else MODEL_CONFIGS[name]()


def fresh_model(name: str, codec: TargetCodec) -> PropertyModel:
    """An architecture of the catalogue before it is trained."""
    torch.manual_seed(0)
    return PropertyModel(build(config_of(name), LEARNED), codec).eval()


def pretrained_model() -> PropertyModel:
    """The network that comes with qm9flow, from its weights."""
    record, weights = read_bundle(pretrained.bundle())
    network = build(record.train.model, record.codec.names)
    network.load_state_dict(load(weights))
    return PropertyModel(network, record.codec).eval()


def cases_of(dataset: Dataset, batches: Sequence[int]) -> dict[str, Case]:
    """Ethanol, and random validation molecules by the batch."""
    ethanol = next(i for i in range(len(dataset)) if dataset.smiles(i) == ETHANOL)
    places = {"ethanol": np.array([ethanol])}
    validation = make_split("standard").validation
    places |= {f"{count} molecules": validation[:count] for count in batches}
    loaded = {
        name: ResidentMolecules.load(dataset, chosen, None, "cpu")
        for name, chosen in places.items()
    }
    return {name: (of.numbers.numpy(), of.positions.numpy()) for name, of in loaded.items()}


def parity_of(model: PropertyModel, path: Path, dataset: Dataset) -> tuple[float | None, str]:
    """The worst share of what is accepted, and of which target."""
    try:
        parity = check_parity(model, path, dataset)
    except ParityError as error:
        return None, str(error)
    worst = parity.worst
    return parity.difference[worst] / parity.allowed[worst], worst


def milliseconds(
    calls: dict[str, Callable[[], object]], repeats: int, seconds: float
) -> dict[str, float]:
    """Median time of each call; they take turns, at least three times, until time is up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end, turns = time.perf_counter() + seconds, 0
    while turns < 3 or (turns < repeats and time.perf_counter() < end):
        turns += 1
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in taken.items()}


def torch_call(model: Callable[..., torch.Tensor], case: Case) -> Callable[[], object]:
    """A call of a network on a case."""
    numbers, positions = (torch.from_numpy(array) for array in case)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(numbers, positions)

    return call


def measure(
    name: str,
    codec: TargetCodec,
    dataset: Dataset,
    cases: dict[str, Case],
    options: argparse.Namespace,
) -> Measured:
    """Export one architecture, check it, time it."""
    model = pretrained_model() if name == pretrained.NAME else fresh_model(name, codec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path)
        share, worst = parity_of(model, path, dataset)
        measured = Measured(
            parameters=sum(p.numel() for p in model.parameters()),
            megabytes=path.stat().st_size / 1e6,
            parity=share,
            worst=worst,
        )
        session = open_session(path, "cpu", options.threads)
    # Networks share code, and torch stops compiling a piece of code anew after eight times.
    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=True) if options.compile else None
    started = time.perf_counter()
    for case_name, case in cases.items():
        is_left_out = name == "pyg_nnconv" and len(case[0]) > LARGE_BATCH
        if compiled is not None and not is_left_out:
            note(f"{name}: compiling, {case_name}")
            torch_call(compiled, case)()
            measured.compile_seconds = time.perf_counter() - started
    for case_name, case in cases.items():
        is_left_out = name == "pyg_nnconv" and len(case[0]) > LARGE_BATCH
        calls: dict[str, Callable[[], object]] = {"onnx": partial(session.run, *case)}
        if not is_left_out:
            calls["torch"] = torch_call(model, case)
            if compiled is not None:
                calls["compiled"] = torch_call(compiled, case)
        measured.milliseconds[case_name] = milliseconds(calls, options.repeats, options.seconds)
    return measured


def show(name: str, measured: Measured) -> None:
    """Print what was measured."""
    parity = "refused" if measured.parity is None else f"{measured.parity:.3f} of the limit"
    print(
        f"\n{name}: {measured.parameters:,} parameters, {measured.megabytes:.2f} MB, "
        f"parity {parity} ({measured.worst})"
    )
    if measured.compile_seconds is not None:
        print(f"  compiled in {measured.compile_seconds:.0f} s")
    for case, taken in measured.milliseconds.items():
        cells = "  ".join(
            f"{kind} {value:.2f} ms ({value / taken['onnx']:.1f})" for kind, value in taken.items()
        )
        print(f"  {case:14} {cells}", flush=True)


def main() -> None:
    """Measure every architecture and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NETWORKS, metavar="NETWORK")
    parser.add_argument("--threads", type=int, default=1, help="of torch and ONNX Runtime (1)")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512], metavar="N")
    parser.add_argument("--repeats", type=int, default=50, help="turns at most (50)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each case at most (20)")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time torch.compile too: minutes an architecture, and needs a C++ compiler",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    dataset = open_dataset()
    codec = training_codec(FLAGSHIP, dataset)
    cases = cases_of(dataset, options.batches)
    print("in brackets: times of ONNX Runtime's")
    results = {}
    for name in options.only or NETWORKS:
        results[name] = measure(name, codec, dataset, cases, options)
        show(name, results[name])
    shares = [measured.parity for measured in results.values()]
    line = {
        "benchmark": "onnx_latency",
        "worst_parity": None if None in shares else max(share or 0.0 for share in shares),
        "architectures": {name: asdict(measured) for name, measured in results.items()},
        **machine(options.threads),
    }
    print()
    print(json.dumps(line))


if __name__ == "__main__":
    main()

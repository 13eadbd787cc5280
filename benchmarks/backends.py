"""One training step on several backends: edge lists on PyG and DGL, dense groups, compiled or not.

    python benchmarks/backends.py
    python benchmarks/backends.py --dgl-python work/dgl/bin/python
    python benchmarks/backends.py --device cuda --steps 50

Two functions, `nnconv` (the network of `mpnn`) and `schnet`, each with the weights of ours, on the
same molecules in the same batches, with the same dense layers and sum over atoms at the end. A step
is forward, mean absolute error, backward, Adam. Outputs and gradients of the first batch are
compared before any clock runs; the benchmark ends with an error if they differ. Then all take
turns, `--repeats` times, and medians count: CPU time of the process on a CPU, which other work on
the machine hardly touches, wall time on a GPU. Each turn has batches of its own, as a training has:
on the same few again and again, whatever is kept for a shape looks better than it is. Edge lists
lie ready with lengths and Gaussians, dense groups make theirs within the step. A third function,
`density`, is the flagship as it is configured, which neither PyG nor DGL has. The last line is
JSON. `docs/backends.md` has figures and what follows from them.

| row | what |
| --- | --- |
| pyg | PyG's layers on edge lists, messages summed by `scatter_add_` |
| pyg sorted | the same on an `EdgeIndex` sorted by destination, summed by segments |
| pyg torch_scatter | as sorted, with the compiled `segment_csr` of torch_scatter |
| pyg compiled | `torch.compile(dynamic=True)` |
| dense | ours: groups of similar size, batched matrix products, no scatter |
| dense compiled | the same through `torch.compile(dynamic=True)`, as `TrainConfig.compile` does |
| dense bf16 | matrix products in bfloat16, through autocast |
| dense tf32, pyg tf32 | matrix products in TF32; GPU |
| dense graphs, pyg graphs | CUDA graphs: `torch.compile(mode="reduce-overhead")`; GPU |
| dgl, pyg there | DGL's `NNConv` and message passing; PyG in the same Python, on the same torch |

DGL's wheels ask for an old torch, so another Python runs it:

    python3.11 -m venv work/dgl
    work/dgl/bin/pip install torch==2.2.1 dgl==2.1.0 torch_geometric==2.8.1 'numpy<2' \\
        torchdata==0.7.1 pandas pydantic pyyaml

Whatever is not installed, or cannot run on the device, is left out with a line that says why.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from backend_rows import (
    COMPARED,
    EXACT,
    FUNCTIONS,
    ROWS,
    SIZES,
    Groups,
    as_edges,
    check,
    difference,
    first_step,
    make_dense,
    make_row,
    obstacle,
    run_row,
    weights_of,
)
from peers import Clock, installed, machine, note, peer_environment

from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.splits import make_split
from qm9flow.data.store import open_dataset
from qm9flow.properties import LEARNED
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.device import pick_device

PEER_ROWS = {"pyg there": "pyg", "dgl": "dgl"}
Turn = Callable[[slice], dict[str, float]]


class Peer:
    """DGL and PyG in another Python, which waits between turns."""

    def __init__(self, options: argparse.Namespace, steps: Sequence[Groups], folder: Path) -> None:
        """Write what it needs and start it."""
        functions = [function for function in options.functions if function in COMPARED]
        np.savez(folder / "backends.npz", **for_peer(functions, steps))
        command = [
            options.dgl_python,
            str(Path(__file__).parent / "dgl_peer.py"),
            str(folder / "backends.npz"),
            f"--threads={options.threads}",
            f"--device={pick_device(options.device).type}",
            "--functions",
            *functions,
        ]
        pipe = subprocess.PIPE
        environment = {**peer_environment(options.threads), "DGLBACKEND": "pytorch"}
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )
        about = self._answer()
        self.versions: dict[str, str] = about["versions"]
        self.found = {
            name: (np.array(of["output"]), float(of["gradient_norm"]))
            for name, of in about["found"].items()
        }

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process with DGL ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, function: str, row: str, turn: slice) -> dict[str, float]:
        """Steps on the batches of a turn."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{function} {row} {turn.start} {turn.stop}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def for_peer(functions: Sequence[str], steps: Sequence[Groups]) -> dict[str, Any]:
    """What `dgl_peer.py` reads."""
    data: dict[str, Any] = {}
    for function in functions:
        data[f"{function}/sizes"] = json.dumps(asdict(SIZES[function]))
        for name, values in weights_of(make_dense(function)).items():
            data[f"{function}/weights/{name}"] = values
        for number, groups in enumerate(steps):
            for name, tensor in vars(as_edges(groups, function)).items():
                if name != "graph":
                    data[f"{function}/{number}/{name}"] = tensor.cpu().numpy()
    return data


def take_turns(turns: dict[str, Turn], options: argparse.Namespace) -> dict[str, list[float]]:
    """Molecules a second of each, turn after turn."""
    kind = "seconds" if pick_device(options.device).type == "cuda" else "cpu_seconds"
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(options.repeats + 1):  # the first one warms up
        batches = slice(number * options.steps, (number + 1) * options.steps)
        for name, turn in turns.items():
            measured = turn(batches)
            if number:
                rates[name].append(measured["molecules"] / max(measured[kind], 1e-9))
        note(f"turn {number} of {options.repeats}")
    return rates


def measure(
    function: str,
    options: argparse.Namespace,
    steps: Sequence[Groups],
    peer: Peer | None,
    left_out: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """All rows of one function."""
    device = pick_device(options.device)
    is_compared = function in COMPARED
    edges = [as_edges(groups, function) for groups in steps] if is_compared else []
    reference = first_step(make_row(function, "dense", steps, edges, device))
    turns: dict[str, Turn] = {}
    report: dict[str, dict[str, Any]] = {}
    for name in options.rows:
        if not is_compared and not name.startswith("dense"):
            continue
        reason = obstacle(name, device)
        if reason is not None:
            left_out[name] = reason
            continue
        clock = Clock()
        row = make_row(function, name, steps, edges, device)
        try:
            differences = difference(first_step(row), reference)
            check(f"{function}, {name}", differences, row.tolerance)
            run_row(row, slice(0, options.steps))
        except RuntimeError as error:  # of the compiler, or memory: a row less, not a run less
            left_out[f"{function}, {name}"] = str(error).strip().splitlines()[0][:200]
            continue
        report[name] = {"difference": differences, "ready_seconds": round(clock.seconds, 1)}
        turns[name] = partial(run_row, row)
    for name, row_name in PEER_ROWS.items() if is_compared else ():
        if peer is None:
            break
        differences = difference(peer.found[f"{function} {row_name}"], reference)
        check(f"{function}, {name}", differences, EXACT)
        report[name] = {"difference": differences}
        turns[name] = partial(peer.run, function, row_name)
    first = 0.0
    for name, rates in take_turns(turns, options).items():
        rate = median(rates)
        first = first or rate
        report[name] |= {
            "molecules_per_second": round(rate, 1),
            "lowest": round(min(rates), 1),
            "highest": round(max(rates), 1),
            "times_first": round(rate / first, 2),
        }
    return report


def show(function: str, report: dict[str, dict[str, Any]]) -> None:
    """Print one function's rows."""
    print(f"\n{function:18}{'molecules/s':>12}{'range':>18}{'x first':>9}   differences")
    for name, of in report.items():
        span = f"{of['lowest']:,.0f} to {of['highest']:,.0f}"
        differences = ", ".join(f"{value:.0e}" for value in of["difference"].values())
        ready = f"   ready after {of['ready_seconds']} s" if "ready_seconds" in of else ""
        print(
            f"{name:18}{of['molecules_per_second']:12,.0f}{span:>18}{of['times_first']:9}"
            f"   {differences}{ready}"
        )


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--batch-size", type=int, default=64, help="molecules a step (64)")
    parser.add_argument("--steps", type=int, default=4, help="batches of a turn (4)")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count (5)")
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--dgl-python", default=sys.executable, metavar="PATH")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = pick_device(options.device)
    n_steps = options.steps * (options.repeats + 1)
    chosen = make_split("standard").train[: options.batch_size * n_steps]
    targets = np.random.default_rng(0).normal(size=(len(chosen), len(LEARNED)))
    molecules = ResidentMolecules.load(open_dataset(), chosen, targets, device)
    generator = torch.Generator().manual_seed(0)
    steps = list(molecules.batches(options.batch_size, generator))
    facts, left_out = machine(options.threads), {}
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if installed(options.dgl_python, "dgl") is None:
            left_out["dgl"] = f"{options.dgl_python} has none (see --help)"
        else:
            peer = Peer(options, steps, Path(folder))
            facts["there"] = peer.versions
        for function in options.functions:
            reports[function] = measure(function, options, steps, peer, left_out)
            show(function, reports[function])
        if peer is not None:
            peer.close()
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    line = {
        "benchmark": "backends",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "clock": "wall" if device.type == "cuda" else "cpu",
        "batch_size": options.batch_size,
        "steps": options.steps,
        "repeats": options.repeats,
        "rows": reports,
        "left_out": left_out,
        **facts,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

"""Accuracy that a given time buys on two cores: ours, PyTorch Geometric's networks, chemprop.

    python benchmarks/accuracy_per_minute.py --minutes 20 --out work/accuracy

Each contestant trains for the same wall time on the same number of threads and the same 110,000
molecules of the split `standard`, one after another, each in a process of its own; then all predict
the same 10,000 validation molecules of that split. Printed: mean absolute errors of the twelve
targets of the literature in physical units (gap and h derived from learned targets, for all
alike), the best peer's error over ours for each, the number of targets we lead; the last line is
JSON. Nothing looks at a test molecule.

| contestant | what | recipe |
| --- | --- | --- |
| density | our flagship | `peers.FLAGSHIP` |
| mpnn | our twin of the group's `NNConv` network | the same |
| schnet | PyG's `SchNet`, sized for a short time: 64 wide, 4 interactions, 5 angstrom | as below |
| nnconv | PyG's `NNConv` example, sized likewise: 32 wide, edge width 32 | as below |
| schnet_default | PyG's `SchNet` with PyG's defaults (128 wide, 6, 10 angstrom) | as below |
| nnconv_default | PyG's `NNConv` example as it is (64 wide, edge width 128) | as below |
| chemprop | from SMILES, with its defaults (`chemprop_peer.py`) | its own |

`*_default` run only when named with `--only`: in a short time they see too few molecules.

What is the same for all: targets (ten at once, composition references and the nuclear part of r2
taken off, divided by their standard deviations: `qm9flow.targets.TargetCodec` fitted on the
training molecules); choice of the best epoch by the first 2,000 validation molecules, inside the
time (but for chemprop's last judgement, which comes after it); a schedule that ends with the time;
threads of torch; glibc told to keep freed memory. What is not counted, for anybody: reading
molecules, making graphs, searching neighbours (done once, kept in memory) and the final prediction.
Peers of PyG: Adam at the best of four rates (`contestants.RATES`), cosine, batch 64, mean absolute
error with the same weights of the targets, and the gap beside them, as our flagship's
(`--peer-weighting equal` leaves them out); no averaged weights, no clipping, no grouping by size:
these are ours. Rate, batch size and weighting of PyG's and the loss of chemprop can be changed, so
that a doubter can look for better ones.

chemprop is run by another Python, since it holds rdkit at a version older than ours:

    python -m venv work/peers && work/peers/bin/pip install torch==2.13.0 chemprop==2.3.1
    python benchmarks/accuracy_per_minute.py --chemprop-python work/peers/bin/python

Without it chemprop is left out, with a line that says so. Results lie in `--out`, one file a
contestant: run again after a cut, and those that are there with the same options, of the same
commit, machine and versions, are kept. Each has the load of the machine before and after it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import CONTESTANTS, OURS, USUAL, Task, run, settings_of
from peers import installed, load, machine, note

from qm9flow import properties
from qm9flow.evaluation.literature import REPORTED

FAR = 2.0
"""A lead of this factor is counted apart."""


def run_one(name: str, task: Task) -> None:
    """Run a contestant in this process and keep its result."""
    options, before = task.options, load()
    torch.set_num_threads(options.threads)
    facts, predicted = run(name, task)
    facts["molecules_per_second"] = facts["molecules"] / facts["train_seconds"]
    facts["load"] = [before, load()]
    result = {"settings": settings_of(name, options), **facts, "mae": task.errors(predicted)}
    np.savez(options.out / f"{name}.npz", predicted=predicted)
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def kept(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """A contestant's result from before, if it was made with the same settings."""
    try:
        result = read_result(name, options)
    except (OSError, ValueError):
        return None
    # as JSON has them: a tuple comes back as a list
    wanted = json.loads(json.dumps(settings_of(name, options)))
    return result if result.get("settings") == wanted else None


def result_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A contestant's result, from before or from a process of its own."""
    result = kept(name, options)
    if result is not None:
        note(f"{name}: kept from before")
        return result
    note(f"{name}: {options.minutes:g} minutes")
    command = [sys.executable, *sys.argv, "--inside", name]
    subprocess.run(command, check=True)
    return read_result(name, options)


def read_result(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a contestant left."""
    result: dict[str, Any] = json.loads((options.out / f"{name}.json").read_text())
    return result


def compare(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each target: the best peer, and its error over the flagship's."""
    peers = [name for name in results if name not in OURS]
    if "density" not in results or not peers:
        return {}
    lines = {}
    for target in REPORTED:
        best = min(peers, key=lambda name: results[name]["mae"][target])
        ratio = results[best]["mae"][target] / results["density"]["mae"][target]
        lines[target] = {"best_peer": best, "ratio": round(ratio, 3)}
    return lines


def show(results: dict[str, dict[str, Any]], lead: dict[str, dict[str, Any]]) -> None:
    """Print the tables."""
    names = list(results)
    print(f"{'MAE':22}" + "".join(f"{name:>15}" for name in names) + "   best peer / density")
    for target in REPORTED:
        label = f"{target} [{properties.get(target).unit}]"
        cells = "".join(f"{results[name]['mae'][target]:15.5f}" for name in names)
        beside = f"   {lead[target]['ratio']:.2f} ({lead[target]['best_peer']})" if lead else ""
        print(f"{label:22}{cells}{beside}")
    rows = ("molecules_per_second", "epochs", "train_seconds", "cpu_seconds", "parameters")
    for row in rows:
        print(f"{row:22}" + "".join(f"{results[name][row]:15,.1f}" for name in names))
    if lead:
        ratios = [line["ratio"] for line in lead.values()]
        ahead, far = sum(r > 1 for r in ratios), sum(r >= FAR for r in ratios)
        print(f"density leads on {ahead} of {len(ratios)} targets, by {FAR:g} times on {far}")


def main() -> None:
    """Run who is missing, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="of each contestant (20)")
    parser.add_argument("--threads", type=int, default=2, help="of each contestant (2)")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(USUAL))
    parser.add_argument("--out", type=Path, default=Path("work/accuracy"), help="results")
    parser.add_argument("--train-size", type=int, help="training molecules (all 110,000)")
    parser.add_argument(
        "--val-size", type=int, default=10_000, help="validation molecules (all 10,000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile ours"
    )
    parser.add_argument(
        "--peer-rate", type=float, help="PyG's Adam (tuned ones; 1e-3 for *_default)"
    )
    parser.add_argument("--peer-batch", type=int, default=64, help="PyG's batches (64)")
    parser.add_argument("--peer-weighting", choices=("balanced", "equal"), default="balanced")
    parser.add_argument("--chemprop-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--chemprop-loss", choices=("mse", "mae"), default="mse")
    parser.add_argument("--inside", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.inside:
        run_one(options.inside, Task(options))
        return
    wanted = [name for name in CONTESTANTS if name in options.only]
    if "chemprop" in wanted and kept("chemprop", options) is None:
        version = installed(options.chemprop_python, "chemprop")
        if version is None:
            print(f"chemprop is left out: {options.chemprop_python} has none (see --help)")
            wanted.remove("chemprop")
    results = {name: result_of(name, options) for name in wanted}
    lead = compare(results)
    show(results, lead)
    ratios = [line["ratio"] for line in lead.values()]
    line = {
        "benchmark": "accuracy_per_minute",
        "minutes": options.minutes,
        "leads": sum(ratio > 1 for ratio in ratios),
        "leads_twofold": sum(ratio >= FAR for ratio in ratios),
        "targets": lead,
        "contestants": results,
        **machine(options.threads),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

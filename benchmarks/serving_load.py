"""Twice as many requests as a service can answer, for minutes: does it stand?

    python benchmarks/serving_load.py
    python benchmarks/serving_load.py --minutes 1 --factor 3

`qm9flow serve` of the pretrained model gets requests of sixteen entries: random validation
molecules of QM9 with their geometries, two SMILES, and one entry that is no molecule. First,
clients that each wait for their answers say how many requests a second it answers at most; then
requests are sent at `--factor` times that rate, whatever becomes of them. What counts:

- every request is answered: 200, or 429, 503 or 504 with a body of the promised shape,
- all values of all answers with 200 are those of `Predictor.predict` in this process,
- the process that answers is the same at the end, and says that it is ready,
- the memory of all processes of the service does not grow: its median over the last quarter of the
  time is compared with that over the second one (Linux: shared pages are shared out).

A SMILES whose geometry was not made in time has its own error, as promised; all else about it must
be right. The exit status is 1 where anything is not as it should be. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import http_load
import numpy as np
import psutil
from http_load import Expected, Heard, Target

from qm9flow.cores import usable_cores
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import MoleculeError
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.records import from_record
from qm9flow.registry import pretrained

BODIES = 12
MOLECULES = 13
SMILES = ("CCO", "CC(=O)N", "c1ccoc1", "CC#N")
"""Small: the load is to fall on all of the service, not on RDKit alone."""

BROKEN = {"smiles": "C1CC"}
CONNECTIONS = 96
"""More than a service lets in at a time (64): the others must be told so."""

MAX_GROWTH = 0.05
SLACK_MB = 10.0
LOOK_S = 1.0


@dataclass
class Outcome:
    """What became of the service.

    Attributes:
        saturation: Requests a second that it answers at most.
        offered: Requests a second that were sent.
        answered: Of them with 200.
        seconds: How long.
        statuses: How often which.
        p99_s: Of answers with 200.
        refusal_p99_s: Of refusals.
        checked: Answers whose values were compared.
        faults: All that is not as it should be.
        memory_mb: Of all its processes, each second.
        growth_mb: Last quarter over second one.
    """

    saturation: float = 0.0
    offered: float = 0.0
    answered: float = 0.0
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    p99_s: float = 0.0
    refusal_p99_s: float = 0.0
    checked: int = 0
    faults: list[str] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    growth_mb: float = 0.0


def target_of(dataset: Dataset, bundle: Path, port: int, version: int | None) -> Target:
    """Requests, and what must be answered."""
    records = records_of(dataset)
    bodies = [json.dumps({"molecules": group}).encode() for group in records]
    return Target(port, "/predict", bodies, expected_of(records, {version: bundle}))


def records_of(dataset: Dataset) -> list[list[dict[str, object]]]:
    """Entries of each request."""
    chosen = make_split("standard").validation[: BODIES * MOLECULES].reshape(BODIES, MOLECULES)
    groups = []
    for place, row in enumerate(chosen.tolist()):
        molecules = [dataset.molecule(index) for index in row]
        group: list[dict[str, object]] = [
            {"numbers": item.numbers.tolist(), "positions": item.positions.tolist()}
            for item in molecules
        ]
        smiles = [{"smiles": SMILES[(place + shift) % len(SMILES)]} for shift in (0, 1)]
        groups.append([*group, *smiles, BROKEN])
    return groups


def expected_of(
    records: list[list[dict[str, object]]], bundles: dict[int | None, Path]
) -> list[Expected]:
    """What `predict` says of all of them, by version."""
    predictors = {
        version: Predictor(bundle, provider="cpu", threads=1) for version, bundle in bundles.items()
    }
    expected = []
    for group in records:
        values = {version: [_values(one, p) for one in group] for version, p in predictors.items()}
        expected.append(Expected(values))
    return expected


def _values(record: dict[str, object], predictor: Predictor) -> dict[str, float | None] | None:
    try:
        molecule = from_record(record)
    except MoleculeError:
        return None
    return dict(predictor.predict([molecule])[0].values)


def saturation_of(
    clients: ProcessPoolExecutor, target: Target, seconds: float
) -> tuple[float, list[str]]:
    """Requests a second, over ever more connections until that helps no more."""
    best, wrong = 0.0, []
    for connections in (2, 4, 8, 16, 32):
        heard = clients.submit(http_load.hammer, target, connections, seconds).result()
        wrong += heard.wrong
        rate = heard.statuses["200"] / heard.seconds
        print(f"{connections} connections: {rate:.1f} requests/s", flush=True)
        if rate < 1.05 * best:
            break
        best = max(best, rate)
    return best, wrong


def watch(server: psutil.Process, running: "Future[Heard]") -> list[float]:
    """Memory of all processes of a service, until the load has ended."""
    memory = []
    while not running.done():
        memory.append(http_load.memory_mb(server))
        time.sleep(LOOK_S)
    return memory


def growth_of(memory: list[float]) -> float:
    """Last quarter over the second one, which begins when all has been used once."""
    quarter = max(1, len(memory) // 4)
    return median(memory[-quarter:]) - median(memory[quarter : 2 * quarter] or memory)


def judge(outcome: Outcome, heard: Heard) -> None:
    """Find all that is not as it should be."""
    outcome.statuses = dict(heard.statuses)
    outcome.faults += heard.wrong
    strange = set(heard.statuses) - {"200"} - http_load.REFUSALS
    outcome.faults += [f"{heard.statuses[status]} x {status}" for status in sorted(strange)]
    limit = MAX_GROWTH * max(outcome.memory_mb) + SLACK_MB
    if outcome.growth_mb > limit:
        outcome.faults.append(f"memory grew by {outcome.growth_mb:.0f} MB")
    if not heard.latencies:
        outcome.faults.append("nothing was answered")


def run(options: argparse.Namespace, folder: Path) -> Outcome:
    """Start, saturate, overload, look."""
    outcome = Outcome()
    port = http_load.free_port()
    bundle = pretrained.bundle()
    target = target_of(open_dataset(), bundle, port, None)
    uri = f"sqlite:///{folder}/mlflow.db"
    arguments = ("--model", str(bundle), "--access-log", str(folder / "access.log"))
    spawn = multiprocessing.get_context("spawn")
    with (
        http_load.serve_qm9flow(folder, port, uri, *arguments) as server,
        ProcessPoolExecutor(1, spawn) as clients,
    ):
        outcome.saturation, outcome.faults = saturation_of(clients, target, options.search)
        before = http_load.lasting(server)
        rate = options.factor * outcome.saturation
        print(f"now {rate:.1f} requests/s for {options.minutes:g} minutes", flush=True)
        running = clients.submit(http_load.hammer, target, CONNECTIONS, 60 * options.minutes, rate)
        outcome.memory_mb = watch(server, running)
        heard = running.result()
        outcome.growth_mb = growth_of(outcome.memory_mb)
        judge(outcome, heard)
        if before != http_load.lasting(server):
            outcome.faults.append("the process that answers is another one")
        status, _ = http_load.ask(port, "/readyz")
        if status != 200:
            outcome.faults.append(f"/readyz says {status} afterwards")
    outcome.seconds = heard.seconds
    outcome.offered = sum(heard.statuses.values()) / heard.seconds
    outcome.answered = heard.statuses["200"] / heard.seconds
    outcome.checked = heard.checked
    outcome.p99_s = float(np.percentile(heard.latencies or [np.nan], 99))
    outcome.refusal_p99_s = float(np.percentile(heard.refused_latencies or [0.0], 99))
    return outcome


def show(outcome: Outcome) -> None:
    """Print what became of it."""
    refused = sum(count for status, count in outcome.statuses.items() if status != "200")
    print(
        f"{outcome.seconds:.0f} s at {outcome.offered:.1f} requests/s: "
        f"{outcome.statuses.get('200', 0):,} answered ({outcome.answered:.1f}/s, 99% within "
        f"{outcome.p99_s:.2f} s), {refused:,} refused (99% within {outcome.refusal_p99_s:.2f} s)"
    )
    print(f"answers: {outcome.checked:,} compared with predict; by status {outcome.statuses}")
    memory = outcome.memory_mb
    print(
        f"memory: {memory[0]:.0f} MB at first, {max(memory):.0f} MB at most, {memory[-1]:.0f} MB "
        f"at last; {outcome.growth_mb:+.1f} MB from the second quarter to the last"
    )
    for fault in outcome.faults[:10]:
        print(f"WRONG: {fault}")


def main() -> None:
    """Run, print, fail if it did not stand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of overload (10)")
    parser.add_argument("--factor", type=float, default=2.0, help="over saturation (2)")
    parser.add_argument(
        "--search", type=float, default=5.0, help="seconds of each look for saturation (5)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(options, Path(folder))
    show(outcome)
    line = {"benchmark": "serving_load", **asdict(outcome), "cores": usable_cores()}
    line |= {"factor": options.factor, "load": round(psutil.getloadavg()[0], 2)}
    every = max(1, len(outcome.memory_mb) // 60)
    line["memory_mb"] = [round(value, 1) for value in outcome.memory_mb[::every]]
    print(json.dumps(line))
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()

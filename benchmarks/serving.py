"""How fast a service answers, beside MLflow's own server and ONNX Runtime without any.

    python benchmarks/serving.py
    python benchmarks/serving.py --seconds 5 --connections 8

The pretrained model is registered in a store of its own. Then three take turns, in one run on the
same cores: `qm9flow serve`, `mlflow models serve` of that registered model (in this environment,
with its defaults), and ONNX Runtime alone in a process, which opens the same graph and computes
the same batches, padded, in as many threads as there are cores, one thread an operation.

A request holds one or 64 random validation molecules of QM9 with their geometries, or one or 64 of
their SMILES, which only qm9flow can read. MLflow gets `numbers` and `positions` as its signature
wants them, padded to the largest molecule; qm9flow gets each molecule as it is and answers with all
19 targets. Every connection of the clients sends its next request when it has its answer. The
clients run on the same cores, in a process of their own, whose CPU time is given, too; ONNX Runtime
alone has none to share with. Before anything is timed, all three must give the same numbers.
The last line is JSON.
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import http_load
import numpy as np
import numpy.typing as npt
import psutil
from http_load import Heard, Target
from mlflow import MlflowClient

from qm9flow.cores import usable_cores
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.registry import pretrained
from qm9flow.workflows.console import Console
from qm9flow.workflows.pretrained import seed_registry

REQUESTS = 8
"""Different ones of each kind, sent in turn."""

SIZES = (1, 64)
TOLERANCE = 1e-3
"""Between the three, relative to 1 or the value: float32 in other batches."""

Arrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Case:
    """One kind of request.

    Attributes:
        name: As printed.
        molecules: Of a request.
        ours: Bodies for qm9flow.
        mlflow: Bodies for MLflow; none where it cannot read such molecules.
        arrays: The same batches as arrays; likewise.
    """

    name: str
    molecules: int
    ours: list[bytes]
    mlflow: list[bytes]
    arrays: list[Arrays]


@dataclass(frozen=True)
class Measured:
    """One contestant with one kind of request.

    Attributes:
        requests_per_second: Answered.
        molecules_per_second: The same, in molecules.
        p50_ms: Median latency.
        p99_ms: That of the slowest hundredth.
        server_cpu_ms: CPU time of all the server's processes for a request.
        client_cpu_ms: That of the clients.
        requests: How many were answered.
    """

    requests_per_second: float
    molecules_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    client_cpu_ms: float
    requests: int


def padded(molecules: Sequence[Any]) -> Arrays:
    """Numbers and positions of a batch."""
    width = max(len(molecule.numbers) for molecule in molecules)
    numbers = np.zeros((len(molecules), width), np.int64)
    positions = np.zeros((len(molecules), width, 3), np.float32)
    for row, molecule in enumerate(molecules):
        numbers[row, : len(molecule.numbers)] = molecule.numbers
        positions[row, : len(molecule.numbers)] = molecule.positions
    return numbers, positions


def cases_of(dataset: Dataset) -> list[Case]:
    """Requests of random validation molecules, for all contestants."""
    validation = make_split("standard").validation
    cases = []
    for size in SIZES:
        groups = np.array(validation[: REQUESTS * size]).reshape(REQUESTS, size).tolist()
        molecules = [[dataset.molecule(i) for i in group] for group in groups]
        arrays = [padded(group) for group in molecules]
        given = [[record(item) for item in group] for group in molecules]
        told = [[{"smiles": dataset.smiles(i)} for i in group] for group in groups]
        wanted = [{"inputs": {"numbers": n.tolist(), "positions": p.tolist()}} for n, p in arrays]
        cases.append(
            Case(f"{size} with geometry", size, bodies(given), list(map(dumped, wanted)), arrays)
        )
        cases.append(Case(f"{size} from SMILES", size, bodies(told), [], []))
    return cases


def record(molecule: Any) -> dict[str, Any]:
    """An entry of a request."""
    return {"numbers": molecule.numbers.tolist(), "positions": molecule.positions.tolist()}


def bodies(groups: Sequence[Sequence[Any]]) -> list[bytes]:
    """Requests for qm9flow."""
    return [dumped({"molecules": group}) for group in groups]


def dumped(value: object) -> bytes:
    """JSON as a client would write it."""
    return json.dumps(value).encode()


def registered(folder: Path) -> str:
    """URI of a new store in which the pretrained model is champion."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("serving", str(folder / "mlruns"))
    run_id = client.create_run(experiment).info.run_id
    if seed_registry(uri, run_id, Console(say=lambda text: None)) is None:
        raise SystemExit("there is no pretrained model that can be registered")
    return uri


class Alone:
    """ONNX Runtime without a server, in the process that made it."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def values(self, batch: Arrays) -> npt.NDArray[np.float64]:
        """(n, T), the graph's own targets."""
        numbers, positions = batch
        found: npt.NDArray[np.float64] = self._session.run(
            ["values"], {"numbers": numbers, "positions": positions}
        )[0]
        return found

    def run(self, batches: Sequence[Arrays], threads: int, seconds: float) -> Heard:
        """Compute without pause in several threads."""
        heard = Heard()
        cpu, began = time.process_time(), time.monotonic()

        def work(first: int) -> None:
            count = first
            while time.monotonic() < began + seconds:
                start = time.perf_counter()
                self.values(batches[count % len(batches)])
                heard.latencies.append(time.perf_counter() - start)
                count += 1

        workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        heard.seconds = time.monotonic() - began
        heard.statuses["200"] = len(heard.latencies)
        heard.client_cpu_s = time.process_time() - cpu
        return heard


_alone: Alone | None = None


def alone(path: Path, batches: Sequence[Arrays], threads: int, seconds: float) -> Heard:
    """Runs in the process for ONNX Runtime; the session stays open between calls."""
    global _alone  # noqa: PLW0603 - what a process keeps between two calls
    _alone = _alone or Alone(path)
    _alone.values(batches[0])
    return _alone.run(batches, threads, seconds)


class Contest:
    """The contestants, while their servers run."""

    def __init__(self, stack: ExitStack, folder: Path, connections: int) -> None:
        uri = registered(folder)
        start = partial(ProcessPoolExecutor, 1, multiprocessing.get_context("spawn"))
        self._clients = stack.enter_context(start())
        self._runtime = stack.enter_context(start())
        self._connections = connections
        self.graph = pretrained.bundle() / "model.onnx"
        self._ports = {"qm9flow": http_load.free_port(), "mlflow": http_load.free_port()}
        options = ("--access-log", str(folder / "access.log"))
        served = http_load.serve_qm9flow(folder, self._ports["qm9flow"], uri, *options)
        self._servers = {"qm9flow": stack.enter_context(served)}
        command = ["mlflow", "models", "serve", "--model-uri", "models:/qm9flow@champion"]
        command += ["--env-manager", "local", "--host", http_load.HOST]
        command += ["--port", str(self._ports["mlflow"])]
        self._servers["mlflow"] = stack.enter_context(
            http_load.serving(
                command, self._ports["mlflow"], "/ping", folder, MLFLOW_TRACKING_URI=uri
            )
        )

    def measure(self, name: str, case: Case, seconds: float) -> tuple[Heard, float]:
        """One turn of a contestant.

        Returns:
            What was heard, and the CPU time of the server.
        """
        if name == "onnxruntime":
            heard = self._runtime.submit(
                alone, self.graph, case.arrays, usable_cores(), seconds
            ).result()
            cpu, heard.client_cpu_s = heard.client_cpu_s, 0.0
            return heard, cpu
        target = self._target(name, case)
        before = http_load.cpu_seconds(self._servers[name])
        heard = self._clients.submit(http_load.hammer, target, self._connections, seconds).result()
        return heard, http_load.cpu_seconds(self._servers[name]) - before

    def check(self, case: Case) -> None:
        """All contestants give the same numbers, or nothing is timed."""
        if not case.arrays:
            return
        expected = Alone(self.graph).values(case.arrays[0])
        from qm9flow.inference.predictor import Predictor

        names = Predictor(pretrained.bundle(), provider="cpu", threads=1).session.targets
        _, body = self._ask("qm9flow", case)
        entries = [result["values"] for result in json.loads(body)["results"]]
        _agree("qm9flow", [[entry[name] for name in names] for entry in entries], expected)
        _, body = self._ask("mlflow", case)
        _agree("mlflow", json.loads(body)["predictions"]["values"], expected)

    def _ask(self, name: str, case: Case) -> tuple[int, bytes]:
        target = self._target(name, case)
        return http_load.ask(target.port, target.path, target.bodies[0])

    def _target(self, name: str, case: Case) -> Target:
        if name == "mlflow":
            return Target(self._ports[name], "/invocations", case.mlflow)
        return Target(self._ports[name], "/predict", case.ours)


def _agree(name: str, found: Any, expected: npt.NDArray[np.float64]) -> None:
    worst = np.max(np.abs(np.array(found) - expected) / np.maximum(1.0, np.abs(expected)))
    if worst > TOLERANCE:
        raise SystemExit(f"{name} gives other numbers than ONNX Runtime alone, by {worst:.2g}")


def summed(case: Case, heard: Heard, server_cpu_s: float) -> Measured:
    """All turns of a contestant together."""
    if set(heard.statuses) != {"200"}:
        raise SystemExit(f"{case.name}: not every request was answered: {dict(heard.statuses)}")
    count = len(heard.latencies)
    return Measured(
        requests_per_second=count / heard.seconds,
        molecules_per_second=count * case.molecules / heard.seconds,
        p50_ms=1e3 * float(np.percentile(heard.latencies, 50)),
        p99_ms=1e3 * float(np.percentile(heard.latencies, 99)),
        server_cpu_ms=1e3 * server_cpu_s / count,
        client_cpu_ms=1e3 * heard.client_cpu_s / count,
        requests=count,
    )


def contestants(case: Case) -> tuple[str, ...]:
    """Who can take such requests."""
    return ("qm9flow", "mlflow", "onnxruntime") if case.arrays else ("qm9flow",)


def turns(contest: Contest, case: Case, options: argparse.Namespace) -> dict[str, Measured]:
    """Contestants one after the other, several times over."""
    heard = {name: Heard() for name in contestants(case)}
    cpu = dict.fromkeys(heard, 0.0)
    for name in heard:
        contest.measure(name, case, min(1.0, options.seconds))  # to warm up
    for _ in range(options.turns):
        for name, so_far in heard.items():
            more, seconds = contest.measure(name, case, options.seconds / options.turns)
            so_far.add(more)
            cpu[name] += seconds
    return {name: summed(case, so_far, cpu[name]) for name, so_far in heard.items()}


def show(case: Case, measured: dict[str, Measured]) -> None:
    """Print one kind of request."""
    for name, of in measured.items():
        rates = f"{of.requests_per_second:10.1f} {of.molecules_per_second:11.0f}"
        print(
            f"{case.name:18} {name:12} {rates} {of.p50_ms:8.1f} {of.p99_ms:8.1f} "
            f"{of.server_cpu_ms:10.2f} {of.client_cpu_ms:8.2f}",
            flush=True,
        )


def ratios(results: dict[str, dict[str, Measured]]) -> dict[str, dict[str, float]]:
    """qm9flow's requests a second over those of the others."""
    return {
        case: {
            name: round(of["qm9flow"].requests_per_second / other.requests_per_second, 3)
            for name, other in of.items()
            if name != "qm9flow"
        }
        for case, of in results.items()
        if len(of) > 1
    }


def main() -> None:
    """Start, check, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=9.0, help="of each figure (9)")
    parser.add_argument("--turns", type=int, default=3, help="in which they are measured (3)")
    parser.add_argument("--connections", type=int, default=4, help="of the clients (4)")
    options = parser.parse_args()
    results = {}
    cases = cases_of(open_dataset())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contest = Contest(stack, Path(folder), options.connections)
        for case in cases:
            contest.check(case)
        print(f"{options.connections} connections, {usable_cores()} cores; CPU: ms a request")
        print(
            f"{'request':18} {'by':12} {'requests/s':>10} {'molecules/s':>11} {'p50 ms':>8} "
            f"{'p99 ms':>8} {'server CPU':>10} {'clients':>8}"
        )
        for case in cases:
            results[case.name] = turns(contest, case, options)
            show(case, results[case.name])
    over = ratios(results)
    for case_name, of in over.items():
        print(f"{case_name}: " + ", ".join(f"{value:.2f} x {name}" for name, value in of.items()))
    line = {
        "benchmark": "serving",
        "ratios": over,
        "connections": options.connections,
        **{case: {name: asdict(m) for name, m in of.items()} for case, of in results.items()},
        "cores": usable_cores(),
        "load": round(psutil.getloadavg()[0], 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

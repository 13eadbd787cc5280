"""How fast a file is predicted, and how much memory that takes, all processes counted.

    python benchmarks/bulk.py
    python benchmarks/bulk.py --rows 20000 --odd-rows 1000000

Two files go through `qm9flow predict FILE --output predictions.csv` with the pretrained model, as
a user would start it: SMILES of random molecules of QM9, all of whose conformers are made; and a
long table of SMILES that are refused and single atoms, which cost RDKit and the network next to
nothing and so press on everything else: reader, processes, writer, journal.

Memory is looked at twice a second. `resident` is the sum over the process and its children of what
each has in memory, so that a library which they share counts several times; `proportional` shares
it among them (Linux only). Of the first process its peaks in both halves of the time are given: a
run whose memory grew with the file would show it there. The last line is JSON.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from qm9flow.data.store import Dataset, open_dataset

LOOK_S = 0.5
ODD = ("C1CC", "not a SMILES", "CCl", "", "[NH4+]", "C(", "c1cc1", "O=O=O", "C", "O")
"""Cells of the second file: eight are refused, of as many reasons as there are."""


@dataclass(frozen=True)
class Memory:
    """Of one moment, in bytes.

    Attributes:
        seconds: Since the start.
        own: Resident in the process itself.
        resident: Sum with its children.
        proportional: The same, shared pages shared out.
        processes: How many there are.
    """

    seconds: float
    own: int
    resident: int
    proportional: int
    processes: int


@dataclass(frozen=True)
class Measured:
    """One file.

    Attributes:
        rows: Its rows.
        refused: Rows with an error.
        seconds: From start to end, start of Python included.
        rows_per_second: Over all of that.
        peak_resident_mb: Of all processes together.
        peak_proportional_mb: The same, shared pages shared out.
        first_half_mb: Peak of the process itself in the first half of the time, without its start.
        second_half_mb: The same of the second half.
        processes: At most.
    """

    rows: int
    refused: int
    seconds: float
    rows_per_second: float
    peak_resident_mb: float
    peak_proportional_mb: float
    first_half_mb: float
    second_half_mb: float
    processes: int


def look(process: psutil.Process, began: float) -> Memory | None:
    """Memory of a process and its children; None when it has ended."""
    try:
        family = [process, *process.children(recursive=True)]
        own = process.memory_info().rss
    except psutil.Error:
        return None
    resident = proportional = 0
    for member in family:
        try:
            full = member.memory_full_info()
        except psutil.Error:  # it ended meanwhile
            continue
        resident += full.rss
        proportional += getattr(full, "pss", full.rss)
    return Memory(time.perf_counter() - began, own, resident, proportional, len(family))


def predict(source: Path, rows: int, workers: int | None) -> Measured:
    """Run the command on a file and watch it."""
    output = source.with_name("predictions.csv")
    command = [sys.executable, "-m", "qm9flow", "predict", str(source), "--model", "pretrained"]
    command += ["--output", str(output), "--json", "--restart"]
    command += [] if workers is None else ["--workers", str(workers)]
    began, seen = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            moment = look(process, began)
            if moment is not None:
                seen.append(moment)
            time.sleep(LOOK_S)
        said, _ = child.communicate()
    seconds = time.perf_counter() - began
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}")
    summary = json.loads(said)
    assert summary["rows"] == rows
    started = [moment for moment in seen if moment.seconds > min(10.0, seconds / 4)]
    halves = [
        max((m.own for m in started if (m.seconds > seconds / 2) is is_late), default=0)
        for is_late in (False, True)
    ]
    return Measured(
        rows=rows,
        refused=summary["refused"],
        seconds=seconds,
        rows_per_second=rows / seconds,
        peak_resident_mb=max(moment.resident for moment in seen) / 1e6,
        peak_proportional_mb=max(moment.proportional for moment in seen) / 1e6,
        first_half_mb=halves[0] / 1e6,
        second_half_mb=halves[1] / 1e6,
        processes=max(moment.processes for moment in seen),
    )


def write_qm9(path: Path, dataset: Dataset, rows: int) -> None:
    """A table of random molecules of QM9, repeated where there are not enough."""
    order = np.random.default_rng(0).permutation(len(dataset))
    with path.open("w") as file:
        file.write("id,smiles,note\n")
        for row in range(rows):
            index = int(order[row % len(order)])
            file.write(f'{row},{dataset.smiles(index)},"molecule {index}, of QM9"\n')


def write_odd(path: Path, rows: int) -> None:
    """A table of what costs RDKit and the network next to nothing."""
    with path.open("w") as file:
        file.write("id,smiles,note\n")
        for row in range(rows):
            file.write(f'{row},{ODD[row % len(ODD)]},"note {row}, kept"\n')


def show(name: str, measured: Measured) -> None:
    """Print what was measured."""
    print(
        f"{name}: {measured.rows:,} rows, {measured.refused:,} refused, "
        f"{measured.seconds:.0f} s, {measured.rows_per_second:.1f} rows/s"
    )
    print(
        f"  {measured.processes} processes: resident {measured.peak_resident_mb:.0f} MB, "
        f"proportional {measured.peak_proportional_mb:.0f} MB at most"
    )
    print(
        f"  the first of them: {measured.first_half_mb:.0f} MB in the first half, "
        f"{measured.second_half_mb:.0f} MB in the second",
        flush=True,
    )


def main() -> None:
    """Write the files, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000, help="molecules of QM9 (2000)")
    parser.add_argument("--odd-rows", type=int, default=50_000, help="rows of no cost (50000)")
    parser.add_argument("--workers", type=int, help="processes for conformers (one a core)")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "molecules.csv"
        if options.rows:
            write_qm9(source, open_dataset(), options.rows)
            results["qm9"] = predict(source, options.rows, options.workers)
            show("molecules of QM9", results["qm9"])
        if options.odd_rows:
            write_odd(source, options.odd_rows)
            results["odd"] = predict(source, options.odd_rows, options.workers)
            show("rows of no cost", results["odd"])
    line = {
        "benchmark": "bulk",
        **{name: asdict(measured) for name, measured in results.items()},
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

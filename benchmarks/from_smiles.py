"""From a SMILES: qm9flow and chemprop, trained for the same time on the same cores.

    python benchmarks/from_smiles.py --minutes 20 --chemprop-python work/peers/bin/python
    python benchmarks/from_smiles.py --minutes 20 --chemprop-minutes 60

Both begin with fresh weights, train on the 110,000 molecules of the split `standard`, one after
the other on the same threads of torch, and then predict the same 10,000 validation molecules from
the same SMILES, which state handedness. Printed: mean absolute errors of the literature's twelve
targets in physical units, and chemprop's over ours; the last line is JSON. Nothing looks at a test
molecule.

qm9flow trains all that answers a SMILES: first a network for DFT's geometries, for `SHARE_OF_DFT`
of the minutes, then from its weights the refiner, the network for refined geometries and the
choice of conformers, as `qm9flow train --geometry approximate` does (`docs/trust.md`). chemprop has
its defaults (`chemprop_peer.py`) but for its loss, the absolute error that is asked for here
(`--chemprop-loss`), and learns all targets at once.

The same for both: ten targets, those that grow with a molecule beside a sum over its elements, gap
and H derived; the first 2,000 validation molecules choose the best epoch. chemprop is not told how
far a molecule's nuclei extend, which is most of r2 and needs a geometry.

Not in the minutes, for either: reading molecules, making graphs, predicting. Nor, for qm9flow, the
geometries that it learns from, which are made once and kept (`qm9flow data conformers` and `qm9flow
data relaxed`: two hours of two cores); `--chemprop-minutes` gives chemprop as much more. Molecules
that have no conformers are left out for both, and counted.

Trainings and results lie in `--out`: run again after a cut, it goes on.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from contestants import JUDGED, Task, run_chemprop
from peers import Clock, Floats, installed, load, machine, note

from qm9flow import properties
from qm9flow.config import TrainConfig, train_from_dict
from qm9flow.data.conformers import open_conformers
from qm9flow.data.geometry_set import GeometrySet
from qm9flow.evaluation.literature import REPORTED
from qm9flow.inference.predictor import Predictor
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.release.bundle import Released, ReleasedRough, extend_bundle, write_bundle
from qm9flow.release.record import RoughRecord, record_of
from qm9flow.targets import TargetCodec
from qm9flow.training.events import EpochEnded, Event
from qm9flow.training.metrics import all_targets, mean_absolute_errors
from qm9flow.workflows.console import Console
from qm9flow.workflows.judging import judge_molecules, values_of
from qm9flow.workflows.rough import Rough, starts_of, train_rough
from qm9flow.workflows.start import find_start
from qm9flow.workflows.trained import Trained, train_to_end

SHARE_OF_DFT = 0.4
"""Of the minutes: the network for DFT's geometries, from which the others start."""
NO_LIMIT = 100_000


class SmilesTask(Task):
    """What both sides are given: nothing that needs a geometry."""

    @cached_property
    def conformers(self) -> GeometrySet:
        """Of QM9's SMILES."""
        return open_conformers(self.dataset)

    @cached_property
    def validation(self) -> np.ndarray:
        """Validation molecules that have conformers."""
        places = self.split.validation[: self.options.val_size]
        return np.array([i for i in places.tolist() if self.conformers.count(i)])

    @cached_property
    def codec(self) -> TargetCodec:
        """Sums over elements, and no extents of nuclei."""
        truth = self.dataset.truth()[self.train][:, [TARGETS.index(name) for name in LEARNED]]
        counts = self.dataset.counts()[self.train]
        return TargetCodec.fit(LEARNED, counts, np.zeros(len(counts)), truth)

    def encoded(self, indices: np.ndarray) -> Floats:
        """(n, 10), what chemprop learns."""
        truth = self.dataset.truth()[indices][:, [TARGETS.index(name) for name in LEARNED]]
        return self.codec.encode(self.dataset.counts()[indices], np.zeros(len(indices)), truth)

    def smiles(self, indices: np.ndarray) -> np.ndarray:
        """(n,), with handedness where a molecule has conformers, else as the tables have them."""
        made = self.conformers
        texts = [made.smiles(i) or self.dataset.smiles(i) for i in indices.tolist()]
        return np.array(texts)

    def decoded(self, predicted: Floats) -> Floats:
        """(n, 19), physical values of the validation molecules; A, B and C are none."""
        counts = self.dataset.counts()[self.validation]
        values = self.codec.decode(counts, np.zeros(len(counts)), predicted)
        return all_targets(LEARNED, values, counts, np.zeros((len(counts), 3)))

    def reported(self, predicted: Floats) -> dict[str, float]:
        """Mean absolute errors of the literature's targets, from (n, 19)."""
        found = mean_absolute_errors(predicted, self.dataset.truth()[self.validation])
        return {name: found[name] for name in REPORTED}


def told(name: str) -> Callable[[Event], None]:
    """Prints a training's epochs."""

    def tell(event: Event) -> None:
        if isinstance(event, EpochEnded):
            note(f"{name}: epoch {event.epoch}, score {event.metrics['val/score']:.5f}")

    return tell


@contextmanager
def printed(name: str, _train: TrainConfig) -> Iterator[Callable[[Event], None]]:
    """Prints one of the three trainings for other geometries."""
    yield told(name)


def train_dft(task: SmilesTask, folder: Path, options: dict[str, Any]) -> Trained:
    """The network for DFT's geometries, in a bundle of its own."""
    train = train_from_dict({**options, "max_minutes": SHARE_OF_DFT * float(task.options.minutes)})
    made = train_to_end(
        train, task.dataset, folder / "dft", on_event=told("dft"), stop=lambda: False
    )
    if not (folder / "base").exists():
        record, network = record_of(train, task.dataset), Released(made.weights)
        write_bundle(folder / "base", record, network, dataset=task.dataset)
    return made


def train_others(task: SmilesTask, folder: Path, options: dict[str, Any]) -> Rough:
    """Refiner, network and choice, in a whole bundle."""
    start = find_start(str(folder / "base"))
    minutes = (1 - SHARE_OF_DFT) * float(task.options.minutes)
    given = {**options, "geometry": "approximate", "max_minutes": minutes}
    made = train_rough(
        train_from_dict(start.options(given)),
        task.dataset,
        folder / "rough",
        starts=starts_of(start),
        record=printed,
        stop=lambda: False,
    )
    if not (folder / "whole").exists():
        extend_bundle(
            folder / "base",
            folder / "whole",
            RoughRecord(made.network.train, made.refiner.train, made.choice.train),
            ReleasedRough(
                Released(made.network.weights), made.refiner.weights, made.choice.weights
            ),
            dataset=task.dataset,
        )
    return made


def run_ours(task: SmilesTask) -> tuple[dict[str, Any], Floats]:
    """Train and predict with qm9flow: facts, and (n, 19)."""
    options, folder = task.options, task.options.out / "qm9flow"
    common = {
        "recipe": "flagship",
        "val_size": JUDGED,
        "max_epochs": NO_LIMIT,
        "gradient_stop": "observe",
        "device": "cpu",
        "threads": options.threads,
        "seed": options.seed,
        "compile": options.compile,
    }
    clock = Clock()
    first = train_dft(task, folder, common)
    others = train_others(task, folder, common)
    wall = clock.seconds
    trained = {
        "dft": first,
        "refiner": others.refiner,
        "network": others.network,
        "choice": others.choice,
    }
    predictor = Predictor(folder / "whole", provider="cpu")
    quiet = Console(say=note)
    judged, known = judge_molecules(predictor, "smiles", task.dataset, task.validation, quiet)
    assert np.array_equal(known, task.validation)
    facts = {
        "wall_seconds": wall,
        "epochs": {name: item.epochs for name, item in trained.items()},
        "share_of_dft": SHARE_OF_DFT,
    }
    return facts, values_of(predictor, judged, task.dataset, known, "smiles")


def show(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Print both sides; gives chemprop's errors over ours."""
    ours, theirs = results["qm9flow"]["mae"], results.get("chemprop", {}).get("mae")
    print(f"{'MAE':22}{'qm9flow':>12}" + (f"{'chemprop':>12}{'times':>8}" if theirs else ""))
    ratios = {}
    for name in REPORTED:
        line = f"{name + ' [' + properties.get(name).unit + ']':22}{ours[name]:12.5f}"
        if theirs:
            ratios[name] = theirs[name] / ours[name]
            line += f"{theirs[name]:12.5f}{ratios[name]:8.2f}"
        print(line)
    if theirs:
        print(f"qm9flow leads on {sum(x > 1 for x in ratios.values())} of {len(ratios)} targets")
    return ratios


def main() -> None:
    """Train, predict, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="of each side (20)")
    parser.add_argument("--chemprop-minutes", type=float, help="of chemprop, if others")
    parser.add_argument("--threads", type=int, default=2, help="of each side (2)")
    parser.add_argument("--out", type=Path, default=Path("work/from-smiles"), help="results")
    parser.add_argument("--val-size", type=int, default=10_000, help="validation molecules")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile ours"
    )
    parser.add_argument("--chemprop-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--chemprop-loss", choices=("mse", "mae"), default="mae")
    options = parser.parse_args()
    options.train_size = None
    options.out.mkdir(parents=True, exist_ok=True)
    task = SmilesTask(options)
    results: dict[str, dict[str, Any]] = {}
    before = load()
    facts, predicted = run_ours(task)
    results["qm9flow"] = {**facts, "mae": task.reported(predicted), "load": [before, load()]}
    version = installed(options.chemprop_python, "chemprop")
    if version is None:
        print(f"chemprop is left out: {options.chemprop_python} has none (see --help)")
    else:
        before, own = load(), options.minutes
        options.minutes = options.chemprop_minutes or own
        facts, encoded = run_chemprop(task)
        options.minutes = own
        mae = task.reported(task.decoded(encoded))
        results["chemprop"] = {**facts, "mae": mae, "load": [before, load()]}
    left = options.val_size - len(task.validation)
    print(f"{len(task.validation):,} validation molecules; {left} have no conformers")
    line = {
        "benchmark": "from_smiles",
        "minutes": options.minutes,
        "chemprop_minutes": options.chemprop_minutes or options.minutes,
        "ratios": show(results),
        "sides": results,
        **machine(options.threads),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

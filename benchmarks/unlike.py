"""What a model is worth on molecules unlike those that it was trained on, and whether it says so.

    python benchmarks/unlike.py --minutes 20
    python benchmarks/unlike.py --kinds size --minutes 5

For each kind, the flagship is trained, from fresh weights, on a part of QM9 that lacks it:

| kind | left out of the training |
| --- | --- |
| size | all molecules of nine heavy atoms: it has seen eight at most |
| scaffold | the molecules of the rarest Bemis-Murcko scaffolds, a tenth of QM9 |
| hetero | the tenth of QM9 with the largest share of N, O and F among its heavy atoms |

Intervals are calibrated on half of the test molecules of the part that it was trained in, and
looked at on the other half (`alike`) and on 10,000 of those left out (`unlike`): mean absolute
errors, the share of true values inside, the width, and the share that the domain calls outside.
Intervals are those that are served: wider where the distance from the training molecules is large,
and for more heavy atoms than the largest of these have.
The last line is JSON. Sources: scaffolds, G. W. Bemis, M. A. Murcko, J. Med. Chem. 39, 2887 (1996).
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold
from tqdm import tqdm

from qm9flow.config import TrainConfig, train_from_dict
from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.evaluation.intervals import calibrate, half_widths
from qm9flow.inference.calibration import STRANGE, SourceCalibration
from qm9flow.inference.domain import far_factor, size_factor
from qm9flow.inference.judged import Judged, joined
from qm9flow.inference.predictor import Predictor
from qm9flow.properties import TARGETS
from qm9flow.release.bundle import write_bundle
from qm9flow.release.record import record_of
from qm9flow.training.events import EpochEnded, Failed, Finished
from qm9flow.training.fit import fit
from qm9flow.workflows.bundling import judged_network

Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

SHOWN = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "cv")
LEFT_OUT = 0.1
UNLIKE = 10_000
CHUNK = 1000


def heavy_atoms(dataset: Dataset) -> Indices:
    """(M,), of each molecule."""
    return np.asarray(dataset.counts()[:, 2:].sum(axis=1), dtype=np.int64)


def with_nine_heavy_atoms(dataset: Dataset) -> Flags:
    """(M,), the largest molecules."""
    return heavy_atoms(dataset) > 8


def rich_in_heteroatoms(dataset: Dataset) -> Flags:
    """(M,), those with the largest share of N, O and F among their heavy atoms."""
    counts = dataset.counts()
    share = counts[:, 7:].sum(axis=1) / np.maximum(heavy_atoms(dataset), 1)
    return np.asarray(share > np.quantile(share, 1 - LEFT_OUT))


def of_rare_scaffolds(dataset: Dataset) -> Flags:
    """(M,), those whose scaffolds the fewest molecules have; chains have none, and stay."""
    with rdBase.BlockLogs():
        named = [
            MurckoScaffold.MurckoScaffoldSmiles(mol=graph) if graph is not None else ""
            for graph in tqdm(_graphs(dataset), "scaffolds", len(dataset))
        ]
    counts = Counter(named)
    commonness = np.array([counts[name] if name else len(dataset) for name in named])
    order = np.argsort(commonness, kind="stable")
    found = np.zeros(len(dataset), dtype=bool)
    found[order[: round(LEFT_OUT * len(dataset))]] = True
    return found


def _graphs(dataset: Dataset) -> Iterable[Chem.Mol | None]:
    return (Chem.MolFromSmiles(dataset.smiles(i)) for i in range(len(dataset)))


KINDS: dict[str, Callable[[Dataset], Flags]] = {
    "size": with_nine_heavy_atoms,
    "scaffold": of_rare_scaffolds,
    "hetero": rich_in_heteroatoms,
}


def part_of(dataset: Dataset, places: Indices, name: str) -> Dataset:
    """Some molecules as a data set of their own."""
    arrays = dataset.arrays()
    pointers = {"ptr": 1, "frequency_ptr": 1, "text_ptr": 2}
    ragged = {
        "numbers": "ptr",
        "positions": "ptr",
        "charges": "ptr",
        "frequencies": "frequency_ptr",
        "texts": "text_ptr",
    }
    found = {}
    for pointer, each in pointers.items():
        starts = arrays[pointer]
        rows = (places[:, None] * each + np.arange(each)).ravel()
        lengths = np.diff(starts)[rows]
        found[pointer] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(lengths.sum()) - np.repeat(found[pointer][:-1], lengths)
        items = np.repeat(starts[rows], lengths) + within
        for key in (key for key, its in ragged.items() if its == pointer):
            found[key] = arrays[key][items]
    for key, array in arrays.items():
        if key not in found:
            found[key] = array[places]
    return Dataset.from_arrays(f"{dataset.digest[:16]}-{name}", found)


@dataclass(frozen=True)
class Seen:
    """A model on some molecules.

    Attributes:
        molecules: How many.
        mae: By target, in its unit.
        inside: By target, share of true values in their intervals.
        width: By target, mean width of the intervals, in its unit.
        outside_domain: Share of molecules that are called strange.
    """

    molecules: int
    mae: dict[str, float]
    inside: dict[str, float]
    width: dict[str, float]
    outside_domain: float


def trained(train: TrainConfig, dataset: Dataset) -> Finished:
    """Train to the end."""
    for event in fit(train, dataset):
        if isinstance(event, EpochEnded):
            score = event.metrics["val/score"]
            print(f"  epoch {event.epoch}: validation score {score:.4f}", flush=True)
        if isinstance(event, Failed):
            raise SystemExit(f"the training failed: {event.message}")
    assert isinstance(event, Finished)
    return event


def open_model(train: TrainConfig, ended: Finished, dataset: Dataset, folder: Path) -> Predictor:
    """Its bundle, with what it knows of its own errors."""
    network = judged_network(train, ended.weights, dataset)
    write_bundle(folder, record_of(train, dataset), network, dataset=open_dataset())
    return Predictor(folder, provider="cpu")


def judged(predictor: Predictor, dataset: Dataset, places: Indices) -> Judged:
    """What a model says of some molecules."""
    parts = [
        predictor.judge(
            [dataset.molecule(i) for i in places[start : start + CHUNK].tolist()], "dft"
        )
        for start in range(0, len(places), CHUNK)
    ]
    return joined(parts)


def look(
    said: Judged, calibrated: SourceCalibration, dataset: Dataset, places: Indices, largest: int
) -> Seen:
    """Errors and intervals on molecules, of a network that has seen `largest` heavy atoms."""
    truth, heavy = dataset.truth()[places], heavy_atoms(dataset)[places]
    assert said.distances is not None
    far = far_factor(said.distances, calibrated)
    wider = np.maximum(far, size_factor(heavy, largest)) / far
    halves = {name: half * wider for name, half in half_widths(said, calibrated).items()}
    errors = {name: np.abs(said.values[name] - truth[:, TARGETS.index(name)]) for name in SHOWN}
    scores = np.array([calibrated.score(distance) for distance in said.distances])
    return Seen(
        len(truth),
        {name: float(errors[name].mean()) for name in SHOWN},
        {name: float((errors[name] <= halves[name]).mean()) for name in SHOWN},
        {name: float(2 * halves[name].mean()) for name in SHOWN},
        float(((scores < STRANGE) | (heavy > largest)).mean()),
    )


def measure(kind: str, options: argparse.Namespace, dataset: Dataset) -> dict[str, Seen]:
    """Train without a kind, look at it."""
    unlike = KINDS[kind](dataset)
    part = part_of(dataset, np.flatnonzero(~unlike), kind)
    largest = int(heavy_atoms(part).max())
    rng = np.random.default_rng(0)
    others = rng.permutation(np.flatnonzero(unlike))[:UNLIKE]
    train = train_from_dict(
        {
            "recipe": "flagship",
            "max_minutes": options.minutes,
            "max_epochs": 1000,
            "compile": options.compile,
            "threads": options.threads,
        }
    )
    split: Split = make_split("standard", len(part))
    print(
        f"{kind}: {len(split.train):,} training molecules, {unlike.sum():,} unlike them", flush=True
    )
    ended = trained(train, part)
    with tempfile.TemporaryDirectory() as scratch:
        predictor = open_model(train, ended, part, Path(scratch) / "bundle")
        half = len(split.test) // 2
        own, known = split.test[:half], split.test[half:]
        calibrated = calibrate(judged(predictor, part, own), part.truth()[own])
        return {
            "alike": look(judged(predictor, part, known), calibrated, part, known, largest),
            "unlike": look(
                judged(predictor, dataset, others), calibrated, dataset, others, largest
            ),
        }


def show(kind: str, found: dict[str, Seen]) -> None:
    """Print one kind's table."""
    alike, unlike = found["alike"], found["unlike"]
    print(
        f"{kind}: {alike.molecules:,} molecules alike, {unlike.molecules:,} unlike; "
        f"called outside: {alike.outside_domain:.1%} and {unlike.outside_domain:.1%}"
    )
    print(
        f"{'target':8}{'MAE':>10}{'unlike':>10}{'inside':>9}{'unlike':>9}"
        f"{'width':>10}{'unlike':>10}"
    )
    for name in SHOWN:
        print(
            f"{name:8}{alike.mae[name]:10.4g}{unlike.mae[name]:10.4g}"
            f"{alike.inside[name]:9.3f}{unlike.inside[name]:9.3f}"
            f"{alike.width[name]:10.4g}{unlike.width[name]:10.4g}"
        )


def main() -> None:
    """Train and look, kind after kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training")
    parser.add_argument("--threads", type=int, default=None, help="of torch")
    parser.add_argument("--compile", action="store_true", help="compile the network")
    options = parser.parse_args()
    dataset = open_dataset()
    results = {}
    for kind in options.kinds:
        results[kind] = measure(kind, options, dataset)
        show(kind, results[kind])
    print(
        json.dumps(
            {
                "minutes": options.minutes,
                "results": {
                    kind: {part: vars(seen) for part, seen in found.items()}
                    for kind, found in results.items()
                },
            }
        )
    )


if __name__ == "__main__":
    main()

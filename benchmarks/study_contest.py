"""Who takes part in `study.py`: the search that both sides do, and the file of their results.

Nothing runs from here.
"""

import argparse
import json
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from our_study import draw
from plain_study import PlainTask, edge_counts, make_network, memory_gb
from torch import Tensor
from torch_geometric.data import Batch

from qm9flow.config import StudyConfig, to_dict
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.tracking import provenance
from qm9flow.training.metrics import training_sample
from qm9flow.tuning.spaces import Params, get_space, to_train_config

PRESET = "seed"
MAX_DIFFERENCE = 1e-4
"""Largest relative difference of losses that float32 may explain."""
RESULTS = "results.jsonl"

Row = dict[str, Any]


class Contest:
    """What both sides are given."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Note the options; molecules are loaded when they are asked for."""
        self.options = options
        self.study = StudyConfig(
            n_trials=options.trials,
            preset=PRESET,
            sampler="random",
            train_size=options.train_size,
            val_size=options.val_size,
            max_epochs=options.epochs,
            halving=options.halving,
            n_jobs=options.workers,
            seed=options.seed,
            device="cpu",
        )

    @cached_property
    def dataset(self) -> Dataset:
        """All molecules."""
        return open_dataset()

    @cached_property
    def _memory(self) -> dict[int, tuple[Params, float]]:
        """Points by number, with the GB that they would take, until enough of them fit."""
        limit, wanted = self.options.memory_gb, self.options.trials
        train = training_sample(to_train_config(self._drawn[0], self.study, 0), self.dataset).train
        edges = edge_counts(self.dataset, train)
        found: dict[int, tuple[Params, float]] = {}
        fitting = 0
        for number, point in enumerate(self._drawn):
            needed = memory_gb(point, edges)
            found[number] = (point, needed)
            fitting += needed <= limit
            if fitting == wanted:
                return found
        raise SystemExit(f"hardly any point fits into {limit:g} GB: raise --memory-gb")

    @cached_property
    def _drawn(self) -> list[Params]:
        return draw(get_space(PRESET), self.study, 4 * self.options.trials + 100)

    @property
    def points(self) -> dict[int, Params]:
        """Points that both sides try, by their place in the search."""
        limit = self.options.memory_gb
        fitting = [point for point, needed in self._memory.values() if needed <= limit]
        return dict(enumerate(fitting))

    @property
    def too_large(self) -> list[tuple[Params, float]]:
        """Points that the plain loop cannot hold, and the GB that it would take."""
        limit = self.options.memory_gb
        return [(point, needed) for point, needed in self._memory.values() if needed > limit]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that results depend on: with others they are made anew."""
        return {
            "study": to_dict(self.study),
            "memory_gb": self.options.memory_gb,
            "keep_memory": self.options.keep_memory,
            "judged": self.options.judged,
            "commit": provenance.git_commit(),
            "hardware": provenance.hardware(),
            "versions": provenance.versions(),
        }

    @property
    def key(self) -> str:
        """Hash of the settings, or what the parent process says that it is."""
        given: str | None = self.options.key
        return given or sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]

    def folder(self, side: str) -> Path:
        """Of a side's stores; `longer` goes on with those of `whole`."""
        out: Path = self.options.out
        return out / self.key / ("whole" if side == "longer" else side)


class Results:
    """The file of results; only those of the same settings count."""

    def __init__(self, contest: Contest) -> None:
        """Nothing is read yet."""
        self._path: Path = contest.options.out / RESULTS
        self._key = contest.key

    def add(self, side: str, kind: str, row: Row) -> None:
        """Keep a trial or a summary."""
        line = {"key": self._key, "side": side, "kind": kind, **row}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def rows(self, side: str, kind: str) -> list[Row]:
        """What there is; a line that a kill has cut off is none."""
        if not self._path.exists():
            return []
        found = []
        for line in self._path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if (row["key"], row["side"], row["kind"]) == (self._key, side, kind):
                found.append(row)
        return found

    def trials(self, side: str) -> dict[int, Row]:
        """Trials by number."""
        return {row["number"]: row for row in self.rows(side, "trial")}

    def summary(self, side: str) -> Row | None:
        """A side's summary: there once it is complete."""
        rows = self.rows(side, "summary")
        return rows[-1] if rows else None


def rmse(predicted: Tensor, true: Tensor) -> float:
    """Root mean square error."""
    return float((predicted - true).detach().square().mean().sqrt())


def check_same(contest: Contest) -> float:
    """Make sure that both sides train the same function; gives the relative difference."""
    point, study, dataset = contest.points[0], contest.study, contest.dataset
    config = to_train_config(point, study, 0)
    plain = make_network(point, config.seed)
    ours = build(config.model, LEARNED)
    ours.load_state_dict(plain.layers.state_dict())
    few = replace(study, train_size=min(study.train_size or 64, 64), val_size=1)
    task = PlainTask(few, dataset)
    batch = Batch.from_data_list(task.train)
    molecules = ResidentMolecules.load(
        dataset,
        training_sample(to_train_config(point, few, 0), dataset).train,
        batch.y.numpy(),
        "cpu",
    )
    theirs = rmse(plain(batch), batch.y)
    mine = rmse(ours.train()(molecules.numbers, molecules.positions), molecules.targets)
    difference = abs(theirs - mine) / theirs
    if difference > MAX_DIFFERENCE:
        raise SystemExit(f"the two networks' losses are {theirs} and {mine}: not the same function")
    return difference

"""Would stopping trials by their gradients have saved time, and whom would it have hit?

    python benchmarks/gradient_stop.py --out work/gradient_stop

Studies with random points, in which every trial runs to its end: halving is off, and gradients are
watched but stop nothing (`gradient_stop = "observe"`). Afterwards the rules of
`qm9flow.training.verdicts` are applied to what the monitor had sampled, as a training would have
applied them, look by look. Two spaces: `seed`, the group's, and `rough`, the same without what
keeps trials alive (no clipping, no warm-up, rates up to 1). Thresholds were chosen on seed 0 of
both, and are checked on seed 1. Printed for each study: trials caught, by reason, and where; steps
and time saved; how many of the caught ended among the best 5% of all trials, which would have been
a loss; scores of the caught and of the others; how many of those no better than a constant
prediction were caught. The last line is JSON.

Time is CPU time of one thread, so that other work on the machine matters little. Trials that became
NaN or infinite end in any mode; they count as caught, and save only what they trained after that.

Everything lies in `--out`: run again after a cut, and it goes on; run again when all trials are
there, and only the rules are applied. `--set VANISHING_RATIO=1e-5` tries another threshold,
`--figures docs/images` draws.
"""

import argparse
import bisect
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gradient_drawings import draw
from gradient_trials import SPACES, STUDY, Recorded, load, run, stores_in

from qm9flow.config import StudyConfig, TrainConfig
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.training import verdicts
from qm9flow.training.metrics import training_codec, training_sample
from qm9flow.training.session import look_every
from qm9flow.tuning.records import TrialRecord, show_study

TRAIN_SIZE = 2000
VAL_SIZE = 500


@dataclass(frozen=True)
class Plan:
    """Size of a study.

    Attributes:
        trials: How many.
        epochs: Of each.
    """

    trials: int
    epochs: int


PLANS = {"seed": Plan(150, 4), "rough": Plan(60, 3)}
BEST = 0.05
"""Share of trials whose loss would hurt."""
HOPELESS = 0.99
"""Scores from this times a constant's on are no better than the constant."""


@dataclass(frozen=True)
class Judged:
    """A trial, and what the rules say of it.

    Attributes:
        trial: How it ended.
        recorded: Its samples.
        steps: Optimiser steps that it did.
        reason: Why it would have been stopped, None if it would not.
        step: Steps done by then; all of them if it would not.
        seconds: CPU time until then.
    """

    trial: TrialRecord
    recorded: Recorded
    steps: int
    reason: str | None
    step: int
    seconds: float

    @property
    def score(self) -> float:
        """Lowest `val/score`; infinite if it has none."""
        return float("inf") if self.trial.score is None else self.trial.score


def judged(trial: TrialRecord, recorded: Recorded, study: StudyConfig) -> Judged:
    """Apply the rules to a trial's samples, at the steps at which a training looks."""
    samples, total = recorded.samples, recorded.total_seconds
    per_epoch = -(-(study.train_size or 0) // int(trial.params["batch_size"]))
    planned = study.max_epochs * per_epoch
    has_died = trial.reason == "dead" and trial.alarm_step is not None
    steps = int(trial.alarm_step or 0) if has_died and trial.alarm == "dead" else planned
    if has_died and trial.alarm != "dead":
        steps = max(samples[-1].step, int(trial.alarm_step or 0))
    at = [sample.step for sample in samples]
    for look in range(1, steps + 1):
        if look % look_every(look) and look % per_epoch:
            continue
        seen = bisect.bisect_left(at, look)
        history = samples[max(0, seen - verdicts.HISTORY) : seen]
        verdict = verdicts.judge(history, samples[0].loss)
        if verdict != "healthy":
            seconds = float(recorded.seconds[seen - 1])
            return Judged(trial, recorded, steps, verdict, look, seconds)
    reason = "dead" if trial.reason == "dead" else None
    return Judged(trial, recorded, steps, reason, steps, total)


def read(folder: Path) -> list[Judged]:
    """All trials of a study that have ended, judged."""
    study = show_study(stores_in(folder), STUDY)
    found = []
    for trial in study.trials:
        path = folder / "samples" / f"{trial.number:05d}.npz"
        if trial.has_ended and path.exists():
            found.append(judged(trial, load(path), study.config))
    return found


def constant_score(dataset: Dataset, study: StudyConfig) -> float:
    """`val/score` of the training molecules' mean, encoded: what a network without input learns."""
    config = TrainConfig(split=study.split, train_size=study.train_size, val_size=study.val_size)
    codec, sample = training_codec(config, dataset), training_sample(config, dataset)
    counts, extents = dataset.counts(), dataset.extents
    learned = dataset.truth()[:, [TARGETS.index(name) for name in LEARNED]]
    train, validation = (
        codec.encode(counts[part], extents[part], learned[part])
        for part in (sample.train, sample.validation)
    )
    return float(np.abs(validation - train.mean(axis=0)).mean())


def summary(trials: Sequence[Judged], constant: float) -> dict[str, Any]:
    """The figures of one study."""
    caught = [item for item in trials if item.reason]
    others = [item for item in trials if not item.reason]
    ranked = sorted(trials, key=lambda item: item.score)
    best = ranked[: max(1, round(BEST * len(trials)))]
    hopeless = [item for item in trials if item.score >= HOPELESS * constant]
    steps = sum(item.steps for item in trials)
    seconds = sum(item.recorded.total_seconds for item in trials)
    kept = sum(item.seconds for item in trials)
    return {
        "trials": len(trials),
        "caught": len(caught),
        "reasons": dict(Counter(str(item.reason) for item in caught)),
        "steps_saved": round(1 - sum(item.step for item in trials) / steps, 4),
        "seconds_saved": round(1 - kept / seconds, 4),
        "seconds": round(seconds, 1),
        "best": len(best),
        "best_caught": sum(bool(item.reason) for item in best),
        "best_rank_caught": min(
            (rank for rank, item in enumerate(ranked, 1) if item.reason), default=None
        ),
        "hopeless": len(hopeless),
        "hopeless_caught": sum(bool(item.reason) for item in hopeless),
        "median_step": float(np.median([item.step for item in caught])) if caught else None,
        "scores_caught": quartiles(caught),
        "scores_others": quartiles(others),
    }


def quartiles(trials: Sequence[Judged]) -> list[float]:
    """Best, quartiles and worst of the scores that are finite."""
    scores = [item.score for item in trials if np.isfinite(item.score)]
    return (
        [round(float(q), 3) for q in np.quantile(scores, [0, 0.25, 0.5, 0.75, 1])] if scores else []
    )


def table(name: str, trials: Sequence[Judged], figures: dict[str, Any], constant: float) -> str:
    """The figures of one study, to read."""
    n = figures["trials"]
    lines = [
        f"{name}: {n} trials, {figures['caught']} caught "
        f"({100 * figures['caught'] / n:.0f}%), steps saved "
        f"{100 * figures['steps_saved']:.1f}%, CPU time saved "
        f"{100 * figures['seconds_saved']:.1f}% of {figures['seconds']:.0f} s",
        f"  of the best {figures['best']}: {figures['best_caught']} caught; best rank of a caught "
        f"trial: {figures['best_rank_caught']}",
        f"  no better than a constant ({constant:.3f}): {figures['hopeless']} trials, "
        f"{figures['hopeless_caught']} caught",
        f"  scores (best, quartiles, worst): caught {figures['scores_caught']}, "
        f"others {figures['scores_others']}",
        f"  {'reason':10} {'trials':>6} {'share':>6} {'median step':>11} {'of steps':>8} "
        f"{'best score':>10} {'best rank':>9}",
    ]
    ranked = sorted(trials, key=lambda item: item.score)
    for reason in verdicts.SEVERITY[1:]:
        of = [item for item in trials if item.reason == reason]
        if of:
            lines.append(
                f"  {reason:10} {len(of):6} {100 * len(of) / n:5.1f}% "
                f"{np.median([item.step for item in of]):11.0f} "
                f"{100 * np.median([item.step / item.steps for item in of]):7.0f}% "
                f"{min(item.score for item in of):10.3f} "
                f"{min(rank for rank, item in enumerate(ranked, 1) if item in of):9}"
            )
    return "\n".join(lines)


def study_of(space: str, seed: int, trials: int) -> StudyConfig:
    """Options of one study."""
    return StudyConfig(
        n_trials=trials,
        sampler="random",
        train_size=TRAIN_SIZE,
        val_size=VAL_SIZE,
        max_epochs=PLANS[space].epochs,
        halving="off",
        gradient_stop="observe",
        n_jobs=1,
        seed=seed,
        device="cpu",
    )


def main() -> None:
    """Run what is missing, apply the rules, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("work/gradient_stop"))
    parser.add_argument("--spaces", choices=SPACES, nargs="+", default=list(SPACES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--trials", type=int, help="of each study, instead of its own number")
    parser.add_argument("--only-judge", action="store_true", help="train nothing")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for item in options.set:
        name, _, value = item.partition("=")
        setattr(verdicts, name, type(getattr(verdicts, name))(float(value)))
    dataset = open_dataset()
    constant = constant_score(dataset, study_of("seed", 0, 1))
    studies: dict[str, list[Judged]] = {}
    for space, seed in itertools.product(options.spaces, options.seeds):
        folder = options.out / f"{space}-{seed}"
        if not options.only_judge:
            trials = options.trials or PLANS[space].trials
            run(study_of(space, seed, trials), SPACES[space], dataset, folder, show)
        studies[f"{space} {seed}"] = read(folder)
    results = {name: summary(trials, constant) for name, trials in studies.items()}
    for name, trials in studies.items():
        print(table(name, trials, results[name], constant))
    if options.figures:
        draw(studies, constant, options.figures)
    print(json.dumps(results))


def show(what: str, done: int, total: int) -> None:
    """A line of progress, over the one before."""
    end = "\n" if done == total else ""
    print(f"\r{what} {done}/{total}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

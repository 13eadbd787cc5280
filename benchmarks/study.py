"""A whole study of ours against a plain loop of `study.optimize` that searches the same.

    python benchmarks/study.py --out work/study
    python benchmarks/study.py --trials 40 --train-size 1000 --out work/study-long

Both sides search the preset `seed` on the same molecules with the same encoded targets, the same
edges, the same loss and number of epochs; and they try the same points in the same order: those
that our `random` sampler draws, the group's best setting first, enqueued in both studies. The
networks are the same functions with the same initial weights; that is checked before anything is
timed. Each side has two cores and takes them as suits it best: ours two workers on Ray, one thread
each; the plain loop (`plain_study.py`) one process with torch's default threads. In the plain loop
there are Optuna on SQLite, PyG's `DataLoader` over molecules in memory with neighbours found
beforehand, PyG's `NNConv`, Adam, and MLflow's fluent logging on SQLite of nested runs, parameters,
metrics of every epoch and weights. One thing is to its good: its process keeps freed memory, as
ours does, which makes it up to twice as fast (`--no-keep-memory`). Ours has, on top, warm-up,
clipping, averaged weights, gradient histograms, checkpoints and TensorBoard's files, which a user
gets with it and pays for.

Measured, one after another:

| side | what |
| --- | --- |
| plain | all points, all epochs |
| same | ours, all points, all epochs: no halving, and gradients are only watched |
| whole | ours as it is: halving, and trials whose gradients fail are stopped |
| longer | ours goes on with further points until the plain loop's time is over |

`ratio_same_trials` is plain / same, `ratio` plain / whole, of the seconds from the first trial's
start to the last one's end. Starting a side (imports, reading molecules, finding neighbours, Ray)
is given beside it, and in the `..._with_start` ratios it is counted. Nothing is extrapolated: every
trial of every side is trained. What makes that affordable is a small `--train-size`; for larger
ones start-up and logging weigh less, on our side above all.

PyG's `NNConv` makes an (h, h) matrix for each edge. Points for which that would take more than
`--memory-gb` are left out of both ratios, on both sides, and listed; our study tries them first
thing in `longer`. The champion of each side after the same time, start included, is judged by
10,000 validation molecules of `standard`, which no side trains on.

Results lie in `--out`: `results.jsonl` has one line a trial. Run again with the same options, what
is there is kept: the plain loop goes on with the next trial, a side of ours that was cut off starts
anew. The last line is JSON. At the defaults it takes about twenty minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from shutil import copy, rmtree

import torch
from our_study import Ran, enqueue, run_study, start_alone, stores_at
from peers import load, machine, note
from plain_study import PlainTask, run_plain
from safetensors.torch import load_file
from study_contest import Contest, Results, Row, check_same
from torch import Tensor

from qm9flow import properties
from qm9flow.cli.progress import progress_bar
from qm9flow.config import StudyConfig
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.splits import make_split
from qm9flow.evaluation.literature import REPORTED
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.tracking.runs import fetch_artifact
from qm9flow.tracking.stores import connect
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.metrics import (
    all_targets,
    learned_scale,
    training_codec,
    training_sample,
    validation_metrics,
)
from qm9flow.training.predict import predict_resident
from qm9flow.tuning.executors import Executor, Placement
from qm9flow.tuning.remote import RayExecutor
from qm9flow.tuning.spaces import to_train_config

SIDES = ("plain", "same", "whole", "longer")
GOALS = {"ratio": 20.0, "ratio_same_trials": 8.0}
UNPRUNED = {"halving": "off", "gradient_stop": "observe"}
"""Options of a study whose trials all go to their end."""
LIMITLESS = 100_000
"""Trials of a study that ends with its time."""
STUDY_OF = {"same": "same", "whole": "study", "longer": "study"}
JUDGED_BY = ("val/score", *(f"val/{target}/mae" for target in REPORTED))
CHAMPION = "champion.safetensors"


def plain_side(contest: Contest, results: Results, launched: float) -> None:
    """Run what is missing of the plain loop, in this process."""
    if contest.options.keep_memory:
        keep_freed_memory()
    done = results.trials("plain")
    missing = {n: point for n, point in contest.points.items() if n not in done}
    stores, before = stores_at(contest.folder("plain")), load()
    connect(stores)
    task = PlainTask(contest.study, contest.dataset)
    results.add("plain", "start", {"seconds": time.time() - launched})
    epochs = contest.study.max_epochs
    ticks = [len(done) * epochs]

    def keep(row: Row) -> None:
        results.add("plain", "trial", row)
        note(f"plain: {describe(row)}")

    with progress_bar() as show:

        def tick() -> None:
            ticks[0] += 1
            show("plain, epochs", ticks[0], len(contest.points) * epochs)

        if missing:
            run_plain(task, missing, stores, keep, tick)
    rows = list(results.trials("plain").values())
    summary = {
        "seconds": sum(row["seconds"] for row in rows),
        "start_seconds": results.rows("plain", "start")[0]["seconds"],
        "threads": torch.get_num_threads(),
        "load": [before, load()],
    }
    results.add("plain", "summary", {**summary, **counted(rows), "champion": best_of(rows)})


def our_side(side: str, contest: Contest, results: Results, launched: float) -> None:
    """Run one of our sides, in this process and its workers."""
    longer = side == "longer"
    limit = launched + time_left(results) if longer else float("inf")
    if longer:
        points = [point for point, _ in contest.too_large]
    else:
        points = list(contest.points.values())
        rmtree(contest.folder(side), ignore_errors=True)
    stores, before = stores_at(contest.folder(side)), load()
    connect(stores)
    results.add(side, "start", {"seconds": time.time() - launched})
    enqueue(stores, STUDY_OF[side], points)
    dataset = contest.dataset

    def make_executor() -> Executor:
        return RayExecutor(dataset, Placement(contest.options.workers))

    with progress_bar() as show:

        def progress(_: str, done: int, total: int) -> None:
            if longer:
                show("longer, seconds", round(time.time() - launched), round(limit - launched))
            else:
                show(f"{side}, trials", done, total)

        ran = run_study(
            stores,
            STUDY_OF[side],
            options_of(side, contest.study),
            dataset,
            make_executor,
            stop=lambda: time.time() > limit,
            progress=progress,
        )
    rows = rows_of(ran, limit)
    for row in rows:
        results.add(side, "trial", row)
    champion = best_of(rows)
    summary = {
        "seconds": ran.seconds,
        "start_seconds": time.time() - launched - ran.seconds,
        "tracking_seconds": ran.tracking_seconds,
        "workers": contest.options.workers,
        "load": [before, load()],
    }
    if longer and champion is not None:
        fetched = fetch_artifact(
            connect(stores), champion["run_id"], "model/weights.safetensors", stores.base
        )
        copy(fetched, contest.folder(side) / CHAMPION)
    results.add(side, "summary", {**summary, **counted(rows), "champion": champion})


def options_of(side: str, study: StudyConfig) -> StudyConfig:
    """A side's study."""
    if side == "same":
        return replace(study, **UNPRUNED)
    return replace(study, n_trials=LIMITLESS) if side == "longer" else study


def time_left(results: Results) -> float:
    """Seconds that the plain loop took longer than `whole`, both with their starts."""
    plain, whole = results.summary("plain"), results.summary("whole")
    assert plain is not None
    assert whole is not None
    return with_start(plain) - with_start(whole)


def with_start(summary: Row) -> float:
    """Seconds of a side, all told."""
    seconds: float = summary["seconds"] + summary["start_seconds"]
    return seconds


def rows_of(ran: Ran, limit: float) -> list[Row]:
    """Trials that had ended in time."""
    return [
        {
            "number": trial.number,
            "params": trial.params,
            "state": trial.state,
            "reason": trial.reason,
            "score": trial.score,
            "epochs": trial.epochs,
            "seconds": trial.seconds,
            "run_id": trial.run_id,
        }
        for trial in ran.result.trials
        if trial.has_ended and ran.ended[trial.number] <= limit
    ]


def describe(row: Row) -> str:
    """A trial in a line."""
    score = "none" if row["score"] is None else f"{row['score']:.4f}"
    return (
        f"trial {row['number']}, {row['state']} after {row['epochs']} epochs, score {score}, "
        f"{row['seconds']:.1f} s"
    )


def best_of(rows: list[Row]) -> Row | None:
    """The completed trial with the lowest score."""
    complete = [row for row in rows if row["state"] == "complete"]
    return min(complete, key=lambda row: row["score"], default=None)


def counted(rows: list[Row]) -> Row:
    """Trials, those that completed, epochs."""
    return {
        "trials": len(rows),
        "complete": sum(row["state"] == "complete" for row in rows),
        "epochs": sum(row["epochs"] for row in rows),
    }


def judge(contest: Contest, champion: Row, weights: dict[str, Tensor]) -> dict[str, float]:
    """A champion's errors on validation molecules of `standard`."""
    study, dataset = contest.study, contest.dataset
    config = to_train_config(champion["params"], study, champion["number"])
    network = build(config.model, LEARNED)
    network.load_state_dict(weights)  # of both sides: the same function has the same names
    indices = make_split("standard").validation[: contest.options.judged]
    molecules = ResidentMolecules.load(dataset, indices, None, "cpu")
    encoded = predict_resident(network, molecules, len(LEARNED)).double().numpy()
    counts = dataset.counts()[indices]
    values = training_codec(config, dataset).decode(counts, dataset.extents[indices], encoded)
    every = all_targets(LEARNED, values, counts, dataset.rotational_ghz[indices])
    scale = learned_scale(dataset, training_sample(config, dataset).train)
    metrics = validation_metrics(every, dataset.truth()[indices], scale)
    return {name: metrics[name] for name in JUDGED_BY}


def champions(contest: Contest, summaries: dict[str, Row]) -> dict[str, dict[str, float]]:
    """Errors of each side's best network after the same time."""
    plain, ours = summaries["plain"]["champion"], summaries["longer"]["champion"]
    found = {}
    if plain is not None:
        folder = stores_at(contest.folder("plain")).base / "weights"
        weights = torch.load(folder / f"{plain['number']:05d}.pt", weights_only=True)
        found["plain"] = judge(contest, plain, weights)
    if ours is not None:
        found["ours"] = judge(contest, ours, load_file(contest.folder("longer") / CHAMPION))
    return found


def run_side(side: str, contest: Contest, results: Results) -> Row:
    """A side's summary, from before or from a process of its own."""
    known = results.summary(side)
    if known is not None:
        note(f"{side}: kept from before")
        return known
    if side == "longer" and results.rows(side, "start"):
        launch(
            "whole", contest, results
        )  # the trials that it was to go on with are no longer the last ones
    what = "until the time is over" if side == "longer" else f"{len(contest.points)} trials"
    note(f"{side}: {what}")
    return launch(side, contest, results)


def launch(side: str, contest: Contest, results: Results) -> Row:
    """Run a side in a process of its own; gives its summary."""
    environment = dict(os.environ)
    environment.pop("OMP_NUM_THREADS", None)  # torch's own choice for the plain loop; Ray sets it
    command = [sys.executable, *sys.argv, "--inside", side, "--key", contest.key]
    command += ["--launched", repr(time.time())]
    done = subprocess.run(command, check=False, env=environment)
    summary = results.summary(side)
    if done.returncode != 0 or summary is None:
        raise SystemExit(f"{side} ended with {done.returncode}; start again to go on")
    return summary


def show(contest: Contest, summaries: dict[str, Row], errors: dict[str, dict[str, float]]) -> None:
    """Print the tables."""
    print(f"{'side':8}{'trials':>8}{'complete':>10}{'epochs':>8}{'start s':>10}{'search s':>10}")
    for side, of in summaries.items():
        print(
            f"{side:8}{of['trials']:8}{of['complete']:10}{of['epochs']:8}"
            f"{of['start_seconds']:10.1f}{of['seconds']:10.1f}"
        )
    if contest.too_large:
        limit = contest.options.memory_gb
        print(f"left out of both ratios, since the plain loop needs more than {limit:g} GB:")
        for point, needed in contest.too_large:
            print(f"  {needed:6.1f} GB  {', '.join(f'{k} {v:.4g}' for k, v in point.items())}")
    if len(errors) == 2:
        print(f"{'champions':22}{'plain':>12}{'ours':>12}{'times':>8}")
        for name in JUDGED_BY:
            unit = "" if name == "val/score" else f" [{properties.get(name.split('/')[1]).unit}]"
            plain, ours = errors["plain"][name], errors["ours"][name]
            label = name.removeprefix("val/").removesuffix("/mae") + unit
            print(f"{label:22}{plain:12.5f}{ours:12.5f}{plain / ours:8.2f}")


def ratios_of(summaries: dict[str, Row]) -> dict[str, float]:
    """The plain loop's seconds over ours."""
    found = {}
    for name, side in (("ratio", "whole"), ("ratio_same_trials", "same")):
        plain, ours = summaries["plain"], summaries[side]
        found[name] = round(plain["seconds"] / ours["seconds"], 2)
        found[f"{name}_with_start"] = round(with_start(plain) / with_start(ours), 2)
    return found


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=16, help="points that both sides try (16)")
    parser.add_argument("--train-size", type=int, default=500, help="training molecules (500)")
    parser.add_argument("--val-size", type=int, default=200, help="validation molecules (200)")
    parser.add_argument("--epochs", type=int, default=9, help="of a trial, at most (9)")
    parser.add_argument("--seed", type=int, default=0, help="of points, weights and batches (0)")
    parser.add_argument(
        "--halving", choices=("epochs", "train_size"), default="epochs", help="of `whole` (epochs)"
    )
    parser.add_argument("--workers", type=int, default=2, help="of ours (2)")
    parser.add_argument(
        "--memory-gb", type=float, default=12.0, help="that a plain trial may take (12)"
    )
    parser.add_argument(
        "--keep-memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the plain loop, too, keep memory that it frees: up to twice as fast (yes)",
    )
    parser.add_argument(
        "--judged", type=int, default=10_000, help="molecules that judge champions (10000)"
    )
    parser.add_argument("--out", type=Path, default=Path("work/study"), help="results, stores")
    parser.add_argument("--inside", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--launched", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--key", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run what is missing, compare, print."""
    options = parse()
    start_alone()
    options.out.mkdir(parents=True, exist_ok=True)
    contest = Contest(options)
    results = Results(contest)
    if options.inside == "plain":
        plain_side(contest, results, options.launched)
        return
    if options.inside:
        our_side(options.inside, contest, results, options.launched)
        return
    difference = check_same(contest)
    summaries = {side: run_side(side, contest, results) for side in SIDES}
    errors = champions(contest, summaries)
    show(contest, summaries, errors)
    line = {
        "benchmark": "study",
        **ratios_of(summaries),
        "goals": GOALS,
        "champions": errors,
        "sides": summaries,
        "left_out": [{**point, "gb": round(needed, 1)} for point, needed in contest.too_large],
        "loss_difference": difference,
        "settings": contest.settings,
        **machine(options.workers),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

import re
import warnings
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from qm9flow.evaluation.study_plots import log_study_figures, write_study_figures

from qm9flow.errors import StudyError
from qm9flow.evaluation.study_drawings import count_endings, draw_parallel, draw_slices
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.tuning.parameters import Axis, families, picture
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.sampling import distributions, make_sampler
from qm9flow.tuning.spaces import PRESETS

SPACE = {
    "conv_layers": IntDistribution(1, 4),
    "hidden": IntDistribution(2, 128, log=True),
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "loss": CategoricalDistribution(("rmse", "mae")),
}
STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def stores_in_folder(folder: Path) -> Stores:
    base = folder / "mlruns"
    return Stores(
        f"sqlite:///{folder}/mlflow.db",
        f"sqlite:///{folder}/optuna.db",
        base / "tensorboard",
        base / "state",
    )


def make_study(stores: Stores, states: list[str]) -> list[TrialRecord]:
    """A study whose score depends on the learning rate most."""
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(storage=stores.optuna_url, study_name="drawn <&>")
    records = []
    for number, state in enumerate(states):
        params = {
            "conv_layers": int(random.integers(1, 5)),
            "hidden": int(2 ** random.uniform(1, 7)),
            "learning_rate": float(10 ** random.uniform(-5, -1)),
            "loss": str(random.choice(["rmse", "mae"])),
        }
        score = 0.1 + 0.2 * abs(np.log10(params["learning_rate"]) + 3) + 0.01 * random.random()
        study.add_trial(
            create_trial(
                state=STATES[state],
                params=params,
                distributions=SPACE,
                value=score if state == "complete" else None,
            )
        )
        is_failed = state == "failed"
        records.append(
            TrialRecord(
                number=number,
                state=state,  # type: ignore[arg-type]
                params=params,
                score=None if is_failed else score,
                train_loss=None if is_failed else 0.9 * score,
                molecules_per_second=None if is_failed else 1e4 / params["hidden"],
                verdict="healthy",
                reason={"complete": None, "pruned": "halving", "failed": "crash"}[state],
            )
        )
    return records


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """All figures of a study of 20 trials."""
    folder = tmp_path_factory.mktemp("study")
    stores = stores_in_folder(folder)
    trials = make_study(stores, ["complete", "complete", "pruned"] * 6 + ["failed"] * 2)
    figures = write_study_figures(stores, "drawn <&>", folder / "out", trials)
    return folder / "out", figures.skipped


@pytest.mark.parametrize(
    "name", ["history", "importances", "parallel", "slice", "pareto", "verdicts"]
)
def test_each_figure_is_a_picture(drawn: tuple[Path, dict[str, str]], name: str) -> None:
    folder, skipped = drawn
    assert skipped == {}
    pixels = imread(folder / f"{name}.png")[..., :3]
    height, width = pixels.shape[:2]
    assert width > 700
    assert height > 250
    inked = (pixels.min(axis=2) < 0.9).mean()
    assert 0.01 < inked < 0.9
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert border.min() > 0.99  # nothing is cut off


def test_page_needs_no_network(drawn: tuple[Path, dict[str, str]]) -> None:
    page = (drawn[0] / "study.html").read_text()
    assert not re.search(r"<script[^>]+src=", page)
    assert page.count("plotly.js v") == 1
    assert page.count("<h2>") == 6
    assert "Study drawn &lt;&amp;&gt;" in page
    assert len(page) < 6_000_000


def test_learning_rate_matters_most(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    make_study(stores, ["complete"] * 25)
    known = picture(stores.optuna_url, "drawn <&>")
    assert max(known.importances, key=lambda name: known.importances[name]) == "learning_rate"
    assert sum(known.importances.values()) == pytest.approx(1.0)
    axes = {axis.name: axis for axis in known.axes}
    assert axes["hidden"].kind == "log"
    assert axes["conv_layers"].kind == "linear"
    assert axes["loss"].options == ("rmse", "mae")


@pytest.mark.parametrize(
    ("states", "missing"),
    [
        ([], {"history", "importances", "parallel", "slice", "pareto", "verdicts"}),
        (["failed"], {"history", "importances", "parallel", "slice", "pareto"}),
        (["pruned"], {"importances", "parallel", "slice", "pareto"}),
        (["complete"], {"importances", "parallel"}),
        (["complete", "complete"], {"importances"}),
    ],
)
def test_few_trials_are_drawn_as_far_as_they_go(
    tmp_path: Path, states: list[str], missing: set[str]
) -> None:
    stores = stores_in_folder(tmp_path)
    trials = make_study(stores, states)
    figures = write_study_figures(stores, "drawn <&>", tmp_path / "out", trials)
    assert set(figures.skipped) == missing
    assert all(figures.skipped.values())
    assert all(path.exists() for path in figures.files)
    assert len(figures.files) == 6 - len(missing) + 1
    page = (tmp_path / "out" / "study.html").read_text()
    assert ("Not drawn" in page) == bool(missing)


@pytest.mark.parametrize("n_trials", [1, 4, 200])
def test_whole_numbers_are_drawn_at_whole_numbers(n_trials: int) -> None:
    trials = [
        TrialRecord(
            number,
            "complete",
            {"layers": 1 + number % 3, "hidden": 2 ** (1 + number % 7), "loss": "mae"},
            score=0.1 + 0.01 * number,
        )
        for number in range(n_trials)
    ]
    axes = [
        Axis("layers", "linear", 1.0, 3.0, is_integer=True),
        Axis("hidden", "log", 2.0, 128.0, is_integer=True),
        Axis("loss", "choice", 0.0, 1.0, is_integer=True, options=("rmse", "mae")),
    ]
    figure = draw_slices(trials, axes, "slices")
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    layers, hidden, loss, bar = figure.axes
    crowd = 0.151 if n_trials == 200 else 0.0
    for plot, wanted in (
        (layers, [trial.params["layers"] for trial in trials]),
        (hidden, [trial.params["hidden"] for trial in trials]),
        (loss, [1.0] * n_trials),
    ):
        x = np.concatenate([np.asarray(points.get_offsets()) for points in plot.collections])[:, 0]
        assert np.abs(x - wanted).max() <= (0.0 if plot is hidden else crowd)
        low, high = plot.get_xlim()
        assert low < x.min()
        assert x.max() < high
    shown = [tick for tick in layers.get_xticks() if 0.5 < tick < 3.5]
    assert shown == [1.0, 2.0, 3.0]
    assert all(float(tick).is_integer() for tick in bar.get_yticks())


def make_branched_study(stores: Stores, n_trials: int) -> list[TrialRecord]:
    """A study over architectures, in which PaiNN is best and its width matters."""
    space = PRESETS["modern"]
    sampler = make_sampler("random", space, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(storage=stores.optuna_url, study_name="drawn <&>")
    drawing = optuna.create_study()
    records, trials = [], []
    for number in range(n_trials):
        params = sampler.propose(drawing.ask())
        score = 0.3 if params["architecture"] != "painn" else 0.1 + params["painn_hidden"] / 500
        score *= 1 + abs(np.log10(params["learning_rate"] / 3e-3)) + number / 1e4
        trials.append(
            create_trial(params=params, distributions=distributions(space, params), value=score)
        )
        speed = 1e4 / params["batch_size"]
        records.append(
            TrialRecord(
                number,
                "complete",
                params,
                score=score,
                train_loss=0.9 * score,
                molecules_per_second=speed,
            )
        )
    study.add_trials(trials)
    return records


def test_trials_that_lack_each_others_parameters_are_drawn(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    trials = make_branched_study(stores, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figures = write_study_figures(stores, "drawn <&>", tmp_path / "out", trials)
    assert figures.skipped == {}
    page = (tmp_path / "out" / "study.html").read_text()
    assert page.count("<h2>") == 6 + 4
    assert "through their parameters: architecture painn" in page
    known = picture(stores.optuna_url, "drawn <&>")
    assert [axis.name for axis in known.axes][:3] == ["architecture", "optimizer", "learning_rate"]
    assert len(known.axes) == len({name for trial in trials for name in trial.params}) == 18
    assert {"architecture", "painn_hidden"} <= set(list(known.importances)[:4])
    drawn = draw_parallel(trials, known.axes, "lines")
    assert isinstance(drawn, Figure)
    labels = [plot.get_title().split(":")[0] for plot in drawn.axes]
    assert labels[0] == "architecture painn"  # the best trial's first
    assert len(set(labels)) == 4
    assert sum(len(plot.lines) for plot in drawn.axes) == 60 + 10 + 7 + 7 + 9  # trials and axes
    ends = {plot.get_xticks()[-1] for plot in drawn.axes}
    assert len(ends) == 1  # what all trials have stands below each other


@pytest.mark.parametrize("n_trials", [1, 2, 3])
def test_few_trials_of_several_architectures_are_drawn(tmp_path: Path, n_trials: int) -> None:
    stores = stores_in_folder(tmp_path)
    trials = make_branched_study(stores, n_trials)
    figures = write_study_figures(stores, "drawn <&>", tmp_path / "out", trials)
    assert set(figures.skipped) == {"importances"} | ({"parallel"} if n_trials == 1 else set())


def test_families_are_told_apart_by_the_choice_that_decides() -> None:
    loss = Axis("loss", "choice", 0.0, 1.0, True, ("rmse", "mae"))
    kind = Axis("kind", "choice", 0.0, 2.0, True, ("a", "b", "c"))
    rate, width = Axis("rate", "log", 1e-3, 1.0), Axis("b_width", "linear", 1.0, 3.0)
    a = {"loss": "mae", "kind": "a", "rate": 0.1}
    b = {"loss": "mae", "kind": "b", "rate": 0.1, "b_width": 2}
    first, second = families([a, b, a | {"loss": "rmse"}], [loss, kind, rate, width])
    assert (first.label, first.members, first.axes) == ("kind a", (0, 2), (loss, rate))
    assert (second.label, second.members, second.axes) == ("kind b", (1,), (width, loss, rate))
    (alone,) = families([a, a | {"loss": "rmse"}], [loss, kind, rate])
    assert (alone.label, alone.axes) == ("", (loss, kind, rate))
    groups = families([{"rate": 0.1}, {"rate": 0.1, "b_width": 2}], [rate, width])
    assert [group.label for group in groups] == ["group 1", "group 2"]


def test_unknown_study_is_refused(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    make_study(stores, [])
    with pytest.raises(StudyError, match="other"):
        write_study_figures(stores, "other", tmp_path / "out")


def test_figures_go_to_the_studys_run(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    trials = make_study(stores, ["pruned"])
    tracker = create_autospec(StudyTracker, instance=True)
    kept: list[str] = []
    tracker.log_artifact.side_effect = lambda path: kept.extend(
        f"{path.name}/{file.name}" for file in sorted(path.iterdir())
    )
    skipped = log_study_figures(stores, "drawn <&>", tracker, trials)
    assert kept == ["figures/history.png", "figures/study.html", "figures/verdicts.png"]
    assert "importances" in skipped


def test_endings_are_counted_by_state_and_reason() -> None:
    trials = [
        TrialRecord(0, "complete", {}, verdict="healthy"),
        TrialRecord(1, "failed", {}, reason="out_of_memory"),
        TrialRecord(2, "pruned", {}, reason="halving"),
        TrialRecord(3, "pruned", {}, reason="vanishing"),
        TrialRecord(4, "pruned", {}, reason="vanishing"),
        TrialRecord(5, "running", {}),
    ]
    assert list(count_endings(trials).items()) == [
        (("complete", "gradients healthy"), 1),
        (("pruned", "vanishing"), 2),
        (("pruned", "halving (behind at a rung)"), 1),
        (("failed", "out of memory"), 1),
    ]

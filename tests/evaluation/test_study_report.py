"""The report of a study: its pictures, its page, what it says where something is missing."""

import dataclasses
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from qm9flow.config import StudyConfig, to_dict
from qm9flow.errors import StudyError
from qm9flow.evaluation.parameter_drawings import draw_parallel, draw_slices
from qm9flow.evaluation.report.facts import Facts, read_facts
from qm9flow.evaluation.report.finals import finals_section
from qm9flow.evaluation.report.header import header
from qm9flow.evaluation.report.page import page
from qm9flow.evaluation.report.pictures import TITLES
from qm9flow.evaluation.report.registered import OnRecord, look_up
from qm9flow.evaluation.report.write import Report, log_report, write_report
from qm9flow.registry.versions import MODEL_NAME
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.tuning.parameters import Axis, families, study_parameters
from qm9flow.tuning.records import (
    ATTRIBUTE_OUTCOME,
    ATTRIBUTE_RUN,
    NOTE_CONFIG,
    TrialRecord,
    show_study,
)
from qm9flow.tuning.sampling import distributions, make_sampler
from qm9flow.tuning.selection import Final, Selection
from qm9flow.tuning.spaces import PRESETS

NAME = "drawn <&>"
SPACE = {
    "conv_layers": IntDistribution(1, 4),
    "hidden": IntDistribution(2, 128, log=True),
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "loss": CategoricalDistribution(("rmse", "<b>mae</b>")),
}
STATES = {
    "complete": TrialState.COMPLETE,
    "halving": TrialState.PRUNED,
    "vanishing": TrialState.PRUNED,
    "crash": TrialState.FAIL,
}
PARTS = (
    "history",
    "importances",
    "parallel",
    "slices",
    "pareto",
    "survival",
    "health",
    "leaderboard",
    "network",
)


def stores_in_folder(folder: Path) -> Stores:
    base = folder / "mlruns"
    return Stores(
        f"sqlite:///{folder}/mlflow.db",
        f"sqlite:///{folder}/optuna.db",
        base / "tensorboard",
        base / "state",
    )


def make_study(
    stores: Stores, endings: list[str], n_trials: int | None = None, **options: Any
) -> None:
    """A study whose score depends on the learning rate most."""
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(storage=stores.optuna_url, study_name=NAME)
    config = StudyConfig(n_trials=n_trials or max(1, len(endings)), train_size=500, **options)
    study.set_user_attr(NOTE_CONFIG, to_dict(config))
    for number, ending in enumerate(endings):
        params = {
            "conv_layers": int(random.integers(1, 5)),
            "hidden": int(2 ** random.uniform(1, 7)),
            "learning_rate": float(10 ** random.uniform(-5, -1)),
            "loss": str(random.choice(["rmse", "<b>mae</b>"])),
        }
        score = 0.1 + 0.2 * abs(np.log10(params["learning_rate"]) + 3) + 0.01 * random.random()
        is_complete, is_failed = ending == "complete", ending == "crash"
        outcome = {
            "score": None if is_failed else score,
            "epochs": {"complete": 9, "halving": 3, "vanishing": 1, "crash": 0}[ending],
            "train_loss": None if is_failed else 0.9 * score,
            "molecules_per_second": None if is_failed else 1e4 / params["hidden"],
            "seconds": 90.0,
            "verdict": "vanishing" if ending == "vanishing" else "healthy",
            "reason": None if is_complete else ending,
            "message": "<script>alert(1)</script>" if is_failed else None,
        }
        study.add_trial(
            create_trial(
                state=STATES[ending],
                params=params,
                distributions=SPACE,
                value=score if is_complete else None,
                user_attrs={ATTRIBUTE_OUTCOME: outcome, ATTRIBUTE_RUN: f"{number:032x}"},
            )
        )


def write(stores: Stores, folder: Path) -> Report:
    return write_report(read_facts(stores, NAME), folder)


class Reader(HTMLParser):
    """What a page loads, links to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.open.append(tag)
        if tag == "section":
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
            return
        named = ("src", "href", "srcset", "data", "action", "poster")
        self.loaded += [found[name] for name in named if name in found]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


FULL = ["complete", "complete", "halving"] * 6 + ["vanishing"] * 3 + ["crash"] * 2


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """A study of 23 trials that ended in all ways."""
    stores = stores_in_folder(tmp_path_factory.mktemp("study"))
    make_study(stores, FULL)
    return read_facts(stores, NAME)


@pytest.fixture(scope="module")
def written(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report(facts, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def read(written: Report) -> Reader:
    return Reader(written.page.read_text())


@pytest.mark.parametrize("name", TITLES)
def test_each_figure_is_a_picture(written: Report, name: str) -> None:
    assert written.missing == {}
    pixels = imread(written.page.parent / f"{name}.png")[..., :3]
    height, width = pixels.shape[:2]
    assert width > 700
    assert height > 250
    inked = (pixels.min(axis=2) < 0.9).mean()
    assert 0.01 < inked < 0.95
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert border.min() > 0.99  # nothing is cut off


def test_page_has_all_parts(read: Reader) -> None:
    assert tuple(read.ids) == (*PARTS, "failures")
    assert {f"#{name}" for name in PARTS} == {link for link in read.links if link[0] == "#"}


def test_page_loads_nothing(read: Reader, written: Report) -> None:
    assert all(address.startswith("data:") for address in read.loaded)
    assert not [link for link in read.links if not link.startswith("#")]
    page = written.page.read_text()
    assert not re.search(r"<script[^>]+src=", page)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert page.count("plotly.js v") == 1
    assert len(page) < 8_000_000


def test_names_and_messages_are_escaped(read: Reader, written: Report) -> None:
    page = written.page.read_text()
    assert "alert(1)" in read.text
    assert "<script>alert(1)" not in page
    assert "<h1>drawn &lt;&amp;&gt;</h1>" in page
    assert "<b>mae" not in page


def test_key_figures_are_counted(read: Reader) -> None:
    for words in (
        "Completed 12 of 23 trials",
        "Behind at a rung 6 6 at rung 3",
        "Stopped by gradients 3 3 vanishing",
        "Failed 2 2 crash",
        "Time of all trials 34 min",
        f"Molecules trained {500 * (12 * 9 + 6 * 3 + 3):,}",
    ):
        assert words in read.text


def test_gradients_are_explained(read: Reader) -> None:
    assert "Vanishing gradients are most frequent at" in read.text


def test_mlflow_servers_are_linked_without_their_login(facts: Facts) -> None:
    here = dataclasses.replace(
        facts, on_record=OnRecord(None, "", "7"), tracking_uri="http://me:secret@host:5000/base"
    )
    text = page(here, dict.fromkeys(TITLES, "not drawn"))
    links = [link for link in Reader(text).links if not link.startswith("#")]
    best = min(facts.trials, key=lambda trial: trial.score if trial.state == "complete" else 9.0)
    assert links[0] == f"http://host:5000/base/#/experiments/7/runs/{best.run_id}"
    assert len(links) == 12
    assert "secret" not in text


def test_learning_rate_matters_most(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    make_study(stores, ["complete"] * 25)
    known = study_parameters(stores.optuna_url, NAME)
    assert max(known.importances, key=lambda name: known.importances[name]) == "learning_rate"
    assert sum(known.importances.values()) == pytest.approx(1.0)
    axes = {axis.name: axis for axis in known.axes}
    assert axes["hidden"].kind == "log"
    assert axes["conv_layers"].kind == "linear"
    assert axes["loss"].options == ("rmse", "<b>mae</b>")


EMPTY = set(TITLES)


@pytest.mark.parametrize(
    ("endings", "missing"),
    [
        ([], EMPTY),
        (["crash"], EMPTY - {"endings"}),
        (["halving"], {"importances", "parallel", "slices", "pareto", "health"}),
        (["complete"], {"importances", "parallel", "health"}),
        (["complete", "vanishing"], {"importances", "parallel"}),
    ],
)
def test_few_trials_are_drawn_as_far_as_they_go(
    tmp_path: Path, endings: list[str], missing: set[str]
) -> None:
    stores = stores_in_folder(tmp_path)
    make_study(stores, endings)
    report = write(stores, tmp_path / "out")
    assert set(report.missing) == missing
    assert all(report.missing.values())
    assert {path.stem for path in report.pictures} == set(TITLES) - missing
    assert all(path.exists() for path in report.pictures)
    ids = Reader(report.page.read_text()).ids
    assert tuple(ids[: len(PARTS)]) == PARTS


@pytest.mark.usefixtures("unpainted")
def test_an_interrupted_study_says_what_is_missing(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    make_study(stores, ["complete", "halving"], n_trials=30)
    assert read_facts(stores, NAME).status == "interrupted"
    text = Reader(write(stores, tmp_path / "out").page.read_text()).text
    assert "interrupted" in text
    assert "of 2 trials that ended; 30 asked for" in text
    assert "The study has no run in MLflow yet." in text
    assert "Fewer than 10 completed trials say little; here 1." in text
    assert "The gradients of all trials were healthy." in text


def test_finals_are_shown_round_by_round(facts: Facts) -> None:
    assert finals_section(facts) == ""
    complete = [trial for trial in facts.trials if trial.state == "complete"]
    first, second = complete[:2]
    finals = (
        Final(first.number, 1.5, 0.25, 2),
        Final(second.number, 1.5, 0.15, 2),
        Final(second.number, 4.5, None, 0),
    )
    selection = Selection(first, (), 0.01, (), {}, finals)
    markup = finals_section(dataclasses.replace(facts, selection=selection))
    numbers = [int(found) for found in re.findall(r"<tr[^>]*><td>(\d+)", markup)]
    assert numbers == [second.number, first.number]  # the longest training first
    texts = Reader(markup).texts
    assert [item for item in texts if item in ("0.2500", "0.1500", "failed")] == [
        "0.1500",
        "failed",
        "0.2500",
    ]
    assert {"1.5 min", "4.5 min", "chosen"} <= set(texts)


def test_a_grid_that_ran_out_was_not_interrupted(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    make_study(stores, ["halving"] * 2, n_trials=9999, sampler="grid", halving="off")
    facts = read_facts(stores, NAME)
    assert facts.total == make_sampler("grid", PRESETS["seed"], 0).size
    assert facts.status == "interrupted"
    searched = dataclasses.replace(facts, total=2, on_record=OnRecord(None, "", "7"))
    assert searched.status == "searched"
    assert "but the final training has not" in searched.why_no_version
    config = dataclasses.replace(facts.study.config, finalists=4)
    with_finals = dataclasses.replace(
        searched, study=dataclasses.replace(facts.study, config=config)
    )
    assert "but the finals have not" in with_finals.why_no_version
    assert "No halving." in header(facts)


def test_a_version_of_an_earlier_start_is_named(tmp_path: Path) -> None:
    """A start that goes on has a run of its own, which no version is noted with yet."""
    stores = stores_in_folder(tmp_path)
    make_study(stores, ["complete"], n_trials=2)
    client = MlflowClient(stores.tracking_uri)
    client.create_registered_model(MODEL_NAME)
    for study in (NAME, f"{NAME}/other"):
        tags = {"release_id": f"{study}/trial-00000-10-minutes"}
        client.create_model_version(MODEL_NAME, "somewhere", tags=tags)
    run_id = client.create_run("0").info.run_id
    found = look_up(stores, NAME, run_id)
    assert (found.registered, found.earlier) == (None, 1)
    facts = dataclasses.replace(read_facts(stores, NAME), on_record=found)
    assert facts.why_no_version.startswith("the study was interrupted after 1 of 2 trials")
    assert facts.why_no_version.endswith("version 1, of an earlier start, stays registered")


@pytest.mark.usefixtures("unpainted")
def test_pictures_of_an_earlier_report_do_not_stay(tmp_path: Path, written: Report) -> None:
    stores = stores_in_folder(tmp_path)
    make_study(stores, ["halving"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pareto.png").write_bytes((written.page.parent / "pareto.png").read_bytes())
    write(stores, tmp_path / "out")
    assert not (tmp_path / "out" / "pareto.png").exists()


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


def make_branched_study(stores: Stores, n_trials: int) -> None:
    """A study over architectures, in which PaiNN is best and its width matters."""
    space = PRESETS["modern"]
    sampler = make_sampler("random", space, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(storage=stores.optuna_url, study_name=NAME)
    drawing = optuna.create_study()
    trials = []
    for number in range(n_trials):
        params = sampler.propose(drawing.ask())
        score = 0.3 if params["architecture"] != "painn" else 0.1 + params["painn_hidden"] / 500
        score *= 1 + abs(np.log10(params["learning_rate"] / 3e-3)) + number / 1e4
        speed = 1e4 / params["batch_size"]
        outcome = {"score": score, "train_loss": 0.9 * score, "molecules_per_second": speed}
        trials.append(
            create_trial(
                params=params,
                distributions=distributions(space, params),
                value=score,
                user_attrs={ATTRIBUTE_OUTCOME: outcome | {"epochs": 9}},
            )
        )
    study.add_trials(trials)


def test_trials_that_lack_each_others_parameters_are_drawn(tmp_path: Path) -> None:
    stores = stores_in_folder(tmp_path)
    make_branched_study(stores, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = write(stores, tmp_path / "out")
    assert set(report.missing) == {"health"}
    text = Reader(report.page.read_text()).text
    assert re.search(r"architecture painn: \d+ trials?", text)
    known, trials = study_parameters(stores.optuna_url, NAME), show_study(stores, NAME).trials
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
    make_branched_study(stores, n_trials)
    report = write(stores, tmp_path / "out")
    expected = {"importances", "health"} | ({"parallel"} if n_trials == 1 else set())
    assert set(report.missing) == expected


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
        read_facts(stores, "other")


@pytest.mark.usefixtures("unpainted")
def test_the_report_goes_to_the_studys_run(facts: Facts) -> None:
    tracker = create_autospec(StudyTracker, instance=True)
    kept: list[str] = []
    tracker.log_artifact.side_effect = lambda path: kept.extend(
        f"{path.name}/{file.name}" for file in path.iterdir()
    )
    log_report(facts, tracker)
    assert sorted(kept) == sorted(["report/report.html", *(f"report/{n}.png" for n in TITLES)])

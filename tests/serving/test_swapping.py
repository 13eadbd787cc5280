"""A running engine follows its alias, and stays where it is when the new model is no good."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hand_made
import numpy as np
import onnx
import pytest
import registering
import served
import shipping

from qm9flow.config import ServeConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import InferenceError, RegistryError
from qm9flow.inference.predictor import Predictor
from qm9flow.inference.probes import PROBES
from qm9flow.molecules.pool import MoleculePool
from qm9flow.properties import LEARNED
from qm9flow.registry.aliases import promote, rollback
from qm9flow.registry.find import FoundModel, alias_of, find_model
from qm9flow.registry.versions import MODEL_NAME
from serving.batching import Call
from serving.engine import Engine
from serving.handover import Handover
from serving.model import Live, Model, prove
from serving.runtime import Runtime
from serving.swapping import Swapper

WATER = json.dumps({"molecules": [{"xyz": served.WATER}], "targets": ["gap", "mu"]}).encode()
SOON = 30.0


def until(condition: Callable[[], Any], seconds: float = SOON) -> Any:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def registry(
    stores_in: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> registering.Registry:
    """Version 1 is champion; version 2 has other numbers; neither is fetched yet."""
    monkeypatch.setenv("QM9FLOW_CACHE", str(stores_in / "cache"))
    made = registering.open_registry(stores_in, served.bundle(dataset))
    promote(made.add("one"))
    made.add("two", 0.5, served.bundle(dataset, seed=4))
    return made


def settings_of(registry: registering.Registry, model: str = "champion") -> ServeConfig:
    return ServeConfig(
        model=model,
        conformer_workers=1,
        device="cpu",
        poll_seconds=0.1,
        tracking_uri=f"sqlite:///{registry.folder}/mlflow.db",
    )


@pytest.fixture
def runtime(registry: registering.Registry) -> Iterator[Runtime]:
    started = Runtime(settings_of(registry))
    try:
        started.wait(60)
        yield started
    finally:
        started.close()


def answer(runtime: Runtime) -> tuple[int | None, dict[str, float]]:
    assert runtime.engine is not None
    body = json.loads(runtime.engine.respond(WATER))
    return body["model"]["version"], body["results"][0]["values"]


def point(registry: registering.Registry, number: int) -> None:
    """What MLflow's own page does, without our gate and checks."""
    registry.client.set_registered_model_alias(MODEL_NAME, "champion", str(number))


def expected(bundle: Path) -> dict[str, float | None]:
    predictor = Predictor(bundle, provider="cpu", threads=1)
    return predictor.predict([PROBES[0]], ["gap", "mu"])[0].values


def test_promotion_and_rollback_reach_it(
    runtime: Runtime, registry: registering.Registry, dataset: Dataset
) -> None:
    assert answer(runtime) == (1, expected(served.bundle(dataset)))
    promoted = promote(registry_version(registry, 2), force=True)
    assert promoted.alias == "champion"
    until(lambda: answer(runtime)[0] == 2)
    assert answer(runtime) == (2, expected(served.bundle(dataset, seed=4)))
    assert runtime.describe()["next"] is None
    assert runtime.describe()["watch"]["asked"]
    rollback()
    until(lambda: answer(runtime)[0] == 1)
    assert answer(runtime) == (1, expected(served.bundle(dataset)))


def registry_version(registry: registering.Registry, number: int) -> Any:
    from qm9flow.registry.versions import resolve

    return resolve(number, f"sqlite:///{registry.folder}/mlflow.db")


def test_a_damaged_version_is_not_taken_and_said(
    runtime: Runtime, registry: registering.Registry, caplog: pytest.LogCaptureFixture
) -> None:
    (stored,) = [
        path
        for path in (registry.folder / "mlruns").rglob("bundle/model.onnx")
        if path.read_bytes() != (registry.bundle / "model.onnx").read_bytes()
    ]
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-100] + b"x" * 100)
    point(registry, 2)
    failure = until(lambda: runtime.describe()["next"])
    assert (failure["version"], failure["error"]["code"]) == (2, "fetch_failed")
    assert "version 1 goes on answering" in failure["error"]["message"]
    assert str(registry.folder) not in json.dumps(runtime.describe())
    assert "differs from what was registered" in caplog.text
    assert answer(runtime)[0] == 1
    time.sleep(0.5)
    assert runtime.describe()["next"]["tries"] <= 4  # 0.1 s, 0.2 s, 0.4 s: no tight loop
    stored.write_bytes(whole)
    until(lambda: answer(runtime)[0] == 2)
    assert runtime.describe()["next"] is None


def test_a_registry_that_is_away_changes_nothing(
    runtime: Runtime, registry: registering.Registry
) -> None:
    database = registry.folder / "mlflow.db"
    until(lambda: runtime.describe()["watch"])
    hidden = database.rename(registry.folder / "hidden.db")
    until(lambda: runtime.describe()["watch"]["unanswered_since"])
    assert answer(runtime)[0] == 1
    hidden.rename(database)
    until(lambda: not runtime.describe()["watch"]["unanswered_since"])
    point(registry, 2)
    until(lambda: answer(runtime)[0] == 2)


def test_an_alias_that_is_gone_changes_nothing(
    runtime: Runtime, registry: registering.Registry
) -> None:
    until(lambda: runtime.describe()["watch"])
    asked = until(lambda: runtime.describe()["watch"]["asked"])
    registry.client.delete_registered_model_alias(MODEL_NAME, "champion")
    time.sleep(1.1)
    until(lambda: runtime.describe()["watch"]["asked"] != asked)
    assert answer(runtime)[0] == 1
    assert runtime.describe()["next"] is None


def test_the_first_champion_takes_the_place_of_the_pretrained_model(
    stores_in: Path,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shipping.use(monkeypatch, shipping.ship(dataset, tmp_path_factory.mktemp("shipped")))
    monkeypatch.setenv("QM9FLOW_CACHE", str(stores_in / "cache"))
    runtime = Runtime(ServeConfig(conformer_workers=1, device="cpu", poll_seconds=0.1))
    try:
        runtime.wait(60)
        until(lambda: runtime.describe()["watch"])
        assert answer(runtime)[0] is None
        registry = registering.open_registry(stores_in, served.bundle(dataset))
        promote(registry.add("one"))
        until(lambda: answer(runtime)[0] == 1)
    finally:
        runtime.close()


def test_a_store_that_comes_later_is_waited_for(
    registry: registering.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = registry.folder / "mlflow.db"
    hidden = database.rename(registry.folder / "hidden.db")
    settings = ServeConfig(
        conformer_workers=1, device="cpu", poll_seconds=0.1, tracking_uri=f"sqlite:///{database}"
    )
    runtime = Runtime(settings)
    try:
        with pytest.raises(RegistryError):
            runtime.wait(60)
        assert runtime.status == "failed"
        hidden.rename(database)
        until(lambda: runtime.status == "ready")
        assert answer(runtime)[0] == 1
    finally:
        runtime.close()


@pytest.mark.parametrize("damage", ["model.onnx", "config.json", ""])
def test_a_bundle_that_was_damaged_since_it_was_fetched_is_fetched_anew(
    registry: registering.Registry, dataset: Dataset, damage: str
) -> None:
    wanted = settings_of(registry)
    fetched = find_model("champion", wanted.tracking_uri)
    if damage:
        (fetched.bundle / damage).write_bytes(b"junk")
    else:
        shutil.rmtree(fetched.bundle)
    database = registry.folder / "mlflow.db"
    hidden = database.rename(registry.folder / "hidden.db")
    given = {"bundle": str(fetched.bundle), "version": fetched.version, "alias": fetched.alias}
    runtime = Runtime(replace(wanted, **given))  # as a process that is started again
    try:
        with pytest.raises(RegistryError):
            runtime.wait(60)
        hidden.rename(database)
        until(lambda: runtime.status == "ready")
        assert answer(runtime) == (1, expected(served.bundle(dataset)))
    finally:
        runtime.close()


def test_another_graph_than_was_fetched_is_not_served(
    registry: registering.Registry, dataset: Dataset
) -> None:
    wanted = settings_of(registry)
    fetched = find_model("champion", wanted.tracking_uri)
    other = served.bundle(dataset, seed=4) / "model.onnx"
    shutil.copyfile(other, fetched.bundle / "model.onnx")  # sound, and not what was released
    runtime = Runtime(replace(wanted, bundle=str(fetched.bundle), version=1, alias="champion"))
    try:
        runtime.wait(60)
        assert answer(runtime) == (1, expected(served.bundle(dataset)))
    finally:
        runtime.close()


def test_a_process_that_is_started_again_begins_with_what_answered_last(
    registry: registering.Registry, dataset: Dataset, tmp_path: Path
) -> None:
    wanted = settings_of(registry)
    first = find_model("champion", wanted.tracking_uri)
    told = replace(
        wanted,
        bundle=str(first.bundle),
        version=1,
        alias="champion",
        handover=str(tmp_path / "model.json"),
    )
    killed = Runtime(told)
    try:
        killed.wait(60)
        point(registry, 2)
        until(lambda: answer(killed)[0] == 2)
    finally:
        killed.close()
    database = registry.folder / "mlflow.db"
    database.rename(registry.folder / "hidden.db")
    again = Runtime(told)
    try:
        again.wait(60)
        assert answer(again) == (2, expected(served.bundle(dataset, seed=4)))
    finally:
        again.close()


def test_a_note_of_a_damaged_bundle_is_not_followed(
    registry: registering.Registry, dataset: Dataset, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(served.bundle(dataset, seed=4), broken)
    (broken / "model.onnx").write_bytes(b"junk")
    file = tmp_path / "home" / "model.json"
    Handover(str(file)).note(FoundModel(broken, 2, "champion"))
    runtime = Runtime(replace(settings_of(registry), handover=str(file)))
    try:
        runtime.wait(60)
        assert answer(runtime) == (1, expected(served.bundle(dataset)))
        noted = until(lambda: Handover(str(file)).read())  # of what was fetched instead
        assert (noted.version, noted.bundle) != (2, broken)
        shutil.rmtree(tmp_path / "home")  # as what clears folders of temporary files does
        assert until(lambda: Handover(str(file)).read()) == noted
    finally:
        runtime.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"bundle": 3, "version": 1, "alias": ""}'])
def test_a_note_that_cannot_be_read_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "note").write_text(text)
    assert Handover(str(tmp_path / "note")).read() is None
    assert "cannot be read" in caplog.text


def test_a_note_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = FoundModel(tmp_path, 2, "champion")
    (tmp_path / "file").touch()
    Handover(str(tmp_path / "file" / "note")).note(found)
    assert "will not begin with version 2" in caplog.text
    Handover(None).note(found)
    assert Handover(None).read() is None


@pytest.mark.parametrize("reference", ["1", "pretrained", "some/folder", ".", "models:/qm9flow/1"])
def test_what_is_no_alias_is_not_followed(reference: str) -> None:
    assert alias_of(reference) is None


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_an_alias_is_one_as_mlflow_writes_it_too(alias: str) -> None:
    assert alias_of(alias) == alias_of(f"models:/qm9flow@{alias}") == alias


def test_an_address_of_mlflows_is_followed(registry: registering.Registry) -> None:
    runtime = Runtime(settings_of(registry, model="models:/qm9flow@champion"))
    try:
        runtime.wait(60)
        assert answer(runtime)[0] == 1
        point(registry, 2)
        until(lambda: answer(runtime)[0] == 2)
    finally:
        runtime.close()


def test_requests_under_way_end_with_the_model_they_began_with(
    champion: FoundModel, dataset: Dataset
) -> None:
    settings = ServeConfig(device="cpu")
    old, new = Model(champion, settings), Model(champion, settings)
    live = Live(old)
    with live.borrow() as mine:
        assert mine is old
        live.replace(new)
        with live.borrow() as later:
            assert later is new
        assert mine.predict([PROBES[0]], Call(30))[0] is not None
        assert any(lane.is_alive() for lane in old._batcher._lanes)
    assert not any(lane.is_alive() for lane in old._batcher._lanes)
    live.close()
    assert not any(lane.is_alive() for lane in new._batcher._lanes)


def test_many_swaps_leave_no_thread_behind(champion: FoundModel) -> None:
    settings = ServeConfig(device="cpu")
    before = set(threading.enumerate())
    live = Live(Model(champion, settings))
    for _ in range(20):
        live.replace(Model(champion, settings))
    live.close()
    begun = set(threading.enumerate()) - before
    assert not [thread for thread in begun if thread.name.startswith("network-")]


def test_a_model_that_mixes_molecules_is_not_proven(
    champion: FoundModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove(Predictor(champion.bundle, provider="cpu", threads=1))
    hand_made.write_graph(tmp_path / "model.onnx", LEARNED)
    predictor = Predictor(tmp_path, provider="cpu", threads=1)
    prove(predictor)
    whole = Predictor._run

    def mixing(self: Predictor, session: Any, molecules: Any) -> Any:
        values, *judging = whole(self, session, molecules)
        return values + values.mean(axis=0), *judging

    monkeypatch.setattr(Predictor, "_run", mixing)
    with pytest.raises(InferenceError, match="among other molecules"):
        prove(predictor)

    def broken(self: Predictor, session: Any, molecules: Any) -> Any:
        values, *judging = whole(self, session, molecules)
        return values * float("nan"), *judging

    monkeypatch.setattr(Predictor, "_run", broken)
    with pytest.raises(InferenceError, match="no finite"):
        prove(predictor)


def test_networks_for_other_geometries_are_proven_too(tmp_path: Path) -> None:
    whole = Path(__file__).parent.parent / "release" / "format_8"
    shutil.copytree(whole, tmp_path / "bundle")
    prove(Predictor(tmp_path / "bundle", provider="cpu", threads=1))
    path = tmp_path / "bundle" / "rough.onnx"
    graph = onnx.load(path)
    (offset,) = (item for item in graph.graph.initializer if item.name.endswith("offset"))
    lost = np.full_like(onnx.numpy_helper.to_array(offset), np.nan)
    offset.CopyFrom(onnx.numpy_helper.from_array(lost, offset.name))
    onnx.save(graph, path)
    with pytest.raises(InferenceError, match="no finite mu for water from smiles"):
        prove(Predictor(tmp_path / "bundle", provider="cpu", threads=1))


def test_an_engine_that_cannot_begin_leaves_nothing_behind(
    champion: FoundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(jobs: Any) -> Any:
        raise OSError("no process can be started")

    monkeypatch.setattr(MoleculePool, "build", lambda self, jobs: refuse(jobs))
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="no process"):
        Engine(champion, ServeConfig(device="cpu", conformer_workers=1))
    begun = set(threading.enumerate()) - before
    assert not [item for item in begun if item.name.startswith(("network-", "geometries-"))]


class Scripted:
    """A registry that says what a test tells it to say."""

    alias = "champion"

    def __init__(self, found: FoundModel) -> None:
        self.found = found
        self.asked = self.fetched = 0
        self.number: int | None = 2

    def ask(self) -> int | None:
        self.asked += 1
        return self.number

    def fetch(self, number: int) -> FoundModel:
        self.fetched += 1
        return FoundModel(self.found.bundle, number, "champion")


def test_a_bad_version_is_tried_again_ever_more_rarely(
    champion: FoundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("serving.swapping.time.monotonic", lambda: now[0])
    live = Live(Model(champion, ServeConfig(device="cpu")))
    watch = Scripted(champion)

    def refuse(found: FoundModel) -> Model:
        raise InferenceError("it has no finite values, in /some/where")

    swapper = Swapper(live, watch, refuse, pause_s=10)
    tries = []
    for _ in range(720):  # two hours
        swapper.look()
        tries.append(watch.fetched)
        now[0] += 10
    assert watch.asked == 720
    assert tries[:9] == [1, 2, 2, 3, 3, 3, 3, 4, 4]
    assert 15 <= watch.fetched <= 20  # every ten minutes at last
    described = swapper.describe()["next"]
    assert described["error"]["code"] == "load_failed"
    assert "where" not in json.dumps(described)
    watch.number = 3  # another version is tried at once
    swapper.look()
    assert swapper.describe()["next"] == described | {"version": 3, "tries": 1}
    watch.number = 1
    swapper.look()
    assert swapper.describe()["next"] is None
    live.close()


def test_a_store_whose_folder_was_closed_is_silent_and_no_more(champion: FoundModel) -> None:
    live, watch = Live(Model(champion, ServeConfig(device="cpu"))), Scripted(champion)
    swapper = Swapper(live, watch, lambda found: live.model, pause_s=10)

    def refuse() -> int:
        raise PermissionError("/some/where/mlflow.db")

    watch.ask = refuse  # type: ignore[method-assign]
    swapper.look()
    assert swapper.describe()["watch"]["unanswered_since"] is not None
    live.close()


def test_a_version_that_answers_is_never_said_to_fail(
    champion: FoundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeConfig(device="cpu")
    old = Model(champion, settings)
    live, damaged = Live(old), [True]

    def open_model(found: FoundModel) -> Model:
        if damaged[0]:
            raise InferenceError("it has no finite values")
        return Model(found, settings)

    swapper = Swapper(live, Scripted(champion), open_model, pause_s=0)
    swapper.look()
    assert swapper.describe()["next"]["version"] == 2
    damaged[0] = False
    said = []
    close = old.close

    def closing() -> None:  # the moment at which the new version has begun to answer
        said.append((live.model.version, swapper.describe()["next"]))
        close()

    monkeypatch.setattr(old, "close", closing)
    swapper.look()
    assert said == [(2, None)]
    live.close()


def test_the_copy_of_a_fetched_bundle_that_was_damaged_is_fetched_again(
    runtime: Runtime, registry: registering.Registry
) -> None:
    point(registry, 2)
    until(lambda: answer(runtime)[0] == 2)
    point(registry, 1)
    until(lambda: answer(runtime)[0] == 1)
    copies = [path for path in (registry.folder / "cache" / "models").iterdir() if path.is_dir()]
    assert len(copies) == 2
    for copy in copies:
        (copy / "model.onnx").write_bytes(b"junk")
        shutil.rmtree(copy / "model.onnx", ignore_errors=True)
    point(registry, 2)
    until(lambda: answer(runtime)[0] == 2)

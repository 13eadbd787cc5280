"""Requests share batches, and none is the worse for it."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm9flow.config import ServeConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import InferenceError, MoleculeError
from qm9flow.inference.prediction import Prediction
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Conformers, Molecule, Structure
from qm9flow.properties import LEARNED, get
from qm9flow.registry.find import FoundModel
from serving.batching import Batch, Batcher, Call, CallOverError
from serving.model import Model, pairs


class Doubler:
    """Work that a test can hold up, and look into."""

    def __init__(self, budget: int = 10, lanes: int = 1) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.seen: list[Batch] = []
        self.batcher: Batcher[int, int] = Batcher(
            "test",
            self.work,
            cost=lambda item: item,
            budget=budget,
            lanes=lanes,
            observe=self.seen.append,
        )

    def work(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.begun.set()
        self.gate.wait(10)
        if 13 in items:
            raise RuntimeError("an unlucky number")
        return [2 * item for item in items]

    def later(self, pool: ThreadPoolExecutor, items: Sequence[int], call: Call | None = None):  # type: ignore[no-untyped-def]
        """Put items in the line, and go on once they stand there."""
        before = self.batcher.waiting
        future = pool.submit(self.batcher.run, items, call or Call(30))
        until = time.monotonic() + 5
        while self.batcher.waiting == before and not future.done() and time.monotonic() < until:
            time.sleep(0.001)
        return future


@pytest.fixture
def doubler() -> Iterator[Doubler]:
    made = Doubler()
    yield made
    made.gate.set()
    made.batcher.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def busy(doubler: Doubler, pool: ThreadPoolExecutor) -> None:
    """Let its one lane be at work."""
    pool.submit(doubler.batcher.run, [1], Call(30))
    assert doubler.begun.wait(5)


def test_idle_it_begins_at_once_and_loaded_it_gathers(
    doubler: Doubler, pool: ThreadPoolExecutor
) -> None:
    busy(doubler, pool)
    futures = [doubler.later(pool, [number]) for number in (2, 3, 4)]
    doubler.gate.set()
    assert [future.result(5) for future in futures] == [[4], [6], [8]]
    assert doubler.batches == [[1], [2, 3, 4]]
    assert [(seen.items, seen.cost) for seen in doubler.seen] == [(1, 1), (3, 9)]


def test_a_batch_costs_no_more_than_the_budget_but_one_item_may(
    doubler: Doubler, pool: ThreadPoolExecutor
) -> None:
    doubler.gate.set()
    items = [5, 25, 1, 5, 4, 9, 25]
    assert doubler.batcher.run(items, Call(30)) == [2 * item for item in items]
    for batch in doubler.batches:
        assert sum(batch) <= 10 or len(batch) == 1


def test_a_huge_request_does_not_keep_a_small_one_waiting(
    doubler: Doubler, pool: ThreadPoolExecutor
) -> None:
    busy(doubler, pool)
    huge = doubler.later(pool, [5] * 1000)
    small = doubler.later(pool, [4])
    doubler.gate.set()
    assert small.result(5) == [8]
    assert doubler.batches[1] == [5, 4]
    assert huge.result(10) == [10] * 1000


def test_requests_of_one_size_end_one_after_the_other(
    doubler: Doubler, pool: ThreadPoolExecutor
) -> None:
    busy(doubler, pool)
    older = doubler.later(pool, [2] * 20)
    younger = doubler.later(pool, [3] * 20)
    doubler.gate.set()
    assert (older.result(5), younger.result(5)) == ([4] * 20, [6] * 20)
    of_both = [batch for batch in doubler.batches if 2 in batch]
    assert len(of_both) < len(doubler.batches) - 4
    assert all(3 in batch for batch in of_both)  # which went on, too


def test_what_breaks_costs_its_batch_alone_and_the_lane_lives_on(
    doubler: Doubler, pool: ThreadPoolExecutor
) -> None:
    doubler.gate.set()
    assert doubler.batcher.run([13], Call(30)) == [None]
    assert doubler.batcher.run([3], Call(30)) == [6]


def test_a_metric_that_cannot_be_written_does_not_end_the_lane() -> None:
    def full(batch: Batch) -> None:
        raise OSError("no space left on the device")

    batcher: Batcher[int, int] = Batcher("test", lambda items: items, observe=full)
    try:
        assert batcher.run([1], Call(30)) == [1]
        assert batcher.run([2], Call(5)) == [2]
    finally:
        batcher.close()


def test_what_nobody_waits_for_is_not_computed(doubler: Doubler, pool: ThreadPoolExecutor) -> None:
    busy(doubler, pool)
    gone, late = Call(30), Call(0.2)
    abandoned = doubler.later(pool, [6] * 3, gone)
    expired = doubler.later(pool, [7] * 3, late)
    wanted = doubler.later(pool, [2])
    gone.give_up()
    assert abandoned.result(5) == [None] * 3
    assert expired.result(5) == [None] * 3
    doubler.gate.set()
    assert wanted.result(5) == [4]
    assert doubler.batches == [[1], [2]]


def test_after_the_end_nothing_is_done(pool: ThreadPoolExecutor) -> None:
    doubler = Doubler()
    doubler.gate.set()
    doubler.batcher.close()
    assert doubler.batcher.run([1, 2], Call(30)) == [None, None]
    assert doubler.batcher.run([], Call(30)) == []


@pytest.fixture(scope="module")
def model(champion: FoundModel) -> Iterator[Model]:
    opened = Model(champion, ServeConfig(device="cpu"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def molecules(dataset: Dataset) -> list[Structure]:
    """Of 3 to 29 atoms, and one of them three times as conformers."""
    chosen = [dataset.molecule(index) for index in (1, 2, 9, 500, 5000, 70_000, 130_000, 50_021)]
    last = chosen[-1]
    positions = np.stack([last.positions, 1.01 * last.positions, 0.99 * last.positions])
    return [*chosen, Conformers(last.numbers, positions, np.array([0.0, 0.3, 1.0]), "C")]


@pytest.fixture(scope="module")
def expected(champion: FoundModel, molecules: list[Structure]) -> list[Prediction]:
    return Predictor(champion.bundle, provider="cpu", threads=1).predict(molecules)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=8))
def test_requests_side_by_side_get_the_predictors_numbers(
    model: Model,
    molecules: list[Structure],
    expected: list[Prediction],
    requests: list[list[int]],
) -> None:
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(
            pool.map(
                lambda chosen: model.predict([molecules[i] for i in chosen], Call(60)), requests
            )
        )
    for chosen, answer in zip(requests, answers, strict=True):
        assert len(answer) == len(chosen)
        for index, prediction in zip(chosen, answer, strict=True):
            assert isinstance(prediction, Prediction)
            same(prediction, expected[index])


def same(one: Prediction, other: Prediction) -> None:
    """What float32 rounds differently in another batch is far below what a release may differ."""
    assert (one.warnings, one.domain, one.conformers) == (
        other.warnings,
        other.domain,
        other.conformers,
    )
    for target in LEARNED:
        allowed = 1e-3 * (get(target).chemical_accuracy or 0)
        first, second = one.values[target], other.values[target]
        assert first is not None
        assert second is not None
        assert abs(first - second) <= max(allowed, 1e-9 * abs(second))


def test_one_molecule_that_breaks_the_network_spoils_no_other(
    model: Model,
    molecules: list[Structure],
    expected: list[Prediction],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Predictor.predict_each
    poison = molecules[3]

    def poisoned(
        self: Predictor, given: Sequence[Molecule], targets: object = None
    ) -> list[Prediction | MoleculeError]:
        if any(molecule is poison for molecule in given):
            raise InferenceError("out of memory in /some/where")
        return whole(self, given)

    monkeypatch.setattr(Predictor, "predict_each", poisoned)
    answer = model.predict(molecules, Call(60))
    for index, (result, prediction) in enumerate(zip(answer, expected, strict=True)):
        if index == 3:
            assert isinstance(result, MoleculeError)
            assert "where" not in str(result)
        else:
            assert isinstance(result, Prediction)
            same(result, prediction)


def test_a_call_that_is_over_has_no_half_an_answer(
    model: Model, molecules: list[Structure]
) -> None:
    call = Call(60)
    call.give_up()
    with pytest.raises(CallOverError):
        model.predict(molecules, call)


def test_cost_counts_every_geometry(molecules: list[Structure]) -> None:
    size = len(molecules[-1])
    assert pairs(molecules[-2]) == size**2
    assert pairs(molecules[-1]) == 3 * size**2

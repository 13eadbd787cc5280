"""Who is trained further, and how that goes side by side."""

import optuna
from small_study import TINY, small_config

from qm9flow.data.store import Dataset
from qm9flow.training.events import CheckpointReady, Event, Failed, Finished
from qm9flow.tuning.executors import Answer, InProcessExecutor, TrialEvent, TrialJob
from qm9flow.tuning.finalists import pick, rounds
from qm9flow.tuning.records import State, TrialRecord
from qm9flow.tuning.sampling import make_sampler
from qm9flow.tuning.selection import Final, best_final
from qm9flow.tuning.side_by_side import SideBySide
from qm9flow.tuning.spaces import ARCHITECTURE, PRESETS, to_train_config

CONFIG = to_train_config(TINY.first, small_config(), 0, TINY)


def record(
    number: int, score: float, state: State = "complete", epochs: int = 9, **params: float
) -> TrialRecord:
    point = {"conv_layers": 1, "hidden": 4, "learning_rate": 1e-2, **params}
    return TrialRecord(number, state, point, score, epochs=epochs)


def test_finalists_differ_and_hold_the_first_point_and_every_structure() -> None:
    trials = [
        record(0, 0.9),
        record(1, 0.2, learning_rate=3e-3),
        record(2, 0.21, learning_rate=3.1e-3),  # about the same as the best
        record(3, 0.3, hidden=8),
        record(4, 0.8, "pruned", 1, conv_layers=2),
        record(5, 0.7, "pruned", 3, conv_layers=2, hidden=2),
    ]
    unsound = {**trials[5].params, "hidden": 8}
    trials.append(TrialRecord(6, "pruned", unsound, 0.1, epochs=9, reason="vanishing"))
    assert [item.number for item in pick(trials, TINY, 10)] == [1, 0, 5, 3, 4]
    assert [item.number for item in pick(trials, TINY, 2)] == [1, 0]


def test_every_architecture_and_layer_count_has_a_finalist() -> None:
    space = PRESETS["seed"]
    trials = [
        TrialRecord(n, "complete", {**(space.first or {}), "conv_layers": 1 + n % 4}, 0.1 * (n + 1))
        for n in range(40)
    ]
    found = pick(trials, space, 6)
    assert {item.params["conv_layers"] for item in found} == {1, 2, 3, 4}
    assert pick([], space, 6) == ()


def test_half_of_the_places_are_for_the_best() -> None:
    space = PRESETS["modern"]
    random = make_sampler("random", space, 0)
    study = optuna.create_study()
    points = [random.propose(study.ask()) for _ in range(60)]
    trials = [TrialRecord(n, "complete", point, 0.01 * n) for n, point in enumerate(points)]
    found = [item.number for item in pick(trials, space, 8)]
    assert len(found) == 8
    assert {trials[n].params[ARCHITECTURE] for n in found} == set(space.architectures.options)
    assert sum(n < 8 for n in found) >= 4


def test_rounds_shrink_and_lengthen() -> None:
    assert rounds(16, 30.0) == ((16, 2.0), (4, 6.0))
    assert rounds(2, 3.0) == ((2, 0.2), (2, 0.6))
    assert rounds(2, 0.01) == ((2, 0.01), (2, 0.02))
    assert rounds(1, 3.0) == rounds(0, 3.0) == ()


def test_the_longest_training_decides() -> None:
    finals = [Final(1, 1.0, 0.1, 2), Final(2, 1.0, None, 0), Final(2, 3.0, 0.3, 5)]
    assert best_final([*finals, Final(3, 3.0, 0.2, 5)]) == Final(3, 3.0, 0.2, 5)
    assert best_final(finals[1:2]) is None


class LosesWorkers(InProcessExecutor):
    """Slots whose worker is lost at the second answer of each training, so many times."""

    def __init__(self, dataset: Dataset, times: int) -> None:
        super().__init__(dataset)
        self.left = times

    def collect(self) -> list[Answer]:
        answers = super().collect()
        if not self.left or not answers or any(item.number == 0 for item in answers[0].events):
            return answers
        if all(not isinstance(item.event, CheckpointReady) for item in answers[0].events):
            return answers
        self.left -= 1
        number = answers[0].events[0].number
        return [Answer(0, (TrialEvent(number, Failed("crash", "its worker is lost")),))]


def train(dataset: Dataset, numbers: list[int], lost: int = 0) -> list[tuple[int, Event]]:
    said: list[tuple[int, Event]] = []
    executor = LosesWorkers(dataset, lost)
    jobs = [TrialJob(number, CONFIG, checkpoint_seconds=0.0) for number in numbers]
    assert SideBySide(jobs, executor, lambda *item: said.append(item)).run(lambda: False)
    return said


def endings(said: list[tuple[int, Event]]) -> list[tuple[int, type]]:
    return [(number, type(e)) for number, e in said if isinstance(e, Finished | Failed)]


def test_all_are_trained_and_lost_ones_again(dataset: Dataset) -> None:
    assert endings(train(dataset, [0, 1])) == [(0, Finished), (1, Finished)]
    assert endings(train(dataset, [1, 0], lost=2)) == [(0, Finished), (1, Finished)]
    assert endings(train(dataset, [1], lost=3)) == [(1, Failed)]


def test_a_stopped_training_goes_on_to_the_same_numbers(dataset: Dataset) -> None:
    whole = next(e for _, e in train(dataset, [0]) if isinstance(e, Finished))
    blobs: list[bytes] = []

    def keep(_: int, event: Event) -> None:
        if isinstance(event, CheckpointReady):
            blobs.append(event.blob)

    job = TrialJob(0, CONFIG, checkpoint_seconds=0.0)
    stopped = SideBySide([job], InProcessExecutor(dataset), keep)
    assert not stopped.run(lambda: bool(blobs))
    assert len(blobs) == 1
    said: list[Event] = []
    job = TrialJob(0, CONFIG, blobs[0], checkpoint_seconds=0.0)
    again = SideBySide([job], InProcessExecutor(dataset), lambda _, event: said.append(event))
    assert again.run(lambda: False)
    ended = said[-1]
    assert isinstance(ended, Finished)
    assert ended.weights == whole.weights

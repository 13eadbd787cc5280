"""A study whose coordinator was killed, brought to where Ctrl-C would have left it.

Starting the study again does the same by itself. This is for studies that nobody starts again, so
that no run of theirs stays RUNNING for ever.
"""

from dataclasses import dataclass

from mlflow import MlflowClient
from optuna.trial import TrialState

from qm9flow.errors import TrackingError
from qm9flow.tracking.places import study_place
from qm9flow.tracking.resume import end_orphans
from qm9flow.tracking.stores import Stores, connect, store_errors
from qm9flow.tracking.study import StudyTracker
from qm9flow.tuning.books import Books
from qm9flow.tuning.history import History, readable
from qm9flow.tuning.locks import Holder, parse_holder
from qm9flow.tuning.records import (
    ATTRIBUTE_OUTCOME,
    NOTE_IDENTITY,
    NOTE_LEASE,
    NOTE_PARENT,
    existing_storage,
    locate_study,
    show_study,
    study_lease,
)
from qm9flow.tuning.sampling import make_sampler
from qm9flow.tuning.spaces import get_space
from qm9flow.tuning.study import OpenStudy


@dataclass(frozen=True)
class OpenTrials:
    """Trials of a study that Optuna holds as running.

    Attributes:
        study: Its name.
        holder: Who runs it, None if nobody does.
        begun: Trials that the next start goes on with.
        untold: Trials that have ended, of which Optuna has not been told.
    """

    study: str
    holder: Holder | None
    begun: int
    untold: int


def open_trials(stores: Stores) -> list[OpenTrials]:
    """Studies that are in work, or were left so.

    Args:
        stores: Where to look.

    Returns:
        One entry a study that is held, or has a running trial.

    Raises:
        StudyError: The storage cannot be opened.
    """
    storage = existing_storage(stores.optuna_url)
    if storage is None:
        return []
    found = []
    with readable(stores.optuna_url):
        studies = [item for item in storage.get_all_studies() if NOTE_IDENTITY in item.user_attrs]
        trials = [
            storage.get_all_trials(item._study_id, deepcopy=False, states=(TrialState.RUNNING,))
            for item in studies
        ]
    for study, running in zip(studies, trials, strict=True):
        holder = parse_holder(study.user_attrs.get(NOTE_LEASE))
        ended = sum(ATTRIBUTE_OUTCOME in trial.user_attrs for trial in running)
        holder = holder if holder is not None and holder.is_alive else None
        if holder is not None or running:
            found.append(OpenTrials(study.study_name, holder, len(running) - ended, ended))
    return found


def settle_study(stores: Stores, name: str) -> OpenTrials:
    """Bring a study to rest: runs ended, noted ends told; begun trials wait for the next start.

    Args:
        stores: Where it is.
        name: Of the study.

    Returns:
        What there was to do.

    Raises:
        StudyBusyError: Somebody runs it.
        StudyError: There is none of that name, or its storage does not answer.
        TrackingError: MLflow's store does not answer.
    """
    storage, study_id = locate_study(stores, name)
    history = History(storage, study_id, name)
    client = connect(stores)
    with study_lease(stores, history) as lease:
        history.load()
        config = show_study(stores, name).config
        space = get_space(config.preset)
        sampler = make_sampler(config.sampler, space, config.seed)
        parent = history.attributes.get(NOTE_PARENT)
        opened = OpenStudy(name, config, space, sampler, history, stores, lease, parent)
        running = sum(trial.state == TrialState.RUNNING for trial in history.trials)
        begun = _settle_trials(opened, client)
        with store_errors(f"end the runs of study {name}"):
            end_orphans(client, study_place(stores, name), own="")
    return OpenTrials(name, None, len(begun), running - len(begun))


def _settle_trials(opened: OpenStudy, client: MlflowClient) -> list[int]:
    if opened.previous_parent is None:
        return []  # killed before its first trial
    with store_errors(f"look at the run of study {opened.name}"):
        parent = client.get_run(opened.previous_parent)
    tracker = StudyTracker(client, study_place(opened.stores, opened.name), parent)
    books = Books(opened, tracker)
    begun = books.recover()
    for number in begun:
        books.set_aside(number)
    if tracker.errors:
        raise TrackingError(
            f"MLflow did not take everything of study {opened.name}; nothing is lost: try again"
        )
    return begun

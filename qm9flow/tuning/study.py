"""A study under a lease: what it is, and that it is still the same one."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm9flow.config import StudyConfig, to_dict
from qm9flow.errors import StudyMismatchError
from qm9flow.locations import without_password
from qm9flow.tracking.places import study_place
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.history import History
from qm9flow.tuning.lease import Lease
from qm9flow.tuning.records import NOTE_CONFIG, NOTE_IDENTITY, NOTE_PARENT, study_lease
from qm9flow.tuning.sampling import TrialSampler, make_sampler
from qm9flow.tuning.spaces import Space, get_space

IDENTITY_FIELDS = (
    "sampler",
    "split",
    "train_size",
    "val_size",
    "max_epochs",
    "trial_minutes",
    "seed",
)
"""Options without which two trials do not compare, or a restart would draw other points. All
others (how many trials, where, for how long) may change from start to start."""
LATER_FIELDS = ("halving", "gradient_stop")
"""Options of the same kind that studies of earlier versions did not have: part of an identity
only where they are not the default."""
_DEFAULTS = {name: getattr(StudyConfig(), name) for name in LATER_FIELDS}


def recorded(config: StudyConfig) -> dict[str, Any]:
    """A study's options as they go on record: everything but passwords.

    Args:
        config: The study's options.

    Returns:
        Plain values by name.
    """
    return to_dict(config) | {"storage": config.storage and without_password(config.storage)}


def identity(config: StudyConfig, space: Space, data_digest: str) -> dict[str, Any]:
    """What must stay the same over all starts of a study.

    Args:
        config: The study's options.
        space: What is searched.
        data_digest: Of the data set.

    Returns:
        Plain values by name.
    """
    values = {name: getattr(config, name) for name in IDENTITY_FIELDS}
    later = {name: getattr(config, name) for name in LATER_FIELDS}
    values |= {name: value for name, value in later.items() if value != _DEFAULTS[name]}
    return {"space": f"{space.name}:{space.digest}", "data": data_digest, **values}


def identity_digest(config: StudyConfig, space: Space, data_digest: str) -> str:
    """Hash of a study's identity.

    Args:
        config: The study's options.
        space: What is searched.
        data_digest: Of the data set.

    Returns:
        Eight hexadecimal digits.
    """
    text = json.dumps(identity(config, space, data_digest), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def default_name(config: StudyConfig, data_digest: str, parent_run_id: str) -> str:
    """A name for a study that was given none.

    Args:
        config: The study's options.
        data_digest: Of the data set.
        parent_run_id: MLflow's run of its first start.

    Returns:
        Preset, digest of the identity, and the beginning of the run.
    """
    space = get_space(config.preset)
    return f"{space.name}-{identity_digest(config, space, data_digest)}-{parent_run_id[:8]}"


@dataclass(frozen=True)
class OpenStudy:
    """A study that this process may write to.

    Attributes:
        name: Of the study.
        config: Its options, as of this start.
        space: What is searched.
        sampler: Where the next trial goes.
        history: Its trials.
        stores: Where everything is kept.
        lease: The right to write.
        previous_parent: MLflow's run of the last start, None at the first.
    """

    name: str
    config: StudyConfig
    space: Space
    sampler: TrialSampler
    history: History
    stores: Stores
    lease: Lease
    previous_parent: str | None

    @property
    def state(self) -> Path:
        """The folder of what is needed to go on after a kill."""
        return study_place(self.stores, self.name).state


@contextlib.contextmanager
def open_study(
    stores: Stores,
    name: str,
    config: StudyConfig,
    data_digest: str,
    space: Space | None = None,
) -> Iterator[OpenStudy]:
    """Take a study's lease and read its trials; a new study is created.

    Args:
        stores: Where everything is kept.
        name: Of the study.
        config: Its options; they are noted, so that the study can be resumed by name.
        data_digest: Of the data set.
        space: What is searched; none means the preset's.

    Yields:
        The study, ready for a coordinator.

    Raises:
        StudyBusyError: Another coordinator runs it.
        StudyMismatchError: It was started with another space, other data or another seed.
        StudyError: The storage cannot be used.
    """
    space = space or get_space(config.preset)
    sampler = make_sampler(config.sampler, space, config.seed)
    history = History.open(stores.optuna_url, name)
    with study_lease(stores, history) as lease:
        notes = history.attributes
        mine = identity(config, space, data_digest)
        _check_same(name, notes.get(NOTE_IDENTITY), mine)
        history.note(NOTE_IDENTITY, mine)
        history.note(NOTE_CONFIG, recorded(config))
        history.load()
        yield OpenStudy(
            name=name,
            config=config,
            space=space,
            sampler=sampler,
            history=history,
            stores=stores,
            lease=lease,
            previous_parent=notes.get(NOTE_PARENT),
        )


def _check_same(name: str, theirs: dict[str, Any] | None, mine: dict[str, Any]) -> None:
    if theirs is None or theirs == mine:
        return
    theirs, mine = _DEFAULTS | theirs, _DEFAULTS | mine
    differing = [
        f"{key} was {theirs.get(key)!r}, now {mine.get(key)!r}"
        for key in {**theirs, **mine}
        if theirs.get(key) != mine.get(key)
    ]
    raise StudyMismatchError(
        f"study {name!r} cannot go on with other options: {'; '.join(differing)}. "
        "Restore them, or choose another study_name"
    )

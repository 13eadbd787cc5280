"""What became of a study's best network, from MLflow: its version, errors and pictures."""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from qm9flow.errors import RegistryError, TrackingError
from qm9flow.evaluation.assessment_files import JSON, place_of_version
from qm9flow.registry.aliases import CHAMPION
from qm9flow.registry.versions import Version, list_versions
from qm9flow.tracking.runs import fetch_artifact
from qm9flow.tracking.stores import Stores, connect, sqlite_path, store_errors

TAG_VERSION = "model_version"
"""Of a study's run: the version that it registered."""

RELEASE = "release_id"
"""Of a version: the study that made it, a slash, and the final training."""

PICTURES = ("parity", "groups", "residuals", "worst")
"""Of an assessment, in the order of the page."""


@dataclass(frozen=True)
class Registered:
    """A version that a study made.

    Attributes:
        version: As it is now.
        rival: The champion, if that is another version.
        errors: Its assessment on test molecules as `Assessment.as_dict` gives it; empty if it was
            not found.
        pictures: PNG by name, of the same assessment.
        missing: Why there are no errors; empty if there are.
    """

    version: Version
    rival: Version | None = None
    errors: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    missing: str = ""

    @property
    def is_champion(self) -> bool:
        """Whether it is what is served."""
        return CHAMPION in self.version.aliases

    def rival_errors(self) -> dict[str, float]:
        """The champion's errors on the same test molecules, by target, as far as they are known."""
        tags = self.version.tags
        same = ("data_digest", "split_seed")
        if self.rival is None or any(self.rival.tags.get(n) != tags.get(n) for n in same):
            return {}
        return self.rival.mae("test")


@dataclass(frozen=True)
class OnRecord:
    """What MLflow says about a study.

    Attributes:
        registered: The version that it made, None if there is none.
        missing: Why there is none.
        experiment_id: Of its run; None if that cannot be reached.
        earlier: The newest version that an earlier start of the study made, where this one has
            made none.
    """

    registered: Registered | None
    missing: str = ""
    experiment_id: str | None = None
    earlier: int | None = None


def look_up(stores: Stores, study: str, run_id: str | None) -> OnRecord:
    """Look at a study's run; whatever is away is said, not raised.

    Args:
        stores: The addresses.
        study: The study's name.
        run_id: The study's run, None if it has none.

    Returns:
        What was found.
    """
    if run_id is None:
        return OnRecord(None, "the study has no run in MLflow yet")
    path = sqlite_path(stores.tracking_uri)
    if path is not None and not path.exists():
        return OnRecord(None, f"MLflow's database {path} is not there")
    try:
        client = connect(stores)
        with store_errors(f"look at run {run_id}"):
            run = client.get_run(run_id)
        number = run.data.tags.get(TAG_VERSION)
        experiment = str(run.info.experiment_id)
        if number is None:
            return OnRecord(None, "", experiment, _earlier(stores, study))
        return OnRecord(_registered(stores, client, run, int(number)), "", experiment)
    except (TrackingError, RegistryError) as error:
        return OnRecord(None, str(error))


def _earlier(stores: Stores, study: str) -> int | None:
    """A start that goes on has a run of its own, without the version of the run before."""
    versions = list_versions(stores.tracking_uri)  # the newest first
    made = (item for item in versions if item.tags.get(RELEASE, "").rpartition("/")[0] == study)
    return next((item.number for item in made), None)


def _registered(stores: Stores, client: MlflowClient, run: Run, number: int) -> Registered:
    versions = list_versions(stores.tracking_uri)
    version = next((item for item in versions if item.number == number), None)
    if version is None:
        raise RegistryError(f"version {number}, which this study made, was deleted")
    champion = next((item for item in versions if CHAMPION in item.aliases), None)
    rival = champion if champion is not version else None
    place = place_of_version(number, "test")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = fetch_artifact(client, run.info.run_id, place, Path(scratch))
            errors = json.loads((folder / JSON).read_text(encoding="utf-8"))
        except (TrackingError, OSError, ValueError):
            missing = f"{place} is not in the run; `qm9flow evaluate --model {number}` makes it"
            return Registered(version, rival, missing=missing)
        files = {name: folder / f"{name}.png" for name in PICTURES}
        pictures = {name: path.read_bytes() for name, path in files.items() if path.exists()}
    return Registered(version, rival, errors, pictures)

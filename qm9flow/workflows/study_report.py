"""A study's report, written at any time: while it runs, after an interruption, at its end."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from qm9flow import locations
from qm9flow.errors import ConfigError, StudyError
from qm9flow.evaluation.report.facts import Facts, read_facts
from qm9flow.evaluation.report.pictures import TITLES
from qm9flow.evaluation.report.write import FOLDER, PAGE, Report, write_report
from qm9flow.tracking.runs import add_to_run
from qm9flow.tracking.stores import Stores, connect, resolve_stores
from qm9flow.tuning.records import list_studies
from qm9flow.workflows.look_further import look_further


@dataclass(frozen=True)
class Reported:
    """A report and where it is.

    Attributes:
        study: The study's name.
        place: Where the page is, in words.
        pictures: How many PNG files lie beside it.
        missing: What the page cannot show yet, and why.
        commands: What to type to look further.
    """

    study: str
    place: str
    pictures: int
    missing: tuple[str, ...]
    commands: tuple[str, ...]

    def as_text(self) -> str:
        """All of it, for people."""
        lines = [f"report of study {self.study}: {self.place}, {self.pictures} pictures beside it"]
        lines += [f"  not in it: {item}" for item in self.missing]
        return "\n".join([*lines, "look further:", *(f"  {line}" for line in self.commands)])


def report_study(name: str | None, storage: str | None, output: str | None) -> Reported:
    """Write a study's report into a folder, or into the study's run.

    Args:
        name: The study; None means the one that changed last.
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`.
        output: A folder; None means the study's run in MLflow.

    Returns:
        Where it is.

    Raises:
        StudyError: There is no such study, or it has no run yet.
        TrackingError: Its run cannot be reached, or was deleted.
        ConfigError: The folder cannot be written to.
    """
    stores = resolve_stores(storage)
    facts = read_facts(stores, name or _latest(stores))
    if output:
        folder = locations.callers_path(Path(output))
        try:
            report = write_report(facts, folder)
        except OSError as error:
            raise ConfigError(
                f"cannot write a report to {output}: {error.strerror}; name a folder that you can "
                "write to"
            ) from error
        place = str(report.page)
    else:
        report, place = _to_run(facts, stores)
    return Reported(
        facts.study.name,
        place,
        len(report.pictures),
        what_is_missing(facts, report),
        tuple(look_further(stores, facts.study.name)),
    )


def what_is_missing(facts: Facts, report: Report) -> tuple[str, ...]:
    """What a page cannot show yet.

    Args:
        facts: The study.
        report: What was written.

    Returns:
        One line each, with the reason.
    """
    found = [f"{TITLES[name].lower()}: {reason}" for name, reason in report.missing.items()]
    if facts.registered is None:
        found.append(f"the champion: {facts.why_no_version}")
    elif facts.registered.missing:
        found.append(f"test errors: {facts.registered.missing}")
    return tuple(found)


def _to_run(facts: Facts, stores: Stores) -> tuple[Report, str]:
    run_id = facts.study.parent_run_id
    if run_id is None:
        raise StudyError(f"study {facts.study.name} has no run yet; name a folder with --output")
    with tempfile.TemporaryDirectory() as scratch:
        report = write_report(facts, Path(scratch))
        add_to_run(connect(stores), run_id, Path(scratch), FOLDER, {})
    return report, facts.run_url(run_id) or f"{FOLDER}/{PAGE} in run {run_id}"


def _latest(stores: Stores) -> str:
    studies = [item for item in list_studies(stores) if item.changed is not None]
    if not studies:
        raise StudyError("there is no study yet; `make study` or `qm9flow study run` makes one")
    return max(studies, key=lambda item: str(item.changed)).name

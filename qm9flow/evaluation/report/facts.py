"""All that a report says, read from the study's stores."""

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate
from urllib.parse import quote, urlsplit, urlunsplit

from qm9flow.config import TrainConfig
from qm9flow.data.splits import make_split
from qm9flow.evaluation.fates import of_fate
from qm9flow.evaluation.report.registered import OnRecord, Registered, look_up
from qm9flow.tracking.stores import Stores
from qm9flow.training.schedule import molecules_of
from qm9flow.tuning import chosen, pruning
from qm9flow.tuning.parameters import Parameters, study_parameters
from qm9flow.tuning.records import StudyRecord, TrialRecord, show_study
from qm9flow.tuning.sampling import make_sampler
from qm9flow.tuning.selection import Final, Selection, by_score, pareto_front, with_speeds
from qm9flow.tuning.spaces import get_space


@dataclass(frozen=True)
class Facts:
    """What there is to report.

    Attributes:
        study: The study, its trials with the speeds that were measured alone.
        total: Trials that it is to have; a grid may have fewer than were asked for.
        parameters: Scales and importances.
        selection: What it chose; None before the search has ended.
        front: Trials that no other beats by the three criteria.
        on_record: What MLflow says.
        tracking_uri: Where it says so.
    """

    study: StudyRecord
    total: int
    parameters: Parameters
    selection: Selection | None
    front: tuple[TrialRecord, ...]
    on_record: OnRecord
    tracking_uri: str

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials."""
        return self.study.trials

    @property
    def ended(self) -> int:
        """Trials that count."""
        return sum(trial.has_ended for trial in self.trials)

    @property
    def registered(self) -> Registered | None:
        """The version that it made."""
        return self.on_record.registered

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the lowest score."""
        return next(iter(by_score(self.trials)), None)

    @property
    def candidate(self) -> TrialRecord | None:
        """The trial that goes on, or would if the search ended now."""
        return self.best if self.selection is None else self.trials[self.selection.candidate.number]

    @property
    def finals(self) -> tuple[Final, ...]:
        """How trials did that were trained further; empty until all of them have."""
        return self.selection.finals if self.selection else ()

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which trials are compared."""
        return pruning.rungs_of(self.study.config)

    @property
    def trial_hours(self) -> float:
        """Wall time of all trials, added up."""
        return sum(trial.seconds or 0.0 for trial in self.trials) / 3600

    @property
    def hours(self) -> float:
        """From the first trial's start to the last change."""
        if self.study.started is None or self.study.changed is None:
            return 0.0
        return (self.study.changed - self.study.started) / timedelta(hours=1)

    @property
    def epochs(self) -> int:
        """Epochs of all trials."""
        return sum(trial.epochs for trial in self.trials)

    @property
    def molecules(self) -> int:
        """Training molecules that all trials saw, each as often as it was seen."""
        config, size = self.study.config, self.train_size
        growing = TrainConfig(max_epochs=config.max_epochs, growth=pruning.growth_of(config))
        seen = accumulate(
            (molecules_of(epoch, growing, size) for epoch in range(1, config.max_epochs + 1)),
            initial=0,
        )
        after = list(seen)
        return sum(after[min(trial.epochs, config.max_epochs)] for trial in self.trials)

    @property
    def train_size(self) -> int:
        """Training molecules of a trial."""
        config = self.study.config
        return config.train_size or len(make_split(config.split).train)

    @property
    def status(self) -> str:
        """How far the study is: `complete`, `running`, `interrupted` or `searched`."""
        if self.registered is not None:
            return "complete"
        if self.study.holder is not None:
            return "running"
        return "searched" if self.ended >= self.total else "interrupted"

    @property
    def why_no_version(self) -> str:
        """Why no network of this study is registered; empty if one is."""
        if self.registered is not None:
            return ""
        if (earlier := self.on_record.earlier) is None:
            return self._why_unfinished
        return f"{self._why_unfinished}; version {earlier}, of an earlier start, stays registered"

    @property
    def _why_unfinished(self) -> str:
        return self.on_record.missing or {
            "running": "the study is still running; its network is trained to the end and "
            "registered after the search",
            "searched": f"all trials have ended, but {self._left} not: start the study again to "
            "finish it",
        }.get(
            self.status,
            f"the study was interrupted after {self.ended:,} of {self.total:,} trials: start it "
            "again to finish it",
        )

    @property
    def _left(self) -> str:
        """What follows the search."""
        finalists = min(self.study.config.finalists, sum(t.score is not None for t in self.trials))
        return "the finals have" if finalists > 1 and not self.finals else "the final training has"

    @property
    def completed(self) -> int:
        """Trials that ran to their end."""
        return len(of_fate(self.trials, "complete"))

    def run_url(self, run_id: str | None) -> str | None:
        """MLflow's page of a run.

        Args:
            run_id: The run.

        Returns:
            Its address without any login; None if MLflow's store is no server.
        """
        parts, experiment = urlsplit(self.tracking_uri), self.on_record.experiment_id
        if parts.scheme not in ("http", "https") or experiment is None or run_id is None:
            return None
        host = parts.netloc.rpartition("@")[2]
        base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        return f"{base}/#/experiments/{quote(experiment)}/runs/{quote(run_id)}"


def read_facts(stores: Stores, name: str) -> Facts:
    """Read all that a report says.

    Args:
        stores: Where the study is.
        name: The study.

    Returns:
        Whatever there is, whether the study runs, was interrupted or has ended.

    Raises:
        StudyError: There is no such study, or its storage cannot be opened.
    """
    study = show_study(stores, name)
    selection = chosen.recall(stores, study)
    trials = with_speeds(study.trials, selection.speeds if selection else {})
    config = study.config
    sampler = make_sampler(config.sampler, get_space(config.preset), config.seed)
    return Facts(
        study=replace(study, trials=trials),
        total=sampler.limit(config.n_trials),
        parameters=study_parameters(stores.optuna_url, name),
        selection=selection,
        front=pareto_front(trials),
        on_record=look_up(stores, name, study.parent_run_id),
        tracking_uri=stores.tracking_uri,
    )

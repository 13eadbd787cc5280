"""One study: search space, budget and stores."""

from dataclasses import dataclass
from typing import Annotated

from qm9flow.config.choices import Device, GradientStop, Halving, Sampler, SplitName
from qm9flow.config.limits import above, at_least, between, check_limits, check_name, require


@dataclass(frozen=True)
class StudyConfig:
    """One study: search space, budget, stores."""

    n_trials: Annotated[int, between(1, 1_000_000)] = 20
    """Trials in total, over all starts: completed, pruned and failed ones count."""
    preset: str = "seed"
    """Search space: `seed` is the group's; `modern` searches four architectures."""
    sampler: Sampler = "tpe"
    """`tpe` (multivariate, group), `random` or `grid`."""
    train_size: Annotated[int | None, at_least(1)] = 8000
    """Training molecules of a trial; the final training takes all."""
    val_size: Annotated[int | None, at_least(1)] = 2000
    """Validation molecules inside trials."""
    max_epochs: Annotated[int, between(1, 100_000)] = 9
    """Epochs of a trial, at most."""
    trial_minutes: Annotated[float | None, above(0)] = None
    """Minutes of a trial, at most; one that runs out of time completes with what it has."""
    halving: Halving = "epochs"
    """`epochs` stops trials outside the best third at rungs of epochs; `train_size` triples the
    training set at each of the same rungs as well, up to all of it; `off` lets all run on."""
    gradient_stop: GradientStop = "on"
    """`on` prunes trials whose gradients vanish, explode, or die; `observe` notes where they would
    have been, and prunes only those whose numbers are NaN or infinite."""
    finalists: Annotated[int, between(0, 1000)] = 0
    """Best trials that are trained further, on the full training split, before one of them is
    chosen; 0 and 1 leave the choice to the trials' own scores."""
    final_minutes: Annotated[float, between(0.01, 100_000)] = 10.0
    """Minutes at most for training the best configuration on the full training split."""
    split: SplitName = "seed"
    """The split that trials and the final training use."""
    n_jobs: Annotated[int | None, between(1, 100_000)] = None
    """Trials at a time; 1 runs them in this process if no cluster is named, None as many as the
    machine or the cluster holds."""
    gpus_per_trial: Annotated[float | None, between(0, 64)] = None
    """Share of a GPU that a trial takes; None shares the GPUs out among `n_jobs`, 0 takes none."""
    study_name: str | None = None
    """None makes one of preset, configuration and parent run; an existing one is resumed."""
    storage: str | None = None
    """Optuna storage URL; none means `optuna.db` under `mlruns/`."""
    seed: int = 0
    """Of sampling, initial weights and batches."""
    timeout_minutes: Annotated[float | None, above(0)] = None
    """No new trial after this time; none means no limit."""
    device: Device = "auto"
    """`auto` takes a GPU where there is one."""
    ray_address: str | None = None
    """A running Ray cluster, `auto` for the one of this machine; none starts Ray here if `n_jobs`
    asks for more than one process."""
    keep_models: Annotated[int | None, at_least(1)] = None
    """Keep models of the best N trials only; none keeps those of all completed trials."""
    seed_pretrained: bool = True
    """Where no model is registered, register the one that comes with qm9flow first, so that the
    study's own has to beat it."""

    def __post_init__(self) -> None:
        check_limits(self)
        share = self.gpus_per_trial or 0.0
        require(
            share <= 1 or share == int(share),
            f"gpus_per_trial must be a share of one GPU or whole ones, got {share:g}",
        )
        require(
            not (share and self.device == "cpu"),
            f"gpus_per_trial is {share:g} although device is cpu: leave one of them out",
        )
        if self.study_name is not None:
            check_name("study_name", self.study_name)

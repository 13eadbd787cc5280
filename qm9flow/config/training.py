"""One training: network, data and recipe."""

from dataclasses import dataclass, field
from typing import Annotated

from qm9flow.config.choices import (
    Device,
    GeometrySource,
    GradientStop,
    Learned,
    Loss,
    Optimizer,
    Schedule,
    SplitName,
    Weighting,
)
from qm9flow.config.limits import above, at_least, between, check_limits, require
from qm9flow.config.networks import DensityConfig, ModelConfig, MPNNConfig

CHOICE_MOLECULES = 5000
"""Validation molecules of `standard`, its first ones, by which networks are stopped and chosen; the
others calibrate intervals, which would be too narrow on molecules that had a say."""

PLACE_ONLY = ("device", "threads", "compile", "checkpoint_every", "gradient_stop")
"""Options of a training that say where, how and how far it runs, not which one it is: they may
change from start to start."""


@dataclass(frozen=True)
class TrainConfig:
    """One training: network, data, recipe. Enough to repeat it."""

    model: ModelConfig = field(default_factory=MPNNConfig)
    """The network; in files a table with the key `architecture`."""
    geometry: GeometrySource = "dft"
    """What the network sees; the targets are those of the minimum in DFT always. `approximate`:
    the minimum of a force field nearest to the geometry (`qm9flow data relaxed`); `smiles`: all
    conformers of the SMILES (`qm9flow data conformers`), for `targets = "conformer"` alone."""
    targets: Learned = "learned"
    """`learned`: ten standardised targets; `raw`: all 19 as they are, as the group did;
    `geometry`: from approximate geometries to DFT's; `conformer`: which one QM9 has."""
    split: SplitName = "seed"
    """`standard`: 110,000 / 10,000 / 10,831; `seed`: the group's 70/30, its 30% halved."""
    split_seed: int = 0
    """Seed of the permutation that both splits cut."""
    train_size: Annotated[int | None, at_least(1)] = None
    """Training molecules, a prefix of the split's training part; none means all of it."""
    val_size: Annotated[int | None, at_least(1)] = 2000
    """Validation molecules, the first of `standard`'s validation part, at most 5,000; none means
    all of those. The rest of that part calibrates intervals."""
    loss: Loss = "rmse"
    """On encoded targets."""
    weighting: Weighting = "equal"
    """Of the targets in the loss; `balanced` weighs each error by what good networks reach, and
    compares the gap beside them."""
    optimizer: Optimizer = "adam"
    """`muon` orthogonalises the momentum of inner matrices, `soap` moves all matrices by Adam in
    the eigenbasis of their gradients' correlations; both leave the rest to `adamw`."""
    learning_rate: Annotated[float, between(1e-8, 10.0)] = 1e-3
    """After warm-up."""
    weight_decay: Annotated[float, between(0.0, 10.0)] = 0.0
    """As the optimiser defines it."""
    batch_size: Annotated[int, between(1, 4096)] = 128
    """Molecules a step, 1 to 4096."""
    max_epochs: Annotated[int, between(1, 100_000)] = 30
    """Passes over the training molecules, at most."""
    growth: Annotated[int, between(0, 10)] = 0
    """How often the training set triples on the way: once means a third of it for the first third
    of the epochs, twice a ninth of it for the first ninth before that."""
    max_minutes: Annotated[float | None, above(0)] = None
    """Training time at most, validation included; none means no limit."""
    warmup_steps: Annotated[int, between(0, 1_000_000)] = 200
    """Steps over which the learning rate rises from zero; a tenth of the budget (epochs or minutes)
    if that is sooner."""
    schedule: Schedule = "constant"
    """`cosine` falls to zero at the end of the budget (epochs or minutes, whichever is nearer);
    `plateau` halves after 3 epochs without a better validation score."""
    grad_clip: Annotated[float | None, above(0)] = 10.0
    """Largest norm of the gradient; none means no clipping."""
    ema_decay: float | None = 0.999
    """Decay of the averaged weights that are judged and kept; none means the last ones."""
    patience: Annotated[int | None, at_least(1)] = None
    """Epochs without a better validation score before training stops; none means never."""
    seed: int = 0
    """Of initial weights and batches."""
    start: str | None = None
    """SHA-256 of the weights that training starts from; none means fresh ones."""
    refiner: str | None = None
    """SHA-256 of the weights that refine geometries before the network sees them; none means that
    it sees them as they are."""
    device: Device = "auto"
    """`auto` takes a GPU where there is one."""
    threads: Annotated[int | None, between(1, 256)] = None
    """Threads of torch, no more than there are cores; none leaves torch's own choice."""
    compile: bool = False
    """Compile the network for training: minutes at the start, then steps are about a quarter
    faster. On a CPU it needs a C++ compiler."""
    monitor_every: Annotated[int, between(1, 1_000_000)] = 50
    """Steps between two samples of the gradients; each epoch has at least one."""
    gradient_stop: GradientStop = "on"
    """`on` ends a training whose gradients vanish, explode, or die; `observe` notes where it would
    have ended, and ends it only when its numbers are NaN or infinite."""
    checkpoint_every: Annotated[int, between(1, 100_000)] = 1
    """Epochs between two checkpoints."""

    def __post_init__(self) -> None:
        check_limits(self)
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"ema_decay must lie between 0 and 1, got {self.ema_decay}",
        )
        require(
            self.weighting == "equal" or self.targets == "learned",
            'only learned targets have balanced weights: set weighting = "equal", or recipe = '
            '"group"',
        )
        seen = {"geometry": ("approximate",), "conformer": ("smiles",)}
        sources = seen.get(self.targets, ("dft", "approximate"))
        require(
            self.geometry in sources,
            f'targets = "{self.targets}" are learned from geometries of the source '
            f'{" or ".join(sources)}, got "{self.geometry}"',
        )
        require(
            self.targets not in seen or self.model.architecture == DensityConfig.architecture,
            f'targets = "{self.targets}" need a network of the architecture density, '
            f"got {self.model.architecture}",
        )

"""Configuration: frozen dataclasses, the only place where a default lives.

`from_dict` refuses unknown keys and wrong types and names the valid ones; `to_dict` gives what is
saved with a run and is enough to repeat it.
"""

import dataclasses
import json
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from qm9flow.errors import ConfigError
from qm9flow.properties import TargetSet

Loss = Literal["rmse", "mae", "huber"]
Optimizer = Literal["adam", "adamw", "muon"]
Weighting = Literal["equal", "balanced"]
Schedule = Literal["constant", "cosine", "plateau"]
SplitName = Literal["standard", "seed"]
Sampler = Literal["tpe", "random", "grid"]
Device = Literal["auto", "cpu", "cuda"]


def _require(claim: bool, message: str) -> None:
    if not claim:
        raise ConfigError(message)


def _require_range(owner: object, name: str, low: float, high: float) -> None:
    value = getattr(owner, name)
    _require(low <= value <= high, f"{name} must lie between {low} and {high}, got {value}")


@dataclass(frozen=True)
class MPNNConfig:
    """The group's network: edge-conditioned message passing (`qm9flow.nn.mpnn`)."""

    architecture: ClassVar[str] = "mpnn"
    conv_layers: int = 4
    """Message-passing layers, 1 to 8."""
    fc_layers: int = 4
    """Dense layers of the readout, 1 to 8."""
    hidden: int = 64
    """Hidden nodes, 2 to 512."""
    edge_width: int = 16
    """Width of the edge network's hidden layer, which the work of a step is proportional to."""
    radial: int = 32
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: float = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        _require_range(self, "conv_layers", 1, 8)
        _require_range(self, "fc_layers", 1, 8)
        _require_range(self, "hidden", 2, 512)
        _require_range(self, "edge_width", 1, 512)
        _require_range(self, "radial", 2, 256)
        _require_range(self, "cutoff_angstrom", 0.5, 50.0)


@dataclass(frozen=True)
class SchNetConfig:
    """Continuous filters over distances (`qm9flow.nn.schnet`)."""

    architecture: ClassVar[str] = "schnet"
    interactions: int = 3
    """Interaction blocks, 1 to 12."""
    fc_layers: int = 2
    """Dense layers of the readout, 1 to 8."""
    hidden: int = 64
    """Hidden nodes and filters, 2 to 512."""
    radial: int = 20
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: float = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        _require_range(self, "interactions", 1, 12)
        _require_range(self, "fc_layers", 1, 8)
        _require_range(self, "hidden", 2, 512)
        _require_range(self, "radial", 2, 256)
        _require_range(self, "cutoff_angstrom", 0.5, 50.0)


@dataclass(frozen=True)
class PaiNNConfig:
    """Scalars and vectors on each atom (`qm9flow.nn.painn`)."""

    architecture: ClassVar[str] = "painn"
    interactions: int = 3
    """Rounds of messages and updates, 1 to 12."""
    fc_layers: int = 2
    """Dense layers of the readout, 1 to 8."""
    hidden: int = 64
    """Hidden scalars, and as many vectors, 2 to 512."""
    radial: int = 20
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: float = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        _require_range(self, "interactions", 1, 12)
        _require_range(self, "fc_layers", 1, 8)
        _require_range(self, "hidden", 2, 512)
        _require_range(self, "radial", 2, 256)
        _require_range(self, "cutoff_angstrom", 0.5, 50.0)


@dataclass(frozen=True)
class DensityConfig:
    """The flagship: neighbours' densities, contracted on each atom (`qm9flow.nn.density`)."""

    architecture: ClassVar[str] = "density"
    layers: int = 3
    """Rounds of sums over neighbours, 1 to 8."""
    hidden: int = 64
    """Scalars of an atom, 2 to 1024."""
    vectors: int = 64
    """Vectors of an atom, 2 to 512."""
    channels: int = 16
    """Numbers that an atom sends to its neighbours, 1 to 512."""
    radial: int = 12
    """Radial functions that they are summed under."""
    cutoff_angstrom: float = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        _require_range(self, "layers", 1, 8)
        _require_range(self, "hidden", 2, 1024)
        _require_range(self, "vectors", 2, 512)
        _require_range(self, "channels", 1, 512)
        _require_range(self, "radial", 1, 64)
        _require_range(self, "cutoff_angstrom", 0.5, 50.0)


@dataclass(frozen=True)
class PyGNNConvConfig(MPNNConfig):
    """The same network on PyTorch Geometric's own `NNConv` (`qm9flow.nn.pyg`)."""

    architecture: ClassVar[str] = "pyg_nnconv"


@dataclass(frozen=True)
class PyGSchNetConfig:
    """PyTorch Geometric's own `SchNet` (`qm9flow.nn.pyg`)."""

    architecture: ClassVar[str] = "pyg_schnet"
    hidden: int = 64
    """Hidden channels and filters, 2 to 512."""
    interactions: int = 4
    """Interaction blocks, 1 to 12."""
    radial: int = 32
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: float = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        _require_range(self, "hidden", 2, 512)
        _require_range(self, "interactions", 1, 12)
        _require_range(self, "radial", 2, 256)
        _require_range(self, "cutoff_angstrom", 0.5, 50.0)


ModelConfig = (
    DensityConfig | MPNNConfig | SchNetConfig | PaiNNConfig | PyGNNConvConfig | PyGSchNetConfig
)

MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    "density": DensityConfig,
    "mpnn": MPNNConfig,
    "schnet": SchNetConfig,
    "painn": PaiNNConfig,
    "pyg_nnconv": PyGNNConvConfig,
    "pyg_schnet": PyGSchNetConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """One training: network, data, recipe. Enough to repeat it."""

    model: ModelConfig = field(default_factory=MPNNConfig)
    """The network; in files a table with the key `architecture`."""
    targets: TargetSet = "learned"
    """`learned`: ten standardised targets; `raw`: all 19 as they are, as the group did."""
    split: SplitName = "seed"
    """`standard`: 110,000 / 10,000 / 10,831; `seed`: the group's 70/30, its 30% halved."""
    split_seed: int = 0
    """Seed of the permutation that both splits cut."""
    train_size: int | None = None
    """Training molecules, a prefix of the split's training part; none means all of it."""
    val_size: int | None = 2000
    """Validation molecules, the first of `standard`'s validation part; none means all of it."""
    loss: Loss = "rmse"
    """On encoded targets."""
    weighting: Weighting = "equal"
    """Of the targets in the loss; `balanced` weighs each error by what good networks reach."""
    optimizer: Optimizer = "adam"
    """`muon` orthogonalises the momentum of inner matrices and leaves the rest to `adamw`."""
    learning_rate: float = 1e-3
    """After warm-up."""
    weight_decay: float = 0.0
    """As the optimiser defines it."""
    batch_size: int = 128
    """Molecules a step, 1 to 4096."""
    max_epochs: int = 30
    """Passes over the training molecules, at most."""
    max_minutes: float | None = None
    """Training time at most, validation included; none means no limit."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises from zero; a tenth of all steps if that is fewer."""
    schedule: Schedule = "constant"
    """`cosine` falls to zero at the end of the budget (epochs or minutes, whichever is nearer);
    `plateau` halves after 3 epochs without a better validation score."""
    grad_clip: float | None = 10.0
    """Largest norm of the gradient; none means no clipping."""
    ema_decay: float | None = 0.999
    """Decay of the averaged weights that are judged and kept; none means the last ones."""
    patience: int | None = None
    """Epochs without a better validation score before training stops; none means never."""
    seed: int = 0
    """Of initial weights and batches."""
    device: Device = "auto"
    """`auto` takes a GPU where there is one."""
    threads: int | None = None
    """Threads of torch; none leaves torch's own choice."""
    compile: bool = False
    """Compile the network for training: minutes at the start, then steps are about a quarter
    faster. On a CPU it needs a C++ compiler."""
    monitor_every: int = 50
    """Steps between two samples of the gradients; each epoch has at least one."""
    checkpoint_every: int = 1
    """Epochs between two checkpoints."""

    def __post_init__(self) -> None:
        for name in ("train_size", "val_size", "patience", "threads"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        _require(
            self.max_minutes is None or self.max_minutes > 0,
            f"max_minutes must be above 0, got {self.max_minutes}",
        )
        _require(
            self.grad_clip is None or self.grad_clip > 0,
            f"grad_clip must be above 0, got {self.grad_clip}",
        )
        _require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"ema_decay must lie between 0 and 1, got {self.ema_decay}",
        )
        _require(
            self.weighting == "equal" or self.targets == "learned",
            "weighting can only be balanced for the learned targets",
        )
        _require_range(self, "batch_size", 1, 4096)
        _require_range(self, "max_epochs", 1, 100_000)
        _require_range(self, "learning_rate", 1e-8, 10.0)
        _require_range(self, "weight_decay", 0.0, 10.0)
        _require_range(self, "warmup_steps", 0, 1_000_000)
        _require_range(self, "monitor_every", 1, 1_000_000)
        _require_range(self, "checkpoint_every", 1, 100_000)


@dataclass(frozen=True)
class StudyConfig:
    """One study: search space, budget, stores."""

    n_trials: int = 20
    """Trials in total, over all starts: completed, pruned and failed ones count."""
    preset: str = "seed"
    """Search space: `seed` is the group's; `modern` searches four architectures."""
    sampler: Sampler = "tpe"
    """`tpe` (multivariate, group), `random` or `grid`."""
    train_size: int | None = 8000
    """Training molecules of a trial; the final training takes all."""
    val_size: int | None = 2000
    """Validation molecules inside trials."""
    max_epochs: int = 9
    """Epochs of a trial, at most."""
    trial_minutes: float | None = None
    """Minutes of a trial, at most; one that runs out of time completes with what it has."""
    final_minutes: float = 10.0
    """Minutes at most for training the best configuration on the full training split."""
    split: SplitName = "seed"
    """The split that trials and the final training use."""
    n_jobs: int = 1
    """Trials at a time; 1 runs them in this process."""
    gpus_per_trial: float = 0.0
    """Share of a GPU a trial takes; needs `n_jobs` above 1."""
    study_name: str | None = None
    """None makes one of preset, configuration and parent run; an existing one is resumed."""
    storage: str | None = None
    """Optuna storage URL; none means `optuna.db` under `mlruns/`."""
    seed: int = 0
    """Of sampling, initial weights and batches."""
    timeout_minutes: float | None = None
    """No new trial after this time; none means no limit."""
    device: Device = "auto"
    """`auto` takes a GPU where there is one."""
    ray_address: str | None = None
    """A Ray cluster; needs `n_jobs` above 1."""
    keep_models: int | None = None
    """Keep models of the best N trials only; none keeps those of all completed trials."""
    seed_pretrained: bool = True
    """Where no model is registered, register the one that comes with qm9flow first, so that the
    study's own has to beat it."""

    def __post_init__(self) -> None:
        for name in ("train_size", "val_size"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        _require_range(self, "n_trials", 1, 1_000_000)
        _require_range(self, "max_epochs", 1, 100_000)
        _require_range(self, "final_minutes", 0.01, 100_000)
        _require(
            self.n_jobs == 1 and self.gpus_per_trial == 0 and self.ray_address is None,
            "this version runs one trial at a time in this process: leave n_jobs at 1, "
            "gpus_per_trial at 0 and ray_address empty",
        )
        if self.study_name is not None:
            check_name("study_name", self.study_name)
        _require(
            self.timeout_minutes is None or self.timeout_minutes > 0,
            f"timeout_minutes must be above 0, got {self.timeout_minutes}",
        )
        _require(
            self.trial_minutes is None or self.trial_minutes > 0,
            f"trial_minutes must be above 0, got {self.trial_minutes}",
        )
        _require(
            self.keep_models is None or self.keep_models >= 1,
            f"keep_models must be at least 1, got {self.keep_models}",
        )


@dataclass(frozen=True)
class ServeConfig:
    """One service over HTTP."""

    model: str = "champion"
    """An alias, a version's number, a bundle's folder, or `pretrained`."""
    bundle: str | None = None
    """The folder of a bundle that was fetched already; none means that `model` is looked up."""
    version: int | None = None
    """The fetched bundle's version."""
    alias: str | None = None
    """The fetched bundle's alias."""
    device: Device = "auto"
    """`cuda` requires a GPU; `auto` takes one where there is one."""
    threads: int | None = 1
    """Threads inside one run of the network on a CPU; none means one for each usable core. Small
    networks gain little from a second one, and requests run side by side anyway."""
    conformer_workers: int | None = None
    """Processes that make geometries from SMILES; none means one for each usable core."""
    max_molecules: int = 1000
    """Molecules of a request, at most."""
    max_body_bytes: int = 8 * 1024 * 1024
    """Bytes of a request's body, at most."""
    max_atoms: int = 256
    """Atoms of a molecule, at most."""
    max_requests: int = 64
    """Predictions under way or waiting, at most; more are told to come back."""
    molecule_seconds: float = 10.0
    """Seconds for the geometry of one SMILES."""
    geometry_seconds: float = 30.0
    """Seconds for the geometries of one request; SMILES not done by then have timed out."""
    request_seconds: float = 60.0
    """Seconds for a request."""

    def __post_init__(self) -> None:
        for name in ("threads", "conformer_workers"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        for name in ("max_molecules", "max_body_bytes", "max_atoms", "max_requests"):
            _require_range(self, name, 1, 10**9)
        for name in ("molecule_seconds", "geometry_seconds", "request_seconds"):
            _require_range(self, name, 0.01, 240)


SERVE_ENVIRONMENT = "QM9FLOW_SERVING"
"""The variable that hands a `ServeConfig` to the processes of a service, as a JSON object."""


def check_name(option: str, name: str) -> None:
    """Refuse a name that a store cannot search for, or a terminal not show.

    Args:
        option: What the name was given as, for the message.
        name: Of a study or a training.

    Raises:
        ConfigError: It is empty or too long, or holds quotes, backslashes or control characters.
    """
    _require(
        0 < len(name.encode()) <= MAX_NAME and name.isprintable() and not set(name) & set("\"'`\\"),
        f"{option} must have 1 to {MAX_NAME} bytes of printable characters and no quotes or "
        f"backslashes, got {name!r}",
    )


MAX_NAME = 200
"""UTF-8 bytes of a name; MLflow and file systems end at 250 and 255."""


C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values.

    Args:
        config: A configuration dataclass.

    Returns:
        What `from_dict` reads; a network's table has the key `architecture`.
    """
    values: dict[str, Any] = {}
    if hasattr(config, "architecture"):
        values["architecture"] = config.architecture
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        values[item.name] = to_dict(value) if dataclasses.is_dataclass(value) else value
    return values


def _matches(value: Any, expected: Any) -> bool:
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return any(_matches(value, option) for option in get_args(expected))
    if origin is Literal:
        return value in get_args(expected)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def _describe(expected: Any) -> str:
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(str, get_args(expected)))
    if get_origin(expected) in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(expected))
    return "nothing" if expected is type(None) else str(expected.__name__)


def model_from_dict(data: Mapping[str, Any]) -> ModelConfig:
    """A network's configuration from its table.

    Args:
        data: `architecture` and its options.

    Returns:
        The configuration.

    Raises:
        ConfigError: Unknown architecture or option, or a value of a wrong type or out of range.
    """
    options = dict(data)
    name = options.pop("architecture", None)
    if name not in MODEL_CONFIGS:
        known = ", ".join(MODEL_CONFIGS)
        raise ConfigError(f"unknown architecture {name!r}; the architectures are {known}")
    return from_dict(MODEL_CONFIGS[name], options)


def from_dict(kind: type[C], data: Mapping[str, Any]) -> C:
    """A configuration from plain values, over the defaults.

    Args:
        kind: The dataclass to make.
        data: Some or all of its fields.

    Returns:
        The configuration.

    Raises:
        ConfigError: An unknown key, or a value of a wrong type or out of range.
    """
    types_of = get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(cast(Any, kind))]
    hints = {name: types_of[name] for name in names}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            raise ConfigError(f"unknown option {key!r}; the options are {', '.join(hints)}")
        if key == "model" and isinstance(value, Mapping):
            values[key] = model_from_dict(value)
        elif _matches(value, hints[key]):
            values[key] = value
        else:
            raise ConfigError(f"{key} must be {_describe(hints[key])}, got {value!r}")
    return kind(**values)


RECIPES: dict[str, TrainConfig] = {
    "group": TrainConfig(),
    "flagship": TrainConfig(
        model=DensityConfig(),
        split="standard",
        loss="mae",
        weighting="balanced",
        optimizer="muon",
        learning_rate=6e-3,
        weight_decay=1e-2,
        batch_size=32,
        warmup_steps=500,
        schedule="cosine",
        grad_clip=5.0,
        max_epochs=60,
    ),
}
"""Trainings to start from; `docs/models.md` says what the flagship's was chosen by."""
DEFAULT_RECIPE = "flagship"


def train_from_dict(data: Mapping[str, Any]) -> TrainConfig:
    """A training from plain values, over a recipe.

    Args:
        data: Some or all fields of `TrainConfig`, and `recipe`, one of `RECIPES`.

    Returns:
        The configuration; a `model` in the data replaces the recipe's.

    Raises:
        ConfigError: An unknown recipe or option, or a value of a wrong type or out of range.
    """
    options = dict(data)
    recipe = options.pop("recipe", DEFAULT_RECIPE)
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}; the recipes are {', '.join(RECIPES)}")
    return from_dict(TrainConfig, to_dict(RECIPES[recipe]) | options)


def load_file(path: Path) -> dict[str, Any]:
    """Options from a TOML or JSON file.

    Args:
        path: A `.toml` or `.json` file.

    Returns:
        Its top-level table.

    Raises:
        ConfigError: The file cannot be read or holds no table.
    """
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"the configuration file {path} must hold a table of options")
    return data

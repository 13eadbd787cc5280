"""Configuration: frozen dataclasses, the only place where a default lives.

`from_dict` refuses unknown keys and wrong types and names the valid ones; `to_dict` gives what is
saved with a run and is enough to repeat it.
"""

from qm9flow.config.choices import (
    Device,
    GeometrySource,
    GradientStop,
    Halving,
    Loss,
    Optimizer,
    Sampler,
    Schedule,
    SplitName,
    Weighting,
)
from qm9flow.config.goals import GAP_GOAL, GOALS, balance, goals_of
from qm9flow.config.limits import MAX_NAME, check_name
from qm9flow.config.networks import (
    MODEL_CONFIGS,
    DensityConfig,
    ModelConfig,
    MPNNConfig,
    PaiNNConfig,
    PyGNNConvConfig,
    PyGSchNetConfig,
    SchNetConfig,
)
from qm9flow.config.plain import from_dict, load_file, model_from_dict, to_dict
from qm9flow.config.recipes import DEFAULT_RECIPE, RECIPES, before_heads, train_from_dict
from qm9flow.config.serving import SERVE_ENVIRONMENT, ServeConfig
from qm9flow.config.study import StudyConfig
from qm9flow.config.training import CHOICE_MOLECULES, PLACE_ONLY, TrainConfig

__all__ = [
    "CHOICE_MOLECULES",
    "DEFAULT_RECIPE",
    "GAP_GOAL",
    "GOALS",
    "MAX_NAME",
    "MODEL_CONFIGS",
    "PLACE_ONLY",
    "RECIPES",
    "SERVE_ENVIRONMENT",
    "DensityConfig",
    "Device",
    "GeometrySource",
    "GradientStop",
    "Halving",
    "Loss",
    "MPNNConfig",
    "ModelConfig",
    "Optimizer",
    "PaiNNConfig",
    "PyGNNConvConfig",
    "PyGSchNetConfig",
    "Sampler",
    "SchNetConfig",
    "Schedule",
    "ServeConfig",
    "SplitName",
    "StudyConfig",
    "TrainConfig",
    "Weighting",
    "balance",
    "before_heads",
    "check_name",
    "from_dict",
    "goals_of",
    "load_file",
    "model_from_dict",
    "to_dict",
    "train_from_dict",
]

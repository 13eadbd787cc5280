"""What a training is measured by, in float64 and physical units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow import targets
from qm9flow.config import CHOICE_MOLECULES, TrainConfig
from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.properties import LEARNED, TARGET_SETS, TARGETS
from qm9flow.targets import TargetCodec

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_LEARNED_COLUMNS = [TARGETS.index(name) for name in LEARNED]


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """The molecules of one training.

    Attributes:
        train: (n_train,), int64, places in the dataset.
        validation: (n_validation,), int64.
    """

    train: Indices
    validation: Indices


def training_sample(
    config: TrainConfig, dataset: Dataset, split: Split | None = None
) -> TrainingSample:
    """Which molecules a training trains and validates on.

    Args:
        config: Split, its seed, and how much of it.
        dataset: All molecules.
        split: The split that `config` names, if it is there already.

    Returns:
        Prefixes of the split's training and validation parts.

    Raises:
        ConfigError: The split has fewer molecules than asked for.
    """
    if split is None:
        split = make_split(config.split, len(dataset), config.split_seed)
    if config.val_size is not None and config.val_size > CHOICE_MOLECULES:
        raise ConfigError(
            f"val_size is {config.val_size}, but only {CHOICE_MOLECULES} molecules are there for "
            "validation during a training: the others calibrate its intervals"
        )
    validation = split.validation[: config.val_size or CHOICE_MOLECULES]
    return TrainingSample(split.first_train(config.train_size), validation)


def training_codec(
    config: TrainConfig, dataset: Dataset, split: Split | None = None
) -> TargetCodec:
    """Between physical values and what the network of a training learns.

    It depends on nothing else, so that it can be made again wherever the weights are used.

    Args:
        config: Target set, split and how much of it.
        dataset: All molecules.
        split: The split that `config` names, if it is there already.

    Returns:
        For `learned` targets fitted on the training molecules, for `raw` ones the identity.

    Raises:
        ConfigError: The split has fewer molecules than asked for.
    """
    split = split or make_split(config.split, len(dataset), config.split_seed)
    train = split.first_train(config.train_size)
    counts, extents, truth = dataset.counts(), dataset.extents, dataset.truth()
    return codec_for(config, counts[train], extents[train], truth[train])


def codec_for(config: TrainConfig, counts: Floats, extents: Floats, truth: Floats) -> TargetCodec:
    """As `training_codec`, from the training molecules' values.

    Args:
        config: The target set.
        counts: (n_train, MAX_NUMBER + 1), atoms of each atomic number.
        extents: (n_train,), nuclear extent, bohr^2.
        truth: (n_train, 19), in the targets' order and units.

    Returns:
        The codec.
    """
    if config.targets == "raw":
        return TargetCodec.identity(TARGET_SETS["raw"])
    return TargetCodec.fit(LEARNED, counts, extents, truth[:, _LEARNED_COLUMNS])


def objective_scale(counts: Floats, extents: Floats, truth: Floats) -> Floats:
    """As `learned_scale`, from the training molecules' values.

    Args:
        counts: (n_train, MAX_NUMBER + 1), atoms of each atomic number.
        extents: (n_train,), nuclear extent, bohr^2.
        truth: (n_train, 19), in the targets' order and units.

    Returns:
        (10,), in the targets' units.
    """
    return TargetCodec.fit(LEARNED, counts, extents, truth[:, _LEARNED_COLUMNS]).scale


def learned_scale(dataset: Dataset, train: Indices) -> Floats:
    """What `val/score` divides errors by: the same for every target set and loss.

    Args:
        dataset: All molecules.
        train: (n_train,), places of the training molecules.

    Returns:
        (10,), in the order of `properties.LEARNED` and in their units: the standard deviation over
        the training molecules of what needs learning (`TargetCodec`).
    """
    counts, extents, truth = dataset.counts(), dataset.extents, dataset.truth()
    return objective_scale(counts[train], extents[train], truth[train])


def all_targets(
    names: Sequence[str], values: Floats, counts: Floats, rotational_ghz: Floats
) -> Floats:
    """What a network's answer says about the 19 targets.

    Args:
        names: What the network predicts: the ten learned targets or all.
        values: (n_molecules, n_targets), in the targets' units.
        counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
        rotational_ghz: (n_molecules, 3), A, B and C from the geometry.

    Returns:
        (n_molecules, 19), in the targets' order and units: derived where the network learns ten,
        its own where it learns all.
    """
    by_name = {name: values[:, column] for column, name in enumerate(names)}
    if set(TARGETS) - set(by_name):
        by_name = targets.derive(by_name, counts, rotational_ghz)
    return np.column_stack([by_name[name] for name in TARGETS])


def mean_absolute_errors(predicted: Floats, truth: Floats) -> dict[str, float]:
    """Mean absolute error of each target.

    Args:
        predicted: (n_molecules, 19), in the targets' order and units.
        truth: (n_molecules, 19).

    Returns:
        By target, in its unit.
    """
    errors = np.abs(predicted - truth).mean(axis=0)
    return {name: float(error) for name, error in zip(TARGETS, errors, strict=True)}


def val_score(errors: Mapping[str, float], scale: Floats) -> float:
    """The objective: mean over the learned targets of MAE / training standard deviation.

    Args:
        errors: Mean absolute error of each target, in its unit.
        scale: (10,), from `learned_scale`.

    Returns:
        The score; 0 is perfect, a constant prediction gives 0.6 to 0.8.
    """
    return float(np.mean(np.array([errors[name] for name in LEARNED]) / scale))


def pooled_rmse(predicted: Floats, truth: Floats, without: tuple[str, ...] = ()) -> float:
    """Root mean square over molecules and targets together, units ignored, as the group did.

    Dominated by whatever has large numbers: kept for comparison only.

    Args:
        predicted: (n_molecules, 19), in the targets' order and units.
        truth: (n_molecules, 19).
        without: Targets that are left out.

    Returns:
        The pooled error.
    """
    columns = [column for column, name in enumerate(TARGETS) if name not in without]
    return float(np.sqrt(np.mean((predicted - truth)[:, columns] ** 2)))


def validation_metrics(predicted: Floats, truth: Floats, scale: Floats) -> dict[str, float]:
    """All metrics of one validation.

    Args:
        predicted: (n_molecules, 19), in the targets' order and units.
        truth: (n_molecules, 19).
        scale: (10,), from `learned_scale`.

    Returns:
        `val/score`, `val/<target>/mae`, `val/rmse_pooled`, `val/rmse_pooled_without_a`.
    """
    errors = mean_absolute_errors(predicted, truth)
    return {
        "val/score": val_score(errors, scale),
        **{f"val/{name}/mae": error for name, error in errors.items()},
        "val/rmse_pooled": pooled_rmse(predicted, truth),
        "val/rmse_pooled_without_a": pooled_rmse(predicted, truth, without=("a",)),
    }

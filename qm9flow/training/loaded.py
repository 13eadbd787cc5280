"""The molecules of one training, on its device, and its validation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qm9flow.config import TrainConfig
from qm9flow.data.geometries import Geometries, open_geometries
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.errors import DataError
from qm9flow.nn.refiner import Refiner
from qm9flow.properties import TARGETS
from qm9flow.targets import TargetCodec
from qm9flow.training.metrics import (
    all_targets,
    codec_for,
    objective_scale,
    training_sample,
    validation_metrics,
)
from qm9flow.training.predict import predict_resident
from qm9flow.training.refined import refined

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LoadedData:
    """Training and validation molecules.

    Attributes:
        codec: Between physical values and what the network learns.
        train: With encoded targets, on the device.
        validation: Without targets, on the device.
        scale: (10,), what `val/score` divides errors by.
        truth: (n_validation, 19), in the targets' order and units.
        counts: (n_validation, MAX_NUMBER + 1), atoms of each atomic number.
        extents: (n_validation,), nuclear extent, bohr^2.
        rotational_ghz: (n_validation, 3), from the geometry.
    """

    codec: TargetCodec
    train: ResidentMolecules
    validation: ResidentMolecules
    scale: Floats
    truth: Floats
    counts: Floats
    extents: Floats
    rotational_ghz: Floats

    @classmethod
    def load(
        cls,
        config: TrainConfig,
        dataset: Dataset,
        device: torch.device,
        refiner: Refiner | None = None,
    ) -> "LoadedData":
        """Load what a training needs.

        Args:
            config: Target set, split and how much of it.
            dataset: All molecules.
            device: Where the training runs.
            refiner: Refines geometries before the network sees them.

        Returns:
            Its molecules.

        Raises:
            ConfigError: The split has fewer molecules than asked for.
            DataError: A target is NaN or infinite.
        """
        sample = training_sample(config, dataset)
        train = sample.train
        counts, truth = dataset.counts(), dataset.truth()
        _refuse_holes(truth, np.concatenate([train, sample.validation]))
        extents = np.asarray(dataset.extents)
        # from DFT's geometries whatever the network sees: scores and weights compare
        codec = codec_for(config, counts[train], extents[train], truth[train])
        scale = objective_scale(counts[train], extents[train], truth[train])
        geometries = open_geometries(config.geometry, dataset)
        if refiner is not None:
            wanted = geometries.known(np.concatenate([train, sample.validation]))
            geometries = refined(geometries, refiner, wanted, device)
        validation = geometries.known(sample.validation)
        best = geometries.of(validation)
        return cls(
            codec=codec,
            train=_training_molecules(codec, geometries, dataset, train, device),
            validation=ResidentMolecules.load(geometries.atoms, best, None, device),
            scale=scale,
            truth=truth[validation],
            counts=counts[validation],
            extents=geometries.extents[best],
            rotational_ghz=geometries.rotational_ghz[best],
        )

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Judge a network.

        Args:
            network: Predicts encoded targets.

        Returns:
            The `val/...` metrics; not finite where predictions are not.
        """
        predicted = predict_resident(network, self.validation, len(self.codec.names))
        encoded = predicted.cpu().numpy().astype(np.float64)
        with np.errstate(all="ignore"):  # what is not finite is told by the metrics
            decoded = self.codec.decode(self.counts, self.extents, encoded)
            values = all_targets(self.codec.names, decoded, self.counts, self.rotational_ghz)
            return validation_metrics(values, self.truth, self.scale)


def _training_molecules(
    codec: TargetCodec,
    geometries: Geometries,
    dataset: Dataset,
    train: npt.NDArray[np.int64],
    device: torch.device,
) -> ResidentMolecules:
    """Those that have a geometry."""
    train = geometries.known(train)
    places = geometries.of(train)
    columns = [TARGETS.index(name) for name in codec.names]
    values = dataset.truth()[train][:, columns]
    encoded = codec.encode(dataset.counts()[train], geometries.extents[places], values)
    return ResidentMolecules.load(geometries.atoms, places, encoded, device)


def _refuse_holes(truth: Floats, molecules: npt.NDArray[np.int64]) -> None:
    bad = molecules[~np.isfinite(truth[molecules]).all(axis=1)]
    if len(bad):
        raise DataError(
            f"{len(bad)} molecules have targets that are NaN or infinite, the first at place "
            f"{bad[0]} of the data set; prepare the data anew"
        )

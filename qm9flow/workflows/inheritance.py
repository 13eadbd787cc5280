"""What a new network takes over from the champion: networks for other geometries than DFT's.

These answer by themselves, whatever network for DFT's geometries stands beside them. So one that
was trained alone can take the champion's place without taking anything from those who send SMILES.
"""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow.config import GeometrySource, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import BundleError, InferenceError, RegistryError
from qm9flow.inference.calibration import FILE as CALIBRATION
from qm9flow.inference.calibration import LEVEL, Calibration, SourceCalibration
from qm9flow.properties import TARGET_SETS
from qm9flow.registry import evidence
from qm9flow.registry.aliases import CHAMPION
from qm9flow.registry.versions import Version, fetch, fetch_evidence, list_versions
from qm9flow.release.bundle import WEIGHTS, Companions, read_bundle
from qm9flow.release.record import BundleRecord, Origin
from qm9flow.workflows.console import Console
from qm9flow.workflows.pretrained import TAG

EVIDENCE = "inherited.npz"
"""Beside the bundle: validation errors of the model that it takes networks over from."""


def inherit(
    train: TrainConfig, dataset: Dataset, folder: Path, tracking_uri: str, console: Console
) -> Companions | None:
    """Take over the champion's networks for other geometries than DFT's.

    Args:
        train: How the new network was trained.
        dataset: QM9.
        folder: Where its bundle is to be made; keeps what the gate compares of the others.
        tracking_uri: The registry's store.
        console: Told whose they are, or why there are none.

    Returns:
        What its bundle takes over; None if there is nothing that fits.

    Raises:
        RegistryError: The store does not answer.
    """
    versions = list_versions(tracking_uri)
    champion = next((item for item in versions if CHAMPION in item.aliases), None)
    try:
        if champion is None:
            raise RegistryError("no version is champion")
        found = _companions(champion, train, dataset, tracking_uri)
        fetch_evidence(champion, folder / EVIDENCE, tracking_uri)
    except (RegistryError, BundleError, InferenceError) as error:
        console.say(
            f"the new version has no networks for SMILES and approximate geometries: {error}"
        )
        return None
    console.say(
        f"for SMILES and approximate geometries the networks of {champion.label} are taken over"
    )
    return found


def inherited_errors(folder: Path, record: BundleRecord) -> dict[str, npt.NDArray[np.floating]]:
    """What the gate compares of networks that were taken over.

    Args:
        folder: Where the bundle was made.
        record: Of the bundle.

    Returns:
        As `evidence.Elsewhere`; nothing for a bundle that has no such networks.

    Raises:
        RegistryError: The file is missing or damaged.
    """
    if record.rough is None or record.rough.inherited is None:
        return {}
    return dict(evidence.load_elsewhere(folder / EVIDENCE))


def _companions(
    champion: Version, train: TrainConfig, dataset: Dataset, tracking_uri: str
) -> Companions:
    """The champion's, if the new network can have them."""
    bundle, label = fetch(champion, tracking_uri=tracking_uri), champion.label
    record, _ = read_bundle(bundle)
    if record.rough is None:
        raise RegistryError(f"{label}, the champion, has none")
    if record.codec.names != TARGET_SETS[train.targets]:
        raise RegistryError(f"those of {label}, the champion, predict other targets")
    if (record.data_digest, record.split_seed) != (dataset.digest, train.split_seed):
        raise RegistryError(f"those of {label}, the champion, were trained on other molecules")
    model = (
        f"the pretrained model of qm9flow {champion.tags[TAG]}" if TAG in champion.tags else label
    )
    origin = record.rough.inherited or Origin(model, record.files[WEIGHTS])
    rough = dataclasses.replace(record.rough, inherited=origin)
    return Companions(bundle, rough, _calibration(bundle, label))


def _calibration(bundle: Path, label: str) -> dict[GeometrySource, SourceCalibration]:
    """Of networks for other geometries than DFT's."""
    path = bundle / CALIBRATION
    if not path.exists():
        return {}
    calibration = Calibration.from_json(path.read_text(), str(path))
    if calibration.level != LEVEL:
        raise RegistryError(f"intervals of {label}, the champion, have another level than {LEVEL}")
    return {source: item for source, item in calibration.sources.items() if source != "dft"}

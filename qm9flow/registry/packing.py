"""A bundle as an MLflow model: ONNX flavour with a signature, the bundle beside it.

`mlflow models serve` and `mlflow.pyfunc.load_model` run it; qm9flow itself uses the bundle. What of
MLflow needs pandas is imported where a model is packed: a service does without.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mlflow.entities import LoggedModel, LoggedModelStatus

from qm9flow.errors import DependencyError, RegistryError
from qm9flow.registry import evidence
from qm9flow.registry.checksum import file_sha256
from qm9flow.registry.client import Connection

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

BUNDLE = "bundle"
GATE = "gate"

# Given, not inferred: MLflow would load the model in a subprocess to find out.
_REQUIREMENTS = ["numpy>=2.0", "onnxruntime>=1.31"]

_WATER = {
    "numbers": np.array([[8, 1, 1]], dtype=np.int64),
    "positions": np.array(
        [[[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]]], dtype=np.float32
    ),
}


def store_model(
    connection: Connection,
    bundle: Path,
    *,
    name: str,
    run_id: str,
    release_id: str,
    validation_errors: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    elsewhere: evidence.Elsewhere | None = None,
) -> tuple[LoggedModel, str]:
    """Put a bundle's MLflow model into the artifact store.

    Args:
        connection: To MLflow.
        bundle: A bundle's folder.
        name: What MLflow shows.
        run_id: The run that made the bundle.
        release_id: What an interrupted call for the same bundle is known by.
        validation_errors: (n_molecules, 10), |error| of the learned targets, in their units.
        scale: (10,), training standard deviations, in their units.
        elsewhere: Errors of networks for other geometries than DFT's.

    Returns:
        The stored model, and the checksum of the file with the validation errors.

    Raises:
        DependencyError: The package onnx is not installed.
        RegistryError: The bundle has no usable `model.onnx`, or the store refuses.
    """
    from mlflow.models import Model

    client = connection.client
    run = connection.call("reading the run", lambda: client.get_run(run_id))
    experiment = run.info.experiment_id
    _delete_halves(connection, experiment, release_id)
    stored = connection.call(
        "storing the model",
        lambda: client.create_logged_model(
            experiment, name=name, source_run_id=run_id, tags={"release_id": release_id}
        ),
    )
    model = Model(
        artifact_path=stored.artifact_location,
        run_id=run_id,
        model_uuid=stored.model_id,
        model_id=stored.model_id,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        pack(
            bundle,
            folder,
            model,
            validation_errors=validation_errors,
            scale=scale,
            elsewhere=elsewhere,
        )
        checksum = file_sha256(folder / GATE / evidence.FILE)
        connection.call(
            "storing the model", lambda: client.log_model_artifacts(stored.model_id, str(folder))
        )
    ready = connection.call(
        "storing the model",
        lambda: client.finalize_logged_model(stored.model_id, LoggedModelStatus.READY),
    )
    return ready, checksum


def _delete_halves(connection: Connection, experiment: str, release_id: str) -> None:
    """Delete what an interrupted call for the same bundle left behind."""
    client = connection.client
    halves = connection.call(
        "looking for earlier tries",
        lambda: client.search_logged_models(
            [experiment], filter_string=f"tags.release_id = '{release_id}'"
        ),
    )
    for half in halves:
        connection.call(
            "deleting an earlier try",
            lambda half=half: client.delete_logged_model(half.model_id),  # type: ignore[misc]
        )


def pack(
    bundle: Path,
    folder: Path,
    model: "Model",
    *,
    validation_errors: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    elsewhere: evidence.Elsewhere | None = None,
) -> None:
    """Write the MLflow model of a bundle.

    Args:
        bundle: A bundle's folder.
        folder: Where to write; must not exist.
        model: MLflow's description, completed here.
        validation_errors: (n_molecules, 10), |error| of the learned targets, in their units.
        scale: (10,), training standard deviations, in their units.
        elsewhere: Errors of networks for other geometries than DFT's.

    Raises:
        DependencyError: The package onnx is not installed.
        RegistryError: The bundle has no usable `model.onnx`.
    """
    try:
        import mlflow.onnx
        import onnx
    except ImportError as error:
        raise DependencyError("registering needs onnx: pip install 'qm9flow[train]'") from error
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(bundle / "model.onnx")
        properties = {item.key: item.value for item in graph.metadata_props}
        n_targets = len(json.loads(properties["targets"]))
    except (OSError, DecodeError, KeyError, ValueError) as error:
        raise RegistryError(f"{bundle / 'model.onnx'} cannot be registered: {error!r}") from error
    mlflow.onnx.save_model(
        graph,
        folder,
        mlflow_model=model,
        signature=_signature(n_targets),
        input_example=_WATER,
        pip_requirements=_REQUIREMENTS,
        save_as_external_data=False,
    )
    shutil.copytree(bundle, folder / BUNDLE)
    (folder / GATE).mkdir()
    evidence.save(folder / GATE / evidence.FILE, validation_errors, scale, elsewhere)


def _signature(n_targets: int) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(np.int64), (-1, -1), "numbers"),
        TensorSpec(np.dtype(np.float32), (-1, -1, 3), "positions"),
    ]
    outputs: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(np.float64), (-1, n_targets), "values")
    ]
    return ModelSignature(Schema(inputs), Schema(outputs))

"""What runs are labelled with: parameters, units, origin, data."""

import getpass
import json
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Param
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from qm9flow.properties import PROPERTIES
from qm9flow.tracking import provenance
from qm9flow.tracking.places import Place
from qm9flow.tracking.runs import TAG_KEY, TAG_UNITS


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, names joined by dots.

    Args:
        values: Plain values and tables of them.
        prefix: Put before each name.

    Returns:
        Plain values by their full names.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def parameters_of(values: Mapping[str, Any]) -> list[Param]:
    """Values as MLflow's parameters.

    Args:
        values: Plain values and tables of them.

    Returns:
        One a value; None is written as `none`.
    """
    return [
        Param(name, "none" if value is None else str(value))
        for name, value in flatten(values).items()
    ]


def common_tags(place: Place) -> dict[str, str]:
    """What all runs of a study, or of a training by itself, share.

    Args:
        place: The study or training.

    Returns:
        Its name and key, the targets' units (one tag, JSON), and where the code comes from.
    """
    tags = {
        place.kind: place.name,
        TAG_KEY: place.key,
        TAG_UNITS: json.dumps({item.name: item.unit for item in PROPERTIES}),
    }
    tags |= {MLFLOW_SOURCE_NAME: "qm9flow", MLFLOW_SOURCE_TYPE: "LOCAL"}
    try:
        tags[MLFLOW_USER] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        tags[MLFLOW_USER] = "unknown"
    commit = provenance.git_commit()
    if commit:
        tags |= {MLFLOW_GIT_COMMIT: commit.removesuffix("-dirty"), "git_commit": commit}
    return tags


def dataset_input(
    *, digest: str, molecules: int, split: str, split_digest: str, sizes: Mapping[str, int]
) -> DatasetInput:
    """QM9 as an input of a run.

    MLflow keeps one entry per name and digest for all runs, so the split goes into the tags.

    Args:
        digest: Of the data's content.
        molecules: How many there are.
        split: Name of the split.
        split_digest: Its hash.
        sizes: Molecules used for each purpose.

    Returns:
        What `MlflowClient.log_inputs` takes.
    """
    columns = [{"type": "double", "name": item.name, "required": True} for item in PROPERTIES]
    dataset = Dataset(
        name="QM9",
        digest=digest[:36],  # all that MLflow's column takes
        source_type="code",
        source=json.dumps({"tags": {MLFLOW_SOURCE_NAME: "qm9pack==1.0.3"}}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": molecules, "digest": digest}),
    )
    tags = {"mlflow.data.context": "training", "split": split, "split_digest": split_digest}
    tags |= {f"molecules_{name}": str(count) for name, count in sizes.items()}
    return DatasetInput(dataset, [InputTag(name, value) for name, value in tags.items()])

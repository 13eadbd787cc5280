"""Where a training starts when not from fresh weights: at a model that there is already."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm9flow import config
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.registry.find import find_model
from qm9flow.release.bundle import read_bundle
from qm9flow.release.record import BundleRecord
from qm9flow.training.metrics import training_codec
from qm9flow.training.start import weights_digest

INHERITED = ("model", "targets", "split", "split_seed", "train_size")
"""Options that come with the weights: on another split, they would have seen what they are tested
with, and the codec between what they learned and physical values is fitted on the first
`train_size` molecules. Of the network, `heads` may be added where there are none
(`qm9flow.nn.heads`)."""


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        label: What it is called.
        weights: safetensors bytes.
        record: How it came about.
        bundle: Its folder.
    """

    label: str
    weights: bytes
    record: BundleRecord
    bundle: Path

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a training that starts here.

        Args:
            given: What the user asked for.

        Returns:
            The same, with what comes with the weights.

        Raises:
            ConfigError: The user asked for another network, other targets or another split.
        """
        theirs = config.to_dict(self.record.train)
        for name in INHERITED:
            asked = given.get(name)
            if asked is None:
                continue
            asked = _filled(name, asked)
            if name == "model" and _adds_heads(asked, theirs["model"]):
                theirs["model"] = asked
            if asked != theirs[name]:
                raise ConfigError(
                    f"{name} comes with the weights of {self.label}: leave it out; "
                    f"{_differing(theirs[name], asked)}"
                )
        start = weights_digest(self.weights)
        if given.get("start") not in (None, start):
            raise ConfigError(
                f"the training starts from the weights with SHA-256 {given['start']}, "
                f"{self.label} has {start}"
            )
        return {**given, **{name: theirs[name] for name in INHERITED}, "start": start}

    def check(self, dataset: Dataset) -> None:
        """Refuse other data, where the split would be another one, and another codec.

        Args:
            dataset: What is trained on.

        Raises:
            ConfigError: The model was trained on other data, or its weights learned other numbers
                than a training of today would teach them.
        """
        if self.record.data_digest != dataset.digest:
            raise ConfigError(
                f"{self.label} was trained on data {self.record.data_digest[:12]}, here lies "
                f"{dataset.digest[:12]}: it may have seen what it would be validated with"
            )
        if not self.record.codec.is_close(training_codec(self.record.train, dataset)):
            raise ConfigError(
                f"{self.label} was trained by a version of qm9flow that encoded targets in another "
                "way, so that its weights mean something else today: start from another model, or "
                "from fresh weights"
            )


def find_start(model: str) -> Start:
    """A model to start from.

    Args:
        model: An alias, a version's number, a bundle's folder, or `pretrained`.

    Returns:
        Its weights and record.

    Raises:
        RegistryError: There is no such model, or it is damaged.
        BundleError: The bundle is damaged.
    """
    found = find_model(model)
    record, weights = read_bundle(found.bundle)
    return Start(found.label, weights, record, found.bundle)


def _adds_heads(asked: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return theirs.get("heads") == 0 and {**asked, "heads": 0} == theirs


def _differing(theirs: Any, asked: Any) -> str:
    if not isinstance(theirs, Mapping) or not isinstance(asked, Mapping):
        return f"it is {theirs!r}, got {asked!r}"
    kinds = [table.get("architecture") for table in (theirs, asked)]
    if kinds[0] != kinds[1]:
        return f"its architecture is {kinds[0]}, got {kinds[1]}"
    return ", ".join(
        f"{key} is {theirs.get(key)!r}, got {asked.get(key)!r}"
        for key in {**theirs, **asked}
        if theirs.get(key) != asked.get(key)
    )


def _filled(name: str, asked: Any) -> Any:
    if name == "model" and isinstance(asked, Mapping):
        return config.to_dict(config.model_from_dict(asked))
    return asked

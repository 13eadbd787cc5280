"""Where a study or a training by itself keeps its files, and what tells it from its namesakes."""

import hashlib
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qm9flow.tracking.stores import Stores

Kind = Literal["study", "training"]

TRAININGS = "trainings"
"""The folder of all trainings, beside one folder a study."""


@dataclass(frozen=True)
class Place:
    """The files of a study or a training.

    Attributes:
        kind: Which of the two.
        name: What people call it.
        key: What tells it from others of its name: a study in another Optuna storage, a training.
        state: Folder of what is needed to go on after a kill (not created here).
        tensorboard: Folder of TensorBoard's files (not created here).
    """

    kind: Kind
    name: str
    key: str
    state: Path
    tensorboard: Path

    @property
    def home(self) -> str:
        """The folder of its state with the name of this machine: runs say where they come from."""
        return f"{socket.gethostname()}:{self.state}"


def study_place(stores: Stores, name: str) -> Place:
    """Where a study keeps its files.

    Args:
        stores: The addresses.
        name: The study.

    Returns:
        Its place; a study of the same name in another Optuna storage has another one.
    """
    key = _digest(f"{_without_login(stores.optuna_url)}\n{name}")
    folder = folder_name(name)
    if folder != name or name == TRAININGS or stores.optuna_url != stores.default_optuna_url:
        folder = f"{folder}-{key[:8]}"
    return Place("study", name, key, stores.state_dir / folder, stores.tensorboard_dir / folder)


def training_place(stores: Stores, name: str) -> Place:
    """Where a training by itself keeps its files.

    Args:
        stores: The addresses.
        name: The training.

    Returns:
        Its place, apart from those of all studies.
    """
    key = _digest(f"training\n{name}")
    folder = folder_name(name)
    if folder != name:
        folder = f"{folder}-{key[:8]}"
    return Place(
        "training",
        name,
        key,
        stores.state_dir / TRAININGS / folder,
        stores.tensorboard_dir / TRAININGS / folder,
    )


def folder_name(name: str) -> str:
    """A name as the name of a folder.

    Args:
        name: Any text.

    Returns:
        The same with everything but letters, digits, dots and dashes replaced; two names may give
        one folder.
    """
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "_"


def _without_login(url: str) -> str:
    """A changed password does not make another study."""
    return re.sub(r"//[^/@]*@", "//", url)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

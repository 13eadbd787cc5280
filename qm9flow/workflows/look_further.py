"""The commands that show more of a study, as a shell takes them."""

import shlex
import shutil

from qm9flow.locations import without_password
from qm9flow.tracking.places import study_place
from qm9flow.tracking.stores import Stores

DASHBOARD = "optuna-dashboard"
"""A program of its own, not installed with qm9flow."""


def look_further(stores: Stores, name: str) -> list[str]:
    """What to type to look at a study.

    Args:
        stores: Where it is.
        name: Of the study.

    Returns:
        One command a line; passwords in addresses are written as `***`.
    """
    folder = study_place(stores, name).tensorboard
    return [
        _mlflow(stores.tracking_uri),
        _dashboard(stores.optuna_url),
        f"tensorboard --logdir {shlex.quote(str(folder))}",
        f"qm9flow study show {named(stores, name)}",
        f"qm9flow report {named(stores, name)}",
    ]


def named(stores: Stores, name: str) -> str:
    """A study as a shell takes it.

    Args:
        stores: Where it is.
        name: Of the study.

    Returns:
        Its name, and the option `--storage` where it does not lie in the default place.
    """
    word = shlex.quote(name)
    if stores.optuna_url == stores.default_optuna_url:
        return word
    return f"{word} --storage {shlex.quote(without_password(stores.optuna_url))}"


def _mlflow(uri: str) -> str:
    if uri.startswith(("http://", "https://")):
        return f"{without_password(uri)}    # MLflow's pages, in a browser"
    return f"mlflow ui --backend-store-uri {shlex.quote(without_password(uri))}"


def _dashboard(url: str) -> str:
    command = f"{DASHBOARD} {shlex.quote(without_password(url))}"
    if shutil.which(DASHBOARD):
        return command
    return f"{command}    # pip install {DASHBOARD}"

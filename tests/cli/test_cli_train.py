"""Recipes: what a training starts from."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from qm9flow.cli.main import cli
from qm9flow.config import RECIPES, DensityConfig, MPNNConfig, TrainConfig, train_from_dict
from qm9flow.errors import ConfigError, RegistryError


def test_a_recipe_is_where_options_start_from() -> None:
    assert train_from_dict({"recipe": "group"}) == TrainConfig()
    changed = train_from_dict({"model": {"architecture": "density", "hidden": 96}, "seed": 3})
    assert changed.model == DensityConfig(hidden=96)
    assert (changed.optimizer, changed.seed) == ("soap", 3)
    other = train_from_dict({"model": {"architecture": "mpnn"}})
    assert other.model == MPNNConfig()
    assert other.weighting == RECIPES["flagship"].weighting


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'cake'.*group, flagship"):
        train_from_dict({"recipe": "cake"})


@pytest.mark.parametrize("given", [{"recipe": {}}, {"model": {"architecture": ["density"]}}])
def test_what_is_no_name_is_refused_too(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown .* the .* are "):
        train_from_dict(given)


@pytest.mark.parametrize(
    "words",
    [
        ["--recipe", "cake"],
        ["--recipe", "group", "--from-run", "0" * 32],
        ["--config", "{file}"],
    ],
)
def test_bad_recipes_are_refused_in_a_line(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('recipe = "cake"\n')
    result = CliRunner().invoke(cli, ["train", *(word.format(file=file) for word in words)])
    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigError | SystemExit)  # messages, not tracebacks


@pytest.mark.parametrize("name", ["", " ", "nobody", "no/such/folder"])
def test_a_start_that_is_none_is_refused(name: str, stores_in: Path) -> None:
    result = CliRunner().invoke(cli, ["train", "--epochs", "1", "--start-from", name])
    assert isinstance(result.exception, ConfigError | RegistryError)
    assert list(stores_in.iterdir()) == []

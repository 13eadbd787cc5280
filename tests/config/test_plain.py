"""Configurations from plain values: what is the same stays the same, what is wrong is said."""

import json
from pathlib import Path

import pytest

from qm9flow.config import TrainConfig, from_dict, load_file, to_dict
from qm9flow.errors import ConfigError


def test_whole_numbers_and_floats_make_the_same_training() -> None:
    whole = from_dict(TrainConfig, {"max_minutes": 45, "weight_decay": 0})
    exact = from_dict(TrainConfig, {"max_minutes": 45.0, "weight_decay": 0.0})
    assert json.dumps(to_dict(whole)) == json.dumps(to_dict(exact))
    assert isinstance(from_dict(TrainConfig, {"seed": 3}).seed, int)
    assert from_dict(TrainConfig, {"threads": 2}).threads == 2
    assert from_dict(TrainConfig, {"compile": True}).compile is True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "painn"}, "model must be a table, got 'painn'.*architecture = "),
        ({"model": {"hidden": 32}}, "model needs an architecture, one of density, mpnn"),
        ({"model": {"architecture": "gnn"}}, "unknown architecture 'gnn'"),
        ({"targets": "raw", "weighting": "balanced"}, 'set weighting = "equal"'),
        ({"threads": 100_000}, "threads must lie between 1 and 256, got 100000"),
        ({"batch_size": 1.5}, "batch_size must be int, got 1.5"),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainConfig, values)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1, 2]", "{", "\x00"])
def test_files_that_hold_no_options(tmp_path: Path, text: str) -> None:
    path = tmp_path / "options.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="configuration file"):
        load_file(path)

"""Checkpoints: what they hold, and what they refuse."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qm9flow.config import GOALS, PyGSchNetConfig, TrainConfig
from qm9flow.errors import CheckpointError
from qm9flow.training.checkpoint import (
    FORMAT,
    HISTORY_TENSOR,
    Checkpoint,
    Progress,
    config_digest,
    pack,
    unpack,
)
from qm9flow.training.events import Alarm

finite = st.floats(allow_nan=False, allow_infinity=False)
progresses = st.builds(
    Progress,
    epoch=st.integers(0, 10**6),
    elapsed_seconds=finite,
    is_out_of_time=st.booleans(),
    best_metrics=st.dictionaries(st.text(max_size=8), finite, max_size=4),
    plateau_factor=finite,
    first_loss=st.none() | finite,
    worst_verdict=st.sampled_from(["healthy", "vanishing"]),
    alarm=st.none() | st.just(Alarm("dead_relu", 40, 2, 1.5)),
)
TENSORS = {"weights": torch.tensor([1.5, float("nan")]), "rows": torch.zeros(0, 4).double()}


@given(progresses)
def test_what_is_packed_comes_back(progress: Progress) -> None:
    got = unpack(pack(Checkpoint(progress, TENSORS), "d"), "d")
    assert got.progress == progress
    assert set(got.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(got.tensors[name], tensor, rtol=0, atol=0, equal_nan=True)


def blob() -> bytes:
    return pack(Checkpoint(Progress(epoch=3), TENSORS), "d")


@pytest.mark.parametrize(
    "damaged",
    [b"", b"12345678", b"\xff" * 64, blob()[:-1], blob()[:40], b"\x00" * 8 + blob()[8:]],
)
def test_damaged_bytes_are_refused(damaged: bytes) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        unpack(damaged, "d")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        unpack(data, "d")


def test_other_safetensors_are_refused() -> None:
    from safetensors.torch import save

    with pytest.raises(CheckpointError, match="no checkpoint"):
        unpack(save(TENSORS), "d")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        unpack(save(TENSORS, metadata={"training": "[1]"}), "d")


def test_a_checkpoint_of_another_training_is_refused() -> None:
    with pytest.raises(CheckpointError, match="another configuration"):
        unpack(blob(), "e")


def test_a_future_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qm9flow.training.checkpoint.FORMAT", FORMAT + 1)
    future = blob()
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}"):
        unpack(future, "d")


def test_format_2_is_read_without_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = TENSORS | {HISTORY_TENSOR: torch.zeros(9, 14, dtype=torch.float64)}
    values = dataclasses.asdict(Progress(epoch=3, first_loss=1.0))
    del values["alarm"]
    monkeypatch.setattr("qm9flow.training.checkpoint.FORMAT", 2)
    monkeypatch.setattr("qm9flow.training.checkpoint.dataclasses.asdict", lambda _: values)
    old = pack(Checkpoint(Progress(), tensors), "d")
    monkeypatch.undo()
    checkpoint = unpack(old, "d")
    assert checkpoint.progress == Progress(epoch=3, first_loss=1.0)
    assert checkpoint.rows(HISTORY_TENSOR, 25).shape == (0, 25)


def test_missing_and_misfit_tensors_are_named() -> None:
    checkpoint = unpack(blob(), "d")
    with pytest.raises(CheckpointError, match="'average'"):
        checkpoint.tensor("average", torch.zeros(2))
    with pytest.raises(CheckpointError, match=r"'weights'.*\(2,\).*\(3,\)"):
        checkpoint.tensor("weights", torch.zeros(3))
    with pytest.raises(CheckpointError, match="float64"):
        checkpoint.tensor("weights", torch.zeros(2, dtype=torch.float64))
    with pytest.raises(CheckpointError, match="'rows'"):
        checkpoint.rows("rows", 5)


def test_the_digest_is_of_the_training_not_of_the_place() -> None:
    config = TrainConfig()
    digest = config_digest(config, "data")
    same = replace(config, device="cpu", threads=7, checkpoint_every=9, gradient_stop="observe")
    assert config_digest(same, "data") == digest
    others = [
        config_digest(config, "other"),
        config_digest(replace(config, seed=1), "data"),
        config_digest(replace(config, model=PyGSchNetConfig()), "data"),
        config_digest(replace(config, max_epochs=31), "data"),
    ]
    assert len({digest, *others}) == 5


def test_the_digest_is_of_what_a_loss_weighs_targets_by(monkeypatch: pytest.MonkeyPatch) -> None:
    equal, balanced = TrainConfig(), TrainConfig(loss="mae", weighting="balanced")
    before = [config_digest(config, "data") for config in (equal, balanced)]
    monkeypatch.setitem(GOALS, "zpve", 1.0)
    after = [config_digest(config, "data") for config in (equal, balanced)]
    assert after[0] == before[0]
    assert after[1] != before[1]

"""Promotion, rollback, and what is left when either dies half-way."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from registering import Registry

from qm9flow.errors import RegistryError
from qm9flow.registry.aliases import promote, rollback
from qm9flow.registry.versions import MODEL_NAME, list_versions, resolve


def aliases() -> dict[str, int]:
    return {alias: version.number for version in list_versions() for alias in version.aliases}


def test_first_version_becomes_champion(registry: Registry) -> None:
    promotion = promote(registry.add("a"))
    assert promotion.alias == "champion"
    assert promotion.decision.reason == "first"
    assert not promotion.is_forced
    assert aliases() == {"champion": 1}


def test_better_version_takes_over_and_the_old_one_is_previous(registry: Registry) -> None:
    promote(registry.add("a"))
    promotion = promote(registry.add("b", factor=0.5))
    assert promotion.alias == "champion"
    assert promotion.version.aliases == ("champion",)
    assert aliases() == {"champion": 2, "previous": 1}


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_version_that_is_not_better_becomes_challenger(registry: Registry, factor: float) -> None:
    promote(registry.add("a"))
    promotion = promote(registry.add("b", factor=factor))
    assert promotion.alias == "challenger"
    assert promotion.decision.reason == "not_better"
    assert "version 1" in promotion.decision.figure
    assert aliases() == {"champion": 1, "challenger": 2}
    assert promotion.version.aliases == ("challenger",)


def test_gates_figure_is_kept_with_the_version(registry: Registry) -> None:
    promote(registry.add("a"))
    promotion = promote(registry.add("b", factor=2.0))
    tags = resolve(2).tags
    assert tags["gate"] == promotion.decision.figure
    assert tags["gate/passes"] == "false"


def test_force_goes_past_the_gate_and_says_so(registry: Registry) -> None:
    promote(registry.add("a"))
    worse = registry.add("b", factor=2.0)
    promote(worse)
    promotion = promote(resolve("challenger"), force=True)
    assert promotion.alias == "champion"
    assert promotion.is_forced
    assert not promotion.decision.passes
    assert aliases() == {"champion": 2, "previous": 1}


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [("data_digest", "e" * 64, "other_data"), ("split_seed", "7", "other_split")],
)
def test_other_data_or_split_stays_challenger(
    registry: Registry, tag: str, value: str, reason: str
) -> None:
    promote(registry.add("a"))
    promotion = promote(registry.add("b", factor=0.1, **{tag: value}))
    assert promotion.alias == "challenger"
    assert promotion.decision.reason == reason


def test_parity_is_needed_even_for_the_first(registry: Registry) -> None:
    promotion = promote(registry.add("a", parity="0.002"))
    assert promotion.decision.reason == "parity"
    assert aliases() == {"challenger": 1}
    with pytest.raises(RegistryError, match="no version is champion"):
        resolve()


def test_champion_stays_champion(registry: Registry) -> None:
    promote(registry.add("a"))
    promote(registry.add("b", factor=0.5))
    promotion = promote(resolve())
    assert promotion.alias == "champion"
    assert promotion.decision.reason == "champion"
    assert aliases() == {"champion": 2, "previous": 1}


def test_what_the_gate_said_of_a_champion_stays(registry: Registry) -> None:
    promote(registry.add("a"))
    forced = promote(registry.add("b", factor=2.0), force=True)
    promote(resolve())
    tags = resolve().tags
    assert tags["gate/passes"] == "false"
    assert tags["gate"] == forced.decision.figure


def test_a_challenger_that_a_rollback_makes_champion_challenges_nobody(registry: Registry) -> None:
    promote(registry.add("a"))
    promote(registry.add("b", factor=0.5))
    promote(resolve("previous"))
    assert aliases() == {"champion": 2, "previous": 1, "challenger": 1}
    rollback()
    assert aliases() == {"champion": 1, "previous": 2}


def test_rollback_swaps_there_and_back(registry: Registry) -> None:
    promote(registry.add("a"))
    promote(registry.add("b", factor=0.5))
    assert rollback().number == 1
    assert aliases() == {"champion": 1, "previous": 2}
    assert rollback().number == 2
    assert aliases() == {"champion": 2, "previous": 1}


def test_rollback_without_a_previous_champion_says_what_to_do(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="make study"):
        rollback()
    promote(registry.add("a"))
    with pytest.raises(RegistryError, match="--force"):
        rollback()


def test_damaged_version_never_becomes_champion(registry: Registry) -> None:
    promote(registry.add("a"))
    before = set(registry.folder.glob("mlruns/test/models/*/artifacts/bundle"))
    better = registry.add("b", factor=0.5)
    (bundle,) = set(registry.folder.glob("mlruns/test/models/*/artifacts/bundle")) - before
    (bundle / "card.md").write_text("changed")
    for force in (False, True):
        with pytest.raises(RegistryError, match="differs"):
            promote(better, force)
    assert aliases() == {"champion": 1}


def test_lost_previous_champion_is_no_way_back(registry: Registry) -> None:
    first = registry.add("a")
    (bundle,) = registry.folder.glob("mlruns/test/models/*/artifacts/bundle")
    promote(first)
    promote(registry.add("b", factor=0.5))
    (bundle / "model.onnx").unlink()
    with pytest.raises(RegistryError, match="version 1"):
        rollback()
    assert aliases() == {"champion": 2, "previous": 1}


def test_lost_evidence_of_the_champion_does_not_end_a_study(registry: Registry) -> None:
    promote(registry.add("a"))
    (evidence,) = registry.folder.glob("mlruns/test/models/*/artifacts/gate/*.npz")
    evidence.unlink()
    better = registry.add("b", factor=0.5)
    promotion = promote(better)
    assert promotion.alias == "challenger"
    assert promotion.decision.reason == "evidence"
    assert promote(better, force=True).alias == "champion"


@pytest.mark.parametrize("survived", range(3))
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_killed_between_two_aliases_a_sound_champion_remains(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, action: str, survived: int
) -> None:
    """Whatever call is the last one, there is a champion, and the same command goes on."""
    promote(registry.add("a"))
    promote(registry.add("b", factor=0.5))
    third = registry.add("c", factor=0.2)
    with monkeypatch.context() as patch:
        _die_after(patch, survived)
        try:
            _ = promote(third) if action == "promote" else rollback()
        except KeyboardInterrupt:
            pass
        else:
            assert survived == 2  # both moves were made
    assert aliases()["champion"] in ({2, 3} if action == "promote" else {1, 2})
    if action == "promote":
        promote(third)
        assert aliases() == {"champion": 3, "previous": 2}


def _die_after(patch: pytest.MonkeyPatch, survived: int) -> None:
    original, calls = MlflowClient.set_registered_model_alias, []

    def dying(self: MlflowClient, *args: Any, **options: Any) -> Any:
        if len(calls) == survived:
            raise KeyboardInterrupt
        calls.append(1)
        return original(self, *args, **options)

    patch.setattr(MlflowClient, "set_registered_model_alias", dying)


def test_aliases_are_mlflows_own(registry: Registry) -> None:
    """`models:/qm9flow@champion` works for everybody."""
    promote(registry.add("a"))
    found = registry.client.get_model_version_by_alias(MODEL_NAME, "champion")
    assert int(found.version) == 1
    assert Path(found.source).is_dir()

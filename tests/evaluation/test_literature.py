"""Published errors: complete, and in our units."""

import pytest

from qm9flow.evaluation.literature import LITERATURE, NOTE, REPORTED, Literature, published
from qm9flow.properties import get

BY_NAME = {item.name: item for item in LITERATURE}


def test_networks_and_their_papers() -> None:
    assert {name: item.paper for name, item in BY_NAME.items()} == {
        "enn-s2s": "arXiv:1704.01212",
        "SchNet": "arXiv:1706.08566",
        "DimeNet++": "arXiv:2011.14115",
        "EGNN": "arXiv:2102.09844",
        "PaiNN": "arXiv:2102.03150",
        "ET": "arXiv:2202.02541",
        "EquiformerV2": "arXiv:2306.12059",
        "Geoformer": "NeurIPS 2023",
    }
    assert [item.year for item in LITERATURE] == sorted(item.year for item in LITERATURE)


@pytest.mark.parametrize(
    ("name", "target", "mae"),
    [
        ("SchNet", "u0", 0.014),
        ("SchNet", "zpve", 0.0017),
        ("PaiNN", "mu", 0.012),
        ("PaiNN", "g", 0.00735),
        ("PaiNN", "r2", 0.066),
        ("DimeNet++", "gap", 0.0326),
        ("enn-s2s", "alpha", 0.092),
        ("EGNN", "homo", 0.029),
        ("ET", "lumo", 0.0175),
        ("EquiformerV2", "mu", 0.01),
        ("EquiformerV2", "cv", 0.023),
        ("Geoformer", "r2", 0.028),
    ],
)
def test_values_are_in_our_units(name: str, target: str, mae: float) -> None:
    assert BY_NAME[name].mae(target) == pytest.approx(mae)


@pytest.mark.parametrize("item", LITERATURE, ids=lambda item: item.name)
def test_every_value_is_near_chemical_accuracy(item) -> None:  # type: ignore[no-untyped-def]
    """A value in another unit would be off by a thousand."""
    assert len(item.listed) == len(REPORTED)
    for target in REPORTED:
        accuracy = get(target).chemical_accuracy
        mae = item.mae(target)
        assert accuracy is not None
        assert mae is not None
        assert 0.01 < mae / accuracy < 3


@pytest.mark.parametrize("item", [*published("smiles"), *published("approximate")])
def test_errors_without_dfts_geometries_are_larger(item: Literature) -> None:
    assert len(item.listed) == len(REPORTED)
    known = {target: mae for target in REPORTED if (mae := item.mae(target)) is not None}
    assert known
    for target, mae in known.items():
        accuracy = get(target).chemical_accuracy
        assert accuracy is not None
        assert 0.5 < mae / accuracy < 50


def test_note_says_what_does_not_compare() -> None:
    assert "one target at a time" in NOTE
    assert "other random splits" in NOTE

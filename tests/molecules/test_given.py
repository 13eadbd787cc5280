"""Names of targets as users of Python, the shell and HTTP give them."""

import pytest

from qm9flow.errors import ConfigError, UnknownTargetError
from qm9flow.molecules.given import wanted_targets
from qm9flow.properties import TARGETS


def test_each_target_once_in_the_order_asked_for() -> None:
    assert wanted_targets(None) == TARGETS
    assert wanted_targets(["gap", "mu", "gap"]) == ("gap", "mu")
    assert wanted_targets(name for name in ("mu", "a")) == ("mu", "a")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("gap", "must be a list of names.*got 'gap'"),
        ({"gap": True}, "must be a list"),
        (7, "must be a list.*got 7"),
        ([], "empty list"),
        (["gap", 1], "named by a text, got 1"),
        (["gip"], "unknown target 'gip'"),
        (["\ud800" * 1000], r"unknown target '\\ud800"),
    ],
)
def test_what_names_no_targets_is_refused(names: object, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{words}.*the targets are mu, alpha") as caught:
        wanted_targets(names)
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 300
    is_unknown = words.startswith("unknown")
    assert isinstance(caught.value, UnknownTargetError) == is_unknown

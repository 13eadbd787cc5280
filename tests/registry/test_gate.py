"""The gate: who passes, who does not, and by which figure it says so."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm9flow.properties import LEARNED
from qm9flow.registry.gate import (
    Evidence,
    judge,
    mean_normalised,
    per_molecule,
    upper_bound,
)

WIDTH = len(LEARNED)
SCALE = np.linspace(0.1, 30.0, WIDTH)


def evidence(seed: int = 0, factor: float = 1.0, n: int = 300) -> Evidence:
    """Errors of a model whose mean normalised error is about 0.08 times `factor`."""
    rng = np.random.default_rng(seed)
    errors = np.abs(rng.normal(size=(n, WIDTH))) * SCALE * 0.1 * factor
    return Evidence(f"version {seed}", "digest", "0", 1e-5, errors.astype(np.float32), SCALE)


seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=8, deadline=None)


def test_first_version_passes() -> None:
    decision = judge(evidence(), None)
    assert decision.passes
    assert decision.reason == "first"
    assert "no champion yet" in decision.figure


@few
@given(seeds)
def test_identical_models_do_not_pass(seed: int) -> None:
    decision = judge(evidence(seed), evidence(seed))
    assert not decision.passes
    assert decision.difference == 0
    assert decision.upper_bound == 0


@few
@given(seeds, st.floats(0.1, 0.8))
def test_clearly_better_model_passes_and_worse_one_fails(seed: int, factor: float) -> None:
    better, champion = evidence(seed, factor), evidence(seed + 1)
    forward = judge(better, champion)
    assert forward.passes
    assert forward.reason == "better"
    assert forward.upper_bound is not None
    assert forward.upper_bound < 0
    backward = judge(champion, better)
    assert not backward.passes
    assert backward.reason == "not_better"
    assert backward.difference == pytest.approx(-forward.difference, rel=1e-12)


def test_better_by_chance_alone_fails() -> None:
    """Two equally good models on different noise: the luckier one must not pass by luck."""
    passed = sum(
        judge(evidence(2 * i, n=300), evidence(2 * i + 1, n=300)).passes for i in range(30)
    )
    # One-sided 5%: 1.5 of 30 are expected; more than 6 has a chance below 0.1%.
    assert passed <= 6


def test_pairing_sees_what_a_small_constant_gain_is_worth() -> None:
    """A gain far below the scatter of molecules counts, because the molecules are the same."""
    champion = evidence(3, n=2000)
    candidate = replace(champion, errors=champion.errors * np.float32(0.995))
    spread = per_molecule(champion.errors, SCALE).std() / np.sqrt(2000)
    decision = judge(candidate, champion)
    assert decision.passes
    assert decision.difference is not None
    assert abs(decision.difference) < spread


def test_same_seed_same_bound() -> None:
    differences = np.random.default_rng(0).normal(size=1000)
    assert upper_bound(differences, seed=1) == upper_bound(differences, seed=1)
    assert upper_bound(differences, seed=1) != upper_bound(differences, seed=2)


def test_bound_is_that_of_the_normal_approximation() -> None:
    differences = np.random.default_rng(0).normal(loc=0.3, size=10_000)
    expected = differences.mean() + 1.6449 * differences.std() / np.sqrt(10_000)
    assert upper_bound(differences) == pytest.approx(expected, abs=5e-4)


def test_both_are_measured_with_the_champions_scale() -> None:
    """Scales come from training sets: a candidate cannot win by bringing a wider one."""
    champion = evidence(1)
    candidate = replace(champion, scale=champion.scale * 10)
    assert mean_normalised(candidate.errors, candidate.scale) < 0.02
    assert not judge(candidate, champion).passes


@pytest.mark.parametrize("champion", [None, evidence(1, factor=9)])
@pytest.mark.parametrize("parity", [1.01e-3, float("nan"), float("inf")])
def test_parity_must_hold_even_without_champion(parity: float, champion: Evidence | None) -> None:
    decision = judge(replace(evidence(), parity=parity), champion)
    assert not decision.passes
    assert decision.reason == "parity"


def test_nan_among_the_errors_fails() -> None:
    errors = evidence().errors.copy()
    errors[3, 4] = np.nan
    assert judge(replace(evidence(), errors=errors), None).reason == "evidence"


def test_other_data_cannot_be_compared() -> None:
    decision = judge(replace(evidence(0, 0.1), data_digest="other"), evidence(1))
    assert not decision.passes
    assert decision.reason == "other_data"
    assert "version 1" in decision.figure


def test_other_molecules_cannot_be_compared() -> None:
    champion = evidence(1)
    for candidate in (replace(evidence(0, 0.1), split_seed="7"), evidence(0, 0.1, n=400)):
        decision = judge(candidate, champion)
        assert not decision.passes
        assert decision.reason == "other_split"


def test_figure_names_both_scores() -> None:
    candidate, champion = evidence(0, 0.5), evidence(1)
    figure = judge(candidate, champion).figure
    assert f"{mean_normalised(candidate.errors, SCALE):.5f}" in figure
    assert f"{mean_normalised(champion.errors, SCALE):.5f} of version 1" in figure
    assert "95% upper bound" in figure


def from_smiles(item: Evidence, seed: int, factor: float = 1.0) -> Evidence:
    """The same version with a network for conformers; some molecules have none."""
    errors = evidence(seed + 1000, factor * 5).errors
    errors[::7] = np.nan
    return replace(item, elsewhere={"smiles": errors})


def test_a_network_more_is_better() -> None:
    base = evidence(1)
    decision = judge(from_smiles(base, 1), base)
    assert decision.passes
    assert "a network where version 1 has none" in decision.figure
    assert not judge(from_smiles(evidence(2, 3.0), 1), base).passes


def test_a_network_less_is_refused_with_what_to_do() -> None:
    decision = judge(replace(evidence(2, 0.1), label="version 7"), from_smiles(evidence(1), 1))
    assert not decision.passes
    assert decision.reason == "lacks_network"
    assert "qm9flow train --geometry approximate --start-from 7 --register" in decision.figure
    assert "qm9flow promote 7 --force" in decision.figure


@pytest.mark.parametrize(("factor", "passes"), [(0.5, True), (1.0, False), (2.0, False)])
def test_with_the_champions_own_other_networks_its_own_one_decides(
    factor: float, passes: bool
) -> None:
    champion = from_smiles(evidence(1), 1)
    champion = replace(
        champion, elsewhere={**champion.elsewhere, "approximate": champion.elsewhere["smiles"] / 2}
    )
    candidate = replace(evidence(1, factor), elsewhere=champion.elsewhere)
    decision = judge(candidate, champion)
    assert decision.passes == passes
    assert decision.figure.endswith("; from approximate and smiles: the same as version 1")
    assert decision.figure.count("validation score") == 1


@pytest.mark.parametrize(
    ("own", "other", "passes"),
    [(0.5, 1.0, True), (1.0, 0.5, True), (1.0, 1.0, False), (0.5, 2.0, False), (2.0, 0.5, False)],
)
def test_better_in_one_source_and_worse_in_none(own: float, other: float, passes: bool) -> None:
    champion = from_smiles(evidence(1), 1)
    candidate = from_smiles(evidence(1, own), 1, other)
    decision = judge(candidate, champion)
    assert decision.passes == passes
    said = "the same as version 1" if other == 1.0 else "validation score"
    assert f"from smiles: {said}" in decision.figure


def test_molecules_that_calibrate_have_no_say() -> None:
    champion = evidence(1, n=6000)
    better = champion.errors.copy()
    better[5000:] = 0
    assert not judge(replace(champion, errors=better), champion).passes

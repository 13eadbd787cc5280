"""The gate to `champion`: better on validation molecules, beyond chance, with parity held.

The figure is the mean over the learned targets of |error| / training standard deviation, on
validation molecules that neither model has trained on and that calibrate no interval. Where the
champion also has networks for other geometries than DFT's, the candidate must have them, too, its
own or the champion's; it must be better in one of the sources, and worse in none. Test molecules
play no part.

Source: paired percentile bootstrap, B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap
(1993), chapters 8 and 13.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from qm9flow.config import CHOICE_MOLECULES

PARITY_LIMIT = 1e-3
"""Largest difference of the exported graph from the network, in chemical accuracies."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CHUNK = 200

Reason = Literal[
    "first",
    "better",
    "not_better",
    "champion",
    "parity",
    "evidence",
    "other_data",
    "other_split",
    "lacks_network",
    "noted",
]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gate knows of a version.

    Attributes:
        label: What to call it in messages.
        data_digest: Of the data it was trained on.
        split_seed: Seed of the permutation that its split cut.
        parity: Largest difference of the exported graph from the network, in chemical
            accuracies.
        errors: (n_molecules, n_targets) float32, |error| in the targets' units, of the learned
            targets on `standard`'s validation molecules, in the split's order.
        scale: (n_targets,), training standard deviations of the objective, in the targets'
            units.
        elsewhere: By the source of other geometries than DFT's that the version has a network
            for: errors as above from those, NaN for molecules that have none.
    """

    label: str
    data_digest: str
    split_seed: str
    parity: float
    errors: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float64]
    elsewhere: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        passes: Whether the candidate may become champion.
        reason: By which rule, machine-readable.
        figure: By which figure, for people.
        difference: Candidate's mean normalised error minus the champion's; None where they were
            not compared.
        upper_bound: 95% upper bound of that difference; must lie below 0 to pass.
    """

    passes: bool
    reason: Reason
    figure: str
    difference: float | None = None
    upper_bound: float | None = None


def per_molecule(
    errors: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Mean normalised error of each molecule.

    Args:
        errors: (n_molecules, n_targets), |error| in the targets' units.
        scale: (n_targets,), in the targets' units.

    Returns:
        (n_molecules,), dimensionless.
    """
    return np.asarray((errors.astype(np.float64) / scale).mean(axis=1), dtype=np.float64)


def mean_normalised(errors: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]) -> float:
    """The score of a version: mean over the targets of MAE / training standard deviation.

    Args:
        errors: (n_molecules, n_targets), |error| in the targets' units.
        scale: (n_targets,), in the targets' units.

    Returns:
        Dimensionless; lower is better.
    """
    return float(per_molecule(errors, scale).mean())


def upper_bound(differences: npt.NDArray[np.float64], seed: int = 0) -> float:
    """One-sided bootstrap bound of a mean.

    Args:
        differences: (n_molecules,), paired differences.
        seed: Of the resampling.

    Returns:
        The value that `CONFIDENCE` of the resampled means lie at or below.
    """
    n = len(differences)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for first in range(0, RESAMPLES, _CHUNK):
        drawn = rng.integers(n, size=(_CHUNK, n), dtype=np.uint32)
        means[first : first + _CHUNK] = differences[drawn].mean(axis=1)
    return float(np.quantile(means, CONFIDENCE))


def judge(candidate: Evidence, champion: Evidence | None, seed: int = 0) -> Decision:
    """Decide whether a version may become champion.

    Args:
        candidate: The version in question.
        champion: The champion, None if there is none yet.
        seed: Of the resampling.

    Returns:
        The decision, with the figure that it rests on.
    """
    refusal = _refuse_alone(candidate) or (_refuse_pair(candidate, champion) if champion else None)
    if refusal is not None:
        return refusal
    if champion is None:
        score = mean_normalised(candidate.errors[:CHOICE_MOLECULES], candidate.scale)
        return Decision(True, "first", f"no champion yet; validation score {score:.5f}")
    own = _compared("", candidate.errors, champion, champion.errors, seed)
    same = sorted(
        name
        for name, errors in champion.elsewhere.items()
        if np.array_equal(candidate.elsewhere[name], errors, equal_nan=True)
    )
    others = [
        _compared(f"from {name}: ", candidate.elsewhere[name], champion, errors, seed)
        for name, errors in champion.elsewhere.items()
        if name not in same
    ]
    added = sorted(candidate.elsewhere.keys() - champion.elsewhere.keys())
    all_of_them = [own, *others]
    is_better = any(item.is_better for item in all_of_them) or bool(added)
    passes = is_better and not any(item.is_worse for item in all_of_them)
    figures = [item.figure for item in all_of_them]
    figures += [f"from {' and '.join(same)}: the same as {champion.label}"] if same else []
    figures += [f"from {name}: a network where {champion.label} has none" for name in added]
    return Decision(
        passes,
        "better" if passes else "not_better",
        "; ".join(figures),
        own.difference,
        own.upper_bound,
    )


@dataclass(frozen=True)
class _Compared:
    """Two versions on the same geometries.

    Attributes:
        difference: Candidate's mean normalised error minus the champion's.
        upper_bound: 95% upper bound of it.
        is_better: Below 0 beyond chance.
        is_worse: Above 0 beyond chance.
        figure: For people.
    """

    difference: float
    upper_bound: float
    is_better: bool
    is_worse: bool
    figure: str


def _compared(
    where: str,
    candidate: npt.NDArray[np.float32],
    champion: Evidence,
    errors: npt.NDArray[np.float32],
    seed: int,
) -> _Compared:
    # Those left calibrate intervals; and the champion's scale for both: two yardsticks would
    # compare training sets, not models.
    ours = per_molecule(candidate[:CHOICE_MOLECULES], champion.scale)
    theirs = per_molecule(errors[:CHOICE_MOLECULES], champion.scale)
    both = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = ours[both], theirs[both]
    difference = float((ours - theirs).mean())
    bound = upper_bound(ours - theirs, seed)
    is_better = bound < 0
    figure = (
        f"{where}validation score {ours.mean():.5f} against {theirs.mean():.5f} of "
        f"{champion.label}: difference {difference:+.5f}, 95% upper bound {bound:+.5f}, "
        f"{'below' if is_better else 'not below'} 0"
    )
    is_worse = -upper_bound(theirs - ours, seed) > 0
    return _Compared(difference, bound, is_better, is_worse, figure)


def _refuse_alone(candidate: Evidence) -> Decision | None:
    if not candidate.parity <= PARITY_LIMIT:  # also refuses NaN
        return Decision(
            False,
            "parity",
            f"the exported graph differs from the network by {candidate.parity:.3g} chemical "
            f"accuracies; at most {PARITY_LIMIT:g} is allowed",
        )
    if len(candidate.errors) == 0 or not np.isfinite(candidate.errors).all():
        return Decision(False, "evidence", "not every validation error is a finite number")
    return None


def _refuse_pair(candidate: Evidence, champion: Evidence) -> Decision | None:
    if candidate.data_digest != champion.data_digest:
        return Decision(
            False,
            "other_data",
            f"trained on data {candidate.data_digest[:12]}, {champion.label} on "
            f"{champion.data_digest[:12]}: their errors cannot be compared",
        )
    same = candidate.split_seed == champion.split_seed
    if not same or candidate.errors.shape != champion.errors.shape:
        return Decision(
            False,
            "other_split",
            f"judged on {len(candidate.errors)} molecules of split seed {candidate.split_seed}, "
            f"{champion.label} on {len(champion.errors)} of split seed {champion.split_seed}: "
            "the champion may have trained on them",
        )
    if lacking := sorted(champion.elsewhere.keys() - candidate.elsewhere.keys()):
        number = candidate.label.removeprefix("version ")
        return Decision(
            False,
            "lacks_network",
            f"{champion.label} has a network for geometries from {lacking[0]}, {candidate.label} "
            f"has none: `qm9flow train --geometry approximate --start-from {number} --register` "
            f"makes one, `qm9flow promote {number} --force` does without",
        )
    return None

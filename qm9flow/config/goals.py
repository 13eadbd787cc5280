"""What a balanced loss weighs targets by."""

from qm9flow.config.choices import GeometrySource, Weighting

GOALS = {
    "mu": 0.02,
    "alpha": 0.06,
    "homo": 0.017,
    "lumo": 0.0145,
    "r2": 0.25,
    "zpve": 0.0005,
    "u0": 0.022,
    "u": 0.022,
    "g": 0.022,
    "cv": 0.025,
}
"""Mean absolute errors, in the targets' units: in a balanced loss an error that large counts the
same whatever the target. Chosen by trial (`docs/models.md`): about what networks of the literature
reach on QM9 (SchNet, arXiv:1706.08566; PaiNN, arXiv:2102.03150), but 0.4 to two thirds of it for
orbital energies and ZPVE, which are hardest to bring to chemical accuracy, and several times it for
r2 and the three energies, of which each learns from the others. Only their ratios matter."""

GAP_GOAL = 0.018
"""The same of the difference LUMO - HOMO, which a balanced loss compares beside the two: it is no
output, but the two errors then lean the same way and part of them cancels (`docs/models.md`)."""


GOALS_APPROXIMATE = {
    "mu": 0.06,
    "alpha": 0.09,
    "homo": 0.03,
    "lumo": 0.026,
    "gap": 0.034,
    "r2": 2.5,
    "zpve": 0.0012,
    "u0": 0.035,
    "u": 0.035,
    "g": 0.035,
    "cv": 0.04,
}
"""The same for geometries that are not DFT's, which do not tell all: a goal far below what can be
known would let the noise of mu and r2, which depend on the geometry most, drown the rest."""


def balance(geometry: GeometrySource) -> dict[str, float]:
    """What a balanced loss weighs targets by.

    Args:
        geometry: What the network sees.

    Returns:
        By learned target, and `gap`, in their units.
    """
    return {**GOALS, "gap": GAP_GOAL} if geometry == "dft" else GOALS_APPROXIMATE


def goals_of(weighting: Weighting, geometry: GeometrySource = "dft") -> dict[str, float]:
    """What a loss of that weighting depends on beside a training's own options.

    Trainings are told apart by digests of their options. Goals are no option, so that digests take
    them too: what was begun with others is another training.

    Args:
        weighting: A training's.
        geometry: A training's.

    Returns:
        By target, and `gap`, in their units; nothing where errors are compared as they are.
    """
    return {} if weighting == "equal" else balance(geometry)

"""Intervals and the domain: what was measured on molecules that played no other part.

Split-conformal: an interval is a factor times the network's own spread to either side, and the
factor is the quantile of |error| / spread over calibration molecules that makes it hold for a new
molecule like them with the stated probability. Source: V. Vovk, A. Gammerman, G. Shafer,
Algorithmic Learning in a Random World (2005), chapter 4.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.errors import InferenceError
from qm9flow.properties import TARGETS

FORMAT = 1
FILE = "calibration.json"
LEVEL = 0.9
"""Of intervals, unless somebody says otherwise."""
STRANGE = 0.01
"""A molecule is outside the domain if a smaller share of molecules like QM9's lies as far out."""
SHARES = (*np.linspace(0.0, 0.99, 100).round(2).tolist(), 0.995, 0.998, 1.0)
"""Shares of calibration molecules whose distances are kept."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SourceCalibration:
    """What holds for geometries from one source.

    Attributes:
        molecules: Calibration molecules.
        factors: By target: half of an interval's width, in spreads.
        distances: Distances from the training molecules, those of `SHARES`.
        test_molecules: Test molecules that the next two were measured on; 0 for none.
        coverage: By target, share of test molecules whose value lies in its interval.
        width: By target, mean width of the intervals, in its unit.
    """

    molecules: int
    factors: dict[str, float]
    distances: tuple[float, ...]
    test_molecules: int = 0
    coverage: dict[str, float] = field(default_factory=dict)
    width: dict[str, float] = field(default_factory=dict)

    @property
    def usual(self) -> float:
        """The distance that all but `STRANGE` of molecules keep."""
        return self.distances[SHARES.index(1 - STRANGE)]

    def score(self, distance: float) -> float:
        """How ordinary a molecule is.

        Args:
            distance: From the training molecules.

        Returns:
            Share of molecules like QM9's that lie at least as far out.
        """
        return float(1.0 - np.interp(distance, self.distances, SHARES, left=0.0, right=1.0))


@dataclass(frozen=True)
class Calibration:
    """Of a model, by the source of the geometry.

    Attributes:
        level: Share of true values that lie inside their intervals.
        sources: What was calibrated.
    """

    level: float
    sources: dict[GeometrySource, SourceCalibration]

    def to_json(self) -> str:
        """As the text of `calibration.json`.

        Returns:
            What `from_json` reads.
        """
        sources = {name: asdict(item) for name, item in self.sources.items()}
        plain = {"format": FORMAT, "level": self.level, "sources": sources}
        return json.dumps(plain, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Calibration":
        """The calibration that `to_json` wrote.

        Args:
            text: Of `calibration.json`.
            where: Name of the file, for messages.

        Returns:
            The calibration.

        Raises:
            InferenceError: The text is no calibration, or of a newer format.
        """
        try:
            plain = json.loads(text)
            if plain["format"] != FORMAT:
                raise InferenceError(
                    f"{where} has format {plain['format']!r}, this version reads {FORMAT}: install "
                    "the version of qm9flow that wrote it"
                )
            sources = {name: _source(item) for name, item in plain["sources"].items()}
            level = float(plain["level"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InferenceError(
                f"{where} is no calibration ({error!r}): fetch or write the bundle again"
            ) from error
        if not 0 < level < 1 or sources.keys() - set(get_args(GeometrySource)):
            raise InferenceError(f"{where} holds a level or a source that there is not")
        return cls(level, sources)


def _source(plain: Mapping[str, Any]) -> SourceCalibration:
    item = SourceCalibration(**{**plain, "distances": tuple(map(float, plain["distances"]))})
    numbers = [*item.distances, *item.factors.values()]
    if len(item.distances) != len(SHARES) or not all(math.isfinite(x) and x >= 0 for x in numbers):
        raise ValueError("numbers that are not finite, or too few")
    if item.factors.keys() - set(TARGETS):
        raise KeyError(sorted(item.factors.keys() - set(TARGETS))[0])
    return item


def conformal_factor(ratios: Floats, level: float) -> float:
    """The factor that makes intervals hold.

    Args:
        ratios: (n,), |error| / spread of calibration molecules.
        level: Probability with which the interval of a new molecule holds, at least.

    Returns:
        The ceil((n + 1) level)-th smallest ratio; the largest where there are too few.
    """
    rank = min(math.ceil((len(ratios) + 1) * level), len(ratios))
    return float(np.partition(ratios, rank - 1)[rank - 1])

"""What a model is worth: all that one evaluation found, as plain values and as text."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset
from qm9flow.evaluation import breakdown, text_tables
from qm9flow.evaluation.baseline import linear_baseline
from qm9flow.evaluation.breakdown import GROUPINGS, Group, Residuals, Worst
from qm9flow.evaluation.coverage import CONFIDENCE, Coverage, Intervals, coverage
from qm9flow.evaluation.literature import NOTES, REPORTED, published
from qm9flow.evaluation.tables import ErrorTable, error_table
from qm9flow.properties import PROPERTIES, get

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Part = Literal["test", "validation"]
Rows = list[dict[str, Any]]

FORMAT = 1
"""Number of the form of `Assessment.as_dict`."""

WORST_TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "zpve", "u0_atom", "cv")
"""Targets whose worst molecules are shown where none are named."""

_IN_BRIEF = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "cv")
"""Columns of the tables by size and element: U, H and G go with U0."""


FROM: dict[GeometrySource, str] = {
    "dft": "",
    "approximate": ", from MMFF94's geometries",
    "smiles": ", from SMILES",
}
"""What the model is shown, in words."""

_SAME = 1e-3
"""Relative difference of two errors up to which a graph and its network say the same."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        label: What to call it in titles.
        version: Its number in the registry; None for a bundle's folder.
        alias: The alias it was asked for by, or one that points at it.
        bundle: Its folder.
        architecture: Of its network.
        train_molecules: How many it was trained on.
        split: The split that it was trained on.
        recorded: By part, errors on `standard` that were recorded when it was made, by target in
            its unit; may be empty.
    """

    label: str
    version: int | None
    alias: str | None
    bundle: str
    architecture: str
    train_molecules: int
    split: Split
    recorded: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = {name: getattr(self, name) for name in ("label", "version", "alias", "bundle")}
        return plain | {
            "architecture": self.architecture,
            "train_molecules": self.train_molecules,
            "split": self.split.name,
            "split_seed": self.split.seed,
        }


@dataclass(frozen=True, eq=False)
class Shown:
    """What a model was shown.

    Attributes:
        geometry: Source of the geometries.
        indices: (n,), places in the dataset of the molecules that have such a geometry.
        asked: How many were asked for: the first ones of a part.
    """

    geometry: GeometrySource
    indices: Indices
    asked: int


@dataclass(frozen=True, eq=False)
class Assessment:
    """What one evaluation found.

    Attributes:
        subject: What was evaluated.
        part: `test` or `validation`.
        indices: (n,), places in the dataset of the molecules: that part of the model's own split,
            or its first ones.
        is_limited: Whether they are only the first ones.
        geometry: What the model is shown.
        left_out: Molecules that have no such geometry.
        predicted: (n, 19), in the order of `properties.TARGETS` and in their units.
        truth: (n, 19).
        own: Errors on all of them.
        standard: Errors on those that are in the same part of the split `standard`.
        residuals: How the errors on all of them spread, one entry a target.
        groups: Errors by `heavy_atoms`, `atoms` and `element`.
        worst: By target, the molecules with the largest errors.
        coverage: How intervals hold; None where the model has none.
    """

    subject: Subject
    part: Part
    indices: Indices
    is_limited: bool
    geometry: GeometrySource
    left_out: int
    predicted: Floats
    truth: Floats
    own: ErrorTable
    standard: ErrorTable
    residuals: tuple[Residuals, ...]
    groups: dict[str, tuple[Group, ...]]
    worst: dict[str, tuple[Worst, ...]]
    coverage: Coverage | None

    @property
    def title(self) -> str:
        """What was evaluated on what, in a line."""
        first = "the first " if self.is_limited else ""
        return (
            f"{self.subject.label} on {first}{self.own.molecules:,} {self.part} molecules "
            f"of its split `{self.subject.split.name}`{FROM[self.geometry]}"
        )

    def as_dict(self) -> dict[str, Any]:
        """All figures as JSON values.

        Returns:
            `format`, `model`, `part`, `is_limited`, `own` and `standard` (as `ErrorTable.as_dict`),
            `differences`, `residuals` by target, `literature` with `note` and `networks`,
            `groups` by kind, `worst` by target, `geometry`, `left_out`, and `coverage`, which may
            be None.
        """
        networks = [
            {
                "name": item.name,
                "year": item.year,
                "paper": item.paper,
                "mae": {target: item.mae(target) for target in REPORTED},
            }
            for item in published(self.geometry)
        ]
        return {
            "format": FORMAT,
            "model": self.subject.as_dict(),
            "part": self.part,
            "is_limited": self.is_limited,
            "geometry": self.geometry,
            "left_out": self.left_out,
            "own": {"split": self.subject.split.name, **self.own.as_dict()},
            "standard": {"split": "standard", **self.standard.as_dict()},
            "differences": self.differences(),
            "residuals": {item.target: asdict(item) for item in self.residuals},
            "literature": {"note": self.literature_note(), "networks": networks},
            "groups": {
                kind: [asdict(group) for group in groups] for kind, groups in self.groups.items()
            },
            "worst": {
                target: [{**asdict(item), "error": item.error} for item in found]
                for target, found in self.worst.items()
            },
            "coverage": None if self.coverage is None else asdict(self.coverage),
        }

    def differences(self) -> dict[str, float]:
        """How far the errors on `standard` are from those recorded when the model was made.

        Returns:
            By target of the literature, difference / recorded error; none of a limited part, or
            where nothing was recorded.
        """
        recorded = {} if self.is_limited else self.subject.recorded.get(self.part, {})
        return {
            target: self.standard.row(target).mae / recorded[target] - 1
            for target in REPORTED
            if recorded.get(target)
        }

    def metrics(self) -> dict[str, float]:
        """The errors as metrics of a run.

        Returns:
            `evaluate/<part>/<target>/mae` on the model's own split, and
            `evaluate/standard_<part>/<target>/mae`; from other geometries than DFT's with their
            source before the part.
        """
        source = "" if self.geometry == "dft" else f"{self.geometry}/"
        return {
            f"evaluate/{source}{prefix}{self.part}/{row.target}/mae": row.mae
            for prefix, table in (("", self.own), ("standard_", self.standard))
            for row in table.rows
        }

    def literature_note(self) -> str:
        """What to know before comparing with the literature."""
        subject = self.subject
        return (
            f"{NOTES[self.geometry]} {subject.label} learned its targets together, from "
            f"{subject.train_molecules:,} molecules; its errors here are those on "
            f"{self.standard.molecules:,} {self.part} molecules of `standard`."
        )

    def target_rows(self) -> Rows:
        """One row a target: errors, yardsticks, spread."""
        rows = []
        for item, own, spread in zip(PROPERTIES, self.own.rows, self.residuals, strict=True):
            row: dict[str, Any] = {"target": item.name, "unit": item.unit, "mae": own.mae}
            row |= {
                "mae_standard_error": spread.mae_standard_error,
                "mae_on_standard": self.standard.row(item.name).mae,
                "mae_of_linear_model": own.baseline_mae,
                "chemical_accuracy": own.chemical_accuracy,
                "mae_over_accuracy": own.mae_over_accuracy,
            }
            names = ("bias", "rmse", "median", "p95", "largest", "within_accuracy")
            rows.append(row | {name: getattr(spread, name) for name in names})
        return rows

    def literature_rows(self) -> Rows:
        """One row a target: this model on `standard`, then published networks."""
        return [
            {
                "target": target,
                "unit": get(target).unit,
                "chemical_accuracy": get(target).chemical_accuracy,
                "this": self.standard.row(target).mae,
                **{item.name: item.mae(target) for item in published(self.geometry)},
            }
            for target in REPORTED
        ]

    def coverage_rows(self) -> Rows:
        """One row a target that has intervals: share of true values inside, mean width."""
        if self.coverage is None:
            return []
        return [
            {
                "target": name,
                "unit": get(name).unit,
                "inside": self.coverage.inside[name],
                "mean_width": self.coverage.width[name],
            }
            for name in self.coverage.inside
        ]

    def group_coverage_rows(self, targets: Sequence[str] = REPORTED) -> Rows:
        """One row a group: its size and the share of true values inside, of some targets."""
        return [
            _group_head(kind, group) | {name: group.inside.get(name) for name in targets}
            for kind, groups in self.groups.items()
            for group in groups
            if group.inside
        ]

    def group_rows(self, targets: Sequence[str] = REPORTED) -> Rows:
        """One row a group: its size and the errors of some targets."""
        return [
            _group_head(kind, group)
            | {f"{name} [{get(name).unit}]": group.mae[name] for name in targets}
            for kind, groups in self.groups.items()
            for group in groups
        ]

    def worst_rows(self, how_many: int | None = None) -> Rows:
        """One row a molecule, target by target, the worst first."""
        return [
            {
                "target": target,
                "unit": get(target).unit,
                "rank": rank,
                "qm9_index": item.qm9_index,
                "smiles": item.smiles,
                "atoms": item.atoms,
                "predicted": item.predicted,
                "true": item.true,
                "error": item.error,
            }
            for target, found in self.worst.items()
            for rank, item in enumerate(found[:how_many], start=1)
        ]

    def _worst_in_words(self, how_many: int | None) -> Rows:
        """As `worst_rows`, with as many decimals as are of use, and indices without commas."""
        molecules = [item for found in self.worst.values() for item in found[:how_many]]
        return [
            row
            | {"qm9_index": str(item.qm9_index), "error": text_tables.number(item.error, 3)}
            | dict(zip(("predicted", "true"), item.texts(), strict=True))
            for row, item in zip(self.worst_rows(how_many), molecules, strict=True)
        ]

    def as_text(self) -> str:
        """All of it for a terminal, the worst molecule of each target only."""
        parts = [self.title, text_tables.aligned(self._main_rows()), self._pooled()]
        for title, rows, note in self._sections(1):
            parts += [title, text_tables.aligned(rows), *([note] if note else [])]
        return "\n\n".join(parts)

    def as_markdown(self) -> str:
        """All of it for a document."""
        parts = [f"# {self.title}", text_tables.markdown(self._main_rows()), self._pooled()]
        for title, rows, note in self._sections(None):
            parts += [f"## {title}", text_tables.markdown(rows), *([note] if note else [])]
        return "\n\n".join(parts) + "\n"

    def _main_rows(self) -> Rows:
        is_standard = self.subject.split.name == "standard"
        rows = []
        for row in self.target_rows():
            shown = {"target": row["target"], "unit": row["unit"], "MAE": row["mae"]}
            shown["+-"] = text_tables.number(row["mae_standard_error"], digits=2)
            if not is_standard:
                shown["on standard"] = row["mae_on_standard"]
            accuracy = row["chemical_accuracy"]
            shown |= {
                "linear": row["mae_of_linear_model"],
                "accuracy": f"{accuracy:g}" if accuracy else "-",
                "MAE/accuracy": row["mae_over_accuracy"],
                "bias": row["bias"],
                "95% below": row["p95"],
                "largest": row["largest"],
            }
            rows.append(shown)
        return rows

    def _pooled(self) -> str:
        standard = ""
        if self.left_out:
            standard = f"\n{text_tables.counted(self.left_out, 'molecule')} without such a geometry"
        if self.subject.split.name != "standard":
            standard += (
                f"\non standard: the {self.standard.molecules:,} {self.part} molecules of the "
                "split `standard` among them, the same for every model"
            )
        return (
            "linear: a linear model of the composition; accuracy: chemical accuracy; "
            f"bias: mean of predicted - true{standard}\n"
            f"RMSE pooled over 19 raw targets {text_tables.number(self.own.rmse_pooled)}, "
            f"without A {text_tables.number(self.own.rmse_pooled_without_a)}{self._compared()}"
        )

    def _compared(self) -> str:
        differences = self.differences()
        if not differences:
            return ""
        most = max(differences, key=lambda target: abs(differences[target]))
        if abs(differences[most]) < _SAME:
            return f"\nerrors on `standard` are those recorded when it was made, within {_SAME:.1%}"
        return (
            "\nWARNING: errors on `standard` are not those recorded when it was made: "
            f"{most} differs by {differences[most]:+.1%}"
        )

    def _sections(self, n_worst: int | None) -> list[tuple[str, Rows, str]]:
        """Title, rows and remark of the tables after the first."""
        of_groups = [_without(row, "by") for row in self.group_rows(_IN_BRIEF)]
        beside = [_as_listed(row) for row in self.literature_rows()]
        dull = ("rank",) if n_worst == 1 else ()
        worst = [_without(row, *dull) for row in self._worst_in_words(n_worst)]
        papers = ", ".join(f"{item.name} {item.paper}" for item in published(self.geometry))
        largest = "Largest errors" if n_worst is None else "Largest error of a target"
        note = f"{self.literature_note()}\n{papers}"
        return [
            ("Mean absolute errors beside the literature", beside, note),
            ("Mean absolute errors by size and element", of_groups, ""),
            *self._interval_sections(),
            (largest, worst, ""),
        ]

    def _interval_sections(self) -> list[tuple[str, Rows, str]]:
        held = self.coverage
        if held is None:
            return []
        low, high = held.band
        note = (
            f"inside: share of true values in their intervals. After calibration on "
            f"{held.calibration_molecules:,} molecules, the shares of all targets lie between "
            f"{low:.3f} and {high:.3f} with a probability of {CONFIDENCE:.0%}"
        )
        rows = [
            {
                "target": row["target"],
                "unit": row["unit"],
                "inside": f"{row['inside']:.3f}",
                "mean width": row["mean_width"],
            }
            for row in self.coverage_rows()
        ]
        of_groups = [
            {
                name: f"{value:.3f}" if isinstance(value, float) else value
                for name, value in _without(row, "by").items()
            }
            for row in self.group_coverage_rows(_IN_BRIEF)
        ]
        return [
            (f"Intervals at the level {held.level:g}", rows, note),
            ("Share of true values inside by size and element", of_groups, ""),
        ]


def _group_head(kind: str, group: Group) -> dict[str, Any]:
    return {"by": kind, "group": group.name, "molecules": group.molecules}


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def _as_listed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Published numbers with the digits that were published."""
    ours = ("target", "unit", "this")
    return {
        key: value if key in ours or value is None else f"{value:.4g}" for key, value in row.items()
    }


def assess(
    subject: Subject,
    dataset: Dataset,
    part: Part,
    predicted: Floats,
    *,
    shown: Shown | None = None,
    intervals: Intervals | None = None,
    targets: Sequence[str] = WORST_TARGETS,
    n_worst: int = 5,
) -> Assessment:
    """Measure predictions of a part of the model's own split, or of its first molecules.

    Args:
        subject: What predicted.
        dataset: All molecules.
        part: `test` or `validation`.
        predicted: (n, 19), in the order of `properties.TARGETS` and in their units.
        shown: Which molecules they are of; None means DFT's geometries of the part's first n.
        intervals: Of the same molecules.
        targets: Those whose worst molecules are sought.
        n_worst: Molecules a target.

    Returns:
        All that was found.

    Raises:
        ConfigError: There is no such target.
    """
    everything = getattr(subject.split, part)
    if shown is None:
        shown = Shown("dft", everything[: len(predicted)], asked=len(predicted))
    indices = shown.indices
    truth = dataset.truth()[indices]
    baseline = linear_baseline(dataset, subject.split, indices)
    standard = make_split("standard", len(dataset), subject.split.seed)
    shared = np.isin(indices, getattr(standard, part))
    counts = dataset.counts()[indices]
    errors = predicted - truth
    halves = None if intervals is None else intervals.half_widths
    return Assessment(
        subject=subject,
        part=part,
        indices=indices,
        is_limited=shown.asked < len(everything),
        geometry=shown.geometry,
        left_out=shown.asked - len(indices),
        predicted=predicted,
        truth=truth,
        own=error_table(predicted, truth, baseline),
        standard=error_table(predicted[shared], truth[shared], baseline[shared]),
        residuals=breakdown.residuals(predicted, truth),
        groups={kind: group(counts, errors, halves) for kind, group in GROUPINGS.items()},
        worst={
            name: breakdown.worst(dataset, indices, predicted, truth, target=name, how_many=n_worst)
            for name in targets
        },
        coverage=None if intervals is None else coverage(intervals, errors),
    )

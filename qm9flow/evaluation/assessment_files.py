"""An assessment as a folder: JSON, tables, pictures."""

import json
from pathlib import Path
from typing import Any

from qm9flow.data.store import Dataset
from qm9flow.evaluation.assessment import Assessment
from qm9flow.evaluation.assessment_drawings import draw_groups, draw_parity, draw_residuals
from qm9flow.evaluation.literature import REPORTED
from qm9flow.evaluation.worst_page import draw_worst
from qm9flow.properties import TARGETS, get
from qm9flow.tracking.tables import to_csv

JSON = "evaluation.json"

FOLDER = "evaluation"
"""Where evaluations are in a run, one folder a version and part."""


def place_of_version(version: int, part: str) -> str:
    """Where a version's assessment is kept in a run.

    Args:
        version: Its number.
        part: `test` or `validation`.

    Returns:
        A folder's path inside the run, e.g. `evaluation/version_3/test`.
    """
    return f"{FOLDER}/version_{version}/{part}"


def place_in_run(assessment: Assessment) -> str:
    """Where an assessment is kept in a run.

    Args:
        assessment: What was found.

    Returns:
        A folder's path inside the run, e.g. `evaluation/version_3/test`.
    """
    subject = assessment.subject
    # A quick look must not replace the whole.
    asked = len(assessment.indices) + assessment.left_out
    first = f"_first_{asked}" if assessment.is_limited else ""
    source = "" if assessment.geometry == "dft" else f"_from_{assessment.geometry}"
    part = f"{assessment.part}{source}{first}"
    if subject.version is not None:
        return place_of_version(subject.version, part)
    return f"{FOLDER}/{subject.alias or 'bundle'}/{part}"


def write_assessment(found: Assessment, dataset: Dataset, folder: Path) -> tuple[Path, ...]:
    """Write all of an assessment.

    Args:
        found: What was found.
        dataset: Where the molecules are.
        folder: Made if missing; files of an earlier assessment are replaced.

    Returns:
        `evaluation.json`, `evaluation.md`; `targets.csv`, `literature.csv`, `groups.csv`,
        `worst.csv` and `molecules.csv` (the signed error of every molecule); `coverage.csv` and
        `group_coverage.csv` where there are intervals; `parity.png`, `residuals.png`, `groups.png`
        and `worst.png`.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        JSON: json.dumps(found.as_dict(), indent=1, allow_nan=False) + "\n",
        "evaluation.md": found.as_markdown(),
        "targets.csv": to_csv(found.target_rows()),
        "literature.csv": to_csv(found.literature_rows()),
        "groups.csv": to_csv(found.group_rows()),
        "worst.csv": to_csv(found.worst_rows()),
        "molecules.csv": to_csv(_molecule_rows(found, dataset)),
    }
    if found.coverage is not None:
        texts["coverage.csv"] = to_csv(found.coverage_rows())
        texts["group_coverage.csv"] = to_csv(found.group_coverage_rows())
    files = []
    for name, text in texts.items():
        files.append(folder / name)
        files[-1].write_text(text, encoding="utf-8")
    figures = {
        "parity": draw_parity(found),
        "residuals": draw_residuals(found),
        "groups": draw_groups(found),
        "worst": draw_worst(found),
    }
    for name, figure in figures.items():
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120, metadata={"Software": None})
    return tuple(files)


def _molecule_rows(found: Assessment, dataset: Dataset) -> list[dict[str, Any]]:
    """One row a molecule: which it is, and predicted - true, to five digits."""
    columns = [(f"{name}_error [{get(name).unit}]", TARGETS.index(name)) for name in REPORTED]
    errors = found.predicted - found.truth
    sizes = dataset.sizes
    return [
        {
            "qm9_index": int(dataset.index[place]),
            "smiles": dataset.smiles(int(place)),
            "atoms": int(sizes[place]),
            **{title: f"{errors[row, column]:.5g}" for title, column in columns},
        }
        for row, place in enumerate(found.indices)
    ]

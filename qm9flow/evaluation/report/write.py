"""The report as files: one page and its pictures."""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.report.page import page
from qm9flow.evaluation.report.pictures import draw_pictures
from qm9flow.tracking.study import StudyTracker

FOLDER = "report"
"""Where the report is in the study's run."""

PAGE = "report.html"

_DOTS_PER_INCH = 130


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        page: The page.
        pictures: PNG files beside it.
        missing: Pictures that could not be drawn, and why.
    """

    page: Path
    pictures: tuple[Path, ...]
    missing: dict[str, str]


def write_report(facts: Facts, folder: Path) -> Report:
    """Write a study's report into a folder.

    Args:
        facts: The study.
        folder: Made if missing; files of an earlier report are replaced.

    Returns:
        What was written: `report.html`, and a PNG for each of `pictures.TITLES` that there is.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {name: _png(item) for name, item in draw_pictures(facts).items()}
    files = []
    for name, content in drawn.items():
        path = folder / f"{name}.png"
        if isinstance(content, str):
            path.unlink(missing_ok=True)  # of an earlier report
            continue
        path.write_bytes(content)
        files.append(path)
    place = folder / PAGE
    place.write_text(page(facts, drawn), encoding="utf-8")
    missing = {name: item for name, item in drawn.items() if isinstance(item, str)}
    return Report(place, tuple(files), missing)


def log_report(facts: Facts, tracker: StudyTracker) -> Report:
    """Write a study's report into its run.

    Args:
        facts: The study.
        tracker: Of the study.

    Returns:
        What was written; the files themselves are in the run.

    Raises:
        OSError: There is no room for the files on their way.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / FOLDER
        report = write_report(facts, folder)
        tracker.log_artifact(folder)
    return report


def _png(drawn: Figure | str) -> bytes | str:
    if isinstance(drawn, str):
        return drawn
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return content.getvalue()

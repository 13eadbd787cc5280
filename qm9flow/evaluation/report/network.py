"""The part of the page about the network that a study registered: errors and their pictures."""

from typing import Any

from qm9flow.evaluation.literature import LITERATURE, NOTE, REPORTED
from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.report.markup import (
    NOTHING,
    Cell,
    missing,
    picture,
    section,
    table,
    text,
)
from qm9flow.evaluation.report.registered import Registered
from qm9flow.evaluation.text_tables import counted, number
from qm9flow.properties import PROPERTIES, Property

_FIRST = ("parity", "groups")
"""Pictures that are seen at once; the others are a click away."""

_NOTES = {
    "parity": (
        "Predicted over true values; colour is the density of molecules. "
        "Totals are drawn as atomization energies.",
        900,
    ),
    "groups": ("Errors by size and element, in chemical accuracies; the dashed line is 1.", 900),
    "residuals": ("How absolute errors spread, in chemical accuracies.", 720),
    "worst": ("The molecules with the largest errors.", 800),
}


def network_section(facts: Facts) -> str:
    """What the study's network is worth.

    Args:
        facts: The study.

    Returns:
        Markup; it says what is missing where there is no network, or no errors.
    """
    made = facts.registered
    if made is None:
        return section("network", "The champion", "", missing(facts.why_no_version))
    what = "The champion" if made.is_champion else "The network of this study"
    title = f"{what}: version {made.version.number}"
    lead = _lead(facts, made)
    if not made.errors:
        return section("network", title, lead, missing(f"no test errors: {made.missing}"))
    pictures = {
        name: picture(made.pictures[name], note, min_width=width, note=note)
        for name, (note, width) in _NOTES.items()
        if name in made.pictures
    }
    rest = "".join(item for name, item in pictures.items() if name not in _FIRST)
    more = _details("How errors spread, and the worst molecules", rest) if rest else ""
    first = [item for name, item in pictures.items() if name in _FIRST]
    return section(
        "network", title, lead, _table(made), _note(made), "<h3>Where it errs</h3>", *first, more
    )


def _lead(facts: Facts, made: Registered) -> str:
    version, candidate = made.version, facts.candidate
    of_trial = f"settings of trial {candidate.number}, " if candidate else ""
    lead = (
        f"{of_trial[:1].upper()}{of_trial[1:]}trained to the end on the whole training split: "
        f"validation score <b>{version.score:.4f}</b>."
    )
    if made.rival is not None:
        lead += f" The champion is version {made.rival.number} with {made.rival.score:.4f}."
    if made.errors:
        targets = made.errors["standard"]["targets"]
        known = [name for name in REPORTED if targets[name]["mae_over_accuracy"] is not None]
        good = [name for name in known if targets[name]["mae_over_accuracy"] <= 1]
        lead += f" <b>{len(good)} of {len(known)}</b> targets are at chemical accuracy."
    return lead


def _details(title: str, markup: str) -> str:
    return f"<details><summary>{text(title)}</summary>{markup}</details>"


def _table(made: Registered) -> str:
    rival = made.rival_errors()
    head = [Cell("target"), Cell("this<br>network", True)]
    head.append(Cell("in chemical<br>accuracies", True))
    if rival and made.rival is not None:
        head.append(Cell(f"champion<br>version {made.rival.number}", True))
    head += [Cell("linear<br>baseline", True), Cell("chemical<br>accuracy", True)]
    papers = [Cell(f"{text(item.name)}<br>{item.year}", True) for item in LITERATURE]
    first = [item for item in PROPERTIES if item.name in REPORTED]
    rest = [item for item in PROPERTIES if item.name not in REPORTED]
    main = table([*head, *papers], [("", _row(made, item, rival, True)) for item in first], "dense")
    more = table(head, [("", _row(made, item, rival, False)) for item in rest])
    return main + _details("The seven targets that follow from these or from the geometry", more)


def _row(
    made: Registered, item: Property, rival: dict[str, float], with_papers: bool
) -> list[Cell]:
    own: dict[str, Any] = made.errors["standard"]["targets"][item.name]
    ratio = own["mae_over_accuracy"]
    unit = text(item.unit.replace("a0^3", "a₀³").replace("a0^2", "a₀²"))
    cells = [
        Cell(
            f'<b title="{text(item.description)}">{item.name}</b> <span class="far">{unit}</span>'
        ),
        Cell(number(own["mae"], 3), True, "ours"),
        Cell(_ratio(ratio), True),
    ]
    if rival:
        cells.append(Cell(number(rival.get(item.name), 3), True))
    accuracy = item.chemical_accuracy
    cells.append(Cell(number(own["baseline_mae"], 3), True))
    cells.append(Cell(NOTHING if accuracy is None else f"{accuracy:g}", True))
    if with_papers:
        errors = [paper.mae(item.name) for paper in LITERATURE]
        cells += [Cell(NOTHING if mae is None else f"{mae:.4g}", True, "far") for mae in errors]
    return cells


def _ratio(ratio: float | None) -> str:
    """How many chemical accuracies; a tick where it is one at most."""
    if ratio is None:
        return NOTHING
    if ratio <= 1:
        return f'<span class="good">✓ {number(ratio, 2)}&times;</span>'
    return f"{number(ratio, 2)}&times;"


def _note(made: Registered) -> str:
    standard = made.errors["standard"]
    molecules = counted(standard["molecules"], "test molecule")
    papers = "; ".join(f"{item.name}: {item.paper}" for item in LITERATURE)
    return (
        f'<p class="note">Mean absolute errors on {molecules} of the split '
        "<i>standard</i>, which no training and no choice has seen. Linear baseline: least squares "
        f"in the composition. {text(NOTE)} {text(papers)}.</p>"
    )

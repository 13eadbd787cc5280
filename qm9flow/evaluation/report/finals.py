"""The part of the page about trials that were trained further."""

from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.report.interactive import setting
from qm9flow.evaluation.report.markup import NOTHING, Cell, run_link, section, table, text
from qm9flow.evaluation.text_tables import counted
from qm9flow.tuning.selection import Final


def finals_section(facts: Facts) -> str:
    """How finalists did, round by round.

    Args:
        facts: The study.

    Returns:
        Markup; empty where no finals were held.
    """
    finals = facts.finals
    if not finals:
        return ""
    rounds = sorted({item.minutes for item in finals})
    scores = {(item.number, item.minutes): item for item in finals}
    numbers = sorted(dict.fromkeys(item.number for item in finals), key=lambda n: _rank(n, finals))
    names = [
        axis.name
        for axis in facts.parameters.axes
        if any(axis.name in facts.trials[number].params for number in numbers)
    ]
    head = [Cell("trial"), Cell("score in<br>the search", True)]
    head += [Cell(f"after<br>{minutes:g} min", True) for minutes in rounds]
    head += [Cell(text(name).replace("_", "_<wbr>"), True, "wrap") for name in names]
    rows = [_row(facts, number, rounds, scores, names) for number in numbers]
    head.append(Cell("MLflow run"))
    lead = (
        "A trial is short and favours small, fast networks. So "
        f"{counted(len(numbers), 'trial')} were trained further on the whole training split: the "
        "best that differ, and some of other architectures or numbers of layers, the first point "
        "of the space among them. The lowest score of the last round is chosen; scores in "
        "brackets are of trials that were stopped early."
    )
    return section("finals", "Finals", lead, table(head, rows))


def _row(
    facts: Facts,
    number: int,
    rounds: list[float],
    scores: dict[tuple[int, float], Final],
    names: list[str],
) -> tuple[str, list[Cell]]:
    trial = facts.trials[number]
    is_chosen = facts.candidate is not None and facts.candidate.number == number
    tag = '<span class="tag candidate">chosen</span>' if is_chosen else ""
    values = [trial.params.get(name) for name in names]
    run_id = _last(number, tuple(scores.values())).run_id
    return "chosen" if is_chosen else "", [
        Cell(f"{number}{tag}"),
        Cell(_search_score(trial.score, trial.state), True),
        *(Cell(_score(scores.get((number, minutes))), True, "ours") for minutes in rounds),
        *(Cell("" if value is None else text(setting(value)), True) for value in values),
        Cell(run_link(run_id, facts.run_url(run_id))),
    ]


def _rank(number: int, finals: tuple[Final, ...]) -> tuple[float, bool, float]:
    """Those that came furthest first, by their last score."""
    last = _last(number, finals)
    return -last.minutes, last.score is None, last.score or 0.0


def _last(number: int, finals: tuple[Final, ...]) -> Final:
    return max((item for item in finals if item.number == number), key=lambda item: item.minutes)


def _score(final: Final | None) -> str:
    if final is None:
        return NOTHING
    return "failed" if final.score is None else f"{final.score:.4f}"


def _search_score(score: float | None, state: str) -> str:
    if score is None:
        return NOTHING
    return f"{score:.4f}" if state == "complete" else f"({score:.4f})"

"""The parts of the page about the search, each with what it shows in words."""

from collections.abc import Mapping, Sequence

from qm9flow.evaluation.drawing import BLUE
from qm9flow.evaluation.fates import (
    COLOURS,
    count_endings,
    in_words,
    of_fate,
    scored,
)
from qm9flow.evaluation.health import failing_verdicts, health_maps, most_affected
from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.report.interactive import Plot
from qm9flow.evaluation.report.markup import (
    bars,
    fine,
    missing,
    picture,
    plot,
    section,
    text,
)
from qm9flow.evaluation.report.pictures import TITLES
from qm9flow.evaluation.survival_drawings import saved_share
from qm9flow.evaluation.text_tables import counted, percent

_IN_WORDS = 2
"""Verdicts that are spelt out, the most frequent ones."""

Pictures = Mapping[str, bytes | str]
"""PNG by name of `pictures.TITLES`, or why there is none."""

Plots = Mapping[str, Sequence[Plot]]


def search_sections(facts: Facts, pictures: Pictures, plots: Plots) -> list[str]:
    """The parts about the search.

    Args:
        facts: The study.
        pictures: What was drawn.
        plots: What can be pointed at.

    Returns:
        Markup of each, in order.
    """
    contents = {
        "history": (_history(facts), _plots("history", pictures, plots)),
        "importances": (_importance(facts), _importances(facts)),
        "parallel": (_parallel(plots), _plots("parallel", pictures, plots)),
        "slices": (_slices(facts), _plots("slices", pictures, plots, "grid")),
        "pareto": (_pareto(facts), _pareto_plots(pictures, plots)),
        "survival": (
            _survival(facts),
            _picture("survival", pictures, 640) + _endings(facts),
        ),
        "health": (_health(facts), _health_picture(facts, pictures)),
    }
    return [section(name, _TITLES[name], *parts) for name, parts in contents.items()]


_TITLES = {
    "history": "How the search went",
    "importances": "What matters",
    "parallel": "Settings of the completed trials",
    "slices": "Score over each parameter",
    "pareto": "Accurate, fast, well fitted: the Pareto front",
    "survival": "How far the trials came",
    "health": "Which hyperparameters make gradients fail?",
}


def _parallel(plots: Plots) -> str:
    if not plots["parallel"]:
        return ""
    return (
        "One line a trial, through its settings to its score; the best tenth is dark. Drag along "
        "an axis to keep the lines that pass there, click the axis to free it, drag its name to "
        "move it."
    )


def _plots(name: str, pictures: Pictures, plots: Plots, kind: str = "") -> str:
    """Interactive figures, or why there are none."""
    if not plots[name]:
        reason = pictures[name]
        return missing(reason if isinstance(reason, str) else "nothing to draw")
    return f'<div class="{kind}">{"".join(map(plot, plots[name]))}</div>'


def _pareto_plots(pictures: Pictures, plots: Plots) -> str:
    found = plots["pareto"]
    if not found:
        return _plots("pareto", pictures, plots)
    return f'<div class="pair">{"".join(map(plot, found[:2]))}</div>{"".join(map(plot, found[2:]))}'


def _picture(name: str, pictures: Pictures, min_width: int) -> str:
    content = pictures[name]
    if isinstance(content, str):
        return missing(content)
    return picture(content, TITLES[name], min_width=min_width)


def _health_picture(facts: Facts, pictures: Pictures) -> str:
    content = pictures["health"]
    if isinstance(content, str) and facts.ended and not failing_verdicts(facts.trials):
        return fine(content)
    return _picture("health", pictures, 760)


def _history(facts: Facts) -> str:
    complete = scored(facts.trials, "complete")
    if not complete:
        return ""
    first, best = complete[0], facts.best
    if best is None or best.number == first.number:
        return f"Trial {first.number} completed first, with a score of <b>{first.score:.4f}</b>."
    return (
        f"From a score of {first.score:.4f} (trial {first.number}, the first to complete) down to "
        f"<b>{best.score:.4f}</b> (trial {best.number}). The score is the mean over the ten "
        "learned targets of MAE / standard deviation; lower is better."
    )


def _importance(facts: Facts) -> str:
    shares = facts.parameters.importances
    if not shares:
        return ""
    name = max(shares, key=lambda key: shares[key])
    return (
        f"<b>{text(name)}</b> says most about whether a trial is among the best tenth of the "
        f"{facts.completed:,} completed ones: {shares[name]:.0%} of the importance (PED-ANOVA)."
    )


def _importances(facts: Facts) -> str:
    shares = facts.parameters.importances
    if not shares:
        return missing(facts.parameters.why_no_importances)
    top = max(shares.values()) or 1.0
    return bars((name, share / top, percent(share), BLUE) for name, share in shares.items())


def _slices(facts: Facts) -> str:
    if not scored(facts.trials, "complete"):
        return ""
    star = "the trial that was chosen" if facts.selection else "the best trial so far"
    return (
        "One point a trial: blue ones completed, the later the darker; grey ones were stopped "
        f"early and show their lowest score before. The star is {star}."
    )


def _pareto(facts: Facts) -> str:
    if not facts.front:
        return ""
    return (
        f"No other trial beats the <b>{counted(len(facts.front), 'trial')}</b> ringed in red in "
        "validation score, training loss and speed at once. Arrows point to the better side."
    )


def _survival(facts: Facts) -> str:
    if not facts.epochs:
        return ""
    rungs = " and ".join(map(str, facts.rungs))
    saved = saved_share(facts.trials, facts.study.config.max_epochs)
    many = "s" if len(facts.rungs) > 1 else ""
    rule = f"After epoch{many} {rungs} only the best third goes on. " if rungs else ""
    return f"{rule}Stopping trials early saved <b>{saved:.0%}</b> of all epochs."


def _endings(facts: Facts) -> str:
    counts = count_endings(facts.trials)
    if not counts:
        return ""
    top, total = max(counts.values()), sum(counts.values())
    rows = [
        (what, count / top, f"{count:,} ({percent(count / total)})", COLOURS[which])
        for (which, what), count in counts.items()
    ]
    return f"<h3>How {counted(total, 'trial')} ended</h3>{bars(rows)}"


def _health(facts: Facts) -> str:
    verdicts = failing_verdicts(facts.trials)
    if not verdicts:
        return ""
    maps = health_maps(facts.trials, facts.parameters.axes)
    found = []
    for verdict in verdicts[:_IN_WORDS]:
        most = most_affected(maps, verdict)
        if most is not None:
            name, column = most
            found.append(
                f"{text(verdict)} gradients are most frequent at <b>{text(name)} "
                f"{text(column.label)}</b> ({percent(column.share(verdict))} of "
                f"{counted(column.trials, 'trial')})"
            )
    words = "; ".join(found)
    how = (
        "Each column holds the trials with such values, n of them; its numbers are the shares "
        "whose gradients failed, pale where trials are few."
    )
    return f"{words[:1].upper()}{words[1:]}. {how}" if words else how


def failures(facts: Facts) -> str:
    """What failed trials said.

    Args:
        facts: The study.

    Returns:
        Markup; empty if none failed.
    """
    failed = of_fate(facts.trials, "failed")
    if not failed:
        return ""
    lines = "".join(
        f"<li>trial {trial.number}: {text(trial.message or in_words(trial.reason))}</li>"
        for trial in failed[:10]
    )
    more = f"<li>and {len(failed) - 10:,} more</li>" if len(failed) > 10 else ""
    return section("failures", "Failed trials", "", f'<ul class="todo">{lines}{more}</ul>')

"""The head of the page: what was studied, and its key figures."""

from qm9flow.evaluation.fates import COLOURS, by_reason, by_rung, of_fate
from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.report.markup import NOTHING, text
from qm9flow.evaluation.survival_drawings import saved_share
from qm9flow.evaluation.text_tables import counted

_STATUS = {
    "complete": "complete",
    "running": "running",
    "interrupted": "interrupted",
    "searched": "searched, not yet trained to the end",
}
_MILLION = 1e6
_LINE = "var(--line)"


def header(facts: Facts) -> str:
    """The band over everything.

    Args:
        facts: The study.

    Returns:
        Markup.
    """
    config = facts.study.config
    sizes = (
        f"search space <b>{text(config.preset)}</b>, sampler {text(config.sampler)}, seed "
        f"{config.seed}. A trial: {facts.train_size:,} training molecules, "
        f"{counted(config.max_epochs, 'epoch')} at most. {_stopping(facts)}"
    )
    when = ""
    if facts.study.started and facts.study.changed:
        first, last = (
            t.strftime("%Y-%m-%d %H:%M") for t in (facts.study.started, facts.study.changed)
        )
        when = f" Trials from <time>{first}</time> to <time>{last}</time>."
    return (
        '<header><div class="inner"><p class="kind">qm9flow study report</p>'
        f"<h1>{text(facts.study.name)}</h1>"
        f'<p><span class="pill {facts.status}">{_STATUS[facts.status]}</span> '
        f"{sizes[:1].upper()}{sizes[1:]}{when}</p></div></header>"
    )


def _stopping(facts: Facts) -> str:
    config = facts.study.config
    gradients = {
        "on": "Gradients that vanish, explode or die end it.",
        "observe": "Verdicts on gradients are noted, and end none.",
    }[config.gradient_stop]
    if not facts.rungs:
        return f"No halving. {gradients}"
    after = " and ".join(map(str, facts.rungs))
    grows = ", on a training set that grows threefold there" * (config.halving == "train_size")
    return f"Only the best third goes on after epoch {after}{grows}. {gradients}"


def tiles(facts: Facts) -> str:
    """The key figures.

    Args:
        facts: The study.

    Returns:
        Markup.
    """
    found = [
        _tile("Completed", *_completed(facts), COLOURS["complete"]),
        _tile("Behind at a rung", *_behind(facts), COLOURS["halving"]),
        _tile("Stopped by gradients", *_stopped(facts), COLOURS["gradients"]),
        _tile("Failed", *_failed(facts), COLOURS["failed"]),
        _tile("Time of all trials", *_time(facts), _LINE),
        _tile("Molecules trained", *_molecules(facts), _LINE),
        _tile("Best trial", *_best(facts), _LINE),
        _tile(*_network(facts), "var(--red)"),
    ]
    return f'<div class="inner"><div class="tiles">{"".join(found)}</div></div>'


def _tile(name: str, value: str, detail: str, colour: str) -> str:
    return (
        f'<div class="tile" style="--colour:{colour}"><div class="name">{text(name)}</div>'
        f'<div class="value">{value}</div><div class="detail">{text(detail)}</div></div>'
    )


def _completed(facts: Facts) -> tuple[str, str]:
    total = facts.total
    running = sum(not trial.has_ended for trial in facts.trials)
    more = f", {running} at work" if running and facts.status == "running" else ""
    if facts.ended == total:
        return f"{facts.completed:,}", f"of {total:,} trials"
    return (
        f"{facts.completed:,}",
        f"of {facts.ended:,} trials that ended; {total:,} asked for{more}",
    )


def _behind(facts: Facts) -> tuple[str, str]:
    rungs = by_rung(facts.trials)
    parts = [f"{count:,} at rung {epoch}" for epoch, count in rungs.items()]
    saved = saved_share(facts.trials, facts.study.config.max_epochs)
    if facts.ended:
        parts.append(f"early stops saved {saved:.0%} of the epochs")
    return f"{sum(rungs.values()):,}", "; ".join(parts) or "no trial has ended"


def _stopped(facts: Facts) -> tuple[str, str]:
    reasons = by_reason(facts.trials, "gradients")
    words = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"{sum(reasons.values()):,}", words or "none vanished, exploded or died"


def _failed(facts: Facts) -> tuple[str, str]:
    count = len(of_fate(facts.trials, "failed"))
    reasons = by_reason(facts.trials, "failed")
    words = ", ".join(f"{many:,} {reason}" for reason, many in reasons.items())
    return f"{count:,}", words or "no crash, no lack of memory"


def _time(facts: Facts) -> tuple[str, str]:
    detail = f"{plain_duration(facts.hours)} from first to last"
    if facts.finals:
        minutes = sum(item.minutes for item in facts.finals)
        detail += f"; finals, at most {plain_duration(minutes / 60)}, not counted"
    return duration(facts.trial_hours), detail


def duration(hours: float) -> str:
    """A time as a large figure.

    Args:
        hours: The time.

    Returns:
        Markup, in hours, or in minutes below one.
    """
    number, unit = plain_duration(hours).split()
    return f"{number} <small>{unit}</small>"


def plain_duration(hours: float) -> str:
    """A time in words.

    Args:
        hours: The time.

    Returns:
        In hours, or in minutes below one.
    """
    if hours >= 1:
        return f"{hours:,.1f} h" if hours < 100 else f"{hours:,.0f} h"
    return f"{60 * hours:.1f} min" if hours < 1 / 6 else f"{60 * hours:.0f} min"


def _molecules(facts: Facts) -> tuple[str, str]:
    molecules = facts.molecules
    large = molecules >= _MILLION
    value = f"{molecules / _MILLION:,.3g} <small>million</small>" if large else f"{molecules:,}"
    most = "up to " if facts.study.config.halving == "train_size" else ""
    return value, f"{facts.epochs:,} epochs of {most}{facts.train_size:,}"


def _best(facts: Facts) -> tuple[str, str]:
    best = facts.best
    if best is None or best.score is None:
        return NOTHING, "no trial has completed"
    detail = f"validation score of trial {best.number}, lower is better"
    if facts.selection is None:
        return f"{best.score:.4f}", detail
    chosen = facts.selection.candidate.number
    if facts.finals:
        detail = f"validation score of trial {best.number}; finals chose trial {chosen}"
    elif chosen != best.number:
        detail = f"validation score of trial {best.number}; chosen: trial {chosen}, tied and faster"
    return f"{best.score:.4f} <small>± {facts.selection.standard_error:.4f}</small>", detail


def _network(facts: Facts) -> tuple[str, str, str]:
    made = facts.registered
    if made is None:
        return "Champion", NOTHING, "no network of this study is registered yet"
    version = made.version
    role = ", ".join(version.aliases) or "registered"
    name = "Champion" if made.is_champion else "Network of this study"
    detail = f"validation score {version.score:.4f} after the final training"
    if made.rival is not None:
        detail += f"; champion is version {made.rival.number} with {made.rival.score:.4f}"
    return name, f"version {version.number} <small>{text(role)}</small>", detail

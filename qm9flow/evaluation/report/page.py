"""The page: all parts in one file that needs no network."""

from importlib.resources import files

from plotly.offline import get_plotlyjs

import qm9flow
from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.report.finals import finals_section
from qm9flow.evaluation.report.header import header, tiles
from qm9flow.evaluation.report.interactive import describe, plots
from qm9flow.evaluation.report.markup import json_script, text
from qm9flow.evaluation.report.network import network_section
from qm9flow.evaluation.report.ranking import ranking_section
from qm9flow.evaluation.report.sections import Pictures, failures, search_sections

_LINKS = {
    "history": "History",
    "importances": "Importances",
    "parallel": "Settings",
    "slices": "Slices",
    "pareto": "Pareto front",
    "survival": "Rungs",
    "health": "Gradients",
    "leaderboard": "Leaderboard",
    "finals": "Finals",
    "network": "Champion",
}


def page(facts: Facts, pictures: Pictures) -> str:
    """A study's page.

    Args:
        facts: The study.
        pictures: What was drawn of it.

    Returns:
        HTML that refers to nothing outside, but for links to MLflow's server if there is one.
    """
    drawn = plots(facts)
    parts = search_sections(facts, pictures, drawn)
    finals = finals_section(facts)
    parts += [ranking_section(facts), finals, network_section(facts), failures(facts)]
    links = "".join(
        f'<a href="#{name}">{title}</a>'
        for name, title in _LINKS.items()
        if finals or name != "finals"
    )
    has_plots = any(drawn.values())
    scripts = ""
    if has_plots:
        scripts = (
            f"<script>{get_plotlyjs()}</script>\n{json_script(describe(facts.trials), 'trials')}\n"
            f"<script>{_asset('page.js')}</script>"
        )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(facts.study.name)}: qm9flow study report</title>
<link rel="icon" href="data:,">
<style>
{_asset("page.css")}
</style>
</head>
<body>
{header(facts)}
{tiles(facts)}
<nav><div class="inner">{links}</div></nav>
<main class="inner">
<noscript><p class="missing">Some figures need JavaScript; the PNG files beside this page show the
same.</p></noscript>
{chr(10).join(part for part in parts if part)}
</main>
<footer><div class="inner">{_footer(facts)}</div></footer>
{scripts}
</body>
</html>
"""


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _footer(facts: Facts) -> str:
    run_id = facts.study.parent_run_id
    url = facts.run_url(run_id)
    run = ""
    if run_id is not None:
        shown = f"<code>{text(run_id)}</code>"
        run = f' Run in MLflow: <a href="{text(url)}">{shown}</a>.' if url else f" Run: {shown}."
    return f"Made by qm9flow {text(qm9flow.__version__)}, <code>qm9flow report</code>.{run}"

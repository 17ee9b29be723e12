"""A report's charts: those of the grid's figures that speak of single runs, in light and in dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from opcod.callbacks.collapse_watch import WATCHED
from opcod.collection import Row, logged_figures, rate_rows
from opcod.report import figures
from opcod.report.runs import Run

INK = {"light": "#1a1a1a", "dark": "#e6e6e6"}
"""Of lines and letters."""


@dataclass(frozen=True)
class Chart:
    """A chart in a report.

    Args:
        title: What it shows.
        reading: How it is read, in a sentence.
        light: SVG, as a data URI.
        dark: The same on a dark ground.
    """

    title: str
    reading: str
    light: str
    dark: str


def charts(runs: Sequence[Run]) -> list[Chart]:
    """All charts for which the runs hold something."""
    drawn = []
    for title, reading, make in CHARTS:
        sides = {side: _drawn(make, runs, ink) for side, ink in INK.items()}
        if sides["light"] is not None and sides["dark"] is not None:
            drawn.append(Chart(title, reading, sides["light"], sides["dark"]))
    return drawn


def _drawn(make: Callable[[Sequence[Run]], Figure | None], runs: Sequence[Run], ink: str) -> str | None:
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    style: Any = {**figures.STYLE, **dict.fromkeys(inked, ink)}
    with rc_context(style):
        if (figure := make(runs)) is None:
            return None
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def logged(runs: Sequence[Run], per: str) -> pd.DataFrame:
    """What the runs logged per `round` or `step`, one row a figure; a run stands where a grid has its method."""
    rows: list[Row] = [
        {"method": run.name, "seed": 0, per: place, "name": name, "value": value}
        for run in runs
        for row in (run.validations if per == "round" else run.steps)
        for name, place, value in logged_figures(row, per)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", per, "name", "value"])


def _trajectories(runs: Sequence[Run]) -> Figure | None:
    rounds = logged(runs, "round")
    scored = rounds["name"].str.extract(r"^validation/[^/]+/([^/]+)/avg$")[0].dropna()
    return figures.trajectories(rounds) if scored.nunique() > 1 else None


def _gaps(runs: Sequence[Run]) -> Figure | None:
    taus = {run.tau for run in runs if run.tau is not None}
    return figures.gate_gaps(logged(runs, "round"), taus)


def _outcomes(runs: Sequence[Run]) -> Figure | None:
    return figures.outcomes(logged(runs, "round"))


def _seconds(runs: Sequence[Run]) -> Figure | None:
    steps = logged(runs, "step")
    return figures.seconds(steps) if steps["name"].str.startswith("seconds/").any() else None


def _health(runs: Sequence[Run]) -> Figure | None:
    return figures.health(logged(runs, "step"), WATCHED)


def _broken(runs: Sequence[Run]) -> Figure | None:
    rates = [row for run in runs for row in rate_rows(run.diagnosis)]
    return figures.broken(pd.DataFrame(rates).astype({"break": float, "rescue": float})) if rates else None


CHARTS: list[tuple[str, str, Callable[[Sequence[Run]], Figure | None]]] = [
    (
        "Ways through the domains",
        "Each student's validation scores before the first round and after each; the large dot is the end.",
        _trajectories,
    ),
    (
        "Gaps and the gate",
        "A student may tutor in a round while its gap, measured before it, is at most tau, the dashed line.",
        _gaps,
    ),
    ("What became of the feedback", "Only feedback that matches a concept of the question is kept.", _outcomes),
    (
        "Health",
        "What tells of a collapse before the scores do: each figure should stay near what it began with.",
        _health,
    ),
    ("Where the time goes", "Mean seconds of a step, with the tutor's feedback and without.", _seconds),
    (
        "What feedback breaks and rescues",
        "Shares of right responses that feedback turns wrong, and of wrong ones that it turns right.",
        _broken,
    ),
]
"""Title, how to read it, and what draws it."""

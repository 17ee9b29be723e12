"""The paper's figures from a grid's CSV files, as SVG and PNG, in colours that the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, cycle
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's (2008)."""
STYLE: Any = {
    "svg.hashsalt": "opcod",  # the same file for the same figures
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}
_ABREAST = 4  # small pictures in a row
PUBLISHED_BREAK_RATES = {
    "all": (2.77, 6.53),
    "easiest": (1.13, 4.75),
    "easy": (2.35, 5.54),
    "hard": (5.42, 13.73),
    "hardest": (13.79, 21.88),
}
"""Difficulty -> per cent with a cognizant and with an incognizant tutor (arXiv 2606.14368)."""


def draw(folder: Path, output: Path) -> list[Path]:
    """Draw every figure whose data there is.

    Args:
        folder: Of a grid, with its CSV files.
        output: Where the pictures go.

    Returns:
        The files written.

    Raises:
        ValueError: If `folder` has no scores.
    """
    refusal = ValueError(f"{folder} has no scores.csv of a grid: give the folder that `opcod reproduce` wrote")
    if not (folder / "scores.csv").is_file():
        raise refusal
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv") if path.stat().st_size > 1}
    if "pair" not in tables.get("scores", ()):
        raise refusal
    output.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, (needs, make) in FIGURES.items():
            if not tables.keys() >= set(needs):
                continue
            for pair in tables[needs[0]]["pair"].unique():
                if (figure := make(*(tables[n][tables[n]["pair"] == pair] for n in needs))) is not None:
                    written += _save(figure, output / f"{pair}-{name}")
    return written


def _save(figure: Figure, path: Path) -> list[Path]:
    files = [path.with_name(f"{path.name}.svg"), path.with_name(f"{path.name}.png")]
    figure.savefig(files[0], metadata={"Date": None})
    figure.savefig(files[1], dpi=150)
    return files


def _subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **settings: Any) -> tuple[Figure, Any]:
    """As pyplot's, which would have a say in where the caller's own pictures go."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **settings)


def gains(scores: pd.DataFrame) -> Figure:
    """Every student's score on every domain, before and after, method by method; small dots are single seeds."""
    methods = list(scores["method"].unique())
    columns = list(scores.groupby(["student", "domain"], sort=False).groups)
    figure, axes = _subplots(
        1, len(columns), sharex=True, sharey=True, squeeze=False, figsize=(2.6 * len(columns), 0.8 + 0.4 * len(methods))
    )
    for axis, (student, domain) in zip(axes[0], columns, strict=True):
        here = scores[(scores["student"] == student) & (scores["domain"] == domain)]
        for place, method in enumerate(methods):
            colour = COLOURS[place % len(COLOURS)]
            ends = {end: 100 * rows["avg"] for end, rows in here[here["method"] == method].groupby("end")}
            before, after = ends["initial"].mean(), ends["final"].mean()
            axis.plot([before, after], [place, place], color=colour, linewidth=2)
            axis.plot(before, place, "o", color="white", markeredgecolor=colour, markersize=7)
            axis.plot(after, place, "o", color=colour, markersize=7)
            axis.plot(ends["final"], [place + 0.22] * len(ends["final"]), ".", color=colour, markersize=4)
        axis.set_title(f"{student}\non {domain}", fontsize=9)
        axis.set_xlabel("avg@k, %")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(methods)), methods)
    axes[0][0].invert_yaxis()
    return figure


def trajectories(rounds: pd.DataFrame) -> Figure:
    """Each student's way through the plane of every two domains, round by round, on validation; mean over seeds."""
    split = rounds["name"].str.extract(r"^validation/(?P<student>[^/]+)/(?P<domain>[^/]+)/avg$")
    scored = rounds.join(split).dropna(subset=["student"])
    methods, students = list(scored["method"].unique()), list(scored["student"].unique())
    planes = list(combinations(scored["domain"].unique(), 2))
    size = (3.6 * len(students), 3.4 * len(planes))
    figure, axes = _subplots(len(planes), len(students), squeeze=False, sharex=True, sharey=True, figsize=size)
    for row, (first, second) in zip(axes, planes, strict=True):
        for axis, student in zip(row, students, strict=True):
            for place, method in enumerate(methods):
                here = scored[(scored["student"] == student) & (scored["method"] == method)]
                table = here.pivot_table(index="round", columns="domain", values="value", aggfunc="mean")
                way = 100 * table.reindex(columns=[first, second])  # runs may differ in students and domains
                colour = COLOURS[place % len(COLOURS)]
                axis.plot(way[first], way[second], "-o", color=colour, markersize=4, label=method)
                axis.plot(way[first].iloc[-1:], way[second].iloc[-1:], "o", color=colour, markersize=8)
            axis.set_title(student, fontsize=9)
            axis.set_xlabel(f"{first}, avg@k, %")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{second}, avg@k, %")
    axes[0][-1].legend(fontsize=7, frameon=False)
    return figure


def gate_gaps(rounds: pd.DataFrame, taus: Iterable[float]) -> Figure | None:
    """Each student's gap before every round and at the end, run by run, and the gate's threshold."""
    split = rounds["name"].str.extract(r"^gate/(?P<student>[^/]+)/gap$")
    gaps = rounds.join(split).dropna(subset=["student"])
    if gaps.empty:
        return None
    figure, axis = _subplots(figsize=(6.0, 2.8))
    ways = gaps.groupby(["method", "student"], sort=False)
    alone = gaps["method"].nunique() == 1
    for ((method, student), here), colour in zip(ways, cycle(COLOURS), strict=False):
        axis.plot(here["round"], here["value"], "-o", color=colour, label=student if alone else f"{method}, {student}")
    for tau in taus:
        axis.axhline(tau, color="grey", linestyle="--", linewidth=0.8, label=f"tau {tau:g}")
    axis.set_xticks(sorted(gaps["round"].unique()))
    axis.set_xlabel("rounds")
    axis.set_ylabel("gap")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def outcomes(rounds: pd.DataFrame) -> Figure | None:
    """What became of the feedback, in the first round in which there was any and in the last; all tutors together."""
    split = rounds["name"].str.extract(r"^feedback/[^/]+/count/(?P<outcome>.+)$")
    counted = rounds.join(split).dropna(subset=["outcome"])
    if counted.empty:
        return None
    bars = {}
    for method, here in counted.groupby("method", sort=False):
        sums = here.groupby(["round", "outcome"], sort=False)["value"].sum().unstack(fill_value=0)
        ends = {"first": sums.iloc[0], "last": sums.iloc[-1]} if len(sums) > 1 else {"only": sums.iloc[0]}
        for label, row in ends.items():
            bars[f"{method}, {label} round"] = 100 * row / row.sum()
    return _stacked(pd.DataFrame(bars).T.fillna(0), "share of the feedback, %")


def seconds(steps: pd.DataFrame) -> Figure:
    """Mean seconds a step spends on each part, with feedback and without."""
    part = steps["name"].str.extract(r"^seconds/(?P<part>.+)$")["part"]
    key = ["method", "seed", "step"]
    told = steps[steps["name"].str.endswith("/feedback_kept")][key].assign(tutored=True)
    timed = steps.assign(part=part).dropna(subset=["part"]).merge(told, on=key, how="left")
    timed["tutored"] = timed["tutored"].eq(True)
    bars = timed.groupby(["method", "tutored", "part"], sort=False)["value"].mean().unstack(fill_value=0)
    bars.index = pd.Index([f"{method}, {'with' if told else 'without'} feedback" for method, told in bars.index])
    return _stacked(bars, "seconds a step")


def health(steps: pd.DataFrame, names: Sequence[str]) -> Figure | None:
    """Each of the named figures that there is, step by step, student by student."""
    split = steps["name"].str.extract(r"^train/(?P<student>[^/]+)/(?P<figure>[^/]+)$")
    told = steps.join(split).dropna(subset=["student"])
    known = [name for name in names if (told["figure"] == name).any()]
    if not known:
        return None
    rows = -(-len(known) // _ABREAST)
    size = (2.2 * _ABREAST, 1.6 * rows + 0.3)
    figure, axes = _subplots(rows, _ABREAST, squeeze=False, sharex=True, figsize=size)
    several = told["method"].nunique() > 1
    for axis, name in zip(axes.flat, known, strict=False):
        lines = told[told["figure"] == name].groupby(["method", "student"], sort=False)
        for ((method, student), line), colour in zip(lines, cycle(COLOURS), strict=False):
            mean = line.groupby("step")["value"].mean()
            label = f"{method}, {student}" if several else student
            axis.plot(mean.index, mean, ".-", color=colour, linewidth=1, markersize=3, label=label)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.grid(axis="y", alpha=0.3)
    for axis in axes.flat[len(known) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside lower center", ncols=2
    )
    return figure


def broken(rates: pd.DataFrame) -> Figure:
    """Break and rescue rate by difficulty, with cognizant and with incognizant tutors; all runs and ends together."""
    here = rates[rates["domain"] == "all"]
    difficulties = list(here["difficulty"].unique())
    figure, axes = _subplots(1, 2, figsize=(8.4, 3.0))
    for axis, (name, of) in zip(axes, (("break", "right"), ("rescue", "wrong")), strict=True):
        for place, (cognizant, colour) in enumerate(zip((True, False), COLOURS, strict=False)):
            rows = here[here["cognizant"] == cognizant].assign(turned=lambda r, n=name, o=of: r[n].fillna(0) * r[o])
            sums = rows.groupby("difficulty")[["turned", of]].sum().reindex(difficulties, fill_value=0)
            shares = 100 * sums["turned"] / sums[of].where(sums[of] > 0)
            at = [i + 0.4 * place - 0.2 for i in range(len(difficulties))]
            label = "cognizant tutor" if cognizant else "incognizant tutor"
            bars = axis.bar(at, shares.fillna(0), 0.38, color=colour, label=label)
            axis.bar_label(bars, [f"of {n:.0f}" for n in sums[of]], fontsize=6)
            if name == "break":
                axis.plot(at, [PUBLISHED_BREAK_RATES[d][place] for d in difficulties], "k_", markersize=12)
        axis.set_xticks(range(len(difficulties)), difficulties)
        axis.set_ylabel(f"{name} rate, %")
        axis.margins(y=0.08)
    axes[0].plot([], [], "k_", label="published")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def gap_and_gain(gaps: pd.DataFrame, scores: pd.DataFrame) -> Figure | None:
    """What there was to learn from s and f at the start, and what was learned: one dot a seed, student and domain.

    There is none where nobody was right, so that there was no s.
    """
    key = ["method", "seed", "student", "domain"]
    at_start = gaps[(gaps["end"] == "initial") & (gaps["shown"] == "s and f")].set_index(key)
    ends = scores.pivot_table(index=key, columns="end", values="avg")
    dots = pd.DataFrame(
        {"gap": 100 * (at_start["as_teacher"] - at_start["alone"]), "gain": 100 * (ends["final"] - ends["initial"])}
    ).dropna()
    if dots.empty:
        return None
    figure, axis = _subplots(figsize=(6.0, 3.2))
    groups = dots.groupby(["student", "domain"], sort=False)
    for ((student, domain), here), colour in zip(groups, cycle(COLOURS), strict=False):
        axis.plot(here["gap"], here["gain"], "o", color=colour, label=f"{student} on {domain}")
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set_xlabel("teacher gap before training, shown s and f, points")
    axis.set_ylabel("gain on the test questions, points")
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _stacked(bars: pd.DataFrame, label: str) -> Figure:
    """A horizontal bar a row, cut into its columns."""
    figure, axis = _subplots(figsize=(6.4, 0.9 + 0.35 * len(bars)))
    left = pd.Series(0.0, index=bars.index)
    for (column, values), colour in zip(bars.items(), cycle(COLOURS), strict=False):
        axis.barh(list(bars.index), values, left=left, color=colour, label=str(column))
        left = left + values
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


FIGURES: dict[str, tuple[tuple[str, ...], Callable[..., Figure | None]]] = {
    "gains": (("scores",), gains),
    "trajectories": (("rounds",), trajectories),
    "outcomes": (("rounds",), outcomes),
    "seconds": (("steps",), seconds),
    "break-rates": (("break_rates",), broken),
    "gaps-and-gains": (("teacher_gaps", "scores"), gap_and_gain),
}
"""Name -> the CSV files it is drawn from, and how."""

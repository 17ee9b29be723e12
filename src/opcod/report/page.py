"""`opcod report`: one page that tells what a run came to, and what the students said to each other on the way."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from opcod import __version__
from opcod.callbacks.outcome import outcome_lines
from opcod.report.charts import charts
from opcod.report.runs import Run, read_run

NAME = "report.html"


def write_report(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write a page about one run, or about several beside each other.

    Args:
        folders: The runs'.
        output: The page; by default `report.html` in the first run's folder.

    Returns:
        Where it was written. It needs no other file, and no network.

    Raises:
        ReportError: If a folder holds no run.
    """
    runs = [read_run(folder) for folder in folders]
    for run, name in zip(runs, _names(folders), strict=True):
        run.name = name
    path = output or folders[0] / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(runs), encoding="utf-8", errors="backslashreplace")
    return path


def _names(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart: their ends, from where they differ on."""
    parts = [folder.resolve().parts for folder in folders]
    alike = next((i for i, of_all in enumerate(zip(*parts, strict=False)) if len(set(of_all)) > 1), 0)
    return [str(Path(*own[min(alike, len(own) - 1) :])) if alike else str(Path(*own[-2:])) for own in parts]


def render(runs: Sequence[Run]) -> str:
    """The page as HTML; all that models and data wrote is escaped, or stands in a block of JSON."""
    environment = Environment(loader=PackageLoader("opcod.report"), autoescape=True, trim_blocks=True)
    environment.filters["points"] = lambda i: f"{100 * i.mean:+.1f} ({100 * i.low:+.1f} to {100 * i.high:+.1f})"
    environment.filters["percent"] = lambda value: "?" if math.isnan(value) else f"{100 * value:.1f}"
    template = environment.get_template("report.html.j2")
    exchanges = [{**row, "run": number} for number, run in enumerate(runs) for row in run.exchanges]
    return template.render(
        version=__version__,
        runs=[_summary(run) for run in runs],
        beside=_beside(runs),
        charts=charts(runs),
        exchanges=_json_block({"runs": [run.name for run in runs], "rows": exchanges}),
        several=len(runs) > 1,
        style=_file("report.css"),
        script=_file("report.js"),
    )


def _summary(run: Run) -> dict[str, Any]:
    """What the page tells of a run beside charts and exchanges."""
    return {
        "name": run.name,
        "folder": str(run.folder),
        "outcome": run.outcome,
        "gain": run.gain,
        "verdict": outcome_lines(run.outcome) if run.outcome else [],
        "notes": run.notes,
        "doubts": run.doubts,
        "warnings": Counter(warning.partition(": ")[2] for warning in run.warnings).most_common(),
        "steps": len(run.steps),
        "only_diagnosed": run.only_diagnosed,
        "parts": _parts(run),
        "settings": {
            name: run.setting(name) for name in ("samples", "tutor", "anchored", "gate", "context", "matching", "base")
        },
    }


def _beside(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the first run is ahead of each other one by, where both answered the same questions."""
    places = list(runs[0].answers.get("final", {}))
    found = [(run.name, [runs[0].ahead(run, place) for place in places]) for run in runs[1:]]
    return [{"name": name, "by": dict(zip(places, by, strict=True))} for name, by in found if any(by)]


def _parts(run: Run) -> list[dict[str, Any]]:
    """Mean seconds, and tokens a second, of each part of a step in which it was done."""
    names = dict.fromkeys(name.split("/")[1] for row in run.steps for name in row if name.startswith("seconds/"))
    return [
        {
            "name": name,
            "seconds": _mean([row[f"seconds/{name}"] for row in run.steps if f"seconds/{name}" in row]),
            "tokens": _mean([row[key] for row in run.steps if (key := f"tokens_per_second/{name}") in row]),
        }
        for name in names
    ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _json_block(value: Any) -> Markup:
    """JSON for a script element, which nothing in it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _file(name: str) -> Markup:
    return Markup(files("opcod.report").joinpath("templates", name).read_text(encoding="utf-8"))

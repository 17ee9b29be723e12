"""A grid of runs, methods x pairs x seeds: one process a cell, gone on with where it stopped, collected as tidy CSV.

`<output>/<pair>/<method>/seed-<n>/version_<i>` is a run's folder. A cell is finished once one of its versions has an
`outcome.json`; it is never run again.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opcod import comparison
from opcod.callbacks import outcome
from opcod.callbacks.checkpoints import whole, write_whole

Row = dict[str, Any]
LAST = Path("checkpoints") / "last.ckpt"
SCORES = ("avg", "stderr", "format", "count")


@dataclass(frozen=True)
class Grid:
    """What is run.

    Args:
        common: Arguments of every run: config files, and options that begin with `--`.
        pairs: Name -> its arguments.
        methods: Name -> its arguments, which come last.
        seeds: Of every pair and method.
        minutes: Method -> what a cell took, as measured where `machine` says.
        machine: Where.
    """

    common: list[str]
    pairs: dict[str, list[str]]
    methods: dict[str, list[str]]
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    minutes: dict[str, float] = field(default_factory=dict)
    machine: str = "an unknown machine"

    def __post_init__(self) -> None:
        if not (self.pairs and self.methods and self.seeds):
            raise ValueError("the grid is empty: give at least one pair, one method and one seed")
        if unknown := self.minutes.keys() - self.methods.keys():
            raise ValueError(f"minutes are given of {', '.join(sorted(unknown))}, which is no method of the grid")

    def cells(self, output: Path) -> list[Cell]:
        """All cells, seed by seed, so that a grid that is stopped early has compared all methods."""
        return [
            Cell(pair, method, seed, output / pair / method / f"seed-{seed}", (*self.common, *at, *how))
            for seed in self.seeds
            for pair, at in self.pairs.items()
            for method, how in self.methods.items()
        ]


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Args:
        pair: Its name.
        method: Its name.
        seed: Of every draw.
        folder: Of its versions.
        given: Config files and options.
    """

    pair: str
    method: str
    seed: int
    folder: Path
    given: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is spoken of."""
        return f"{self.pair} {self.method} seed {self.seed}"

    @property
    def finished(self) -> Path | None:
        """The version that came to its end."""
        return next((v for v in self.versions if (v / outcome.NAME).is_file()), None)

    @property
    def checkpoint(self) -> Path | None:
        """Where a stopped run goes on."""
        return next((v / LAST for v in self.versions if (v / LAST).exists()), None)

    @property
    def versions(self) -> list[Path]:
        """The run's folders, the newest first."""
        return sorted(self.folder.glob("version_*"), key=lambda v: int(v.name.removeprefix("version_")), reverse=True)

    @property
    def command(self) -> list[str]:
        """What follows `opcod`."""
        arguments = [part for given in self.given for part in ([given] if given.startswith("--") else ["-c", given])]
        arguments += ["--seed_everything", str(self.seed), f"--trainer.logger.init_args.save_dir={self.folder}"]
        resumed = self.checkpoint
        return ["fit", *arguments, *([f"--ckpt_path={resumed}"] if resumed else [])]


def run(grid: Grid, output: Path, *, dry: bool = False) -> None:
    """Run the cells that are not finished, and write what there is after each.

    Args:
        grid: The runs.
        output: Folder of all cells and of the CSV files.
        dry: Only say what is to be done and what it takes.

    Raises:
        RuntimeError: If a run fails; what is finished stays.
    """
    cells = grid.cells(output)
    open_cells = [cell for cell in cells if cell.finished is None]
    print(f"{len(cells)} runs, {len(cells) - len(open_cells)} of them finished. {cost(grid, open_cells)}", flush=True)
    if dry:
        return
    if not open_cells:
        collect(grid, output)
    for number, cell in enumerate(open_cells, start=1):
        goes_on = " goes on" if cell.checkpoint else ""
        print(f"{number}/{len(open_cells)} {cell.name}{goes_on}", flush=True)
        cell.folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with (cell.folder / "log.txt").open("a", encoding="utf-8") as log:
            done = subprocess.run([sys.executable, "-m", "opcod.cli", *cell.command], stdout=log, stderr=log)
        if done.returncode:
            raise RuntimeError(f"{cell.name} failed with status {done.returncode}: see {cell.folder / 'log.txt'}")
        print(f"  {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
        collect(grid, output)


def cost(grid: Grid, cells: Sequence[Cell]) -> str:
    """What these runs take, in words."""
    if not cells:
        return "Nothing is left to run."
    known = [grid.minutes[cell.method] for cell in cells if cell.method in grid.minutes]
    if not known:
        return "How long they take is not known."
    rest = len(cells) - len(known)
    unknown = f", and {rest} of unknown length" if rest else ""
    return f"The others take about {sum(known) / 60:.1f} hours on {grid.machine}{unknown}."


def collect(grid: Grid, output: Path) -> None:
    """Write `scores.csv`, `answers.csv`, `rounds.csv`, `steps.csv` and `tables.md` of all finished cells."""
    finished = [(cell, version) for cell in grid.cells(output) if (version := cell.finished)]
    tables: Mapping[str, Iterable[Row]] = {
        "scores": (row for cell, version in finished for row in _scores(cell, version)),
        "answers": (row for cell, version in finished for row in _answers(cell, version)),
        "rounds": (row for cell, version in finished for row in _metrics(cell, version, "round")),
        "steps": (row for cell, version in finished for row in _metrics(cell, version, "step")),
    }
    for name, rows in tables.items():
        _write(output / f"{name}.csv", list(rows))
    if finished:
        write_whole(output / "tables.md", comparison.tables(comparison.read_answers(output / "answers.csv")))


def _of(cell: Cell) -> Row:
    return {"pair": cell.pair, "method": cell.method, "seed": cell.seed}


def _scores(cell: Cell, version: Path) -> Iterator[Row]:
    """Initial and final figures of every student and domain."""
    kept = json.loads((version / outcome.NAME).read_text(encoding="utf-8"))
    for end in ("initial", "final"):
        for student, domains in kept[end].items():
            for domain, figures in domains.items():
                row = {"end": end, "student": student, "domain": domain}
                yield _of(cell) | row | {name: figures[name] for name in SCORES}


def _answers(cell: Cell, version: Path) -> Iterator[Row]:
    """Of every test question the share of right responses."""
    with (version / outcome.ANSWERS).open(encoding="utf-8", newline="") as file:
        yield from (_of(cell) | row for row in csv.DictReader(file))


def _metrics(cell: Cell, last: Path, per: str) -> Iterator[Row]:
    """What was logged, one row a figure: after so many rounds (`validation`, `gate`, `feedback`), or at a step.

    A run that was stopped is spread over its versions; what a later one logged again counts.
    """
    found: dict[tuple[int, str], float] = {}
    for version in reversed(cell.versions):
        if (path := version / "metrics.csv").is_file():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    found |= {(place, name): value for name, place, value in _figures(row, per)}
        if version == last:
            break
    for (place, name), value in sorted(found.items()):
        yield _of(cell) | {per: place, "name": name, "value": value}


def _figures(row: Mapping[str, str], per: str) -> Iterator[tuple[str, int, float]]:
    """Name, place and value of what a row of `metrics.csv` tells per round, or per step."""
    for name, value in row.items():
        kind = name.split("/")[0]
        if not value or name in ("epoch", "step", "round", "rounds", "phase", "phase_step"):
            continue
        if kind in ("validation", "gate", "feedback"):
            if per == "round":
                yield name, int(float(row["rounds"])), float(value)
        elif per == "step":
            yield name, int(row["step"]), float(value)


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

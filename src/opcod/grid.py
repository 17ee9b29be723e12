"""A grid of runs, methods x pairs x seeds: one process a cell, gone on with where it stopped, collected as tidy CSV.

`<output>/<pair>/<method>/seed-<n>/version_<i>` is a run's folder. A cell is finished once one of its versions has an
`outcome.json`; it is never run again. What else is measured of its students lies in `initial/` and `final/`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from opcod.callbacks import break_rates, outcome
from opcod.collection import ENDS, collect

LAST = Path("checkpoints") / "last.ckpt"


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
        measured: Methods whose runs' teacher gaps, break and rescue rates are measured too, at both ends -> options
            for that, such as more validation questions; out of files, no more than the runs held out.
    """

    common: list[str]
    pairs: dict[str, list[str]]
    methods: dict[str, list[str]]
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    minutes: dict[str, float] = field(default_factory=dict)
    machine: str = "an unknown machine"
    measured: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.pairs and self.methods and self.seeds):
            raise ValueError("the grid is empty: give at least one pair, one method and one seed")
        for name, methods in (("minutes", self.minutes), ("measured", self.measured)):
            if unknown := set(methods) - self.methods.keys():
                raise ValueError(f"{name} names {', '.join(sorted(unknown))}, which is no method of the grid")

    def cells(self, output: Path) -> list[Cell]:
        """All cells, seed by seed, so that a grid that is stopped early has compared all methods."""
        return [
            Cell(
                pair,
                method,
                seed,
                output / pair / method / f"seed-{seed}",
                (*self.common, *at, *how),
                measured=tuple(self.measured[method]) if method in self.measured else None,
            )
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
        measured: Options with which more than its scores is measured at both ends; None where it is not.
    """

    pair: str
    method: str
    seed: int
    folder: Path
    given: tuple[str, ...]
    measured: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """As it is spoken of."""
        return f"{self.pair} {self.method} seed {self.seed}"

    @property
    def finished(self) -> Path | None:
        """The version that came to its end."""
        return next((v for v in self.versions if (v / outcome.NAME).is_file()), None)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.finished is not None and not self.unmeasured

    @property
    def unmeasured(self) -> list[str]:
        """The ends that are still to be measured."""
        return [end for end in ENDS if self.measured is not None and self.measurement(end) is None]

    def measurement(self, end: str) -> Path | None:
        """The folder in which an end was measured."""
        return next((v for v in versions(self.folder / end) if (v / break_rates.NAME).is_file()), None)

    @property
    def checkpoint(self) -> Path | None:
        """Where a stopped run goes on."""
        return next((v / LAST for v in self.versions if (v / LAST).exists()), None)

    @property
    def versions(self) -> list[Path]:
        """The run's folders, the newest first."""
        return versions(self.folder)

    @property
    def command(self) -> list[str]:
        """What follows `opcod`, to run it or go on with it."""
        return ["fit", *self._arguments(self.folder), *_from(self.checkpoint)]

    def measuring(self, end: str) -> list[str]:
        """What follows `opcod`, to measure the students as they were at the start, or are at the end."""
        callbacks = ["--trainer.callbacks=TeacherGapTable", "--trainer.callbacks+=BreakRateTable"]
        students = _from(None if end == "initial" else self.checkpoint)
        return ["validate", *self._arguments(self.folder / end), *callbacks, *(self.measured or ()), *students]

    def _arguments(self, folder: Path) -> list[str]:
        arguments = [part for given in self.given for part in ([given] if given.startswith("--") else ["-c", given])]
        return [*arguments, "--seed_everything", str(self.seed), f"--trainer.logger.init_args.save_dir={folder}"]


def versions(folder: Path) -> list[Path]:
    """A run's folders, the newest first; one that somebody gave another name is not among them."""
    numbers = {v: v.name.removeprefix("version_") for v in folder.glob("version_*")}
    return sorted((v for v in numbers if numbers[v].isdecimal()), key=lambda v: int(numbers[v]), reverse=True)


def _from(checkpoint: Path | None) -> list[str]:
    return [f"--ckpt_path={checkpoint}"] if checkpoint else []


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
    open_cells = [cell for cell in cells if not cell.done]
    print(f"{len(cells)} runs, {len(cells) - len(open_cells)} of them finished. {cost(grid, open_cells)}", flush=True)
    if dry:
        return
    if not open_cells:
        collect(cells, output)
    for number, cell in enumerate(open_cells, start=1):
        goes_on = " goes on" if cell.checkpoint else ""
        print(f"{number}/{len(open_cells)} {cell.name}{goes_on}", flush=True)
        began = time.perf_counter()
        if cell.finished is None:
            _opcod(cell, cell.command)
        for end in reversed(cell.unmeasured):  # the final one first, which is refused on what the run was trained on
            _opcod(cell, cell.measuring(end))
        print(f"  {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
        collect(cells, output)


def _opcod(cell: Cell, command: Sequence[str]) -> None:
    """Run a command of a cell's in a process of its own.

    Raises:
        RuntimeError: If it fails.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    with (cell.folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen([sys.executable, "-m", "opcod.cli", *command], stdout=log, stderr=log)
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the terminal sends it to both
            print(f"{cell.name} stops after its step; Ctrl-C again stops it at once.", flush=True)
            _ended(process)
            raise
    if status:
        raise RuntimeError(f"{cell.name} failed with status {status}: see {cell.folder / 'log.txt'}")


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process, however often Ctrl-C is pressed."""
    while process.poll() is None:
        with suppress(KeyboardInterrupt):
            process.wait()


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

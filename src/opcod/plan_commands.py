"""What `opcod plan` runs: the arguments of the command that is planned, a device, and tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal

from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from opcod.cli import PLANNED
from opcod.commands import CoDistil, Command
from opcod.devices import GPUS, Device, this_cpu
from opcod.lesson_commands import Solve, Specialise
from opcod.lesson_plan import plan_solve, plan_specialise
from opcod.models import compute_dtype
from opcod.plan import Plan, plan
from opcod.report.planned import plan_lines, plan_tables

_USAGE = "[-c CONFIG ...] [--device NAME] [options]"


class _OnDevice(Command):
    """A command that is planned: its own arguments, the device, and what responses are expected to take."""

    usage = _USAGE
    writes = False

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the device and the length."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"trainer.callbacks": []})
        help = f"The processor at hand (`cpu`), or a GPU by its data sheet ({', '.join(GPUS)})."
        parser.add_argument("--device", type=Literal["cpu", *GPUS], default="cpu", help=help)
        help = "Tokens that a response is expected to take; by default its limit, or what worked solutions take."
        parser.add_argument("--response_tokens", type=PositiveInt | None, default=None, help=help)

    @property
    def device(self) -> Device:
        """The device that was asked for."""
        return GPUS.get(self.config.device) or this_cpu(compute_dtype(self.model.base.dtype, "cpu"))


class Planned(_OnDevice, CoDistil):
    """The arguments of `opcod plan`: those of a run, the device, and what responses and feedback are to take."""

    takes_checkpoint = False

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            arguments,
            run=False,
            prog="opcod plan",
            usage=f"opcod plan [{' | '.join(PLANNED)}] {_USAGE}",
            description=(
                "Say what a run takes, before it is begun: memory, operations and time. `opcod plan solve` and "
                "`opcod plan specialise` say it of these two, by their own options."
            ),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the length of a feedback."""
        super().add_arguments_to_parser(parser)
        help = "Tokens that a feedback is expected to take; by default its limit."
        parser.add_argument("--feedback_tokens", type=PositiveInt | None, default=None, help=help)

    def plan(self) -> Plan:
        """What the run takes."""
        return plan(
            self.model,
            self.datamodule,
            rounds=self.trainer.max_epochs or 0,
            device=self.device,
            response=self.config.response_tokens,
            feedback=self.config.feedback_tokens,
        )


class PlannedSolve(_OnDevice, Solve):
    """The arguments of `opcod plan solve`: those of `opcod solve`, the device, and what responses are to take."""

    name = "plan solve"
    purpose = "Say what `opcod solve` takes, before it is begun: memory, operations and time. Nothing is written."

    def plan(self) -> Plan:
        """What finding the solutions takes."""
        return plan_solve(self.model, self.datamodule, device=self.device, response=self.config.response_tokens)


class PlannedSpecialise(_OnDevice, Specialise):
    """The arguments of `opcod plan specialise`: those of `opcod specialise`, the device, and how long responses are."""

    resumes: tuple[str | None, ...] = ()
    name = "plan specialise"
    purpose = "Say what `opcod specialise` takes, before it is begun: memory, operations and time. Nothing is written."

    def before_instantiate_classes(self) -> None:
        """There may be an adapter where one would be written."""

    def plan(self) -> Plan:
        """What the lessons take."""
        return plan_specialise(
            self.model,
            self.datamodule,
            epochs=self.trainer.max_epochs or 0,
            device=self.device,
            response=self.config.response_tokens,
        )


def planned(arguments: Sequence[str]) -> Planned | PlannedSolve | PlannedSpecialise:
    """The command that is planned, `fit` where none is named first.

    Raises:
        ArgumentError: If that is no command which can be planned.
    """
    kinds: dict[str, type[Planned | PlannedSolve | PlannedSpecialise]] = {
        "fit": Planned,
        "solve": PlannedSolve,
        "specialise": PlannedSpecialise,
    }
    if not arguments or arguments[0].startswith("-"):
        return Planned(arguments)
    name, *rest = arguments
    if name not in kinds:
        raise argparse.ArgumentError(None, f"{name!r} cannot be planned: expected {', '.join(PLANNED)}, or options")
    return kinds[name](rest)


def plan_command(arguments: Sequence[str]) -> None:
    """Print what a command takes."""
    found = planned(arguments).plan()
    console = Console()
    for table in plan_tables(found):
        console.print(table)
    for line in plan_lines(found):
        console.print(line, soft_wrap=True, markup=False, highlight=False)

"""A plan as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from opcod.devices import GIB
from opcod.fits import AT_A_TIME, LEARNING
from opcod.plan import Part, Plan


def plan_tables(plan: Plan) -> Iterator[Table]:
    """Memory, and work with the time it takes."""
    yield _memory(plan)
    yield _work(plan)


def plan_lines(plan: Plan) -> Iterator[str]:
    """What a reader must know about the figures, in sentences."""
    at = plan.expected
    yield (
        f"Memory is planned at the limits, work for prompts of {at.prompt} tokens, responses of {at.response}"
        + (f" and feedback of {at.feedback}" if at.feedback else "")
        + f"; {plan.parameters / 1e6:,.0f} M parameters"
        + (f", {plan.trained / 1e6:,.2f} M trained in a student." if plan.trained else ", none trained.")
    )
    how = "as it was measured just now" if plan.device.measured else "assumed from its data sheet and not yet measured"
    yield f"Times are a roofline of every operation at the speed of {plan.device.name}, {how}."
    yield from plan.notes
    if plan.fits is False:
        parts = [p.name for p in plan.parts] + (["scoring"] if plan.scored else [])
        lower = ", ".join(dict.fromkeys(f"`{AT_A_TIME[part]}`" for part in parts))
        recompute = ", set `checkpoint_activations` to true" if LEARNING.intersection(parts) else ""
        yield f"It does not fit: lower {lower}{recompute}, or quantise the base."


def _memory(plan: Plan) -> Table:
    table = Table("memory", title=f"On {plan.device.name}", title_style="bold", title_justify="left")
    table.add_column("GiB", justify="right")
    for name, size in plan.standing.items():
        table.add_row(name, f"{size / GIB:.2f}")
    table.add_section()
    for part in (*plan.parts, *plan.scored):
        table.add_row(f"{part.name}, while it lasts", f"{plan.device.gaps * part.memory / GIB:.2f}")
    table.add_section()
    has = "" if plan.device.memory is None else f" of {plan.device.memory / GIB:.0f}"
    table.add_row("at its peak", f"{plan.memory / GIB:.2f}{has}", style="bold")
    return table


def _work(plan: Plan) -> Table:
    table = Table("work")
    for column in ("TFLOP", "time"):
        table.add_column(column, justify="right")
    for part in plan.parts:
        if part.work.flops:
            table.add_row(f"{part.name}, a step", *_cost(part.work.flops, part.work.seconds))
    table.add_section()
    differ = any(p.work != p.least for p in plan.parts)
    cases = list(zip((False, True), plan.cases, strict=True)) if differ else [(False, "")]
    for least, how in cases:
        step = plan.step(least=least)
        table.add_row(f"a step {how}".strip(), *_cost(step.flops, step.seconds))
    for part, times in zip(plan.scored, plan.scorings, strict=True):
        table.add_row(f"scoring {part.name} questions, {times} times", *_cost_of(part))
    table.add_section()
    for least, how in cases:
        run = plan.run(least=least)
        table.add_row(f"the run, {plan.steps} steps {how}".strip(), *_cost(run.flops, run.seconds), style="bold")
    return table


def _cost_of(part: Part) -> tuple[str, str]:
    return _cost(part.work.flops, part.work.seconds)


def _cost(flops: float, seconds: float) -> tuple[str, str]:
    return f"{flops / 1e12:,.1f}", _duration(seconds)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def fence(source: str, *_: Any, **__: Any) -> str:
    """A code block of the language `math`, as GitHub knows it too; each line is a formula of its own."""
    lines = (line for line in source.splitlines() if line.strip())
    return f'<div class="maths">{"".join(convert(line, display="block") for line in lines)}</div>'

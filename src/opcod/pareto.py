"""Dominance over the domains, however many: did a student improve, and did all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TOLERANCE = 1e-9  # of means over questions, which as many right answers to others of them may round otherwise


def improves(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Pareto improvement: no domain below its score before, and at least one above (section 1, Scores).

    Args:
        before: {domain: initial score}.
        after: {domain: score}, of the same domains.

    Raises:
        ValueError: If the domains differ or there are none.
    """
    _require_same("domain", before, after)
    return not any(fell(before[d], after[d]) for d in before) and any(fell(after[d], before[d]) for d in before)


def fell(before: float, after: float) -> bool:
    """Whether a score is below what it was, by more than rounding."""
    return after < before - _TOLERANCE


def mutual(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> bool:
    """Mutual Pareto improvement: every student improves.

    Args:
        before: {student: {domain: initial score}}.
        after: {student: {domain: score}}, of the same students and domains.

    Raises:
        ValueError: If students or domains differ or there are none.
    """
    _require_same("student", before, after)
    improved = [improves(before[student], after[student]) for student in before]  # all of them, to check all
    return all(improved)


def _require_same(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if not before or before.keys() != after.keys():
        raise ValueError(
            f"cannot compare {kind}s {', '.join(sorted(before)) or 'none'} before with "
            f"{', '.join(sorted(after)) or 'none'} after: give scores of the same {kind}s for both"
        )

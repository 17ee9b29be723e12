"""Settings that count something: one below 1 is refused where it is set, in the same words everywhere."""

from __future__ import annotations


def count_faults(**counts: int | None) -> list[str]:
    """What is wrong with settings that are to be at least 1, in words; one that is None is not set."""
    low = {name: count for name, count in counts.items() if count is not None and count < 1}
    return [f"{name} is {count}, expected at least 1" for name, count in low.items()]


def check_counts(**counts: int | None) -> None:
    """Refuse counts below 1, all at once.

    Raises:
        ValueError: Names each.
    """
    if faults := count_faults(**counts):
        raise ValueError("; ".join(faults))

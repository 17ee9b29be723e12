"""The memory that is free for a process: a container's limit may be far below what the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_LIMITLESS = 1 << 60  # version 1 says so with the largest number of pages that it can


@dataclass(frozen=True)
class _Names:
    """How a version of control groups calls what it says of memory; see the kernel's guide to cgroups."""

    limit: str
    taken: str
    cached: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def free_memory() -> float:
    """Bytes that this process may still take, of the machine or of the container it runs in."""
    available, left = float(psutil.virtual_memory().available), memory_left()
    return available if left is None else min(available, left)


def memory_left(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Bytes up to the tightest limit on this process and all it runs beside; None where there is no limit.

    What files have cached does not count as taken: the kernel lets go of it first.

    Args:
        groups: Which groups a process is in, as Linux lists them.
        mounted: Where the groups are.
    """
    return min(_left_in_all(groups, mounted), default=None)


def _left_in_all(groups: Path, mounted: Path) -> Iterator[float]:
    for root, path, names in _own(groups, mounted):
        # In a container the path may be that of the host, where nothing stands but the container's own root.
        for group in [root / path, *(root / path).parents]:
            if group.is_relative_to(root) and (left := _left_in(group, names)) is not None:
                yield left


def _own(groups: Path, mounted: Path) -> Iterator[tuple[Path, str, _Names]]:
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield mounted / "memory", path.lstrip("/"), _V1
        elif not controllers:
            unified = mounted / "unified"
            yield unified if unified.is_dir() else mounted, path.lstrip("/"), _V2


def _left_in(group: Path, names: _Names) -> float | None:
    try:
        limit = (group / names.limit).read_text(encoding="ascii").strip()
        if limit == "max" or int(limit) >= _LIMITLESS:
            return None
        taken = int((group / names.taken).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return max(0.0, float(int(limit) - taken + int(stat.get(names.cached, 0))))

"""Lines of JSON in a file, added as they come, so that a process that is ended leaves what it had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def add(file: Path, line: dict[str, Any]) -> None:
    """Behind those that are there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def lines(file: Path) -> list[dict[str, Any]]:
    """All of them; none where there is no file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []

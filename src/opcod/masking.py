"""What must not be written down: passwords within addresses, tokens and keys."""

from __future__ import annotations

import os
import re
import sys
import traceback
from argparse import Namespace
from copy import copy
from types import TracebackType
from typing import Any

MASK = "***"

_NAMES = re.compile(r"(?:^|_)(?:token|secret|password|passwd|credentials?|api_?key|access_?key)$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s?#'\"]+@")
_SHORTEST = 8  # a shorter value of a variable may be any word


def masked(text: str) -> str:
    """`text` without what an address has before its `@`, and without the values of variables such as `HF_TOKEN`."""
    text = _IN_ADDRESS.sub(f"{MASK}@", text)
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, MASK)
    return text


def masked_settings(settings: Any) -> Any:
    """Settings whose texts are `masked`; one whose name is that of a secret (`api_key`, `password`) is masked whole."""
    if isinstance(settings, Namespace):
        kept = copy(settings)
        for name, value in masked_settings(vars(settings)).items():
            setattr(kept, name, value)
        return kept
    if isinstance(settings, dict):
        return {
            name: MASK if isinstance(value, str) and _NAMES.search(str(name)) else masked_settings(value)
            for name, value in settings.items()
        }
    if isinstance(settings, list):
        return [masked_settings(value) for value in settings]
    return masked(settings) if isinstance(settings, str) else settings


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that nobody caught, as Python does, but `masked`."""
    print(masked("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)

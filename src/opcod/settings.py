"""What a config may be made of: YAML that says every thing once, and stays as small as it looks.

Knows nothing about what the settings mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

MAX_VALUES = 100_000
"""The most values of a config, each counted as often as aliases (`*name`) repeat it."""
MAX_DEPTH = 100
"""The most values that may stand in each other."""


class ConfigError(yaml.MarkedYAMLError):
    """YAML that is no config."""


def guard_configs() -> None:
    """Have the parsers of the command line refuse what `check_yaml` refuses, wherever they read YAML."""
    load = get_loader("yaml")
    if load.__module__ == __name__:
        return

    def read(text: str) -> Any:
        check_yaml(text)
        try:
            return load(text)
        except ValueError as error:  # a number of thousands of digits, or a date that is none
            raise ConfigError(problem=f"found a value that cannot be read: {error}") from error

    set_loader("yaml", read, (yaml.YAMLError,))


def check_yaml(text: str) -> None:
    """Refuse YAML that would be misread, or that would take all the memory.

    It goes by the parser's events, since what makes values of them calls itself for each level.

    Raises:
        yaml.YAMLError: If it is no YAML, names a key twice, or holds more than `MAX_VALUES` values or more than
            `MAX_DEPTH` in each other, with those that aliases repeat.
    """
    anchored: dict[str | None, _Value | None] = {}
    within = [_Value(None)]
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            value = _Value(event.anchor, keys=set() if isinstance(event, yaml.MappingStartEvent) else None)
            within.append(value)
            anchored[event.anchor] = None  # it is not known before its end
        elif isinstance(event, yaml.CollectionEndEvent | yaml.ScalarEvent):
            value = within.pop() if isinstance(event, yaml.CollectionEndEvent) else _Value(event.anchor)
            anchored[value.anchor] = value
            within[-1].add(value, event)
        elif isinstance(event, yaml.AliasEvent):
            known = anchored.get(event.anchor, _Value(None))  # one that stands for nothing is refused later
            if known is None:
                raise _fault(event, f"*{event.anchor} within what it stands for")
            within[-1].add(known, event)
        if within[-1].size > MAX_VALUES:
            raise _fault(event, f"more than {MAX_VALUES} values, with those that aliases repeat")
        if len(within) - 2 + within[-1].height > MAX_DEPTH:
            raise _fault(event, f"more than {MAX_DEPTH} values in each other")


@dataclass
class _Value:
    """A value as far as it is read.

    Args:
        anchor: The name that aliases repeat it by.
        keys: Those that were named, of a mapping.
        size: How many values it is, with all in it.
        height: How many of these stand in each other.
        parts: How many stand directly in it; of a mapping's each second one is a key.
    """

    anchor: str | None
    keys: set[str] | None = None
    size: int = 1
    height: int = 1
    parts: int = 0

    def add(self, part: _Value, event: yaml.Event) -> None:
        """Put a value into it, which ended or stood at an event."""
        if self.keys is not None and self.parts % 2 == 0 and isinstance(event, yaml.ScalarEvent):
            if event.value in self.keys:
                raise _fault(event, f"{event.value!r} a second time: a key stands once, as only its last value counts")
            self.keys.add(event.value)
        self.parts += 1
        self.size += part.size
        self.height = max(self.height, part.height + 1)


def _fault(event: yaml.Event, found: str) -> ConfigError:
    return ConfigError(problem=f"found {found}", problem_mark=event.start_mark)  # type: ignore[arg-type]

"""What a config may be made of: YAML that says every thing once, and stays as small as it looks.

Knows nothing about what the settings mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

MAX_VALUES = 100_000
"""The most values of a config, each counted as often as aliases (`*name`) repeat it."""
MAX_DEPTH = 100
"""The deepest that one may stand."""
MAX_DIGITS = 400
"""The most characters of a whole number; no float has more before its point."""


class ConfigError(yaml.MarkedYAMLError):
    """YAML that is no config."""


def guard_configs() -> None:
    """Have the parsers of the command line refuse what `check_yaml` refuses, wherever they read YAML."""
    load = get_loader("yaml")
    if load.__module__ == __name__:
        return

    def read(text: str) -> Any:
        check_yaml(text)
        return load(text)

    set_loader("yaml", read, (yaml.YAMLError,))


def check_yaml(text: str) -> None:
    """Refuse YAML that would be misread, or that would take all the memory.

    Raises:
        yaml.YAMLError: If it is no YAML, names a key twice, has a number that no float can be, is nested too deeply or
            within itself, or repeats itself by its aliases into more than `MAX_VALUES`.
    """
    root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if root is not None:
        _size(root, {}, 1)


def _size(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """The values of a node, itself among them; `sizes` keeps what is known."""
    if id(node) in sizes:
        return sizes[id(node)]
    if depth > MAX_DEPTH:
        raise _fault(node, f"more than {MAX_DEPTH} values deep in each other, or one in itself")
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
        raise _fault(node, f"a number of {len(node.value)} characters, expected at most {MAX_DIGITS}")
    size = 1 + sum(_size(inner, sizes, depth + 1) for inner in _within(node))
    if size > MAX_VALUES:
        raise _fault(node, f"more than {MAX_VALUES} values, with those that aliases repeat")
    sizes[id(node)] = size
    return size


def _within(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        named = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in named:
                    raise _fault(key, f"{key.value!r} a second time: a key stands once, as only its last value counts")
                named.add(key.value)
            yield from (key, value)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _fault(node: yaml.Node, found: str) -> ConfigError:
    return ConfigError(problem=f"found {found}", problem_mark=node.start_mark)

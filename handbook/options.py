"""The page of all options, made from the parsers and the docstrings: nothing is listed here by hand."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback

from opcod import callbacks, cli, commands, completion
from opcod.data.sources import QuestionSource
from opcod.students import Student, Students

RUN = "fit"
"""The command whose options the others on a run share."""

_NOT_SHOWN = ("_HelpAction", "_ActionHelpClassPath", "_ActionConfigLoad", "ActionLink")
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
_NUMBERS = {"PositiveInt": "whole number above 0", "NonNegativeInt": "whole number of at least 0"}
_TRAINER = "https://lightning.ai/docs/pytorch/stable/common/trainer.html#trainer-class-api"
_INTRODUCTION = f"""# Options

Every option of every command, as the program itself has it: this page is made from the code. In a config file the
dots are levels: `--model.gate.tau 0.3` is

```yaml
model:
  gate:
    tau: 0.3
```

Later files and options win. A list is extended by `+=`, as in `--trainer.callbacks+=TeacherGapTable`.
`--print_config` prints what a stack of files and options comes to.

The options of `--trainer` are those of [Lightning's Trainer]({_TRAINER}). Some have other defaults here:
"""


@dataclass(frozen=True)
class Option:
    """An option as the page shows it.

    Args:
        key: Its name, without the dashes.
        kind: Its type in words.
        default: As a config file has it; empty where it has none.
        help: What it does.
        required: Whether a command does not run without it.
        positional: Whether it is given by its place.
    """

    key: str
    kind: str
    default: str
    help: str
    required: bool
    positional: bool


@cache
def parser_of(command: str) -> ArgumentParser:
    """The parser of a command's options, as the program itself has it."""
    return completion.parser_of(command)


def page() -> str:
    """The page in Markdown."""
    return "\n".join([_INTRODUCTION, *_trainer_defaults(), "", *_commands(), *_methods(), *_classes()])


def callback_classes() -> list[type]:
    """The callbacks that opcod brings along."""
    found = [getattr(callbacks, name) for name in callbacks.__all__]
    for path in commands.CALLBACKS:
        module, _, name = f"opcod.callbacks.{path}".rpartition(".")
        found.append(getattr(importlib.import_module(module), name))
    return [c for c in dict.fromkeys(found) if issubclass(c, Callback)]


def source_classes(of: type = QuestionSource) -> Iterator[type]:
    """The sources of questions that opcod brings along."""
    for found in of.__subclasses__():
        if not inspect.isabstract(found) and found.__module__.startswith("opcod."):
            yield found
        yield from source_classes(found)


def _trainer_defaults() -> Iterator[str]:
    for name, value in commands.DEFAULTS.items():
        yield f"- `--trainer.{name}`: `{_plain(value)}`"
    names = (path.rpartition(".")[2] for path in commands.CALLBACKS)
    yield f"- `--trainer.callbacks`: {', '.join(_link(name) for name in names)}"


def _commands() -> Iterator[str]:
    found = {name: _options(parser_of(name)) for name in cli.COMMANDS}
    of_a_run, of_a_specialist = _keys(found[RUN]), _keys(found["specialise"]) - {"output"}
    for name, options in found.items():
        yield from (f"## opcod {name}", "", _sentence(cli.COMMANDS[name]), "")
        if name != RUN and {"model", "data.steps"} <= _keys(options):
            yield f"All options of {_link(f'opcod {RUN}')}, the method's among them."
            if name == "plan":
                yield f"Named behind it, {_link('opcod solve')} and {_link('opcod specialise')} take their own instead."
            options = [o for o in options if o.key not in of_a_run or o.key == "ckpt_path"]
        elif name == "solve":
            yield f"All options of {_link('opcod specialise')} that are about the student and the questions."
            options = [o for o in options if o.key not in of_a_specialist]
        elif name == RUN:
            yield f"`--model` names the method: {', '.join(_link(m.__name__) for m in commands.METHODS)}."
        hidden = ("model", "print_config") if name == RUN else ("print_config",)
        yield from ("", *_listed([o for o in options if o.key not in hidden and not o.key.startswith("trainer")]))


def _methods() -> Iterator[str]:
    shared = set(inspect.signature(Students.__init__).parameters) - {"students"}
    yield from ("## Every method", "", "What all of the methods below take as well.", "")
    yield from _listed([o for o in _class_options(commands.METHODS[0], "model") if _second(o) in shared - {"seed"}])
    for method in commands.METHODS:
        yield from _heading(method)
        yield from _listed([o for o in _class_options(method, "model") if _second(o) not in shared])
    yield from _heading(Student, "One of the list that `--model.students` takes.")
    yield from _listed(_class_options(Student, None), dashes="")


def _classes() -> Iterator[str]:
    yield from ("## Sources of questions", "", "What `--data.source` may name.", "")
    for source in source_classes():
        yield from _heading(source, level=3)
        yield from _listed(_class_options(source, "data.source"))
    yield from ("## Callbacks", "", "What `--trainer.callbacks` may name; `--trainer.callbacks+=NAME` adds one.", "")
    for callback in callback_classes():
        yield from _heading(callback, level=3)
        yield from _listed(_class_options(callback, "trainer.callbacks"))


def _listed(options: Sequence[Option], *, dashes: str = "--") -> Iterator[str]:
    """A definition list of options."""
    for option in options:
        key = option.key.upper() if option.positional else dashes + option.key
        what = [option.kind, "required" if option.required else option.default and f"default `{option.default}`"]
        yield f'`{key}` <span class="kind">{", ".join(w for w in what if w)}</span>'
        yield from (f":   {_sentence(option.help) or '&nbsp;'}", "")


def _heading(described: type, more: str = "", *, level: int = 2) -> Iterator[str]:
    """A class's name, and its docstring without the arguments."""
    text = inspect.getdoc(described) or ""
    for section in ("\nArgs:", "\nRaises:"):
        text = text.partition(section)[0]
    yield from (f"{'#' * level} {described.__name__}", "", _text(text), more, "")


def _options(parser: argparse.ArgumentParser) -> list[Option]:
    return [
        Option(
            action.dest,
            _either(action.choices) if action.choices else _kind(_annotation(action)),
            "" if action.default in (None, argparse.SUPPRESS) else _plain(action.default),
            _text(action.help),
            required=bool(action.required),
            positional=not action.option_strings,
        )
        for action in parser._actions
        if type(action).__name__ not in _NOT_SHOWN
    ]


def _class_options(described: type, key: str | None) -> list[Option]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(described, key)
    return _options(parser)


def _annotation(action: Any) -> Any:
    if type(action).__name__ == "_StoreTrueAction":
        return bool
    return None if type(action).__name__ == "ActionConfigFile" else getattr(action, "_typehint", action.type)


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in (None, inspect.Parameter.empty):
        return ""
    if origin is Literal:
        return _either(inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(i) for i in inner))
    if origin is dict:
        return f"mapping of {_kind(inner[0])} to {_kind(inner[1])}"
    if origin is not None and inner:
        return f"list of {_kind(inner[0])}"
    if annotation in _WORDS:
        return _WORDS[annotation]
    name = getattr(annotation, "__name__", str(annotation))
    if name in _NUMBERS:
        return _NUMBERS[name]
    if annotation is QuestionSource:
        return _link("Sources of questions")
    if annotation is Student:
        return _link(name)
    return f"`{name}`" + (" with its keys" if is_dataclass(annotation) else "")


def _either(values: Iterable[Any]) -> str:
    return " or ".join(f"`{value}`" for value in values)


def _plain(value: Any) -> str:
    """A default as a config file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"


def _text(text: str | None) -> str:
    """In one line, and without what Markdown would take for HTML."""
    line = " ".join((text or "").replace("``", "`").split())
    return re.sub("(`[^`]*`)|<", lambda found: found[1] or "&lt;", line)


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a symbol such as n, and a full stop."""
    begun = text if re.match(r"\w\b", text) else text[:1].upper() + text[1:]
    return begun + ("" if not text or text.endswith((".", ")")) else ".")


def _link(heading: str) -> str:
    return f"[{heading}](#{heading.lower().replace(' ', '-')})"


def _keys(options: Sequence[Option]) -> set[str]:
    return {option.key for option in options}


def _second(option: Option) -> str:
    return option.key.split(".")[1]

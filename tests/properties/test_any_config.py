"""Of any config: it is taken, or is refused with status 1 or 2 and in words."""

import copy
from functools import cache

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from commands_shown import ROOT
from opcod import cli, commands
from opcod.completion import parser_of
from opcod.settings import MAX_DEPTH, MAX_VALUES, check_yaml
from tiny import run_config

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["", "x", "..", "/", "null", "1e999", ".nan", "os.system", "CoDistillation", "-1", "a.b", "{", "%s", "*"]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class_path", "init_args", "name", "domain", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@cache
def whole_config():
    return run_config(ROOT)  # the model is not loaded


def places(config, path=()):
    """The way to every setting, and to every group of them."""
    if path:
        yield path
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for name, value in items:
        yield from places(value, (*path, name))


@st.composite
def spoilt(draw):
    """A config that works but for one or two settings."""
    config = copy.deepcopy(whole_config())
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(list(places(config))))
        inner = config
        for name in way:
            inner = inner[name]
        inner[last] = draw(VALUES)
    return config


@cache
def parser(command):
    return parser_of(command)


def refused(error):
    """That the program would say it in words, and with which status."""
    said = cli.explain(error)
    assert said is not None, repr(error)
    assert said.strip()


@given(
    st.sampled_from(["fit", "reproduce", "specialise"]), st.binary(max_size=60) | st.text(max_size=60).map(str.encode)
)
def test_any_file_is_a_config_or_is_refused_in_words(tmp_path, command, content):
    (tmp_path / "config.yaml").write_bytes(content)
    try:
        parser(command).parse_args(["-c", str(tmp_path / "config.yaml")])
    except Exception as error:
        refused(error)


@settings(max_examples=15)
@given(config=spoilt())
def test_a_run_is_built_from_its_config_or_is_refused_in_words(tmp_path, config):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    try:
        commands.CoDistil(["-c", str(tmp_path / "config.yaml"), f"--trainer.default_root_dir={tmp_path}"], run=False)
    except Exception as error:
        refused(error)


@settings(max_examples=8)
@given(config=spoilt())
def test_the_program_ends_with_a_documented_status(tmp_path, capsys, config):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", "-c", str(tmp_path / "config.yaml"), "--print_config"])
    said = capsys.readouterr().err
    assert stopped.value.code in (None, 0, 1, 2)
    assert "Traceback" not in said
    assert ("opcod: error: " in said) == (stopped.value.code in (1, 2))


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=4))
def test_plain_settings_are_taken_for_what_they_are(settings):
    check_yaml(yaml.safe_dump(settings, allow_unicode=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)),
            "more than",
        ),
        ("a: &a [*a]", "within what it stands for"),
        ("a: &a {b: *a}", "within what it stands for"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} values in each other"),
        ("[" * 900, "more than 100 values in each other"),
        ("[" * 100_000, "more than 100 values in each other|maximum nesting depth"),  # PyYAML 6.0.4's own words
        ("- " * 100_000, "more than 100 values in each other"),
        ("a: 1\nb: 2\na: 3", "'a' a second time"),
        ("a: {b: 1, b: 2}", "'b' a second time"),
        ("[" + "1," * MAX_VALUES + "]", "more than 100000 values"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200)), "values in each other"),
        ("a: \x00", "control characters"),
    ],
    ids=range(12),
)
def test_what_no_config_is_made_of_is_refused(text, said):
    with pytest.raises(yaml.YAMLError, match=said):
        check_yaml(text)


def test_an_alias_may_repeat_settings():
    check_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}")
    check_yaml("")

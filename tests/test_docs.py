"""The documentation: it builds, loads nothing from elsewhere, and leaves no option and no warning out."""

import ast
import inspect
import re
from html.parser import HTMLParser

import pytest
from handbook import linked, maths, options
from mkdocs.commands.build import build
from mkdocs.config import load_config

from commands_shown import ROOT, files_in_page, in_page
from opcod import cli, commands

SOURCES = sorted((ROOT / "src/opcod").rglob("*.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture(scope="module")
def listed():
    return options.page()


class Loaded(HTMLParser):
    """The addresses that a page makes a browser load."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag != "a" and found.get("rel") != "canonical":
            self.addresses += [found[name] for name in ("src", "href", "data", "srcset") if found.get(name)]


def test_the_site_builds_strictly_with_all_its_pages(site):
    for page in ("index", "tutorial", "concepts", "options", "recipes", "troubleshooting", "design", "citation"):
        assert (site / f"{page}.html").is_file()
    assert (site / "results/reproduce-tiny/index.html").is_file(), "folders that are linked to have pages"
    config = (site / "files/configs/base.yaml.html").read_text(encoding="utf-8")
    assert config.count("<h1") == 1, "and so have files outside docs/, as code"


@pytest.mark.parametrize(
    ("page", "head", "written"),
    [
        ("README.md", "## Source", r"`(?:src/opcod/)?{}(?:\.py)?`"),
        ("docs/design.md", "## Rooms", r"\[{0}\]\(\.\./src/opcod/{0}\.py\)"),
    ],
)
def test_every_room_is_named_once(page, head, written):
    text = (ROOT / page).read_text(encoding="utf-8")
    table = text[text.index(head) :]
    rooms = {p.stem for p in (ROOT / "src/opcod").glob("*.py")} - {"__init__"}
    named = {room: len(re.findall(written.format(room), table)) for room in rooms}
    assert {room: count for room, count in named.items() if count != 1} == {}


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        outside = [a for a in loaded.addresses if re.match(r"(?:https?:)?//", a)]
        assert not outside, f"{page.relative_to(site)} loads {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8"))


def test_formulas_are_markup_and_no_script(site):
    assert maths.fence("a_i = 1\n\nb").count("<math ") == 2
    assert "<math " in (site / "concepts.html").read_text(encoding="utf-8")


# ---- options


def shown(capsys, *arguments):
    with pytest.raises(SystemExit):
        cli.main(list(arguments))
    return capsys.readouterr().out


def keys_in(printed):
    return set(re.findall(r"^ +(?:-\w,? ?(?:[A-Z]+,? )?)?--([\w.]+)", printed, re.MULTILINE))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_that_a_command_helps_with_is_listed(command, listed, capsys):
    keys = keys_in(shown(capsys, command, "--help"))
    hidden = {"help", "print_config", "model", "model.help", "data", "data.source.help"}
    found = {key for key in keys - hidden if not key.startswith("trainer") and not key.endswith(".help")}
    groups = {key for key in found if any(other.startswith(f"{key}.") for other in found)}
    assert found or len(options.parser_of(command)._actions) <= 2, "no option but help, and perhaps a positional one"
    for key in found - groups:
        assert f"`--{key}`" in listed, f"opcod {command} --{key}"


@pytest.mark.parametrize("method", [m.__name__ for m in commands.METHODS])
def test_every_option_of_a_method_is_listed(method, listed, capsys):
    section = listed.partition(f"\n## {method}\n")[2].partition("\n## ")[0]
    shared = listed.partition("\n## Every method\n")[2].partition("\n## ")[0]
    keys = {k for k in keys_in(shown(capsys, "fit", "--model.help", method)) if k.startswith("model.")}
    assert len(keys) > 20
    groups = {key for key in keys if any(other.startswith(f"{key}.") for other in keys)}
    for key in {key for key in keys - groups if not key.endswith(".help")} - {"model.seed"}:
        assert f"`--{key}`" in section + shared, key


@pytest.mark.parametrize(
    "described", [*options.callback_classes(), *options.source_classes()], ids=lambda c: c.__name__
)
def test_every_argument_of_a_callback_and_of_a_source_is_listed(described, listed):
    section = listed.partition(f"\n### {described.__name__}\n")[2].partition("\n### ")[0]
    assert section
    for name in list(inspect.signature(described).parameters):
        assert re.search(rf"\.{name}[`.]", section), name  # itself, or what it consists of


def test_an_option_has_its_type_its_default_and_its_help(listed):
    assert '`--model.gate.tau` <span class="kind">number, default `0.2`</span>\n:   The largest gap' in listed
    assert '`RUNS` <span class="kind">text, required</span>' in listed
    assert '`--dtype` <span class="kind">`float32` or `bfloat16`, default `float32`</span>' in listed


# ---- warnings

INDIRECT = {
    ("records.py", "death"): "deaths_of",
    ("callbacks/collapse_watch.py", "sign"): "signs",
    ("callbacks/tutor_watch.py", "doubt"): "doubts",
    ("callbacks/size_check.py", "_beyond(excess)"): "_beyond",
    ("callbacks/size_check.py", "'\\n'.join(lines)"): "_of",
    ("data/sciknoweval.py", "'%s %s'"): "load",
}
"""Where a warning's text is made elsewhere: file and first argument -> the function whose texts it has."""


def texts_of(node):
    """The longest stretch of each literal text below a node that has no gap in it."""
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            fixed = [v.value for v in part.values if isinstance(v, ast.Constant)]
            yield max(fixed, key=len, default="").strip()
    inside = {id(v) for p in ast.walk(node) if isinstance(p, ast.JoinedStr) for v in ast.walk(p)}
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in inside:
            yield part.value.strip()


def warned():
    """(file, text) of every warning in the sources."""
    for path in SOURCES:
        name = path.relative_to(ROOT / "src/opcod").as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in [n for n in ast.walk(tree) if isinstance(n, ast.Call)]:
            called = ast.unparse(call.func)
            if not re.fullmatch(r"warnings\.warn|rank_zero_warn|log(?:ger|ging)?\.warning", called):
                continue
            literal = isinstance(call.args[0], ast.JoinedStr) or len(ast.unparse(call.args[0])) > 20
            if (name, ast.unparse(call.args[0])) in INDIRECT:
                yield from ((name, text) for text in indirect(tree, INDIRECT[name, ast.unparse(call.args[0])]))
            else:
                texts = list(texts_of(call.args[0])) if literal else []
                assert texts, f"{name}:{call.lineno}: where does this warning's text stand? Say so in INDIRECT"
                yield from ((name, text) for text in texts)


def indirect(tree, function):
    if function == "load":  # the first argument of each call
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "_report"]
        return [text for call in calls for text in texts_of(call.args[0])]
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
    bodies = [n for n in ast.walk(found) if isinstance(n, ast.Call) and ast.unparse(n.func) == "deaths.append"]
    bodies = bodies or [n for n in ast.walk(found) if isinstance(n, ast.Return)]
    return [text for body in bodies for text in texts_of(body)]


def test_every_warning_has_an_entry_under_troubleshooting():
    page = " ".join((ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").split())
    found = {(name, " ".join(text.split())) for name, text in warned()}
    assert len(found) > 8
    for name, text in sorted(found):
        if len(text) > 12:  # units and signs are no text
            assert text.rstrip(":; ") in page, f"{name} warns of {text!r}: docs/troubleshooting.md has no such entry"


# ---- commands

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [(page, command) for page in PAGES for command in in_page(page)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder as a reader has it: the configs, the files that the pages ask for, and the configs of runs."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs").symlink_to(ROOT / "configs")
    for page in PAGES:
        for name, text in files_in_page(page).items():
            (folder / name).write_text(text, encoding="utf-8")
    parser = options.parser_of("fit")
    stack = [f"--config={ROOT}/configs/{name}.yaml" for name in ("base", "pair-physics-chemistry", "size-demo")]
    for run in ("version_0", "version_1"):
        (folder / "runs" / run).mkdir(parents=True)
        parser.save(parser.parse_args(stack), folder / "runs" / run / "config.yaml", skip_unset=False)
    return folder


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{p.stem}: {' '.join(c)}" for p, c in SHOWN])
def test_a_command_that_a_page_shows_is_accepted(page, command, desk, monkeypatch):
    monkeypatch.chdir(desk)
    assert command[0] in cli.COMMANDS
    named = 2 if command[0] == "plan" and command[1] in cli.PLANNED else 1
    options.parser_of(" ".join(command[:named])).parse_args(commands.with_questions(command[named:]))


def test_the_pages_show_commands():
    assert {page.stem for page, _ in SHOWN} >= {"README", "tutorial", "results", "recipes"}


# ---- links out of the documentation


def test_links_beyond_the_documentation_lead_to_pages_of_their_own():
    text = "[a](../configs/base.yaml), ![p](results/x/y.svg), [b](results/reproduce-tiny), [c](concepts.md#step)"
    found = list(linked.targets(text, "docs/tutorial.md"))
    assert found == ["configs/base.yaml", "docs/results/reproduce-tiny", "docs/concepts.md"]
    pages = {target: place for name in found for target, place in linked.places(name, ROOT).items()}
    assert pages == {
        "configs/base.yaml": "files/configs/base.yaml.md",
        "docs/results/reproduce-tiny": "results/reproduce-tiny/index.md",
    }
    moved = linked.rewritten(text, "docs/tutorial.md", pages)
    assert "[a](files/configs/base.yaml.md)" in moved
    assert "[b](results/reproduce-tiny/index.md)" in moved
    assert moved.endswith("[c](concepts.md#step)")


def test_a_file_with_fences_of_its_own_is_shown_whole(tmp_path):
    (tmp_path / "a.md").write_text("```sh\nls\n```\n", encoding="utf-8")
    assert linked.page_of("a.md", tmp_path).count("````") == 2
    (tmp_path / "b.yaml").write_text("# with `code` in it\na: 1\n", encoding="utf-8")
    assert linked.page_of("b.yaml", tmp_path) == "# b.yaml\n\n```yaml\n# with `code` in it\na: 1\n```\n"

"""The files around the code agree with it and with each other."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from commands_shown import ROOT
from opcod import __version__
from opcod.commands import METHODS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_names_this_version_and_both_papers():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert [r["identifiers"][0]["value"] for r in citation["references"]] == ["arXiv:2606.14368", "arXiv:2601.20802"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_that_is_linked_is_there(name):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text(name))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("file", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem)
def test_an_issue_form_asks_something(file):
    form = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.stem != "config":
        assert form["name"]
        assert form["description"]
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids) > 0


def test_the_constraints_have_an_exact_version_of_every_dependency():
    lines = [line for line in text("constraints.txt").splitlines() if not line.startswith("#")]
    exact = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    extras = PROJECT["optional-dependencies"]
    for line in (*PROJECT["dependencies"], *extras["dev"], *extras["docs"], *extras["math"]):
        wanted = Requirement(line)
        if wanted.name == "opcod":  # an extra of its own
            continue
        assert wanted.specifier.contains(exact[canonicalize_name(wanted.name)], prereleases=True), line
    assert len(exact) == len(lines)


def test_the_guide_names_what_one_subclasses():
    guide = text("CONTRIBUTING.md")
    assert {"QuestionSource", "Students", "METHODS"} <= set(re.findall(r"`(\w+)`", guide))
    base = METHODS[0].__mro__[1]
    assert base.__name__ == "Students"
    for name in ("roll_out", "update", "keep", "training_step"):
        assert f"`{name}`" in guide
        assert callable(getattr(base, name))

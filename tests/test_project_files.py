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

UNLOCKED = {"trl", "sentencepiece"}  # what `make bench` takes, and what no extra asks for


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_names_this_version_and_both_papers():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert [r["identifiers"][0]["value"] for r in citation["references"]] == ["arXiv:2606.14368", "arXiv:2601.20802"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
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


def locked():
    """Of requirements.lock: name -> (version, marker, hashes)."""
    entries = re.findall(
        r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)((?: ;.*)?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        text("requirements.lock"),
        re.MULTILINE,
    )
    return {canonicalize_name(name): (version, hashes.count("sha256:")) for name, version, _, hashes in entries}


def test_the_lock_has_the_constraints_versions_and_a_hash_of_every_file():
    lines = [line for line in text("constraints.txt").splitlines() if not line.startswith("#")]
    exact = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    lock = locked()
    assert len(lock) == len(re.findall(r"^\S+==", text("requirements.lock"), re.MULTILINE))
    assert {name: version for name, (version, _) in lock.items() if name in exact} == {
        name: version for name, version in exact.items() if name in lock
    }
    missing = exact.keys() - lock.keys()
    assert missing <= UNLOCKED, missing
    assert "://" not in text("requirements.lock")  # no index of anybody's own


@pytest.mark.parametrize("file", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda p: p.stem)
def test_a_workflow_has_least_rights_and_pinned_actions(file):
    said = file.read_text(encoding="utf-8")
    workflow = yaml.safe_load(said)
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets" not in said
    assert "pull_request_target" not in said
    for name, job in workflow["jobs"].items():
        assert "permissions" not in job, name
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"] == {"persist-credentials": False}

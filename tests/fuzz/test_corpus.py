"""What fuzzing began with and what it found, as tests: a reader fails by the errors that it documents alone."""

import importlib
from pathlib import Path

import pytest

CORPUS = sorted(Path(__file__).parent.glob("corpus/*/*"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_file_is_read_or_refused_as_documented(path):
    importlib.import_module(f"fuzz_{path.parent.name}").examine(path.read_bytes())


def test_the_corpus_is_small_and_of_every_target():
    assert {p.parent.name for p in CORPUS} == {
        p.stem.removeprefix("fuzz_") for p in Path(__file__).parent.glob("fuzz_*.py")
    }
    assert sum(p.stat().st_size for p in CORPUS) < 200_000

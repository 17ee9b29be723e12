"""Fuzz one reader by coverage: `python tests/fuzz/run.py TARGET [libFuzzer's options]`, as `make fuzz` does.

What it finds is written to runs/fuzz/TARGET; once it is mended, it goes to the corpus, whose files are ordinary tests.
"""

import importlib
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
TARGETS = ("questions", "answers", "feedback", "config", "checkpoint")
LIMITS = ("-runs=1000000", "-max_total_time=600", "-timeout=120", "-rss_limit_mb=6000")


def main(target: str, *options: str) -> None:
    """Fuzz until a million executions, ten minutes or a finding."""
    found = Path("runs", "fuzz", target)
    (found / "corpus").mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["opcod"]):
        examine = importlib.import_module(f"fuzz_{target}").examine
    words = HERE / "words" / f"{target}.dict"
    if words.is_file():
        options = (f"-dict={words}", *options)
    places = (str(found / "corpus"), str(HERE / "corpus" / target))
    atheris.Setup([sys.argv[0], f"-artifact_prefix={found}/", *LIMITS, *options, *places], examine)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name what to fuzz: {', '.join(TARGETS)}")
    main(*sys.argv[1:])

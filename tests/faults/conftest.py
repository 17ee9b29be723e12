import csv
import os
from collections import Counter
from pathlib import Path

import pytest
from runs import Server, ended_and_gone_on_with, left_by, write_config
from table import SEEN


@pytest.fixture(scope="session")
def server():
    """Runs commands."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def config(tiny_folder, tmp_path_factory):
    """Of the run that is ended everywhere."""
    return write_config(tmp_path_factory.mktemp("config"), tiny_folder)


@pytest.fixture(scope="session")
def unbroken(server, config, tmp_path_factory):
    """What the run leaves that nothing ends."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert ended_and_gone_on_with(server, config, folder) == [0]
    return left_by(folder)


def pytest_terminal_summary(terminalreporter):
    """Say how many faults were survived; write the table to the file that OPCOD_FAULTS names."""
    if not SEEN:
        return
    if table := os.environ.get("OPCOD_FAULTS"):
        with Path(table).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, SEEN[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(SEEN)
    same = Counter(row["fault"] for row in SEEN if not row["differs"])
    of_all = Counter(row["fault"] for row in SEEN)
    terminalreporter.section("runs that ended as if nothing had been")
    for fault, count in of_all.items():
        terminalreporter.write_line(f"{fault}: {same[fault]} of {count}")
    terminalreporter.write_line(f"all: {same.total()} of {of_all.total()}")

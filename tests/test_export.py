"""A folder that is written: whole or not at all."""

import pytest

from opcod.export import check_output, write_folder
from opcod.models import ModelError


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "deep" / "ann"
    for content in ("old", "new"):
        write_folder(folder, lambda scratch, content=content: (scratch / f"{content}.txt").write_text(content))
    assert [path.name for path in folder.iterdir()] == ["new.txt"]
    assert [path.name for path in folder.parent.iterdir()] == ["ann"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_filled_leaves_the_older_one_and_nothing_half_written(tmp_path):
    def fails(scratch):
        (scratch / "half.txt").write_text("half")
        raise OSError("no space")

    write_folder(tmp_path / "ann", lambda scratch: (scratch / "old.txt").write_text("old"))
    with pytest.raises(OSError, match="no space"):
        write_folder(tmp_path / "ann", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["ann"]
    assert [path.name for path in (tmp_path / "ann").iterdir()] == ["old.txt"]


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({}, True),
        ({"config.json": "", "README.md": "made by opcod 0.1"}, True),
        ({"config.json": "", "README.md": "made by hand"}, False),
        ({"config.json": ""}, False),
        ({"README.md": "made by opcod 0.1"}, False),
        ({"config.json": "", "README.md": "made by opcod 0.1", "more/thesis.tex": ""}, False),
    ],
)
def test_what_opcod_did_not_write_is_not_replaced(files, allowed, tmp_path):
    folder = tmp_path / "out"
    check_output(folder, marker="config.json")  # it is not there yet
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    if allowed:
        check_output(folder, marker="config.json")
    else:
        with pytest.raises(ModelError, match=r"out exists and holds something else than an earlier config\.json"):
            check_output(folder, marker="config.json")

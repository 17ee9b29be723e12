"""The configs that `opcod init` writes."""

import filecmp
import shlex

import pytest

from commands_shown import ROOT, in_makefile
from opcod import cli


def test_init_writes_every_config_and_the_command_to_begin_with(tmp_path, capsys):
    cli.main(["init", str(tmp_path / "mine")])
    compared = filecmp.dircmp(tmp_path / "mine" / "configs", ROOT / "configs")
    assert compared.left_list == compared.right_list
    assert not compared.diff_files
    assert (tmp_path / "mine" / "configs" / "example" / "train.jsonl").is_file()
    printed = capsys.readouterr().out
    assert f"cd {tmp_path / 'mine'}\n" in printed
    (begin,) = [line.strip() for line in printed.splitlines() if "opcod fit" in line]
    assert shlex.split(begin)[1:] in in_makefile()


def test_init_names_a_folder_as_a_shell_takes_it(tmp_path, capsys):
    folder = tmp_path / "mine, and the dog's"
    cli.main(["init", str(folder)])
    (goes,) = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  cd ")]
    assert shlex.split(goes) == ["cd", str(folder)]


def test_init_leaves_configs_that_are_there(tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["init", str(tmp_path)])
    assert stopped.value.code == cli.FAILURE
    assert "is left as it is" in capsys.readouterr().err
    assert (tmp_path / "configs" / "base.yaml").read_text(encoding="utf-8") == "mine"

"""The completion scripts, sourced by the shells they are for."""

import shutil
import subprocess

import pytest

from opcod import cli, completion


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """A file with bash's script, as the command prints it."""
    path = tmp_path_factory.mktemp("completion") / "opcod"
    path.write_text(completion.script("bash"), encoding="utf-8")
    return path


def completed(script, *words):
    """What bash offers for the last of the words."""
    program = """
        source "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
        $(complete -p opcod | sed -E 's/.* -F ([^ ]+) .*/\\1/') opcod "${COMP_WORDS[-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "--norc", "-c", program, "bash", str(script), "opcod", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_script_is_valid_bash(bash):
    subprocess.run(["bash", "-n", bash], check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["fi"], {"fit", "figures"}),
        (["export", "--che"], {"--checkpoint"}),
        (["export", "--role", ""], {"student", "teacher"}),
        (["fit", "--model.gate."], {"--model.gate.strategy", "--model.gate.tau"}),
        (["plan", "--device", "rtx"], {"rtx4090"}),
        (["plan", "s"], {"solve", "specialise"}),
        (["doctor", "-"], {"-h", "--help"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["--v"], {"--version"}),
        (["frobnicate", "--che"], set()),
    ],
)
def test_bash_completes_commands_options_and_values(words, offered, bash):
    assert set(completed(bash, *words)) == offered


def test_bash_completes_every_command(bash):
    assert set(completed(bash, "")) >= set(cli.COMMANDS)


def test_bash_completes_a_config_by_its_file(bash, tmp_path, monkeypatch):
    (tmp_path / "my.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert completed(bash, "fit", "-c", "my") == ["my.yaml"]


def test_what_is_offered_can_be_typed(bash):
    """Linked options, which stand among the parser's, are none that a command takes."""
    assert all(option[0] == "-" and option != "-->" for option in completed(bash, "fit", "-"))


@pytest.fixture
def script_of(tmp_path):
    """A file with a shell's script, where there is that shell."""

    def write(shell):
        if shutil.which(shell) is None:
            pytest.skip(f"no {shell}")
        (tmp_path / "script").write_text(completion.script(shell), encoding="utf-8")
        return tmp_path / "script"

    return write


def test_the_script_is_valid_zsh(script_of):
    subprocess.run(["zsh", "-n", script_of("zsh")], check=True)


def test_fish_completes_as_bash_does(script_of):
    asked = f"source {script_of('fish')}; complete -C 'opcod fi'; complete -C 'opcod export --che'"
    done = subprocess.run(["fish", "--no-config", "-c", asked], capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["figures", "fit", "--checkpoint"]

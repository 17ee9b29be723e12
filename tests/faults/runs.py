"""Runs that are ended by a fault and gone on with, beside one that nothing ended."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

from tiny import run_config

TESTS = Path(__file__).parents[1]
TIMED = ("seconds/", "tokens_per_second/")


class Server:
    """The process that runs commands."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, arguments, log, fault=None, meanwhile=lambda process: None):
        """Run a command; returns its status.

        Args:
            arguments: What follows `opcod`.
            log: File that its output is added to.
            fault: What `faulty.arm` takes.
            meanwhile: Called with the process's id when it has begun.
        """
        job = {"arguments": list(map(str, arguments)), "log": str(log), "fault": fault}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        meanwhile(int(self.process.stdout.readline()))
        return int(self.process.stdout.readline())

    def stop(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait()


def write_config(folder, model, *, steps=2, rounds=2, **settings):
    """Write the config of a short run, which saves in the middle of its rounds too, and return its path.

    Args:
        folder: Where to.
        model: The base model's folder.
        steps: Of a phase.
        rounds: Of the run.
        **settings: Of the students.
    """
    config = run_config(model)
    config["model"] |= settings
    config["data"]["steps"], config["trainer"]["max_epochs"] = steps, rounds
    names = ["CleanStop", "SampleTable", "OutcomeTable"]
    callbacks = [{"class_path": f"opcod.callbacks.{name}"} for name in names]
    checkpoints = {"class_path": "opcod.callbacks.RoundCheckpoint", "init_args": {"every_n_steps": 2}}
    progress = {"class_path": "opcod.callbacks.RoundProgress", "init_args": {"plain": True}}
    config["trainer"]["callbacks"] = [*callbacks, checkpoints, progress]
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def first(config, folder):
    """The command that begins a run whose files go to `folder`."""
    return ["fit", "-c", config, f"--trainer.logger.init_args.save_dir={folder}"]


def versions(folder):
    """A run's folders, the oldest first."""
    return sorted(folder.glob("version_*"), key=lambda v: int(v.name.removeprefix("version_")))


def last_checkpoint(folder):
    """The newest `last.ckpt` of a run's folders, if there is one."""
    found = [v / "checkpoints" / "last.ckpt" for v in versions(folder)]
    return next((path for path in reversed(found) if path.exists()), None)


def next_command(config, folder, status, said):
    """The command that goes on with a run that ended, as the run itself says it, or as one finds it after a kill."""
    last = last_checkpoint(folder)
    told = re.findall(r"To go on:\nopcod (.*)", said)
    if status == -signal.SIGKILL or not told:
        assert status == -signal.SIGKILL or last is None, f"status {status}, and nothing says how to go on"
        return [*first(config, folder), *([f"--ckpt_path={last}"] if last else [])]
    command = shlex.split(told[-1])
    assert last is not None
    assert Path(command[command.index("--ckpt_path") + 1]).samefile(last)
    return command


def ended_and_gone_on_with(server, config, folder, *faults, log=None, between=lambda: None):
    """Run, with one fault after another, until the run has come to its end.

    Args:
        server: Which runs it.
        config: Of the run.
        folder: Of its files.
        *faults: What `faulty.arm` takes, or a number of seconds after which it is killed from outside.
        log: File of what is said; by default beside the folder.
        between: Called after each fault.

    Returns:
        The statuses of all processes.
    """
    statuses, command, log = [], first(config, folder), log or folder.with_suffix(".log")
    for fault in (*faults, None):
        told = log.stat().st_size if log.exists() else 0
        if isinstance(fault, int | float):
            status = server.run(command, log, meanwhile=killed_after(fault))
        else:
            status = server.run(command, log, fault)
        statuses.append(status)
        if status == 0:
            break
        said = log.read_bytes()[told:].decode(errors="replace")
        assert fault is not None, said
        command = next_command(config, folder, status, said)
        between()
    return statuses


def killed_after(seconds):
    """What kills a process after so long, unless it has ended."""

    def kill(process):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)

    return kill


def left_by(folder):
    """All that a run left, over all of its folders, but for what tells how long something took."""
    last = torch.load(last_checkpoint(folder), weights_only=True)
    names = ("opcod", "optimizer_states", "lr_schedulers", "epoch", "global_step")
    callbacks = {name: last["callbacks"][name] for name in ("SampleTable", "OutcomeTable")}
    final = versions(folder)[-1]
    files = {name: (final / name).read_text("utf-8") for name in ("outcome.json", "answers.csv")}
    return {
        **{name: last[name] for name in names},
        "callbacks": callbacks,
        "samples": samples_of(folder),
        "metrics": metrics_of(folder),
        "files": files,
    }


def samples_of(folder):
    """Step -> rows of `samples.jsonl`, those of the latest process that made the step."""
    rows = {}
    for version in versions(folder):
        path, of_version = version / "samples.jsonl", {}
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if line.endswith(b"\n"):
                row = json.loads(line)
                of_version.setdefault((row["round"], row["phase"], row["step"]), []).append(row)
        rows |= of_version
    return rows


def metrics_of(folder):
    """(step, whether of a validation) -> what was logged, by the latest process that logged it."""
    rows = {}
    for version in versions(folder):
        path = version / "metrics.csv"
        with path.open(newline="") if path.exists() else open(os.devnull) as file:
            for row in csv.DictReader(file):
                told = {name: value for name, value in row.items() if value and not name.startswith(TIMED)}
                if told.get("step"):
                    rows[told["step"], "rounds" in told] = told
    return rows


def difference(one, other, where=""):
    """The first place in which two of these differ; None if there is none."""
    if type(one) is not type(other):
        return f"{where}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{where}: {sorted(map(str, one.keys() ^ other.keys()))} in one of them"
        pairs = [(key, one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            return f"{where}: {len(one)} and {len(other)} long"
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor):
        return None if torch.equal(one, other) else f"{where}: other numbers"
    else:
        return None if one == other or (one != one and other != other) else f"{where}: {one} and {other}"
    return next((found for key, a, b in pairs if (found := difference(a, b, f"{where}/{key}"))), None)

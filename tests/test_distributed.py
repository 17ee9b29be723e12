"""Several processes against one: the same losses, updates, scores and decisions, on the same samples."""

import csv
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from commands_shown import ROOT
from opcod.codistillation import CoDistillation
from opcod.data.loaders import QuestionBatches
from opcod.evaluation import averages
from opcod.gate import Gate
from opcod.models import ModelError
from opcod.ranks import PATIENCE, Ranks
from opcod.records import Mean, Slowest, Sum, over_ranks
from ranks_run import METHODS, module_of, run, several
from tiny import run_config

UPDATES = 3e-4
"""Largest difference of any number in an adapter after eight steps of a learning rate of 1e-2: AdamW divides what
rounding leaves of a gradient by its own size."""
FIGURES = 1e-5
"""Largest relative difference of a step's losses and norms."""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def runs_of(name, root, folder):
    """Every method on samples that all processes replay, two rounds each."""
    return [
        {
            "method": method,
            "model": str(folder),
            "folder": str(root / name / method),
            "kept": str(root / f"{method}.pt"),
            "rounds": 2,
            "every_n_steps": 1,
        }
        for method in METHODS
    ]


def free_run(name, root, folder, **more):
    """A run whose samples are its own."""
    return {"method": "codistil", "model": str(folder), "folder": str(root / name), "every_n_steps": 1, **more}


PARALLEL = {"settings": {"parallel_phases": True}, "rounds": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def one(root, tiny_folder):
    """What one process makes of every method; and of a run of its own."""
    replayed = [run(described) for described in runs_of("one", root, tiny_folder)]
    return dict(zip(METHODS, replayed, strict=True)) | {"free": run(free_run("free", root, tiny_folder, rounds=2))}


@pytest.fixture(scope="module")
def two(root, tiny_folder, one):
    """What each of two processes makes of the same; and of both phases at the same time."""
    runs = [*runs_of("two", root, tiny_folder), free_run("parallel", root, tiny_folder, **PARALLEL)]
    results, _ = several(2, runs, root / "ranks2", free_port())
    return dict(zip([*METHODS, "parallel"], results, strict=True))


@pytest.fixture(scope="module")
def four(root, tiny_folder, one):
    """What each of four processes makes of it; one of them never has a question to learn from."""
    results, _ = several(4, runs_of("four", root, tiny_folder), root / "ranks4", free_port())
    return dict(zip(METHODS, results, strict=True))


def assert_alike(alone, ranks, updates=UPDATES):
    """The same run but for rounding, and bit for bit the same on every rank."""
    for of_rank in ranks:
        for mine, theirs in zip(of_rank["states"], ranks[0]["states"], strict=True):
            assert all(map(torch.equal, mine, theirs))
        assert of_rank["scores"] == alone["scores"]
        assert of_rank["final"]["guards"] == alone["final"]["guards"]
        for expected, found in zip(alone["figures"], of_rank["figures"], strict=True):
            assert expected.keys() == found.keys()
            timeless = {n: v for n, v in expected.items() if not n.startswith(("seconds", "tokens"))}
            assert {n: found[n] for n in timeless} == pytest.approx(timeless, rel=FIGURES, abs=1e-7)
    first, last = alone["states"][0], alone["states"][-1]
    moved = max(float((a - b).abs().max()) for a, b in zip(first, last, strict=True))
    assert moved > 100 * UPDATES  # so that what is tolerated is little
    for expected, found in zip(alone["states"], ranks[0]["states"], strict=True):
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=updates)


def decisions(scores):
    """What the gate makes of the scores before each step."""
    return [Gate().decide(averages(table)) for table in scores]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_does(method, one, two):
    assert_alike(one[method], two[method])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_so_do_four_of_which_one_has_no_question(method, one, four):
    assert_alike(one[method], four[method])


def test_the_gate_decides_the_same_and_does_open_and_shut(one, two):
    decided = decisions(one["codistil"]["scores"])
    assert all(decisions(of_rank["scores"]) == decided for of_rank in two["codistil"])
    assert {bool(domains) for domains in decided[0].values()} == {True, False}


@pytest.mark.parametrize("method", METHODS)
def test_no_response_is_sampled_by_two_processes(method, one, two):
    asked = [key for of_rank in two[method] for key in of_rank["asked"]]
    assert sorted(map(str, asked)) == sorted(map(str, one[method]["asked"]))
    assert all(of_rank["asked"] for of_rank in two[method])


def test_one_process_writes_what_one_alone_would(root, one, two):
    names = [sorted(p.name for p in (root / n / "codistil").rglob("*")) for n in ("one", "two")]
    assert names[0] == names[1]
    outcomes = [(root / n / "codistil" / "outcome.json").read_text() for n in ("one", "two")]
    assert outcomes[0] == outcomes[1]
    rows = [(root / n / "codistil" / "samples.jsonl").read_text().splitlines() for n in ("one", "two")]
    for alone, found in zip(*([json.loads(line) for line in lines] for lines in rows), strict=True):
        assert alone.pop("divergence", []) == pytest.approx(found.pop("divergence", []), abs=2e-4)
        assert alone == found


def test_a_checkpoint_within_a_round_counts_the_feedback_of_all_processes_once(root, one, two):
    kept = [
        torch.load(root / n / "codistil" / "checkpoints" / "round=0-step=3.ckpt", weights_only=True)["opcod"]
        for n in ("one", "two")
    ]
    assert kept[0]["outcomes"] == kept[1]["outcomes"]
    assert sum(map(sum, kept[0]["outcomes"].values())) > 0


def test_phases_at_the_same_time_are_phases_one_after_the_other_bit_for_bit(root, one, two):
    for of_rank in two["parallel"]:
        assert_equal(of_rank["final"] | {"parallel_phases": False}, one["free"]["final"])
    last = [torch.load(root / n / "checkpoints" / "round=2.ckpt", weights_only=True) for n in ("free", "parallel")]
    for part in ("optimizer_states", "lr_schedulers", "epoch"):
        assert_equal(last[0][part], last[1][part])
    rows = [sorted((root / n / "samples.jsonl").read_text().splitlines()) for n in ("free", "parallel")]
    assert rows[0] == rows[1]
    outcomes = [(root / n / "outcome.json").read_text() for n in ("free", "parallel")]
    assert outcomes[0] == outcomes[1]


def test_phases_at_the_same_time_are_logged_at_the_steps_they_would_have_one_after_the_other(root, one, two):
    places = []
    for name in ("free", "parallel"):
        with (root / name / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        places.append(sorted((int(r["step"]), r["phase"], r["phase_step"], r["rounds"]) for r in rows))
    assert places[0] == places[1]
    assert [step for step, *_ in places[0]] == [0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 7]  # and three validations


def test_the_first_checkpoint_within_a_round_of_parallel_phases_holds_every_student_as_it_is(root, one, two):
    def saved(run, step):
        return torch.load(root / run / "checkpoints" / f"round=0-step={step}.ckpt", weights_only=True)

    together = saved("parallel", 1)  # of two steps a phase, which one process goes through as steps 1, 2 and 3, 4
    for place, (student, step) in enumerate([("ann", 1), ("ben", 3)]):
        alone = saved("free", step)
        assert_equal(together["opcod"]["peers"][student]["student"], alone["opcod"]["peers"][student]["student"])
        for part in ("optimizer_states", "lr_schedulers"):
            assert_equal(together[part][place], alone[part][place])


def test_a_round_is_not_gone_on_with_otherwise_than_it_was_begun(root, tiny_folder, two, tmp_path):
    checkpoints = root / "parallel" / "checkpoints"
    halfway = {"ckpt_path": str(checkpoints / "round=1-step=1.ckpt"), "folder": str(tmp_path / "halfway"), "rounds": 2}
    with pytest.raises(ModelError, match="as they were, or resume from the end of a round"):
        run(free_run("", root, tiny_folder) | halfway)


def test_after_a_round_phases_may_part_or_come_together(root, tiny_folder, one, two, tmp_path):
    after = {"ckpt_path": str(root / "parallel" / "checkpoints" / "round=1.ckpt"), "folder": str(tmp_path), "rounds": 2}
    resumed = run(free_run("", root, tiny_folder) | after)
    assert_equal(resumed["final"], one["free"]["final"])


def assert_equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tutor": "latest"}, "tutor is latest, so that a phase waits for the one before"),
        ({"students": 1}, "one student"),
    ],
)
def test_phases_that_depend_on_each_other_are_not_run_at_the_same_time(settings, reason, tiny_folder):
    students = module_of("codistil", tiny_folder).students
    with pytest.raises(ValueError, match=reason):
        CoDistillation(students[: settings.pop("students", 2)], parallel_phases=True, **settings)


def test_ranks_wait_for_each_other_with_patience_wherever_they_do(two):
    for of_rank in (*two["codistil"], *two["parallel"]):
        assert of_rank["patience"] == [PATIENCE] * 4  # texts and gradients, of all ranks and of a phase's


def test_a_rank_with_nothing_to_learn_from_waits_before_it_adds_up_gradients(tiny_folder, tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(Ranks, "total", lambda ranks, *values: order.append("told") or list(values))
    monkeypatch.setattr(Ranks, "add_gradients", lambda ranks, parameters: order.append("added up"))
    run(free_run("", tmp_path, tiny_folder, method="finetuning"))
    assert order == ["told", "told", "added up"] * 4  # how many tokens, and the loss; of each step


def test_one_process_cannot_run_two_phases_at_the_same_time(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match=r"1 processes are no equal shares for 2 phases: .* for a multiple of 2, or"):
        run(free_run("", tmp_path, tiny_folder, **PARALLEL))


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(root, tiny_folder, one, tmp_path):
    def described(name, **more):
        kept = {"kept": str(root / "codistil.pt")}
        return free_run(name, tmp_path, tiny_folder, rounds=2, **kept, **more)

    several(2, [described("two")], tmp_path / "ranks2", free_port())
    at = str(tmp_path / "two" / "checkpoints" / "round=0-step=3.ckpt")
    alone = run(described("alone", ckpt_path=at))
    at = str(tmp_path / "alone" / "checkpoints" / "round=1-step=1.ckpt")
    results, _ = several(4, [described("four", ckpt_path=at)], tmp_path / "ranks4", free_port())
    whole, resumed = one["codistil"], results[0]
    for expected, found in ((whole["states"][3:], alone["states"]), (whole["states"][5:], resumed[0]["states"])):
        for a, b in zip(expected, found, strict=True):
            for x, y in zip(a, b, strict=True):
                torch.testing.assert_close(x, y, rtol=0, atol=UPDATES)
    assert all(of_rank["scores"][-1] == whole["scores"][-1] for of_rank in resumed)


@pytest.mark.slow
def test_two_processes_sample_what_one_does(root, tiny_folder, one, tmp_path):
    """Every draw has its key; in a short run no token stands so close to another that rounding flips it."""
    results, _ = several(2, [free_run("free", tmp_path, tiny_folder, rounds=2)], tmp_path / "ranks", free_port())
    assert_alike(one["free"], results[0], updates=3e-3)  # log-probabilities of what was sampled are rounded as well


# ---- what ranks share


@pytest.mark.parametrize(("count", "size"), [(5, 1), (5, 2), (3, 4), (0, 2), (8, 4)])
def test_every_rank_has_as_many_batches_and_no_question_is_lost_or_repeated(count, size):
    ranks = [QuestionBatches(list(range(count)), 2, rank=rank, size=size) for rank in range(size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(list(batches)) == len(batches) for batches in ranks)
    assert sorted(q for batches in ranks for batch in batches for q in batch) == list(range(count))


def test_shares_are_put_together_in_their_first_order():
    items = list("abcdefg")
    shared = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert shared == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_machines_with_other_files_are_named():
    class Told(Ranks):
        """Of two ranks, the second of which has another model."""

        def gather(self, value):
            return [value, value | {"bases": "'another'"}]

    with pytest.raises(ValueError, match=r"rank 1 has other bases than rank 0"):
        Told(0, 2).check_alike(bases="one", questions="alike")


def test_figures_are_of_the_whole_step():
    here = {"accuracy": Mean(1, 4), "cut": Sum(3), "seconds/match": Slowest(2.0), "round": 1.0}
    there = {"accuracy": Mean(3, 4), "cut": Sum(0), "seconds/match": Slowest(5.0), "round": 1.0}
    idle = {"cut": Sum(0), "seconds/match": Slowest(0.1), "round": 1.0}
    assert over_ranks([here, there, idle]) == {"accuracy": 0.5, "cut": 3, "seconds/match": 5.0, "round": 1.0}


# ---- the command


@pytest.fixture
def config(tiny_folder, tmp_path):
    """A config file of a short run that writes below `tmp_path`."""
    logger = {"save_dir": str(tmp_path / "runs"), "name": "", "version": "", "flush_logs_every_n_steps": 1}
    config = run_config(tiny_folder)
    config["trainer"]["logger"] = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def program(*arguments, torchrun=0):
    """The command, by itself or under torchrun with so many processes, begun."""
    launcher = ["-m", "torch.distributed.run", f"--master-port={free_port()}", f"--nproc-per-node={torchrun}"]
    command = [sys.executable, *(launcher if torchrun else []), "-m", "opcod.cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "MASTER_PORT": str(free_port())}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1, start_new_session=True)


TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [0, 2], ids=["lightning", "torchrun"])
def test_both_ways_of_starting_say_everything_once(torchrun, config, tmp_path):
    process = program("fit", "-c", config, *TWO, torchrun=torchrun)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for line in ("round 1/2 phase 1/2 step 1/2 ·", "validation after 1 of 2 rounds", "Not mutual"):
        assert out.count(line) == 1
    assert out.count("every response was cut off") + err.count("every response was cut off") == 8  # steps
    assert len(list((tmp_path / "runs").rglob("metrics.csv"))) == 1
    assert "Traceback" not in err


@pytest.mark.slow
def test_scores_and_predictions_are_those_of_one_process(config, tmp_path):
    fitted = program("fit", "-c", config)
    assert fitted.wait(300) == 0
    checkpoint = tmp_path / "runs" / "checkpoints" / "last.ckpt"
    told = {}
    for name, several_ in (("one", ()), ("two", TWO)):
        for command in ("validate", "test", "predict"):
            process = program(command, "-c", config, "--ckpt_path", checkpoint, *several_)
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            told[name, command] = sorted(line for line in out.splitlines() if "/avg" in line)
        lines = (tmp_path / "runs" / "predictions.jsonl").read_text().splitlines()
        told[name, "rows"] = sorted(lines)
    for what in ("validate", "test", "rows"):
        assert told["one", what] == told["two", what] != []


def running(process, line):
    """Wait until the process says it."""
    for said in process.stdout:
        if line in said:
            return
    raise AssertionError(process.stderr.read())


def children(pid):
    """Processes that a process started, but for what helps Python itself."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "opcod.cli" in line]


def alive(pid):
    """Whether it runs; one that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


LONG = ("--trainer.max_epochs=500",)


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_rank_that_is_killed_ends_the_run_with_the_reason_and_another_number_goes_on(dies, config, tmp_path):
    process = program("fit", "-c", config, *TWO, *LONG)
    running(process, "round 2/500 phase 1/2 step 1/2")
    [other] = children(process.pid)
    began = time.monotonic()
    os.kill(other if dies else process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    while alive(other) and time.monotonic() - began < 60:
        time.sleep(0.2)
    assert not alive(other)
    assert time.monotonic() - began < 60
    assert process.returncode == (1 if dies else -signal.SIGKILL)
    assert re.search(
        r"opcod: error: rank 1 died" if dies else r"opcod: error: rank 0, or one that it missed, died", err
    )
    command = shlex.split(re.search(r"To go on:\n(.*)", err)[1])
    resumed = program(*command[1:], "--trainer.devices=1", "--trainer.max_epochs=2")
    _, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_run_with_its_reason(config, tmp_path):
    """The second process alone is stopped, at once."""
    process = program("fit", "-c", config, *TWO, *LONG)
    running(process, "round 1/500 phase 1/2 step 2/2")
    [other] = children(process.pid)
    began = time.monotonic()
    os.kill(other, signal.SIGINT)  # twice: stop at once, alone
    time.sleep(0.01)
    os.kill(other, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (1, 130)
    assert time.monotonic() - began < 60


@pytest.mark.slow
@pytest.mark.parametrize("heard", [0, 1, 2], ids=["rank 0", "rank 1", "both"])
def test_whoever_hears_ctrl_c_all_stop_after_the_same_step_and_save(heard, config, tmp_path):
    process = program("fit", "-c", config, *TWO, *LONG)
    running(process, "round 2/500 phase 1/2 step 1/2")
    [other] = children(process.pid)
    for pid in {0: [process.pid], 1: [other], 2: [process.pid, other]}[heard]:
        os.kill(pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert out.count("Stopping after this step") == 1
    assert err.count("To go on:") == 1
    assert "Traceback" not in err
    saved = torch.load(tmp_path / "runs" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1


@pytest.mark.slow
def test_processes_that_torchrun_started_by_mistake_are_told(config, tmp_path):
    process = program("fit", "-c", config, torchrun=2)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "2 processes were started, each of which would run by itself" in err

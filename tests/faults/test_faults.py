"""Runs that are ended at any point, by real signals, full disks and allocations, go on as if they had not been.

Every fault ends a process of `opcod fit` over the tiny model. Whatever it left is gone on with, by the command that was
printed or the last checkpoint there is, and what the run leaves in the end is compared with that of one that nothing
ended: adapters, averages, optimizers, schedules, scores, gates, samples and what was logged, bit for bit.
"""

import subprocess

import pytest
from places import FULL, KILL, MEMORY, PLACES, ROLLOUT, SECONDS, TERM, TOKEN
from runs import difference, ended_and_gone_on_with, first, last_checkpoint, left_by, versions, write_config
from table import seen

from opcod.report.runs import read_run

ENDED = {"SIGKILL": {-9}, "SIGTERM": {143, -15}, "SIGINT": {130}, "half": {-9}}


def name_of(place):
    part, fault = place
    *_, (call, number) = fault["calls"]
    when = "after" if fault["after"] else "at"
    return f"{fault['act']}-{part}-{when}-{call.replace(':', '.').rpartition('.')[2]}-{number}"


def survives(server, config, folder, unbroken, place):
    part, fault = place
    statuses = ended_and_gone_on_with(server, config, folder, fault)
    differs = difference(unbroken, left_by(folder))
    seen(fault["act"], part, name_of(place), statuses, differs)
    assert differs is None
    return statuses


QUICK = [
    place
    for place in PLACES
    if name_of(place)
    in ("SIGTERM-match-at-response_hidden-1", "SIGKILL-average-after-lerp_-5", "SIGTERM-validation-at-choose-6")
]


@pytest.mark.parametrize("place", QUICK, ids=name_of)
def test_a_run_goes_on(server, config, unbroken, tmp_path, place):
    statuses = survives(server, config, tmp_path / "run", unbroken, place)
    assert statuses[0] in ENDED[place[1]["act"]]


@pytest.mark.slow
@pytest.mark.parametrize("place", [place for place in PLACES if place not in QUICK], ids=name_of)
def test_a_run_goes_on_from_everywhere(server, config, unbroken, tmp_path, place):
    statuses = survives(server, config, tmp_path / "run", unbroken, place)
    assert statuses[0] in ENDED[place[1]["act"]]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", SECONDS)
def test_a_run_goes_on_from_wherever_it_was_killed(server, config, unbroken, tmp_path, seconds):
    statuses = ended_and_gone_on_with(server, config, tmp_path / "run", seconds)
    differs = difference(unbroken, left_by(tmp_path / "run"))
    seen(KILL, "anywhere", f"after {seconds} s", statuses, differs)
    assert differs is None


@pytest.mark.slow
def test_a_run_that_is_stopped_in_every_second_step_comes_to_the_same_end(server, config, unbroken, tmp_path):
    fault = {"calls": [[ROLLOUT, 2], [TOKEN, 2]], "act": TERM}
    statuses = ended_and_gone_on_with(server, config, tmp_path / "run", *[fault] * 5)
    differs = difference(unbroken, left_by(tmp_path / "run"))
    seen(TERM, "again and again", f"{len(statuses) - 1} times", statuses, differs)
    assert statuses == [143] * 5 + [0]
    assert differs is None


@pytest.mark.slow
def test_runs_that_are_not_the_same_are_told_apart(server, config, unbroken, tmp_path):
    assert server.run([*first(config, tmp_path / "run"), "--seed_everything=1"], tmp_path / "log") == 0
    other = left_by(tmp_path / "run")
    for part in ("opcod", "optimizer_states", "samples", "metrics", "files"):
        assert difference(unbroken[part], other[part]) is not None, part


@pytest.mark.slow
def test_a_damaged_checkpoint_is_found_out_and_the_one_before_it_taken(server, config, unbroken, tmp_path):
    folder = tmp_path / "run"

    def damage():
        path = last_checkpoint(folder)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    fault = {"calls": [[ROLLOUT, 8], [TOKEN, 2]], "act": TERM, "after": False}
    statuses = ended_and_gone_on_with(server, config, folder, fault, between=damage)
    differs = difference(unbroken, left_by(folder))
    seen("damage", "checkpoint", "a bit of the newest", statuses, differs)
    said = tmp_path.joinpath("run.log").read_text("utf-8")
    before, damaged = (versions(folder)[0] / "checkpoints" / name for name in ("round=1-step=2.ckpt", "last.ckpt"))
    assert f"opcod: warning: the run goes on from {before}: the checkpoint {damaged} is damaged" in said
    assert statuses == [143, 0]
    assert differs is None


@pytest.mark.slow
def test_a_tutor_that_is_frozen_at_the_start_of_a_phase_goes_on_with_it(server, tiny_folder, tmp_path):
    config = write_config(tmp_path, tiny_folder, tutor="latest")
    assert ended_and_gone_on_with(server, config, tmp_path / "unbroken") == [0]
    unbroken = left_by(tmp_path / "unbroken")
    for act, step in ((TERM, 3), (TERM, 4), (KILL, 7)):  # the first and the second of a phase, and one without a save
        place = "tutor of the phase", {"calls": [[ROLLOUT, step], [TOKEN, 2]], "act": act, "after": False}
        survives(server, config, tmp_path / f"{act}-{step}", unbroken, place)


@pytest.mark.slow
@pytest.mark.parametrize("place", MEMORY, ids=lambda place: f"{place[1]['act']}-{place[0]}")
def test_memory_that_stays_full_leaves_the_last_whole_step(server, config, unbroken, tmp_path, place):
    part, fault = place
    statuses = ended_and_gone_on_with(server, config, tmp_path / "run", fault)
    differs = difference(unbroken, left_by(tmp_path / "run"))
    seen("memory", part, f"{fault['act']}-{fault['calls'][-1][0].rpartition('.')[2]}", statuses, differs)
    assert statuses == [1, 0]
    said = (tmp_path / "run.log").read_text("utf-8")
    assert "opcod: error: the memory is full" in said
    assert "Traceback" not in said
    assert differs is None


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be had by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", FULL, ids=lambda place: f"{place[0]}-{place[1][-1][0].rpartition('.')[2]}-{place[1][0][1]}"
)
def test_a_full_disk_leaves_the_last_checkpoint(server, config, unbroken, small_disk, place):
    part, calls = place
    folder = small_disk / "run"
    before = {"samples": None, "metrics": None}

    def room():
        (small_disk / "filler").unlink()

    statuses = ended_and_gone_on_with(
        server,
        config,
        folder,
        {"calls": calls, "act": f"full:{small_disk}"},
        log=small_disk.parent / "log.txt",
        between=room,
    )
    differs = difference(unbroken | before, left_by(folder) | before)
    seen("full disk", part, calls[-1][0].rpartition(".")[2], statuses, differs)
    assert statuses == [1, 0]
    said = (small_disk.parent / "log.txt").read_text("utf-8")
    assert "opcod: error: " in said
    assert "Traceback" not in said
    assert differs is None
    for version in versions(folder):
        read_run(version)

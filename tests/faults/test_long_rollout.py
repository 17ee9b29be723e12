"""SIGTERM within a step that takes long: how soon the run ends, and what it ends with."""

import os
import signal
import time

import pytest
from runs import difference, ended_and_gone_on_with, first, last_checkpoint, left_by, next_command, write_config
from table import seen


@pytest.mark.slow
def test_sigterm_is_noticed_within_ten_seconds_of_a_rollout_of_thousands_of_tokens(server, tiny_folder, tmp_path):
    long = {"max_new_tokens": 1200}
    config = write_config(tmp_path, tiny_folder, samples=2, rollout=long, steps=1, rounds=1)
    assert ended_and_gone_on_with(server, config, tmp_path / "unbroken") == [0]
    folder, log, sent = tmp_path / "run", tmp_path / "run.log", []

    def terminate(process):
        while "phase 1/2 step 1/1" not in (log.read_text("utf-8") if log.exists() else ""):
            time.sleep(0.1)
        time.sleep(1)
        os.kill(process, signal.SIGTERM)
        sent.append(time.monotonic())

    status = server.run(first(config, folder), log, meanwhile=terminate)
    seconds = time.monotonic() - sent[0]
    said = log.read_text("utf-8")
    assert status == 143
    assert "Giving up this step, to save what was learned before it." in said
    assert sorted(path.name for path in last_checkpoint(folder).parent.iterdir()) == [
        "last.ckpt",
        "round=0-step=1.ckpt",
    ]
    assert server.run(next_command(config, folder, status, said), log) == 0
    differs = difference(left_by(tmp_path / "unbroken"), left_by(folder))
    seen("SIGTERM", "long rollout", f"ended {seconds:.1f} s later", [status, 0], differs)
    assert differs is None
    assert seconds < 10

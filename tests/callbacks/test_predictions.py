"""Predictions appear whole or not at all."""

import json
from types import SimpleNamespace

import pytest

from opcod.callbacks.predictions import PredictionWriter


def write(folder, batches):
    trainer = SimpleNamespace(log_dir=str(folder), default_root_dir="elsewhere")
    PredictionWriter().write_on_epoch_end(trainer, None, batches, [])


def test_each_row_of_each_batch_is_a_line(tmp_path):
    write(tmp_path / "run", [[{"response": "α\nβ"}, {"response": "2"}], [{"response": "3"}]])
    lines = (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["response"] for line in lines] == ["α\nβ", "2", "3"]
    assert "α" in lines[0]


def test_a_failure_leaves_the_earlier_file_and_no_other(tmp_path):
    write(tmp_path, [[{"response": "earlier"}]])
    with pytest.raises(TypeError):
        write(tmp_path, [[{"response": "half"}, {"response": object()}]])
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert "earlier" in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")

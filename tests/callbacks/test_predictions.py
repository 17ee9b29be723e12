"""Predictions are there as soon as they are made."""

import json

import lightning as L

from opcod.callbacks.predictions import PredictionWriter


def writing(folder):
    """A writer that has begun, and what gives it a batch."""
    trainer = L.Trainer(default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False)
    writer = PredictionWriter()
    writer.on_predict_start(trainer, None)
    return lambda rows: writer.write_on_batch_end(trainer, None, rows, None, None, 0, 0)


def lines(folder):
    return (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()


def test_each_row_of_each_batch_is_a_line_as_soon_as_it_is_there(tmp_path):
    write = writing(tmp_path / "run")
    write([{"response": "α\nβ"}, {"response": "2"}])
    assert [json.loads(line)["response"] for line in lines(tmp_path / "run")] == ["α\nβ", "2"]
    write([{"response": "3"}])
    assert [json.loads(line)["response"] for line in lines(tmp_path / "run")] == ["α\nβ", "2", "3"]
    assert "α" in lines(tmp_path / "run")[0]


def test_an_older_file_is_replaced_and_half_a_surrogate_is_no_obstacle(tmp_path):
    writing(tmp_path)([{"response": "earlier"}])
    writing(tmp_path)([{"response": "\ud800"}])
    assert [json.loads(line)["response"] for line in lines(tmp_path)] == ["\ud800"]

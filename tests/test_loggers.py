"""Whatever a run is logged to has the same figures under the same names."""

import csv
import math

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from opcod.callbacks import RoundCheckpoint
from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from opcod.run_log import RunLog
from test_codistillation import fit, module_of


def test_csv_and_tensorboard_get_the_same_names_and_values(tiny_folder, tmp_path):
    loggers = [CSVLogger(tmp_path / "csv", name="", flush_logs_every_n_steps=1), TensorBoardLogger(tmp_path / "board")]
    trainer = L.Trainer(
        max_epochs=1,
        logger=loggers,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        accelerator="cpu",
    )
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=20)
    trainer.fit(module_of(tiny_folder), QuestionData(source, batch_size=2, steps=2, validation=2, test=2))
    with open(f"{loggers[0].log_dir}/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = {name: [float(row[name]) for row in rows if row[name]] for name in rows[0] if name not in ("step", "epoch")}
    board = EventAccumulator(loggers[1].log_dir).Reload()
    tags = [tag for tag in board.Tags()["scalars"] if tag != "epoch"]
    assert sorted(tags) == sorted(table)
    assert {"train/ann/loss", "seconds/rollout", "validation/ben/physics/avg", "gate/ann/gap", "round"} <= table.keys()
    for name, values in table.items():
        shown = [event.value for event in board.Scalars(name)]
        assert len(shown) == len(values), name
        assert all(
            math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) or (math.isnan(a) and math.isnan(b))
            for a, b in zip(shown, values, strict=True)
        ), name


def logged(folder):
    """What was logged, but for the clock."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    timed = ("seconds", "tokens_per_second", "memory")
    return [{name: value for name, value in row.items() if name.split("/")[0] not in timed} for row in rows]


def log_of(folder):
    return RunLog(folder, name="", version="", flush_logs_every_n_steps=1)


@pytest.mark.parametrize("name", ["round=0-step=1.ckpt", "round=0-step=3.ckpt", "round=1.ckpt", "round=1-step=2.ckpt"])
def test_a_run_that_is_resumed_in_the_same_folder_goes_on_with_its_log(name, tiny_folder, tmp_path):
    checkpoints = RoundCheckpoint(every_n_steps=1, keep=99)
    fit(module_of(tiny_folder), tmp_path, checkpoints, rounds=2, logger=log_of(tmp_path))
    whole = logged(tmp_path)
    assert len(whole) == 1 + 2 * (2 * 2 + 1)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "half a row,")  # it was killed
    checkpoint = tmp_path / "checkpoints" / name
    fit(module_of(tiny_folder), tmp_path, rounds=2, ckpt_path=checkpoint, logger=log_of(tmp_path))
    assert logged(tmp_path) == whole


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("died", [2, 3, 4], ids=["where it is gone on with", "a step later", "two steps later"])
def test_of_phases_at_the_same_time_no_row_is_lost_and_none_comes_twice(died, every, tmp_path):
    def log(steps):
        """As `Students.keep` does: of every step a row a phase, each of four steps."""
        logger = log_of(tmp_path)
        for step in steps:
            for phase in (0, 1):
                place = 4 * phase + step
                if (place + 1) % every == 0:
                    logger.log_metrics({"round": 0.0, "phase": float(phase), "phase_step": float(step)}, step=place)
                    logger.save()

    log(range(died))
    log(range(2, 4))
    places = [4 * phase + step for step in range(4) for phase in (0, 1)]
    assert [int(row["step"]) for row in logged(tmp_path)] == [p for p in places if (p + 1) % every == 0]


def test_a_run_that_begins_anew_in_a_folder_begins_its_log_anew(tiny_folder, tmp_path):
    fit(module_of(tiny_folder), tmp_path, rounds=2, logger=log_of(tmp_path))
    assert log_of(tmp_path).experiment is not None
    assert len(logged(tmp_path)) == 11  # nothing is lost before anything is logged
    fit(module_of(tiny_folder), tmp_path, rounds=1, logger=log_of(tmp_path))
    assert len(logged(tmp_path)) == 6

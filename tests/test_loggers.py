"""Whatever a run is logged to has the same figures under the same names."""

import csv
import math

import lightning as L
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from test_codistillation import module_of


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

"""Settings of the trainer that would make another method of it are refused, each with what to set instead."""

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import BitsandbytesPrecision

from opcod.callbacks import OutcomeTable, SampleTable
from opcod.data.datamodule import QuestionData
from opcod.data.lesson_data import LessonData
from opcod.data.lessons import LessonMix
from opcod.data.sources import GeneratedScience
from opcod.specialist import Specialist
from opcod.students import Students
from test_codistillation import SHORT, Watch, module_of, shared_settings
from tiny import LORA


def trainer_of(folder, *callbacks, **settings):
    return L.Trainer(
        **({"max_epochs": 1} | settings),
        callbacks=list(callbacks),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )


def source():
    return GeneratedScience(["physics", "chemistry"], levels=[1], train=20)


def fitted(model, folder, *callbacks, **settings):
    """A round of four batches, with a validation of two."""
    watch = Watch()
    trainer = trainer_of(folder, watch, *callbacks, **settings)
    data = QuestionData(source(), batch_size=2, steps=2, validation=2, test=2, evaluation_batch_size=2)
    trainer.fit(module_of(model), data)
    return watch


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"precision": "bf16-true"}, r"trainer\.precision is bf16-true \(HalfPrecision\): leave it at 32-true"),
        ({"precision": "16-true"}, r"trainer\.precision is 16-true"),
        ({"precision": "bf16-mixed"}, r"trainer\.precision is bf16-mixed \(MixedPrecision\)"),
        ({"precision": "64-true"}, r"trainer\.precision is 64-true"),
        ({"max_epochs": -1}, r"trainer\.max_epochs is -1: set it to R"),
        ({"check_val_every_n_epoch": 2}, r"trainer\.check_val_every_n_epoch is 2: set it to 1"),
        ({"val_check_interval": 0.5}, r"trainer\.val_check_interval is 0\.5: set it to 1\.0"),
        ({"val_check_interval": 1}, r"trainer\.val_check_interval is 1: set it to 1\.0"),
        ({"val_check_interval": "00:00:01:00"}, r"trainer\.val_check_interval is a time: set it to 1\.0"),
        ({"overfit_batches": 2}, r"trainer\.overfit_batches is 2: set it to 0"),
        ({"limit_train_batches": 3}, r"trainer\.limit_train_batches is 3: set it to 1\.0, data\.steps says"),
        ({"limit_train_batches": 0.5}, r"trainer\.limit_train_batches is 0\.5"),
        ({"limit_val_batches": 0}, r"trainer\.limit_val_batches is 0: set it to 1\.0, data\.validation sets"),
        ({"limit_val_batches": 1}, r"trainer\.limit_val_batches is 1"),
    ],
    ids=str,
)
def test_a_setting_that_makes_another_run_of_it_is_refused(settings, reason, tiny_folder, tmp_path):
    with pytest.raises(ValueError, match=f"^{reason}"):
        fitted(tiny_folder, tmp_path, **settings)


def test_all_faults_are_told_at_once(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match=r"^trainer") as told:
        fitted(tiny_folder, tmp_path, precision="bf16-true", limit_val_batches=0, val_check_interval=1)
    assert [fault.split(" is ")[0] for fault in str(told.value).split("; trainer.")] == [
        "trainer.precision",
        "val_check_interval",
        "limit_val_batches",
    ]


@pytest.mark.parametrize("settings", [{}, {"limit_train_batches": 4, "limit_val_batches": 2}], ids=str)
def test_a_limit_that_leaves_nothing_out_is_none(settings, tiny_folder, tmp_path):
    assert len(fitted(tiny_folder, tmp_path, **settings).records) == 4


def test_a_run_may_be_ended_within_a_round(tiny_folder, tmp_path):
    assert len(fitted(tiny_folder, tmp_path, max_steps=3).records) == 3


def test_a_fast_run_tries_some_steps_and_leaves_what_was_there(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Students, "score_test", None)  # nobody is tested
    (tmp_path / "samples.jsonl").write_text("of an earlier run\n", encoding="utf-8")
    watch = fitted(tiny_folder, tmp_path, OutcomeTable(), SampleTable(), fast_dev_run=3)
    assert len(watch.records) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]
    assert (tmp_path / "samples.jsonl").read_text(encoding="utf-8") == "of an earlier run\n"


def test_nothing_may_be_logged_of_steps(tiny_folder, tmp_path):
    assert len(fitted(tiny_folder, tmp_path, log_every_n_steps=0).records) == 4


def test_a_precision_plugin_is_refused_as_well(tiny_folder, tmp_path):
    plugin = BitsandbytesPrecision("nf4", torch.bfloat16)
    trainer = trainer_of(tmp_path)
    trainer.strategy.precision_plugin = plugin  # Lightning takes it on a GPU only
    with pytest.raises(ValueError, match="BitsandbytesPrecision"):
        trainer.validate(module_of(tiny_folder), QuestionData(source(), validation=1, test=1))


def test_a_specialist_keeps_its_precision_too(tiny_folder, tmp_path):
    module = Specialist(shared_settings(tiny_folder)["base"], LORA, evaluation=SHORT)
    domains = ["physics", "chemistry"]
    data = LessonData(source(), "physics", domains, 4, 0, mix=LessonMix(context=0, tutor=0), batch_size=2, validation=1)
    with pytest.raises(ValueError, match=r"trainer\.precision is bf16-true"):
        trainer_of(tmp_path, precision="bf16-true").fit(module, data)

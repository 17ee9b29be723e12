"""Where the time of a step goes: torch's profiler over one step of opcod's own trainer."""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.fixed_work import question_data, size_of
from benchmarks.opcod_step import model_of, step_arguments, trainer_of
from opcod.memory import keep_freed_memory


class ProfileSecondStep(L.Callback):
    """Profiles the second step; the first one warms up."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
        self.profiler = profile(activities=activities)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, idx: int) -> None:
        """Begin with the second step."""
        if idx == 1:
            self.profiler.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        """Print the operations that took longest."""
        if idx == 1:
            self.profiler.stop()
            sort = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
            print(self.profiler.key_averages().table(sort_by=sort, row_limit=self.rows, max_name_column_width=44))


def main() -> None:
    """Profile."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    step_arguments(parser)
    parser.add_argument("--rows", type=int, default=20)
    options = parser.parse_args()
    size = size_of(options)
    trainer_of(ProfileSecondStep(options.rows)).fit(model_of(size, options), datamodule=question_data(size, steps=1))


if __name__ == "__main__":
    main()

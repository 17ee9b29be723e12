"""Notices of the libraries that are known, understood and of no use to who runs `opcod`; each with its cause."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

_WARNINGS = (
    # lightning/pytorch/loops/fit_loop.py warns of modules in eval mode when training begins. Here the base always is:
    # rollouts are sampled in that mode, and without dropout or batch norm it computes the same in both.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # lightning/pytorch/trainer/connectors/logger_connector/result.py asks for means over ranks of what all have.
    r"It is recommended to use `self.log\(.*sync_dist=True\)`",
    # torchmetrics/metric.py, where a rank has no question of a domain; it computes by the rows of the others.
    r"The ``compute`` method of metric AnswerScores was called before the ``update``",
    # lightning/pytorch/loops/prediction_loop.py: the rows of a prediction name their question.
    r"Couldn't infer the batch indices fetched from your dataloader",
    # lightning/pytorch/trainer/connectors/data_connector.py asks for worker processes. Questions lie in memory already.
    r"The '\w+' does not have many workers",
    # lightning/pytorch/trainer/connectors/data_connector.py, _DataHooksSelector: the module has the hook, and not the
    # datamodule, since both of our datamodules give text and neither module wants it moved.
    r"You have overridden `transfer_batch_to_device` in `LightningModule`",
    # lightning/pytorch/trainer/call.py, of a checkpoint's callbacks that a command does without: `evaluate`, for one,
    # has no use for what watches the training, and which callbacks a run has is for its config to say.
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
    # lightning/pytorch/cli.py uses names that jsonargparse changed in 4.49; the old ones work until jsonargparse 5.
    r"\s*``instantiate_classes`` was deprecated",
    r"\s*By default only one JsonargparseDeprecationWarning",
    r"\s*skip_none parameter was deprecated",
    # lightning/pytorch/utilities/_pytree.py and peft use names that torch and transformers have since changed.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`is_gradient_checkpointing` is deprecated",
    # torch/optim/lr_scheduler.py: a first step that distils nothing updates nothing. The schedule goes by steps all the
    # same, so that it ends where it should.
    r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`",
)

_LOG_LINES = {
    # bitsandbytes/backends/cpu/ops.py looks for an optional package with a faster 4-bit kernel at import. opcod's CPU
    # path unpacks the weights once (`BaseModel.packed`) and never calls it.
    "bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward",),
    # lightning says on every rank that it joins, and that it has the seed.
    "lightning.fabric.utilities.distributed": ("Initializing distributed",),
    "lightning.fabric.utilities.seed": ("[rank: ",),
    # lightning.pytorch advertises litlogger and litmodels, reports that there is no TPU, and that it counts the steps.
    "lightning.pytorch.utilities.rank_zero": ("💡 Tip:", "TPU available: False", "Loading `train_dataloader` to"),
}


def install() -> None:
    """Drop these notices, and nothing else, from here on; call it before the libraries are imported."""
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    for name, beginnings in _LOG_LINES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Without) for f in logger.filters):
            logger.addFilter(_Without(beginnings))


def plain_warnings() -> None:
    """Show opcod's own warnings as sentences, without code; call it after Lightning's import, which sets a format."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    others = warnings.formatwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        ours = Path(filename).is_relative_to(Path(__file__).parent)
        if rank := getattr(rank_zero_only, "rank", 0):  # of the libraries' warnings one process's are enough
            return f"opcod: warning (rank {rank}): {message}\n" if ours else ""
        if ours:
            return f"opcod: warning: {message}\n"
        return others(message, category, filename, lineno, line)

    warnings.formatwarning = show


class _Without(logging.Filter):
    """Drops log lines by how they begin."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.beginnings)

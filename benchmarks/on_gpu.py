"""A model's steps and rollouts on a GPU, beside transformers' `generate`: seconds, tokens, memory, share of the peak.

    python -m benchmarks.on_gpu --shape Qwen3-8B --quantization nf4 --tokenizer FOLDER --output FILE

One process measures one model, which has the published shape and random weights (`benchmarks.shapes`). The work is that
of `benchmarks.fixed_work`: no response ends by itself, and every other one counts as right. FILE gets a line at the
end; as they come, figures are added to one beside it that ends in `.steps.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import lightning as L
import peft
import torch
import transformers

from benchmarks import recorded
from benchmarks.compare import machine
from benchmarks.fixed_work import FixedWork, question_data, size_of
from benchmarks.opcod_step import model_of, step_arguments, trainer_of
from benchmarks.rollouts import generated, prompts_of, sampled
from benchmarks.shapes import SHAPES, model_of_shape
from benchmarks.workers import peak_memory
from opcod.card import commit_of_checkout
from opcod.devices import GIB
from opcod.losses import token_log_probs
from opcod.models import BaseModel, load_base
from opcod.peers import SharedBase
from opcod.rollout import Sampling
from opcod.scoring import Scored, response_hidden


class Steps(L.Callback):
    """Measures every step, and rollouts at the end, while the model is still on the GPU.

    Args:
        found: Where the figures go.
        at_end: Measures the rest.
        options: Of the command line: how many steps at `most`, and the output.
    """

    def __init__(self, found: dict[str, Any], at_end: Callable[[FixedWork], None], options: argparse.Namespace) -> None:
        self.found = found
        self.at_end = at_end
        self.options = options
        self._began = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, idx: int) -> None:
        """Start the clock."""
        synchronize(reset=True)
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        """Keep what the step came to."""
        assert isinstance(pl_module, FixedWork)
        record = pl_module.record
        assert record is not None
        synchronize()
        step: dict[str, float] = {"seconds": time.perf_counter() - self._began, **memory()}
        step |= {name: s for name, s in record.figures.items() if name.startswith("seconds/")}
        step["rollout_tokens"] = sum(len(a.response.tokens) for a in record.attempts)
        step["feedback_tokens"] = sum(f.tokens for f in record.asked_feedbacks())
        step["prompt_tokens"] = sum(len(a.prompt) for a in record.attempts)
        step["context_tokens"] = sum(len(c.prompt) for c in record.contexts)
        self.found["steps"].append(step)
        trainer.should_stop = len(self.found["steps"]) == self.options.most
        tell(self.options, step=step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the rest."""
        assert isinstance(pl_module, FixedWork)
        self.at_end(pl_module)


def show_what_matters() -> None:
    """Of warnings, those that say that something was not measured as it should be."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", message="out of memory|sampling launches")


def synchronize(*, reset: bool = False) -> None:
    """Wait for the GPU, and with `reset` begin to measure memory anew."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        if reset:
            torch.cuda.reset_peak_memory_stats()


def memory() -> dict[str, float]:
    """GiB that were taken at most, on a GPU since the reset and by tensors; and what the device gave for these."""
    reserved = {"reserved_gib": torch.cuda.max_memory_reserved() / GIB} if torch.cuda.is_available() else {}
    return {"peak_gib": peak_memory() / GIB} | reserved


def seconds(work: Callable[[], object], repeats: int, *, warm: int = 1) -> float:
    """The median."""
    taken = []
    for turn in range(warm + repeats):
        synchronize()
        began = time.perf_counter()
        work()
        synchronize()
        if turn >= warm:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def ceilings(device: str) -> dict[str, float]:
    """TFLOP/s of a large bfloat16 product, and TB/s of a copy, bytes read and written."""
    size = 8192 if device == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    long = torch.randn(size * size, 4, device=device)
    copy = torch.empty_like(long)
    return {
        "tflops": 2 * size**3 / seconds(lambda: a @ b, 20, warm=5) / 1e12,
        "terabytes": 2 * long.nbytes / seconds(lambda: copy.copy_(long), 20, warm=5) / 1e12,
    }


def rollouts(base: SharedBase, other: BaseModel, samplings: Sequence[Sampling], options: argparse.Namespace) -> Any:
    """Tokens a second of opcod and of `generate`, in groups of 8 over prompts of 300 tokens, by turns."""
    loaded = load_base(other, base.device)
    adapter = next(n for n in base.peft.peft_config if n.endswith("_student"))
    found = []
    for questions in options.groups:
        prompts = prompts_of(loaded, questions, 300)
        tokens = questions * 8 * options.rollout_length
        works: dict[str, Callable[[], object]] = {
            f"opcod, {name}": partial(sampled, base, adapter, prompts, 8, sampling)
            for name, sampling in zip(("captured", "launched one by one"), samplings, strict=True)
        }
        works["generate"] = partial(generated, loaded.model, prompts, 8, options.rollout_length)
        for work in works.values():
            work()
        taken: dict[str, list[float]] = {name: [] for name in works}
        peaks: dict[str, float] = {}
        for _ in range(options.turns):
            for name, work in works.items():
                synchronize(reset=True)
                taken[name].append(seconds(work, 1, warm=0))
                peaks[name] = memory()["peak_gib"]
        for name, times in taken.items():
            row = {"by": name, "rows": questions * 8, "seconds": times, "peak_gib": peaks[name]}
            row["tokens_per_second"] = tokens / statistics.median(times)
            found.append(row)
            tell(options, rollouts=row)
    return found


def mismatch(base: SharedBase, prompts: Sequence[Sequence[int]], sampling: Sampling) -> dict[str, float]:
    """How far the log-probabilities of sampled tokens are from those that a plain pass with the adapter gives."""
    adapter = next(n for n in base.peft.peft_config if n.endswith("_student"))
    responses = sampled(base, adapter, prompts, 1, sampling)
    apart = []
    for prompt, response in zip(prompts, responses, strict=True):
        sequence = Scored(tuple(prompt), tuple(response.tokens.tolist()))
        with base.using(adapter):
            logits = base.head(response_hidden(base, [sequence]))
        apart.append(token_log_probs(logits.cpu(), response.tokens) - response.log_probs)
    differences = torch.cat(apart)
    return {"mean_abs": float(differences.abs().mean()), "largest": float(differences.abs().max())}


def shape_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `model_at_hand` and `written`, on a command line."""
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "opcod-shapes")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of one, with a chat template")
    parser.add_argument("--cap_gib", type=float, help="memory that the process may have")
    parser.add_argument("--output", type=Path, required=True)


def model_at_hand(options: argparse.Namespace) -> tuple[str, str]:
    """The device, with no more of its memory than is asked for, and the folder of a model of the shape."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.cap_gib is not None and device == "cuda":
        torch.cuda.set_per_process_memory_fraction(options.cap_gib * GIB / torch.cuda.mem_get_info()[1])
    folder = options.folder / options.shape
    return device, str(model_of_shape(SHAPES[options.shape](), folder, tokenizer=options.tokenizer, device=device))


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """What of a command line says what is measured."""
    return {k: v for k, v in vars(options).items() if k not in ("folder", "tokenizer", "output", "model")}


def tell(options: argparse.Namespace, **figures: Any) -> None:
    """Show figures as they come, and keep them beside the output."""
    print(json.dumps(figures), flush=True)
    recorded.add(options.output.with_suffix(".steps.jsonl"), {"options": asked(options)} | figures)


@contextlib.contextmanager
def written(found: dict[str, Any], options: argparse.Namespace) -> Iterator[None]:
    """Add what is found by the end of the block, or by its failure, as a line of JSON to the output.

    How often something was done again for want of memory is counted too.
    """
    show, found["out_of_memory"] = warnings.showwarning, 0

    def count(message: Warning | str, *rest: Any, **more: Any) -> None:
        found["out_of_memory"] += str(message).startswith("out of memory")
        show(message, *rest, **more)

    warnings.showwarning = count
    try:
        yield
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        warnings.showwarning = show
        about = {
            "machine": machine(),
            "day": date.today().isoformat(),
            "commit": commit_of_checkout(),
            "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft, bitsandbytes)},
            "options": asked(options),
        }
        recorded.add(options.output, about | found)


def main() -> None:
    """Measure, and add a line of JSON to the output."""
    show_what_matters()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    step_arguments(parser)
    shape_arguments(parser)
    parser.add_argument("--steps", type=int, default=2, help="of each student")
    parser.add_argument("--most", type=int, help="steps in all")
    parser.add_argument("--groups", type=int, nargs="*", default=[4, 8], help="questions of a rollout beside generate")
    parser.add_argument("--rollout_length", type=int, default=128)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    began = time.perf_counter()
    device, options.model = model_at_hand(options)
    found = {"ceilings": ceilings(device), "seconds_to_make": time.perf_counter() - began, "steps": []}
    tell(options, ceilings=found["ceilings"])

    def rest(module: FixedWork) -> None:
        found["seconds_of_all_steps"] = time.perf_counter() - began
        base, spec = module.peers[0].base, module.base
        captured = Sampling(max_new_tokens=options.rollout_length, batch_size=1024)
        if options.groups:
            found["mismatch"] = mismatch(base, prompts_of(base.loaded, 4, 300), captured)
            both = (captured, replace(captured, capture=False))
            found["rollouts"] = rollouts(base, replace(spec, attention="sdpa"), both, options)

    size = size_of(options)
    with written(found, options):
        steps = Steps(found, rest, options)
        trainer_of(steps).fit(model_of(size, options), datamodule=question_data(size, options.steps))


if __name__ == "__main__":
    main()

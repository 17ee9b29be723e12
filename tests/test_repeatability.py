"""The same seed gives the same run; micro-batches and rows side by side, which are not the method's, only round.

The tolerances are those of docs/numbers.md.
"""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from commands_shown import ROOT
from opcod.grpo import PolicyGradient, reinforce
from opcod.matching import Matching, match
from opcod.optimization import Optimization
from opcod.peers import SharedBase
from opcod.rollout import Sampling, sample
from opcod.scoring import Scored
from opcod.specialist import imitate
from test_codistillation import assert_same
from test_matching import context, peer
from test_rollout import MANY_ENDS, requests
from tiny import LORA, load_tiny, run_config, stir

# ---- one device, one seed, two processes


def finished(folder, config, hash_seed):
    """A run in a process of its own: its last checkpoint, its samples, and what it logged, without times."""
    options = ["--trainer.logger.init_args.save_dir=" + str(folder), "--quiet"]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "opcod.cli", "fit", "-c", str(config), *options],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    run = folder / "version_0"
    with (run / "metrics.csv").open(newline="") as file:
        timed = ("seconds/", "tokens_per_second/")
        logged = [{k: v for k, v in row.items() if not k.startswith(timed)} for row in csv.DictReader(file)]
    return (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True),
        (run / "samples.jsonl").read_text(encoding="utf-8").splitlines(),
        logged,
    )


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_in_another_process_with_other_hashes(tiny_folder, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(run_config(tiny_folder)))
    one, other = (finished(tmp_path / str(number), config, hash_seed=number) for number in (1, 2))
    assert_same(one[0], other[0])  # adapters, averages, optimizers, schedules, loops and callbacks
    assert one[1:] == other[1:]
    assert len(one[1]) == 2 * 4 * 4
    assert any(json.loads(line)["distilled"] for line in one[1])


# ---- micro-batches

CONTEXTS = [context(i % 5, length) for i, length in enumerate((3, 11, 7, 20, 5, 13, 8, 2))]
ATTEMPTS = [c.attempt for c in CONTEXTS]
SEQUENCES = [Scored(a.prompt, tuple(a.response.tokens.tolist())) for a in ATTEMPTS]


def matched(tutee, micro):
    return match(tutee, CONTEXTS, Matching(micro_batch_tokens=micro), torch.Tensor.backward).loss


def reinforced(tutee, micro):
    settings = PolicyGradient(micro_batch_tokens=micro)
    return reinforce(tutee, ATTEMPTS, [0.5, -0.25] * 4, settings, torch.Tensor.backward)


def imitated(tutee, micro):
    return imitate(tutee.base, tutee.adapter("student"), SEQUENCES, micro, torch.Tensor.backward)


def stepped(folder, dtype, loss_of, micro):
    """The loss, the gradient and the update of a step with so many tokens at once."""
    tutee = peer(load_tiny(folder, dtype=dtype))
    tutee.base.peft.zero_grad()
    loss = loss_of(tutee, micro)
    gradient, before = flat(p.grad for p in tutee.parameters()), flat(tutee.parameters())
    Optimization(lr=1e-2, warmup=0).optimizer(tutee.parameters()).step()
    return loss, gradient, flat(tutee.parameters()) - before


def flat(tensors):
    return torch.cat([t.detach().flatten().clone() for t in tensors])


def apart(one, other):
    """The norm of the difference, as a share of the norm."""
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("loss_of", [matched, reinforced, imitated], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("dtype", "of_loss", "of_gradient", "of_update"),
    [("float32", 1e-4, 1e-5, 2e-4), ("bfloat16", 1e-3, 1e-2, 0.15)],
    ids=["float32", "bfloat16"],
)
def test_micro_batches_change_rounding_only(loss_of, dtype, of_loss, of_gradient, of_update, tiny_folder):
    whole = stepped(tiny_folder, dtype, loss_of, 10_000)
    assert_same(stepped(tiny_folder, dtype, loss_of, 10_000), whole)
    for micro in (100, 40, 1):
        loss, gradient, update = stepped(tiny_folder, dtype, loss_of, micro)
        assert loss == pytest.approx(whole[0], rel=of_loss)
        assert apart(gradient, whole[1]) < of_gradient
        assert apart(update, whole[2]) < of_update


# ---- rows side by side


def test_how_many_are_sampled_side_by_side_does_not_change_what_they_say(tiny_base):
    base = SharedBase(tiny_base, LORA)
    base.add_adapter("ann", seed=1)
    stir(base, "ann", seed=2)

    def tokens(size):
        with base.using("ann"):
            found = sample(base, requests(), Sampling(max_new_tokens=16, batch_size=size), MANY_ENDS)
        return [r.tokens.tolist() for r in found]

    alone = tokens(1)
    assert len({len(t) for t in alone}) >= 3
    assert [tokens(size) for size in (2, 4, 64)] == [alone] * 3

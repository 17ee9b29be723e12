"""What a run takes: the code that goes by without numbers against the same code with them, and by hand."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from opcod import cli, commands
from opcod.contexts import ContextSettings
from opcod.devices import GIB, Device, this_cpu
from opcod.matching import Matching, match
from opcod.passes import Lengths, matching_contexts
from opcod.peers import Peer, SharedBase
from opcod.plan import longest_prompt, plan
from opcod.rollout import Request, prefill
from opcod.scoring import Scored
from opcod.simulation import META, NF4_BYTES, SimulatedBase, Speed, Tally, Trace
from opcod.specialist import imitate
from tiny import LORA, build_folder, load_tiny, run_config

SPEED = Speed(flops=1e12, bandwidth=1e12, launch=0.0)
DEVICE = Device("test", "cpu", 8 * GIB, SPEED, measured=True, before=0.0, gaps=1.0)


def simulated(folder, **settings):
    options = {"speed": SPEED, "fused": False, "packed": False} | settings
    base = SimulatedBase(AutoConfig.from_pretrained(folder), torch.float32, LORA, **options)
    Peer("a", "physics", base).create(seed=0, source=None)
    return base


def planned(folder, *arguments, device=DEVICE, **settings):
    config = folder / "plan.yaml"
    config.write_text(json.dumps(run_config(folder)))
    command = commands.CoDistil(["-c", str(config), *arguments], run=False)
    return plan(command.model, command.datamodule, rounds=2, device=device, **settings)


# ---- the code without numbers


@pytest.mark.parametrize("train", [False, True])
def test_operations_are_those_of_the_model_with_numbers(tiny_folder, train):
    real = SharedBase(load_tiny(tiny_folder), LORA)
    real.add_adapter("a_student", 0)

    def work(base, device):
        with base.using("a_student", train=train):
            states = base.hidden(torch.ones(2, 30, dtype=torch.long, device=device))
            if train:
                base.head(states[0]).sum().backward()

    with FlopCounterMode(display=False) as counter:
        work(real, "cpu")
    fake = simulated(tiny_folder)
    assert fake.trace(lambda: work(fake, META)).flops == counter.get_total_flops() > 0


def test_a_forward_pass_by_hand(tiny_folder):
    """Every weight of a linear layer is multiplied and added once a token; so are queries, keys and values."""
    base, tokens = simulated(tiny_folder), 40
    config = base.loaded.model.config

    def forward():
        with base.using("a_student"):
            return base.hidden(torch.ones(1, tokens, dtype=torch.long, device=META))

    weights = sum(w.numel() for w in base.linear_weights) + sum(p.numel() for p in base.parameters_of("a_student"))
    scores = config.num_hidden_layers * config.hidden_size * tokens * tokens * 2
    assert base.trace(forward).flops == 2 * (weights * tokens + scores)


@pytest.mark.parametrize("share", [True, False])
def test_keys_and_values_by_hand(tiny_folder, share):
    base, rows, length = simulated(tiny_folder), 6, 50
    config = base.loaded.model.config

    with Tally(SPEED, list(base.parameters()), []) as tally, base.using("a_student"):
        kept = prefill(base, [Request((i + 1,) * length, ()) for i in range(rows)], share=share)[0]
    head = config.hidden_size // config.num_attention_heads
    room = length if share else length + 64  # a growing cache has room for 64 positions more
    mask, place = (rows * length * 4, 8) if share else (0, 0)
    kept_bytes = 2 * config.num_hidden_layers * rows * config.num_key_value_heads * head * room * 4
    assert tally.now == kept_bytes + mask + place
    assert tally.peak > tally.now
    del kept
    assert tally.now == 0


def test_the_slowest_of_arithmetic_traffic_and_launch_counts():
    def seconds(**speed):
        base = torch.empty(64, 32, device=META)
        with Tally(replace(SPEED, **speed), [base], []) as tally:
            base.t() @ base  # 2 x 32 x 64 x 32 operations; 2 x 8192 bytes read, 4096 written
        return tally.seconds

    assert seconds(flops=1.0) == 2 * 32 * 64 * 32
    assert seconds(bandwidth=1.0) == 2 * 8192 + 4096
    assert seconds(launch=9.0) == 9.0


def test_what_runs_in_earnest_is_counted_as_well():
    a, b = torch.ones(16, 32), torch.ones(32, 8)
    with Tally(SPEED, device=a.device) as tally:
        product = a @ b
        del product
        kept = a + 1
    assert tally.flops == 2 * 16 * 32 * 8
    assert (tally.now, tally.peak) == (kept.nbytes, max(16 * 8 * 4, kept.nbytes))


def test_traces_add_up():
    total = Trace(3, 10.0, 1.0) + Trace(5, 1.0, 2.0).times(3)
    assert (total.peak, total.flops, total.seconds) == (5, 13.0, 7.0)


# ---- a plan


@pytest.mark.parametrize("method", ["CoDistillation", "Grpo", "FineTuning"])
def test_every_method_is_planned(tiny_folder, tmp_path, method):
    settings = {"CoDistillation": [], "Grpo": ["--model=Grpo"], "FineTuning": ["--model=FineTuning"]}[method]
    found = planned(tiny_folder, *settings)
    names = {"CoDistillation": ["rollout", "feedback", "match"], "Grpo": ["rollout", "reinforce"]}
    assert [p.name for p in found.parts] == names.get(method, ["imitate"])
    assert all(p.memory > 0 and p.work.flops > 0 for p in (*found.parts, *found.scored))
    assert (found.steps, found.scorings) == (8, (3, 2))
    work = sum(p.work.flops for p in found.parts)
    scored = 3 * found.scored[0].work.flops + 2 * found.scored[1].work.flops
    assert found.run().flops == pytest.approx(8 * work + scored)


def test_what_stands_in_memory_by_hand(tiny_folder):
    nf4 = ("--model.base.quantization=nf4", "--model.base.packed=yes")
    found = planned(tiny_folder, *nf4, device=replace(DEVICE, kind="cuda"))
    base = simulated(tiny_folder)
    linear = sum(w.numel() for w in base.linear_weights)
    rest = base.parameter_count - linear
    assert found.standing["weights"] == pytest.approx(linear * (0.5 + 1 / 64 + 1 / 4096) + rest * 4)
    assert found.trained == sum(p.numel() for p in base.parameters_of("a_student"))
    assert found.standing["adapters"] == 2 * 3 * found.trained * 4  # students x roles
    assert found.standing["gradients and optimizers"] == 2 * 3 * found.trained * 4  # gradient, two moments
    assert pytest.approx(0.5159, abs=1e-4) == NF4_BYTES


def test_captured_steps_are_repeated_faster_than_they_are_launched(tiny_folder):
    speed = replace(SPEED, launch=1.0, repeat=0.01)
    gpu, anew = replace(DEVICE, speed=speed), replace(DEVICE, speed=replace(speed, repeat=None))

    def seconds(device, *settings):
        return planned(tiny_folder, "--model.rollout.max_new_tokens=40", *settings, device=device).parts[0].work.seconds

    launched = seconds(anew)
    assert launched / 100 < seconds(gpu) < launched / 4  # prompts are read operation by operation
    assert seconds(gpu, "--model.rollout.capture=false") == launched
    assert seconds(gpu, "--model.rollout.share_prefixes=false") == pytest.approx(launched, rel=0.2)


def test_weights_are_packed_by_their_share_of_the_device(tiny_folder):
    def of(memory, packed):
        device = replace(DEVICE, kind="cuda", memory=memory)
        base = [f"--model.base.{k}" for k in ("quantization=nf4", f"packed={packed}")]
        found = planned(tiny_folder, *base, device=device)
        return found.parts[0].memory, found.parts[0].work.seconds, found.standing["weights"]

    unpacked = sum(w.numel() for w in simulated(tiny_folder).linear_weights) * 4
    small, middle, large = 4 * unpacked - 1, 4 * unpacked, 32 * unpacked
    assert of(small, "auto") == of(small, "yes") == of(large, "yes")
    assert of(middle, "auto") == of(large - 1, "auto") == of(small, "while_learning")
    assert of(large, "auto") == of(small, "no")
    packed, while_learning, plain = of(small, "yes"), of(small, "while_learning"), of(small, "no")
    assert while_learning[0] >= packed[0] + 0.9 * unpacked
    assert packed[2] == while_learning[2] < 0.8 * plain[2]
    assert plain[1] == pytest.approx(while_learning[1], rel=0.01)  # which unpacks them once


def test_a_student_alone_and_a_gate_that_never_opens_take_no_feedback(tiny_folder):
    never = planned(tiny_folder, "--model.gate.strategy=never")
    alone = planned(tiny_folder, "--model.students=[{name: a, domain: physics}]")
    for found in (never, alone):
        assert found.step() == found.step(least=True)
    both = planned(tiny_folder)
    assert both.step().flops > both.step(least=True).flops == pytest.approx(never.step(least=True).flops)


def test_shorter_responses_take_less_work_and_the_same_memory(tiny_folder):
    long = planned(tiny_folder, "--model.rollout.max_new_tokens=40")
    short = planned(tiny_folder, "--model.rollout.max_new_tokens=40", response=10)
    assert [p.memory for p in short.parts] == [p.memory for p in long.parts]
    assert [p.memory for p in short.scored] == [p.memory for p in long.scored]
    assert short.run().flops < long.run().flops


def test_shorter_feedback_takes_less_work_and_the_same_memory(tiny_folder):
    limit = "--model.feedback.max_new_tokens=40"
    long, short = planned(tiny_folder, limit), planned(tiny_folder, limit, feedback=10)
    assert (long.expected.feedback, short.expected.feedback, short.lengths.feedback) == (40, 10, 40)
    assert [p.memory for p in short.parts] == [p.memory for p in long.parts]
    work = [one.work.flops / other.work.flops for one, other in zip(short.parts, long.parts, strict=True)]
    assert work[0] == 1, "the rollout"
    assert max(work[1:]) < 1, "feedback and matching"
    assert planned(tiny_folder, limit, feedback=50).expected.feedback == 40, "no more than the limit"


def test_the_longest_prompt_of_a_batch_on_average_by_hand():
    one, other = (SimpleNamespace(prompt=lambda length, more=more: range(length + more)) for more in (0, 1))
    lengths = [3, 9, 4, 4, 5]
    assert longest_prompt([one], lengths, batch=2, limit=100) == (9 + 4 + 5) / 3
    assert longest_prompt([one], lengths, batch=1, limit=100) == 5
    assert longest_prompt([one, other], lengths, batch=2, limit=100) == 7, "by the tokenizer that takes most"
    assert longest_prompt([one], [3, 4], batch=1, limit=100) == 4, "rounded up"
    assert longest_prompt([one], lengths, batch=2, limit=5) == 5


def test_recomputed_activations_take_less_memory_and_more_work(tiny_folder):
    def of(share, recompute):
        settings = [f"--model.matching.share_prefixes={share}", f"--model.checkpoint_activations={recompute}"]
        return planned(tiny_folder, *settings).parts[-1]

    assert of(False, True).memory < of(False, False).memory
    for share in (False, True):
        kept, again = of(share, False), of(share, True)
        assert again.work.peak < kept.work.peak
        assert again.work.flops > kept.work.flops
    assert again.work.flops < 0.9 * of(False, True).work.flops, "what prompts begin with is read once"


def test_over_two_bases_memory_is_of_the_larger_and_work_of_both(tiny_folder, tmp_path):
    """Each student by itself is planned as two of its kind, so a pair of kinds is their mean."""
    large = build_folder(tmp_path / "large", hidden=128, layers=3, intermediate=256)
    own = {"quantization": "none", "dtype": "float32"}
    small, big = ({"domain": "physics", "base": own | {"model": str(f)}} for f in (tiny_folder, large))

    def of(*kinds):
        students = [kind | {"name": name} for kind, name in zip(kinds, "abc", strict=False)]
        return planned(tiny_folder, f"--model.students={json.dumps(students)}")

    mixed, swapped, smalls, bigs = of(small, big), of(big, small), of(small, small), of(big, big)
    assert mixed.memory == pytest.approx(swapped.memory)
    assert mixed.parameters == smalls.parameters + bigs.parameters
    for part, swap, one, other in zip(mixed.parts, swapped.parts, smalls.parts, bigs.parts, strict=True):
        assert part.memory == swap.memory == other.memory > one.memory
        assert part.work.flops == pytest.approx((one.work.flops + other.work.flops) / 2)
    for part, one, other in zip(mixed.scored, smalls.scored, bigs.scored, strict=True):
        assert part.memory == other.memory
        assert part.work.flops == pytest.approx((one.work.flops + other.work.flops) / 2)
    three = of(small, big, big)
    assert (three.steps, mixed.steps) == (12, 8)
    for part, one, other in zip(three.parts, smalls.parts, bigs.parts, strict=True):
        assert part.work.flops == pytest.approx((one.work.flops + 2 * other.work.flops) / 3)


def test_it_says_whether_it_fits(tiny_folder):
    assert planned(tiny_folder).fits is True
    assert planned(tiny_folder, device=replace(DEVICE, memory=1e6)).fits is False
    assert planned(tiny_folder, device=replace(DEVICE, memory=None)).fits is None


def test_the_processor_is_measured():
    device = this_cpu(torch.float32)
    assert device.speed.flops > 1e9
    assert device.speed.bandwidth > 1e8
    assert 0 < device.speed.launch < 1e-3
    assert device.before > 0.05 * GIB


# ---- the command


def run(tiny_folder, tmp_path, *arguments):
    (tmp_path / "run.yaml").write_text(json.dumps(run_config(tiny_folder)))
    cli.main(["plan", "-c", str(tmp_path / "run.yaml"), *arguments])


@pytest.mark.parametrize("device", ["cpu", "h100"])
def test_the_command_prints_memory_and_work(tiny_folder, tmp_path, capsys, device):
    run(tiny_folder, tmp_path, "--device", device)
    out = " ".join(capsys.readouterr().out.split())
    assert "at its peak" in out
    assert "the run, 8 steps with feedback" in out
    assert ("not yet measured" in out) == (device != "cpu")


def test_a_runs_own_config_is_planned_wherever_its_checkpoint_is(tiny_folder, tmp_path, capsys):
    given = tmp_path / "given.yaml"
    given.write_text(json.dumps(run_config(tiny_folder)))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", "-c", str(given), "--ckpt_path=gone.ckpt", "--print_config"])
    assert stopped.value.code == 0
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    cli.main(["plan", "-c", str(tmp_path / "config.yaml")])
    assert "at its peak" in " ".join(capsys.readouterr().out.split())


def test_a_folder_with_a_config_alone_is_enough(tiny_folder, tmp_path, capsys):
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape" / "config.json").write_text((tiny_folder / "config.json").read_text())
    run(tiny_folder, tmp_path, f"--model.base.model={tmp_path / 'shape'}")
    assert "tokens are counted by the bundled model's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "device"),
        (["--response_tokens", "0"], "response_tokens"),
        (["--model.base.model=./nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_arguments_are_named(tiny_folder, tmp_path, capsys, arguments, said):
    with pytest.raises(SystemExit):
        run(tiny_folder, tmp_path, *arguments)
    assert said in capsys.readouterr().err


# ---- against the system's own count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's count of resident memory")
@pytest.mark.parametrize("part", ["match", "imitate"])
def test_the_peak_of_a_part_is_what_the_system_counts(tmp_path, part):
    """A model whose passes take hundreds of megabytes, in a process whose allocator gives all back at once."""
    build_folder(tmp_path / "base", hidden=256, layers=6, intermediate=1024)
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path / "base"), part]
    done = subprocess.run(command, env=os.environ | allocator, capture_output=True, text=True, check=True)
    peaks = json.loads(done.stdout.splitlines()[-1])
    assert peaks["counted"] > 0.2 * GIB
    assert peaks["planned"] == pytest.approx(peaks["counted"], rel=0.15)


def _status(name):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


def _count_both(folder, part):
    """Match or imitate once without numbers and once with them, and print the peaks of both in bytes."""
    lengths = Lengths(prompt=100, context=120, tutoring=0, response=150, feedback=50, limit=1000)
    settings = Matching(micro_batch_tokens=4096)
    contexts = matching_contexts(lengths, ContextSettings(limit=1000), questions=4, samples=4)
    worked = [Scored((i,) * lengths.prompt, (i,) * lengths.response) for i in range(16)]

    def go(base):
        if part == "imitate":
            imitate(base, "a_student", worked, settings.micro_batch_tokens, torch.Tensor.backward)
            return
        match(Peer("a", "physics", base), contexts, settings, torch.Tensor.backward)

    fake = simulated(folder)
    peak = fake.trace(lambda: go(fake)).peak
    real = SharedBase(load_tiny(folder), LORA)
    Peer("a", "physics", real).create(seed=0, source=None)
    go(real)  # libraries take what they keep
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    go(real)
    print(json.dumps({"planned": peak, "counted": _status("VmHWM") - before}))


if __name__ == "__main__":
    _count_both(Path(sys.argv[1]), sys.argv[2])

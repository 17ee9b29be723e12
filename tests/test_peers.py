import json
import shutil
import warnings

import pytest
import torch
import torch.nn.functional as F
from peft import PeftConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from opcod.attention import GROUPED
from opcod.export import write_adapter
from opcod.models import LoadedBase, ModelError
from opcod.peers import ADAPTER_FILE, Lora, Peer, SharedBase, read_adapter
from opcod.specialists import adapter_folder, shipped
from tiny import LORA, load_tiny, random_ids, stir

IDS = torch.tensor([random_ids(12, seed=0)])
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": (LlamaConfig, {}),
    "qwen3": (Qwen3Config, {}),
    "mistral": (MistralConfig, {"sliding_window": 4}),
    "gemma2": (Gemma2Config, {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}),
    "granite": (GraniteConfig, {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
    "cohere": (CohereConfig, {"logit_scale": 0.25}),
}


@pytest.fixture
def base(tiny_base):
    return SharedBase(tiny_base, LORA)


def peer(base, name="ann", seed=1):
    """A peer whose three adapters differ from the base and from each other."""
    made = Peer(name, "physics", base)
    made.create(seed=seed, source=None)
    for number, role in enumerate(("student", "teacher", "tutor")):
        stir(base, made.adapter(role), seed=10 * seed + number)
    return made


def logits(base, name):
    with base.using(name):
        return base.head(base.hidden(IDS)[0])


def learn(peer, lr=1e-2):
    """One AdamW update of the student towards the next tokens of IDS; returns its gradients."""
    parameters = peer.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    with peer.using("student", train=True):
        F.cross_entropy(peer.base.head(peer.base.hidden(IDS)[0, :-1]), IDS[0, 1:]).backward()
    gradients = [p.grad.clone() for p in parameters]
    optimizer.step()
    optimizer.zero_grad()
    return gradients


def everything(base):
    return {n: t.detach().clone() for n, t in [*base.peft.named_parameters(), *base.peft.named_buffers()]}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def names_of(base, adapter):
    names = {n for n, _ in base.peft.named_parameters() if f".{adapter}." in n}
    assert len(names) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    return names


def of_family(name):
    config_class, extras = FAMILIES[name]
    config = config_class(**SIZES | extras, attn_implementation="eager")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return LoadedBase(model, None, torch.float32, {})


def test_a_fresh_adapter_computes_exactly_what_the_base_does(tiny_folder, base):
    base.add_adapter("fresh", seed=3)
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation=GROUPED)
    with torch.no_grad():
        expected = plain(IDS).logits[0]
    assert torch.equal(logits(base, "fresh"), expected)


def test_adapters_are_float32_and_drawn_from_their_seed_alone(tiny_base):
    base = SharedBase(tiny_base, LORA)
    base.add_adapter("one", seed=3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    base.add_adapter("same", seed=3)
    base.add_adapter("other", seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    one, same, other = (base.state_of(n) for n in ("one", "same", "other"))
    assert all(t.dtype == torch.float32 for t in one.values())
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not any(torch.equal(one[n], other[n]) for n in one if "lora_A" in n)


def test_a_students_step_changes_its_own_adapter_and_nothing_else(base):
    ann = peer(base)
    peer(base, "bob", seed=2)
    before = everything(base)
    learn(ann)
    assert changed(before, everything(base)) == names_of(base, "ann_student")


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_the_teacher_moves_by_the_rate_and_nothing_else_moves(base, rate):
    ann = peer(base)
    peer(base, "bob", seed=2)
    before = everything(base)
    ann.update_teacher(rate)
    after = everything(base)
    assert changed(before, after) == names_of(base, "ann_teacher")
    for name in names_of(base, "ann_teacher"):
        student = before[name.replace("ann_teacher", "ann_student")].double()
        expected = (1 - rate) * before[name].double() + rate * student
        torch.testing.assert_close(after[name].double(), expected, rtol=1e-6, atol=1e-8)


def test_a_teacher_at_rate_0_stays_and_at_rate_1_is_the_student(base):
    ann = peer(base)
    before = everything(base)
    ann.update_teacher(0.0)
    assert changed(before, everything(base)) == set()
    ann.update_teacher(1.0)
    for student, teacher in zip(ann.parameters("student"), ann.parameters("teacher"), strict=True):
        assert torch.equal(student, teacher)


def test_the_tutor_is_a_copy_that_does_not_follow_its_student(base):
    ann = peer(base)
    ann.copy("student", "tutor")
    frozen = logits(base, "ann_tutor")
    assert torch.equal(frozen, logits(base, "ann_student"))
    learn(ann)
    assert torch.equal(frozen, logits(base, "ann_tutor"))
    assert not torch.allclose(frozen, logits(base, "ann_student"), atol=1e-4)


def test_peers_on_a_shared_base_equal_peers_on_bases_of_their_own(tiny_folder, base):
    shared = [peer(base, "ann", seed=1), peer(base, "bob", seed=2)]
    own = [peer(SharedBase(load_tiny(tiny_folder), LORA), name, seed) for name, seed in (("ann", 1), ("bob", 2))]
    assert not torch.allclose(logits(base, "ann_student"), logits(base, "bob_student"), atol=1e-2)
    for _ in range(2):
        for ours, theirs in zip(shared, own, strict=True):
            for role in ("student", "teacher", "tutor"):
                name = ours.adapter(role)
                assert torch.equal(logits(ours.base, name), logits(theirs.base, name))
        for pair in (shared, own):
            for one in pair:
                learn(one)
                one.update_teacher(0.05)


def test_using_without_training_records_nothing_and_leaves_no_parameter_trainable(base):
    ann = peer(base)
    with ann.using("student"):
        hidden = base.hidden(IDS)
        assert not hidden.requires_grad
        assert not any(p.requires_grad for p in base.peft.parameters())
    assert torch.is_grad_enabled()
    assert not any(p.requires_grad for p in base.peft.parameters())


def test_only_the_adapter_in_training_takes_gradients(base):
    ann, bob = peer(base), peer(base, "bob", seed=2)
    for one in (ann, bob, ann):
        with one.using("student", train=True):
            trainable = {n for n, p in base.peft.named_parameters() if p.requires_grad}
        assert trainable == names_of(base, one.adapter("student"))
    with ann.using("teacher"):
        assert not any(p.requires_grad for p in base.peft.parameters())


def test_the_active_adapter_changes_what_is_computed(base):
    ann = peer(base)
    computed = [logits(base, ann.adapter(role)) for role in ("student", "teacher", "tutor")]
    assert not torch.allclose(computed[0], computed[1], atol=1e-2)
    assert not torch.allclose(computed[0], computed[2], atol=1e-2)
    assert torch.equal(computed[0], logits(base, "ann_student"))


def test_checkpointed_activations_give_the_same_gradients(tiny_folder):
    gradients = []
    for checkpointed in (False, True):
        base = SharedBase(load_tiny(tiny_folder), LORA, checkpoint_activations=checkpointed)
        ann = peer(base)
        calls = []
        layer = base.loaded.model.base_model.layers[0].self_attn
        layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        gradients.append(learn(ann))
        assert len(calls) == (2 if checkpointed else 1)  # recomputed in the backward pass
        assert not base.loaded.model.training
        assert not any(getattr(m, "gradient_checkpointing", False) for m in base.loaded.model.modules())
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.abs().max() > 1e-5
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_head_give_the_familys_own_logits(family):
    loaded = of_family(family)
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = loaded.model(ids).logits
    base = SharedBase(loaded, LORA)
    with base.using("bare"):
        computed = base.head(base.hidden(ids))
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.05


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_the_tested_families_logits_are_indeed_scaled(family):
    loaded = of_family(family)
    with torch.no_grad():
        logits = loaded.model(IDS % 60).logits
        plain = loaded.model.lm_head(loaded.model.base_model(IDS % 60).last_hidden_state)
    assert not torch.allclose(logits, plain, rtol=0.1)


def test_a_family_that_scales_its_logits_in_an_unknown_way_is_refused(tiny_base, monkeypatch):
    forward = tiny_base.model.forward

    def doubled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits * 2
        return out

    monkeypatch.setattr(tiny_base.model, "forward", doubled)
    with pytest.raises(ModelError, match="LlamaForCausalLM turns hidden states into logits"):
        SharedBase(tiny_base, LORA)


@pytest.mark.parametrize(("name", "reached"), [("lm_head", "the output head"), ("embed_tokens", "the embeddings")])
def test_an_adapter_of_the_output_head_or_of_the_embeddings_is_refused(name, reached, tiny_base):
    with pytest.raises(ModelError, match=f"reach {reached}, which all roles share"):
        SharedBase(tiny_base, Lora(target_modules=["q_proj", name]))


def test_state_and_load_state_restore_every_role_bit_for_bit(tiny_folder, base):
    ann = peer(base)
    saved = {role: {n: t.clone() for n, t in state.items()} for role, state in ann.state().items()}
    before = everything(base)
    for role in ("student", "teacher", "tutor"):
        stir(base, ann.adapter(role), seed=77)
    ann.load_state(saved)
    assert changed(before, everything(base)) == set()
    elsewhere = Peer("ann", "physics", SharedBase(load_tiny(tiny_folder), LORA))
    elsewhere.create(seed=5, source=None)
    elsewhere.load_state(saved)
    assert torch.equal(logits(elsewhere.base, "ann_teacher"), logits(base, "ann_teacher"))


def test_an_exported_adapter_gives_the_same_logits_in_plain_peft(tiny_folder, base, tmp_path):
    ann = peer(base)
    folder = tmp_path / "adapter"
    write_adapter(folder, ann.state()["student"], LORA, base=str(tiny_folder), card="# ann")
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation=GROUPED)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as peft warns of tensors that it misses
        loaded = PeftModel.from_pretrained(plain, folder)
    with torch.no_grad():
        expected = loaded(IDS).logits[0]
    torch.testing.assert_close(logits(base, "ann_student"), expected, rtol=1e-6, atol=1e-6)
    assert (folder / "README.md").read_text() == "# ann"
    assert loaded.peft_config["default"].base_model_name_or_path == str(tiny_folder)


def test_an_adapter_over_the_bundled_model_names_it_as_the_hub_does(base, tmp_path):
    write_adapter(tmp_path, peer(base).state()["student"], LORA, base="bundled")
    assert PeftConfig.from_pretrained(tmp_path).base_model_name_or_path == "HuggingFaceTB/SmolLM2-135M-Instruct"
    for name in shipped():
        found = PeftConfig.from_pretrained(adapter_folder(name))
        assert found.base_model_name_or_path == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_peer_starts_in_all_roles_as_the_adapter_it_is_given(base, tmp_path):
    ann = peer(base)
    write_adapter(tmp_path / "ann", ann.state()["student"], LORA, base="tiny")
    bob = Peer("bob", "chemistry", base)
    bob.create(seed=9, source=tmp_path / "ann")
    for role in ("student", "teacher", "tutor"):
        assert torch.equal(logits(base, bob.adapter(role)), logits(base, "ann_student"))


def test_a_rank_or_alpha_below_one_is_refused_where_it_is_set():
    with pytest.raises(ValueError, match="lora: rank is 0, expected at least 1; alpha is -1, expected at least 1"):
        Lora(rank=0, alpha=-1)


def test_an_adapter_of_another_rank_is_refused_with_both_ranks_named(base, tmp_path):
    write_adapter(tmp_path / "ann", peer(base).state()["student"], LORA, base="tiny")
    with pytest.raises(ModelError, match=r"rank 4 and alpha 8.*rank 16 and alpha 32"):
        read_adapter(tmp_path / "ann", Lora(rank=16, alpha=32))


@pytest.mark.parametrize(
    "more",
    [{"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"q_proj": 4}}, {"rank_pattern": {"q_proj": 2}}],
)
def test_an_adapter_that_is_scaled_by_more_than_alpha_and_rank_is_refused(base, tmp_path, more):
    folder = tmp_path / "ann"
    write_adapter(folder, peer(base).state()["student"], LORA, base="tiny")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | more))
    with pytest.raises(ModelError, match=f"ann is no plain LoRA adapter: it sets {next(iter(more))}"):
        read_adapter(folder, LORA)


def test_an_adapter_of_other_layers_is_refused_with_both_shapes_named(tiny_folder, base, tmp_path):
    narrow = Lora(rank=4, alpha=8, target_modules=["q_proj"])
    other = SharedBase(load_tiny(tiny_folder), narrow)
    other.add_adapter("other", seed=0)
    write_adapter(tmp_path / "other", other.state_of("other"), narrow, base="tiny")
    with pytest.raises(ModelError, match=r"has 4 tensors.*q_proj.*wants 28, such as .*\[4, 128\]"):
        Peer("ann", "physics", base).create(seed=0, source=tmp_path / "other")


def test_an_unreadable_adapter_is_refused_with_its_folder_and_remedy(base, tmp_path):
    whole = tmp_path / "whole"
    write_adapter(whole, peer(base).state()["student"], LORA, base="tiny")
    faults = {
        "missing": (lambda f: shutil.rmtree(f), "is no adapter: expected adapter_config.json"),
        "weightless": (lambda f: (f / ADAPTER_FILE).unlink(), "is no adapter"),
        "garbled": (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read"),
        "cut": (lambda f: (f / ADAPTER_FILE).write_bytes(b"\x09" * 20), "cannot be read"),
    }
    for name, (spoil, message) in faults.items():
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        spoil(folder)
        with pytest.raises(ModelError, match=f"{name}.*{message}"):
            read_adapter(folder, LORA)
    assert read_adapter(whole, LORA).keys() == base.state_of("ann_student").keys()

"""Tiny real models for tests: a Llama with random weights, its own tokenizer and a ChatML template."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast

from opcod.data.questions import Question
from opcod.data.science import DOMAINS, generate
from opcod.models import BaseModel, LoadedBase, load_base
from opcod.peers import Lora, SharedBase
from opcod.prompts import student_messages

START, END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LORA = Lora(rank=4, alpha=8)
QUESTION = Question("q", "physics", "Which is longest?", ("1 m", "2 m", "3 m", "4 m"), "D")


@cache
def science_texts(count: int = 20) -> list[str]:
    """Prompts and worked solutions of generated questions, `count` a domain."""
    worked = [w for domain in DOMAINS for w in generate(domain, count, seed=0, split="train")]
    contents = [m["content"] for w in worked for m in student_messages(w.question)]
    return contents + [w.question.solution or "" for w in worked]


def build_tokenizer(
    vocab: int = 600, texts: Iterable[str] | None = None, phrases: Iterable[str] = (), template: str = CHATML
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab` tokens, trained on `texts`, by default generated questions.

    Each of the `phrases` is one more token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(science_texts() if texts is None else texts, trainer)
    tokenizer.add_tokens(list(phrases))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[START],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def build_folder(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate: int = 128,
    vocab: int = 600,
    context: int = 2048,
    spread: float = 0.2,
    seed: int = 0,
    texts: Iterable[str] | None = None,
    phrases: Iterable[str] = (),
    template: str = CHATML,
    config: Callable[[dict[str, Any]], PreTrainedConfig] | None = None,
) -> Path:
    """Write a random Llama with its tokenizer to `folder`, as `save_pretrained` does.

    Args:
        folder: Where to.
        hidden: Width.
        layers: Depth.
        heads: Attention heads.
        kv_heads: Of which share keys and values.
        intermediate: Width of the MLPs.
        vocab: Most tokens.
        context: Most positions.
        spread: Standard deviation of the weights; 0.02 trains well, a larger one gives peaked distributions.
        seed: Of the weights.
        texts: What the tokenizer is trained on.
        phrases: Which are one token each.
        template: The chat template.
        config: Makes the config of another family, given what of it follows from the tokenizer.
    """
    tokenizer = build_tokenizer(vocab, texts, phrases, template)
    given = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "initializer_range": spread,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shape = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate,
        **given,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config(given) if config else shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_tiny(folder: Path, **settings: str) -> LoadedBase:
    """The model in `folder` in float32, not quantised unless `settings` say so."""
    return load_base(BaseModel(**{"model": str(folder), "quantization": "none", "dtype": "float32"} | settings))


def stir(base: SharedBase, name: str, seed: int, spread: float = 0.1) -> None:
    """Fill an adapter with random numbers, so that it no longer computes what the base does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in base.parameters_of(name):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def random_ids(count: int, seed: int, low: int = 2, high: int = 500) -> tuple[int, ...]:
    """`count` token ids without the special ones."""
    return tuple(torch.randint(low, high, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def run_config(folder: Path) -> dict:
    """A short run over the model in `folder`, as a config file has it."""
    short = {"max_new_tokens": 4}
    return {
        "model": {
            "base": {"model": str(folder), "quantization": "none", "dtype": "float32"},
            "students": [{"name": "a", "domain": "physics"}, {"name": "b", "domain": "chemistry"}],
            "lora": {"rank": LORA.rank, "alpha": LORA.alpha},
            "samples": 2,
            "anchored": False,
            "rollout": short,
            "feedback": short,
            "gate": {"strategy": "always"},
            "optimization": {"lr": 0.01, "warmup": 0},
            "evaluation": short,
            "evaluation_samples": 1,
        },
        "data": {
            "source": {
                "class_path": "GeneratedScience",
                "init_args": {"domains": ["physics", "chemistry"], "train": 50},
            },
            "steps": 2,
            "batch_size": 2,
            "validation": 2,
            "test": 3,
        },
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    }

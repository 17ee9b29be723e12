"""Peers: student, self-teacher and tutor as LoRA adapters over one shared base.

`SharedBase` is the one owner of which adapter is active and which parameters take gradients; nothing else
in the package calls peft's `set_adapter` or touches `requires_grad`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Cache

from opcod.attention import GROUPED, decoding_with
from opcod.counts import count_faults
from opcod.decoding import SharedCache
from opcod.families import check, family_of
from opcod.low_rank import fuse_low_rank
from opcod.merging import can_merge, merged
from opcod.models import LoadedBase, ModelError, first_line
from opcod.norms import fuse_norm
from opcod.prepacking import prepacked
from opcod.recomputing import recomputed

Role = Literal["student", "teacher", "tutor"]
State = dict[str, Tensor]

ADAPTER_FILE = "adapter_model.safetensors"
_BARE = "bare"  # the adapter peft needs to wrap a model; stays at zero, so it is the base model itself


@dataclass(frozen=True)
class Lora:
    """The low-rank adapters of a peer.

    Args:
        rank: Inner dimension r of the update B A.
        alpha: The update is scaled by alpha / rank.
        target_modules: Which linear layers; `all-linear` is all but the output head. Of Mixtral's, Qwen's and
            DeepSeek's experts peft takes these and their routers with it, and leaves out layers of the same names
            elsewhere, such as shared experts; of a model that sees, the layers that see are among them, though text
            does not teach them.
    """

    rank: int = 8
    alpha: int = 16
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        if faults := count_faults(rank=self.rank, alpha=self.alpha):
            raise ValueError("lora: " + "; ".join(faults))

    def config(self) -> LoraConfig:
        """As peft reads it; without dropout, so that a forward pass can be repeated exactly."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=self.target_modules,
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )


class SharedBase(nn.Module):
    """One base model in memory under any number of named adapters, all float32.

    Args:
        loaded: The base model.
        lora: Shape of the adapters.
        checkpoint_activations: Recompute activations in the backward pass instead of keeping them.
        merge: Add an adapter to the weights while it samples.
        fuse: Compute adapted layers by `low_rank.LowRankLinear`, and differentiate norms by `norms.RmsNorm`; otherwise
            peft does, and torch.

    Raises:
        ModelError: If peft cannot adapt the layers, or the model is not read as opcod would read it.
    """

    def __init__(
        self,
        loaded: LoadedBase,
        lora: Lora,
        *,
        checkpoint_activations: bool = False,
        merge: bool = True,
        fuse: bool = True,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.fuse = fuse
        self.loaded = loaded
        self.lora = lora
        self.checkpoint_activations = checkpoint_activations
        try:
            self.peft: PeftModel = get_peft_model(loaded.model, lora.config(), adapter_name=_BARE)
        except ValueError as error:
            kind = type(loaded.model).__name__
            raise ModelError(
                f"lora.target_modules {lora.target_modules!r} do not suit {kind}: {first_line(error)}"
            ) from error
        self._prepare_layers()
        if fuse:
            for module in loaded.model.modules():
                fuse_norm(module)
        self.activate(_BARE)
        self.family = family_of(loaded.model)
        self.captures: bool | None = None
        """Whether a GPU can repeat what it does for a token; None until that was looked at."""
        self._check()

    @property
    def device(self) -> torch.device:
        """Where the base model lies."""
        return self.loaded.model.device

    @property
    def recomputes(self) -> bool:
        """Whether layers are computed again in the backward pass to come."""
        return self.checkpoint_activations and torch.is_grad_enabled()

    def add_adapter(self, name: str, seed: int) -> None:
        """Add a fresh adapter: A random by `seed`, B zero, so it computes what the base model does."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.peft.add_adapter(name, self.lora.config())
        self._prepare_layers()
        self.activate(_BARE)

    def _check(self) -> None:
        check(self)

    def _prepare_layers(self) -> None:
        """Let autocast bring adapters to the base's numbers, instead of peft every activation to float32; and fuse."""
        layers: list[Any] = [m for m in self.peft.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            layer.cast_input_dtype_enabled = self.loaded.dtype == torch.float32
            if self.fuse:
                fuse_low_rank(layer)

    def activate(self, name: str, *, train: bool = False) -> None:
        """Make `name` the active adapter; only with `train` does it, and nothing else, take gradients."""
        tuner: Any = self.peft.base_model
        tuner.set_adapter(name, inference_mode=not train)

    @contextlib.contextmanager
    def using(self, name: str, *, train: bool = False) -> Iterator[None]:
        """The adapter `name` for as long as the block lasts, in the numbers of the base model.

        Without `train` nothing is recorded for a backward pass.
        """
        self.activate(name, train=train)
        recompute = recomputed(self.loaded.model) if train and self.checkpoint_activations else contextlib.nullcontext()
        with torch.set_grad_enabled(train), self._autocast(), self._kernels(), recompute:
            yield

    def bare(self) -> contextlib.AbstractContextManager[None]:
        """The base model itself for as long as the block lasts."""
        return self.using(_BARE)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        low = self.loaded.dtype != torch.float32
        return torch.autocast(self.device.type, self.loaded.dtype, enabled=low)

    def _kernels(self) -> contextlib.AbstractContextManager[None]:
        """The kernels for `sdpa`: cuDNN's would spend a second on every new shape, and in a step all shapes are new."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])

    @contextlib.contextmanager
    def sampling(self, name: str) -> Iterator[None]:
        """As `using`, for sampling: the adapter is added to the weights, where these are not packed or are unpacked.

        About twice as fast for a small model. Equal to `using` up to the rounding of the sum W + B A to the base's
        numbers; the weights themselves are put back, not recomputed.
        """
        layers: list[Any] = [m for m in self.peft.modules() if isinstance(m, BaseTunerLayer)]
        if not (self.merge and all(can_merge(layer, unpack=self.loaded.unpacks) for layer in layers)):
            with self.using(name):
                yield
            return
        tuner: Any = self.peft.base_model
        linear = [layer.get_base_layer() for layer in layers]
        try:
            with merged(layers, name, self.loaded.dtype):
                tuner.disable_adapter_layers()
                with self.bare(), prepacked([*linear, self.loaded.model.get_output_embeddings()]):
                    yield
        finally:
            tuner.enable_adapter_layers()
            self.activate(_BARE)

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """The adapter's parameters, always in the same order."""
        return [p for n, p in sorted(self.peft.named_parameters()) if f".{name}." in n]

    def state_of(self, name: str) -> State:
        """The adapter's tensors under peft's own names."""
        return get_peft_model_state_dict(self.peft, adapter_name=name, save_embedding_layers=False)

    def load_state(self, name: str, state: State) -> None:
        """Overwrite the adapter by `state`, named as `state_of` names it.

        Raises:
            ModelError: If the tensors are not those of this adapter.
        """
        mine = self.state_of(name)
        if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in state.items()}:
            raise ModelError(
                f"the adapter for {name} does not fit: it has {len(state)} tensors, such as "
                f"{_example(state)}; this base with rank {self.lora.rank} wants {len(mine)}, such as "
                f"{_example(mine)}. Set the rank and target modules it was made with, or another base model."
            )
        set_peft_model_state_dict(self.peft, {k: v.float() for k, v in state.items()}, adapter_name=name)

    def hidden(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Last hidden states of the active adapter.

        Args:
            input_ids: [B, T] token ids; right-padded ones need no mask, since attention is causal.
            attention_mask: [B, past + T], 0 where a position is padding.
            position_ids: [B, T]; by default counted from the first column.
            cache: Keys and values of the past, extended in place.

        Returns:
            [B, T, H] in the base model's numbers.
        """
        out = self.loaded.model.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state

    @contextlib.contextmanager
    def decoding(self, cache: Cache) -> Iterator[None]:
        """Decode with `cache` as long as the block lasts: by opcod's own attention where rows share prefixes."""
        if not isinstance(cache, SharedCache):
            yield
            return
        model = self.loaded.model
        before = model.config._attn_implementation
        model.set_attn_implementation(GROUPED)
        try:
            with decoding_with(cache):
                yield
        finally:
            model.set_attn_implementation(before)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] of hidden states [N, H], with the model family's scaling, in float32."""
        return self.narrow_head(hidden).float()

    def narrow_head(self, hidden: Tensor) -> Tensor:
        """`head`, in the base model's numbers where nothing is scaled."""
        config = self.loaded.model.config.get_text_config()
        logits = self.loaded.model.get_output_embeddings()(hidden)
        if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
            logits = logits.float() * scale
        if (scaling := getattr(config, "logits_scaling", None)) is not None:  # Granite
            logits = logits.float() / scaling
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
            logits = torch.tanh(logits.float() / cap) * cap
        return logits


@dataclass(frozen=True)
class Peer:
    """One of the models that teach each other: three roles of one student over a base.

    Args:
        name: An identifier, used in adapters' and metrics' names.
        domain: The domain it is stronger in.
        base: The base its adapters lie on, perhaps shared with other peers.
    """

    name: str
    domain: str
    base: SharedBase

    def adapter(self, role: Role) -> str:
        """The adapter's name over the base."""
        return f"{self.name}_{role}"

    def create(self, *, seed: int, source: Path | None) -> None:
        """Add the three adapters; all start as the student in `source`, or as the base model itself.

        Raises:
            ModelError: If `source` holds no adapter or one of another shape.
        """
        for role in ("student", "teacher", "tutor"):
            self.base.add_adapter(self.adapter(role), seed)
        if source is not None:
            self.base.load_state(self.adapter("student"), read_adapter(source, self.base.lora))
        self.copy("student", "teacher")
        self.copy("student", "tutor")

    def using(self, role: Role, *, train: bool = False) -> contextlib.AbstractContextManager[None]:
        """The peer in this role for as long as the block lasts."""
        return self.base.using(self.adapter(role), train=train)

    def sampling(self, role: Role) -> contextlib.AbstractContextManager[None]:
        """The peer in this role while it samples."""
        return self.base.sampling(self.adapter(role))

    def parameters(self, role: Role = "student") -> list[nn.Parameter]:
        """The role's parameters."""
        return self.base.parameters_of(self.adapter(role))

    @torch.no_grad()
    def copy(self, source: Role, target: Role) -> None:
        """Make `target` equal to `source`, as a tutor is frozen from its student."""
        for theirs, mine in zip(self.parameters(source), self.parameters(target), strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def update_teacher(self, rate: float) -> None:
        """Move the self-teacher towards the student: teacher <- (1 - rate) * teacher + rate * student.

        It averages the factors A and B, which is not the average of their products B A.
        """
        for student, teacher in zip(self.parameters("student"), self.parameters("teacher"), strict=True):
            teacher.lerp_(student, rate)

    def state(self) -> dict[str, State]:
        """The tensors of all roles, for a checkpoint."""
        return {role: self.base.state_of(self.adapter(role)) for role in ("student", "teacher", "tutor")}

    def load_state(self, state: dict[str, State]) -> None:
        """Restore what `state` returned."""
        for role in ("student", "teacher", "tutor"):
            self.base.load_state(self.adapter(role), state[role])


def read_adapter(folder: Path, lora: Lora) -> State:
    """Read a peft adapter folder.

    Raises:
        ModelError: If there is no adapter, it is none that opcod computes, or it was made with another rank or scaling
            than `lora`.
    """
    config_file, weights = folder / "adapter_config.json", folder / ADAPTER_FILE
    if not config_file.is_file() or not weights.is_file():
        raise ModelError(
            f"{folder} is no adapter: expected adapter_config.json and {ADAPTER_FILE}, as `opcod export` and "
            "`opcod specialise` write them."
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"adapter_config.json holds a {type(config).__name__}, no object")
        state = load_file(weights)
    except (ValueError, RecursionError, SafetensorError, OSError) as error:
        raise ModelError(f"the adapter in {folder} cannot be read: {error}. Fetch or make it again.") from error
    if unknown := uncomputed(config):
        raise ModelError(f"the adapter in {folder} is no plain LoRA adapter: it sets {', '.join(unknown)}")
    made_with = (config.get("r"), config.get("lora_alpha"))
    if made_with != (lora.rank, lora.alpha):
        raise ModelError(
            f"the adapter in {folder} was made with rank {made_with[0]} and alpha {made_with[1]}, the run asks "
            f"for rank {lora.rank} and alpha {lora.alpha}. Set `lora` to the adapter's values."
        )
    return state


def uncomputed(config: Mapping[str, Any]) -> list[str]:
    """What an adapter's description, as peft writes it, sets that opcod does not compute."""
    return [name for name in ("use_dora", "use_rslora", "alpha_pattern", "rank_pattern") if config.get(name)]


def _example(state: State) -> str:
    name = next(iter(sorted(state)), None)
    return "none" if name is None else f"{name} {list(state[name].shape)}"

"""Run the modules without numbers: on PyTorch's meta device tensors have shapes alone.

What a run would hold, compute and launch is counted as its own code goes by, so that no formula can drift from it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, Cache, PreTrainedConfig
from transformers.masking_utils import eager_mask

from opcod.attention import GROUPED
from opcod.decoding import SharedCache
from opcod.families import FOREIGN
from opcod.models import LoadedBase, ModelError, first_line
from opcod.peers import Lora, SharedBase

META = torch.device("meta")
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight in NF4: half, a byte a block of 64, and four a block of 256 of these (double quantisation)."""
FUSED = "opcod_fused"
"""An attention that holds no scores, as accelerators' kernels do; for the meta device alone."""


@dataclass(frozen=True)
class Speed:
    """What a device does in a second.

    Args:
        flops: Floating-point operations of a large matrix product.
        bandwidth: Bytes read or written.
        launch: Seconds from one operation to the next, however small: it is Python that launches them.
        repeat: The same where they are repeated as a captured graph; None where none is captured.
    """

    flops: float
    bandwidth: float
    launch: float
    repeat: float | None = None


@dataclass(frozen=True)
class Trace:
    """What some code came to.

    Args:
        peak: Most bytes that were alive at once, beside those that were there before.
        flops: Floating-point operations, a multiplication with an addition being two.
        seconds: An operation takes as long as its arithmetic, its memory traffic or its launch, whichever is longest.
    """

    peak: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Trace) -> Trace:
        """One after the other."""
        return Trace(max(self.peak, other.peak), self.flops + other.flops, self.seconds + other.seconds)

    def __sub__(self, other: Trace) -> Trace:
        """What is left of the work without `other`, which was part of it."""
        return Trace(self.peak, self.flops - other.flops, self.seconds - other.seconds)

    def times(self, count: float) -> Trace:
        """`count` times after one another."""
        return Trace(self.peak, self.flops * count, self.seconds * count)


def add(traces: Iterable[Trace]) -> Trace:
    """One after another."""
    return sum(traces, Trace())


class Tally(TorchDispatchMode):
    """Counts what meta tensors are alive and what is done with them, and answers what only numbers could tell.

    A truth is true and a count is large: no mask has padding, and no response ends before its limit.

    Args:
        speed: Of the device.
        present: Tensors that are there before.
        packed: Those of them that are kept in 4 bits, and are unpacked for every product.
        device: Whose tensors are counted; only meta tensors have their questions answered.
    """

    def __init__(
        self,
        speed: Speed,
        present: Collection[Tensor] = (),
        packed: Collection[Tensor] = (),
        device: torch.device = META,
    ) -> None:
        super().__init__()
        self.speed = speed
        self.device = device
        self.now = self.peak = 0
        self.flops = self.seconds = 0.0
        self._known = WeakIdKeyDictionary()
        self._packed = WeakIdKeyDictionary()
        for tensor in present:
            self._known[tensor.untyped_storage()] = True
        for tensor in packed:
            self._packed[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device == META:
            return True if args[0].dtype == torch.bool else 1.0 if args[0].dtype.is_floating_point else 1 << 62
        made = func(*args, **kwargs)
        outputs = [t for t in tree_leaves(made) if isinstance(t, Tensor) and t.device == self.device]
        if not func.is_view and outputs:
            inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            moved = sum(self._traffic(t) for t in (*inputs, *outputs))
            count = flop_registry.get(func.overloadpacket)
            flops = float(count(*args, **kwargs, out_val=made)) if count else 0.0
            self.flops += flops
            speed = self.speed
            self.seconds += max(flops / speed.flops, moved / speed.bandwidth, speed.launch)
        for tensor in outputs:
            self._hold(tensor)
        return made

    def _traffic(self, tensor: Tensor) -> float:
        """Bytes of a tensor that is read or written; a packed one is read, written unpacked, and read again."""
        plain = tensor.numel() * tensor.element_size()
        return plain if tensor.untyped_storage() not in self._packed else 2 * plain + NF4_BYTES * tensor.numel()

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known[storage] = True
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size


class UnplannedError(ModelError):
    """A model whose own code does not run without numbers."""


class SimulatedBase(SharedBase):
    """A base model without weights, whose adapters are in its own numbers, as autocast would bring them.

    Args:
        config: The model's.
        dtype: The numbers it computes in.
        lora: Shape of the adapters.
        speed: Of the device that it would run on.
        fused: Whether its attention holds no scores, if the model has one that does not.
        packed: Whether its linear layers stay in 4 bits, and are unpacked one by one as they are used.
        checkpoint_activations: See `SharedBase`.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        dtype: torch.dtype,
        lora: Lora,
        *,
        speed: Speed,
        fused: bool,
        packed: bool,
        checkpoint_activations: bool = False,
    ) -> None:
        with META:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if model.is_backend_compatible():
            model.set_attn_implementation(FUSED if fused and model._supports_sdpa else GROUPED)
        model.eval().requires_grad_(False)
        loaded = LoadedBase(model, None, dtype, {})  # type: ignore[arg-type]  # nothing is read or written
        with META:
            super().__init__(loaded, lora, checkpoint_activations=checkpoint_activations, merge=not packed)
        self.speed = speed
        self.fused = model.config._attn_implementation == FUSED
        self.packed = packed

    @property
    def linear_weights(self) -> list[Tensor]:
        """Those that are quantised where any are: of all linear layers but the output head."""
        head = self.loaded.model.get_output_embeddings()
        layers = [m for m in self.loaded.model.modules() if isinstance(m, nn.Linear) and m is not head]
        adapters = {id(p) for p in self._adapters()}
        return [m.weight for m in layers if id(m.weight) not in adapters]

    @property
    def parameter_count(self) -> int:
        """Parameters of the base model, without adapters."""
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in self._adapters())

    def _adapters(self) -> list[nn.Parameter]:
        return [p for n, p in self.peft.named_parameters() if "lora_" in n]

    def add_adapter(self, name: str, seed: int) -> None:
        """Add an adapter."""
        with META:
            super().add_adapter(name, seed)
        self.peft.to(self.loaded.dtype)

    def _check(self) -> None:
        """Nothing to compare."""

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def hidden(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """See `SharedBase`; masks are made here, as transformers looks at their numbers where it makes them."""
        rows, new = input_ids.shape
        fused = self.fused and not isinstance(cache, SharedCache)

        def mask(layer: int) -> Tensor:
            seen = new if cache is None else cache.get_mask_sizes(new, layer)[0]
            shape = (1, 1, 1, 1) if fused else (rows, 1, new, seen)
            return torch.zeros(shape, dtype=self.loaded.dtype, device=META)

        kinds: list[str] = getattr(self.loaded.model.config.get_text_config(), "layer_types", None) or []
        several = len(set(kinds)) > 1  # layers with windows and layers without, each with masks of its own
        masks: Any = {kind: mask(kinds.index(kind)) for kind in kinds} if several else mask(0)
        return super().hidden(input_ids, attention_mask=masks, position_ids=position_ids, cache=cache)

    def trace(self, code: Callable[[], object], speed: Speed | None = None) -> Trace:
        """Run `code` and tell what it came to, at another speed or its own; what it returns is alive until then.

        Raises:
            UnplannedError: If the model's own code cannot do without numbers.
        """
        packed = self.linear_weights if self.packed else []
        tally = Tally(speed or self.speed, [*self.parameters(), *self.buffers()], packed)
        try:
            with tally:
                kept = code()
        except FOREIGN as error:
            raise UnplannedError(
                f"what {type(self.loaded.model).__name__} takes cannot be planned, as its code does not run without "
                f"numbers ({type(error).__name__}: {first_line(error)})"
            ) from error
        del kept
        for parameter in self.parameters():
            parameter.grad = None
        return Trace(tally.peak, tally.flops, tally.seconds)


def _fused_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    batch, heads, queries, size = query.shape
    shared = key.shape[1]
    if queries == 1:  # decoding: the queries of a key-value head side by side, as transformers packs them
        query = query.reshape(batch, shared, heads // shared, size)
    else:
        key, value = (x.repeat_interleave(heads // shared, 1) for x in (key, value))
    attended = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return attended.reshape(batch, heads, queries, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _fused_attention)
AttentionMaskInterface.register(FUSED, eager_mask)

"""Tapes of stacks that can be run so, each kept with its stack between two short texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from tercet.kernels.tape import fits
from tercet.model.attention import Attention, CrossAttention, Pattern
from tercet.model.layers import Activation, Dropout, FeedForward, GatedFeedForward, RMSNorm, Scale
from tercet.model.linear import Linear, PackedLinear, heard
from tercet.model.pick import Table
from tercet.model.positions import Learned, RelativeBuckets, Rotary, Sinusoidal
from tercet.model.tape import StackTape
from tercet.model.transformer import (
    Block,
    Embedding,
    Skip,
    Stack,
    Sublayer,
    TokenTypes,
    Transformer,
)

KNOWN = {  # what a tape can write down
    *(Table, Stack, Embedding, TokenTypes, Block, Sublayer, Skip),
    *(Attention, CrossAttention, Pattern, FeedForward, GatedFeedForward, Activation),
    *(Linear, PackedLinear, RMSNorm, nn.LayerNorm, Scale, Dropout, nn.ModuleList, nn.Identity),
    *(Rotary, Sinusoidal, Learned, RelativeBuckets),
}


def tape_of(network: object, stack: nn.Module | None) -> StackTape | None:
    """The tape of a network's stack that can be run so, else None; nothing is packed."""
    if not isinstance(network, Transformer) or not isinstance(stack, Stack):
        return None
    modules = [network.tokens, *stack.modules()]
    known = all(type(m) in KNOWN and not heard(m) for m in modules)
    plain = [m.weight for m in stack.modules() if isinstance(m, Linear)]
    tables = [m.weight for m in modules if isinstance(m, nn.Embedding)]
    weights = [*tables, *plain]
    return StackTape(network, stack) if known and fits(weights, network.config.head_width) else None


@contextmanager
def borrowed(network: object, stack: nn.Module | None) -> Iterator[StackTape | None]:
    """``tape_of`` for a while, kept with the stack in between: writing it down takes as long as one
    short text. Who comes while it is lent, from another thread say, gets one of his own. Lent
    again with nothing changed in between it is packed, if that pays."""
    kept: _Kept | None = None if stack is None else stack.__dict__.pop("_kept_tape", None)
    if kept is None or kept.changed():
        kept = None  # and its panels, before there are others
        tape = tape_of(network, stack)
        if tape is None or stack is None:
            yield tape
            return
        kept = _Kept(tape, (stack, tape.network.tokens, tape.network.heads))
    elif kept.tape.gains:
        kept.tape = StackTape(kept.tape.network, kept.tape.stack, packed=True)
    try:
        yield kept.tape
    finally:
        if kept.seen is not None and stack is not None:
            stack.__dict__["_kept_tape"] = kept


class _Kept:
    """A tape, and what stood when it was written down. A copy of a network has none.

    A look takes a twentieth of a short text, so what is looked at is listed once.
    """

    def __init__(self, tape: StackTape, parts: tuple[nn.Module, ...]) -> None:
        self.tape = tape
        # held, so that no other module comes to stand at the same place of the memory
        self._modules = modules = [module for part in parts for module in part.modules()]
        self._heard = [d for m in modules for d in (m._forward_hooks, m._forward_pre_hooks)]
        self._members = [d for m in modules for d in (m._modules, m._parameters)]
        self._weights = [p for m in modules for p in m._parameters.values() if p is not None]
        self.seen = self._look()

    def changed(self) -> bool:
        return self.seen is None or self.seen != self._look() or not self.tape.tape.current

    def _look(self) -> tuple[list[int], list[int], list[tuple[int, int]]] | None:
        """How many listen to each, what the modules hold, where parameters lie, how often they were
        written to; None where that is not counted."""
        held = [id(x) for members in self._members for x in members.values()]
        try:
            return (
                list(map(len, self._heard)),
                held,
                [(p.data_ptr(), p._version) for p in self._weights],
            )
        except RuntimeError:  # parameters that were made in inference mode
            return None

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()

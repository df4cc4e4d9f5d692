"""Another family from the same blocks: the mask opened or closed, two halves joined, a half taken.

Networks in, a network out, and a record of each tensor: where it came from, or how it begins. Knows
no tokenizer and no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.model import Transformer, build
from tercet.model.initialise import distribution

FAMILIES = ("encoder", "decoder", "encoder-decoder")
TOKENS = "tokens.weight"
WHOLE = (TOKENS, "heads.output.weight", "heads.output_bias", "heads.transform.")
# What the halves of one network need not agree on: it is of the whole, and the decoder decides.
FREE = {
    *("encoder_layers", "decoder_layers", "heads", "bos_id", "eos_ids", "pad_id", "start_id"),
    *("tie_embeddings", "output_bias", "output_scale", "transform", "transform_bias"),
    *("n_labels", "pool", "pooler_activation", "pooler_bias", "pooler_norm"),
    *("dropout", "attention_dropout", "activation_dropout", "head_dropout", "init_std"),
}
CROSS_OUT = re.compile(r"decoder\.blocks\.\d+\.cross\.layer\.o\.(weight|bias)")
BUCKETS = re.compile(r"patterns\.\d+\.buckets\.weight")
NORM = re.compile(r"(blocks\.\d+)\.(attention|cross)\.after\.(weight|bias)")
ENDS = ("weight", "bias")


@dataclass(frozen=True)
class Half:
    """One stack of a network, and the stack that it becomes. whole: token table and output layer
    come from this network too."""

    network: Transformer
    stack: str  # encoder or decoder
    becomes: str
    whole: bool
    said: str = ""  # whose it is, where there are two networks

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        return dict(self.network.named_parameters())


@dataclass(frozen=True)
class Moved:
    """A tensor: ``mapped`` from an old one, ``new``, or an old one that is ``left out``."""

    state: str
    name: str  # in the new network; of what is left out, in the old one
    origin: str  # in the old network, or how it begins
    shape: tuple[int, ...]
    said: str = ""

    @property
    def parameters(self) -> int:
        return torch.Size(self.shape).numel()


@torch.no_grad()
def converted(
    network: Transformer, to: str, other: Transformer | None = None, *, seed: int = 0
) -> tuple[Transformer, list[Moved]]:
    """A network of the family ``to``, which shares no memory with the old ones.

    encoder: a decoder's blocks, which now see both sides (BehnamGhader et al. 2024, section 2), or
    the encoder of an encoder-decoder. decoder: an encoder's blocks, which now see nothing behind a
    token, or the decoder of an encoder-decoder, which looks across no more. encoder-decoder: an
    encoder and a decoder (the network and ``other``, in either order), or one body twice (Rothe et
    al. 2020, section 3); the cross-attention is new and begins with an output of zeros, so that the
    decoder says what it said until the first step, whose gradient reaches that output at once.

    Raises InputError for a family that it has already, for halves that do not fit, and for what no
    network can be: each setting is named.
    """
    parts = halves(network, to, other)
    config = _config(to, parts)
    new = build(config, seed).to(network.tokens.weight.dtype)
    assert isinstance(new, Transformer)
    moved, used = [], set()
    for name, tensor in new.named_parameters():
        half, origins = _origin(name, parts)
        if half is None:
            moved.append(Moved("new", name, _begun(name, tensor, config), tuple(tensor.shape)))
            continue
        tensor.copy_(_made([half.parameters[origin] for origin in origins], tensor, name, half))
        used |= {(id(half.network), origin) for origin in origins}
        mapped = Moved("mapped", name, " and ".join(origins), tuple(tensor.shape), half.said)
        moved += _buckets(mapped) if _recounted(name, half) else [mapped]
    for half in parts:
        if torch.equal(half.network.tokens.weight, new.tokens.weight):
            used.add((id(half.network), TOKENS))
    return new.eval(), [*moved, *_left_out(parts, used)]


def halves(network: Transformer, to: str, other: Transformer | None = None) -> list[Half]:
    """Whose stack becomes which. Raises InputError where the families do not fit."""
    if to not in FAMILIES:
        raise InputError(f"family {to!r} is unknown; choose {', '.join(FAMILIES)}")
    family = network.config.family
    if to != "encoder-decoder":
        if other is not None:
            raise InputError(
                f"a second model makes an encoder-decoder, not the family {to}; leave it out"
            )
        if family == to:
            raise InputError(f"the model is of the {to} family already; choose another family")
        return [Half(network, _stack(network, to), to, whole=True)]
    if family == to:
        raise InputError(
            "the model is an encoder-decoder already; choose encoder or decoder to have a half"
        )
    if other is None:
        return [Half(network, family, "encoder", False), Half(network, family, "decoder", True)]
    families = sorted([family, other.config.family])
    if families != ["decoder", "encoder"]:
        raise InputError(
            f"an encoder-decoder is made of an encoder and a decoder, and these are of the "
            f"families {family} and {other.config.family}; convert one of them first"
        )
    sides = {network.config.family: (network, "MODEL"), other.config.family: (other, "OTHER")}
    return [
        Half(sides["encoder"][0], "encoder", "encoder", False, sides["encoder"][1]),
        Half(sides["decoder"][0], "decoder", "decoder", True, sides["decoder"][1]),
    ]


def _stack(network: Transformer, wanted: str) -> str:
    """The half of this name, where there is one, or the only stack."""
    family = network.config.family
    return wanted if family == "encoder-decoder" else family


# the configuration -------------------------------------------------------------------------------


def _config(to: str, halves: list[Half]) -> TransformerConfig:
    configs = [_alone(half) for half in halves]
    if to != "encoder-decoder":
        return configs[0]
    encoder, decoder = configs
    context = decoder.context_length
    if decoder.positions != "learned":  # nothing but the statement changes
        context = min(context, encoder.context_length)
        encoder = encoder.replace(context_length=context)
        decoder = decoder.replace(context_length=context)
    unlike = [
        f"{field.name} {ours!r} and {theirs!r}"
        for field in fields(encoder)
        if field.name not in FREE
        and (ours := getattr(encoder, field.name)) != (theirs := getattr(decoder, field.name))
    ]
    if unlike:
        raise InputError(
            "the halves of an encoder-decoder share every setting of their blocks, and these do "
            f"not (encoder and decoder: {'; '.join(unlike)}); take two models of one shape, or one "
            "model for both"
        )
    start = (decoder.start_id, decoder.bos_id, decoder.pad_id, *decoder.eos_ids)
    known = [token for token in start if token is not None]
    return decoder.replace(
        encoder_layers=encoder.encoder_layers, start_id=known[0] if known else None
    )


def _alone(half: Half) -> TransformerConfig:
    """The half as a network of its own."""
    old = half.network.config
    layers = old.encoder_layers if half.stack == "encoder" else old.decoder_layers
    changes = {
        "encoder_layers": layers if half.becomes == "encoder" else 0,
        "decoder_layers": layers if half.becomes == "decoder" else 0,
        "heads": ("masked" if half.becomes == "encoder" else "language",),
        "start_id": None if half.becomes == "encoder" else old.start_id,
        "n_labels": 2,
    }
    if half.stack != half.becomes:
        # a decoder has no [CLS] that a text could be read off
        changes["pool"] = "mean" if half.becomes == "encoder" else "first"
        if old.positions == "relative":
            # Half of an encoder's buckets are for what stands behind a token; of as many as the
            # other half a decoder makes the very same ranges.
            several = old.relative_buckets * 2, old.relative_buckets // 2
            changes["relative_buckets"] = several[half.becomes == "decoder"]
    if not {"language", "masked"} & set(old.heads):  # it says tokens by its own table of them
        changes |= {"transform": None, "output_bias": False, "tie_embeddings": True}
    return old.replace(**changes)


# the tensors -------------------------------------------------------------------------------------


def _origin(name: str, halves: list[Half]) -> tuple[Half, list[str]] | tuple[None, list[str]]:
    """Which old tensors a new one is made of, and whose they are."""
    for half in halves:
        if name.startswith(f"{half.becomes}."):
            rest = name.removeprefix(f"{half.becomes}.")
            origins = [f"{half.stack}.{part}" for part in _parts(rest, half, joined=halves[1:])]
            found = [origin for origin in origins if origin in half.parameters]
            return (half, found) if found else (None, [])
        if half.whole and name.startswith(WHOLE) and name in half.parameters:
            return half, [name]
    return None, []


def _parts(rest: str, half: Half, *, joined: Any) -> list[str]:
    """What a tensor of a stack is made of: of the same one but for norms that stand after a sum.

    There the cross-attention brings a norm that is no identity even where nothing is added. So a
    decoder that is to look across hands it its own gain and bias, and the norm before it begins
    plain: normed twice is then normed once. And of a decoder that looks across no more, the two
    norms become one.
    """
    norm = NORM.fullmatch(rest)
    if norm is None or half.network.config.norm_order == "pre" or half.becomes != "decoder":
        return [rest]
    block, layer, end = norm.groups()
    if joined:
        return [] if layer == "attention" else [f"{block}.attention.after.{end}"]
    if half.network.config.family != "encoder-decoder":
        return [rest]
    return [f"{block}.{of}.after.{end}" for of in ("attention", "cross") for end in ENDS]


def _made(olds: list[Tensor], new: Tensor, name: str, half: Half) -> Tensor:
    """The values of a new tensor."""
    if len(olds) > 1:
        return _one_norm(olds, name)
    if _recounted(name, half):  # what stands behind is at first judged as what is as far before
        return torch.cat([olds[0], olds[0]])[: len(new)]
    return olds[0]


def _recounted(name: str, half: Half) -> bool:
    """Whether it is a table of distances, of which an encoder has those behind a token too."""
    return half.stack != half.becomes and BUCKETS.search(name) is not None


def _buckets(mapped: Moved) -> list[Moved]:
    """Which rows of such a table are which."""
    rows, heads = mapped.shape
    if mapped.name.startswith("decoder"):
        return [
            mapped,
            Moved("left out", f"{mapped.origin}[{rows}:]", "behind a token", mapped.shape),
        ]
    half = rows // 2, heads
    new = Moved("new", f"{mapped.name}[{half[0]}:]", "as far before a token", half)
    return [replace(mapped, shape=half), new]


def _one_norm(olds: list[Tensor], name: str) -> Tensor:
    """Gain or bias of one norm in the place of two.

    The first gives g n + b, n of mean 0 and variance 1 in every direction, so its spread is known
    but for n's own unevenness: exact where the first norm is plain, and near elsewhere. (Gains of
    1 +- 0.2, random weights: logits off by 7 % of their spread; by 48 % with either norm alone.)
    """
    if len(olds) == 2:  # no bias
        (first, second), before, after = olds, torch.zeros(()), torch.zeros(())
    else:
        first, before, second, after = olds
        before = before - before.mean()
    spread = (first.square().mean() + before.square().mean()).sqrt()
    if name.endswith("weight"):
        return first * second / spread
    return before * second / spread + after


def _begun(name: str, tensor: Tensor, config: TransformerConfig) -> str:
    """How a new tensor begins; it holds a draw of the table already."""
    if CROSS_OUT.fullmatch(name):
        tensor.zero_()
        return "zeros"
    kind, value = distribution(name, tensor, config)
    if kind == "constant":
        return "ones" if value else "zeros"
    return f"normal, deviation {value:.3g}"


def _left_out(halves: list[Half], used: set[tuple[int, str]]) -> Iterator[Moved]:
    networks = {id(half.network): half for half in halves}
    for key, half in networks.items():
        for name, tensor in half.parameters.items():
            if (key, name) not in used:
                why = "the decoder's is shared" if name == TOKENS else ""
                yield Moved("left out", name, why, tuple(tensor.shape), half.said)

"""A model of one family becomes a model of another: its network by model/family.py, its tokenizer
here, which gets the special tokens that the family reads.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from tercet import hf
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.language_model.model import LanguageModel
from tercet.model.family import Moved, converted, halves
from tercet.model.linear import PackedLinear
from tercet.model.lora import adapters
from tercet.model.transformer import Transformer
from tercet.model.vocabulary import add_tokens
from tercet.text import Tokenizer
from tercet.text.special import ROLES

MASK = "[MASK]"
TABLES = ("tokens.weight", "heads.output.weight", "heads.output_bias")  # a row a token


@dataclass(frozen=True)
class Conversion:
    """The new model; each of its tensors, and each old one that is not in it; what became of the
    tokenizer, in sentences."""

    model: LanguageModel
    tensors: list[Moved]
    notes: list[str]

    @property
    def model_type(self) -> str:
        """Whose spelling the saved folder has: "tercet", where `transformers` has no such shape."""
        row = hf.row_for(self.model.config)
        return hf.OURS if row is None else row[0]["model_type"]


def convert(
    model: LanguageModel, to: str, other: LanguageModel | None = None, *, seed: int = 0
) -> Conversion:
    """A model of the family ``to`` (encoder, decoder, encoder-decoder) from the weights of one of
    another, or an encoder-decoder from an encoder and a decoder (``other``);
    ``model.family.converted`` says which tensor goes where. The old models stay as they are.

    It has to be trained then: `tercet train` with its folder as ``model.folder``. An encoder reads
    the tokenizer's mask token, or a new one whose row begins as the mean of the others; the other
    families need a token that ends a text, and take [SEP] where there is no other.
    Raises InputError for halves that do not fit, tokenizers that differ, and models that cannot be
    converted.
    """
    parts = [model] if other is None else [model, other]
    networks = [_network(part) for part in parts]
    halves(networks[0], to, *networks[1:])  # which raises before a tokenizer is looked at
    olds = [part.tokenizer for part in parts]
    if to == "decoder" and olds[0].target is not olds[0]:
        raise InputError(
            "the translator reads one language by source.spm and writes the other by target.spm, "
            "and the folder of a decoder holds one tokenizer; only its encoder can be had"
        )
    joined = other is not None and to == "encoder-decoder"
    tokenizer, notes = _for_family(_common(*olds) if joined else olds[0], to)
    rows = max(tokenizer.vocab_size, *(network.config.vocab_size for network in networks))
    grown = [
        _grown(network, old.vocab_size, tokenizer.vocab_size, rows)
        for network, old in zip(networks, olds, strict=True)
    ]
    network, tensors = converted(grown[0][0], to, *(one for one, _ in grown[1:]), seed=seed)
    network.config = _with_ids(network.config, tokenizer)
    whole = 1 if joined and grown[1][0].config.family == "decoder" else 0
    notes += _losses(tensors)
    return Conversion(LanguageModel(network, tokenizer), _split(tensors, grown[whole][1]), notes)


def _network(model: LanguageModel) -> Transformer:
    """The network, an adapter added into its matrices."""
    network = model.network
    if not isinstance(network, Transformer):
        raise InputError(
            f"mixer {model.config.mixer!r}: a recurrent network has no mask that could be opened "
            "or closed; only Transformers are converted"
        )
    if any(isinstance(module, PackedLinear) for module in network.modules()):
        raise InputError("a model in int8 or int4 is not converted; load it in float32")
    merged = model.merged().network if adapters(network) else network
    assert isinstance(merged, Transformer)
    return merged


# the tokenizer -----------------------------------------------------------------------------------


def _for_family(tokenizer: Tokenizer, to: str) -> tuple[Tokenizer, list[str]]:
    """With the special tokens of a family, and what that changed."""
    return _masking(tokenizer) if to == "encoder" else _ending(tokenizer, to)


def _masking(tokenizer: Tokenizer) -> tuple[Tokenizer, list[str]]:
    """What stands around a text anyway becomes its [CLS] and [SEP], so that masked training puts
    it there too."""
    roles: dict[str, str | None] = {}
    for role, ids in zip(("cls", "sep"), tokenizer.around, strict=True):
        around = tokenizer.pieces(ids)[0] if len(ids) == 1 else None
        roles[f"{role}_token"] = tokenizer.roles[role] or around  # None too: nobody must guess
    if tokenizer.mask_id is not None:
        return tokenizer.with_special([], **roles), []
    ready = tokenizer.with_special([MASK], **roles, mask_token=MASK)
    assert ready.mask_id is not None
    if ready.mask_id < tokenizer.vocab_size:
        return ready, [f"{MASK} was in the vocabulary, number {ready.mask_id:,}"]
    return ready, [
        f"{MASK} is a new token, number {ready.mask_id:,}: its row begins as the mean of the others"
    ]


def _ending(tokenizer: Tokenizer, to: str) -> tuple[Tokenizer, list[str]]:
    """A prompt is read as it stands (behind its beginning, where there is a token for that), and a
    source with its end, as both are in training."""
    notes, end = [], tokenizer.roles["eos"] or tokenizer.roles["sep"]
    if end is None:
        raise InputError(
            f"the tokenizer has no token that ends a text, which the family {to} needs; take a "
            "model whose tokenizer_config.json names an eos_token or a sep_token"
        )
    if tokenizer.roles["eos"] is None:
        tokenizer = tokenizer.with_special([], eos_token=end)
        notes.append(f"{end} is the token that ends a text")
    found = [*map(tokenizer.pieces, tokenizer.around)]
    begins = to == "decoder" and found[0] == [tokenizer.roles["bos"]]  # which a prompt may keep
    wanted = found[0] if begins else [], [] if to == "decoder" else [end]
    if found != [*wanted]:
        tokenizer = tokenizer.dressed(*wanted)
        notes.append(f"around a text stands {_spelt(*wanted)}; it was {_spelt(*found)}")
    return tokenizer, notes


def _spelt(before: list[str], after: list[str]) -> str:
    return " ".join([*before, "…", *after]) if before or after else "nothing"


def _common(first: Tokenizer, second: Tokenizer) -> Tokenizer:
    """The tokenizer of both halves: the one that has more special tokens, the roles of either."""
    small, large = sorted((first, second), key=lambda tokenizer: tokenizer.vocab_size)
    if small.hash == large.hash:
        return small
    nobody = {f"{role}_token": None for role in ROLES}
    more = large.pieces(range(small.vocab_size, large.vocab_size))
    plain = [one.dressed([], []) for one in (small, large)]
    if plain[0].with_special(more, **nobody).hash != plain[1].with_special([], **nobody).hash:
        raise InputError(
            f"the two models have different tokenizers ({first.vocab_size:,} and "
            f"{second.vocab_size:,} tokens), and the halves of an encoder-decoder share one table "
            "of tokens; take two models of one tokenizer, or one model for both"
        )
    either = {f"{role}_token": large.roles[role] or small.roles[role] for role in ROLES}
    return large.with_special([], **either)


# the network -------------------------------------------------------------------------------------


def _grown(
    network: Transformer, known: int, size: int, rows: int
) -> tuple[Transformer, tuple[int, int]]:
    """With ``rows`` tokens, those from ``known`` to the second number begun; where that is
    nothing to do, the network itself."""
    size = rows if network.config.vocab_size < rows else size
    if size <= known:
        return network, (known, known)
    network = copy.deepcopy(network)
    add_tokens(network, known, size)
    return network, (known, size)


def _split(tensors: list[Moved], begun: tuple[int, int]) -> list[Moved]:
    """Tables of tokens as the rows that are mapped and those that are new."""
    known, size = begun
    parts = []
    for one in tensors:
        if one.state != "mapped" or one.name not in TABLES or known == size:
            parts.append(one)
            continue
        rows, *rest = one.shape
        parts.append(replace(one, shape=(rows - (size - known), *rest)))
        name = f"{one.name}[{known}:{size}]"
        parts.append(Moved("new", name, "the mean of the others", (size - known, *rest)))
    return parts


def _losses(tensors: list[Moved]) -> list[str]:
    """Where a half does not say what it said."""
    notes = []
    if any(" and " in one.origin for one in tensors if one.state == "mapped"):
        notes.append(
            "each block had a norm before and one behind its attention to the source; they became "
            "one, which is near to both and not the same"
        )
    if any(one.state == "left out" and one.name == TABLES[0] for one in tensors):
        notes.append(
            "the encoder's table of tokens is not the decoder's, which both read now: the encoder "
            "has to get used to it"
        )
    return notes


def _with_ids(config: TransformerConfig, tokenizer: Tokenizer) -> TransformerConfig:
    """With the tokenizer's special tokens, where the configuration names none."""
    eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    told: dict[str, Any] = {"bos_id": tokenizer.bos_id, "pad_id": tokenizer.pad_id, "eos_ids": eos}
    config = config.replace(
        **{name: value for name, value in told.items() if getattr(config, name) in (None, ())}
    )
    if config.family == "encoder-decoder" and config.start_id is None:
        start = (config.bos_id, config.pad_id, *config.eos_ids)
        config = config.replace(start_id=next(token for token in start if token is not None))
    return config

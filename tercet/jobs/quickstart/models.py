"""The quickstart's text, tokenizers and four networks: what is built and how it is trained."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from tercet.config import TransformerConfig
from tercet.data import (
    Batch,
    Causal,
    Masked,
    Masking,
    Rows,
    Stream,
    TextPairs,
    Tokens,
    Translation,
)
from tercet.evaluate.ngram import NGram, unigram_top
from tercet.evaluate.perplexity import bits_per_byte
from tercet.jobs.precision import in_bfloat16
from tercet.jobs.quickstart.corpus import dates_and_numbers, documents
from tercet.jobs.quickstart.measure import tokens, top_accuracy
from tercet.language_model import LanguageModel
from tercet.model import Network, build
from tercet.presets import preset
from tercet.text import Special, Tokenizer, train_tokenizer
from tercet.train import Checkpoints, Log, Optimizer, Recipe, fit
from tercet.train.log import rows
from tercet.train.objectives import cross_entropy
from tercet.train.progress import Watch, clock

if TYPE_CHECKING:
    from tercet.jobs.quickstart.state import Run

SEED = 0
CHECKPOINT_EVERY = 100  # steps
LEARNING_RATE = 3e-3
CORRECTIONS = 3  # of the number of steps, since other programs come and go
# The LSTM's own: at the Transformer's it stands on a plateau for most of its time (docs/LOG.md).
TWIN_RATE, TWIN_STD = 1e-2, 0.3
MOST_THREADS = 16  # that are tried
# One tokenizer for decoder and encoder: the end of a document, and the mask of the encoder.
WORDS = Special({"eos": "<|endoftext|>", "mask": "<|mask|>"})


# text --------------------------------------------------------------------------------------------


def text(run: Run) -> dict[str, Any]:
    """Documents -> a tokenizer and the two token streams, each document behind a separator."""
    found = documents()
    if run.settings.characters:
        found = _some(found, run.settings.characters)
    trained = [document.text for document in found if not document.held_out]
    held_out = [document.text for document in found if document.held_out]
    tokenizer = train_tokenizer(trained, vocab_size=run.settings.vocab_size, special=WORDS)
    tokenizer.save(run.work)
    streams = {
        "trained": _stream(tokenizer, trained),
        "held_out": _stream(tokenizer, held_out),
    }
    save_file(streams, run.work / "tokens.safetensors")
    started = time.monotonic()
    trigram = NGram(streams["trained"], tokenizer.vocab_size, order=3)
    n_bytes = sum(len(text.encode()) for text in held_out)
    bits = -trigram.log_probabilities(streams["held_out"]).sum() / np.log(2) / n_bytes
    result = {
        "characters": sum(len(document.text) for document in found),
        "documents": len(found),
        "held_out_documents": len(held_out),
        "held_out_bytes": n_bytes,
        "tokens": len(streams["trained"]),
        "held_out_tokens": len(streams["held_out"]),
        "vocab_size": tokenizer.vocab_size,
        "trigram_bits_per_byte": float(bits),
        "trigram_seconds": time.monotonic() - started,
    }
    run.say(
        f"text: {result['characters']:,} characters in {len(found)} documents, "
        f"{result['tokens']:,} tokens and {result['held_out_tokens']:,} held out; "
        f"a trigram gives {bits:.3f} bits per byte"
    )
    return result


def _some(found: list[Any], characters: int) -> list[Any]:
    """The shortest documents, until there are so many characters, an eighth of them held out."""
    kept = []
    for side, wanted in ((True, characters // 8), (False, characters - characters // 8)):
        total = 0
        for document in sorted(found, key=lambda document: len(document.text)):
            if document.held_out == side and total < wanted:
                kept.append(document)
                total += len(document.text)
    return kept


def _stream(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    ids = [[tokenizer.eos_id, *line] for line in tokenizer.encode_batch(texts, special=False)]
    return np.array([token for line in ids for token in line], dtype=np.int64)


def streams(run: Run) -> tuple[Tokenizer, torch.Tensor, torch.Tensor]:
    """The tokenizer and the two streams (N,) that ``text`` wrote."""
    kept = load_file(run.work / "tokens.safetensors")
    parts = [torch.from_numpy(kept[name]) for name in ("trained", "held_out")]
    return Tokenizer.load(run.work), parts[0], parts[1]


# training ----------------------------------------------------------------------------------------


def _train(
    run: Run, name: str, net: Network, data: Callable[[int], list[Batch]], recipe: Recipe
) -> dict[str, Any]:
    """Train under the clock, with checkpoints in ``work/<name>``; the curve and the speed."""
    allowed = torch.get_num_threads()
    threads, bfloat16 = fastest(net, data(0)[0])  # again for every part: other programs come and go
    recipe = dataclasses.replace(recipe, bfloat16=bfloat16)
    optimizer = Optimizer(net, kind="muon")
    folder = run.work / name
    checkpoints = Checkpoints(folder, net, optimizer)
    state = checkpoints.load()
    path = folder / "log.jsonl"
    torch.set_num_threads(threads)
    try:
        with (
            Watch(name, quiet=run.quiet, left=run.left) as watch,
            Log(path, step=state.step if state else 0) as log,
        ):
            note = (1, lambda state: log("step", state.step, **state.last, seconds=state.seconds))
            actions = [(1, watch), note, (CHECKPOINT_EVERY, checkpoints.save)]
            state = fit(
                net,
                data,
                cross_entropy,
                recipe,
                optimizer,
                state=state,
                actions=actions,
                on_stop=checkpoints.save,
            )
    finally:
        torch.set_num_threads(allowed)
    steps = list(rows(path, "step"))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "tokens_per_second": state.tokens_per_second,
        "threads": threads,
        "bfloat16": bfloat16,
        "losses": [round(float(row["loss"]), 4) for row in steps],
        "times": [round(row["seconds"], 2) for row in steps],
    }


def fastest(net: Network, batch: Batch) -> tuple[int, bool]:
    """The number of threads, and whether in bfloat16, in which a step of this network is fastest.

    Small matrices gain little from many cores; two threads that wait for each other on a busy
    machine were seen to be five times slower than one (docs/LOG.md); and bfloat16 does not pay
    everywhere, least of all where the processor cannot multiply it.
    """
    allowed = torch.get_num_threads()
    most = min(MOST_THREADS, allowed)
    threads = sorted({1, *(2**n for n in range(1, 5) if 2**n < most), most})
    kinds = {False, in_bfloat16(True, "cpu")}
    spent = dict.fromkeys(itertools.product(threads, kinds), 0.0)
    for trial in range(3):
        for n, bfloat16 in spent:
            torch.set_num_threads(n)
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = cross_entropy(net, batch)
            loss.backward()
            spent[n, bfloat16] += time.perf_counter() - started if trial else 0.0  # warm by then
    net.zero_grad(set_to_none=True)
    torch.set_num_threads(allowed)
    return min(spent, key=lambda choice: spent[choice])


def _finish(run: Run, name: str, net: Network, tokenizer: Tokenizer) -> None:
    """Save the model's folder; its checkpoints have served."""
    LanguageModel(net, tokenizer).save(run.folder / name)
    shutil.rmtree(run.work / name, ignore_errors=True)


def _say(run: Run, name: str, result: dict[str, Any], figure: str) -> None:
    run.say(
        f"{name}: {result['parameters'] / 1e6:.1f} M parameters, {result['steps']:,} steps in "
        f"{clock(result['seconds'])}, {result['tokens_per_second']:,.0f} tokens/s; {figure}"
    )


def body(run: Run, family: str, vocab_size: int, eos_id: int | None = None) -> TransformerConfig:
    """Our own row of the family, so that the saved model opens elsewhere, in a small size."""
    settings = run.settings
    layers = {f"{family}_layers": settings.layers}
    return preset(f"tercet-tiny-{family}").replace(
        vocab_size=vocab_size,
        context_length=2 * settings.row,
        d_model=settings.width,
        d_ff=settings.width * 8 // 3,
        n_heads=max(1, settings.width // 64),
        eos_ids=() if eos_id is None else (eos_id,),
        tie_embeddings=True,
        **layers,
    )


def _rows(run: Run, text: torch.Tensor) -> Rows:
    settings = run.settings
    return Rows(tokens(text), settings.row, settings.rows, SEED)


def decoder(run: Run) -> dict[str, Any]:
    """A small language model, and its bits per byte beside the trigram's."""
    tokenizer, trained, held_out = streams(run)
    net = build(body(run, "decoder", tokenizer.vocab_size, tokenizer.eos_id), SEED)
    recipe = Recipe(
        LEARNING_RATE, seconds=run.budget("decoder"), seed=SEED, corrections=CORRECTIONS
    )
    result = _train(run, "decoder", net, Stream(_rows(run, trained), Causal()), recipe)
    result["bits_per_byte"] = _bits(run, net, held_out)
    table = net.tokens.weight.detach().numpy()  # (V, D)
    save_file({"table": table}, run.work / "table.safetensors")
    _finish(run, "decoder", net, tokenizer)
    _say(run, "decoder", result, _beside(run, result))
    return result


def recurrent(run: Run) -> dict[str, Any]:
    """An LSTM of the decoder's size, for the decoder's seconds, on the decoder's text."""
    tokenizer, trained, held_out = streams(run)
    wanted = run.results["decoder"]["parameters"]
    net = build(_twin(body(run, "decoder", tokenizer.vocab_size, tokenizer.eos_id), wanted), SEED)
    recipe = Recipe(
        TWIN_RATE, seconds=run.results["decoder"]["seconds"], seed=SEED, corrections=CORRECTIONS
    )
    result = _train(run, "recurrent", net, Stream(_rows(run, trained), Causal()), recipe)
    result["bits_per_byte"] = _bits(run, net, held_out)
    _finish(run, "recurrent", net, tokenizer)
    _say(run, "recurrent", result, _beside(run, result))
    return result


def _twin(config: TransformerConfig, parameters: int) -> TransformerConfig:
    """Two LSTM layers, as wide as brings the parameters nearest to the number wanted."""

    def twin(width: int) -> TransformerConfig:
        return config.replace(
            mixer="lstm",
            d_model=width,
            n_heads=1,
            decoder_layers=2,
            positions="none",
            init_std=TWIN_STD,
        )

    def excess(width: int) -> int:
        return abs(sum(p.numel() for p in build(twin(width), None).parameters()) - parameters)

    return twin(min(range(8, 2 * config.d_model + 64, 4), key=excess))


def _bits(run: Run, net: Network, held_out: torch.Tensor) -> float:
    return bits_per_byte(net, held_out, run.settings.row, run.results["text"]["held_out_bytes"])


def _beside(run: Run, result: dict[str, Any]) -> str:
    trigram = run.results["text"]["trigram_bits_per_byte"]
    return f"{result['bits_per_byte']:.3f} bits per byte (trigram {trigram:.3f})"


def encoder(run: Run) -> dict[str, Any]:
    """A small masked language model, and its guesses beside the commonest tokens'."""
    tokenizer, trained, held_out = streams(run)
    net = build(body(run, "encoder", tokenizer.vocab_size, tokenizer.eos_id), SEED)
    take_table(run, net)
    assert tokenizer.mask_id is not None and tokenizer.eos_id is not None
    special = (tokenizer.mask_id, tokenizer.eos_id)
    masking = Masking(tokenizer.mask_id, tokenizer.vocab_size, protected=special)
    data = Stream(_rows(run, trained), Masked(masking, SEED))
    recipe = Recipe(
        LEARNING_RATE, seconds=run.budget("encoder"), seed=SEED, corrections=CORRECTIONS
    )
    result = _train(run, "encoder", net, data, recipe)
    result["top5"], targets = top_accuracy(net, held_out, run.settings.row, masking, top=5)
    result["unigram_top5"] = unigram_top(trained.numpy(), targets.numpy(), 5)
    result["targets"] = len(targets)
    _finish(run, "encoder", net, tokenizer)
    figure = f"{result['top5']:.1%} of masked tokens among its first five"
    _say(run, "encoder", result, f"{figure} (commonest five: {result['unigram_top5']:.1%})")
    return result


def take_table(run: Run, net: Network) -> None:
    """The decoder's token vectors, for tokens read and tokens guessed: both read the same pieces.

    A masked model learns from one token in seven, and from random vectors it spends half of the
    quickstart's time on a plateau before it looks at any neighbour (docs/LOG.md has the figures).
    """
    table = load_file(run.work / "table.safetensors")["table"]
    with torch.no_grad():
        net.tokens.weight.copy_(torch.from_numpy(table))
        net.tie()


def dates(run: Run) -> dict[str, Any]:
    """A small encoder-decoder from written-out dates and numbers to their ISO form."""
    pairs, _ = dates_and_numbers(run.settings.date_pairs, SEED)
    tokenizer = _date_tokenizer([words for words, _ in pairs])
    assert tokenizer.pad_id is not None and tokenizer.eos_id is not None
    config = preset("tercet-tiny-encoder-decoder").replace(
        vocab_size=tokenizer.vocab_size,
        context_length=64,
        d_model=96,
        d_ff=192,
        n_heads=3,
        encoder_layers=2,
        decoder_layers=2,
        pad_id=tokenizer.pad_id,
        start_id=tokenizer.pad_id,
        eos_ids=(tokenizer.eos_id,),
    )
    net = build(config, SEED)
    sources = tokenizer.encode_batch([words for words, _ in pairs], special=False)
    targets = tokenizer.encode_batch([iso for _, iso in pairs], special=False)
    texts = [ids for pair in zip(sources, targets) for ids in pair]
    draw = TextPairs(Tokens.of(texts, None), None, SEED, rows=64)
    data = Stream(draw, Translation(tokenizer.pad_id, tokenizer.eos_id))
    recipe = Recipe(LEARNING_RATE, seconds=run.budget("dates"), seed=SEED, corrections=CORRECTIONS)
    result = _train(run, "dates", net, data, recipe)
    _finish(run, "dates", net, tokenizer)
    _say(run, "dates", result, f"loss {np.mean(result['losses'][-20:]):.4f}")
    return result


def _date_tokenizer(words: list[str]) -> Tokenizer:
    """Learned from the words alone, so that the digits of the answers stay single."""
    return train_tokenizer(words, vocab_size=400, special="encoder-decoder")

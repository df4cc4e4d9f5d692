"""The quickstart's page: what was trained, what it answers, where it looks, what to type next."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import tercet.language_model as language_model
from tercet.jobs.quickstart.use import SENTENCE
from tercet.report import (
    Axis,
    Fact,
    Html,
    Page,
    Series,
    attention_map,
    commands,
    difference,
    facts,
    fill,
    line_plot,
    sample,
    side_by_side,
    table,
)
from tercet.train.progress import clock

if TYPE_CHECKING:
    from tercet.jobs.quickstart.state import Run

SMOOTH = 25  # steps that a drawn loss is averaged over


def report(run: Run) -> dict[str, Any]:
    """Write ``report.html``."""
    results = run.results
    page = Page(
        "Three families, one Transformer",
        lead="Trained just now, on this machine, on the documentation that every Python carries.",
        kicker=f"tercet quickstart · Python {platform.python_version()} · {clock(run.seconds)}",
    )
    page.add(_facts(results))
    _learning(page, results)
    _decoder(page, results)
    _encoder(page, results)
    _dates(page, results)
    _attention(page, run)
    _next(page, run)
    page.write(run.folder / "report.html")
    return {"seconds": run.seconds}


def _facts(results: dict[str, Any]) -> Html:
    text, decoder, encoder = results["text"], results["decoder"], results["encoder"]
    correct = sum(answer == iso for _, iso, answer in results["use"]["dates"])
    trigram = text["trigram_bits_per_byte"]
    return facts(
        Fact(
            f"{decoder['bits_per_byte']:.3f}",
            "bits per byte, decoder, held-out text",
            f"interpolated trigram (modified Kneser–Ney): {trigram:.3f}",
            decoder["bits_per_byte"] < trigram,
        ),
        Fact(
            f"{encoder['top5']:.0%}",
            "of masked tokens among the encoder's first five",
            f"the five commonest tokens: {encoder['unigram_top5']:.0%}; aim: three times that",
            encoder["top5"] >= 3 * encoder["unigram_top5"],
        ),
        Fact(
            f"{correct} of 20",
            "unseen dates exact, encoder–decoder",
            "aim: 18",
            correct >= 18,
        ),
    )


def _learning(page: Page, results: dict[str, Any]) -> None:
    text = results["text"]
    curves = [
        Series(label, results[name]["times"], results[name]["losses"], smooth=SMOOTH)
        for name, label in (("decoder", "Transformer"), ("recurrent", "LSTM"))
    ]
    others = [
        line_plot(
            [Series(name, results[name]["times"], results[name]["losses"], smooth=SMOOTH)],
            title=f"The {label} learns",
            x="seconds",
            y="loss (nats a target)",
        )
        for name, label in (("encoder", "encoder"), ("dates", "encoder–decoder"))
    ]
    rows = [
        [
            label,
            f"{results[name]['parameters']:,}",
            results[name]["steps"],
            f"{results[name]['tokens_per_second']:,.0f}",
            f"{results[name]['seconds']:.0f}",
            f"{results[name]['bits_per_byte']:.3f}",
        ]
        for name, label in (("decoder", "Transformer"), ("recurrent", "LSTM"))
    ]
    rows.append(
        ["Trigram", None, None, None, f"{text['trigram_seconds']:.1f}"]
        + [f"{text['trigram_bits_per_byte']:.3f}"]
    )
    header = ["", "parameters", "steps", "tokens/s", "seconds", "bits per byte, held out"]
    page.section(
        "Learning",
        f"{text['characters']:,} characters in {text['documents']} documents: the language "
        f"documentation and the standard library's docstrings, {text['tokens']:,} tokens of a "
        f"vocabulary of {text['vocab_size']:,}. {text['held_out_documents']} documents "
        f"({text['held_out_bytes']:,} bytes) were held out.",
        line_plot(
            curves,
            title="The next token: Transformer and LSTM, equal parameters, equal seconds",
            x=Axis("seconds"),
            y="loss (nats a token)",
        ),
        table(header, rows, align="lrrrrr"),
        side_by_side(*others),
    )


def _decoder(page: Page, results: dict[str, Any]) -> None:
    samples = [sample(prompt, text) for prompt, text in results["use"]["docstrings"]]
    page.section(
        "The decoder completes a docstring",
        "Sampled at temperature 0.6 from the likeliest nine tenths (top-p 0.9).",
        *samples,
    )


def _encoder(page: Page, results: dict[str, Any]) -> None:
    gaps = [
        fill(one["text"], [(word, chance) for word, chance in one["candidates"]])
        for one in results["use"]["masked"]
    ]
    page.section("The encoder fills masks", side_by_side(*gaps))
    rows = [
        [
            *(one["question"], one["topic"], one["rank"], one["rank_before"], one["rank_random"]),
            one["first"],
        ]
        for one in results["use"]["search"]
    ]
    first = sum(one["rank"] == 1 for one in results["use"]["search"])
    page.section(
        "Does the encoder find the documentation?",
        f"It finds {first} of {len(rows)}; the questions were written before anything was trained. "
        "The rank of the right topic among all topics, by the cosine of mean token states; beside "
        "it the same encoder where its training began, with the decoder's token table, and with "
        "random weights.",
        table(
            ["question", "right topic", "rank", "before training", "random", "found first"], rows
        ),
    )


def _dates(page: Page, results: dict[str, Any]) -> None:
    rows = [
        [words, difference(iso, answer), answer == iso]
        for words, iso, answer in results["use"]["dates"]
    ]
    page.section(
        "The encoder–decoder writes dates",
        "Twenty days that were in no training pair, by beam search.",
        table(["in words", "answer", "exact"], rows),
    )


def _attention(page: Page, run: Run) -> None:
    encoder = language_model.load(run.folder / "encoder").attention(SENTENCE)["encoder"]
    decoder = language_model.load(run.folder / "decoder").attention(SENTENCE)["decoder"]
    words = run.results["use"]["dates"][0][0]
    cross = language_model.load(run.folder / "dates").attention(words)["cross"]
    page.section(
        "Who looks at whom",
        attention_map(encoder.weights, encoder.queries, title="Encoder: to both sides"),
        attention_map(decoder.weights, decoder.queries, title="Decoder: only back"),
        attention_map(
            cross.weights,
            cross.queries,
            cross.keys,
            title="Encoder–decoder: from the answer to the words",
        ),
    )


def _next(page: Page, run: Run) -> None:
    words = run.results["use"]["dates"][0][0]
    folder = run.folder
    page.section(
        "Type next",
        commands(
            (
                "Let the decoder write",
                f'tercet generate {folder}/decoder "Return the" --top-p 0.9 --temperature 0.7',
            ),
            ("Fill a mask", f'tercet fill {folder}/encoder "Return a [MASK] of the list."'),
            ("Write a date", f'tercet translate {folder}/dates "{words}"'),
            (
                "See the attention over a sentence of yours",
                f'tercet attend {folder}/encoder "{SENTENCE}"',
            ),
            ("What the model is made of", f"tercet info {folder}/decoder"),
        ),
    )

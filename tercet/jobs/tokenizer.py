"""The verb `tokenizer train`: a tokenizer learned from text files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.files import writable
from tercet.jobs.flags import say


def train(
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...", help_behavior_hint="")],
    *,
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("tokenizer"),
    kind: Literal["bpe", "wordpiece", "unigram", "characters", "bytes"] = "bpe",
    vocab_size: Annotated[int, arg(metavar="N")] = 8192,
    special: Literal["encoder", "decoder", "encoder-decoder"] = "decoder",
    lowercase: bool = False,
) -> None:
    """Learns a tokenizer from text files and saves it as a Hugging Face folder.

      tercet tokenizer train books/*.txt --vocab-size 8192 --out book-tokenizer

    Args:
        files: plain UTF-8 text, or .gz of it; - for standard input
        out: the folder to write
        kind: byte-level byte pairs, words and parts of words, likely pieces, or a token a character
            or byte
        vocab_size: tokens at most, special ones included
        special: which family's special tokens to add
        lowercase: lower-case the text first; it then does not come back
    """
    from rich.console import Console
    from rich.progress import Progress

    from tercet.text import train_tokenizer

    if not files:
        raise InputError("no text to learn from; name a FILE, or - for standard input")
    if (out / "config.json").is_file():
        raise InputError(
            f"--out {out}: holds a model (config.json), which another tokenizer would spoil; "
            "name another folder"
        )
    writable(out, folder=True)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        tokenizer = train_tokenizer(
            files,
            kind=kind,
            vocab_size=vocab_size,
            special=special,
            lowercase=lowercase,
            progress=progress,
        )
    tokenizer.save(out)
    say(f"{out}: {kind}, {tokenizer.vocab_size:,} tokens")

"""The verbs `data prepare` and `data show`: files to token shards, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.files import writable
from tercet.jobs.flags import print_json, say, unset
from tercet.text.train import Kind

if TYPE_CHECKING:
    from tercet.data.corpus import Corpus
    from tercet.data.items import Source, Tail
    from tercet.data.prepare import Learn
    from tercet.text import Tokenizer

PLAIN = "text"  # the name of a source that is given none
Family = Literal["encoder", "decoder", "encoder-decoder"]


def prepare(
    files: Annotated[
        Positional[tuple[str, ...]], arg(metavar="FILE...", help_behavior_hint="")
    ] = (),
    *,
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("data"),
    tokenizer: Annotated[str, arg(metavar="FOLDER|KIND")] = "bpe",
    vocab_size: Annotated[int, arg(metavar="N")] = 8192,
    special: Annotated[Family | None, unset("{encoder,decoder,encoder-decoder}")] = None,
    lowercase: bool = False,
    validation: Annotated[tuple[str, ...], arg(metavar="SHARE|FILE...")] = ("0.05",),
    split: Annotated[str, arg(metavar="HOW")] = "file",
    column: Annotated[str, arg(metavar="NAME")] = "text",
    source: Annotated[str | None, unset("NAME|FILE")] = None,
    target: Annotated[str | None, unset("NAME|FILE")] = None,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Tokenises texts, or pairs of texts, into a folder to train from.

    Interrupted, the same command goes on where it was.

      tercet data prepare books/ notes.md --split "# " --out runs/data
      tercet data prepare input.txt --tokenizer characters --validation tail:0.1
      tercet data prepare --source train.en --target train.de --validation val.en val.de
      tercet data prepare pairs.tsv --source en --target de --tokenizer translator

    Args:
        files: .txt .md .jsonl .csv .tsv .parquet (or .gz of them), folders, globs, - for standard
            input, hub:owner/name for a data set of the hub; NAME=FILE puts a file into a source of
            its own, to be mixed by weight in training
        out: the folder to write
        tokenizer: the folder of one, or a kind to learn from the same texts: bpe, wordpiece,
            unigram, characters or bytes
        vocab_size: tokens at most of a learned tokenizer
        special: the special tokens of a learned one, by family; without it those of a decoder, or
            for pairs of an encoder-decoder
        lowercase: a learned tokenizer lower-cases first
        validation: the share of the documents that is kept for validation, tail:SHARE for the end
            of each document, 0 for none, or files of their own
        split: how plain text is cut into documents: file, line, paragraph, or a regular expression
            for the line that begins one ("# "; with a group it is a title and no text)
        column: where tables have their texts
        source: for pairs: a column of the files, or without files a text, a sentence a line
        target: the other column, or the translations of those lines
        quiet: no progress
        json: the manifest's facts as one JSON object
    """
    from tercet.data.prepare import prepare as prepared
    from tercet.jobs.display import Display

    writable(out, folder=True)
    if source is None and target is None:
        sources = _texts(files, split, column, validation)
    else:
        sources = _pairs(files, source, target, validation)
    family = special or ("decoder" if source is None else "encoder-decoder")
    made_with = _tokenizer(tokenizer, vocab_size, family, lowercase)
    with Display(quiet=quiet) as display:
        corpus = prepared(out, sources, made_with, progress=display)
    _summary(corpus, json)


def show(
    folder: Annotated[Positional[Path], arg(metavar="FOLDER", help_behavior_hint="")],
    *,
    document: Annotated[int | None, unset("N")] = None,
    step: Annotated[int | None, unset("N")] = None,
    split: Literal["train", "validation"] = "train",
    source: Annotated[str | None, unset("NAME")] = None,
    verify: bool = False,
    model: Annotated[str | None, unset("MODEL")] = None,
    rows: Annotated[int, arg(metavar="N")] = 3,
    form: Annotated[str | None, unset("NAME")] = None,
    json: bool = False,
) -> None:
    """What a prepared folder holds, one of its documents, the very texts of a step of a run, or
    conversations as a model reads them.

      tercet data show runs/data --document 17 --split validation
      tercet data show runs/novels --step 12345
      tercet data show alpaca.jsonl --model runs/quickstart/decoder

    Args:
        folder: what data prepare wrote, or a run of tercet train; with --model a file of
            conversations
        document: print this document, counted from 0
        step: of a run: print all that this step reads, steps counted from 0
        split: of the documents for training or of those for validation
        source: of which source, where there are several
        verify: read every file and hold it to its checksum
        model: print conversations by this model's chat template, the tokens that are learned
            in colour (or between ⟦ and ⟧), and count them
        rows: of conversations: how many to print
        form: of conversations: alpaca, dolly, sharegpt, messages, prompt, self-instruct, cards or
            preference; without it, known by the columns
        json: one JSON object, of conversations one for each and one of counts
    """
    if model is not None:
        from tercet.jobs.data.conversations import show_conversations

        return show_conversations(str(folder), model, rows=rows, form=form, json=json)
    from tercet.data.corpus import Corpus

    if folder.is_file():
        raise InputError(
            f"{folder} is a file; to see conversations name a model, --model M, else the folder "
            "that 'tercet data prepare' makes of it"
        )
    is_run = (folder / "recipe.yaml").exists()
    if step is not None:
        if not is_run or document is not None or step < 0:
            raise InputError(
                f"--step {step}: give a run folder and a step from 0 on, without --document"
            )
        from tercet.jobs.data.steps import show_step
        from tercet.jobs.train.run import Run

        return show_step(Run.open(folder), step, json=json)
    if is_run:
        from tercet.jobs.train.run import Run

        folder = Run.open(folder).place
    corpus = Corpus.open(folder, verify=verify, talks=True)
    if document is None:
        _summary(corpus, json)
        return
    name = corpus.named(source)
    tokens = getattr(corpus.sources[name], split)
    if not 0 <= document < len(tokens):
        raise InputError(
            f"--document {document} is outside 0..{len(tokens) - 1}, the {split} documents"
        )
    numbers = tokens.document(document)
    ids = (numbers >> 1 if corpus.manifest.marked else numbers).tolist()
    target = corpus.manifest.kind == "pairs" and document % 2
    tokenizer = corpus.tokenizer.target if target else corpus.tokenizer
    text, origin = tokenizer.decode(ids, skip_special=False), corpus.origin(name, split, document)
    if json:
        print_json({"document": document, "origin": origin, "tokens": len(ids), "text": text})
        return
    say(f"{origin}: {len(ids):,} tokens")
    print(text)


# what the words on the command line mean ----------------------------------------------------------


def _texts(
    files: tuple[str, ...], split: str, column: str, validation: tuple[str, ...]
) -> dict[str, Source]:
    from tercet.data.items import Source, Texts

    named = _by_name(files)
    if not named:
        raise InputError("no text to prepare; name a FILE, or - for standard input")
    how = _share(validation)
    own = {} if how is not None else _own_files(validation, list(named))
    return {
        name: Source(
            Texts(of, split, column), Texts(own[name], split, column) if how is None else how
        )
        for name, of in named.items()
    }


def _pairs(
    files: tuple[str, ...], source: str | None, target: str | None, validation: tuple[str, ...]
) -> dict[str, Source]:
    from tercet.data.items import Pairs, Source

    if source is None or target is None:
        missing = "--source" if source is None else "--target"
        raise InputError(f"{missing} is missing: pairs need --source and --target")
    how = _share(validation)
    if files:
        named = _by_name(files)
        own = {} if how is not None else _own_files(validation, list(named))
        return {
            name: Source(
                Pairs(source, target, of),
                Pairs(source, target, own[name]) if how is None else how,
            )
            for name, of in named.items()
        }
    if how is None and len(validation) != 2:
        raise InputError(
            f"--validation {' '.join(validation)}: give two files, the source and the target, or a"
            " share such as 0.05"
        )
    own_pairs = Pairs(validation[0], validation[-1])
    return {PLAIN: Source(Pairs(source, target), own_pairs if how is None else how)}


def _by_name(words: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """NAME=FILE words by their names; words without one belong to `PLAIN`."""
    from tercet.data.prepare import NAME

    named: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals or not NAME.fullmatch(name) or Path(word).exists():
            name, file = PLAIN, word
        named[name] = (*named.get(name, ()), file)
    return named


def _share(validation: tuple[str, ...]) -> float | Tail | None:
    """A share of the documents or of each one, or None where files are named."""
    from tercet.data.items import Tail

    if len(validation) != 1:
        return None
    word = validation[0].removeprefix("tail:")
    try:
        share = float(word)
    except ValueError:
        if word != validation[0]:
            raise InputError(f"--validation {validation[0]}: write tail:0.1, a share") from None
        return None
    return share if word == validation[0] else Tail(share)


def _own_files(validation: tuple[str, ...], names: list[str]) -> dict[str, tuple[str, ...]]:
    """Each source's validation files; a single source need not be named."""
    own = _by_name(validation)
    if len(names) == 1 and list(own) == [PLAIN]:
        return {names[0]: own[PLAIN]}
    if sorted(own) != sorted(names):
        raise InputError(
            f"--validation {' '.join(validation)}: each source needs its own files, as NAME=FILE;"
            f" the sources are {', '.join(names)}"
        )
    return own


def _tokenizer(word: str, vocab_size: int, family: Family, lowercase: bool) -> Tokenizer | Learn:
    from tercet.data.prepare import Learn
    from tercet.text import Tokenizer

    if word in get_args(Kind):
        return Learn(word, vocab_size, family, lowercase)  # type: ignore[arg-type]
    if not Path(word).exists():
        raise InputError(
            f"--tokenizer {word}: no such folder, nor one of the kinds {', '.join(get_args(Kind))}"
        )
    return Tokenizer.load(word)


def _summary(corpus: Corpus, json: bool) -> None:
    """Sources and splits, a line each; what was skipped."""
    from dataclasses import asdict

    manifest = corpus.manifest
    if json:
        sources = {name: asdict(facts) for name, facts in manifest.sources.items()}
        about: dict[str, Any] = {"folder": str(corpus.folder), "kind": manifest.kind}
        about |= {"tokenizer": manifest.tokenizer_hash, "vocab_size": manifest.vocab_size}
        print_json({**about, "sources": sources})
        return
    print(f"{corpus.folder}: {manifest.kind}, {manifest.vocab_size:,} token ids")
    for name, facts in manifest.sources.items():
        for split in ("train", "validation"):
            of = getattr(facts, split)
            print(
                f"  {name:12} {split:10} {of.documents:>11,} documents {of.tokens:>15,} tokens"
                f" {of.bytes / max(1, of.tokens):6.2f} bytes a token"
                + (f", {of.unknown:,} unknown" if of.unknown else "")
            )
            for side, lengths in of.lengths.items():
                if lengths:
                    shown = "  ".join(f"{share} %: {n:,}" for share, n in lengths.items())
                    print(f"    tokens a {side}: {shown}")
        for why, count in facts.skipped.items():
            print(f"    skipped: {count:,} ({why})")

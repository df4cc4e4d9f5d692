"""Learning a tokenizer from text: byte-level BPE, WordPiece, Unigram; characters and bytes.

The texts stream through; what is held is a table of the distinct words and their counts.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal, get_args

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from tercet.errors import InputError
from tercet.text.engine import LibraryEngine
from tercet.text.read import blocks
from tercet.text.special import ROLES, SPECIAL, Special
from tercet.text.tokenizer import Tokenizer

Kind = Literal["bpe", "wordpiece", "unigram", "characters", "bytes"]
# (stage, done, total or None): "reading" in bytes of files or in texts; "learning" 0 and then 1
# of 1, because the library does not tell how far it is.
Progress = Callable[[str, int, int | None], None]

# Characters rarer than the commonest thousand become the unknown token, as in BERT's vocabulary.
WORDPIECE_ALPHABET = 1000
LARGEST = 2_000_000  # tokens: the largest published vocabularies have some 260,000


def train_tokenizer(
    source: Iterable[str] | Iterable[Path],
    *,
    kind: Kind = "bpe",
    vocab_size: int = 8192,
    special: str | Special = "decoder",
    lowercase: bool = False,
    progress: Progress | None = None,
) -> Tokenizer:
    """A tokenizer learned from texts, or from files (`pathlib.Path`s; `.gz` too).

    kind        bpe: byte-level byte-pair encoding (Radford et al. 2019): every text comes back
                wordpiece: words and `##` parts of words (Devlin et al. 2019); spaces are not kept
                unigram: the pieces of a probable segmentation (Kudo 2018), after NFKC
                characters: a token a character, the commonest where they are too many; any other
                character becomes the unknown token
                bytes: a token a byte; there is nothing to learn, and no text is read
    vocab_size  ids at most, special tokens included; a small text may yield fewer
    special     "encoder" ([CLS] text [SEP]; [MASK], [PAD], [UNK]), "decoder" (<|endoftext|> to end
                a document; nothing is added), "encoder-decoder" (text </s>; <pad>, <unk>), or a
                `Special` of one's own
    lowercase   lower-case first (with wordpiece also strip accents); then text does not come back
    progress    called with (stage, done, total)

    Memory: the text streams through in blocks of some 64 KiB; the table of distinct words costs
    roughly 200 bytes a word (about 100 MB for the 500,000 words of a gigabyte of English), unigram
    about ten times that, whatever the size of the text.
    The same text gives the same tokenizer, but for wordpiece and unigram: the library breaks ties
    between equally good pieces differently from run to run.
    Raises InputError for a source without text, a file that is not UTF-8 (with the line), and a
    vocabulary too small for the special tokens and the alphabet, or beyond 2,000,000.
    """
    if not 1 <= vocab_size <= LARGEST:
        raise InputError(
            f"vocab_size {vocab_size} is outside 1..{LARGEST}; usual are 8192 to 50000"
        )
    design = _design(special, kind)
    texts = _reported(_texts(source), progress)
    if kind == "characters":
        return _finish(_characters(texts, vocab_size, design, lowercase), kind, design)
    if kind == "bytes":  # pairs of bytes with no room for a pair
        texts, vocab_size = iter(()), 256 + len({*design.roles.values(), *design.extra})
    library, trainer = _recipe(kind, vocab_size, design, lowercase)
    try:
        _learn(library, texts, trainer)
    except InputError:
        raise
    except Exception as error:  # unigram's trainer raises bare Exception
        raise InputError(f"vocab_size {vocab_size}: {error}; give more, or use kind bpe") from error
    if library.get_vocab_size() > vocab_size:
        raise InputError(
            f"vocab_size {vocab_size} is smaller than the special tokens and the alphabet; give at"
            f" least {library.get_vocab_size()}"
        )
    if progress is not None:
        progress("learning", 1, 1)
    return _finish(library, kind, design)


def _learn(library: Library, texts: Iterator[str], trainer: trainers.Trainer) -> None:
    """The library's training, in a thread that this one waits for, since Python answers Ctrl-C in
    the main thread and between its own steps only: the library takes none for a minute.

    A stopped thread reads no more texts. What it is learning cannot be broken off; it ends with the
    process, which does not wait for it.
    """
    stopped = Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            library.train_from_iterator(_until(stopped, texts), trainer)
        except BaseException as error:  # raised below, where the caller is
            failures.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        stopped.set()
        thread.join(0.2)  # out of Python, where a thread that ends with the process may crash it
        raise
    if failures:
        raise failures[0]


def _until(stopped: Event, texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        if stopped.is_set():
            raise KeyboardInterrupt
        yield text


def _design(special: str | Special, kind: Kind) -> Special:
    """The special tokens by name or as given; what cannot spell every byte needs an
    unknown token."""
    if isinstance(special, str):
        if special not in SPECIAL:
            raise InputError(
                f"unknown special tokens {special!r}; choose from: {', '.join(SPECIAL)}"
            )
        special = SPECIAL[special]
    missing = [role for role in (*special.before, *special.after) if role not in special.roles]
    if missing:
        raise InputError(f"special tokens around a text without a spelling: {', '.join(missing)}")
    if kind not in ("bpe", "bytes") and "unk" not in special.roles:
        roles = {**special.roles, "unk": "<unk>"}
        special = Special(roles, special.before, special.after, special.extra)
    return special


def _recipe(
    kind: Kind, vocab_size: int, design: Special, lowercase: bool
) -> tuple[Library, trainers.Trainer]:
    """The untrained tokenizer and its trainer."""
    special: Any = [*design.roles.values(), *design.extra]
    unknown = design.roles.get("unk")
    if kind in ("bpe", "bytes"):
        library = Library(models.BPE())
        if lowercase:
            library.normalizer = normalizers.Lowercase()
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        return library, trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    if kind == "wordpiece":
        library = Library(models.WordPiece(unk_token=unknown))
        library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece(prefix="##")
        return library, trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=special,
            limit_alphabet=WORDPIECE_ALPHABET,
            show_progress=False,
        )
    if kind == "unigram":
        library = Library(models.Unigram())
        steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
        library.normalizer = normalizers.Sequence(steps)
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        library.decoder = decoders.Metaspace()
        return library, trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=special, unk_token=unknown, show_progress=False
        )
    raise InputError(
        f"unknown kind of tokenizer {kind!r}; choose from: {', '.join(get_args(Kind))}"
    )


def _characters(texts: Iterator[str], vocab_size: int, design: Special, lowercase: bool) -> Library:
    """A vocabulary of characters: byte-pair encoding without pairs, which the library splits three
    times faster than text cut into words of one character."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.lower() if lowercase else text)
    special = list(dict.fromkeys((*design.roles.values(), *design.extra)))
    room = vocab_size - len(special)
    if room < 1:
        raise InputError(
            f"vocab_size {vocab_size} leaves no room for characters beside {len(special)} special"
            f" tokens; give at least {len(special) + 1}"
        )
    commonest = sorted(counts, key=lambda character: (-counts[character], character))[:room]
    vocabulary = {token: number for number, token in enumerate([*special, *sorted(commonest)])}
    library = Library(models.BPE(vocabulary, [], unk_token=design.roles["unk"], fuse_unk=False))
    library.normalizer = normalizers.Lowercase() if lowercase else None
    library.decoder = decoders.Fuse()
    library.add_special_tokens(special)
    return library


def _finish(library: Library, kind: Kind, design: Special) -> Tokenizer:
    """Put the special tokens around the texts and name their roles."""
    # Written and read once: a score loses its last bit so, and must not lose it only when loaded.
    engine = LibraryEngine(Library.from_str(library.to_str()))
    mask = design.roles.get("mask")
    if mask and kind in ("bpe", "unigram"):
        # There the space belongs to the word behind it: "a [MASK]" must hide " word", so the
        # mask takes the space with it.
        engine.add_tokens([AddedToken(mask, special=True, normalized=False, lstrip=True)])
    before, after = (
        [design.roles[role] for role in ends] for ends in (design.before, design.after)
    )
    engine.surround(before, after)
    roles = {f"{role}_token": design.roles.get(role) for role in ROLES}
    return Tokenizer(engine, roles | {"extra_special_tokens": list(design.extra)})


def _texts(source: Iterable[str] | Iterable[Path]) -> Iterator[tuple[str, int, int | None]]:
    """Each text or block of a file, and how much has been read of how much."""
    if isinstance(source, str | Path):
        raise InputError(
            f"expected a list of texts or of pathlib.Path, got {source!r}; write [...]"
        )
    items = iter(source)
    first = next(items, None)
    if isinstance(first, Path):
        yield from _files([first, *(Path(str(item)) for item in items)])
        return
    for number, text in enumerate(chain([] if first is None else [first], items), 1):
        if not isinstance(text, str):
            raise InputError(f"text {number} is {type(text).__name__} {text!r:.40}; give texts")
        yield text, number, None


def _files(paths: list[Path]) -> Iterator[tuple[str, int, int | None]]:
    """The files' text in blocks, with bytes read of all bytes."""
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    for number, path in enumerate(paths):
        for text, consumed in blocks(path):
            yield text, sum(sizes[:number]) + consumed, sum(sizes)


def _reported(
    texts: Iterable[tuple[str, int, int | None]], progress: Progress | None
) -> Iterator[str]:
    """Pass the texts on, telling how far they are; a source without text is refused."""
    empty = True
    for text, done, total in texts:
        empty = empty and not text.strip()
        yield text
        if progress is not None:
            progress("reading", done, total)
    if empty:
        raise InputError("nothing to learn a tokenizer from: the texts are empty; give some text")
    if progress is not None:
        progress("learning", 0, 1)

"""From a model's folder to an engine: the file formats of tokenizers, told apart by content.

tokenizer.json; WordPiece's vocab.txt; vocab.json with merges.txt, byte-level or with `</w>` at the
ends of words; SentencePiece's *.model, or source.spm and target.spm with vocab.json.
No model's name is looked at: what decides is the vocabulary itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from tercet.errors import InputError
from tercet.text.engine import Engine, LibraryEngine, library_from_file
from tercet.text.sentence_pieces import SOURCE, sentence_piece_engine
from tercet.text.special import ROLES, SPELLINGS, named_tokens, spelling

FORMATS = (
    "tokenizer.json, vocab.txt, vocab.json + merges.txt, *.model, or source.spm + target.spm +"
    " vocab.json"
)
WORD_END = "</w>"


def engine_from_folder(folder: Path, settings: Mapping[str, Any]) -> Engine:
    """The first format that the folder holds, in the order of `FORMATS`.

    Raises InputError for a folder that is missing or holds none of them, and for damaged files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder of a model or tokenizer")
    if (folder / "tokenizer.json").is_file():
        engine = LibraryEngine(library_from_file(folder / "tokenizer.json"))
        _add_named(engine, settings)
        return engine
    if (folder / SOURCE).is_file() or list(folder.glob("*.model")):
        return sentence_piece_engine(folder, settings)
    if (folder / "vocab.txt").is_file():
        return _wordpiece(folder / "vocab.txt", settings)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _pairs(folder / "vocab.json", folder / "merges.txt", settings)
    raise InputError(f"{folder}: no tokenizer; expected {FORMATS}")


def _wordpiece(path: Path, settings: Mapping[str, Any]) -> Engine:
    """BERT's tokenizer (Devlin et al. 2019): a word a line, `##` before the parts of words."""
    try:
        vocabulary = models.WordPiece.read_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a vocabulary, a token a line ({error})") from error
    unknown = spelling(settings.get("unk_token")) or "[UNK]"
    if unknown not in vocabulary:
        raise InputError(f"{path}: lacks {unknown!r}, which stands for unknown words; add its line")
    library = Library(models.WordPiece(vocabulary, unk_token=unknown))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    engine = LibraryEngine(library)
    _add_usual(engine, settings, vocabulary)
    first = spelling(settings.get("cls_token")) or "[CLS]"
    last = spelling(settings.get("sep_token")) or "[SEP]"
    missing = [token for token in (first, last) if engine.token_id(token) is None]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; add the lines, or name the tokens")
    engine.surround([first], [last])
    return engine


def _pairs(vocab: Path, merges: Path, settings: Mapping[str, Any]) -> Engine:
    """Byte-pair encoding (Sennrich et al. 2016) from vocab.json and merges.txt."""
    try:
        vocabulary, rules = models.BPE.read_file(str(vocab), str(merges))
        if any(right.endswith(WORD_END) for _, right in rules):
            return _word_pairs(vocabulary, rules, settings)
        return _byte_pairs(vocab.parent, vocabulary, rules, settings)
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            f"{vocab.parent}: vocab.json and merges.txt do not belong together or are damaged"
            f" ({error}); copy or download both anew"
        ) from error


def _word_pairs(
    vocabulary: dict[str, int], rules: list[tuple[str, str]], settings: Mapping[str, Any]
) -> Engine:
    """GPT-1's tokenizer (Radford et al. 2018): lower-cased words that end in `</w>`."""
    unknown = spelling(settings.get("unk_token")) or "<unk>"
    library = Library(
        models.BPE(
            vocabulary,
            rules,
            continuing_subword_prefix="",
            end_of_word_suffix=WORD_END,
            unk_token=unknown,
        )
    )
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.BPEDecoder(suffix=WORD_END)
    engine = LibraryEngine(library)
    engine.add_tokens([unknown])
    _add_usual(engine, settings, vocabulary)
    return engine


def _byte_pairs(
    folder: Path,
    vocabulary: dict[str, int],
    rules: list[tuple[str, str]],
    settings: Mapping[str, Any],
) -> Engine:
    """GPT-2's tokenizer (Radford et al. 2019), and RoBERTa's: the same with <s> ... </s>."""
    marked = "<s>" in vocabulary and "</s>" in vocabulary
    if not marked and "<|endoftext|>" not in vocabulary and "tokenizer_class" in settings:
        # Later byte-level families keep their special tokens elsewhere and split words otherwise.
        raise InputError(
            f"{folder}: vocab.json and merges.txt do not say how {settings['tokenizer_class']}"
            " splits words; add the model's tokenizer.json"
        )
    prefix_space = bool(settings.get("add_prefix_space", False))
    library = Library(models.BPE(vocabulary, rules))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    library.decoder = decoders.ByteLevel()
    engine = LibraryEngine(library)
    _add_usual(engine, settings, vocabulary)
    if marked:  # that family has no token types, and two marks between the texts of a pair
        engine.surround(["<s>"], ["</s>"], "<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0")
    else:
        ends = [
            [spelling(settings.get(f"{role}_token")) or "<|endoftext|>"]
            if settings.get(f"add_{role}_token")
            else []
            for role in ("bos", "eos")
        ]
        engine.surround(ends[0], ends[1])
    return engine


def _add_usual(
    engine: LibraryEngine, settings: Mapping[str, Any], vocabulary: Mapping[str, int]
) -> None:
    """Mark as special what the settings name, and the usual spellings that the vocabulary holds."""
    _add_named(engine, settings)
    usual = [token for role in ROLES for token in SPELLINGS[role] if token in vocabulary]
    engine.add_tokens(usual)


def _add_named(engine: LibraryEngine, settings: Mapping[str, Any]) -> None:
    """Tokens beside the vocabulary, in the order of their ids, then the special ones by role."""
    added = settings.get("added_tokens_decoder") or {}
    tokens = [token for _, token in sorted(added.items(), key=lambda item: int(item[0]))]
    for group in (tokens, named_tokens(settings)):
        engine.add_tokens([token for token in group if spelling(token) not in engine.added])

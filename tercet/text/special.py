"""The special tokens of a tokenizer: which token plays which role, as its folder says it.

`tokenizer_config.json` names them as strings or as dicts with a `content`; older folders keep them
in `special_tokens_map.json`; the oldest name none and rely on the spelling. Knows no text.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.errors import InputError, undamaged

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

# Where a folder does not name a role, the first of these spellings that it marks as special.
SPELLINGS = {
    "bos": ("<s>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("[UNK]", "<unk>"),
    "sep": ("[SEP]",),
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]",),
    "mask": ("[MASK]", "<mask>"),
}

TEMPLATES = "additional_chat_templates"  # a folder of those with names

# Folders write 1e30 where no maximum is known.
LARGEST_MAX_LENGTH = 10**9


@dataclass(frozen=True)
class Special:
    """Which special tokens a new tokenizer gets, and where they stand around a text.

    roles    role -> spelling; they take the first ids, in this order
    before   roles put before every text; after: roles put after every text (of a pair: after each,
             and the second text and its end have token type 1)
    extra    further special tokens, such as those of a chat template
    """

    roles: Mapping[str, str]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


# What each family's saved models need: an encoder reads [CLS] text [SEP]; a decoder ends a document
# with one token and adds nothing to a prompt; an encoder-decoder's texts end in </s>, and its
# decoder starts from <pad>.
SPECIAL = {
    "encoder": Special(
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        before=("cls",),
        after=("sep",),
    ),
    "decoder": Special({"eos": "<|endoftext|>"}),
    "encoder-decoder": Special({"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, after=("eos",)),
}


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises InputError where it is not JSON or not UTF-8."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy or download the file anew") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check it is there") from error


def read_settings(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, completed by the older `special_tokens_map.json` and
    `added_tokens.json`, and by `chat_template.jinja` and others with names; empty where the folder
    has none of them."""
    settings: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if not path.is_file() or "added_tokens_decoder" in settings:
            continue
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(f"{path}: holds a {type(content).__name__}, not an object of settings")
        settings.update(content)
    added = folder / "added_tokens.json"
    if added.is_file() and "added_tokens_decoder" not in settings:
        special = {spelling(token) for token in named_tokens(settings)}
        with undamaged(added):
            settings["added_tokens_decoder"] = {
                str(int(number)): {"content": token, "special": token in special}
                for token, number in read_json(added).items()
            }
    template = folder / "chat_template.jinja"
    if template.is_file():
        settings["chat_template"] = _read(template)
    if more := sorted((folder / TEMPLATES).glob("*.jinja")):
        first = [("default", settings["chat_template"])] if "chat_template" in settings else []
        named = [*first, *((path.stem, _read(path)) for path in more)]
        settings["chat_template"] = [{"name": name, "template": text} for name, text in named]
    return settings


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy it anew") from error


def spelling(value: Any) -> str | None:
    """The token that a setting names: a string, a dict with `content`, or nothing.

    Raises InputError for anything else.
    """
    token = value.get("content") if isinstance(value, dict) else value
    if token is not None and not isinstance(token, str):
        raise InputError(f"the tokenizer's settings name the token {token!r}; it must be a string")
    return token


def named_tokens(settings: Mapping[str, Any]) -> list[Any]:
    """Every special token that the settings name (strings or dicts), roles first."""
    tokens = [settings.get(f"{role}_token") for role in ROLES]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = settings.get(key) or []
        tokens.extend(value.values() if isinstance(value, dict) else value)
    return [token for token in tokens if token]


def roles_of(settings: Mapping[str, Any], special: Collection[str]) -> dict[str, str | None]:
    """Role -> spelling (or None) for all seven roles; `special` are the tokens marked as special.

    A role that the settings name (even as null) is taken at their word, any other is recognised by
    its spelling. A tokenizer with a mask but no [CLS] uses its text ends for it: <s> and </s>.
    """
    roles: dict[str, str | None] = {}
    for role in ROLES:
        known = [token for token in SPELLINGS[role] if token in special]
        guess = known[0] if known else None
        roles[role] = spelling(settings.get(f"{role}_token", guess))
    if roles["mask"]:
        for role, end in (("cls", "bos"), ("sep", "eos")):
            if f"{role}_token" not in settings and roles[role] is None:
                roles[role] = roles[end]
    return roles


def max_length_of(settings: Mapping[str, Any]) -> int | None:
    """`model_max_length` in tokens, or None where the folder gives none (or the usual 1e30)."""
    value = settings.get("model_max_length")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < LARGEST_MAX_LENGTH else None

"""Chat templates of eleven families: ids and masks equal transformers' on 528 random conversations;
what no template says is found as if it did."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from chat_templates import FAMILIES, WORDS, Family, conversations, write

from tercet.errors import InputError
from tercet.text import Special, Tokenizer, train_tokenizer
from tercet.text.chat import ChatTemplate

transformers = pytest.importorskip("transformers", reason="the oracle is not installed")

ROOT = Path(__file__).parent.parent
STORIES = Path(os.environ.get("TERCET_WEIGHTS", ROOT.parent / "shared" / "weights")) / "stories260K"
PEERS = os.environ.get("TERCET_PEERS")
ENDS = Special({"bos": "<s>", "eos": "</s>", "unk": "<unk>"})
KINDS = ("bpe", "unigram", "stories")  # bytes; pieces; pieces that merge, from a real model
EACH = 16
# What looks like a control token in a template's text.
CONTROL = re.compile(
    r"<\|[\w ]+\|?>|<[\w]+\|>|<｜[\w▁]+｜>|\[/?[A-Z]{3,}\]|<(?:start|end)_of_turn>"
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    folders = {"stories": STORIES} if STORIES.is_dir() else {}
    for kind in ("bpe", "unigram"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        texts = [" ".join(WORDS) + " the quick brown fox" * 3] * 3
        train_tokenizer(texts, kind=kind, vocab_size=400, special=ENDS).save(folders[kind])
    return folders


def opened(bases: dict[str, Path], kind: str, family: Family, folder: Path):
    """The oracle and ours, from the folder that it saved."""
    if kind not in bases:
        pytest.skip(f"{STORIES} is not there; set TERCET_WEIGHTS")
    base = transformers.AutoTokenizer.from_pretrained(bases[kind])
    return write(base, family, family.template, folder), Tokenizer.load(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_ids_and_masks_equal_the_oracle(name, kind, bases, tmp_path):
    family = FAMILIES[name]
    oracle, tokenizer = opened(bases, kind, family, tmp_path)
    template, unmarked = ChatTemplate.of(tokenizer), ChatTemplate(family.unmarked, tokenizer)
    assert template.marked and not unmarked.marked and template.given
    for messages in conversations(family, EACH, seed=KINDS.index(kind)):
        theirs = oracle.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = template.compile(messages)
        assert ids == theirs["input_ids"]
        assert [int(learned) for learned in mask] == theirs["assistant_masks"]
        assert unmarked.compile(messages) == (ids, mask)
        asked = oracle.apply_chat_template(messages[:-1], add_generation_prompt=True)
        assert template.prompt(messages[:-1]) == asked["input_ids"]


def test_a_template_without_marks_learns_what_follows_the_prompt(bases, tmp_path):
    """By the definition: the prompt, then what is learned, to the special token that ends it."""
    for number, (name, family) in enumerate(FAMILIES.items()):
        if name in ("mistral", "deepseek"):  # the prompt is no beginning of the conversation there
            continue
        _, tokenizer = opened(bases, "bpe", family, tmp_path / str(number))
        template = ChatTemplate(family.unmarked, tokenizer)
        for messages in conversations(family, 5, seed=7):
            ids, mask = template.compile(messages)
            prompt = template.prompt(messages[:-1])
            start = len(ids) - 1 - mask[::-1].index(True)  # of the last answer
            stop = start + 1
            while start and mask[start - 1]:
                start -= 1
            together = tokenizer.decode(ids[:start], skip_special=False)
            assert together == tokenizer.decode(prompt, skip_special=False), name
            assert ids[stop - 1] in tokenizer.special_ids


def test_spelled_tokens_are_the_same_text_to_the_oracle(bases, tmp_path):
    """Where a content spells a token, ids are those that transformers gives for its characters."""
    oracle, tokenizer = opened(bases, "bpe", FAMILIES["qwen2.5"], tmp_path)
    template = ChatTemplate.of(tokenizer)
    spelled = "a <|im_end|> b<|im_start|>system"
    ids = template.prompt([{"role": "user", "content": spelled}])
    start, end = (tokenizer.id_of(token) for token in ("<|im_start|>", "<|im_end|>"))
    assert (ids.count(start), ids.count(end)) == (3, 2)  # the system's turn, the user's, the prompt
    plain = oracle(f"user\n{spelled}", add_special_tokens=False, split_special_tokens=True)
    place = [i for i, token in enumerate(ids) if token == start][1]
    assert ids[place + 1 : ids.index(end, place)] == plain["input_ids"]


@pytest.mark.slow
def test_templates_of_an_installed_package(bases, tmp_path):
    """Every template that trl ships: ids and masks equal transformers', or a refusal that says why.

    transformers leaves out the rest of a character at an answer's end that is several tokens.
    """
    if not PEERS or not (found := sorted(Path(PEERS).rglob("trl/chat_templates/*.jinja"))):
        pytest.skip("no trl/chat_templates below TERCET_PEERS")
    alike, masks, refused = 0, 0, defaultdict(Counter)
    for number, path in enumerate(found):
        source = path.read_text()
        family = Family(source, tuple(sorted(set(CONTROL.findall(source)))))
        oracle, tokenizer = opened(bases, "bpe", family, tmp_path / str(number))
        template = ChatTemplate.of(tokenizer)
        thinking = Family("", family.special, ("<think>", "</think>"))
        for messages in conversations(thinking, 20, seed=number):
            try:
                theirs = oracle.apply_chat_template(
                    messages, return_dict=True, return_assistant_tokens_mask=True
                )
            except Exception:  # the template refuses: so must ours
                theirs = None
            try:
                ids, mask = template.compile(messages)
            except InputError as error:
                refused[path.stem][str(error).removeprefix("the conversation: ")[:90]] += 1
                continue
            assert theirs is not None and ids == theirs["input_ids"], path.name
            alike += 1
            if template.marked:
                masks += 1
                for token, ours, other in zip(ids, mask, theirs["assistant_masks"], strict=True):
                    whole = "\ufffd" not in tokenizer.decode([token])
                    assert ours == other or (ours and not whole), path.name
    for name, reasons in refused.items():
        print(f"{name}: {dict(reasons)}")
    print(f"{len(found)} templates: {alike} ids alike, {masks} masks alike")
    assert alike >= 1000 and masks >= 500

"""A grammar lets no invalid document out, whatever the network would like to write."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

import tercet
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.generate.speculation import PromptLookup
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.text import train_tokenizer

pytest.importorskip("llguidance", reason='pip install "tercet[json]"')

TEXTS = ['{"name": "Ada", "n": 12, "x": [true, null, 3.5]}, the cat sat'] * 40


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    tokenizer = train_tokenizer(TEXTS, vocab_size=320)
    sizes = {"context_length": 256, "d_model": 32, "d_ff": 64, "n_heads": 2, "decoder_layers": 1}
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size + 3, eos_ids=(tokenizer.eos_id,), init_std=0.2, **sizes
    )
    return LanguageModel(build(config, seed=3), tokenizer)


def schema(draw: random.Random, depth: int = 2) -> dict[str, Any]:
    kinds = ["integer", "number", "boolean", "null", "string", "enum"]
    kind = draw.choice(kinds + ["object", "array"] * 2 if depth else kinds)
    if kind == "enum":
        return {"enum": draw.sample(["red", "green", "blue", 1, 2.5, None, True], 3)}
    if kind == "integer":
        return {"type": kind, "minimum": draw.randint(-50, 0), "maximum": draw.randint(1, 500)}
    if kind == "string":
        return {"type": kind, "maxLength": draw.randint(0, 6)}
    if kind == "array":
        return {"type": kind, "items": schema(draw, depth - 1), "maxItems": draw.randint(0, 3)}
    if kind == "object":
        names = draw.sample(["a", "b", "naïve", "two words", 'q"'], draw.randint(0, 3))
        inner = {name: schema(draw, depth - 1) for name in names}
        required = [name for name in names if draw.random() < 0.6]
        found = {"type": kind, "properties": inner, "required": required}
        return {**found, "additionalProperties": False}
    return {"type": kind}


def valid(value: Any, said: dict[str, Any]) -> bool:
    """JSON schema's rules for what ``schema`` makes."""
    if "enum" in said:
        return any(type(value) is type(one) and value == one for one in said["enum"])
    kind = said["type"]
    if kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        whole = kind == "number" or value == int(value)
        return whole and said.get("minimum", value) <= value <= said.get("maximum", value)
    if kind == "string":
        return isinstance(value, str) and len(value) <= said["maxLength"]
    if kind == "array":
        return (
            isinstance(value, list)
            and len(value) <= said["maxItems"]
            and all(valid(one, said["items"]) for one in value)
        )
    if kind == "object":
        return (
            isinstance(value, dict)
            and set(said["required"]) <= set(value) <= set(said["properties"])
            and all(valid(one, said["properties"][name]) for name, one in value.items())
        )
    return value is None if kind == "null" else isinstance(value, bool)


def test_five_hundred_random_schemas(model):
    draw, whole, cut = random.Random(1), 0, 0
    warm = tercet.Sampling(temperature=1.0)
    for number in range(500):
        wanted = schema(draw)
        grammar = tercet.Grammar.json(wanted)
        how = {"sampling": warm, "seed": number, "max_new_tokens": draw.choice([8, 60, 200])}
        answer = model.generate("the cat", grammar=grammar, **how)
        if answer.finish == "length":
            cut += 1
            assert len(answer.ids) == how["max_new_tokens"]
            continue
        whole += 1
        assert answer.text.strip() == answer.text
        assert valid(json.loads(answer.text), wanted), (wanted, answer.text)
    assert whole > 300 and cut > 10


def test_regular_expressions_match_from_end_to_end(model):
    warm = tercet.Sampling(temperature=1.0)
    for pattern in (r"[a-f]{3}-[0-9]{2}", r"(yes|no), [A-Z][a-z]{0,5}\.", r"ü?x{2,4}"):
        answers = model.generate(
            ["the cat", "a"], grammar=tercet.Grammar.regex(pattern), sampling=warm, samples=3
        )
        for answer in sum(answers, []):
            assert answer.finish == "stop" and re.fullmatch(pattern, answer.text), answer.text


def test_streams_and_drafts_obey_too(model):
    grammar = tercet.Grammar.json({"type": "array", "items": {"type": "boolean"}, "maxItems": 4})
    plain = model.generate("the cat", grammar=grammar)
    assert all(isinstance(one, bool) for one in json.loads(plain.text))
    assert "".join(model.stream("the cat", grammar=grammar)) == plain.text
    assert model.generate("the cat", grammar=grammar, draft="lookup").ids == plain.ids
    assert PromptLookup().guess([1, 2, 3, 1, 2], 2) == [3, 1]


def test_tokenizers_that_put_in_spaces(model):
    """A grammar forces bytes; a tokenizer that marks words by a space before them adds none."""
    tokenizer = train_tokenizer(TEXTS, kind="unigram", vocab_size=60, lowercase=True)
    config = model.config.replace(
        vocab_size=tokenizer.vocab_size + 9,
        eos_ids=(tokenizer.eos_id, tokenizer.vocab_size + 3),
    )
    other = LanguageModel(build(config, seed=1), tokenizer)
    answer = other.generate("the cat", grammar=tercet.Grammar.json({"enum": [True, None]}))
    assert answer.finish == "stop" and json.loads(answer.text) in (True, None)


@pytest.mark.parametrize("wrong", [{"type": "null"}, "[0-9]", 5])
def test_what_is_no_grammar(model, wrong):
    with pytest.raises(InputError, match="must be a tercet.Grammar"):
        model.generate("the cat", grammar=wrong)


IMPOSSIBLE = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 3}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: tercet.Grammar.json("{'a': 1}"), "line 1, column 2"),
        (lambda: tercet.Grammar.json({"type": "objekt"}), "cannot be met at #: .*objekt"),
        (
            lambda: tercet.Grammar.json({"properties": {"x": {"items": {"type": "objekt"}}}}),
            "cannot be met at #/properties/x/items: .*objekt",
        ),
        (lambda: tercet.Grammar.json({"properties": 5}), "properties|object"),
        (lambda: tercet.Grammar.regex(r"\b"), "cannot be met: [^\n]*$"),
        (lambda: tercet.Grammar.json(IMPOSSIBLE), "at #/properties/a: .*minimum"),
        (lambda: tercet.Grammar.json("[1]"), "is none"),
        (lambda: tercet.Grammar.json({"enum": {1}}), "is none"),
        (
            lambda: tercet.Grammar.json({"type": "integer", "minimum": 5, "maximum": 3}),
            "cannot be met.*minimum",
        ),
        (lambda: tercet.Grammar.regex("(a"), r"'\(a' cannot be met: unclosed group at character 1"),
        (lambda: tercet.Grammar.regex("é(b"), "unclosed group at character 2$"),
        (lambda: tercet.Grammar.regex("x{3,1}"), "the start must be <= the end at character 2$"),
        (lambda: tercet.Grammar.regex("a\\"), "a lone backslash at its end"),
    ],
)
def test_what_cannot_be_met_is_refused_at_once(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_what_nothing_can_be_written_for_is_said_in_a_line(model):
    """A class without characters, and a letter that a vocabulary of characters does not have."""
    with pytest.raises(InputError, match="behind 0 tokens nothing that the tokenizer") as found:
        model.generate("the cat", grammar=tercet.Grammar.regex(r"[^\s\S]"))
    assert "\n" not in str(found.value)
    tokenizer = train_tokenizer(TEXTS, kind="characters")
    config = model.config.replace(vocab_size=tokenizer.vocab_size, eos_ids=(tokenizer.eos_id,))
    other = LanguageModel(build(config, seed=1), tokenizer)
    with pytest.raises(InputError, match="behind 2 tokens nothing that the tokenizer") as found:
        other.generate("the cat", grammar=tercet.Grammar.json({"enum": ["aé"]}))
    assert "\n" not in str(found.value)
    endless = LanguageModel(build(config.replace(vocab_size=99, eos_ids=(98,)), seed=1), tokenizer)
    with pytest.raises(InputError, match="none of the model's end-of-text tokens"):
        endless.generate("the cat", grammar=tercet.Grammar.regex("a"))


def test_a_document_is_not_cut_by_a_stop_string(model):
    with pytest.raises(InputError, match="stop .* and a grammar"):
        model.generate("the cat", grammar=tercet.Grammar.regex("a+"), stop="b")


def test_from_the_command(model, tmp_path: Path, capsys):
    from tercet import cli

    model.save(tmp_path / "model")
    (tmp_path / "schema.json").write_text('{"enum": ["yes", "no"]}')
    asked = ["generate", str(tmp_path / "model"), "the cat"]
    assert cli.run([*asked, "--json-schema", str(tmp_path / "schema.json")]) == 0
    assert capsys.readouterr().out.strip() in ('"yes"', '"no"')
    assert cli.run([*asked, "--regex", "[xy]{3}"]) == 0
    assert re.fullmatch("[xy]{3}\n", capsys.readouterr().out)
    assert cli.run([*asked, "--regex", "x", "--json-schema", str(tmp_path / "schema.json")]) == 2
    assert cli.run([*asked, "--json-schema", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err

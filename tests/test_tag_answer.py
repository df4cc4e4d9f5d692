"""m.tag and m.answer: the same logits, tags and answers as `transformers`, and what they refuse."""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path

import pytest
import torch
import transformers
from oracles import randomise
from random_models import SIZES

import tercet
from tercet import hf
from tercet.answers import Answer, Tag
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.model.layout import flatten
from tercet.represent.answer import LONGEST
from tercet.text import Tokenizer, train_tokenizer

TEXT = (
    "Ada Lovelace met Mr. Babbage in London, at the “Royal Society”, in 1833. She didn't (yet) "
    "know that his naïve engine would cost £17,000; Zoë O'Brien wrote about 中文 and 😀 later."
)
LABELS = ("O", "B-person", "I-person", "B-place", "I-place")
TAGGERS = {
    "bert": "BertForTokenClassification",
    "roberta": "RobertaForTokenClassification",
    "distilbert": "DistilBertForTokenClassification",
    "eurobert": "EuroBertForTokenClassification",
    "gpt2": "GPT2ForTokenClassification",
    "llama": "LlamaForTokenClassification",
    "mistral": "MistralForTokenClassification",
    "qwen2": "Qwen2ForTokenClassification",
    "qwen3": "Qwen3ForTokenClassification",
}
ANSWERERS = {
    "bert": "BertForQuestionAnswering",
    "roberta": "RobertaForQuestionAnswering",
    "distilbert": "DistilBertForQuestionAnswering",
    "gpt2": "GPT2ForQuestionAnswering",
}
WORD_PIECES = ("bert", "distilbert")


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    return train_tokenizer([TEXT] * 5, kind=kind, vocab_size=420, special="encoder")


def theirs(architecture: str, model_class: str, folder: Path, labels: tuple[str, ...] = ()):
    """A random model of theirs, saved with a tokenizer of ours."""
    tokenizer = tokenizer_of("wordpiece" if architecture in WORD_PIECES else "bpe")
    settings = SIZES[architecture] | {"vocab_size": tokenizer.vocab_size}
    if labels:
        settings |= {"id2label": dict(enumerate(labels))}
    kind = getattr(transformers, model_class)
    model = kind(kind.config_class(**settings)).eval()
    randomise(model, seed=5)
    if labels:  # so that no label is the likeliest of nearly all words
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(TEXT)])).logits[0]
            head = model.score if hasattr(model, "score") else model.classifier
            head.bias -= logits.mean(0)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model


@pytest.fixture(scope="module", params=TAGGERS)
def taggers(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = theirs(request.param, TAGGERS[request.param], folder, LABELS)
    return model, tercet.load(folder), folder


@torch.no_grad()
def their_logits(model, ids: list[int], **inputs):
    return model(torch.tensor([ids]), **{key: torch.tensor([x]) for key, x in inputs.items()})


def test_tags_are_those_of_transformers(taggers, tmp_path: Path) -> None:
    model, ours, _ = taggers
    assert ours.can[:2] == ("embed", "tag")
    words = TEXT.split()
    found = ours.tag([words])[0]
    assert [tag.text for tag in found] == words
    pieces = [
        ours.tokenizer.encode(
            w if model.config.model_type in WORD_PIECES else f" {w}", special=False
        )
        for w in words
    ]
    before, after = ours.tokenizer.around
    ids = [*before, *itertools.chain(*pieces), *after]
    logits = their_logits(model, ids).logits[0]
    with torch.no_grad():
        own = ours.network.heads.tag(ours.network.states(*flatten([ids])))
    torch.testing.assert_close(own, logits, atol=1e-5, rtol=1e-5)
    firsts = [len(before), *itertools.accumulate(map(len, pieces), initial=len(before))][1:-1]
    best = logits[firsts].softmax(-1).max(-1)
    raw = [LABELS[i] for i in best.indices]
    assert [tag.tag[1:] for tag in found] == [tag[1:] for tag in raw]  # illegal I- became B-
    assert len(set(raw)) > 2
    assert [tag.probability for tag in found] == pytest.approx(best.values.tolist(), abs=1e-5)
    ours.save(tmp_path)
    again = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(their_logits(again, ids).logits[0], logits, atol=1e-5, rtol=1e-5)
    assert again.config.id2label == dict(enumerate(LABELS))


def test_entities_are_stretches_of_the_text(taggers) -> None:
    _, ours, _ = taggers
    found = ours.tag(TEXT)
    words = ours.tag([[TEXT[start:stop] for start, stop in tercet_words(TEXT)]])[0]
    assert found and all(TEXT[tag.start : tag.end] == tag.text for tag in found)
    assert [tag.tag for tag in found] == [t.tag[2:] for t in words if t.tag.startswith("B-")]
    runs: list[list[Tag]] = []
    for tag in words:
        if tag.tag.startswith("B-"):
            runs.append([tag])
        elif tag.tag.startswith("I-"):
            runs[-1].append(tag)
    for entity, run in zip(found, runs, strict=True):
        assert entity.probability == pytest.approx(math.prod(t.probability for t in run), rel=1e-4)
        assert entity.text.startswith(run[0].text) and entity.text.endswith(run[-1].text)
    for one, alone in zip(ours.tag([TEXT, "Ada met Bo"])[0], found, strict=True):  # in company
        assert (one.tag, one.start, one.end) == (alone.tag, alone.start, alone.end)
        assert one.probability == pytest.approx(alone.probability, abs=1e-5)


def tercet_words(text: str) -> list[tuple[int, int]]:
    from tercet.text.words import words_in

    return words_in(text)


def test_words_given_stand_in_the_text_that_they_make(taggers) -> None:
    found = taggers[1].tag([["Mr.", "Babbage", "wrote"]])[0]
    assert [(tag.text, tag.start, tag.end) for tag in found] == [
        ("Mr.", 0, 3),
        ("Babbage", 4, 11),
        ("wrote", 12, 17),
    ]


def test_a_long_sentence_is_read_in_windows(taggers) -> None:
    ours = taggers[1]
    words = TEXT.split() * 12
    found = ours.tag([words])[0]
    assert [tag.text for tag in found] == words  # 12 x about 50 tokens in windows of 211
    assert len(ours.tokenizer.encode(" ".join(words))) > 2 * ours.limit


def test_parts_of_speech_are_of_every_word(tmp_path: Path) -> None:
    theirs("bert", TAGGERS["bert"], tmp_path, ("NOUN", "VERB", "X"))
    found = tercet.load(tmp_path).tag("She didn't know.")
    assert [tag.text for tag in found] == ["She", "didn", "'", "t", "know", "."]
    assert {tag.tag for tag in found} <= {"NOUN", "VERB", "X"}


# answers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ANSWERERS)
def answerers(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = theirs(request.param, ANSWERERS[request.param], folder)
    return model, tercet.load(folder)


def test_answers_are_those_of_transformers(answerers, tmp_path: Path) -> None:
    model, ours = answerers
    question = "Who wrote about London?"
    ids, types = ours.tokenizer.encode_pair(question, TEXT)
    inputs = {"token_type_ids": types} if model.config.model_type == "bert" else {}
    output = their_logits(model, ids, **inputs)
    read, places = ours.tokenizer.encode_places(TEXT)
    offset = next(i for i in range(len(ids)) if ids[i : i + len(read)] == read)
    starts, ends = (
        x[0, offset : offset + len(read)] for x in (output.start_logits, output.end_logits)
    )
    scores = {
        (i, j): float(starts[i] + ends[j])
        for i in range(len(read))
        for j in range(i, min(i + LONGEST, len(read)))
    }
    total = sum(map(math.exp, scores.values()))
    ranked = sorted(scores, key=lambda at: -scores[at])
    found = ours.answer(question, TEXT, n_best=5)
    expected: dict[tuple[int, int], float] = {}
    for i, j in ranked:
        expected.setdefault((places[i][0], places[j][1]), math.exp(scores[i, j]) / total)
    for answer, (place, chance) in zip(found, expected.items()):
        assert (answer.start, answer.end) == place
        assert answer.text == TEXT[slice(*place)] == str(answer)
        assert answer.probability == pytest.approx(chance, rel=1e-3)
    alone = ours.answer(question, TEXT)
    assert isinstance(alone, Answer) and alone == found[0]
    ours.save(tmp_path)
    again = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path).eval()
    same = their_logits(again, ids, **inputs)
    torch.testing.assert_close(same.start_logits, output.start_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same.end_logits, output.end_logits, atol=1e-5, rtol=1e-5)


def test_long_contexts_and_several_questions(answerers) -> None:
    ours = answerers[1]
    context = " ".join([TEXT] * 12)
    assert len(ours.tokenizer.encode(context)) > 2 * ours.limit
    best = ours.answer("Who?", context, n_best=50)
    assert len({(a.start, a.end) for a in best}) == 50
    assert all(context[a.start : a.end] == a.text for a in best)
    chances = [a.probability for a in best]
    assert chances == sorted(chances, reverse=True) and 0 < sum(chances) < 1
    several = ours.answer(["Who?", "Where?"], [context, TEXT])
    for one, alone in zip(several, [best[0], ours.answer("Where?", TEXT)]):
        assert (one.start, one.end) == (alone.start, alone.end)
    assert [len(a) for a in ours.answer(["Who?", "Where?"], TEXT, n_best=2)] == [2, 2]


# what is refused ----------------------------------------------------------------------------------


def model_with(*heads: str) -> LanguageModel:
    tokenizer = tokenizer_of("wordpiece")
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        context_length=64,
        d_model=16,
        d_ff=32,
        n_heads=2,
        encoder_layers=1,
        heads=heads,
    )
    return LanguageModel(build(config, 0), tokenizer, hf.Extras())


def test_a_head_for_another_task() -> None:
    tagger, answerer = model_with("tagger"), model_with("span")
    with pytest.raises(InputError, match=r"heads: tagger\) cannot answer; it can embed, tag"):
        tagger.answer("Who?", TEXT)
    with pytest.raises(InputError, match=r"heads: span\) cannot tag; it can embed, answer"):
        answerer.tag(TEXT)
    with pytest.raises(InputError, match="cannot tag"):
        model_with("masked").tag(TEXT)
    assert {tag.tag for tag in tagger.tag("a b")} <= {"LABEL_0", "LABEL_1"}  # no names were given


def test_what_cannot_be_tagged_or_answered() -> None:
    tagger, answerer = model_with("tagger"), model_with("span")
    for texts, said in [
        ("", "text 1 is empty"),
        (["a", " \n"], "text 2 is empty"),
        ([], "an empty list holds no text"),
        ([["a", ""]], r"sentence 1: \['a', ''\] holds no word or an empty one"),
        ([["a"], []], "sentence 2"),
        ([7], "a text must be a string, not 7"),
        ([["a", 7]], "a text must be a string, not 7"),
    ]:
        with pytest.raises(InputError, match=said):
            tagger.tag(texts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="n_best 0 must be"):
        answerer.answer("Who?", TEXT, n_best=0)
    with pytest.raises(InputError, match="2 contexts for 3 questions"):
        answerer.answer(["a", "b", "c"], [TEXT, TEXT])
    with pytest.raises(InputError, match="the context of question 2 is empty"):
        answerer.answer(["a", "b"], [TEXT, " "])

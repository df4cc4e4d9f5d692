"""The quickstart's models at work: a docstring, masks, a search, dates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import tercet.language_model as language_model
from tercet.generate import Sampling
from tercet.jobs.flags import visible
from tercet.jobs.quickstart.corpus import dates_and_numbers, title, topics
from tercet.jobs.quickstart.models import SEED, take_table
from tercet.jobs.quickstart.questions import QUESTIONS
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.represent.encode import encode
from tercet.represent.mine import unit

if TYPE_CHECKING:
    from tercet.jobs.quickstart.state import Run

DOCSTRINGS = (
    "def remove(self, item):\nRemove",
    "def open(path, mode):\nOpen the file",
    "class Counter:\nA class",
)
MASKED = (
    "Return a [MASK] of the list.",
    "If the key is not found, a KeyError is [MASK].",
    "The default value is [MASK].",
    "Raise an exception if the [MASK] is not a string.",
)
SENTENCE = "Lambda expressions are used to create anonymous functions."
NEW_TOKENS = 48
PASSAGE = 64  # tokens of a topic that are embedded together


def use(run: Run) -> dict[str, Any]:
    """Everything that the four trained networks are asked, and what they answer."""
    decoder = language_model.load(run.folder / "decoder")
    encoder = language_model.load(run.folder / "encoder")
    translator = language_model.load(run.folder / "dates")
    result = {
        "docstrings": complete(decoder),
        "masked": fill_masks(encoder),
        "search": search(run, encoder),
        "dates": translate_dates(translator, run.settings.date_pairs),
    }
    correct = sum(answer == iso for _, iso, answer in result["dates"])
    ranks = {
        kind: np.mean([row[kind] for row in result["search"]])
        for kind in ("rank", "rank_before", "rank_random")
    }
    run.say(
        f"dates: {correct} of {len(result['dates'])} unseen ones exact\n"
        f"questions: the right topic of {len(topics())} stands at rank {ranks['rank']:.1f} in the "
        f"mean; {ranks['rank_before']:.1f} before training, {ranks['rank_random']:.1f} with random "
        "weights"
    )
    _say_answers(run, result)
    return result


def _say_answers(run: Run, result: dict[str, Any]) -> None:
    """A few of the answers; the page has them all."""
    prompt, text = result["docstrings"][0]
    masked = result["masked"][0]
    words, _, answer = result["dates"][0]
    best = ", ".join(visible(word, 20) for word, _ in masked["candidates"])
    run.say(f"  {prompt!r} goes on {text!r}")
    run.say(f"  {masked['text']} -> {best}")
    run.say(f"  {words} -> {answer}")


def complete(decoder: LanguageModel) -> list[list[str]]:
    """[prompt, continuation] each; sampled, since greedy text of small models repeats itself."""
    sampling = Sampling(temperature=0.6, top_p=0.9)
    written = decoder.generate(DOCSTRINGS, max_new_tokens=NEW_TOKENS, sampling=sampling, seed=SEED)
    return [[prompt, text.text] for prompt, text in zip(DOCSTRINGS, written)]


def fill_masks(encoder: LanguageModel) -> list[dict[str, Any]]:
    """The five likeliest tokens for the mask of each sentence."""
    filled = []
    for text in MASKED:
        best: Any = encoder.fill(text)
        filled.append({"text": text, "candidates": [[one.token, one.probability] for one in best]})
    return filled


def search(run: Run, encoder: LanguageModel) -> list[dict[str, Any]]:
    """For each question its topic's rank, and the topic found first.

    Ranks of the encoder, of the same encoder where its training began, and of random weights.
    """
    found = topics()
    start, random = build(encoder.config, SEED), build(encoder.config, SEED)
    take_table(run, start)
    after = ranking(encoder, found)
    before = ranking(LanguageModel(start, encoder.tokenizer), found)
    by_chance = ranking(LanguageModel(random, encoder.tokenizer), found)
    return [
        {
            "question": question,
            "topic": title(found[topic]),
            "rank": after[i].index(topic) + 1,
            "rank_before": before[i].index(topic) + 1,
            "rank_random": by_chance[i].index(topic) + 1,
            "first": title(found[after[i][0]]),
        }
        for i, (question, topic) in enumerate(QUESTIONS)
        if topic in found
    ]


def ranking(encoder: LanguageModel, found: dict[str, str]) -> list[list[str]]:
    """For each question the topics, nearest first: by cosine with a topic's nearest passage.

    Vectors are means over token states, less the mean passage: what all texts share tells nothing.
    """
    passages, owners = [], []
    for number, text in enumerate(found.values()):
        ids = encoder.tokenizer.encode(text)
        for start in range(0, max(1, len(ids) - PASSAGE // 2), PASSAGE // 2):
            passages.append(ids[start : start + PASSAGE])
            owners.append(number)
    questions = [encoder.tokenizer.encode(question) for question, _ in QUESTIONS]
    texts = encode(encoder.network, passages, "mean").numpy()  # (passages, D)
    asked = encode(encoder.network, questions, "mean").numpy()  # (questions, D)
    near = unit(asked - asked.mean(0)) @ unit(texts - texts.mean(0)).T
    keys, owner = list(found), np.array(owners)
    best = np.stack([near[:, owner == i].max(1) for i in range(len(keys))], axis=1)
    return [[keys[i] for i in np.argsort(-row, kind="stable")] for row in best]


def translate_dates(translator: LanguageModel, date_pairs: int) -> list[list[str]]:
    """[words, ISO form, answer] of twenty days that were in no training pair."""
    _, unseen = dates_and_numbers(date_pairs, SEED)
    answers = translator.translate([words for words, _ in unseen], beams=4)
    return [[words, iso, answer.text] for (words, iso), answer in zip(unseen, answers)]

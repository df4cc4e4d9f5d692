"""Beam search against `transformers`, token for token in float64, and its own laws."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import oracles
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet import hf
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.generate import Beam, TokenRules, beam_search, generate
from tercet.generate.reader import Reader
from tercet.generate.wording import Wording
from tercet.jobs.quickstart import models as quickstart_models
from tercet.jobs.quickstart.corpus import dates_and_numbers
from tercet.jobs.quickstart.state import Run, Settings
from tercet.model import build, cache, flatten
from tercet.model.attention import Pattern
from tercet.model.quantize import quantise
from tercet.text import Tokenizer

EOS, PAD, NEW = 2, 1, 9
N_INPUTS = 50
LAST_NORMS = {
    "gpt2": "transformer.ln_f",
    "t5": "decoder.final_layer_norm",
    "bart": "model.decoder.layers.2.final_layer_norm",
    "marian": "model.decoder.layers.2.final_layer_norm",
}
ARCHITECTURES = list(LAST_NORMS)
TINY = TransformerConfig(
    vocab_size=9, context_length=16, d_model=8, d_ff=8, n_heads=2, decoder_layers=1, init_std=1.0
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same random weights, theirs and ours, and an end token that they choose often."""

    theirs: Any
    ours: Any
    ends: tuple[int, ...]

    @property
    def both(self) -> bool:
        return self.ours.config.family == "encoder-decoder"


@functools.cache
def pair(name: str, folder: str) -> Pair:
    oracle = oracles.ORACLES[name]
    if name == "t5":  # transformers 5 sizes the decoder's cache by the encoder's layers
        oracle = dataclasses.replace(oracle, settings=oracle.settings | {"num_decoder_layers": 2})
    theirs = oracle.build()
    # Larger weights write more than one token, and larger logits are so sure of it that a short
    # text can beat the long ones under any penalty: a search that ends nowhere shows nothing.
    for parameter in theirs.parameters():  # a table of sinusoids is one too, but not learned
        parameter.data *= 2 if parameter.requires_grad and parameter.dim() > 1 else 1
    for parameter in theirs.get_submodule(LAST_NORMS[name]).parameters():
        parameter.data *= 20
    theirs.save_pretrained(folder)
    ours = hf.load(folder)[0].eval().double()
    both = Pair(theirs.double(), ours, ())
    # Random weights hardly ever choose a given token: the two that first stand at the most
    # different places of the greedy texts, and in the most texts, are called ends.
    firsts: dict[int, list[int]] = {}
    for text in generate(ours, **texts(both, N_INPUTS), max_new_tokens=NEW):
        for token in set(text.ids) - set(range(oracles.N_SPECIAL)):
            firsts.setdefault(token, []).append(text.ids.index(token))
    usual = sorted(firsts, key=lambda t: (-len(set(firsts[t])), -len(firsts[t]), t))
    return dataclasses.replace(both, ends=tuple(usual[:2]))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def models(request, tmp_path_factory) -> Pair:
    return pair(request.param, str(tmp_path_factory.getbasetemp() / request.param))


def texts(models: Pair, n: int) -> dict[str, Any]:
    """The first n random inputs, 1 to 9 tokens long, as prompts or as sources."""
    generator = torch.Generator().manual_seed(1)
    sizes = torch.randint(1, 10, (N_INPUTS,), generator=generator).tolist()
    rows = [
        torch.randint(oracles.N_SPECIAL, oracles.VOCABULARY, (size,), generator=generator).tolist()
        for size in sizes
    ][:n]
    return {"prompts": None, "sources": rows} if models.both else {"prompts": rows}


def theirs(models: Pair, n: int, ends: tuple[int, ...], **asked: Any) -> list[list[int]]:
    """The new ids that `transformers` writes, n_best for each input, padding cut off."""
    rows = texts(models, n)["sources" if models.both else "prompts"]
    ids, mask = oracles.pad(rows, PAD)
    if not models.both:  # a decoder's prompts must end together
        ids, mask = (
            torch.stack([x.roll(len(x) - len(r)) for x, r in zip(side, rows)])
            for side in (ids, mask)
        )
    with torch.no_grad():
        written = models.theirs.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=NEW,
            eos_token_id=list(ends),
            pad_token_id=PAD,
            do_sample=False,
            **asked,
        )
    return until(written[:, 1 if models.both else ids.shape[1] :].tolist(), ends)


def until(written: list[list[int]], ends: tuple[int, ...]) -> list[list[int]]:
    """As far as the first end, which is kept."""
    stops = [[place for place, token in enumerate(row) if token in ends] for row in written]
    return [row[: stop[0] + 1] if stop else row for row, stop in zip(written, stops)]


def ours(models: Pair, n: int, ends: tuple[int, ...], beam: Beam, **asked: Any) -> list[list[int]]:
    found = beam_search(
        models.ours, **texts(models, n), beam=beam, max_new_tokens=NEW, eos_ids=ends, **asked
    )
    return [text.ids for best in found for text in best]


# against transformers --------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.6, 1.0, 2.0])
def test_four_best_equal_transformers(models, length_penalty, early_stopping):
    expected = theirs(
        models,
        N_INPUTS,
        models.ends[:1],
        num_beams=4,
        num_return_sequences=4,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )
    beam = Beam(4, length_penalty, early_stopping, n_best=4)
    assert ours(models, N_INPUTS, models.ends[:1], beam) == expected
    ended = {len(row) for row in expected if row[-1] in models.ends[:1]}
    assert len(ended - {NEW}) > 1


OTHERS = {
    "gpt1": "transformer.h.2.ln_2",
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3"], "model.norm"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_decoders_search_alike(name, tmp_path, monkeypatch):
    """One prompt at a time: their padded windows give NaN."""
    monkeypatch.setitem(LAST_NORMS, name, OTHERS[name])
    models, n = pair(name, str(tmp_path)), 12
    ends, expected = models.ends[:1], []
    for row in texts(models, n)["prompts"]:
        prompt = torch.tensor([row])
        with torch.no_grad():
            written = models.theirs.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW,
                eos_token_id=list(ends),
                pad_token_id=PAD,
                do_sample=False,
                num_beams=4,
                num_return_sequences=4,
            )
        expected += until(written[:, len(row) :].tolist(), ends)
    assert ours(models, n, ends, Beam(4, n_best=4)) == expected
    assert len({len(row) for row in expected}) > 1


@pytest.mark.parametrize("models", ["gpt2", "t5", "marian"], indirect=True)
def test_sources_that_are_done_leave_the_batch(models, monkeypatch):
    rows, read = [], Reader.read
    monkeypatch.setattr(
        Reader, "read", lambda self, cache, ids: rows.append(len(ids)) or read(self, cache, ids)
    )
    beam_search(
        models.ours,
        **texts(models, 20),
        beam=Beam(2, early_stopping=True),
        max_new_tokens=NEW,
        eos_ids=models.ends,
    )
    assert rows[0] == 20 and rows[1] <= 40 and rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < rows[1] and all(n % 2 == 0 for n in rows[1:])


def test_penalties_and_modes_choose_different_texts(models):
    """So that equal to transformers' means something for each of the nine settings above."""
    asked = itertools.product([0.6, 1.0, 2.0], [False, True, "never"])
    beams = [Beam(4, penalty, early, n_best=4) for penalty, early in asked]
    found = {str(ours(models, N_INPUTS, models.ends[:1], beam)) for beam in beams}
    assert len(found) >= 8  # False and "never" may agree where short texts are favoured


def test_one_beam_equals_transformers_greedy(models):
    expected = theirs(models, N_INPUTS, models.ends, num_beams=1)
    assert ours(models, N_INPUTS, models.ends, Beam(1)) == expected


def test_several_end_tokens(models):
    expected = theirs(models, 10, models.ends, num_beams=3, num_return_sequences=2)
    assert ours(models, 10, models.ends, Beam(3, n_best=2)) == expected


def test_negative_penalty_and_no_end(models):
    for ends, penalty, early in itertools.product(
        [models.ends[:1], ()], [-1.0, 0.0], [False, "never"]
    ):
        asked = {"length_penalty": penalty, "early_stopping": early}
        expected = theirs(models, 5, ends or (0,), num_beams=3, **asked) if ends else None
        written = ours(models, 5, ends, Beam(3, penalty, early))
        assert written == expected if ends else {len(row) for row in written} == {NEW}


@pytest.mark.parametrize("models", ["bart", "marian"], indirect=True)
def test_rules_equal_transformers(models):
    """Forced first and last tokens (BART), suppressed ones (Marian), greedy and with beams."""
    ends = models.ends[:1]
    rules = TokenRules(never=(models.ends[1], PAD), first=11, last=ends[0])
    for beams in (1, 4):
        expected = theirs(
            models,
            10,
            ends,
            num_beams=beams,
            num_return_sequences=beams,
            bad_words_ids=[[models.ends[1]], [PAD]],
            forced_bos_token_id=11,
            forced_eos_token_id=ends[0],
        )
        assert ours(models, 10, ends, Beam(beams, n_best=beams), rules=rules) == expected
        assert {(row[0], row[-1]) for row in expected} == {(11, ends[0])}


@pytest.mark.parametrize("beams", [1, 4])
def test_repeats_and_forbidden_words_equal_transformers(models, beams):
    free = ours(models, N_INPUTS, models.ends[:1], Beam(beams))
    pairs = [tuple(row[i : i + 2]) for row in free for i in range(len(row) - 2)]
    usual = sorted(set(pairs), key=lambda pair: (-pairs.count(pair), pair))[:6]
    words = [*usual[:-1], usual[-1][:1]]
    for wording, asked in (
        (Wording(no_repeat_ngram=2), {"no_repeat_ngram_size": 2}),
        (Wording(forbidden=tuple(words)), {"bad_words_ids": [list(word) for word in words]}),
    ):
        expected = theirs(models, N_INPUTS, models.ends[:1], num_beams=beams, **asked)
        found = ours(models, N_INPUTS, models.ends[:1], Beam(beams, wording=wording))
        assert found == expected != free


# laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 30])  # few rows run as a tape, many as modules
def test_keys_that_stay_in_their_places_give_the_same_texts(models, n, monkeypatch):
    """Float32, where beams copy no keys, against copies of them at every step."""
    asked, how = texts(models, n), {"beam": Beam(4, n_best=4), "max_new_tokens": NEW}
    single = Pair(models.theirs, models.ours.float(), models.ends)
    monkeypatch.setattr(cache.Places, "reorder", spied := Spy(cache.Places.reorder))
    try:
        scattered = beam_search(single.ours, **asked, **how, eos_ids=models.ends)
        kept = {m.buckets for m in models.ours.modules() if isinstance(m, Pattern)} == {None}
        assert (spied.calls > 0) == kept
        monkeypatch.setattr("tercet.model.transformer.attends", lambda *_: False)
        monkeypatch.setattr("tercet.kernels.tape.attends", lambda *_: False)
        copied = beam_search(single.ours, **asked, **how, eos_ids=models.ends)
    finally:
        models.ours.double()
    for one, other in zip(scattered, copied, strict=True):
        assert [text.ids for text in one] == [text.ids for text in other]
        for a, b in zip(one, other):
            assert a.log_probabilities == pytest.approx(b.log_probabilities, abs=1e-4)


VARIANTS = {
    "windows, grouped heads": dict(
        positions="rotary", norm="rms", n_kv_heads=2, window=5, local_layers=(1,)
    ),
    "rotary": dict(positions="rotary", qk_norm=True),
}


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", VARIANTS)
def test_places_of_ragged_prompts(name, precision, monkeypatch):
    """Windows, grouped heads, prompts of 1 to 20 tokens, few rows and many."""
    config = TransformerConfig(
        vocab_size=61, context_length=64, d_model=32, d_ff=48, n_heads=4, decoder_layers=2
    ).replace(init_std=0.4, **VARIANTS[name])
    network = build(config, seed=3).eval()
    if precision == "int8":
        quantise(network, 8)
    draw = torch.Generator().manual_seed(5)
    sizes = torch.randint(1, 21, (30,), generator=draw).tolist()
    prompts = [torch.randint(2, 61, (n,), generator=draw).tolist() for n in sizes]
    found = []
    for places in (True, False):
        if not places:
            monkeypatch.setattr("tercet.model.transformer.attends", lambda *_: False)
        for n in (2, 30):
            how = {"beam": Beam(4, n_best=4), "max_new_tokens": 8, "eos_ids": (1,)}
            found.append(
                str([[t.ids for t in best] for best in beam_search(network, prompts[:n], **how)])
            )
    assert found[:2] == found[2:]


class Spy:
    """A method that counts its calls."""

    def __init__(self, method) -> None:
        self.method, self.calls = method, 0

    def __get__(self, owner, _) -> Any:
        return functools.partial(self, owner)

    def __call__(self, *args) -> Any:
        self.calls += 1
        return self.method(*args)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_words_are_forced_and_forbidden(data):
    """Two forced words in every text that ends by itself; nothing forbidden in any."""
    network = build(TINY, seed=data.draw(st.integers(0, 9))).eval()
    words = st.lists(st.integers(2, 8), min_size=1, max_size=3).map(tuple)
    forced = tuple(data.draw(st.lists(st.lists(words, min_size=1, max_size=2), max_size=2)))
    spelt = {token for word in forced for spelling in word for token in spelling}
    forbidden = tuple((token,) for token in data.draw(st.sets(st.integers(2, 8))) - spelt)
    wording = Wording(0, forbidden, tuple(map(tuple, forced)))
    beams = data.draw(st.integers(1, 5))
    beam = Beam(beams, n_best=beams, wording=wording)
    rules = TokenRules(last=data.draw(st.sampled_from([None, 0, 1])))
    (found,) = beam_search(network, [[3]], beam=beam, max_new_tokens=12, eos_ids=(1,), rules=rules)
    assert found and len({tuple(text.ids) for text in found}) == len(found)
    for text in found:
        said = {tuple(text.ids[i:j]) for i in range(13) for j in range(i, len(text.ids) + 1)}
        assert not said & set(forbidden)
        holds = all(said & set(word) for word in forced)
        assert holds or text.finish == "length"
    said = {tuple(found[0].ids[i:j]) for i in range(13) for j in range(i, 13)}
    assert all(said & set(word) for word in forced)  # in 12 tokens there is room for all


def test_a_wide_search_finds_the_likeliest_text_that_holds_a_word():
    config = dataclasses.replace(TINY, vocab_size=5)
    network = build(config, seed=1).eval()
    free, held = (
        beam_search(network, [[3]], beam=beam, max_new_tokens=3, eos_ids=(1,))[0]
        for beam in (
            Beam(60, 0.6, "never", n_best=60),
            Beam(60, 0.6, "never", n_best=3, wording=Wording(forced=(((4, 2),),))),
        )
    )
    expected = [text.ids for text in free if (4, 2) in itertools.pairwise(text.ids)]
    assert [text.ids for text in held] == expected[:3]


def test_what_cannot_be_said_is_said():
    network = build(TINY, seed=0).eval()
    forced = Beam(3, wording=Wording(forced=(((2, 3, 4, 5),),)))
    ((text,),) = beam_search(network, [[3]], beam=forced, max_new_tokens=3, eos_ids=(1,))
    assert text.finish == "length" and len(text.ids) == 3
    twice = Wording(forced=(((4,),),))  # token 0 may be the last: no empty candidate is one of it
    (found,) = beam_search(
        build(TINY, seed=1).eval(), [[3]], beam=Beam(4, n_best=4, wording=twice),
        max_new_tokens=5, rules=TokenRules(last=0),
    )  # fmt: skip
    assert len({tuple(text.ids) for text in found}) == 4
    nothing = Wording(forbidden=tuple((token,) for token in range(9)))
    assert beam_search(network, [[3]], beam=Beam(2, wording=nothing), max_new_tokens=3) == [[]]
    with pytest.raises(InputError, match="no_repeat_ngram -1"):
        Wording(no_repeat_ngram=-1)
    with pytest.raises(InputError, match="no tokens"):
        Wording(forced=((),))


def test_batch_of_one_equals_batch_of_many(models):
    asked = texts(models, 6)
    rows = asked["sources" if models.both else "prompts"]
    beam = Beam(4, 1.0, n_best=3)
    together = beam_search(models.ours, **asked, beam=beam, max_new_tokens=NEW)
    for row, best in zip(rows, together):
        alone: dict[str, Any] = (
            {"prompts": None, "sources": [row]} if models.both else {"prompts": [row]}
        )
        (single,) = beam_search(models.ours, **alone, beam=beam, max_new_tokens=NEW)
        assert [text.ids for text in single] == [text.ids for text in best]


def test_log_probabilities_rank_the_texts(models):
    """They are the model's own, by a pass without a cache, and order the list."""
    asked = texts(models, 4)
    rows = asked["sources" if models.both else "prompts"]
    beam = Beam(4, 0.6, n_best=4)
    for row, best in zip(
        rows, beam_search(models.ours, **asked, beam=beam, max_new_tokens=NEW, eos_ids=models.ends)
    ):
        scores = [sum(text.log_probabilities) / len(text.ids) ** 0.6 for text in best]
        assert scores == sorted(scores, reverse=True)
        for text in best:
            before = [models.ours.config.start_id] if models.both else row
            tokens, layout = flatten([[*before, *text.ids[:-1]]])
            source = dict(zip(("source", "source_layout"), flatten([row]))) if models.both else {}
            with torch.no_grad():
                logits = models.ours(tokens, layout, **source)[len(before) - 1 :]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(text.ids)[:, None])[:, 0]
            assert text.log_probabilities == pytest.approx(expected.tolist(), abs=1e-5)
            assert (text.finish == "stop") == (text.ids[-1] in models.ends)
            assert text.finish == "stop" or len(text.ids) == NEW


@pytest.mark.parametrize("models", ["gpt2", "marian"], indirect=True)
def test_runs_to_the_edge_of_ragged_prompts(models):
    """Without a number, every prompt has its own room; the longest run fills the context."""
    long = [[5 + i % 80 for i in range(size)] for size in (205, 209, 207)]
    asked: dict[str, Any]
    if models.both:
        asked = {"prompts": [[2, *row[:-1]] for row in long], "sources": long}
    else:
        asked = {"prompts": long}
    found = beam_search(models.ours, **asked, beam=Beam(3), eos_ids=())
    assert [(len(t.ids), t.finish) for (t,) in found] == [(n, "length") for n in (6, 2, 4)]


def test_training_goes_on_after_a_search(models):
    models.ours.train()
    ours(models, 1, (), Beam(2))
    assert models.ours.training
    models.ours.eval()


@pytest.mark.parametrize(
    "values, named",
    [
        ({"beams": 0}, "beams 0"),
        ({"beams": -1}, "beams -1"),
        ({"beams": 3, "n_best": 4}, "n_best 4"),
        ({"n_best": 0}, "n_best 0"),
        ({"early_stopping": "often"}, "'often'"),
        ({"beams": 2.5}, "beams 2.5 must be a whole number"),
        ({"length_penalty": 2000.0}, "length_penalty 2000.0"),
        ({"length_penalty": None}, "length_penalty None"),
    ],
)
def test_beam_refuses(values, named):
    with pytest.raises(InputError, match=named):
        Beam(**values)


@pytest.mark.parametrize("models", ["gpt2"], indirect=True)
def test_more_beams_than_tokens(models):
    """A search wider than the vocabulary finds every text once, and says so by its length."""
    (best,) = beam_search(models.ours, [[5]], beam=Beam(120, n_best=120), max_new_tokens=1)
    assert len({tuple(text.ids) for text in best}) == len(best) == oracles.VOCABULARY


def test_a_search_that_keeps_everything_finds_the_likeliest_text():
    """Against the enumeration of all 85 texts of up to three tokens, of which 1 is the end."""
    config = TransformerConfig(
        vocab_size=5, context_length=8, d_model=8, d_ff=8, n_heads=2, decoder_layers=1, init_std=1.0
    )
    network = build(config, seed=1).eval()
    scores = {}
    for n in (0, 1, 2):
        for body in itertools.product((0, 2, 3, 4), repeat=n):
            for last in (1,) if n < 2 else range(5):
                tokens = [3, *body, last]
                with torch.no_grad():
                    own = network(*flatten([tokens[:-1]])).log_softmax(-1)
                scores[tuple(tokens[1:])] = own.gather(1, torch.tensor(tokens[1:])[:, None]).sum()
    expected = sorted(scores, key=lambda ids: -scores[ids] / len(ids) ** 0.6)
    beam = Beam(60, 0.6, "never", n_best=60)
    (found,) = beam_search(network, [[3]], beam=beam, max_new_tokens=3, eos_ids=(1,))
    assert [tuple(text.ids) for text in found] == expected[:60]


@pytest.mark.slow
def test_the_quickstarts_date_model_equals_transformers(tmp_path):
    """A network that learned something ends where it means to, and its likely texts lie close."""
    run = Run(tmp_path, Settings(seconds=25), quiet=True)
    run.results = {"text": {"bfloat16": False}}
    quickstart_models.dates(run)
    folder = tmp_path / "dates"
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval().double()
    ours = hf.load(folder)[0].eval().double()
    pairs, unseen = dates_and_numbers(3000, quickstart_models.SEED)
    tokenizer = Tokenizer.load(folder)
    rows = [tokenizer.encode(words) for words, _ in (unseen + pairs)[:N_INPUTS]]
    assert ours.config.pad_id is not None
    ids, mask = oracles.pad(rows, ours.config.pad_id)
    (end,) = ours.config.eos_ids
    for penalty, early in itertools.product((0.6, 1.0, 2.0), (False, True, "never")):
        settings = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": penalty}
        with torch.no_grad():
            written = theirs.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=20,
                do_sample=False,
                early_stopping=early,
                **settings,
            )[:, 1:].tolist()
        expected = [row[: row.index(end) + 1] if end in row else row for row in written]
        beam = Beam(4, penalty, early, n_best=4)
        found = beam_search(ours, None, sources=rows, beam=beam, max_new_tokens=20)
        assert [text.ids for best in found for text in best] == expected

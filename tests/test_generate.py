"""Sampling and the generation engine: the law of batches, the distribution, every bad input."""

from __future__ import annotations

import math

import pytest
import torch
import transformers

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.generate import Sampling, TokenRules, generate, stream
from tercet.generate.prompts import Text, groups
from tercet.generate.reader import Reader
from tercet.generate.sampling import (
    choose,
    distribution,
    draw,
    identities,
    log_probabilities,
    moved,
)
from tercet.generate.speculation import DraftNetwork, PromptLookup
from tercet.model import build, flatten

DECODER = TransformerConfig(
    vocab_size=41,
    context_length=48,
    d_model=24,
    d_ff=40,
    n_heads=3,
    decoder_layers=2,
    bos_id=0,
    eos_ids=(1,),
    init_std=0.4,
)
BOTH = DECODER.replace(encoder_layers=2, start_id=0)
RECURRENT = DECODER.replace(mixer="lstm")
NETWORKS = {
    name: build(config, seed=3).eval()
    for name, config in {"decoder": DECODER, "both": BOTH, "recurrent": RECURRENT}.items()
}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [4], [30, 2], [12, 13, 14], [4]]
WARM = Sampling(temperature=1.3, top_k=30, top_p=0.97)


@pytest.fixture(params=["decoder", "both", "recurrent"])
def name(request) -> str:
    return request.param


def write(name: str, texts: list[list[int]], **asked):
    """`texts` are prompts of a decoder and sources of an encoder–decoder."""
    if name == "both":
        return generate(NETWORKS[name], None, sources=texts, **asked)
    return generate(NETWORKS[name], texts, **asked)


@torch.no_grad()
def next_logits(name: str, text: list[int], new: list[int]) -> torch.Tensor:
    """(V,): logits after prompt and new tokens, by an ordinary pass without a cache."""
    network = NETWORKS[name]
    if name == "both":
        tokens, layout = flatten([[0, *new]])
        source, source_layout = flatten([text])
        return network(tokens, layout, source=source, source_layout=source_layout)[-1]
    return network(*flatten([[*text, *new]]))[-1]


# sampling --------------------------------------------------------------------------------------


def test_filters_equal_transformers():
    logits = (
        torch.randn(64, 53, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    )
    for sampling in (
        Sampling(0.7),
        Sampling(1.0, top_k=5),
        Sampling(1.9, top_k=99),
        Sampling(1.2, top_p=0.6),
        Sampling(1.0, min_p=0.2),
        Sampling(0.8, top_k=20, top_p=0.8, min_p=0.05),
    ):
        warpers = transformers.LogitsProcessorList(
            [transformers.TemperatureLogitsWarper(sampling.temperature)]
        )
        if sampling.top_k is not None:
            warpers.append(transformers.TopKLogitsWarper(sampling.top_k))
        if sampling.top_p is not None:
            warpers.append(transformers.TopPLogitsWarper(sampling.top_p))
        if sampling.min_p is not None:
            warpers.append(transformers.MinPLogitsWarper(sampling.min_p))
        theirs = warpers(None, logits)  # type: ignore[arg-type]
        theirs = theirs.softmax(-1)
        torch.testing.assert_close(distribution(logits, sampling), theirs, rtol=0, atol=1e-12)


def test_penalties_and_bias_equal_transformers():
    """Bias first, then the penalty of repetition, as in `transformers`; presence by its formula."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 41, generator=generator, dtype=torch.float64)
    seen = [[3, 3, 17, 40], [0, 1, 2, 2], [9, 9, 9, 9]]
    sampling = Sampling(repetition_penalty=1.3, bias={17: 2.0, 5: -math.inf, 9: -0.5})
    theirs = transformers.LogitsProcessorList(
        [
            transformers.SequenceBiasLogitsProcessor([[[i], x] for i, x in sampling.bias.items()]),
            transformers.RepetitionPenaltyLogitsProcessor(1.3),
        ]
    )(torch.tensor(seen), logits.clone())  # type: ignore[arg-type]
    torch.testing.assert_close(moved(logits, sampling, seen, seen), theirs, rtol=0, atol=1e-12)
    new = [[3, 3], [], [9]]
    expected = logits.clone()
    expected[0, 3] -= 0.7
    expected[2, 9] -= 0.7
    ours = moved(logits, Sampling(presence_penalty=0.7), seen, new)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    assert moved(logits, Sampling(), seen, new) is logits


def test_what_was_said_is_not_said_again(name):
    """The strongest penalties leave no token twice; a forbidden one does not come."""
    never = Sampling(presence_penalty=2.0, bias=dict.fromkeys(range(20), -math.inf))
    for penalised in (Sampling(repetition_penalty=1000), never):
        for text in write(name, PROMPTS, max_new_tokens=9, sampling=penalised, eos_ids=()):
            if penalised is never:
                assert min(text.ids) >= 20
            else:
                assert len(set(text.ids)) == len(text.ids)


def test_frequencies_follow_the_distribution():
    """Pearson's chi-squared over 4,000 texts stays below its 99.9 % quantile."""
    n = 4000
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 3.0, 0.5]])
    sampling = Sampling(temperature=0.9, top_k=5, min_p=0.03)
    keys = identities([(7,)] * n)
    draws = torch.tensor([draw(11, key, 0) for key in keys], dtype=torch.float64)
    counts = choose(logits.expand(n, -1), sampling, draws=draws).bincount(minlength=6).double()
    expected = distribution(logits, sampling)[0] * n
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    chi_squared = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert kept.sum() == 5 and chi_squared < 18.47  # 4 degrees of freedom


def test_frequencies_of_what_is_written_follow_the_network(monkeypatch):
    """The second token of 4,000 samples of a prompt, behind the commonest first one."""
    net, sampling = NETWORKS["decoder"], Sampling(temperature=0.8, top_k=6)
    found = generate(
        net, [[5, 6, 7]] * 4000, max_new_tokens=2, sampling=sampling, seed=5, eos_ids=()
    )
    firsts = [text.ids[0] for text in found]
    first = max(set(firsts), key=firsts.count)
    seconds = torch.tensor([text.ids[1] for text in found if text.ids[0] == first])
    with torch.no_grad():
        logits = net(*flatten([[5, 6, 7, first]]))[-1:]
    expected = distribution(logits, sampling)[0].double() * len(seconds)
    counts = seconds.bincount(minlength=len(expected)).double()
    kept = expected > 0
    assert kept.sum() == 6 and counts[~kept].sum() == 0 and len(seconds) > 600
    chi_squared = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert chi_squared < 20.52  # 99.9 % of 5 degrees of freedom


def test_extreme_draws_and_temperatures():
    logits = torch.tensor([[0.0, 5.0, 4.999, -math.inf]]).expand(3, -1)
    draws = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert choose(logits, Sampling(1e-300), draws=draws).tolist() == [1, 1, 1]
    assert choose(logits, Sampling(1e30), draws=draws).tolist() == [0, 1, 2]
    assert choose(logits, Sampling(1.0, top_p=1e-9), draws=draws).tolist() == [1, 1, 1]


def test_log_probability_is_the_models_own():
    logits = torch.randn(3, 9)
    ids = torch.tensor([0, 4, 8])
    expected = logits.log_softmax(-1)[torch.arange(3), ids]
    assert log_probabilities(logits, ids) == pytest.approx(expected.tolist())
    rounded = logits.bfloat16().float()
    assert log_probabilities(logits.bfloat16(), ids) == log_probabilities(rounded, ids)


@pytest.mark.parametrize(
    "values, named",
    [
        ({"temperature": -0.5}, "temperature -0.5"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": float("inf")}, "temperature inf"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_k": -3}, "top_k -3"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"top_p": 1.2}, "top_p 1.2"),
        ({"min_p": -0.1}, "min_p -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty 0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty inf"),
        ({"presence_penalty": 2.5}, "presence_penalty 2.5"),
        ({"presence_penalty": math.nan}, "presence_penalty nan"),
        ({"bias": {3: math.nan}}, "bias nan of token 3"),
        ({"bias": {3: "x"}}, "bias 'x' of token 3"),
    ],
)
def test_sampling_refuses(values, named):
    with pytest.raises(InputError, match=named):
        Sampling(**values)


# generation ------------------------------------------------------------------------------------


def test_greedy_equals_uncached(name):
    for text, prompt in zip(write(name, PROMPTS, max_new_tokens=12), PROMPTS, strict=True):
        new: list[int] = []
        for token, log_probability in zip(text.ids, text.log_probabilities, strict=True):
            logits = next_logits(name, prompt, new)
            assert token == logits.argmax()
            assert log_probability == pytest.approx(logits.log_softmax(-1)[token].item(), abs=1e-4)
            new.append(token)
        assert text.finish == ("stop" if new[-1] == 1 else "length")
        assert 1 not in new[:-1] and (text.finish == "stop" or len(new) == 12)


def test_batch_does_not_change_a_text(name):
    """Sampled texts are equal alone, in a batch, and in a batch of other neighbours and order."""
    asked = {"max_new_tokens": 20, "sampling": WARM, "seed": 5}
    together = write(name, PROMPTS, **asked)
    alone = [write(name, [prompt], **asked)[0] for prompt in PROMPTS]
    reverse = write(name, PROMPTS[3::-1], **asked)[::-1]
    assert [t.ids for t in together[:4]] == [t.ids for t in alone[:4]] == [t.ids for t in reverse]
    assert together[1].ids != together[4].ids  # a second copy of a prompt is another sample
    assert together[0].ids == write(name, PROMPTS, **asked)[0].ids
    assert together[0].ids != write(name, PROMPTS, **(asked | {"seed": 6}))[0].ids


def counted(monkeypatch) -> list[int]:
    """Fills with the tokens of each pass."""
    counts: list[int] = []
    read = Reader.read

    def reading(reader, cache, unread, **how):
        counts.append(sum(map(len, unread)))
        return read(reader, cache, unread, **how)

    monkeypatch.setattr(Reader, "read", reading)
    return counts


def test_equal_prompts_are_read_once(name, monkeypatch):
    """Four samples of a prompt cost one reading of it, and are the texts that they would be."""
    apart = write(name, [*PROMPTS, *[PROMPTS[0]] * 3], max_new_tokens=5, sampling=WARM, eos_ids=())
    counts = counted(monkeypatch)
    copies = write(name, [PROMPTS[0]] * 4, max_new_tokens=5, sampling=WARM, eos_ids=())
    assert counts == [1 if name == "both" else len(PROMPTS[0]), 4, 4, 4, 4]
    assert [t.ids for t in copies] == [apart[i].ids for i in (0, 5, 6, 7)]
    assert len({tuple(t.ids) for t in copies}) == 4


class Oracle:
    """Guesses what will come, and now and then wrongly."""

    def __init__(self, texts: list[list[int]], wrong: int) -> None:
        self.texts, self.wrong = texts, wrong

    def guess(self, window, count):
        for text in self.texts:
            if list(window) == text[: len(window)]:
                found = text[len(window) : len(window) + count]
                return [
                    (t + 1) % 41 if (len(window) + i) % self.wrong == 0 else t
                    for i, t in enumerate(found)
                ]
        return [7] * count


@pytest.mark.parametrize("sampling", [Sampling(), WARM, Sampling(1.0, repetition_penalty=1.3)])
def test_speculation_changes_no_text(name, sampling):
    asked = {"max_new_tokens": 25, "sampling": sampling, "seed": 3}
    if name == "recurrent":
        with pytest.raises(InputError, match="recurrent"):
            write(name, PROMPTS, draft=PromptLookup(), **asked)
        return
    plain = write(name, PROMPTS, **asked)
    starts = [[0]] * 5 if name == "both" else PROMPTS
    known = [[*start, *text.ids] for start, text in zip(starts, plain)]
    small = build(DECODER.replace(decoder_layers=1), seed=3)
    drafts = [PromptLookup(), Oracle(known, 10**6), Oracle(known, 3), DraftNetwork(small)]
    for draft in [*drafts, DraftNetwork(NETWORKS["decoder"])]:
        found = write(name, PROMPTS, draft=draft, **asked)
        assert [(t.ids, t.finish) for t in found] == [(t.ids, t.finish) for t in plain]
        for one, other in zip(found, plain):
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


def test_a_right_guess_saves_passes(monkeypatch):
    plain = write("decoder", [[5, 6, 7]], max_new_tokens=26, eos_ids=())[0]
    counts = counted(monkeypatch)
    oracle = Oracle([[5, 6, 7, *plain.ids]], 10**6)
    assert write("decoder", [[5, 6, 7]], max_new_tokens=26, eos_ids=(), draft=oracle)[0] == plain
    assert counts == [3, 9, 9, 7]


def test_speculation_over_the_edge_of_the_context():
    asked = {"max_new_tokens": 100, "eos_ids": (), "overflow": "slide"}
    plain = write("decoder", [PROMPTS[0]], **asked)[0]
    found = write("decoder", [PROMPTS[0]], draft=PromptLookup(), **asked)[0]
    assert (found.ids, found.dropped) == (plain.ids, plain.dropped)


def test_a_draft_of_another_vocabulary_is_refused():
    other = DraftNetwork(build(DECODER.replace(vocab_size=40), seed=0))
    with pytest.raises(InputError, match="40 tokens and the model has 41"):
        write("decoder", PROMPTS, draft=other)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neighbours_change_no_text_of_a_large_vocabulary(temperature: float):
    """80 prompts of 5 to 40 tokens together, which are read by other kernels than one alone."""
    net = build(DECODER.replace(vocab_size=32_000, d_model=64, n_heads=4, init_std=0.1), seed=3)
    draws = torch.Generator().manual_seed(2)
    prompts = [torch.randint(2, 32_000, (5 + i % 36,), generator=draws).tolist() for i in range(80)]
    how = {"max_new_tokens": 8, "sampling": Sampling(temperature=temperature), "seed": 1}
    together = generate(net, prompts, **how)
    alone = [generate(net, [prompt], **how)[0] for prompt in prompts]
    assert [text.ids for text in together] == [text.ids for text in alone]


def test_finished_texts_leave_the_batch(name):
    every = write(name, PROMPTS, max_new_tokens=20, sampling=WARM, eos_ids=(), seed=2)
    assert [t.finish for t in every] == ["length"] * 5
    some = write(name, PROMPTS, max_new_tokens=20, sampling=WARM, eos_ids=range(1, 12), seed=2)
    assert len({len(t.ids) for t in some}) > 1 and "stop" in {t.finish for t in some}
    for short, long in zip(some, every, strict=True):
        assert short.ids == long.ids[: len(short.ids)]


def test_finished_texts_take_no_rows(name, monkeypatch):
    """What is read at each step are the texts that still grow, and nothing else."""
    rows, read = [], Reader.read
    monkeypatch.setattr(
        Reader,
        "read",
        lambda self, cache, ids, **k: rows.append(len(ids)) or read(self, cache, ids, **k),
    )
    found = write(name, PROMPTS, max_new_tokens=20, sampling=WARM, eos_ids=range(1, 12), seed=2)
    lengths = [len(text.ids) for text in found]
    assert rows[1:] == [sum(n > step for n in lengths) for step in range(1, max(lengths))]


def test_the_longest_source_may_end_first():
    """The keys of those that stay are cut to their length, and lie in one piece."""
    sources = [[2 + i % 37 for i in range(38)], [7, 8, 9], [3] * 10]
    asked = {"max_new_tokens": 12, "eos_ids": ()}
    alone = [write("both", [source], **asked)[0].ids for source in sources]
    stopped = lambda index, ids: index == 0 and len(ids) == 2  # noqa: E731
    found = write("both", sources, stopped=stopped, **asked)
    assert [len(text.ids) for text in found] == [2, 12, 12]
    assert [text.ids for text in found[1:]] == alone[1:]


def test_another_default_type_changes_nothing():
    plain = write("decoder", PROMPTS, max_new_tokens=6)
    torch.set_default_dtype(torch.float64)
    try:
        assert [t.ids for t in write("decoder", PROMPTS, max_new_tokens=6)] == [
            t.ids for t in plain
        ]
    finally:
        torch.set_default_dtype(torch.float32)


def test_nothing_may_follow_is_said():
    nothing = Sampling(1.0, bias=dict.fromkeys(range(41), -math.inf))
    with pytest.raises(InputError, match="no token may follow"):
        write("decoder", PROMPTS, max_new_tokens=6, sampling=nothing)


def test_runs_to_the_edge(name):
    texts = write(name, PROMPTS[:3], eos_ids=())
    rooms = [47, 47, 47] if name == "both" else [41, 47, 46]
    assert [(len(t.ids), t.finish) for t in texts] == [(room, "length") for room in rooms]


def test_stream_equals_generate(name):
    network, prompt = NETWORKS[name], PROMPTS[0]
    asked = {"max_new_tokens": 15, "sampling": WARM, "seed": 4}
    if name == "both":
        pieces = stream(network, None, source=prompt, **asked)
    else:
        pieces = stream(network, prompt, **asked)
    seen = []
    while True:
        try:
            seen.append(next(pieces))
        except StopIteration as end:
            assert end.value == write(name, [prompt], **asked)[0] and end.value.ids == seen
            break


def test_stream_closes_early_and_checks_at_once():
    network = build(DECODER, seed=3).train()
    pieces = stream(network, [4, 5], max_new_tokens=20, eos_ids=())
    first = [next(pieces), next(pieces)]
    pieces.close()
    assert network.training
    assert first == write("decoder", [[4, 5]], max_new_tokens=2, eos_ids=())[0].ids
    with pytest.raises(InputError, match="99"):
        stream(network, [99])


def test_on_token_and_stopped():
    told: list[tuple[int, int]] = []
    texts = write(
        "decoder",
        PROMPTS,
        max_new_tokens=9,
        eos_ids=(),
        on_token=lambda index, token: told.append((index, token)),
        stopped=lambda index, ids: len(ids) == index + 1,
    )
    assert [(len(t.ids), t.finish) for t in texts] == [(n, "stop") for n in (1, 2, 3, 4, 5)]
    for index, text in enumerate(texts):
        assert [token for i, token in told if i == index] == text.ids


def test_rules():
    free = write("decoder", [[4, 5]], max_new_tokens=6, eos_ids=())[0]
    rules = TokenRules(never=(free.ids[0],), first=33, last=1)
    text = write("decoder", [[4, 5]], max_new_tokens=6, eos_ids=(), rules=rules)[0]
    assert text.ids[0] == 33 and text.ids[-1] == 1 and free.ids[0] not in text.ids[1:]
    assert text.log_probabilities[0] == pytest.approx(
        next_logits("decoder", [4, 5], []).log_softmax(-1)[33].item(), abs=1e-4
    )


def test_slide_drops_the_oldest_tokens():
    """Beyond the edge a text is what fresh reading of its kept half gives."""
    long = [2 + i % 37 for i in range(60)]
    asked = {"max_new_tokens": 100, "eos_ids": (), "overflow": "slide"}
    prompts = [PROMPTS[0], [0, *long], long[:20]]
    texts = write("decoder", prompts, **asked)
    alone = [write("decoder", [prompt], **asked)[0] for prompt in prompts]
    assert [text.ids for text in texts] == [text.ids for text in alone]
    for prompt, text in zip(prompts, texts, strict=True):
        window, dropped = list(prompt), 0
        for n, token in enumerate(text.ids):
            if len(window) >= 48:
                kept = [0, *window[-23:]] if prompt[0] == 0 else window[-24:]
                dropped += len(window) - len(kept)
                window = kept
            assert token == next_logits("decoder", window, []).argmax(), n
            window.append(token)
        assert text.dropped == dropped > 0 and text.finish == "length" and len(text.ids) == 100
    short = write("decoder", [PROMPTS[0]], max_new_tokens=41, eos_ids=())[0]
    assert short.ids == texts[0].ids[:41] and short.dropped == 0


# bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, texts, asked, parts",
    [
        ("decoder", [[4] * 40], {"max_new_tokens": 9}, ["40", "9", "48", "at most 8"]),
        ("both", [[4]], {"max_new_tokens": 48}, ["48", "at most 47"]),
        ("decoder", [[4] * 48], {}, ["48", "no room"]),
        ("decoder", [[4], [4] * 50], {}, ["prompt 2", "50", "48", "no room"]),
        ("both", [[4], [4] * 50], {}, ["source 2", "50", "48"]),
        ("decoder", [[4]], {"max_new_tokens": 0}, ["max_new_tokens 0", "1 or more"]),
        ("decoder", [[4]], {"max_new_tokens": -2}, ["max_new_tokens -2", "1 or more"]),
        ("decoder", [[]], {}, ["the prompt is empty"]),
        ("decoder", [[4], []], {}, ["prompt 2 is empty"]),
        ("both", [[]], {}, ["the source is empty"]),
        ("decoder", [], {}, ["list is empty"]),
        ("decoder", [[4, 41]], {}, ["token id 41", "vocabulary of 41"]),
        ("decoder", [[-1]], {}, ["token id -1"]),
        ("both", [[400]], {}, ["token id 400"]),
        ("decoder", [[4]], {"overflow": "slide"}, ["slide", "state max_new_tokens"]),
        ("both", [[4]], {"overflow": "slide", "max_new_tokens": 5}, ["slide", "decoders"]),
        ("decoder", [[4]], {"overflow": "keep-end"}, ["keep-end"]),
        ("decoder", [[4]], {"sources": [[4]]}, ["no sources"]),
        ("decoder", [[4]], {"sampling": Sampling(bias={41: 1.0})}, ["id 41", "vocabulary of 41"]),
        ("both", [[4]], {"sampling": Sampling(bias={-1: 1.0})}, ["id -1"]),
    ],
)
def test_bad_input(name, texts, asked, parts):
    with pytest.raises(InputError) as caught:
        write(name, texts, **asked)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_encoder_does_not_generate():
    encoder = build(DECODER.replace(encoder_layers=1, decoder_layers=0), seed=0)
    with pytest.raises(InputError, match="encoder does not generate"):
        generate(encoder, [[4]])
    with pytest.raises(InputError, match="needs a source"):
        generate(NETWORKS["both"], [[4]])


@pytest.mark.parametrize("vocab_size, sizes", [(1_000, [64]), (500_000, [33, 31])])
def test_a_step_of_a_large_vocabulary_has_a_bound(vocab_size: int, sizes: list[int], monkeypatch):
    """Of half a million logits a row, 2^24 numbers are 33 rows."""
    monkeypatch.setattr("tercet.generate.prompts.LOGITS", 1 << 24)
    texts = [Text(i, b"", [1, 2], 3) for i in range(64)]
    assert [len(together) for together in groups(texts, vocab_size)] == sizes


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_network_of_nan_says_so(temperature: float) -> None:
    network = build(DECODER, seed=3).eval()
    with torch.no_grad():
        network.tokens.weight[7] = math.nan
    with pytest.raises(InputError, match="NaN"):
        generate(network, [[7, 8]], max_new_tokens=2, sampling=Sampling(temperature))


def test_a_bias_that_is_no_dict_says_so() -> None:
    with pytest.raises(InputError, match="dict"):
        Sampling(bias=None)  # type: ignore[arg-type]


def test_inference_mode_may_come_and_go():
    """What is kept between calls is made in no mode of the caller's."""
    network = build(DECODER, seed=3).eval()
    with torch.inference_mode():
        first = generate(network, [[5, 6, 7]], max_new_tokens=4)[0].ids
    assert generate(network, [[5, 6, 7]], max_new_tokens=4)[0].ids == first

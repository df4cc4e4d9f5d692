"""Laws for every family: a sequence alone, among others, padded, cached or cut gives the same.

Each network is small, random in every parameter, and of one kind of positions, norms and windows.
"""

from __future__ import annotations

import itertools
from typing import Any

import oracles
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tercet.config import RopeScaling, TransformerConfig
from tercet.errors import InputError
from tercet.kernels.linear import ONEDNN
from tercet.model import Layout, build
from tercet.model.layout import batches, flatten, heard

VOCABULARY, WINDOW = 61, 4
BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "context_length": 211,
    "d_model": 20,
    "d_ff": 31,
    "n_heads": 2,
}
ROTARY = {
    "positions": "rotary",
    "norm": "rms",
    "gated": True,
    "activation": "silu",
    "qk_norm": True,
}
GROUPED = {"n_heads": 4, "n_kv_heads": 2, "d_head": 6, "qkv_bias": False, "attention_bias": False}
POST = {"norm_order": "post", "final_norm": False, "activation": "gelu"}
RELATIVE = {
    "positions": "relative",
    "norm": "rms",
    "relative_buckets": 8,
    "relative_max_distance": 23,
}
ENCODER = {"encoder_layers": 3, "heads": ("masked",)}
DECODER = {"decoder_layers": 3}
BOTH = {"encoder_layers": 2, "decoder_layers": 2}
LSTM = {"mixer": "lstm", "positions": "none"}

NETWORKS: dict[str, dict[str, Any]] = {
    "encoder-learned": ENCODER | POST | {"embedding_norm": True, "token_types": 2},
    "encoder-rotary": ENCODER | ROTARY | GROUPED,
    "encoder-window": ENCODER
    | ROTARY
    | {"window": WINDOW, "local_layers": (0, 1, 2), "rope_theta_local": 100.0, "first_norm": False},
    "encoder-pattern": ENCODER | ROTARY | {"window": WINDOW, "local_layers": (0, 2)},
    "encoder-relative": ENCODER | RELATIVE | {"attention_scale": 1.0},
    "decoder-learned": DECODER,
    "decoder-post": DECODER | POST,
    "decoder-rotary": DECODER | ROTARY | GROUPED,
    "decoder-window": DECODER | ROTARY | GROUPED | {"window": WINDOW, "local_layers": (0, 1, 2)},
    "decoder-banded": DECODER | {"window": WINDOW, "local_layers": (1,)},
    "decoder-sinusoidal": DECODER | {"positions": "sinusoidal", "embedding_scale": True},
    "decoder-relative": DECODER | RELATIVE,
    "decoder-yarn": DECODER
    | ROTARY
    | {"rope_scaling": RopeScaling(kind="yarn", factor=4.0, original_context=30)},
    "decoder-lstm": DECODER | LSTM,
    "both-learned": BOTH | POST | {"position_offset": 2, "embedding_norm": True},
    "both-sinusoidal": BOTH | POST | {"positions": "sinusoidal", "embedding_scale": True},
    "both-relative": BOTH | RELATIVE | {"output_scale": True},
    "both-rotary": BOTH | ROTARY | GROUPED,
    "both-lstm": BOTH | LSTM,
}
DECODERS = [name for name in NETWORKS if not name.startswith("encoder")]
ENCODERS = [name for name in NETWORKS if not name.startswith("decoder") and "lstm" not in name]
LOCAL = ["encoder-window", "decoder-window"]  # every layer has the window
REACH = 3 * (WINDOW - 1)  # tokens that three local layers carry


pytestmark = pytest.mark.usefixtures("one_thread")


def network(name: str, dtype: torch.dtype = torch.float64) -> Any:
    net = build(TransformerConfig(**(BASE | NETWORKS[name])), seed=0)
    oracles.randomise(net, seed=len(name))
    return net.eval().to(dtype)


def draw(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def states(net: Any, rows: list[list[int]], sources: list[list[int]] | None = None) -> Tensor:
    """(N, D) of the family's last stack."""
    keywords: dict[str, Any] = {}
    if net.config.family == "encoder-decoder":
        assert sources is not None
        keywords["source"], keywords["source_layout"] = flatten(sources)
    return net.states(*flatten(rows), **keywords)


def cached(net: Any, sources: list[list[int]], n_sequences: int) -> Any:
    """A cache for ``n_sequences``, with the memory of ``sources`` where there is an encoder."""
    if net.config.family != "encoder-decoder":
        return net.new_cache(n_sequences)
    tokens, layout = flatten(sources)
    return net.new_cache(n_sequences, memory=net.encode(tokens, layout), memory_layout=layout)


def feed(net: Any, cache: Any, rows: list[list[int]]) -> list[Tensor]:
    """The next tokens of every sequence -> the states of each sequence's new tokens."""
    tokens, _ = flatten(rows)
    layout = Layout([len(row) for row in rows], past=cache.lengths)
    before = cache.lengths
    out = net.decode(tokens, layout, cache=cache)
    assert cache.lengths == tuple(b + len(row) for b, row in zip(before, rows, strict=True))
    return layout.split(out)


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


# a batch of many is a batch of one ---------------------------------------------------------------


def _forty() -> list[int]:
    generator = torch.Generator().manual_seed(7)
    middle = torch.randint(1, 201, (36,), generator=generator).tolist()
    return [200, 1, *middle, 1, 2]


@torch.inference_mode()
@pytest.mark.parametrize("name", NETWORKS)
def test_ragged_batch_equals_each_alone(name: str) -> None:
    net = network(name, torch.float32)
    rows, sources = draw(_forty()), draw(_forty()[::-1], seed=1)
    together = states(net, rows, sources).split([len(row) for row in rows])
    for row, source, ours in zip(rows, sources, together, strict=True):
        close(ours, states(net, [row], [source]), 1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", oracles.FIRST)
def test_ragged_batch_equals_padded_reference(name: str) -> None:
    theirs, ours = oracles.pair(name)
    inputs = oracles.batch(oracles.ORACLES[name], _forty())
    tokens, layout, keywords = oracles.flat(inputs)
    output = oracles.ask_theirs(theirs, inputs)
    hidden = ours.states(tokens, layout, **keywords)
    close(hidden, oracles.unpad(oracles.their_states(output), inputs.ids), 1e-5)
    close(ours(tokens, layout, **keywords), oracles.unpad(output.logits, inputs.ids), 1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_a_ragged_batch_are_the_sums_of_each_alone(name: str) -> None:
    net = network(name)
    rows, sources = draw([3, 1, 12, 3, 7]), draw([5, 2, 1, 9, 5], seed=1)

    def gradients(pairs: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        net.zero_grad()
        for some, their_sources in pairs:
            out = states(net, some, their_sources)  # type: ignore[arg-type]
            (out * out.detach().roll(1, dims=-1)).sum().backward()
        return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}

    together = gradients([(rows, sources)])  # type: ignore[list-item]
    alone = gradients([([r], [s]) for r, s in zip(rows, sources, strict=True)])  # type: ignore[list-item]
    assert together.keys() == alone.keys() and len(together) > 5
    for parameter, gradient in together.items():
        close(gradient, alone[parameter], 1e-9 * (1 + float(gradient.abs().max())))


@pytest.mark.parametrize("name", NETWORKS)
def test_fillers_that_make_a_stream_round_change_nothing(name: str, monkeypatch) -> None:
    net = network(name, torch.float32)
    rows, sources = draw([3, 1, 25, 3, 9]), draw([5, 2, 1, 9, 25], seed=1)  # 41 and 42 tokens

    def passed() -> tuple[Tensor, Tensor]:
        net.zero_grad()
        out = states(net, rows, sources)
        (out * out.detach().roll(1, dims=-1)).sum().backward()
        found = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        return out.detach(), torch.cat(found)

    filled, lengths = passed(), []
    layouts = Layout.filled
    monkeypatch.setattr(Layout, "filled", lambda *a: lengths.append(a[1]) or layouts(*a))
    again = passed()
    assert all(torch.equal(x, y) for x, y in zip(again, filled)) and set(lengths) <= {6, 7}
    assert bool(lengths) == (ONEDNN and "lstm" not in name)
    monkeypatch.setattr("tercet.model.transformer.filler", lambda *_: 0)
    for ours, plain in zip(filled, passed()):
        close(ours, plain, 1e-5 * (1 + float(plain.abs().max())))


# causality, reach, documents ---------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("length", [9, 33])
@pytest.mark.parametrize("name", DECODERS)
def test_a_token_changes_no_earlier_state(name: str, length: int) -> None:
    net = network(name, torch.float32)
    (row,), sources = draw([length]), draw([6], seed=1)
    before = states(net, [row], sources)
    for t in range(0, length, 1 if length < 10 else 8):
        changed = row.copy()
        changed[t] = (changed[t] + 1) % VOCABULARY
        after = states(net, [changed], sources)
        assert torch.equal(after[:t], before[:t]), f"token {t} changed the past"
        assert not torch.equal(after[t], before[t])


@torch.inference_mode()
@pytest.mark.parametrize("name", DECODERS)
def test_a_token_changes_no_earlier_state_in_a_ragged_batch(name: str) -> None:
    net = network(name, torch.float32)
    rows, sources = draw([5, 17, 8]), draw([6, 3, 9], seed=1)
    changed = [row.copy() for row in rows]
    changed[1][11] = (changed[1][11] + 1) % VOCABULARY
    before, after = (states(net, some, sources) for some in (rows, changed))
    same = (before == after).all(dim=-1)
    assert same[: 5 + 11].all() and same[5 + 17 :].all()
    assert not same[5 + 11]


@pytest.mark.parametrize("name", DECODERS)
def test_no_gradient_flows_from_before_to_after(name: str) -> None:
    """Each position reads its own row of the token table, so a row's gradient is its position's."""
    net = network(name)
    row, sources, cut = list(range(20)), draw([6], seed=1), 11
    sources = [[token % 20 + 40 for token in source] for source in sources]
    states(net, [row], sources)[:cut].square().sum().backward()
    gradient = net.tokens.weight.grad
    assert not gradient[cut:20].any()
    assert gradient[:cut].any(dim=-1).all()


@torch.inference_mode()
@pytest.mark.parametrize("name", ENCODERS)
def test_a_token_changes_every_encoder_state_within_reach(name: str) -> None:
    net = network(name)
    (row,), length, t = draw([29]), 29, 13
    changed = row.copy()
    changed[t] = (changed[t] + 1) % VOCABULARY
    before, after = (net.encode(*flatten([some])) for some in (row, changed))
    distance = (torch.arange(length) - t).abs()
    within = distance <= REACH if name in LOCAL else torch.ones(length, dtype=torch.bool)
    assert torch.equal((before != after).any(dim=-1), within)


@torch.inference_mode()
def test_a_decoder_window_reaches_its_length_and_no_further() -> None:
    net = network("decoder-window")
    (row,), t = draw([29]), 13
    changed = row.copy()
    changed[t] = (changed[t] + 1) % VOCABULARY
    before, after = (states(net, [some]) for some in (row, changed))
    ahead = torch.arange(29) - t
    assert torch.equal((before != after).any(dim=-1), (ahead >= 0) & (ahead <= REACH))


@torch.inference_mode()
@pytest.mark.parametrize("name", NETWORKS)
def test_a_document_does_not_see_its_neighbour(name: str) -> None:
    net = network(name, torch.float32)
    rows, sources = draw([7, 12]), draw([8, 5], seed=1)
    before = states(net, rows, sources)
    other = draw([7], seed=5)
    after = states(net, [other[0], rows[1]], [other[0][:1] * 8, sources[1]])
    assert torch.equal(before[7:], after[7:])
    assert not (before[:7] == after[:7]).all(dim=-1).any()
    close(before[7:], states(net, rows[1:], sources[1:]), 1e-5)


# the cache ---------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("name", DECODERS)
def test_cached_equals_uncached_wherever_the_prefill_is_cut(name: str) -> None:
    net = network(name)
    (row,), sources = draw([14]), draw([6], seed=1)
    whole = states(net, [row], sources)
    for cut in range(1, len(row)):
        cache = cached(net, sources, 1)
        head = feed(net, cache, [row[:cut]])[0]
        tail = feed(net, cache, [row[cut:]])[0]
        close(torch.cat([head, tail]), whole, 1e-9)
    cache = cached(net, sources, 1)
    close(torch.cat([feed(net, cache, [[token]])[0] for token in row]), whole, 1e-9)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DECODERS)
def test_ragged_steps_equal_uncached(name: str, dtype: torch.dtype) -> None:
    net = network(name, dtype)
    plan = [(3, 9, 1), (1, 1, 1), (2, 1, 4), (5, 1, 1), (1, 7, 2)]  # new tokens of each sequence
    rows = draw([sum(step[i] for step in plan) for i in range(3)])
    sources = draw([4, 11, 2], seed=1)
    cache, at, got = cached(net, sources, 3), [0, 0, 0], [[], [], []]
    for step in plan:
        new = [row[a : a + n] for row, a, n in zip(rows, at, step, strict=True)]
        for i, piece in enumerate(feed(net, cache, new)):
            got[i].append(piece)
            at[i] += step[i]
    whole = states(net, rows, sources).split([len(row) for row in rows])
    for pieces, expected in zip(got, whole, strict=True):
        close(torch.cat(pieces), expected, 1e-9 if dtype is torch.float64 else 1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("dtype, near", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", DECODERS)
def test_reordered_cache_equals_uncached(name: str, dtype: torch.dtype, near: float) -> None:
    net = network(name, dtype)
    rows, sources = draw([4, 9, 6]), draw([7, 3, 5], seed=1)
    cache = cached(net, sources, 3)
    feed(net, cache, rows)
    choices = ([2, 0, 0, 1], [3, 1], [1], [0, 0], [0, 1, 1])
    for choice in choices:  # beams repeat, finished ones are dropped
        cache.reorder(torch.tensor(choice))
        rows, sources = [rows[i] for i in choice], [sources[i] for i in choice]
        assert cache.lengths == tuple(map(len, rows))
        new = draw([1 + i % 2 for i in range(len(rows))], seed=len(choice))
        rows = [row + more for row, more in zip(rows, new, strict=True)]
        whole = states(net, rows, sources).split([len(row) for row in rows])
        for got, more, expected in zip(feed(net, cache, new), new, whole, strict=True):
            close(got, expected[-len(more) :], near)


@torch.inference_mode()
@pytest.mark.parametrize("dtype, near", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_beams_share_the_keys_of_their_source(dtype: torch.dtype, near: float) -> None:
    """Nothing is copied while beams change places; a source that nobody answers goes."""
    name = next(
        n for n in DECODERS if network(n).config.family == "encoder-decoder" and "lstm" not in n
    )
    net = network(name, dtype)
    rows, sources = draw([2, 2, 2]), draw([7, 3, 5], seed=1)
    cache = cached(net, sources, 3)
    feed(net, cache, rows)
    keys = cache.cross[0][0]
    cache.reorder(torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]))
    cache.reorder(torch.tensor([2, 0, 1, 3, 3, 3, 8, 6, 7]))
    assert cache.cross[0][0] is keys and cache.owners == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    cache.reorder(torch.tensor([0, 1, 2, 6, 7, 8]))
    assert cache.memory_layout.lengths == (7, 5) and cache.owners == (0, 0, 0, 1, 1, 1)
    assert torch.equal(cache.cross[0][0], keys[[0, 2]])
    cache.reorder(torch.tensor([3, 4, 5]))  # the longest source goes: the rest in one piece
    assert all(x.is_contiguous() and x.shape[2] == 5 for pair in cache.cross for x in pair)
    cache = cached(net, sources, 3)
    feed(net, cache, draw([2, 2, 2]))
    cache.reorder(torch.tensor([0, 0, 0, 2, 2, 2]))
    rows = [rows[i] for i in (0, 0, 0, 2, 2, 2)]
    new = draw([1] * 6, seed=5)
    rows = [row + more for row, more in zip(rows, new, strict=True)]
    whole = states(net, rows, [sources[i] for i in (0, 0, 0, 2, 2, 2)]).split([3] * 6)
    for got, expected in zip(feed(net, cache, new), whole, strict=True):
        close(got, expected[-1:], near)


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name in DECODERS if "lstm" not in name])
def test_rewound_cache_equals_uncached(name: str) -> None:
    net = network(name)
    rows, sources = draw([12, 5, 19]), draw([7, 3, 5], seed=1)
    cache = cached(net, sources, 3)
    for i, _ in enumerate(rows[1]):  # in steps, so that there is something to rewind to
        feed(net, cache, [row[i : i + 1] for row in rows])
    for back in ((3, 4, 5), (4, 0, 1)):
        cache.rewind(back)
        assert cache.lengths == back
        new = draw([2, 1, 3], seed=sum(back))
        rows = [row[:n] + more for row, n, more in zip(rows, back, new, strict=True)]
        whole = states(net, rows, sources).split([len(row) for row in rows])
        for got, more, expected in zip(feed(net, cache, new), new, whole, strict=True):
            close(got, expected[-len(more) :], 1e-9)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["decoder-lstm", "both-lstm"])
def test_a_recurrent_state_says_that_it_cannot_go_back(name: str) -> None:
    net = network(name)
    cache = cached(net, draw([4]), 1)
    feed(net, cache, draw([5]))
    cache.rewind((5,))
    with pytest.raises(InputError, match="cannot go back"):
        cache.rewind((3,))


@torch.inference_mode()
@pytest.mark.parametrize("name", DECODERS)
def test_loss_of_one_pass_equals_that_of_cached_steps(name: str) -> None:
    net = network(name, torch.float32)
    (row,), sources = draw([50]), draw([12], seed=1)
    logits = net.logits(states(net, [row[:-1]], sources))
    cache = cached(net, sources, 1)
    steps = [
        F.cross_entropy(net.logits(feed(net, cache, [[read]])[0]), torch.tensor([target]))
        for read, target in itertools.pairwise(row)
    ]
    close(torch.stack(steps).mean(), F.cross_entropy(logits, torch.tensor(row[1:])), 1e-5)


# rows and layouts --------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("name", NETWORKS)
def test_selected_rows_are_rows_of_all_logits(name: str) -> None:
    net = network(name)
    rows, sources = draw([5, 9, 2]), draw([4, 3, 8], seed=1)
    keywords: dict[str, Any] = {}
    if net.config.family == "encoder-decoder":
        keywords["source"], keywords["source_layout"] = flatten(sources)
    tokens, layout = flatten(rows)
    everything = net(tokens, layout, **keywords)
    assert everything.shape == (16, VOCABULARY)
    close(net(tokens, layout, **keywords, select=layout.last), everything[layout.last], 1e-12)
    close(net.logits(states(net, rows, sources)), everything, 1e-12)


@torch.inference_mode()
def test_token_types_are_read() -> None:
    net = network("encoder-learned")
    tokens, layout = flatten(draw([5, 3]))
    zeros = torch.zeros(8, dtype=torch.long)
    assert torch.equal(net.encode(tokens, layout), net.encode(tokens, layout, types=zeros))
    assert not torch.equal(net.encode(tokens, layout), net.encode(tokens, layout, types=1 - zeros))


@given(st.lists(st.integers(1, 90)), st.integers(1, 200))
def test_batches_hold_every_text_once_and_say_how_far_they_are(lengths: list[int], budget: int):
    told: list[tuple[int, int]] = []
    with heard(lambda done, total: told.append((done, total))):
        found = list(batches(lengths, budget))
    assert found == list(batches(lengths, budget))  # the same where nobody hears
    assert sorted(i for rows in found for i in rows) == list(range(len(lengths)))
    sizes = [sum(lengths[i] for i in rows) for rows in found]
    assert all(size <= budget or len(rows) == 1 for size, rows in zip(sizes, found))
    assert told == [(done, sum(lengths)) for done in (0, *itertools.accumulate(sizes))]

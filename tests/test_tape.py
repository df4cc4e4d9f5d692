"""A few rows as a tape equal the network's own pass; packed weights are what they say."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.config import TransformerConfig
from tercet.generate import generate
from tercet.kernels import library
from tercet.kernels.packed import pack, product
from tercet.kernels.tape import ACTIVATIONS, Rows, Tape
from tercet.model import build, flatten
from tercet.model.borrowed import borrowed, tape_of
from tercet.model.layers import Activation
from tercet.model.layout import Layout
from tercet.model.quantize import quantise
from tercet.model.tape import StackTape
from tercet.represent.encode import encode

pytestmark = pytest.mark.skipif(library("tape") is None, reason="no C compiler")

BASE = TransformerConfig(
    vocab_size=211, context_length=96, d_model=48, d_ff=100, n_heads=4, decoder_layers=3
).replace(init_std=0.2, dropout=0.1)
BARE = {"qkv_bias": False, "attention_bias": False, "ff_bias": False}
DECODERS = {
    "pre": BASE.replace(activation="gelu_tanh"),
    "typed": BASE.replace(position_offset=2, token_types=2).replace(
        embedding_norm=True, embedding_scale=True
    ),
    "post": BASE.replace(norm_order="post", final_norm=False, positions="sinusoidal"),
    "rotary": BASE.replace(
        positions="rotary", norm="rms", gated=True, activation="silu", n_kv_heads=2, d_head=22
    ).replace(**BARE, qk_norm=True),
    "windows": BASE.replace(positions="rotary", window=5, local_layers=(0, 2), activation="relu"),
    "relative": BASE.replace(positions="relative", norm="rms", attention_scale=1.0, **BARE),
    "both, relative": BASE.replace(
        positions="relative", norm="rms", encoder_layers=2, gated=True, start_id=0, **BARE
    ),
    "both, post": BASE.replace(
        norm_order="post", final_norm=False, encoder_layers=2, embedding_norm=True, start_id=0
    ).replace(output_bias=True, embedding_scale=True),
}
LENGTHS = [[4, 2, 1], [1, 1, 1], [3, 1, 2], *[[1, 1, 1]] * 12]


@torch.no_grad()
def furthest(network, *, kind: torch.dtype = torch.float32) -> float:
    """The largest relative difference of logits between tape and network, step by step."""
    network = network.to(kind).eval()
    tape = tape_of(network, network.decoder)
    assert tape is not None
    draw = torch.Generator().manual_seed(1)
    memory = {}
    if network.encoder is not None:
        tokens, layout = flatten([[3, 4, 5, 6], [7], [8, 9, 10, 11, 12, 13]])
        memory = {"memory": network.encode(tokens, layout), "memory_layout": layout}
    caches = [network.new_cache(3, **memory) for _ in range(2)]
    worst = 0.0
    for lengths in LENGTHS:
        layout = Layout(lengths, past=caches[0].lengths)
        tokens = torch.randint(211, (sum(lengths),), generator=draw)
        wanted = network.logits(network.decode(tokens, layout, cache=caches[0])[layout.last])
        found = tape.logits(tape.decode(tokens, layout, caches[1])[layout.last])
        assert caches[0].lengths == caches[1].lengths
        worst = max(worst, float((found - wanted.float()).norm() / wanted.float().norm()))
    return worst


@pytest.mark.parametrize("name", DECODERS)
def test_a_tape_equals_the_network(name):
    assert furthest(build(DECODERS[name], seed=2)) < 3e-6


@pytest.mark.parametrize("name", DECODERS)
def test_in_bfloat16_it_is_as_near_as_the_network_is(name):
    network = build(DECODERS[name], seed=2)
    for parameter in network.parameters():  # so that rounding the weights is no difference
        parameter.data = parameter.data.bfloat16().float()
    assert furthest(network, kind=torch.bfloat16) < 0.05


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["pre", "post", "windows"])
def test_states_and_logits_in_one_go_are_those_of_two(name, kind):
    network = build(DECODERS[name], seed=2).to(kind).eval()
    tape = tape_of(network, network.decoder)
    assert tape is not None and tape.through
    caches = [network.new_cache(2) for _ in range(2)]
    for step in range(4):
        tokens, layout = torch.tensor([step, 9]), Layout([1, 1], past=caches[0].lengths)
        one = tape.decode(tokens, layout, caches[0], logits=True).clone()
        two = tape.logits(tape.decode(tokens, layout, caches[1]))
        assert torch.equal(one, two) and caches[0].lengths == caches[1].lengths


ENCODERS = {
    name: config.replace(encoder_layers=3, decoder_layers=0, heads=("masked",), eos_ids=())
    for name, config in DECODERS.items()
    if not name.startswith("both")
}


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_too(name):
    network = build(ENCODERS[name], seed=2).eval()
    plain = tape_of(network, network.encoder)
    assert plain is not None and plain.gains
    packed = StackTape(network, network.encoder, packed=True)
    for texts in ([[5, 6, 7]], [[3, 4, 5, 6, 9, 9, 9, 1], [7], [8, 9, 10, 11, 12, 13, 2] * 2]):
        tokens, layout = flatten(texts)
        wanted = network.encode(tokens, layout)
        for tape in (plain, packed):
            found = tape.encode(tokens, layout)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
            assert torch.equal(tape.encode(tokens.int(), layout), found)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", DECODERS)
def test_packed_weights_run_as_a_tape_too(name, bits):
    network = build(DECODERS[name], seed=2)
    quantise(network, bits)
    assert furthest(network) < 0.05  # a number on the edge may be rounded the other way


def test_who_listens_to_a_layer_is_heard():
    """A hooked or wrapped layer runs as a module: the tape would pass it by."""
    for path in ("blocks.1.attention.layer.q", "blocks.0", "norm"):
        network = build(DECODERS["pre"], seed=2)
        network.decoder.get_submodule(path).register_forward_pre_hook(lambda module, given: None)
        assert tape_of(network, network.decoder) is None
    network = build(DECODERS["pre"], seed=2)
    network.tokens.register_forward_pre_hook(lambda module, given: None)
    assert tape_of(network, network.decoder) is None
    network = build(DECODERS["pre"], seed=2)
    layer = network.decoder.blocks[0].attention.layer
    layer.q = torch.nn.Sequential(layer.q)
    assert tape_of(network, network.decoder) is None


@torch.no_grad()
def test_neighbours_and_threads_change_no_bit():
    network = build(DECODERS["rotary"], seed=2).eval()
    tape, tokens = tape_of(network, network.decoder), torch.arange(9)
    assert tape is not None

    def states(rows: int, threads: int) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            cache = network.new_cache(rows)
            return tape.decode(tokens[:rows], Layout([1] * rows, past=cache.lengths), cache).clone()
        finally:
            torch.set_num_threads(before)

    whole = states(9, 1)
    for rows, threads in ((1, 1), (1, 2), (4, 2), (7, 1), (9, 2)):
        assert torch.equal(states(rows, threads), whole[:rows])


def test_a_tape_is_kept_while_nothing_changes():
    """What is trained, replaced, listened to or copied is written down anew, and a second loan."""
    network = build(DECODERS["pre"], seed=2).eval()
    stack = network.decoder

    def lent():
        with borrowed(network, stack) as tape:
            return tape

    first = lent()
    assert first is lent() is not None
    with borrowed(network, stack) as one, borrowed(network, stack) as other:
        assert one is first is not other
    tape = lent()
    changes = [
        lambda: network.tokens.weight.data.mul_(1),  # not counted, and in place: it may stay
        lambda: stack.norm.weight.mul_(2.0),
        lambda: setattr(stack.norm, "weight", torch.nn.Parameter(stack.norm.weight + 1)),
        lambda: setattr(
            stack.blocks[0], "feed_forward", copy.deepcopy(stack.blocks[1].feed_forward)
        ),
        lambda: network.to(torch.bfloat16),
    ]
    for number, change in enumerate(changes):
        with torch.no_grad():
            change()
        before, tape = tape, lent()
        assert (before is tape) == (number == 0)
    assert copy.deepcopy(network).decoder.__dict__["_kept_tape"] is None
    assert pickle.loads(pickle.dumps(network)).decoder.__dict__["_kept_tape"] is None
    for part in (network.tokens, stack.blocks[0]):
        hook = part.register_forward_hook(lambda *_: None)
        assert lent() is None
        hook.remove()
        assert lent() is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kept_tape_runs_what_the_parameters_are_now(dtype):
    network = build(DECODERS["rotary"], seed=2).to(dtype).eval()
    before = generate(network, [[5, 6, 7]], max_new_tokens=9)[0]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape).to(dtype)
    after, alone = (
        generate(n, [[5, 6, 7]], max_new_tokens=9)[0] for n in (network, copy.deepcopy(network))
    )
    assert after.log_probabilities == alone.log_probabilities != before.log_probabilities


@pytest.mark.parametrize("tokens", [5, 90])
def test_who_trains_trains_on_after_a_text_of_any_length(tokens):
    network = build(ENCODERS["pre"], seed=2).train()
    network.encoder.blocks[1].eval()
    before = [module.training for module in network.modules()]
    once = encode(network, [range(tokens)], "mean")
    assert [module.training for module in network.modules()] == before
    torch.testing.assert_close(encode(network.eval(), [range(tokens)], "mean"), once)


@torch.no_grad()
def test_an_encoders_packed_matrices_are_those_that_it_has_now():
    """Packed when lent again with nothing changed. Torch does not count what is done to
    ``weight.data``: a number of each panel is looked at, which sees what was done to a head's
    rows, not to one."""
    network = build(ENCODERS["post"], seed=2).eval()
    stack, (tokens, layout) = network.encoder, flatten([[3, 4, 5, 6], [7]])
    up = stack.blocks[1].feed_forward.layer.up.weight
    changes = [lambda: up.mul_(2), lambda: up.data.mul_(2), lambda: up.data[32:64].mul_(2)]
    for change in changes:
        for _ in range(2):
            with borrowed(network, stack) as tape:
                assert tape is not None
                before = tape.encode(tokens, layout).clone()
        assert tape.packed
        change()
        with borrowed(network, stack) as tape:
            assert tape is not None and not tape.packed
            found = tape.encode(tokens, layout)
        assert not torch.allclose(found, before)
        torch.testing.assert_close(found, network.encode(tokens, layout), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.lists(st.integers(1, 300), min_size=1, max_size=3), st.data())
def test_a_product_of_any_shape(rows, sizes, data):
    """Rows beyond what is read at once, outputs that no thread's stretches divide evenly."""
    kind = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    inputs, add = data.draw(st.integers(1, 130)), data.draw(st.booleans())
    gated = len(sizes) == 2 and data.draw(st.booleans())
    sizes = [sizes[0]] * 2 if gated else sizes
    draw = torch.Generator().manual_seed(rows)
    weights = [torch.randn(m, inputs, generator=draw).to(kind) for m in sizes]
    biases = [torch.randn(m, generator=draw) for m in sizes]
    tape = Tape({"x": inputs, "y": sizes[0] if gated else sum(sizes)})
    residual = "y" if add else None
    tape.product("x", "y", *zip(weights, biases), gated=gated, activation="silu", add=residual)
    buffers = {name: tape.buffer(name, rows) for name in "xy"}
    for buffer in buffers.values():
        buffer.normal_(generator=draw)
    x = buffers["x"].to(kind).double()
    parts = [x @ weight.double().t() + bias for weight, bias in zip(weights, biases)]
    silu = torch.nn.functional.silu
    wanted = silu(parts[0]) * parts[1] if gated else silu(torch.cat(parts, 1))
    wanted += buffers["y"] if add else 0
    tape.run(rows)
    torch.testing.assert_close(buffers["y"].double(), wanted, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 70), st.integers(1, 3), st.data())
def test_rows_of_tables_are_added(rows, width, n_tables, data):
    draw = torch.Generator().manual_seed(rows)
    counts = [data.draw(st.integers(1, 30)) for _ in range(n_tables)]
    kind = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    tables = [torch.randn(n, width, generator=draw).to(kind) for n in counts]
    index = {f"{i}": torch.randint(n, (rows,), generator=draw) for i, n in enumerate(counts)}
    tape = Tape({"x": width})
    tape.lookup("x", [(table, f"{i}") for i, table in enumerate(tables)], scale=3)
    told = {name: index[name] for name in index if name != "2"}  # nothing is said of the last
    tape.run(rows, Rows(torch.zeros(rows, dtype=torch.int64), {}, {}, told))
    wanted = 3 * tables[0][index["0"]].float()
    for i, table in enumerate(tables[1:], 1):
        wanted = wanted + table[index["1"] if i == 1 else [0] * rows].float()
    torch.testing.assert_close(tape.buffer("x", rows), wanted)
    for wrong in (-1, counts[0]):
        told["0"] = torch.full((rows,), wrong)
        with pytest.raises(IndexError, match="outside its table"):
            tape.run(rows, Rows(index["0"], {}, {}, told))


# packed weights ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), st.sampled_from([8, 4]), st.integers(0, 9))
def test_packing_rounds_to_the_nearest(outputs, inputs, bits, seed):
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    found = pack(weight, bits).unpacked()
    if bits == 8:
        scale = weight.abs().amax(1, keepdim=True) / 127
    else:
        padded = torch.nn.functional.pad(weight, (0, -inputs % 32)).unflatten(1, (-1, 32))
        scale = (padded.abs().amax(-1, keepdim=True) / 8).expand_as(padded).flatten(1)[:, :inputs]
    # the scale itself has 8 bits, and the end that is not the longer one stops at 7
    slack = 1e-6 if bits == 8 else 1.02 * scale / 2 + scale / 2
    assert ((found - weight).abs() <= scale / 2 + slack).all()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 80), st.integers(1, 130))
def test_floats_in_panels_are_the_same_product(data, n, inputs):
    draw = torch.Generator().manual_seed(n)
    sizes = data.draw(st.lists(st.integers(1, 130), min_size=1, max_size=3))
    x, bias = torch.randn(n, inputs, generator=draw), torch.randn(sizes[0], generator=draw)
    weights = [torch.randn(m, inputs, generator=draw) for m in sizes]
    layers = [(pack(weight, 32), None if i else bias) for i, weight in enumerate(weights)]
    assert all(torch.equal(layer.unpacked(), weight) for (layer, _), weight in zip(layers, weights))
    found, wanted = product(x, *layers), x @ torch.cat(weights).t()
    wanted[:, : sizes[0]] += bias
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    for rows in (1, min(n, 7)):
        assert torch.equal(product(x[:rows], *layers), found[:rows])


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 200), st.integers(1, 130), st.sampled_from([8, 4]))
def test_a_packed_product_rounds_nothing_but_its_rows(data, n, inputs, bits):
    """Of up to three matrices side by side, activated or not, or of a gate and what it lets by."""
    draw = torch.Generator().manual_seed(n)
    sizes = data.draw(st.lists(st.integers(1, 130), min_size=1, max_size=3))
    gated = len(sizes) == 2 and data.draw(st.booleans())
    sizes = [sizes[0]] * 2 if gated else sizes
    kind = data.draw(st.sampled_from([None, *ACTIVATIONS]))
    x = torch.randn(n, inputs, generator=draw)
    biases = [torch.randn(m, generator=draw) for m in sizes]
    layers = [
        (pack(torch.randn(m, inputs, generator=draw), bits), b) for m, b in zip(sizes, biases)
    ]
    scale = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    rounded = (x.double() / scale).round() * scale
    parts = [rounded @ packed.unpacked().double().t() + bias for packed, bias in layers]
    act = torch.nn.Identity() if kind is None else Activation(kind)
    wanted = act(parts[0]) * parts[1] if gated else act(torch.cat(parts, 1))
    found = product(x, *layers, activation=kind, gated=gated)
    # a half may be rounded either way: one step of a row's scale times the largest weight
    largest = max(float(packed.unpacked().abs().max()) for packed, _ in layers)
    slack = 2e-3 + 1.2 * scale.double() * largest
    if gated:
        slack = slack * (2 + parts[0].abs() + parts[1].abs())
    assert ((found - wanted).abs() <= slack).all()
    assert torch.equal(product(x[:1], *layers, activation=kind, gated=gated), found[:1])
    assert product(x.bfloat16(), *layers).dtype == torch.bfloat16
    assert product(x[:0], *layers).shape == (0, sum(sizes))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("place", [0, 39])
def test_a_packed_product_does_not_hide_what_is_no_number(bits, place, bad):
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    x[1, place] = bad
    found = product(x, (pack(torch.eye(40), bits), None))
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()

"""Each kernel beside its torch twin, forwards and backwards; what is done without a compiler."""

from __future__ import annotations

import itertools
import math
import os
import platform
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tercet import kernels
from tercet.config import TransformerConfig
from tercet.kernels import activation
from tercet.kernels import attention as ragged
from tercet.kernels.best import best, log_sums
from tercet.kernels.dropout import dropped
from tercet.kernels.processor import emulated
from tercet.model import build, linear
from tercet.model.attention import View, attend
from tercet.model.layout import Layout

compiled = pytest.mark.skipif(
    kernels.library("attention") is None, reason="there is no C compiler on this machine"
)
NUMBERS = st.sampled_from([-math.inf, -2.5, 0.0, 1.0, 1.5, 40.0])
EXACT = {torch.float32: 3e-6, torch.bfloat16: 1e-2}

# query lengths, key lengths (None: the same), query heads, key heads, head width, causal, window
SHAPES = [
    ((5, 64, 1, 100), None, 4, 4, 32, True, None),
    ((5, 64, 1, 100), None, 4, 2, 7, True, None),
    ((33, 70), None, 3, 1, 64, False, None),
    ((130, 49), None, 2, 2, 24, True, 20),
    ((130, 49), None, 2, 2, 80, False, 20),
    ((3, 20, 50), (40, 7, 61), 4, 4, 16, False, None),
]


def draw(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def with_gradients(inputs: list[Tensor], call, weights: Tensor) -> list[Tensor]:
    """What ``call`` makes of the inputs, and the inputs' gradients, all in float64."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = call(*inputs)
    found = torch.autograd.grad(out, inputs, weights.to(out.dtype))
    return [x.detach().double() for x in (out, *found)]


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ragged_attention(shape, dtype: torch.dtype, monkeypatch):
    lengths, others, heads, key_heads, width, causal, window = shape
    torch.manual_seed(0)
    queries, keys = Layout(lengths), Layout(others or lengths)
    view = View(queries, keys, causal, window)
    inputs = [
        draw(dtype, queries.n_tokens, heads, width),
        draw(dtype, keys.n_tokens, key_heads, width),
        draw(dtype, keys.n_tokens, key_heads, width),
    ]
    weights = draw(dtype, queries.n_tokens, heads, width)
    assert ragged.fits(*inputs) and view.plain
    call = partial(attend, view=view, scale=0.3, dropout=0.0)
    ours = with_gradients(inputs, call, weights)
    twin = with_gradients([x.double() for x in inputs], call, weights)  # no kernel of ours
    for a, b in zip(ours, twin):
        assert (a - b).abs().max() < EXACT[dtype] * b.abs().max()


@compiled
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_attention_is_the_same_to_the_bit_whatever_the_threads_and_the_neighbours(dropout: float):
    torch.manual_seed(0)
    lengths = (40, 3, 77)
    inputs = [draw(torch.float32, sum(lengths), 4, 16) for _ in range(3)]
    weights = draw(torch.float32, sum(lengths), 4, 16)

    def run(rows: slice, layout: Layout) -> list[Tensor]:
        torch.manual_seed(1)
        view = View(layout, layout, causal=True)
        call = partial(attend, view=view, scale=0.25, dropout=dropout)
        return with_gradients([x[rows] for x in inputs], call, weights[rows])

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(slice(None), Layout(lengths)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0]))
    if dropout:
        return  # another place is another draw
    alone = run(slice(43, 120), Layout(lengths[2:]))
    assert all(torch.equal(a, b[43:]) for a, b in zip(alone, found[0]))


def mixed(x: int) -> int:
    """A finaliser of 64 bits, as in attention.c."""
    whole = (1 << 64) - 1
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & whole
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & whole
    return x ^ x >> 31


def remaining(seed: int, heads: int, queries: Layout, keys: Layout, dropout: float) -> list[Tensor]:
    """For each sequence (H, T, S): what its probabilities are multiplied by, drawn as in
    attention.c but a number at a time."""
    word, found = (1 << 32) - 1, []
    for start, t, s in zip(queries.starts, queries.lengths, keys.lengths):
        left = torch.zeros(heads, t, s, dtype=torch.float64)
        for h, i, j in itertools.product(range(heads), range(t), range(s)):
            draws = mixed((seed + mixed((start + i) * heads + h)) & ((1 << 64) - 1))
            x = (j * 0x9E3779B9 + draws) & word
            x = (((x ^ x >> 16) * 0x7FEB352D) & word) ^ (draws >> 32)
            x = ((x ^ x >> 15) * 0x846CA68B) & word
            if x ^ x >> 16 >= int(dropout * 2**32):
                left[h, i, j] = 1 / (1 - dropout)
        found.append(left)
    return found


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal, window", [(False, None), (True, 20)])
def test_attention_drops_what_its_twin_drops(dtype: torch.dtype, causal: bool, window: int | None):
    heads, dropout, lengths = 4, 0.3, (33, 1, 50)
    layout = Layout(lengths)
    torch.manual_seed(3)
    inputs = [draw(dtype, layout.n_tokens, n, 16) for n in (heads, 2, 2)]
    weights = draw(dtype, layout.n_tokens, heads, 16)
    torch.manual_seed(7)
    left = remaining(int(torch.randint(1 << 62, ())), heads, layout, layout, dropout)

    def plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        whole = (q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
        for n, *own in zip(left, *(x.split(lengths) for x in whole)):
            scores = torch.einsum("thk,shk->hts", *own[:2]) * 0.3
            apart = torch.arange(len(own[0]))[:, None] - torch.arange(len(own[0]))
            hidden = torch.zeros_like(apart, dtype=torch.bool)
            if causal:
                hidden = (apart < 0) | (apart >= (window or len(apart)))
            probabilities = scores.masked_fill(hidden, -math.inf).softmax(-1) * n
            rows.append(torch.einsum("hts,shk->thk", probabilities, own[2]))
        return torch.cat(rows)

    view = View(layout, layout, causal, window)
    torch.manual_seed(7)
    call = partial(attend, view=view, scale=0.3, dropout=dropout)
    ours = with_gradients(inputs, call, weights)
    twin = with_gradients([x.double() for x in inputs], plainly, weights)
    for a, b in zip(ours, twin):
        assert (a - b).abs().max() < EXACT[dtype] * b.abs().max()


@compiled
def test_what_attention_drops_is_drawn_evenly_and_anew():
    """Of equal scores: each key as often as any other, no pattern between heads, queries and
    calls; and the mean of what comes out is what comes out without dropout."""
    heads, n, dropout = 8, 128, 0.25
    layout = Layout([n])
    zero, eye = torch.zeros(n, heads, n), torch.eye(n)[:, None].expand(n, heads, n).contiguous()
    view = View(layout, layout)
    torch.manual_seed(0)
    kept = [attend(zero, zero, eye, view, 1.0, dropout) > 0 for _ in range(6)]  # (N, H, N)
    drawn = torch.stack(kept).double() - (1 - dropout)
    deviation = (dropout * (1 - dropout)) ** 0.5
    for over in ((0, 1, 2), (1, 2, 3), (0, 2, 3), (0, 1, 3)):
        count = math.prod(drawn.shape[i] for i in over)
        assert drawn.mean(over).abs().max() < 5 * deviation / count**0.5
    for axis in range(4):
        pairs = drawn * drawn.roll(1, axis)
        assert pairs.mean().abs() < 5 * deviation**2 / pairs.numel() ** 0.5
    out = attend(zero, zero, eye, view, 1.0, dropout)
    assert out.max() == pytest.approx(1 / n / (1 - dropout)) and out.min() == 0


@compiled
def test_attention_does_not_hide_a_nan():
    inputs = [draw(torch.float32, 30, 2, 16) for _ in range(3)]
    inputs[1][20, 1, 3] = torch.nan
    layout = Layout([10, 20])
    out = attend(*inputs, View(layout, layout, causal=True), 0.25, 0.0)
    assert out[20:, 1].isnan().all() and out[:20].isfinite().all() and out[:, 0].isfinite().all()


FUNCTIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
}


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("kind", activation.KINDS)
def test_activations(kind: str, gated: bool, dtype: torch.dtype):
    torch.manual_seed(0)
    ends = torch.tensor([0.0, 1e-4, -1e-3, 30, -30, 200, -200])
    h = torch.cat([3 * draw(torch.float32, 1000), ends]).to(dtype)
    gate = draw(dtype, len(h)) if gated else None
    weights = draw(dtype, len(h))
    y, d_h, d_gate = activation.backward(kind, h, gate, weights)
    assert torch.equal(y, activation.forward(kind, h, gate))
    inputs = [h.double()] + ([gate.double()] if gate is not None else [])
    twin = with_gradients(inputs, lambda h, gate=1: FUNCTIONS[kind](h) * gate, weights)
    for a, b in zip((y, d_h, d_gate), twin):
        error = (a.double() - b).abs() / (1 + b.abs())
        assert error.max() < {torch.float32: 2e-6, torch.bfloat16: 5e-3}[dtype]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_network_with_and_without_everything_of_ours(gated: bool, mixed: bool, monkeypatch):
    """Logits and the gradients of every parameter."""
    config = TransformerConfig(
        vocab_size=90,
        context_length=64,
        d_model=48,
        d_ff=80,
        n_heads=4,
        n_kv_heads=2,
        decoder_layers=2,
        gated=gated,
        activation="silu" if gated else "gelu_tanh",
        positions="rotary",
        norm="rms",
        qk_norm=True,
    )
    layout = Layout([30, 9, 41])
    tokens = torch.randint(90, (layout.n_tokens,), generator=torch.Generator().manual_seed(1))

    def run() -> list[Tensor]:
        net = build(config)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = net(tokens, layout)
        logits.float().logsumexp(-1).sum().backward()
        return [logits.detach().float(), *(p.grad for p in net.parameters())]

    ours = run()
    monkeypatch.setattr(ragged, "library", lambda name: None)
    monkeypatch.setattr(linear, "_by_hand", lambda x, weight: False)
    for a, b in zip(ours, run()):
        assert (a - b).norm() < (0.02 if mixed else 1e-5) * b.norm()


def test_hooks_on_a_layer_are_called():
    config = TransformerConfig(
        vocab_size=9, context_length=64, d_model=32, d_ff=64, n_heads=2, decoder_layers=1
    )
    net, seen = build(config), []
    for name, module in net.named_modules():
        if name.endswith((".k", ".down", ".up")):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    net(torch.zeros(40, dtype=torch.long), Layout([40]))
    assert [name.rpartition(".")[2] for name in seen] == ["k", "up", "down"]


def test_without_a_compiler_one_line_says_so(monkeypatch, capsys, tmp_path):
    fresh = kernels.library.__wrapped__
    kernels._say.cache_clear()
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert fresh("attention") is None
    assert fresh("softmax") is None
    out, error = capsys.readouterr()
    assert not out and error.count("Tercet's kernels are off: there is no C compiler") == 1
    monkeypatch.undo()
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(kernels.shutil, "which", lambda name: str(broken))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fresh("attention") is None
    assert "cannot make them (no such option)" in capsys.readouterr().err
    monkeypatch.setenv("TERCET_KERNELS", "0")
    assert fresh("attention") is None and not capsys.readouterr().err


RAGGED = """
import sys, torch
from tercet.kernels.linear import summed, times
dtype, weight = getattr(torch, sys.argv[1]), torch.randn(864, 320)
weight = weight.to(dtype)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
for n in range(2000, 2120):
    x, g = torch.randn(n, 320).to(dtype), torch.randn(n, 864).to(dtype)
    times(x, weight), times(g, weight.t()), summed(g, x)
    before = resident() if n == 2020 else locals().get("before")
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batches_of_many_sizes_do_not_fill_the_memory(dtype: str):
    """oneDNN keeps buffers for each number of rows: 100 of them took 150 MiB and more."""
    if emulated(dtype):
        pytest.skip(f"this processor has no {dtype}")
    command = [sys.executable, "-c", RAGGED, dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60 * 2**20, done.stdout


# the best of many -----------------------------------------------------------------------------


@compiled
@settings(max_examples=60, deadline=None)
@given(
    st.lists(NUMBERS, min_size=1, max_size=300), st.integers(1, 300), st.sampled_from(list(EXACT))
)
def test_best_of_a_row_with_equals(row: list[float], k: int, dtype: torch.dtype):
    """The largest in falling order, equals by place; what is -inf is no place."""
    k = min(k, len(row))
    x = torch.tensor([row, row[::-1]]).to(dtype)
    values, places = best(x, k)
    assert values.dtype == torch.float32
    for own, found, at in zip(x.tolist(), values.tolist(), places.tolist()):
        order = sorted(range(len(own)), key=lambda i: (-own[i], i))[:k]
        real = sum(own[i] > -math.inf for i in order)
        assert at[:real] == order[:real] and found == [own[i] for i in order]


@compiled
@pytest.mark.parametrize("dtype", EXACT)
def test_log_sums_of_rows(dtype: torch.dtype):
    x = (20 * draw(torch.float64, 7, 1003)).to(dtype)[:, 1:]  # rows that lie apart
    x[3, :900] = -math.inf
    torch.testing.assert_close(log_sums(x), x.float().logsumexp(-1), rtol=1e-6, atol=1e-6)
    values, places = best(x, 5)
    expected = x.float().topk(5)
    assert torch.equal(values, expected.values)
    assert torch.equal(x.float().gather(1, places), values)
    x[0, 70:74], x[1, 500] = torch.nan, math.inf
    x[0, 85], x[2] = 99.0, -math.inf
    values, places = best(x, 1)
    assert values[:2].tolist() == [[99.0], [math.inf]] and places[:2].tolist() == [[85], [500]]
    assert log_sums(x)[0].isnan() and log_sums(x)[1:3].tolist() == [math.inf, -math.inf]
    wide = x.double()
    assert torch.equal(log_sums(wide)[1:], wide.logsumexp(-1)[1:]) and best(wide, 2)[0].shape == (
        7,
        2,
    )


FREED = """
import torch
from pathlib import Path
from tercet.config import TransformerConfig
from tercet.kernels.memory import SOME, keep_pages
from tercet.model import build

def held():
    rows = Path("/proc/self/status").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("VmRSS")).split()[1]) >> 10  # MiB

sizes = {"context_length": 8, "d_model": 8, "d_ff": 8, "n_heads": 2}
build(TransformerConfig(vocab_size=9, decoder_layers=1, **sizes))
listens = keep_pages(SOME)
assert keep_pages(1) == listens  # it asks for no less than it has
before = held()
for _ in range(2):
    pieces = [torch.ones(5 << 20) for _ in range(8)]  # 20 MiB each
    del pieces
print(int(listens), held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
@pytest.mark.parametrize(
    "told", ["", "MALLOC_TOP_PAD_=131072", "GLIBC_TUNABLES=glibc.malloc.perturb=0"]
)
def test_freed_memory_stays_unless_the_environment_speaks_of_it(told: str):
    setting = dict([told.split("=", 1)]) if told else {}
    done = subprocess.run(
        [sys.executable, "-c", FREED], env=os.environ | setting, capture_output=True, text=True
    )
    listens, stayed = map(int, done.stdout.split())
    assert listens == (not told), done.stderr
    # by itself glibc may give the pages back or keep them, as its heap happens to end
    assert stayed > 120 or told


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9000), st.sampled_from([0.05, 0.1, 0.5, 0.9]), st.integers(0, 99))
@compiled
def test_dropout_drops_a_share_and_its_gradient_the_same(n, share, seed):
    for kind in (torch.float32, torch.bfloat16):
        torch.manual_seed(seed)
        x = (1 + torch.rand(n)).to(kind).requires_grad_()
        y = dropped(x, share)
        kept = y != 0
        torch.testing.assert_close(y, kept * x / (1 - share), rtol=1e-2, atol=0)
        slack = 5 * (n * share * (1 - share)) ** 0.5 + 1
        assert abs(float((~kept).sum()) - n * share) < slack
        y.backward(torch.full_like(y, 2))
        wanted = kept * torch.tensor(2 / (1 - share)).to(kind)
        torch.testing.assert_close(x.grad, wanted, rtol=1e-2, atol=0)
        torch.manual_seed(seed)
        torch.rand(n)
        assert torch.equal(dropped(x, share), y)  # decided by torch's generator


@compiled
def test_neighbours_and_columns_drop_apart():
    torch.manual_seed(0)
    x = torch.ones(2000, 384)
    y, z = (dropped(x, 0.1) == 0 for _ in range(2))
    assert abs(float((y & z).sum()) / x.numel() - 0.01) < 5e-4  # two calls
    for shift in (1, 16, 384, 4096):  # columns, vectors, rows, blocks
        both = y & y.flatten().roll(shift).view_as(y)
        assert abs(float(both.sum()) / x.numel() - 0.01) < 5e-4
    for mean in (y.float().mean(0), y.float().mean(1)):
        assert (mean - 0.1).abs().max() < 6 * (0.09 / (x.numel() / len(mean))) ** 0.5


@compiled
def test_dropout_of_what_does_not_lie_in_one_piece():
    x = torch.rand(40, 30, requires_grad=True)
    y = dropped(x.t(), 0.3)
    y.backward(torch.ones(1).expand_as(y))
    torch.testing.assert_close(y, x.t() * x.grad.t())

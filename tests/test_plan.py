"""The plan against what it plans: parameters, FLOPs and bytes of real small networks, one and more
a family, on equal and on ragged lengths.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.kernels import attention as ragged
from tercet.kernels.linear import ONEDNN
from tercet.model import Cache, Layout, Network, build, linear
from tercet.plan import plan
from tercet.plan.memory import capacity
from tercet.plan.parameters import shapes
from tercet.presets import PRESETS, preset


@pytest.fixture(autouse=True)
def _torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan counts what torch's own operations do and keep, which its counters can see; kernels
    of ours keep less, and their twins are these operations."""
    monkeypatch.setattr(ragged, "library", lambda name: None)
    monkeypatch.setattr(linear, "_by_hand", lambda x, weight: False)
    monkeypatch.setattr("tercet.kernels.dropout.library", lambda name: None)
    monkeypatch.setattr("tercet.model.transformer.filler", lambda *_: 0)


EQUAL, RAGGED = (12, 12, 12), (5, 9, 23, 24, 1, 22)
WHOLE = (40, 7, 35, 14)  # 96 tokens: a number that kernels of ours need not round up
SOURCE = {EQUAL: (15, 15, 15), RAGGED: (7, 31, 30, 2, 9, 8), WHOLE: (9, 30, 21, 36)}


def tiny(name: str, layers: int, **more: Any) -> TransformerConfig:
    """A preset's family at a size that a test can train."""
    sizes = dict(vocab_size=61, context_length=40, d_model=24, d_ff=52, n_heads=4, d_head=6)
    kept = PRESETS[name] | sizes
    kept["n_kv_heads"] = 4 if kept.get("n_kv_heads") is None else 2
    kept["local_layers"] = tuple(i for i in kept.get("local_layers", ()) if i < layers)
    kept["window"] = 5 if kept["local_layers"] else None
    for side in ("encoder_layers", "decoder_layers"):
        kept[side] = layers if kept.get(side) else 0
    undropped = dict(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, head_dropout=0.0)
    special = dict(bos_id=None, eos_ids=(), pad_id=None, start_id=None)
    return TransformerConfig(**kept | undropped | special | more)


CONFIGS = {
    "transformer": tiny("transformer-base", 2),
    "translation": tiny("marian-base", 2),
    "t5": tiny("t5-small", 3),
    "t5-v1.1": tiny("t5-v1.1-small", 2, decoder_layers=1),
    "bart": tiny("bart-base", 2),
    "bert": tiny("bert-base", 2, heads=("masked", "pooler", "next_sentence")),
    "modernbert": tiny("modernbert-base", 4),
    "eurobert": tiny("eurobert-210m", 2),
    "gpt1": tiny("gpt1", 2),
    "gpt2": tiny("gpt2", 2),
    "gpt3": tiny("gpt3-small", 3),
    "llama": tiny("llama3-8b", 2),
    "qwen3": tiny("qwen3-0.6b", 2),
    "ours-encoder": tiny("tercet-tiny-encoder", 2),
    "ours-decoder": tiny("tercet-tiny-decoder", 2),
    "ours-both": tiny("tercet-tiny-encoder-decoder", 2),
    "lstm": tiny("tercet-tiny-decoder", 2, mixer="lstm"),
    "lstm-both": tiny("tercet-tiny-encoder-decoder", 2, mixer="lstm"),
}
TRANSFORMERS = [name for name in CONFIGS if not name.startswith("lstm")]
DECODERS = [name for name in CONFIGS if CONFIGS[name].decoder_layers]
both_lengths = pytest.mark.parametrize("lengths", [EQUAL, RAGGED], ids=["equal", "ragged"])


def inputs(config: TransformerConfig, lengths: tuple[int, ...]) -> tuple[Tensor, Layout, dict]:
    generator = torch.Generator().manual_seed(0)

    def drawn(n: int) -> Tensor:
        return torch.randint(config.vocab_size, (n,), generator=generator)

    layout, source = Layout(lengths), Layout(SOURCE[lengths])
    sides = dict(source=drawn(source.n_tokens), source_layout=source)
    return drawn(layout.n_tokens), layout, sides if config.family == "encoder-decoder" else {}


def planned(config: TransformerConfig, lengths: tuple[int, ...], **more: Any):
    sources = SOURCE[lengths] if config.family == "encoder-decoder" else None
    return plan(config, lengths, source_lengths=sources, **more)


def loss(network: Network, config: TransformerConfig, lengths: tuple[int, ...]) -> Tensor:
    tokens, layout, sides = inputs(config, lengths)
    return F.cross_entropy(network(tokens, layout, **sides).float(), tokens, reduction="sum")


# parameters --------------------------------------------------------------------------------------

PLACES = {
    r"tokens\.|(en|de)coder\.embedding\.": "embedding",
    r"(encoder|decoder)\.(patterns|blocks\.\d+\.attention)\.": r"\1 attention",
    r"decoder\.blocks\.\d+\.cross\.|across\.": "decoder cross-attention",
    r"(encoder|decoder)\.blocks\.\d+\.feed_forward\.": r"\1 feed-forward",
    r"(encoder|decoder)\.norm\.": r"\1 norm",
    r"(encoder|decoder)\.lstm\.": r"\1 recurrence",
    r"heads\.(output|transform)": "output",
    r"heads\.": "heads",
}


def component(name: str) -> str:
    for pattern, place in PLACES.items():
        if match := re.match(pattern, name):
            return match.expand(place)
    raise AssertionError(name)


@pytest.mark.parametrize(
    "config", [*CONFIGS.values(), *map(preset, PRESETS)], ids=[*CONFIGS, *PRESETS]
)
def test_every_parameter_stands_in_its_component(config: TransformerConfig) -> None:
    network = build(config, seed=None)
    real: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        real[component(name)].append(tuple(parameter.shape))
    expected = {name: sorted(tensors) for name, tensors in shapes(config).items()}
    assert {name: sorted(tensors) for name, tensors in real.items()} == expected
    made = plan(config, [8], dtype="bfloat16")
    assert made.parameters == sum(p.numel() for p in network.parameters())


def test_a_whole_training_by_the_rule_of_six() -> None:
    """PEERS §3: 6 N D FLOPs for GPT-3 175B on 300e9 tokens; ours adds attention."""
    made = plan(preset("gpt3-175b"), [2048])
    assert made.parameters == 174_604_259_328
    assert 6 * made.parameters * 300e9 == pytest.approx(3.143e23, rel=1e-4)
    assert made.training_flops_per_token * 300e9 == pytest.approx(3.2e23, rel=0.05)


# FLOPs -------------------------------------------------------------------------------------------

# torch 2.13 counts attention's kernels on a GPU and not their twin on a CPU
OF_THE_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: flop_counter.sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: flop_counter.sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


def counted(call: Callable[[], Any], *, fused: bool) -> int:
    """What the counter counts. oneDNN's LSTM, which it does not see, is kept out."""
    backends = [SDPBackend.FLASH_ATTENTION] if fused else []
    counter = FlopCounterMode(display=False, custom_mapping=OF_THE_CPU if fused else {})
    with sdpa_kernel([*backends, SDPBackend.MATH]), torch.backends.mkldnn.flags(enabled=False):
        with counter:
            call()
    return counter.get_total_flops()


@both_lengths
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "math"])
@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_the_counter_s(name: str, fused: bool, lengths: tuple[int, ...]) -> None:
    config = CONFIGS[name]
    network, made = build(config), planned(config, lengths, fused=fused)
    heads = next((row for row in made.rows if row.component == "heads"), None)
    aside = (heads.forward_flops, heads.training_flops) if heads else (0, 0)
    tokens, layout, sides = inputs(config, lengths)
    with torch.no_grad():
        forward = counted(lambda: network(tokens, layout, **sides), fused=fused)
    assert forward == made.total.forward_flops - aside[0]
    training = counted(lambda: loss(network, config, lengths).backward(), fused=fused)
    assert training == made.total.training_flops - aside[1]


def products(network: Network, config: TransformerConfig) -> dict[str, int]:
    """FLOPs of a training step's matrix products by operation, oneDNN's included. What happens in
    a C file, and attention in torch's fused kernels, is not seen."""
    onednn = lambda x, weight, *_, **__: flop_counter.mm_flop(x, weight[::-1])  # noqa: E731
    mapping = {torch.ops.mkldnn._linear_pointwise: onednn} if ONEDNN else {}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        loss(network, config, WHOLE).backward()
    return {str(operation): n for operation, n in counter.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_kernels_of_ours_multiply_as_much(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained with does the products of its twins, which the plan counts."""
    network = build(CONFIGS[name])
    twins = products(network, CONFIGS[name])
    monkeypatch.undo()
    shipped = products(network, CONFIGS[name])
    assert sum(shipped.values()) == sum(twins.values()) > 0
    assert ("mkldnn._linear_pointwise" in shipped) == ONEDNN
    assert "mkldnn._linear_pointwise" not in twins


def test_flops_of_the_small_heads() -> None:
    config = CONFIGS["bert"].replace(
        heads=("pooler", "next_sentence", "classifier", "tagger", "span"), n_labels=5
    )
    network, (tokens, layout, _) = build(config), inputs(config, RAGGED)

    def run(network: Any) -> None:
        states = network.states(tokens, layout)
        pooled = network.heads.pooler_output(states, layout)
        single = [network.heads.next_sentence(pooled), network.heads.classifier(pooled)]
        each = [network.heads.tag(states), network.heads.spans(states)]
        sum(x.sum() for x in [*single, *each]).backward()

    made = plan(config, RAGGED)
    assert counted(lambda: run(network), fused=True) == made.total.training_flops


@pytest.mark.parametrize("name", DECODERS)
def test_flops_of_the_next_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tercet.kernels.tape.attends", lambda *_: False)  # it is not counted
    config = CONFIGS[name]
    network, (tokens, _, sides) = build(config).eval(), inputs(config, EQUAL)
    memory: dict[str, Any] = {}
    with torch.inference_mode():
        if sides:
            source = Layout([15])
            states = network.encode(sides["source"][:15], source)
            memory = dict(memory=states, memory_layout=source)
        cache = network.new_cache(1, **memory)
        network.decode(tokens[:11], Layout([11]), cache=cache)

        def step() -> None:
            network.logits(network.decode(tokens[:1], Layout([1], past=[11]), cache=cache))

        assert counted(step, fused=False) == planned(config, EQUAL).token_flops


def test_only_targets_pay_for_the_output() -> None:
    config = CONFIGS["bert"]
    network, (tokens, layout, _) = build(config), inputs(config, RAGGED)
    select = torch.tensor([1, 4, 40, 60])
    step = lambda: network(tokens, layout, select=select).sum().backward()  # noqa: E731
    made = plan(config.replace(heads=("masked",)), RAGGED, targets=4)
    assert counted(step, fused=True) == made.total.training_flops


# bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_bytes_of_weights_gradients_and_optimizer(name: str) -> None:
    config = CONFIGS[name].replace(heads=("language",))
    network = build(config)
    optimizer = torch.optim.AdamW(network.parameters())
    loss(network, config, EQUAL).backward()
    optimizer.step()
    parameters = list(network.parameters())
    total = planned(config, EQUAL).total
    assert total.weights == sum(p.nbytes for p in parameters)
    assert total.gradients == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    state = [value for values in optimizer.state.values() for value in values.values()]
    assert total.optimizer == sum(value.nbytes for value in state)


@both_lengths
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", DECODERS)
def test_bytes_of_the_cache(name: str, dtype: str, lengths: tuple[int, ...]) -> None:
    config = CONFIGS[name]
    network = build(config).to(getattr(torch, dtype))
    network.tie()
    tokens, layout, sides = inputs(config, lengths)
    memory: dict[str, Any] = {}
    with torch.inference_mode():
        if sides:
            states = network.encode(sides["source"], sides["source_layout"])
            memory = dict(memory=states, memory_layout=sides["source_layout"])
        cache = network.new_cache(len(lengths), **memory)
        network.decode(tokens, layout, cache=cache)
    held = cache.nbytes if isinstance(cache, Cache) else 0
    if not isinstance(cache, Cache):
        kept = [*(cache.state or ()), *([cache.memory] if cache.memory is not None else [])]
        held = sum(tensor.nbytes for tensor in kept)
    assert held == planned(config, lengths, dtype=dtype).total.cache


@pytest.mark.parametrize("prompt, total", [(10, 10), (10, 11), (10, 65), (70, 75), (5, 200)])
def test_a_cache_that_grows_has_room_for_what_is_said(prompt: int, total: int) -> None:
    config = CONFIGS["llama"].replace(context_length=256)
    network = build(config)
    with torch.inference_mode():
        cache = network.new_cache(1)
        network.decode(torch.zeros(prompt, dtype=torch.long), Layout([prompt]), cache=cache)
        for held in range(prompt, total):
            network.decode(torch.tensor([3]), Layout([1], past=[held]), cache=cache)
    assert isinstance(cache, Cache)
    assert cache.nbytes == plan(config, [capacity(prompt, total)]).total.cache


def saved_bytes(call: Callable[[], Tensor], network: Network) -> int:
    """Bytes of the storages that autograd keeps for the backward pass, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)


DROPPED = {
    f"{name}-dropped": CONFIGS[name].replace(
        dropout=0.1, attention_dropout=0.2, activation_dropout=0.3
    )
    for name in ("t5", "t5-v1.1", "bart", "gpt2", "qwen3", "modernbert")
}


@both_lengths
@pytest.mark.parametrize("kernel", ["fused", "math", "fused bfloat16"])
@pytest.mark.parametrize("name", [*TRANSFORMERS, *DROPPED])
def test_activations_are_what_autograd_keeps(
    name: str, kernel: str, lengths: tuple[int, ...]
) -> None:
    config = (CONFIGS | DROPPED)[name]
    config = config.replace(heads=tuple(set(config.heads) & {"language", "masked"}))
    dtype = "bfloat16" if "bfloat16" in kernel else "float32"
    network = build(config).train().to(getattr(torch, dtype))
    network.tie()
    allowed = [SDPBackend.FLASH_ATTENTION] if "fused" in kernel else []
    with sdpa_kernel([*allowed, SDPBackend.MATH]):
        measured = saved_bytes(lambda: loss(network, config, lengths), network)
    total = planned(config, lengths, dtype=dtype, fused="fused" in kernel).total
    assert measured - total.activations == 4  # the loss's own scalar


@pytest.mark.parametrize("name", ["lstm", "lstm-both"])
def test_activations_of_the_recurrent_twins(name: str) -> None:
    config = CONFIGS[name]
    network = build(config).train()
    measured = saved_bytes(lambda: loss(network, config, RAGGED), network)
    assert planned(config, RAGGED).total.activations == pytest.approx(measured, rel=0.05)


# bad input and print -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, lengths, more, words",
    [
        ("gpt2", [41], {}, "41 tokens is longer than the context of 40"),
        ("gpt2", [8], {"source_lengths": [4]}, r"\(4,\) are for an encoder-dec.* the decoder"),
        ("t5", [8, 8], {"source_lengths": [4]}, "2 targets cannot have 1 sources"),
        ("gpt2", [8], {"dtype": "int3"}, "'int3'.*float32"),
        ("gpt2", [8], {"targets": 9}, "9 targets do not fit in 8 tokens"),
        ("gpt2", [], {}, "0 sequences"),
        ("gpt2", [3, 0], {}, "sequence 1 is empty"),
    ],
)
def test_what_does_not_fit_is_said(name: str, lengths: list, more: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(CONFIGS[name], lengths, **more)


def test_the_print_and_the_dictionary() -> None:
    made = plan(preset("gpt2"))
    text = str(made)
    assert "124,439,808 parameters; costs are for 1,024 tokens in 1 sequence, float32" in text
    assert "72 MiB" in text  # 2 * 12 layers * 1024 tokens * 768 * 4 bytes
    assert all(row.component in text for row in made.rows)
    values = made.to_dict()
    assert values["total"]["parameters"] == 124_439_808
    assert sum(row["weights"] for row in values["components"]) == values["total"]["weights"]

"""Laws of low-rank adapters: nothing before training, merged is unmerged, no path forgets one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tercet
from tercet import LoRA
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.kernels.packed import pack
from tercet.language_model import LanguageModel, load
from tercet.model import build, flatten
from tercet.model.lora import adapt, adapters, linears, merge
from tercet.model.quantize import quantise
from tercet.text import train_tokenizer
from tercet.train import Checkpoints, Optimizer, State

BASE = TransformerConfig(
    vocab_size=211, context_length=96, d_model=48, d_ff=100, n_heads=4, decoder_layers=2
).replace(init_std=0.2)
SHAPES = {
    "decoder": BASE,
    "encoder": BASE.replace(encoder_layers=2, decoder_layers=0, heads=("classifier",)),
    "both": BASE.replace(encoder_layers=2, start_id=0),
    "gated": BASE.replace(gated=True, norm="rms", n_kv_heads=2, positions="rotary"),
}


def stirred(network, lora: LoRA = LoRA(), seed: int = 0):
    """An adapter that does something."""
    adapt(network, lora, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for layer in adapters(network).values():
        layer.b.data.normal_(0, 0.1, generator=generator)
    return network


@torch.no_grad()
def states(network) -> torch.Tensor:
    tokens, layout = flatten([[3, 4, 5, 6], [7], list(range(8, 40))])
    source = {"source": tokens, "source_layout": layout} if network.encoder else {}
    source = source if network.decoder else {}
    return network.eval().states(tokens, layout, **source)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_untrained_adapter_changes_nothing(shape: str):
    network = build(SHAPES[shape])
    before = states(network)
    adapt(network, LoRA(dropout=0.3))
    assert float((states(network) - before).abs().max()) < 1e-5  # by other kernels


@pytest.mark.parametrize("targets", [("all",), ("q", "v"), ("down",)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_merged_is_unmerged(shape: str, targets: tuple[str, ...]):
    network = build(SHAPES[shape])
    before = states(network)
    stirred(network, LoRA(targets=targets))
    adapted = states(network)
    merge(network)
    assert float((adapted - before).abs().max()) > 1e-2
    assert float((states(network) - adapted).abs().max()) < 1e-5
    assert not adapters(network) and all(p.requires_grad for p in network.parameters())


def test_only_adapters_and_the_tasks_heads_learn():
    network = stirred(build(SHAPES["encoder"]))
    names = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {"heads.classifier.weight", "heads.classifier.bias"} < names
    assert all(name.endswith((".a", ".b")) or "heads.classifier" in name for name in names)
    tokens, layout = flatten([[3, 4, 5], [6, 7]])
    network.heads.classify(network.states(tokens, layout), layout).square().sum().backward()
    assert {n for n, p in network.named_parameters() if p.grad is not None} == names
    for kind in ("adamw", "muon"):
        optimizer = Optimizer(network, kind=kind)
        assert {name for _, part in optimizer._parts for name, _ in part} == names


def test_wide_layers_learn_too():
    """Whose products come back as views of a larger table."""
    network = stirred(build(SHAPES["decoder"].replace(d_model=384, d_ff=512)))
    tokens, layout = flatten([list(range(3, 90))] * 3)
    network.states(tokens, layout).sum().backward()


def test_gradients_are_those_of_the_formula():
    """Float64 by hand beside the layer's own."""
    network = stirred(build(SHAPES["gated"])).double()
    layer = network.decoder.blocks[0].attention.layer.q
    x = torch.randn(7, 48, dtype=torch.float64, requires_grad=True)
    y = torch.randn(7, 48, dtype=torch.float64)
    (layer(x) * y).sum().backward()
    a, b, w = (t.detach() for t in (layer.a, layer.b, layer.base.weight))
    assert torch.allclose(layer.b.grad, layer.scale * y.t() @ (x @ a.t()).detach())
    assert torch.allclose(layer.a.grad, layer.scale * (y @ b).t() @ x.detach())
    assert torch.allclose(x.grad, y @ (w + layer.scale * b @ a))
    assert layer.base.weight.grad is None


# every way to run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(
        ["the cat sat on the mat and the dog ran in the fog"] * 9, vocab_size=300
    )


def model_of(tokenizer, shape: str) -> LanguageModel:
    return LanguageModel(build(SHAPES[shape].replace(vocab_size=tokenizer.vocab_size)), tokenizer)


def runs(model: LanguageModel, shape: str) -> list:
    """A short text (a tape's), long ones, generation and beams."""
    text = "the cat sat on the mat"
    if shape == "encoder":
        return [model.embed(text).tolist(), model.embed([text * 3, "dog"]).tolist()]
    if shape == "both":
        return [
            [found.ids for found in model.translate([text, "the dog"], beams=3, max_new_tokens=9)],
            [found.ids for found in model.generate([text, "the dog"], max_new_tokens=9)],
            model.embed(text).tolist(),
        ]
    return [
        model.generate(text, max_new_tokens=12).ids,
        [found.ids for found in model.generate([text, "the dog", "fog"], max_new_tokens=9)],
        model.score(text).log_probabilities[1:],
        model.embed([text, "dog"]).tolist(),
    ]


def alike(one: list, other: list) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.allclose(torch.tensor(a), torch.tensor(b), atol=1e-4)
               if not isinstance(a[0], list) or isinstance(a[0][0], float) else a == b
               for a, b in pairs)  # fmt: skip


@pytest.mark.parametrize("shape", ["decoder", "encoder", "both", "gated"])
def test_no_path_forgets_the_adapter(shape: str, tokenizer):
    """Run first without: tapes that were kept then must notice what was put on."""
    model = model_of(tokenizer, shape)
    bare = runs(model, shape)
    stirred(model.network, LoRA(alpha=80))
    adapted = runs(model, shape)
    assert not alike(adapted, bare)
    assert alike(adapted, runs(model.merged(), shape))
    assert alike(adapted, runs(model, shape))
    merge(model.network)
    assert alike(adapted, runs(model, shape))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_few_bits_under_an_adapter(shape: str, bits: int):
    """What the packed base computes, and the adapter on top of it in full."""
    bare, network = build(SHAPES[shape]), build(SHAPES[shape])
    quantise(bare, bits)
    adapt(network, LoRA())
    quantise(network, bits)
    assert float((states(network) - states(bare)).abs().max()) < 1e-5
    exact = build(SHAPES[shape])  # in float32, of what the bits stand for
    for layer in linears(exact).values():
        layer.weight.data.copy_(pack(layer.weight, bits).unpacked())
    stirred(exact, LoRA(alpha=80))
    for name, layer in adapters(network).items():
        layer.b.data.copy_(adapters(exact)[name].b)
        layer.scale = adapters(exact)[name].scale
    wanted = states(exact)
    assert float((states(network) - wanted).norm() / wanted.norm()) < 0.1
    assert float((states(bare) - wanted).norm() / wanted.norm()) > 0.3
    with pytest.raises(InputError, match="bits, which cannot take an adapter in"):
        merge(network)


# folders ------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, tokenizer) -> Path:
    """A base and an adapter beside it."""
    model_of(tokenizer, "gated").save(tmp_path / "base")
    model = load(tmp_path / "base")
    stirred(model.network)
    model.save(tmp_path / "adapter")
    return tmp_path


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_of_an_adapter_loads_its_base(saved: Path):
    names = {path.name for path in (saved / "adapter").iterdir()}
    assert "adapter_config.json" in names and "model.safetensors" not in names
    one, other = load(saved / "adapter"), load(saved / "base", adapter=saved / "adapter")
    assert torch.equal(states(one.network), states(other.network))
    assert not torch.equal(states(one.network), states(load(saved / "base").network))
    change(saved / "adapter" / "adapter_config.json", base_model_name_or_path="../base")
    assert torch.equal(states(load(saved / "adapter").network), states(one.network))
    one.merged().save(saved / "whole")
    assert float((states(load(saved / "whole").network) - states(one.network)).abs().max()) < 1e-5
    assert load(saved / "adapter", precision="int8").generate("the cat", max_new_tokens=3).ids


def test_the_verb_merges_and_measures(saved: Path, capsys):
    from tercet.cli import run

    assert run(["merge", str(saved / "adapter"), "--out", str(saved / "whole"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["compared"] == "logits" and 0 <= told["largest_difference"] < 1e-4
    assert told["mean_difference"] <= told["largest_difference"] and told["layers"] == 14
    assert not adapters(load(saved / "whole").network)
    assert run(["merge", str(saved / "base"), "--out", str(saved / "x")]) == 2
    assert "holds no adapter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"some_new_thing": 3}, "some_new_thing=3"),
        ({"alpha_pattern": {"(": 3}}, "alpha_pattern"),
        ({"lora_alpha": "many"}, "damaged"),
        ({"base_model_name_or_path": None}, "names no base"),
        ({"base_model_name_or_path": "/no/such"}, "the base of the adapter"),
    ],
    ids=str,
)
def test_settings_that_are_not_honoured(saved: Path, values: dict, said: str):
    change(saved / "adapter" / "adapter_config.json", **values)
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        load(saved / "adapter")


def test_tensors_that_do_not_fit(saved: Path):
    path = saved / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)

    def said(changed: dict[str, torch.Tensor], what: str) -> None:
        save_file(changed, path)
        with pytest.raises(InputError, match=what):
            load(saved / "adapter")

    said({k: v for k, v in tensors.items() if k != name}, "A and B do not fit")
    said(tensors | {name: tensors[name][:, :5].contiguous()}, "is for a matrix of")
    said({k.replace(".0.", ".7."): v for k, v in tensors.items()}, "which this base lacks")
    said(tensors | {"base_model.model.lora_magnitude": tensors[name].clone()}, "kind of adapter")
    said(tensors | {"base_model.model.nothing.weight": tensors[name].clone()}, "nothing.weight")
    path.write_bytes(b"half")
    with pytest.raises(InputError, match="no whole safetensors"):
        load(saved / "adapter")
    path.unlink()
    with pytest.raises(InputError, match="has no adapter_model"):
        load(saved / "adapter")


# what users ask wrongly ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (dict(rank=0), "rank 0 must be"),
        (dict(rank=49), "rank 49 is above the size of .*48 × 48"),
        (dict(alpha=0), "alpha 0 must be above"),
        (dict(dropout=1), "dropout 1"),
        (dict(targets=()), "must be a list"),
        (dict(targets=("query",)), "'query'"),
        (dict(targets=("gat",)), "did you mean 'gate'"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(lora: dict, said: str):
    with pytest.raises(InputError, match=said):
        adapt(build(SHAPES["gated"]), LoRA(**lora))


def test_what_cannot_be_adapted_or_saved(saved: Path, tokenizer):
    recurrent = build(BASE.replace(mixer="lstm", positions="none", n_heads=1))
    with pytest.raises(InputError, match="Transformers"):
        adapt(recurrent, LoRA())
    model = load(saved / "adapter")
    with pytest.raises(InputError, match="an adapter already"):
        model.adapt()
    with pytest.raises(InputError, match="is the adapter's base"):
        model.save(saved / "base")
    with pytest.raises(InputError, match="is an adapter itself"):
        load(saved / "adapter", adapter=saved / "adapter")
    fresh = model_of(tokenizer, "decoder")
    fresh.adapt(tercet.LoRA(rank=2))
    with pytest.raises(InputError, match="has none"):
        fresh.save(saved / "fresh")


# checkpoints --------------------------------------------------------------------------------------


def trained(network, optimizer, steps: range) -> None:
    tokens, layout = flatten([[3, 4, 5, 6], [7, 8, 9]])
    for step in steps:
        torch.manual_seed(step)
        network.train().states(tokens, layout).square().sum().backward()
        optimizer.step(1e-2)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_checkpoint_holds_what_is_trained_and_goes_on_exactly(kind: str, tmp_path: Path):
    lora = LoRA(dropout=0.2)
    whole, half, again = (stirred(build(BASE), lora) for _ in range(3))
    trained(whole, Optimizer(whole, kind=kind), range(6))
    optimizer = Optimizer(half, kind=kind)
    trained(half, optimizer, range(3))
    Checkpoints(tmp_path, half, optimizer).save(State(step=3))
    kept = load_file(tmp_path / "step-3" / "weights.safetensors")
    assert kept.keys() == {name for name, p in half.named_parameters() if p.requires_grad}
    optimizer = Optimizer(again, kind=kind)
    assert Checkpoints(tmp_path, again, optimizer).load() == State(step=3)
    trained(again, optimizer, range(3, 6))
    for (name, one), other in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name
    strange = stirred(build(BASE, seed=9), lora)
    with pytest.raises(InputError, match="other frozen weights"):
        Checkpoints(tmp_path, strange, Optimizer(strange, kind=kind)).load()

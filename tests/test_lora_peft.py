"""Adapters against `peft` itself, in both directions, for an architecture each."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import transformers
from oracles import FIRST, ORACLES, ask_theirs, batch, flat, folder_of, their_states, unpad

from tercet import hf
from tercet.model import flatten
from tercet.model.lora import LoRA, adapt, adapters

peft = pytest.importorskip("peft", reason="peft is not installed (it is in the dev extra)")

pytestmark = pytest.mark.slow

TARGETS = {  # of theirs: fused ones, and some but not all
    "modernbert": ["Wqkv", "Wi"],
    "gpt1": ["c_attn", "c_fc"],
    "gpt2": ["c_attn", "c_proj"],
    "t5": ["q", "v", "wo"],
    "distilbert": ["q_lin", "lin2"],
    "bert": ["query", "value", "intermediate.dense"],
    "roberta": ["query", "value", "intermediate.dense"],
}


def theirs(name: str):
    return getattr(transformers, ORACLES[name].model_class).from_pretrained(
        folder_of(name), attn_implementation="eager"
    )


def apart(name: str, model, network) -> float:
    """The largest difference of last states."""
    inputs = batch(ORACLES[name], [7, 3, 12])
    tokens, layout, keywords = flat(inputs)
    with torch.no_grad():
        ours = network.states(tokens, layout, **keywords)
        padded = their_states(ask_theirs(model, inputs))
    return float((unpad(padded, inputs.ids) - ours).abs().max())


def drawn(model) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(0, 0.2, generator=generator)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("name", FIRST)
def test_what_peft_saves_is_read(name: str, stabilised: bool, tmp_path: Path):
    settings = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=stabilised,
        target_modules=TARGETS.get(name, ["q_proj", "v_proj"]),
        alpha_pattern={"0.*": 11},
    )
    model = peft.get_peft_model(theirs(name), settings).eval()
    drawn(model)
    model.save_pretrained(tmp_path)
    bare, _ = hf.load(folder_of(name))
    network, _ = hf.load(folder_of(name), adapter=tmp_path)
    assert apart(name, model, bare) > 1e-2  # it does something
    assert apart(name, model, network) < 1e-4


@pytest.mark.parametrize("targets", [("q", "v"), ("all",)], ids=str)
@pytest.mark.parametrize("name", FIRST)
def test_peft_opens_what_is_saved(name: str, targets: tuple[str, ...], tmp_path: Path):
    network, extras = hf.load(folder_of(name))
    adapt(network, LoRA(rank=4, alpha=6, targets=targets), seed=1)
    for layer in adapters(network).values():
        torch.nn.init.normal_(layer.b, 0, 0.2)
    hf.save_adapter(network, tmp_path, extras, base=folder_of(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of keys that it misses or does not know
        model = peft.PeftModel.from_pretrained(theirs(name), str(tmp_path)).eval()
    assert apart(name, model.base_model, network) < 1e-4


def test_a_classifier_goes_along(tmp_path: Path):
    """The head and the pooler below it are peft's modules_to_save."""
    settings = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        vocab_size=97,
        num_labels=3,
        pad_token_id=1,
    )
    theirs = transformers.BertForSequenceClassification(settings).eval()
    theirs.save_pretrained(tmp_path / "base")
    network, extras = hf.load(tmp_path / "base")
    adapt(network, LoRA(rank=4))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    hf.save_adapter(network, tmp_path / "adapter", extras, base=str(tmp_path / "base"))
    model = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    again, _ = hf.load(tmp_path / "base", adapter=tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    tokens, layout = flatten(ids.tolist())
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        for one in (network, again):
            ours = one.heads.classify(one.states(tokens, layout), layout)
            assert float((ours - logits).abs().max()) < 1e-5
    model.save_pretrained(tmp_path / "theirs")
    back, _ = hf.load(tmp_path / "base", adapter=tmp_path / "theirs")
    with torch.no_grad():
        ours = back.heads.classify(back.states(tokens, layout), layout)
    assert float((ours - logits).abs().max()) < 1e-5

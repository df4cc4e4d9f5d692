"""Parity with `transformers`, architecture by architecture, on random small models: see oracles.py.

Logits, states, loss, gradients, greedy tokens, attention weights, folders saved by us, other heads.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import oracles
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from oracles import ORACLES, Batch, close
from tokenizers import Tokenizer as Library
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn

import tercet
from tercet import hf
from tercet.hf.spelling import essential
from tercet.model.attention import attention_weights

FLOATS = [torch.float32, torch.float64]
GENERATORS = [name for name, oracle in ORACLES.items() if oracle.family != "encoder"]
IGNORED = -100
LENGTHS = [11, 1, 17, 6]
CLOSE = [17, 14, 16]  # padding never lies further from its text than a window of 5 reaches


pytestmark = pytest.mark.usefixtures("one_thread")


def tolerance(name: str, dtype: torch.dtype) -> float:
    return 1e-5 if dtype is torch.float32 else ORACLES[name].float64_tolerance


# logits, states, loss, gradients -----------------------------------------------------------------


def _labels(name: str, inputs: Batch) -> tuple[Tensor, Tensor]:
    """What their loss wants (B, T) and ours (N,): the next tokens, or some random ones."""
    if ORACLES[name].family == "decoder":  # they shift, we are told
        shifted = [row[1:] + [IGNORED] for row in inputs.ids]
        return oracles.pad(inputs.ids, IGNORED)[0], torch.tensor(sum(shifted, []))
    generator = torch.Generator().manual_seed(3)
    rows = []
    for row in inputs.ids:
        drawn = torch.randint(oracles.VOCABULARY, (len(row),), generator=generator)
        kept = torch.rand(len(row), generator=generator) < 0.7
        rows.append(torch.where(kept, drawn, IGNORED).tolist())
    return oracles.pad(rows, IGNORED)[0], torch.tensor(sum(rows, []))


@pytest.mark.parametrize("dtype", FLOATS, ids=["float32", "float64"])
@pytest.mark.parametrize("name", ORACLES)
def test_logits_states_loss_and_gradients(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs, ours = oracles.pair(name, dtype)
    # in float64 their eager mask makes NaN of a padded row whose window holds no real token, and
    # no other row survives a NaN among its values
    windowed = dtype is torch.float64 and ours.config.window is not None
    inputs = oracles.batch(ORACLES[name], CLOSE if windowed else LENGTHS)
    tokens, layout, keywords = oracles.flat(inputs)
    labels, targets = _labels(name, inputs)
    allowed = tolerance(name, dtype)

    output = oracles.ask_theirs(theirs, inputs, labels=labels)
    states = ours.states(tokens, layout, **keywords)
    logits = ours.logits(states)
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORED)
    close(states, oracles.unpad(oracles.their_states(output), inputs.ids), allowed)
    their_logits = oracles.unpad(output.logits, inputs.ids)
    close(logits, their_logits, allowed)
    close(ours(tokens, layout, **keywords), logits, 0)
    # some of them round their logits to float32 for the loss; the exact one first
    reference = F.cross_entropy(their_logits, targets, ignore_index=IGNORED)
    close(loss, reference, allowed)
    torch.testing.assert_close(loss, output.loss, rtol=0, atol=1e-5, check_dtype=False)

    output.loss.backward()
    loss.backward()
    expected = _gradients_in_our_names(theirs, tmp_path)
    if ORACLES[name].architecture in ("bart", "marian"):  # there the bias is no parameter
        del expected["heads.output_bias"]
    _compare_gradients(ours, expected)


def _gradients_in_our_names(theirs: Any, folder: Path) -> dict[str, Tensor]:
    """Their gradients, written as if they were weights and read through the same table of names."""
    carrier = copy.deepcopy(theirs)
    with torch.no_grad():
        for (_, to), (_, p) in zip(
            carrier.named_parameters(), theirs.named_parameters(), strict=True
        ):
            if to.requires_grad:
                to.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
    carrier.save_pretrained(folder)
    network, _ = hf.load(folder, dtype=next(theirs.parameters()).dtype)
    return {name: p.detach() for name, p in network.named_parameters()}


def _compare_gradients(ours: nn.Module, expected: Mapping[str, Tensor]) -> None:
    """Relative to the tensor's largest; key biases, which softmax does not see, to the model's."""
    given = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert expected.keys() <= given.keys()
    largest = max(float(g.abs().max()) for g in given.values())
    for name, theirs in expected.items():
        nil = name.endswith(".k.bias")
        scale = largest if nil else float(theirs.abs().max())
        worst = float((given[name] - theirs).abs().max()) / scale
        assert worst <= 1e-4, f"{name}: off by {worst:.1e} of {scale:.1e}"


# greedy tokens -----------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", GENERATORS)
def test_32_greedy_tokens(name: str, precision: str, tmp_path: Path) -> None:
    """Of what users call, on all texts together; the words of its tokenizer are the ids."""
    theirs = ORACLES[name].build()
    theirs.config.eos_token_id = None  # or some would end before their 32 tokens
    forced = theirs.config.to_dict().get("forced_eos_token_id")
    theirs.generation_config.forced_eos_token_id = forced
    theirs.save_pretrained(tmp_path)
    theirs.to(getattr(torch, precision))
    words = Library(WordLevel({str(i): i for i in range(oracles.VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    inputs = oracles.batch(ORACLES[name], [7, 12, 3], seed=4)
    rows = inputs.sources or inputs.ids
    expected = []
    for row in rows:
        prompt = torch.tensor([row])
        got = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=32
        )[0].tolist()
        assert len(got) == 32 + (len(row) if inputs.sources is None else 1)
        expected.append(got[-32:])

    model = tercet.load(tmp_path, precision=precision)
    texts = [" ".join(map(str, row)) for row in rows]
    written = model.generate(texts, max_new_tokens=32)
    assert [answer.ids for answer in written] == expected
    assert "".join(model.stream(texts[0], max_new_tokens=32)) == written[0].text


# saving ------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("name", ORACLES)
def test_saved_folder_opens_in_transformers_and_is_the_same(name: str, tmp_path: Path) -> None:
    theirs = ORACLES[name].build()
    ours, extras = hf.load(oracles.folder_of(name))
    hf.save(ours, tmp_path, extras)
    before = safetensors.torch.load_file(Path(oracles.folder_of(name)) / "model.safetensors")
    after = safetensors.torch.load_file(tmp_path / "model.safetensors")
    everything = theirs.state_dict() | before
    assert before.keys() <= after.keys() <= everything.keys()  # shared tensors may stand once
    for key, tensor in after.items():
        assert tensor.dtype == everything[key].dtype and torch.equal(tensor, everything[key]), key

    reopened, report = _reopen(name, tmp_path)
    assert not any(report.values()), report
    inputs = oracles.batch(ORACLES[name], LENGTHS)
    expected, got = (oracles.ask_theirs(model, inputs).logits for model in (theirs, reopened))
    close(got, expected, 1e-6)
    again, _ = hf.load(tmp_path)
    assert essential(again.config) == essential(ours.config)


def _reopen(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    family = ORACLES[name].family
    auto: Any = {
        "encoder": transformers.AutoModelForMaskedLM,
        "decoder": transformers.AutoModelForCausalLM,
        "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    }[family]
    model, report = auto.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert type(model) is getattr(transformers, ORACLES[name].model_class)
    return model.eval(), report


# attention weights -------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("name", ORACLES)
def test_attention_weights(name: str) -> None:
    theirs, ours = oracles.pair(name)
    inputs = oracles.batch(ORACLES[name], LENGTHS)
    tokens, layout, keywords = oracles.flat(inputs)
    output = oracles.ask_theirs(theirs, inputs)
    found = attention_weights(ours, lambda: ours.states(tokens, layout, **keywords))
    targets, sources = inputs.ids, inputs.sources or inputs.ids
    if ORACLES[name].family == "encoder-decoder":
        kinds = {
            "encoder.blocks.{}.attention.layer": (output.encoder_attentions, sources, sources),
            "decoder.blocks.{}.attention.layer": (
                output.decoder_attentions,
                inputs.ids,
                inputs.ids,
            ),
            "decoder.blocks.{}.cross.layer": (output.cross_attentions, inputs.ids, sources),
        }
    else:
        pattern = ORACLES[name].family + ".blocks.{}.attention.layer"
        kinds = {pattern: (output.attentions, targets, targets)}
    assert len(found) == sum(len(layers) for layers, _, _ in kinds.values())
    for pattern, (layers, queries, keys) in kinds.items():
        for i, layer in enumerate(layers):
            for s, ours_s in enumerate(found[pattern.format(i)]):
                close(ours_s, layer[s, :, : len(queries[s]), : len(keys[s])], 1e-5)


# the other heads ---------------------------------------------------------------------------------

HEADS = [
    "BertModel",
    "BertForPreTraining",
    "BertForNextSentencePrediction",
    *(
        f"{prefix}For{task}"
        for prefix in ("Bert", "Roberta")
        for task in ("SequenceClassification", "TokenClassification", "QuestionAnswering")
    ),
    "RobertaModel",
    "DistilBertForTokenClassification",
    "DistilBertForQuestionAnswering",
    "EuroBertForTokenClassification",
    *(
        f"{prefix}ForSequenceClassification"
        for prefix in ("DistilBert", "ModernBert", "EuroBert", "OpenAIGPT", "GPT2", "Llama")
    ),
    *(f"{prefix}ForSequenceClassification" for prefix in ("Mistral", "Qwen2", "Qwen3")),
]


@torch.inference_mode()
@pytest.mark.parametrize("model_class", HEADS)
def test_heads(model_class: str, tmp_path: Path) -> None:
    architecture = re.split("For|Model", model_class)[0].lower().replace("openaigpt", "gpt1")
    settings = ORACLES[architecture].settings | {"num_labels": 5}
    if not model_class.endswith("Classification"):
        settings["num_labels"] = 2
    if model_class == "EuroBertForSequenceClassification":
        settings["classifier_pooling"] = "mean"  # the default is refused, see test_hf_settings
    oracle = oracles.Oracle(architecture, model_class, settings)
    theirs = oracle.build()
    theirs.save_pretrained(tmp_path / "theirs")
    ours, extras = hf.load(tmp_path / "theirs")
    inputs = oracles.batch(oracle, LENGTHS)
    tokens, layout, keywords = oracles.flat(inputs)
    output, states = oracles.ask_theirs(theirs, inputs), ours.states(tokens, layout, **keywords)
    heads: Any = ours.heads
    pairs = {  # by the name of their output
        "last_hidden_state": lambda: states,
        "pooler_output": lambda: heads.pooler_output(states, layout),
        "prediction_logits": lambda: ours.logits(states),
        "seq_relationship_logits": lambda: heads.next_sentence_logits(states, layout),
        "start_logits": lambda: heads.spans(states)[:, 0],
        "end_logits": lambda: heads.spans(states)[:, 1],
    }
    if model_class.endswith("SequenceClassification"):
        pairs["logits"] = lambda: heads.classify(states, layout)
    elif model_class.endswith("TokenClassification"):
        pairs["logits"] = lambda: heads.tag(states)
    else:
        pairs["logits"] = pairs["seq_relationship_logits"]
    asked = [key for key in output if key in pairs]
    assert asked
    for key in asked:
        expected = output[key]
        if expected.shape[:2] == (len(LENGTHS), max(LENGTHS)):
            expected = oracles.unpad(expected, inputs.ids)
        close(pairs[key](), expected, 1e-5)

    hf.save(ours, tmp_path / "ours", extras)
    reopened, report = getattr(transformers, model_class).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(report.values()), report
    expected = theirs.state_dict()
    assert all(torch.equal(t, expected[key]) for key, t in reopened.state_dict().items())

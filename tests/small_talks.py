"""Tiny models with a chat template, conversations and pairs of answers, and recipes that tune the
one on the others."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from small_tables import TEXTS, WORDS
from torch import Tensor, nn

from tercet import hf
from tercet.jobs import recipe as recipes
from tercet.jobs.train.run import Run
from tercet.language_model import LanguageModel
from tercet.model import Network, build
from tercet.presets import preset
from tercet.text import train_tokenizer
from tercet.text.chat import CHATML_TOKENS

ANSWER = "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
# Nothing stands behind an answer's end, as others learn that too.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}" + ANSWER + "{% else %}"
    "{{ message.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIZES: dict[str, Any] = {
    "d_model": 32,
    "d_ff": 48,
    "n_heads": 2,
    "n_kv_heads": 1,
    "d_head": 16,
    "decoder_layers": 2,
    "context_length": 128,
    "init_std": 0.15,
    "bos_id": None,
}
RECIPE = """
model: {{folder: {folder}/{model}}}
data: {{files: ["{folder}/{kind}.jsonl"], validation: 0.2}}
objective: {{kind: {kind}, length: 96}}
batch: {{tokens: 600}}
train: {{steps: 6, learning_rate: 3e-3, optimizer: adamw, warmup: 2}}
evaluate: {{every: 3}}
checkpoint: {{every: 3}}
"""


def talker(folder: Path, *, seed: int = 4, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A decoder with random weights; without a template a base model, which knows no turns."""
    tokenizer = train_tokenizer(TEXTS, kind="bpe", vocab_size=330, special="decoder")
    if template is not None:
        tokenizer = tokenizer.with_special(CHATML_TOKENS, chat_template=template)
    end = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    told = {"vocab_size": tokenizer.vocab_size, "pad_id": tokenizer.pad_id, "eos_ids": end}
    config = preset("tercet-tiny-decoder").replace(**{**SIZES, **told, **changes})
    LanguageModel(build(config, seed=seed), tokenizer).save(folder)
    return folder


def conversation(draw: random.Random, turns: int) -> list[dict[str, str]]:
    found = []
    for _ in range(turns):
        words = draw.choices(WORDS, k=draw.randint(1, 6))
        answer = " ".join(words[: draw.randint(1, 6)])
        found.append({"role": "user", "content": "repeat " + " ".join(words)})
        found.append({"role": "assistant", "content": answer})
    return found


def write_talks(folder: Path, n: int = 60) -> None:
    """instruct.jsonl, conversations of one to three turns, and prefer.jsonl."""
    draw = random.Random(3)
    talks = [{"messages": conversation(draw, draw.randint(1, 3))} for _ in range(n)]
    choices = []
    for _ in range(n):
        *prompt, chosen = conversation(draw, draw.randint(1, 2))
        rejected = {"role": "assistant", "content": chosen["content"] + " two"}
        choices.append({"prompt": prompt, "chosen": [chosen], "rejected": [rejected]})
    for name, rows in (("instruct", talks), ("prefer", choices)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)


def recipe(folder: Path, kind: str, *changes: str, model: str = "talker") -> Any:
    text = RECIPE.format(folder=folder, kind=kind, model=model)
    return recipes.parse(text, changes=changes)


def prepared(folder: Path, kind: str, *changes: str, model: str = "talker") -> Run:
    """A run whose data is compiled."""
    run = Run.of(folder / "run", recipe(folder, kind, *changes, model=model))
    run.check()
    run.prepare()
    return run


def their_gradients(network: Network, gradient: Tensor, folder: Path) -> dict[str, Tensor]:
    """One long gradient, as `verify.measured` gives it, by the names of a Hugging Face file."""
    sizes = [parameter.numel() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter, part in zip(network.parameters(), gradient.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))
    hf.save(network, folder)
    return load_file(folder / "model.safetensors")


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The length of the difference of two gradients, as a share of their length."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    apart = torch.cat([(ours[name] - theirs[name]).flatten() for name in ours])
    return float(apart.norm() / torch.cat([g.flatten() for g in theirs.values()]).norm())


def named_gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None
    }

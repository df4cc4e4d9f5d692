"""Run by an environment with TRL: one step of its trainers on a folder's model, its loss and its
gradient before any update. `python trl_step.py SETTINGS.json`"""

import json
import sys
from pathlib import Path

import torch
from datasets import load_dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

asked = json.loads(Path(sys.argv[1]).read_text())
place = Path(asked["place"])
prefers = asked["kind"] == "prefer"


class Keep(TrainerCallback):
    """The gradients that a step has gathered."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        named = model.named_parameters()
        self.found = {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


class Summed:
    """A trainer that remembers the loss of all its micro-batches."""

    total = 0.0

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.total += float(loss)
        return loss


def rollouts(prompts, trainer):
    """The answers that were written before, with their worth; each prompt is its group's number."""
    groups, given = json.loads(Path(asked["groups"]).read_text()), {}
    found = []
    for prompt in prompts:
        given[prompt] = given.get(prompt, -1) + 1
        found.append(groups[int(prompt)][given[prompt]])
    return {name: [one[name] for one in found] for name in found[0]} | {"logprobs": None}


def worth(completions, worth, **_):
    return worth


def model(name):
    return AutoModelForCausalLM.from_pretrained(asked[name], dtype=torch.float32)


for batch, pieces in asked["cuts"]:
    told = {
        "output_dir": str(place / "trl"),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": pieces,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "learning_rate": 0.0,
        "report_to": [],
        "save_strategy": "no",
        "bf16": False,
        "fp16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    keep = Keep()
    rows = load_dataset("json", data_files=asked["rows"], split="train")
    parts = {
        "train_dataset": rows,
        "processing_class": AutoTokenizer.from_pretrained(asked["policy"]),
        "callbacks": [keep],
    }
    if prefers:
        settings = DPOConfig(**told, beta=0.1, max_length=None)
        kind = type("Watched", (Summed, DPOTrainer), {})
        trainer = kind(model("policy"), model("reference"), args=settings, **parts)
    elif asked["kind"] == "reward":
        settings = GRPOConfig(
            **told, beta=0.04, num_generations=asked["samples"], temperature=asked["temperature"]
        )
        kind = type("Watched", (Summed, GRPOTrainer), {})
        how = {"reward_funcs": worth, "args": settings, "rollout_func": rollouts}
        trainer = kind(model("policy"), **how, **parts)
        trainer.ref_model.load_state_dict(model("reference").state_dict())
    else:
        packed = asked["kind"] == "packed"
        settings = SFTConfig(**told, assistant_only_loss=True, packing=packed, max_length=200)
        kind = type("Watched", (Summed, SFTTrainer), {})
        trainer = kind(model("policy"), args=settings, **parts)
    trainer.train()
    name = f"{asked['kind']}-{pieces}"
    save_file({k: v.contiguous() for k, v in keep.found.items()}, place / f"{name}.safetensors")
    facts = {"loss": trainer.total, "rows": len(trainer.train_dataset)}
    (place / f"{name}.json").write_text(json.dumps(facts))

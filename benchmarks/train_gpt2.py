"""A training step of GPT-2's 124 M shapes: 2 x 512 tokens, bfloat16 by autocast, AdamW.

Peak memory: the largest resident size less what was resident after imports and the bytes of
weights, gradients and optimizer state, which every tool holds.

    NANOGPT_DIR=... make benchmark JOB=train_gpt2
"""

from __future__ import annotations

from compare import Figures, main, memory, timed
from train_char import Speed, checkout

ROWS, LENGTH, VOCABULARY = 2, 512, 50_257
STEPS, WARM = 6, 2


def _ids():
    import torch

    draw = torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=draw)


def tercet() -> Figures:
    import torch

    from tercet.data import Batch
    from tercet.kernels.memory import keep_pages
    from tercet.model import Layout, build
    from tercet.presets import preset
    from tercet.train import CrossEntropy, Optimizer, Recipe, fit

    ids = _ids()
    imported = memory("VmRSS")
    keep_pages()
    config = preset("gpt2").replace(context_length=LENGTH, dropout=0.0, attention_dropout=0.0)
    network = build(config)
    tokens, targets = ids[:, :-1].flatten(), ids[:, 1:].flatten()
    batch = Batch(tokens, Layout([LENGTH] * ROWS), targets)
    speed = Speed(ROWS * LENGTH, WARM)
    fit(
        network,
        lambda step: [batch],
        CrossEntropy(),
        Recipe(1e-4, steps=WARM + STEPS, bfloat16=True, spike=0),
        Optimizer(network),
        actions=[(1, speed)],
    )
    assert torch.isfinite(network.tokens.weight).all()
    return _figures(speed.tokens_per_second(), imported, network)


def _figures(speed: float, imported: int, network) -> Figures:
    held = 4 * 4 * sum(p.numel() for p in network.parameters())  # weight, gradient, two moments
    return {
        "tokens/s": speed,
        "peak MiB over weights, gradients, optimizer": (memory("VmHWM") - imported - held) / 2**20,
    }


def _timed(model, optimizer, loss_of) -> float:
    import torch

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return timed(step, lambda: ROWS * LENGTH, STEPS, WARM)


def nanogpt(compiled: bool) -> Figures:
    import torch

    GPT, GPTConfig = checkout()
    ids = _ids()
    imported = memory("VmRSS")
    shape = dict(n_layer=12, n_head=12, n_embd=768, dropout=0.0, bias=True)
    model = GPT(GPTConfig(block_size=LENGTH, vocab_size=50_304, **shape))
    optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), "cpu")
    x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    called = torch.compile(model) if compiled else model
    return _figures(_timed(model, optimizer, lambda: called(x, y)[1]), imported, model)


def transformers() -> Figures:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    ids = _ids()
    imported = memory("VmRSS")
    plain = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
    model = GPT2LMHeadModel(GPT2Config(attn_implementation="sdpa", **plain)).train()
    settings = dict(betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, **settings)
    x = ids[:, :-1].contiguous()
    speed = _timed(model, optimizer, lambda: model(input_ids=x, labels=x).loss)
    return _figures(speed, imported, model)


if __name__ == "__main__":
    sides = {
        "tercet": tercet,
        "nanoGPT": lambda: nanogpt(False),
        "nanoGPT compiled": lambda: nanogpt(True),
        "transformers": transformers,
    }
    job = "training step, 124 M parameters, 2 x 512 tokens, bfloat16"
    main(job, sides, key="tokens/s", prepare=lambda: {"": (6 * 124.4e6, "bfloat16")})

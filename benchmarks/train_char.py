"""A training step at nanoGPT's setting for characters of Shakespeare on a CPU: 4 layers, 4 heads,
width 128, context 64, 12 rows a step, no dropout, float32. nanoGPT is a checkout that NANOGPT_DIR
names; the text is found by TERCET_DATA.

    NANOGPT_DIR=... make benchmark JOB=train_char
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from compare import Absent, Figures, main, timed

ROWS, LENGTH = 12, 64
STEPS, WARM = 150, 20


def _text() -> tuple[list[int], int]:
    data = Path(os.environ.get("TERCET_DATA", "../shared/data")) / "tinyshakespeare" / "input.txt"
    if not data.exists():
        raise Absent(f"{data} is not there; set TERCET_DATA")
    text = data.read_text()
    number = {c: i for i, c in enumerate(sorted(set(text)))}
    return [number[c] for c in text[: int(0.9 * len(text))]], len(number)


def tercet() -> Figures:
    import torch

    from tercet.data import Causal, Rows, Stream, Tokens
    from tercet.kernels.memory import keep_pages
    from tercet.model import build
    from tercet.presets import preset
    from tercet.train import CrossEntropy, Optimizer, Recipe, fit

    torch.manual_seed(0)
    text, size = _text()
    config = preset("gpt2").replace(
        **dict(vocab_size=size, context_length=LENGTH, d_model=128, d_ff=512, n_heads=4),
        **dict(decoder_layers=4, dropout=0.0, attention_dropout=0.0),
        **dict(qkv_bias=False, attention_bias=False, ff_bias=False, norm_bias=False),
    )
    keep_pages()
    network = build(config)
    data = Stream(Rows(Tokens.of([text], None), LENGTH, ROWS), Causal())
    speed = Speed(ROWS * LENGTH)
    fit(
        network,
        data,
        CrossEntropy(),
        Recipe(1e-3, steps=WARM + STEPS),
        Optimizer(network, betas=(0.9, 0.99)),
        actions=[(1, speed)],
    )
    return {"tokens/s": speed.tokens_per_second()}


class Speed:
    """An action for every step of the loop."""

    def __init__(self, tokens: int, warm: int = WARM) -> None:
        self.tokens, self.warm, self.times = tokens, warm, []

    def __call__(self, state: object) -> None:
        import time

        self.times.append(time.perf_counter())

    def tokens_per_second(self) -> float:
        ends = self.times[self.warm - 1 :]
        return self.tokens * (len(ends) - 1) / (ends[-1] - ends[0])


def nanogpt(compiled: bool) -> Figures:
    import torch

    GPT, GPTConfig = checkout()
    text, size = _text()
    torch.manual_seed(0)
    stream = torch.tensor(text)
    shape = dict(n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False)
    model = GPT(GPTConfig(block_size=LENGTH, vocab_size=size, **shape))
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    if compiled:
        model = torch.compile(model)

    def step() -> None:
        starts = torch.randint(len(stream) - LENGTH, (ROWS,)).tolist()
        x = torch.stack([stream[i : i + LENGTH] for i in starts])
        y = torch.stack([stream[i + 1 : i + 1 + LENGTH] for i in starts])
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return {"tokens/s": timed(step, lambda: ROWS * LENGTH, STEPS, WARM)}


def checkout():
    """GPT and GPTConfig of the peer's own file."""
    folder = os.environ.get("NANOGPT_DIR")
    if not folder:
        raise Absent("NANOGPT_DIR names no checkout of karpathy/nanoGPT")
    sys.path.insert(0, folder)
    sys.stdout = sys.stderr  # it prints while it is built
    from model import GPT, GPTConfig

    sys.stdout = sys.__stdout__
    return GPT, GPTConfig


if __name__ == "__main__":
    sides = {
        "tercet": tercet,
        "nanoGPT": lambda: nanogpt(False),
        "nanoGPT compiled": lambda: nanogpt(True),
    }
    job = "training step, characters, 0.8 M parameters, float32"
    main(job, sides, key="tokens/s", prepare=lambda: {"": (6 * 0.8e6, "float32")})

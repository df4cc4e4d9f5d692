"""How long until nanoGPT's final loss on characters of Shakespeare, start-up included.

nanoGPT runs its own script at its README's CPU setting (2,000 iterations); we run a recipe of as
many parameters and no longer context. Both are then measured alike: nats a character over the whole
validation split, in blocks of 64, each by itself.

    NANOGPT_DIR=... make benchmark JOB=train_char_loss
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from compare import Absent, Figures, main

LENGTH = 64
RECIPE = "shakespeare-char-fast"
# README of nanoGPT, "I only have a macbook"
SETTING = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12"
    " --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)


def _text() -> Path:
    data = Path(os.environ.get("TERCET_DATA", "../shared/data")) / "tinyshakespeare" / "input.txt"
    if not data.exists():
        raise Absent(f"{data} is not there; set TERCET_DATA")
    return data.resolve()


def _loss(logits_of: Callable, ids: list[int]) -> float:
    """Nats a character of ids, in blocks of LENGTH."""
    import torch
    from torch.nn import functional as F

    stream, total, count = torch.tensor(ids), 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(stream) - 1, LENGTH):
            block = stream[start : start + LENGTH + 1]
            total += float(F.cross_entropy(logits_of(block[:-1]), block[1:], reduction="sum"))
            count += len(block) - 1
    return total / count


def _validation(text: str) -> str:
    return text[int(0.9 * len(text)) :]


def tercet() -> Figures:
    path = _text()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        started = time.perf_counter()
        command = [sys.executable, "-m", "tercet", "train", RECIPE, "--folder", str(folder)]
        data = {"TERCET_DATA": str(path.parent.parent)}
        subprocess.run([*command, "--quiet"], check=True, env={**os.environ, **data})
        seconds = time.perf_counter() - started
        import tercet as package
        from tercet.model import Layout

        model = package.load(folder / "model")
        ids = model.tokenizer.encode(_validation(path.read_text()), special=False)

        def logits(block):
            return model.network(block, Layout([len(block)])).float()

        return _figures(seconds, _loss(logits, ids), model.network)


def _figures(seconds: float, loss: float, network) -> Figures:
    parameters = sum(p.numel() for p in network.parameters())
    return {"seconds": seconds, "loss": loss, "parameters": parameters, "1/s": 1 / seconds}


def nanogpt() -> Figures:
    folder = os.environ.get("NANOGPT_DIR")
    if not folder:
        raise Absent("NANOGPT_DIR names no checkout of karpathy/nanoGPT")
    path = _text()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "checkout"
        shutil.copytree(folder, place)
        data = place / "data" / "shakespeare_char"
        shutil.copy(path, data / "input.txt")
        (place / "requests.py").touch()  # its prepare.py would download what is there already
        quiet = dict(check=True, stdout=subprocess.DEVNULL, cwd=place)
        path_of = {**os.environ, "PYTHONPATH": str(place)}
        subprocess.run([sys.executable, "data/shakespeare_char/prepare.py"], env=path_of, **quiet)
        (place / "requests.py").unlink()
        command = [sys.executable, "train.py", "config/train_shakespeare_char.py"]
        started = time.perf_counter()
        subprocess.run([*command, *SETTING.split()], **quiet)
        seconds = time.perf_counter() - started
        import torch

        sys.path.insert(0, str(place))
        from model import GPT, GPTConfig

        kept = torch.load(place / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
        sys.stdout, out = sys.stderr, sys.stdout  # it prints while it is built
        model = GPT(GPTConfig(**kept["model_args"])).eval()
        sys.stdout = out
        model.load_state_dict(kept["model"])
        text = path.read_text()
        number = {c: i for i, c in enumerate(sorted(set(text)))}

        def logits(block):
            return model(block[None], block[None])[0][0]  # with targets it gives every position

        ids = [number[c] for c in _validation(text)]
        return _figures(seconds, _loss(logits, ids), model)


if __name__ == "__main__":
    main("until nanoGPT's loss", {"tercet": tercet, "nanoGPT": nanogpt}, key="1/s")

"""What the model that a run began with says of every pair of answers: computed once, kept beside
the run, and gone on with where it was interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tercet.data import Answers, Batch, Choices, Sample
from tercet.data.preparation import Progress
from tercet.files import written
from tercet.model import Network
from tercet.train.preference import answer_likelihoods

PAIR = np.dtype(("<f8", (2,)))  # of the chosen answer and of the other, in nats


def reference(
    path: Path,
    key: dict[str, str],
    pairs: Choices,
    measure: Callable[[Batch], Tensor],
    at_once: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """(n, 2) log-probabilities of both answers of each pair; those that lie in `path` already are
    read. key: of model and data; under another key all are computed anew. at_once: tokens."""
    about = path.with_name(f"{path.name}.json")
    if not about.exists() or json.loads(about.read_text(encoding="utf-8")) != key:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        with written(about) as draft:
            draft.write_text(json.dumps(key), encoding="utf-8")
    path.touch()
    done = path.stat().st_size // PAIR.itemsize
    if done < len(pairs):
        os.truncate(path, done * PAIR.itemsize)  # half a pair, left by a kill
        with path.open("ab", buffering=0) as file:
            for samples in _batches(pairs, done, at_once):
                found = measure(Answers().batch(samples)).double().cpu().numpy()
                file.write(found.astype("<f8").tobytes())
                done += len(samples)
                if progress is not None:
                    progress("reference", done, len(pairs), 0)
            os.fsync(file.fileno())
    return np.fromfile(path, PAIR)


def measured(network: Network, device: torch.device, bfloat16: bool) -> Callable[[Batch], Tensor]:
    """The log-probabilities of a batch's sequences under a network as it stands."""
    network = network.to(device).eval()

    @torch.no_grad()
    def measure(batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return answer_likelihoods(network, batch.to(device))

    return measure


def _batches(pairs: Choices, first: int, at_once: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    size = 0
    for number in range(first, len(pairs)):
        sample = pairs.sample(0, number)
        if batch and size + sample.n_tokens > at_once:
            yield batch
            batch, size = [], 0
        batch.append(sample)
        size += sample.n_tokens
    if batch:
        yield batch

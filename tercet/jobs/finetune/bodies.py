"""A pretrained body under a task's new head; and what tag and answer share, the files of each split
and a head that reads single tokens.
"""

from __future__ import annotations

from typing import Any

from tercet.config import TransformerConfig
from tercet.data.sources import found
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune.settings import Data
from tercet.jobs.finetune.task import TEST, TRAIN, VALIDATION
from tercet.model import Network, build


def files_of(data: Data) -> dict[str, list[str]]:
    """The files of each split that has some; a share of the training rows is no file."""
    held = data.validation if isinstance(data.validation, list) else []
    named = {TRAIN: data.train, VALIDATION: held, TEST: data.test}
    return {name: found(recipes.expanded(files)) for name, files in named.items() if files}


def dropping(config: TransformerConfig, share: float) -> dict[str, Any]:
    """What changes in a config for this dropout: in body and head, and inside attention and
    feed-forward where the model had some there (BERT in attention, T5 in both)."""
    inside = ("attention_dropout", "activation_dropout")
    names = ("dropout", "head_dropout", *(name for name in inside if getattr(config, name)))
    return dict.fromkeys(names, share)


def under_head(
    network: Network, head: str, seed: int, *, n_labels: int = 2, dropout: float = 0.0
) -> Network:
    """A network with the same body under a new ``head``; the old heads go, and of an
    encoder-decoder the decoder too. dropout: see ``dropping``."""
    config = network.config
    config = config.replace(heads=(head,), n_labels=n_labels, **dropping(config, dropout))
    if config.family == "encoder-decoder":
        config = config.replace(decoder_layers=0, start_id=None)
    return with_body(network, config, head, seed)


def with_body(network: Network, config: TransformerConfig, head: str, seed: int) -> Network:
    """A network of ``config`` with all the weights that ``network`` has for it, but for ``head``,
    which is new."""
    new = build(config, seed)
    own = {n: t for n, t in network.state_dict().items() if not n.startswith(f"heads.{head}.")}
    kept = {name: own[name] for name in new.state_dict() if name in own}
    missing = new.load_state_dict(kept, strict=False).missing_keys
    assert all(name.startswith("heads.") for name in missing), missing  # a pooler is new too
    return new

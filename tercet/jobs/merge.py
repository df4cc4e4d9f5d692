"""The verb `merge`: an adapter goes into the weights of its base, and what that changes is said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from tercet.errors import InputError
from tercet.jobs.flags import Named, print_json, say, unset

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.language_model import LanguageModel

PROBE = "The quick brown fox jumps over the lazy dog. 0123456789"


def run(
    model: Named,
    *,
    out: Annotated[Path, arg(metavar="FOLDER", help_behavior_hint="")],
    base: Annotated[str | None, unset("MODEL")] = None,
    text: str = PROBE,
    json: bool = False,
) -> None:
    """Add a low-rank adapter (a folder of peft's format) into its base, and save the whole model.

    What the merge changed is measured in float32 on a text: the largest and the mean absolute
    difference of the logits, or of the states of a model that has none, before and after, beside
    the mean size of what is compared.

      tercet merge runs/adapter --out runs/merged

    Args:
        out: where the merged model is written
        base: the model below, where the adapter's folder does not name it
        text: what the difference is measured on
        json: the figures as one JSON object
    """
    from tercet.language_model import load
    from tercet.model.lora import adapters

    name = model.named()
    how = {"allow_pickle": model.allow_pickle, "context": model.context}
    loaded = load(name, **how) if base is None else load(base, adapter=name, **how)
    count = len(adapters(loaded.network))
    if not count:
        raise InputError(f"{name} holds no adapter, so there is nothing to merge")
    before = answer(loaded, text)
    merged = loaded.merged()
    merged.save(out)
    after = answer(load(out, context=model.context), text)  # as it will be read again
    apart = (after - before).abs()
    told = {
        "adapter": name,
        "base": loaded.base,
        "merged": str(out),
        "layers": count,
        "compared": "logits" if has_logits(loaded) else "states",
        "values": apart.numel(),
        "largest_difference": float(apart.max()),
        "mean_difference": float(apart.mean()),
        "mean_size": float(before.abs().mean()),
    }
    if json:
        print_json(told)
        return
    print(
        f"{told['compared']} before and after: largest difference "
        f"{told['largest_difference']:.2e}, mean {told['mean_difference']:.2e} "
        f"(their mean size: {told['mean_size']:.3g})"
    )
    say(f"{count} layers merged; the model is in {out}")


def has_logits(model: LanguageModel) -> bool:
    return bool({"language", "masked", "classifier"} & set(model.config.heads))


def answer(model: LanguageModel, text: str) -> Tensor:
    """What the network makes of a text: (N, V) logits, (1, labels) of a classifier, or states (N,
    D)."""
    import torch

    from tercet.model import flatten

    ids = model.tokenizer.encode(text)[: model.limit]
    if not ids:
        raise InputError(f"--text {text!r} has no token; give a sentence")
    tokens, layout = flatten([ids])
    source = {}
    if model.config.family == "encoder-decoder":
        source = {"source": tokens, "source_layout": layout}
        tokens, layout = flatten([[model.config.start_id or 0, *ids][: model.limit]])
    network = model.network
    with torch.no_grad():
        states = network.states(tokens, layout, **source)
        if not has_logits(model):
            return states
        if "classifier" in model.config.heads:
            return network.heads.classify(states, layout)  # type: ignore[union-attr]
        return network.logits(states)

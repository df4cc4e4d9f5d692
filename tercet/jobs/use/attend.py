"""The verb `attend`: a page with the attention maps of every layer and head over one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from tercet.files import writable
from tercet.jobs.flags import Model, Text, say, unset

TITLES = {
    "encoder": ("Encoder", "Each token looks at all the others, before and after it."),
    "decoder": ("Decoder", "Each token looks back only: what comes after it is masked."),
    "cross": ("Cross-attention", "The tokens being written look at the text that was read."),
}


def run(
    model: Model,
    text: Text,
    *,
    target: Annotated[str | None, unset("TEXT")] = None,
    out: Annotated[Path, arg(metavar="FILE")] = Path("attention.html"),
) -> None:
    """Writes a page that shows who attends to whom: every layer, every head.

    The page keeps a weight in 8 bits, within 0.4 percentage points of the exact one; the exact ones
    are in Python, `tercet.load(MODEL).attention(TEXT)`.

      tercet attend runs/quickstart/encoder "The cat sat on the mat." --out cat.html

    Args:
        target: what an encoder-decoder's decoder reads; without it, what the model writes itself
        out: the page, one file that opens in any browser
    """
    from tercet.report import Page, attention_map

    said = text.one()
    writable(out)
    network = model.load("attend")
    maps = network.attention(said, target)
    page = Page("Attention", kicker=f"tercet attend {model.model}", lead=said)
    for kind, found in maps.items():
        title, meaning = TITLES[kind]
        shown = attention_map(found.weights, found.queries, found.keys, title="Who looks at whom")
        page.section(title, meaning, shown)
    page.write(out)
    say(f"{out}: {len(maps)} {'map' if len(maps) == 1 else 'maps'}; open it in a browser")

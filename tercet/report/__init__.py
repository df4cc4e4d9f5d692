"""Pages from plain data: self-contained HTML with plots and attention maps.

Knows nothing of models, tokenizers or runs: numbers, strings and arrays come in, a file goes out.
"""

from tercet.report.attention import attention_map
from tercet.report.confusion import confusion_matrix
from tercet.report.map import TextMap
from tercet.report.markup import Html
from tercet.report.masks import masks_page
from tercet.report.page import Page
from tercet.report.picture import Panel, picture
from tercet.report.pieces import (
    Fact,
    answers,
    code,
    commands,
    difference,
    facts,
    fill,
    fold,
    quote,
    sample,
    side_by_side,
    table,
    text,
)
from tercet.report.plots import Series, in_stretches, line_plot
from tercet.report.scales import Axis

__all__ = [
    "Axis",
    "Fact",
    "Html",
    "Page",
    "Panel",
    "Series",
    "TextMap",
    "answers",
    "attention_map",
    "code",
    "commands",
    "confusion_matrix",
    "difference",
    "facts",
    "fill",
    "fold",
    "in_stretches",
    "line_plot",
    "masks_page",
    "picture",
    "quote",
    "sample",
    "side_by_side",
    "table",
    "text",
]

"""What a step of a run reads: the very texts, and where they lie in the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tercet.jobs.flags import print_json

if TYPE_CHECKING:
    from tercet.data import Sample
    from tercet.jobs.train.run import Run


def show_step(run: Run, step: int, *, json: bool) -> None:
    """The texts of a step, each below the place that it comes from."""
    for read in texts(run, step):
        if json:
            print_json(read)
            continue
        print(f"== {read['origin']}, from its token {read['from']:,} on: {read['tokens']:,} tokens")
        print(read["text"])
        if read["second"] is not None:
            print(f"-- {SECOND.get(read['label'], 'its translation')}:\n{read['second']}")


SECOND = {0: "the text that follows", 1: "a text from elsewhere"}


def texts(run: Run, step: int) -> Iterator[dict[str, Any]]:
    """A dictionary a sample; before anything is masked or cut out of it."""
    translated = run.recipe.objective.kind == "pairs"
    for sample in run.stream().samples(step):
        source, tokenizer = source_of(run, sample), run.tokenizer
        other = tokenizer.target if translated else tokenizer
        begins = int(run.corpus.sources[source].train.starts[sample.document])
        second = sample.second
        yield {
            "key": list(sample.key),
            "origin": origin(run, sample),
            "from": sample.start - begins,
            "tokens": sample.n_tokens,
            "text": tokenizer.decode(sample.ids.tolist(), skip_special=False),
            "second": None if second is None else other.decode(second.tolist(), skip_special=False),
            "label": sample.label if isinstance(sample.label, int | None) else None,
        }


def source_of(run: Run, sample: Sample) -> str:
    """The name of the source that a training sample was drawn from."""
    names = [name for name, source in run.corpus.sources.items() if len(source.train)]
    return names[sample.key[0]] if len(names) > 1 else names[0]


def origin(run: Run, sample: Sample) -> str:
    """Where a training sample comes from, for people: "novels/emma.txt, document 17"."""
    return run.corpus.origin(source_of(run, sample), "train", sample.document)

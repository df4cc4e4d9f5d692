"""The command `tercet`: finds the verb, makes flags of its function, says what went wrong.

A verb is a typed function in `jobs/`; its module is loaded when the verb runs, so that asking for
help costs nothing. Knows no verb's business.
"""

from __future__ import annotations

import difflib
import errno
import functools
import inspect
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib import import_module

from tercet.errors import InputError

VERBS = {
    "quickstart": ("tercet.jobs.quickstart:run", "train and use all three families, in minutes"),
    "info": ("tercet.jobs.info:run", "what a model is, and the memory that it needs"),
    "tokenizer train": ("tercet.jobs.tokenizer:train", "make a tokenizer from text files"),
    "train": ("tercet.jobs.train.job:run", "pretrain a model on your files by a recipe"),
    "finetune": (
        "tercet.jobs.finetune:run",
        "a pretrained model for your task, from labelled rows",
    ),
    "merge": ("tercet.jobs.merge:run", "add an adapter into the weights of its base"),
    "convert": ("tercet.jobs.convert:run", "a model of another family from the same weights"),
    "runs": ("tercet.jobs.runs:run", "list training runs, or compare them"),
    "report": ("tercet.jobs.runs.report:run", "a page that shows how a run went"),
    "verify": ("tercet.jobs.train.verify:run", "prove that a step's gradient has no cut in it"),
    "reproduce": ("tercet.jobs.reproduce:run", "train, and set our figures beside published ones"),
    "replay": ("tercet.jobs.train.replay:run", "run one step of a run again and see what broke"),
    "data prepare": ("tercet.jobs.data:prepare", "tokenise files into a folder to train from"),
    "data show": ("tercet.jobs.data:show", "what a folder, a step or conversations hold"),
    "data masks": ("tercet.jobs.data.masks:run", "a page that shows what is masked"),
    "generate": ("tercet.jobs.use.generate:run", "continue a text"),
    "chat": ("tercet.jobs.use.chat:run", "talk with a model"),
    "fill": ("tercet.jobs.use.fill:run", "the likeliest words for each [MASK]"),
    "classify": ("tercet.jobs.use.classify:run", "labels for texts, by a model fine-tuned for it"),
    "tag": ("tercet.jobs.use.tag:run", "the entities of a text, or its parts of speech"),
    "answer": ("tercet.jobs.use.answer:run", "where a text answers a question"),
    "translate": ("tercet.jobs.use.translate:run", "translate or summarise, by beam search"),
    "attend": ("tercet.jobs.use.attend:run", "a page that shows who attends to whom"),
    "embed": ("tercet.jobs.use.embed:run", "texts to vectors"),
    "search": ("tercet.jobs.collection.search:run", "passages of a collection that answer a query"),
    "index show": (
        "tercet.jobs.collection.index:show",
        "what a collection holds, and what made its vectors",
    ),
    "index tune": (
        "tercet.jobs.collection.index:tune",
        "which way of searching your own queries prefer",
    ),
    "index upgrade": (
        "tercet.jobs.collection.index:upgrade",
        "another model's vectors for a collection",
    ),
    "index delete": ("tercet.jobs.collection.index:delete", "remove passages from a collection"),
    "cluster": (
        "tercet.jobs.collection.cluster:run",
        "what texts are about: topics, named, and a map",
    ),
    "rank": ("tercet.jobs.use.rank:run", "texts in the order in which they answer a query"),
    "score": ("tercet.jobs.use.score:run", "how likely texts are: perplexity"),
    "evaluate perplexity": (
        "tercet.jobs.evaluate.perplexity:run",
        "of held-out files, also by position; what few bits or a longer context cost",
    ),
    "evaluate choice": (
        "tercet.jobs.evaluate.choice:run",
        "how often the right one of several is likeliest",
    ),
    "evaluate lambada": (
        "tercet.jobs.evaluate.choice:last_word",
        "whether passages' last words are known",
    ),
    "evaluate instructions": (
        "tercet.jobs.evaluate.instructions:run",
        "how often a model does what it is told, by rules",
    ),
    "evaluate retrieval": (
        "tercet.jobs.evaluate.retrieval:run",
        "how well what was judged to answer is found, by meaning and by words",
    ),
    "evaluate clustering": (
        "tercet.jobs.evaluate.clustering:run",
        "how well topics, or groups by a model's vectors, agree with labels",
    ),
    "compare": (
        "tercet.jobs.evaluate.compare:run",
        "whether one model is better, of two evaluations",
    ),
}


# How long a thread of torch's waits awake for the others before it sleeps, in turns of a loop. By
# default some milliseconds: beside another program on two cores each holds up the other, and a
# small step took nine times as long (docs/LOG.md). Read when torch is loaded, so set before.
AWAKE = "2000"


def main() -> None:
    """The console script."""
    os.environ.setdefault("GOMP_SPINCOUNT", AWAKE)
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """The exit code: 0, 2 for what the user can mend, 130 after Ctrl-C. Bugs are raised."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = dispatch(args)
        sys.stdout.flush()
        return code
    except InputError as error:
        print("tercet: " + "; ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntercet: stopped", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EPIPE):
            raise
        # What is still held back would fail once more while Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # the reader (head, less) has left
            return 141
        print(f"tercet: the output cannot be written ({error.strerror})", file=sys.stderr)
        return 2


def dispatch(args: Sequence[str]) -> int:
    """Runs a verb. Its function returns an exit code where some items failed and others ran."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if args[0] == "--version":
        from tercet import __version__

        print(f"tercet {__version__}")
        return 0
    verb, rest = find_verb(args)
    module, _, name = VERBS[verb][0].partition(":")
    function = getattr(import_module(module), name)
    return parse(function, verb, rest)() or 0


def overview() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:{width}}{meaning}" for verb, (_, meaning) in VERBS.items()]
    return "\n".join(
        [
            "usage: tercet VERB ...",
            "",
            "One Transformer for three families: encoder, decoder, encoder-decoder.",
            "",
            *lines,
            "",
            "tercet VERB --help tells more, with an example. Start with: tercet quickstart",
        ]
    )


def find_verb(args: Sequence[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and the arguments behind it."""
    for words in (2, 1):
        verb = " ".join(args[:words])
        if verb in VERBS:
            return verb, list(args[words:])
    parts = [verb for verb in VERBS if verb.startswith(f"{args[0]} ")]
    if parts:
        raise InputError(f"'tercet {args[0]}' needs a second word: {', '.join(parts)}")
    near = difflib.get_close_matches(args[0], VERBS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
    raise InputError(f"there is no verb {args[0]!r}; {hint}")


def parse(
    function: Callable[..., int | None], verb: str, args: Sequence[str]
) -> Callable[[], int | None]:
    """The function with its arguments filled in. Raises InputError for flags that do not fit."""
    import tyro

    @functools.wraps(function)  # keeps signature and docstring, which become flags and help
    def bind(*positional: object, **flags: object) -> Callable[[], int | None]:
        return functools.partial(function, *positional, **flags)

    program = f"tercet {verb}"
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(
                bind,
                prog=program,
                description=_description(function),
                args=args,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as end:
        if not end.code:
            raise  # --help
        raise InputError(f"{_one_line(complaint.getvalue())}; see {program} --help") from None


def _description(function: Callable[..., object]) -> str:
    """The docstring down to its arguments; the parser would leave the example out."""
    return inspect.cleandoc(function.__doc__ or "").partition("\nArgs:")[0].strip()


def _one_line(box: str) -> str:
    """What the parser says in a framed box of several parts, in one line: the first, and a hint."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip("│╭╮╰╯ ") for row in text.splitlines()[1:]]  # below the box's title
    parts = [" ".join(part.split()) for part in re.split(r"(?m)^[─-]+$", "\n".join(rows))]
    said, *more = [part for part in parts if part]
    said = said.partition(" Got errors:")[0].rstrip(".")
    said = re.sub(r"(?<=Expected one of )\(.*\)", _choices, said)
    value = re.match(r"Error parsing (\S+?):? .*from \['(.*)'\]", said)
    if value:
        said = f"{value[1]} {value[2]!r} is not understood"
    meant = re.search(r"Perhaps you meant:\D*?(--[\w-]+)", " ".join(more))
    said += f" (did you mean {meant[1]}?)" if meant else ""
    return said[:1].lower() + said[1:]


def _choices(listed: re.Match[str]) -> str:
    """The parser's list of choices in order; it holds None where a flag may be left out."""
    return ", ".join(sorted(set(re.findall(r"'([^']*)'", listed[0])) - {"None"}))


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:  # type: ignore[no-untyped-def]
    """Ours are sentences for the user; those of the libraries keep their form."""
    if category.__module__.startswith("tercet"):
        print(f"tercet: {message}", file=sys.stderr)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        print(text, end="", file=file or sys.stderr)

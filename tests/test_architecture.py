"""The house rules, held by reading the code: who imports whom, no settings asked in a forward, no
model's name outside the three places that know models.

The tables below are ARCHITECTURE §2. Change them and that page together, with the reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tercet"
FILES = sorted(PACKAGE.rglob("*.py"))

EVERYONE = {"errors", "files"}  # files: every room that writes must leave the old file whole
REPRESENT = {"represent.encode", "represent.collection", "represent.topics"}
JOBS = {
    *("", "config", "presets", "model", "kernels", "hf", "text", "data", "train", "generate"),
    *("represent", "answers", "language_model", "evaluate", "plan", "report"),
}
MAY_IMPORT: dict[str, set[str]] = {
    # tercet/__init__.py: for the type checker only; at run time a name is resolved on first use
    "": {
        "answers",
        "config",
        "generate",
        "language_model",
        "model.lora",
        "presets",
        "represent.collection",
        "represent.topics",
        "text",
    },
    "__main__": {"cli"},
    "errors": set(),
    "files": {"errors"},
    "config": set(),
    "presets": {"config"},
    "kernels": set(),
    "model": {"config", "kernels"},
    "hf": {"config", "model", "text"},
    "hf.names": {"config"},
    "hf.configs": {"config"},
    "text": set(),
    "data": {"text", "model.layout"},
    "train": {"model.layout", "data", "kernels"},  # kernels: the output layer's loss is one
    "generate": {"answers", "model", "text", "kernels"},  # kernels: the best of many logits
    "represent": {"represent"},
    "represent.encode": {"model", "text", "data"},
    "represent.texts": {"model", "text", "represent.encode"},
    "represent.classify": {"answers", "model", "text"},
    "represent.fill": {"answers", "model", "text"},
    "represent.look": {"answers", "model", "text"},
    "represent.score": {"model", "text"},
    # represent.texts: network, tokenizer and limit as one
    "represent.tag": {"answers", "model", "text", "represent.texts"},
    "represent.answer": {"answers", "model", "text", "represent.texts"},
    "represent.collection": {"text", "data", "represent.encode", "language_model"},
    # represent.collection: topics of its passages, and the contract that says what made vectors;
    # report: the map that Topics.map writes is one of its pages, from plain data
    "represent.topics": {
        *("text", "data", "represent.encode", "represent.collection", "language_model", "report"),
    },
    "answers": set(),  # what the methods of a LanguageModel return: plain data
    "language_model": {
        *("answers", "config", "model", "text", "hf", "generate"),
        *(f"represent.{name}" for name in ("answer", "classify", "fill", "look", "score", "tag")),
        "represent.texts",
        "kernels.processor",  # which precisions it has
    },
    "evaluate": {"text", "train.objectives", "data", "represent", "language_model"},
    # another harness asks for texts as well, with settings of its own for how they are written
    "evaluate.lm_eval": {"evaluate", "generate", "represent", "language_model", "text"},
    "plan": {"config", "model"},
    "report": set(),
    "serve": JOBS | {"jobs"},
    "jobs": JOBS,
    "sklearn": {"language_model", "jobs"},
    "cli": {"", "jobs", "serve"},
}
ONLY_THESE = {"hf.names", "hf.configs"}  # narrower than their room: not even its other files

NO_TORCH = {
    "",
    "answers",
    "__main__",
    "errors",
    "files",
    "config",
    "presets",
    "hf.names",
    "hf.configs",
} | {
    *("generate.scheduler", "cli"),
}
NEVER = {"model": {"torch.distributed"}}

KNOWS_MODELS = ("presets.py", "hf/", "recipes/")
NAMES = (
    "bert|albert|roberta|distilbert|modernbert|eurobert|deberta|electra|minilm|mpnet|gpt|openai|"
    "llama|mistral|mixtral|qwen|gemma|bart|mbart|marian|opus|pegasus|falcon|neox"
)
NOT_OURS = (  # spellings that others chose, and that say no model
    *("BertNormalizer", "BertPreTokenizer", "RobertaProcessing"),  # classes of `tokenizers`
    "llama3",  # the name of a formula that stretches rotary positions, in every family's files
)
SPEAKER = "gpt"  # a literal by itself: who answers, in the files of conversations
MODEL_NAME = re.compile(rf"(?<![a-z])(t5(?![0-9])|{NAMES})(?![a-z])")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def module_of(path: Path) -> str:
    """`tercet/model/layout.py` is `model.layout`; a package's `__init__.py` is the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The longest entry of the table that holds the module."""
    while module not in MAY_IMPORT:
        assert "." in module, f"tercet/{module} stands in no row of the import table"
        module = module.rpartition(".")[0]
    return module


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, absolute name) of everything imported anywhere in the file, functions included."""
    found = []
    package = ["tercet", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
    return found


def allowed(importer: str, target: str) -> bool:
    """Whether a module may import a module (or a name in one) of ours, both without `tercet.`."""
    room = room_of(importer)
    granted = EVERYONE | MAY_IMPORT[room]
    if room not in ONLY_THESE:
        granted = granted | {room.split(".")[0] if room != "" and "." not in room else room}
    if "" in granted and "." not in target and not (PACKAGE / target).exists():
        if not (PACKAGE / f"{target}.py").exists():
            return True  # a name of tercet/__init__.py
    return any(target == name or target.startswith(f"{name}.") for name in granted if name)


def offences(path: Path) -> list[str]:
    importer = module_of(path)
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}, which tercet.{importer} may not"
        for line, name in imports_of(path)
        if name.split(".")[0] == "tercet" and not allowed(importer, name.removeprefix("tercet."))
    ]


def texts_in(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, text) of every identifier and every string literal that is no docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                found.append((node.lineno, text))
            case ast.Name(id=text) | ast.arg(arg=text) | ast.Attribute(attr=text):
                found.append((node.lineno, text))
            case ast.FunctionDef(name=text) | ast.ClassDef(name=text) | ast.alias(name=text):
                found.append((node.lineno, text))
            case ast.keyword(arg=str(text)):
                found.append((node.lineno, text))
    return found


def model_name_in(text: str) -> str | None:
    if text == SPEAKER:
        return None
    for spelling in NOT_OURS:
        text = text.replace(spelling, "")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)  # ClassNames, word by word
    match = MODEL_NAME.search(f"{text} {spaced}".lower())
    return match[1] if match else None


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_room_imports_only_what_the_table_grants(path: Path):
    assert not offences(path)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_torch_stays_where_it_may_be(path: Path):
    module = module_of(path)
    banned = {"torch"} if module in NO_TORCH else NEVER.get(module.split(".")[0], set())
    for line, name in imports_of(path):
        assert not any(f"{name}.".startswith(f"{word}.") for word in banned), f"line {line}: {name}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_forward_asks_the_config(path: Path):
    for function in ast.walk(tree_of(path)):
        if isinstance(function, ast.FunctionDef) and function.name == "forward":
            asked = [
                line for line, text in texts_in(ast.Module([function], [])) if text == "config"
            ]
            assert not asked, f"line {asked}: decide in __init__, compute in forward"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_model_is_named_outside_the_three_places_that_know_them(path: Path):
    if path.relative_to(PACKAGE).as_posix().startswith(KNOWS_MODELS):
        return
    named = [(line, text[:60]) for line, text in texts_in(tree_of(path)) if model_name_in(text)]
    assert not named and not model_name_in(path.stem)


def test_the_command_line_imports_no_torch():
    program = (
        "import sys, tercet, tercet.cli; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_rules_would_notice():
    """The checkers themselves: what they must refuse, and what they must let through."""
    assert allowed("data.packing", "model.layout.Layout")
    assert allowed("train.loop", "train.schedules")
    assert allowed("text.overflow", "errors.InputError")
    assert allowed("jobs.info", "__version__") and allowed("language_model", "generate.Sampling")
    assert not allowed("data.packing", "model.build")
    assert not allowed("hf.names", "hf.reading") and not allowed("text.bpe", "config")
    assert not allowed("represent.encode", "represent.topics")
    assert not allowed("generate.engine", "load") and not allowed("jobs.info", "cli.main")
    for text in ("BertModel", "GPT2Config", "is_llama", "openai-gpt", "a T5 model", "RoBERTa"):
        assert model_name_in(text), text
    for text in ("Robert is at liberty", "Hilbert", "t50", "chart5", "barter", "output"):
        assert not model_name_in(text), text

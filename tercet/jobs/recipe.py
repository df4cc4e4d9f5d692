"""The recipe of a run: a short YAML file, checked strictly before anything is loaded.

An unknown key raises with the nearest known one, a value of another kind with the kind that is
wanted. What the keys are stands in train/settings.py.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tercet.errors import InputError
from tercet.jobs.checks import nearest
from tercet.jobs.train.settings import Data, RunRecipe
from tercet.text.read import lines

SHIPPED = Path(__file__).parent.parent / "recipes"
DATA = "TERCET_DATA"  # the variable that shipped recipes find their data by
# what stands in a run folder
RECIPE = "recipe.yaml"
LOG = "log.jsonl"
RESULT = "result.json"  # where it is complete

T = TypeVar("T")


def load(name: str, changes: Sequence[str] = ()) -> RunRecipe:
    """A recipe from a file, or a shipped one by its name, with ``key=value`` changes."""
    path = Path(name)
    if not path.exists():
        path = SHIPPED / f"{name}.yaml"
    if not path.exists():
        shipped = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
        near = nearest(name, shipped) if shipped else ""
        raise InputError(f"{name}: neither a recipe file nor a shipped recipe{near}")
    return parse("\n".join(lines(path)), str(path), changes)


def parse(text: str, name: str = "recipe", changes: Sequence[str] = ()) -> RunRecipe:
    """YAML text -> settings. Raises InputError with the key, its value and what would do."""
    tree = tree_of(text, name)
    data = tree.get("data")
    if isinstance(data, dict) and any(key in data for key in Data.__dataclass_fields__):
        tree["data"] = {"text": data}
    for change in changes:
        change_key(tree, _of_source(tree, change))
    return built(RunRecipe, tree, name)


def tree_of(text: str, name: str) -> dict[str, Any]:
    """YAML text -> keys and values, nothing checked yet."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise InputError(f"{name}{place}: is not YAML ({reason})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{name}: must hold keys such as model and data")
    return tree


def built(kind: type[T], tree: dict[str, Any], name: str) -> T:
    """A recipe of any kind from keys and values, strictly. Raises as ``parse`` does."""
    try:
        return _built(kind, tree, "")
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def text(recipe: Any) -> str:
    """The resolved recipe as YAML; what stands at its default is written too."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)


def flat(recipe: Any) -> dict[str, Any]:
    """Every key with its path, as ``train.steps``, and its value."""
    return dict(_flat(dataclasses.asdict(recipe)))


def _flat(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def family(recipe: RunRecipe) -> str:
    """The family that the objective trains."""
    if recipe.objective.tunes:
        return "decoder"
    return {"next-token": "decoder", "masked": "encoder"}.get(
        recipe.objective.kind, "encoder-decoder"
    )


def expanded(files: Sequence[str]) -> list[str]:
    """With ``$NAME`` filled in from the environment. Raises InputError for one that is not set."""
    beside = Path("..") / "shared" / "data"
    if beside.is_dir():
        os.environ.setdefault(DATA, str(beside))
    found = [os.path.expandvars(file) for file in files]
    for file in found:
        if file.startswith("$"):
            name = file[1:].split("/")[0]
            raise InputError(f"{file}: {name} is not set; export it as the folder of the data")
    return found


def _of_source(tree: dict[str, Any], change: str) -> str:
    """``data.files=...`` with the name of the single source, which may be left out, filled in."""
    path, _, rest = change.partition(".")
    data, last = tree.get("data"), rest.partition("=")[0]
    if path != "data" or last not in Data.__dataclass_fields__ or not isinstance(data, dict):
        return change
    if len(data) > 1:
        raise InputError(f"--set {change!r}: name the source: {', '.join(data)}")
    return f"data.{next(iter(data), 'text')}.{rest}"


def change_key(tree: dict[str, Any], change: str) -> None:
    """``train.steps=100`` into the tree."""
    key, equals, value = change.partition("=")
    if not equals:
        raise InputError(f"--set {change!r}: write key=value, such as train.steps=100")
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {change!r}: {part} holds a value, not keys")
    tree[last] = _read(value)
    if last in ("steps", "budget"):  # each replaces the other
        tree.pop({"steps": "budget", "budget": "steps"}[last], None)


def _read(value: str) -> Any:
    """As YAML, but a word that YAML takes for the beginning of something is that word: | and ,
    are separators, and "a: b: c" is a sentence."""
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    nothing = value.strip() in ("~", "null", "Null", "NULL", "''", '""')
    return value if found in (None, "") and value and not nothing else found


def _built(kind: type, tree: Any, path: str) -> Any:
    """A dataclass from a mapping, strictly."""
    if not isinstance(tree, dict):
        raise InputError(f"{path or 'the recipe'} {tree!r} must hold keys and values")
    wanted = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        place = f"{path}.{key}" if path else str(key)
        if key not in wanted:
            raise InputError(f"{place} is unknown{nearest(str(key), list(wanted))}")
        values[key] = _value(wanted[key], value, place)
    for f in dataclasses.fields(kind):
        given = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if f.name not in values and not given:
            raise InputError(f"{path + '.' if path else ''}{f.name} is missing")
    return kind(**values)


def _value(kind: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _built(typing.cast(type, kind), value, place)
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        plain: Any = typing.get_origin(option) or option
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return _built(typing.cast(type, option), value, place)
        if plain is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if plain is float and isinstance(value, str) and number(value) is not None:
            return number(value)  # YAML reads 1e-3 as a word
        if isinstance(value, plain) and not (isinstance(value, bool) and plain is not bool):
            (item, *_) = typing.get_args(option) or (Any,)
            if plain is list and item is not Any:
                return [
                    _value(item, one, f"{place}[{i}]")
                    for i, one in enumerate(typing.cast(list, value))
                ]
            of = typing.get_args(option)[-1] if typing.get_args(option) else Any
            if plain is dict and of is str:  # a column without a name goes by its number
                return {
                    key: _value(str, str(one) if type(one) is int else one, f"{place}.{key}")
                    for key, one in typing.cast(dict, value).items()
                }
            if plain is dict and dataclasses.is_dataclass(of):
                return {
                    key: _value(of, one, f"{place}.{key}")
                    for key, one in typing.cast(dict, value).items()
                }
            return value
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    names |= {types.NoneType: "nothing", list: "a list", dict: "keys and values"}
    plain = [typing.get_origin(option) or option for option in options]
    said = " or ".join(names.get(option, "keys and values") for option in plain)
    raise InputError(f"{place} {value!r} must be {said}")


def number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None

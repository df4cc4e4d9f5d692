"""Jinja templates written by strangers, rendered in a sandbox and within bounds.

What a chat template may use is what Hugging Face gives it: blocks trimmed, `break` and `continue`,
`tojson` without HTML, `raise_exception`, `strftime_now` and the tag `{% generation %}` around what
a model writes. Jinja's sandbox keeps it from Python's insides and from changing what it is given.
Loops, calls, filters and sums are paid for besides (bounds.py), so that a template without an end
is stopped. No bound for malice: a single step can still take a gigabyte. Knows no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tercet.errors import InputError
from tercet.text.bounds import LONGEST, Endless, each, foreseen, paid, spend, weighed

# Around what stands in {% generation %}: noncharacters, which no template writes.
OPEN, CLOSE = "\ufdec", "\ufded"


class Template:
    """A template, compiled. Raises InputError for a mistake in its syntax, with the line."""

    def __init__(self, source: str) -> None:
        sandbox = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        try:
            tree = sandbox.parse(source)
            self.marks = "generation_block" in {
                call.node.name
                for call in tree.find_all(nodes.Call)
                if isinstance(call.node, nodes.ExtensionAttribute)
            }
            with paid():  # what is constant is worked out now
                self._template = sandbox.from_string(_counted(tree))
        except TemplateSyntaxError as error:
            line = source.splitlines()[error.lineno - 1 : error.lineno]
            shown = f" {line[0].strip()[:60]!r}" if line else ""
            raise InputError(
                f"the chat template has a mistake in line {error.lineno}{shown}: {error.message}; "
                "mend chat_template.jinja, or chat_template in tokenizer_config.json"
            ) from error
        except (RecursionError, SyntaxError) as error:  # Python's own bounds
            raise InputError("the chat template is nested too deeply; take another") from error

    def __call__(self, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
        """The text of some messages, with `OPEN` and `CLOSE` around what the model writes.

        Raises InputError for what the template refuses or does wrongly, with its own words.
        """
        try:
            with paid():
                return _joined(self._template.generate(messages=messages, **values))
        except (Endless, RecursionError) as error:
            raise InputError(
                f"the chat template was stopped: {error}; take another template"
            ) from error
        except SecurityError as error:
            raise InputError(
                f"the chat template tries to leave its sandbox ({error}); do not use this model's "
                "template"
            ) from error
        except (TemplateError, MemoryError) as error:
            raise InputError(f"the chat template refuses the messages: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"the chat template fails on the messages ({type(error).__name__}: {error}); mend "
                "the template, or the messages"
            ) from error


def _joined(pieces: Iterable[str]) -> str:
    held = []
    for piece in pieces:
        spend(len(piece))
        held.append(piece)
    return "".join(held)


# what is paid for ---------------------------------------------------------------------------------


def _measured(name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for what it makes."""

    @wraps(filter)
    def paying(*values: Any, **named: Any) -> Any:
        given = foreseen(name, [*values, *named.values()])
        named = dict(zip(named, given[len(values) :], strict=True))
        return weighed(filter(*given[: len(values)], **named))

    return paying


def _counted(tree: nodes.Template) -> nodes.Template:
    """The template with every loop, every joining `~`, every list and every block that is kept paid
    for."""
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _filtered("each of a loop", loop.iter)
    for kept in list(tree.find_all(nodes.AssignBlock)):
        kept.filter = _filtered("weighed", kept.filter, kept.lineno)
    for parent in list(tree.find_all(nodes.Node)):
        for field, child in list(parent.iter_fields()):
            if _makes(child):
                setattr(parent, field, _filtered("weighed", child))
            elif isinstance(child, list):
                child[:] = [_filtered("weighed", one) if _makes(one) else one for one in child]
    return tree


def _makes(node: Any) -> bool:
    """Whether a node is an expression that makes a text, a list or a dictionary of others."""
    if isinstance(node, nodes.Tuple):  # that is no list of names, and no list of slices
        return node.ctx == "load" and not any(isinstance(one, nodes.Slice) for one in node.items)
    return isinstance(node, nodes.Concat | nodes.List | nodes.Dict)


def _filtered(name: str, node: Any, line: int | None = None) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=line or node.lineno)


# what a template may use --------------------------------------------------------------------------


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with Hugging Face's additions."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.filters["tojson"] = _tojson
        self.filters = {name: _measured(name, one) for name, one in self.filters.items()}
        self.filters |= {"each of a loop": each, "weighed": weighed}
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        self.globals |= {"dict": _Dictionary(), "namespace": _Namespace}

    def call(__self, __context: Any, __called: Any, *values: Any, **named: Any) -> Any:
        bound = getattr(getattr(__called, "__wrapped__", __called), "__self__", None)
        given = foreseen(getattr(__called, "__name__", ""), [bound, *values, *named.values()])
        own, rest = given[1 : 1 + len(values)], given[1 + len(values) :]
        if isinstance(__called, LoopContext) and own:  # a loop that calls itself
            own[0] = each(own[0])
        named = dict(zip(named, rest, strict=True))
        return weighed(super().call(__context, __called, *own, **named))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*" and isinstance(left, int) != isinstance(right, int):
            values, times = (right, left) if isinstance(left, int) else (left, right)
            if hasattr(values, "__len__") and len(values) * times > LONGEST:
                raise Endless(f"it repeats a text or a list {times:,} times")
        if operator == "**":
            foreseen(operator, [left, right])
            if isinstance(right, int) and right > 64:
                raise Endless(f"it takes a number to the power {right:,}")
        if operator == "%" and isinstance(left, str):
            foreseen(operator, [left, right])
        return weighed(super().call_binop(context, operator, left, right))


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: its text, between the marks. Names set inside are
    not known outside, as in a macro."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("generation_block"), [], [], body).set_lineno(line)

    def generation_block(self, caller: Macro) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


class _Dictionary:
    """`dict(...)`, without the class and what hangs on it."""

    def __call__(self, *values: Any, **named: Any) -> dict[str, Any]:
        return dict(*values, **named)

    def fromkeys(self, *values: Any) -> dict[str, Any]:
        return dict.fromkeys(*values)


class _Namespace(Namespace):
    """`namespace(...)`, which holds no name that begins with an underscore."""

    def __init__(*values: Any, **named: Any) -> None:
        self, *rest = values
        held = dict(*rest, **named)
        for name in held:
            _plain_name(name)
        Namespace.__init__(self, held)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:  # what it holds may hold it
        return "<Namespace>"


def _plain_name(name: str) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace cannot hold the name {name!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)

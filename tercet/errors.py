"""The one error that users can mend. The raiser knows what went wrong and writes the sentence."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


class InputError(ValueError):
    """What was wrong, the offending value, and the remedy, in one line.

    The command line prints it without a traceback and exits with 2. Our own mistakes are never an
    InputError: they keep their traceback.
    """


def require(module: str, extra: str) -> ModuleType:
    """An optional package, imported where it is needed. Raises InputError with the extra's name.

    A package that is there but whose own imports fail keeps its ImportError: no user's doing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise InputError(
            f"the package {error.name!r} is not installed; "
            f"install it with: pip install 'tercet[{extra}]'"
        ) from None


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Around the reading of a settings file: values of kinds that nobody expects, a list for an
    object, a word for a number, are an InputError about `path`."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise InputError(
            f"{path}: damaged, a value is missing or of the wrong kind "
            f"({type(error).__name__}: {said}); take another copy"
        ) from error

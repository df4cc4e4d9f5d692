"""Writing so that nobody ever sees half a file, and one run at a time in a folder.

A file is written beside the old one and renamed when it is whole: a full disk or a killed process
leaves the old one as it was. Knows nothing of what is written.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tercet.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: runs in one folder are not kept apart there
    fcntl = None

LOCK = ".lock"


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; renamed to `path` when the block ends well.

    The suffix is kept, since writers such as numpy's look at it. Raises InputError where the place
    cannot be written or the disk is full; `path` then holds what it held before.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())
        _sync(beside)
        beside.replace(path)
    except OSError as error:
        raise InputError(refusal(path, error)) from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def written_folder(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder inside `folder` to write to; its files move up when the block ends well.

    All the files are whole before the first is moved, so that a failed save of a model leaves the
    old weights beside the old config. Files of other names in `folder` stay. Raises as `written`.
    """
    folder = Path(folder)
    scratch = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        yield scratch
        files = sorted(path for path in scratch.rglob("*") if path.is_file())
        for path in files:
            path.chmod(0o666 & ~_umask())
            _sync(path)
        for path in files:
            target = folder / path.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    except OSError as error:
        raise InputError(refusal(folder, error)) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """One process at a time in `folder`, which is made. Raises InputError with the holder's id.

    The kernel drops the lock with the process, however it ends: nothing is left to clean up.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise InputError(refusal(folder, error)) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise InputError(
                    f"{folder}: another run works in this folder (process {holder}); "
                    "wait for it, stop it, or choose another folder"
                ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def refusal(path: Path, error: OSError) -> str:
    """The sentence for a place that could not be written."""
    return f"{path}: cannot be written ({error.strerror or error}); free some space or choose another place"


def _sync(path: Path) -> None:
    """To the disk, so that the rename cannot overtake the contents when the power goes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

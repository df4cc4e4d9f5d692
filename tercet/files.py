"""Writing so that nobody ever sees half a file, and one run at a time in a folder.

A file is written beside the old one and renamed when it is whole: a full disk or a killed process
leaves the old one as it was. Knows nothing of what is written.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tercet.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: runs in one folder are not kept apart there
    fcntl = None

LOCK = ".lock"
UMASK = os.umask(0)  # it is told only by being set
os.umask(UMASK)
_REPLACED: dict[Path, set[str]] = {}  # open scratch folder -> what its files stand instead of


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; renamed to `path` when the block ends well.

    Missing parent folders are made. The suffix is kept, since writers such as numpy's look at it.
    Raises InputError where the place cannot be written or the disk is full; `path` then holds what
    it held before.
    """
    path = Path(path)
    if not path.name or "\0" in str(path):
        raise InputError(f"{str(path)!r} is not the name of a file; give another")
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with _refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            _sync(beside)
            beside.replace(path)
            _sync_names(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def written_folder(folder: str | Path, *, instead_of: Collection[str] = ()) -> Iterator[Path]:
    """Yields an empty folder inside `folder` to write to; its files move up when all are whole.

    Nothing is moved before everything is written, so that a failed save of a model leaves the old
    weights beside the old config. instead_of: names (or patterns, "*.model") of old files that the
    new ones replace: they are removed if they are not among the new ones. Where `folder` is itself
    being written so, they are removed from its place. Files of other names in `folder` stay. Raises
    as `written` does.
    """
    folder = Path(folder)
    scratch = None
    try:
        with _refusals(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            scratch = Path(tempfile.mkdtemp(prefix=f"{_scratch_of()}{os.getpid()}-", dir=folder))
            replaced = _REPLACED[scratch] = set(instead_of)
            yield scratch
            files = sorted(path for path in scratch.rglob("*") if path.is_file())
            for path in files:
                _sync(path)
            for path in files:
                target = folder / path.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            if folder in _REPLACED:
                _REPLACED[folder] |= replaced
            _remove(folder, replaced, kept={folder / path.relative_to(scratch) for path in files})
            _sync_names(folder)
    finally:
        if scratch is not None:
            _REPLACED.pop(scratch, None)
            shutil.rmtree(scratch, ignore_errors=True)


def _remove(folder: Path, names: Collection[str], kept: Collection[Path]) -> None:
    """The files of these names, and folders that hold nothing any more."""
    for path in {path for name in names for path in folder.glob(name)}.difference(kept):
        if path.is_file() or path.is_symlink():
            path.unlink()
            with suppress(OSError):  # it holds other files
                if path.parent != folder:
                    path.parent.rmdir()


def _scratch_of() -> str:
    """How the scratch folders of this machine begin; the process's number follows."""
    return f".saving-{platform.node()}-"


def _sweep(folder: Path) -> None:
    """Removes what killed processes of this machine have left."""
    if fcntl is None:  # Windows: asking whether a process lives would end it
        return
    begin = _scratch_of()
    for path in [path for path in folder.iterdir() if path.name.startswith(begin)]:
        number = path.name.removeprefix(begin).partition("-")[0]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError):
            pass  # it lives and is another user's, or nobody knows whose it is


def writable(path: str | Path, *, folder: bool = False, source: str | None = None) -> None:
    """Raises InputError where a file (with `folder`: files in it) could not be written, or is the
    source that is read, before any work is done. Tries it with a nameless file in the nearest
    folder that exists."""
    path = Path(path)
    if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
        raise InputError(f"{path} is what is read, and would be lost; write to another file")
    with _refusals(path):
        if not folder and path.is_dir():
            raise OSError("it is a folder")
        places = [path, *path.parents] if folder else path.parents
        with tempfile.TemporaryFile(dir=next(place for place in places if place.exists())):
            pass


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """One process at a time in `folder`, which is made. Raises InputError with the holder's id.

    The kernel drops the lock with the process, however it ends: nothing is left to clean up.
    """
    folder = Path(folder)
    with _refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
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


def holder(folder: str | Path) -> str | None:
    """The id of the process that holds `folder` locked; None where none does, or nobody can say."""
    try:
        file = (Path(folder) / LOCK).open(encoding="utf-8")
    except OSError:
        return None
    with file:
        process = file.read().strip()
        if not process or fcntl is None:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return process
    return None  # a killed process has left its id, but not its lock


@contextmanager
def _refusals(place: Path) -> Iterator[None]:
    """What the system refuses, as an InputError about `place`."""
    try:
        yield
    except Exception as error:
        # safetensors and tokenizers are written in Rust and raise types of their own.
        if not isinstance(error, OSError) and "(os error" not in str(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            f"{place}: cannot be written ({reason}); free some space or choose another place"
        ) from error


def _sync(path: Path) -> None:
    """To the disk, so that the rename cannot overtake the contents when the power goes; readable
    for whom the umask lets (safetensors makes its files for their owner alone)."""
    path.chmod(0o666 & ~UMASK)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    """A folder's list of names to the disk, so that what follows cannot overtake a rename."""
    with suppress(OSError):  # some systems open no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

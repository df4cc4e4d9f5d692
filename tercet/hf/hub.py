"""From what the user calls a model to a folder on this machine: a folder as it is, or a download.

Only what Tercet reads is fetched: safetensors, settings, tokenizer. Knows no architecture.
Hugging Face's own settings hold: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# With the `1_Pooling/` folders of sentence-embedding models, but not `onnx/`, `original/` and such.
SETTINGS = re.compile(r"(\d+_\w+/)?[^/]+\.(json|txt|model|spm|jinja)")
WEIGHTS = re.compile(r"(\d+_\w+/)?model(-\d+-of-\d+)?\.safetensors")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find(name_or_path: str | Path, *, allow_pickle: bool = False) -> Path:
    """A model's folder: the one named, or the hub's model `owner/name`, downloaded where needed.

    Files and sizes are said on stderr before anything is fetched. allow_pickle: fetch `*.bin`
    weights where there are no others. Raises InputError when there is neither a folder nor a model
    of that name, when the hub cannot be reached, and for models that hold only pickled weights.
    """
    name = str(name_or_path)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{name}: is a file; name the folder that holds the model's config.json")
    if not HUB_NAME.fullmatch(name):
        raise InputError(
            f"{name}: there is no such folder; check the path, "
            "or name a model of the Hugging Face hub as owner/name"
        )
    return _from_hub(name, allow_pickle)


def _from_hub(name: str, allow_pickle: bool) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return _from_cache(name, "HF_HUB_OFFLINE is set; unset it to look on the hub")
    try:
        model = HfApi().model_info(name, files_metadata=True)
    except Exception as error:  # without a connection: one of the HTTP library's own types
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise InputError(_refused(name, error)) from error
        return _from_cache(name, f"{constants.ENDPOINT} cannot be reached ({_first_line(error)})")
    files = _wanted(name, model, allow_pickle)
    _announce(name, model, files)
    try:
        return Path(snapshot_download(name, allow_patterns=[_literal(file) for file in files]))
    except HfHubHTTPError as error:
        raise InputError(_refused(name, error)) from error
    except Exception as error:
        raise InputError(
            f"{name}: the download stopped ({_first_line(error)}); "
            "run the command again, it goes on from there"
        ) from error


def _wanted(name: str, model: ModelInfo, allow_pickle: bool) -> dict[str, int]:
    """Files to have, with their sizes in bytes."""
    sizes = {file.rfilename: file.size or 0 for file in model.siblings or []}
    weights = [file for file in sizes if WEIGHTS.fullmatch(file)]
    pickles = [file for file in sizes if PICKLES.fullmatch(file)]
    if not weights and pickles and not allow_pickle:
        raise InputError(
            f"{name}: has only pickled weights ({', '.join(pickles[:3])}), which could run code "
            "when loaded; take a model with *.safetensors, or, if you trust its owner, "
            "load it with allow_pickle=True (--allow-pickle)"
        )
    settings = [file for file in sizes if SETTINGS.fullmatch(file)]
    return {file: sizes[file] for file in sorted(settings + (weights or pickles))}


def _announce(name: str, model: ModelInfo, files: dict[str, int]) -> None:
    """Says what will be fetched; nothing when all of it lies in the cache."""
    from huggingface_hub import try_to_load_from_cache

    missing = {
        file: size
        for file, size in files.items()
        if not isinstance(try_to_load_from_cache(name, file, revision=model.sha), str)
    }
    if not missing:
        return
    print(
        f"tercet: {name}: fetching {len(missing)} files, {_size(sum(missing.values()))}",
        file=sys.stderr,
    )
    for file, size in missing.items():
        print(f"  {_size(size):>9}  {file}", file=sys.stderr)


def _from_cache(name: str, why: str) -> Path:
    """The snapshot of an earlier download; `why` the hub itself was not asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # Which files a model has is not known without the hub; every one has its config.
        folder = snapshot_download(name, allow_patterns=["config.json"], local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{name}: there is no such folder and no copy in the cache, and {why}"
        ) from error
    return Path(folder)


def _refused(name: str, error: Exception) -> str:
    """The hub answered, with no."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    page = f"{constants.ENDPOINT}/{name}"
    if isinstance(error, GatedRepoError):
        return f"{name}: its owner asks for consent; give it at {page}, then run: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{name}: there is neither a folder nor a model of that name at {constants.ENDPOINT}; "
            "check the spelling, or run 'hf auth login' if the model is private"
        )
    return f"{name}: {page} cannot be had ({_first_line(error)}); try again later"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _literal(file: str) -> str:
    """A pattern that matches this file only."""
    return re.sub(r"([*?[])", r"[\1]", file)


def _size(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"

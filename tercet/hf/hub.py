"""From what the user calls a model to a folder on this machine: a folder as it is, or a download.

Only what Tercet reads is fetched: settings and tokenizer, and when those are sound, safetensors.
Knows no architecture.
Hugging Face's own settings hold: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.errors import InputError
from tercet.hf.reading import CONFIG, check_settings
from tercet.hf.weights import INDEX, SINGLE, Shapes

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# With the `1_Pooling/` folders of sentence-embedding models, but not `onnx/`, `original/` and such.
SETTINGS = re.compile(
    r"(\d+_\w+/)?[^/]+\.(json|txt|model|spm|jinja)|additional_chat_templates/[^/]+\.jinja"
)
WEIGHTS = re.compile(r"(\d+_\w+/)?model(-\d+-of-\d+)?\.safetensors")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find(name_or_path: str | Path, *, allow_pickle: bool = False) -> Path:
    """A model's folder: the one named, or the hub's model `owner/name`, downloaded where needed.

    Files and sizes are said on stderr before they are fetched. allow_pickle: fetch `*.bin` weights
    where there are no others. Raises InputError when there is neither a folder nor a model of that
    name, when the hub cannot be reached, and, before weights are fetched, for models that hold only
    pickled ones or whose settings are not honoured.
    """
    name = str(name_or_path)
    return _folder(name) or _from_hub(name, allow_pickle, weights=True)[0]


def find_settings(
    name_or_path: str | Path, *, allow_pickle: bool = False
) -> tuple[Path, Shapes | None]:
    """As `find`, without fetching weights: the folder, and the shapes of the tensors that it lacks,
    from the headers of the hub's files. Pickled weights have no header and are fetched."""
    name = str(name_or_path)
    folder = _folder(name)
    return (folder, None) if folder else _from_hub(name, allow_pickle, weights=False)


def _folder(name: str) -> Path | None:
    """The folder of this name; None where the hub is to be asked."""
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
    return None


def _from_hub(name: str, allow_pickle: bool, *, weights: bool) -> tuple[Path, Shapes | None]:
    """The download, and the shapes of the weights where they are not in it."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return _from_cache(name, "HF_HUB_OFFLINE is set; unset it to look on the hub"), None
    try:
        model = HfApi().model_info(name, files_metadata=True)
    except Exception as error:  # without a connection: one of the HTTP library's own types
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise InputError(_refused(name, error)) from error
        why = f"{constants.ENDPOINT} cannot be reached ({_first_line(error)})"
        return _from_cache(name, why), None
    sizes = {file.rfilename: file.size or 0 for file in model.siblings or []}
    if CONFIG not in sizes:
        found = ", ".join(sorted(sizes)[:5]) or "nothing"
        raise InputError(f"{name}: has no {CONFIG} (it holds {found}); name a model that has one")
    heavy = _weights(name, list(sizes), allow_pickle)
    with _downloading(name):
        folder = _fetch(name, model, {f: sizes[f] for f in sizes if SETTINGS.fullmatch(f)})
    try:
        check_settings(folder)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    with _downloading(name):
        if not weights and {SINGLE, INDEX} & sizes.keys() and _missing(name, model, heavy):
            found = HfApi().get_safetensors_metadata(name).files_metadata.values()
            return folder, {n: tuple(t.shape) for file in found for n, t in file.tensors.items()}
        return _fetch(name, model, {f: sizes[f] for f in heavy}) if heavy else folder, None


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise InputError(_refused(name, error)) from error
    except Exception as error:
        raise InputError(
            f"{name}: the download stopped ({_first_line(error)}); "
            "run the command again, it goes on from there"
        ) from error


def _weights(name: str, files: list[str], allow_pickle: bool) -> list[str]:
    """The files of weights to have."""
    weights = [file for file in files if WEIGHTS.fullmatch(file)]
    pickles = [file for file in files if PICKLES.fullmatch(file)]
    if not weights and pickles and not allow_pickle:
        raise InputError(
            f"{name}: has only pickled weights ({', '.join(pickles[:3])}), which could run code "
            "when loaded; take a model with *.safetensors, or, if you trust its owner, "
            "load it with allow_pickle=True (--allow-pickle)"
        )
    return weights or pickles


def _fetch(name: str, model: ModelInfo, sizes: dict[str, int]) -> Path:
    """The folder with these files, having said which are fetched."""
    from huggingface_hub import snapshot_download

    if missing := _missing(name, model, sizes):
        total = _size(sum(sizes[file] for file in missing))
        what = "1 file" if len(missing) == 1 else f"{len(missing)} files"
        print(f"tercet: {name}: fetching {what}, {total}", file=sys.stderr)
        for file in missing:
            print(f"  {_size(sizes[file]):>9}  {file}", file=sys.stderr)
    return Path(snapshot_download(name, allow_patterns=[_literal(file) for file in sizes]))


def _missing(name: str, model: ModelInfo, files: Iterable[str]) -> list[str]:
    """Those that do not lie in the cache."""
    from huggingface_hub import try_to_load_from_cache

    cached = {f: try_to_load_from_cache(name, f, revision=model.sha) for f in files}
    return sorted(file for file, path in cached.items() if not isinstance(path, str))


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

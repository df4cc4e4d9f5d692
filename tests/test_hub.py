"""Names of models: folders, downloads from a hub (a local server), the cache without a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tercet.errors import InputError
from tercet.hf.hub import find
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.presets import preset
from tercet.text import train_tokenizer

COMMIT = "1234567890abcdef1234567890abcdef12345678"
FILES = {
    "someone/small": {
        "config.json": b'{"model_type": "gpt2"}',
        "model.safetensors": b"w" * 2_500_000,
        "tokenizer.json": b"{}",
        "1_Pooling/config.json": b"{}",
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": b"the same again",
        "onnx/model.onnx": b"another format",
        "README.md": b"words",
    },
    "someone/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "someone/strange": {
        "config.json": b'{"model_type": "gpt2", "parallel_residual": false}',
        "model.safetensors": b"w" * 2_500_000,
    },
    "someone/unknown-type": {"config.json": b'{"model_type": "none"}', "model.safetensors": b"w"},
    "someone/quantised": {"model.gguf": b"another format"},
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download needs."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = "/".join(path.split("/")[3:5])
        if path.startswith("/api/models/"):
            files = FILES.get(name)
            if files is None:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif "/tree/" in path:
                self._json([{"type": "file", "path": f, **_size(b)} for f, b in files.items()])
            else:
                siblings = [{"rfilename": f, **_size(b)} for f, b in files.items()]
                self._json({"id": name, "sha": COMMIT, "siblings": siblings})
        else:
            owner, model, _, _, file = path.strip("/").split("/", 4)
            body = FILES[f"{owner}/{model}"].get(file)
            if body is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            tag = hashlib.sha1(body).hexdigest()
            status, part = 200, self.headers.get("Range")
            if part:
                first, last = part.removeprefix("bytes=").split("-")
                status, body = 206, body[int(first) : int(last) + 1]
            self._send(status, body, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _size(body: bytes) -> dict[str, object]:
    return {"size": len(body), "oid": hashlib.sha1(body).hexdigest()}


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def asked(name: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`find(name)` in a process of its own."""
    program = (
        "import sys\n"
        "from tercet.errors import InputError\n"
        "from tercet.hf.hub import find\n"
        "try: print(find(sys.argv[1]))\n"
        "except InputError as error: print(error); sys.exit(2)\n"
    )
    return python(["-c", program, name], home, **environment)


def python(args: list[str], home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, since the hub's address is read at import."""
    settings = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, *args],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_folder_is_itself(tmp_path: Path):
    assert find(tmp_path) == tmp_path


def test_a_file_is_no_model(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="is a file; name the folder"):
        find(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["no-such-folder", "/no/such/folder", "./owner/name", "a/b/c"])
def test_what_cannot_be_a_name_is_a_missing_folder(name: str):
    with pytest.raises(InputError, match="there is no such folder.*owner/name"):
        find(name)


def test_a_download_says_its_files_first_and_takes_no_more_than_it_reads(hub: str, tmp_path: Path):
    first = asked("someone/small", tmp_path, HF_ENDPOINT=hub)
    assert first.returncode == 0, first.stdout + first.stderr
    folder = Path(first.stdout.strip())
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"}
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == wanted
    assert (folder / "model.safetensors").read_bytes() == FILES["someone/small"][
        "model.safetensors"
    ]
    assert "someone/small: fetching 3 files, 26 B" in first.stderr
    assert "someone/small: fetching 1 file, 2.5 MB" in first.stderr
    assert "2.5 MB  model.safetensors" in first.stderr

    again = asked("someone/small", tmp_path, HF_ENDPOINT=hub)
    assert again.stdout == first.stdout and "fetching" not in again.stderr

    offline = asked("someone/small", tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout, offline.stdout + offline.stderr

    gone = asked("someone/small", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert gone.stdout == first.stdout, gone.stdout + gone.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("someone/strange", "parallel_residual=False"),
        ("someone/unknown-type", "model_type 'none' is unknown"),
        ("someone/quantised", "has no config.json (it holds model.gguf)"),
    ],
)
def test_weights_whose_settings_are_refused_are_not_fetched(
    name: str, said: str, hub: str, tmp_path: Path
):
    done = asked(name, tmp_path, HF_ENDPOINT=hub)
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith(f"{name}: ") and said in done.stdout
    assert not list(tmp_path.rglob("*.safetensors")) and "safetensors" not in done.stderr


@pytest.mark.parametrize("shards", [1, 2])
def test_info_fetches_no_weights(
    shards: int, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And says what it says of the folder: an encoder that is called a masked language model."""
    tokenizer = train_tokenizer(["abc"], kind="characters", special="encoder")
    small = dict(encoder_layers=1, d_model=64, n_heads=2, d_ff=64, heads=())
    config = preset("bert-base").replace(vocab_size=tokenizer.vocab_size, **small)
    LanguageModel(build(config), tokenizer).save(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    settings["architectures"] = ["BertForMaskedLM"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    if shards == 2:
        split(tmp_path / "model")
    monkeypatch.setitem(FILES, "someone/real", contents(tmp_path / "model"))
    home = tmp_path / "home"

    local = python(["-m", "tercet", "info", str(tmp_path / "model"), "--json"], home)
    done = python(["-m", "tercet", "info", "someone/real", "--json"], home, HF_ENDPOINT=hub)
    assert done.returncode == 0, done.stderr
    told, wanted = json.loads(done.stdout), json.loads(local.stdout)
    assert told.pop("model") == "someone/real" and wanted.pop("model")
    assert told == wanted and told["can"] == ["embed", "attend"]
    assert not list(home.rglob("*.safetensors"))

    assert asked("someone/real", home, HF_ENDPOINT=hub).returncode == 0
    assert len(list(home.rglob("snapshots/*/*.safetensors"))) == shards
    again = python(["-m", "tercet", "info", "someone/real", "--json"], home, HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout, again.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def split(folder: Path) -> None:
    """The weights in two files and their index."""
    tensors = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    files = {}
    for i, part in enumerate((tensors[::2], tensors[1::2]), 1):
        name = f"model-{i:05}-of-00002.safetensors"
        save_file(dict(part), folder / name)
        files |= {tensor: name for tensor, _ in part}
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_neither_folder_nor_model(hub: str, tmp_path: Path):
    done = asked("someone/unknown", tmp_path, HF_ENDPOINT=hub)
    assert done.returncode == 2, done.stderr
    assert "neither a folder nor a model of that name" in done.stdout and hub in done.stdout


def test_pickles_are_not_even_fetched(hub: str, tmp_path: Path):
    done = asked("someone/pickled", tmp_path, HF_ENDPOINT=hub)
    assert done.returncode == 2, done.stderr
    assert "pytorch_model.bin" in done.stdout and "--allow-pickle" in done.stdout


def test_offline_without_a_copy_names_the_switch(tmp_path: Path):
    done = asked("someone/small", tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    assert "no copy in the cache" in done.stdout and "HF_HUB_OFFLINE is set" in done.stdout


def test_a_hub_that_does_not_answer_is_named(tmp_path: Path):
    done = asked("someone/small", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2, done.stderr
    assert "http://127.0.0.1:9 cannot be reached" in done.stdout

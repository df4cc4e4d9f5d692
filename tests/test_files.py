"""Nobody sees half a file; one run at a time in a folder; a missing package names its extra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tercet.errors import InputError, require
from tercet.files import LOCK, UMASK, holder, locked, written, written_folder

TOO_LARGE = """
import resource, sys
import numpy as np
from pathlib import Path
from tercet.errors import InputError
from tercet.files import written, written_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a full disk: no file grows beyond this
where = Path(sys.argv[1])
try:
    {save}
except InputError as error:
    print(error)
    sys.exit(2)
"""


def fails(save: str, where: Path) -> str:
    program = TOO_LARGE.format(save=save)
    done = subprocess.run(
        [sys.executable, "-c", program, str(where)], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    return done.stdout


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "vectors.npy"
    with written(path) as beside:
        assert beside.suffix == ".npy" and beside.parent == path.parent
        beside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), written(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_no_room_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "old.npy"
    path.write_text("old")
    said = fails("with written(where) as beside: beside.write_bytes(bytes(10_000))", path)
    assert said.startswith(f"{path}: cannot be written (File too large); free some space")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_no_room_for_one_file_of_a_folder_leaves_all_the_old_ones(tmp_path: Path):
    (tmp_path / "config.json").write_text("old")
    said = fails(
        "with written_folder(where) as new:\n"
        "        (new / 'config.json').write_text('new')\n"
        "        from safetensors.numpy import save_file\n"
        "        save_file({'w': np.zeros(10_000)}, new / 'model.safetensors')",
        tmp_path,
    )
    assert str(tmp_path) in said and "cannot be written" in said
    assert (tmp_path / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_folder_is_written_over_and_keeps_its_other_files(tmp_path: Path):
    for name in ("config.json", "notes.txt"):
        (tmp_path / name).write_text("old")
    with written_folder(tmp_path) as new:
        (new / "1_Pooling").mkdir()
        for name in ("config.json", "1_Pooling/config.json"):
            (new / name).write_text("new")
    texts = {
        str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()
    }
    assert texts == {"config.json": "new", "1_Pooling/config.json": "new", "notes.txt": "old"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for save in (written, written_folder, locked):
        with pytest.raises(InputError, match="file.*cannot be written.*choose another place"):
            with save(tmp_path / "file" / "below"):
                raise AssertionError("there is no place to write to")


def test_a_second_run_is_refused_with_the_first_ones_number(tmp_path: Path):
    program = (
        "import sys; from tercet.files import locked\n"
        "with locked(sys.argv[1]): print('locked', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None and first.stdout.readline() == b"locked\n"
    with pytest.raises(InputError, match=rf"another run.*\(process {first.pid}\)"):
        with locked(tmp_path):
            pass
    assert holder(tmp_path) == str(first.pid)
    first.kill()
    first.wait()
    assert (tmp_path / LOCK).read_text() == str(first.pid) and holder(tmp_path) is None
    with locked(tmp_path):  # however the first one ended
        assert (tmp_path / LOCK).read_text() == holder(tmp_path) == str(os.getpid())
    assert holder(tmp_path) is None and holder(tmp_path / "nothing") is None


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"'no_such_package' .*pip install 'tercet\[serve\]'"):
        require("no_such_package.part", "serve")
    assert require("json.decoder", "serve").JSONDecodeError
    (tmp_path / "broken_package.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError):  # not the user's to mend
        require("broken_package", "serve")


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_what_is_replaced_is_removed_and_nothing_else(tmp_path: Path):
    for name in ("1_Pooling/config.json", "a.model", "a.txt", "notes.txt", "own/a.model"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with pytest.raises(RuntimeError), written_folder(tmp_path, instead_of=("*.txt",)):
        raise RuntimeError
    assert len(names(tmp_path)) == 5
    with written_folder(tmp_path) as outer:  # the inner one's place is the outer one's
        with written_folder(outer, instead_of=("*.model", "a.txt", "1_Pooling/*")) as inner:
            (inner / "a.txt").write_text("new")
        assert len(names(tmp_path)) == 6
    assert names(tmp_path) == {"a.txt", "notes.txt", "own/a.model"}
    assert (tmp_path / "a.txt").read_text() == "new" and not (tmp_path / "1_Pooling").exists()


def test_what_a_killed_save_left_blocks_nobody_and_goes(tmp_path: Path):
    program = (
        "import os, sys; from tercet.files import written_folder\n"
        "with written_folder(sys.argv[1]) as new: (new / 'half').write_text(''); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert len(names(tmp_path)) == 1
    with written_folder(tmp_path) as first, written_folder(tmp_path) as second:
        assert first != second and len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_what_was_written_for_its_owner(tmp_path: Path) -> None:
    """As safetensors writes: whom the umask lets can read it afterwards."""
    for place in (written(tmp_path / "one"), written_folder(tmp_path / "two")):
        with place as draft:
            file = draft / "x" if draft.is_dir() else draft
            file.write_text("x")
            file.chmod(0o600)
    for file in (tmp_path / "one", tmp_path / "two" / "x"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~UMASK

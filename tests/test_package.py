"""`import tercet`: every name is there when it is asked for, and costs nothing before."""

import subprocess
import sys

import pytest

import tercet


def test_importing_the_package_imports_none_of_its_rooms():
    program = "import sys, tercet; print([m for m in sys.modules if m.startswith('tercet.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", tercet.__all__)
def test_every_name_is_found(name: str):
    assert getattr(tercet, name) is not None and name in dir(tercet)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        tercet.lode  # noqa: B018

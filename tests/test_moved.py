"""Old import paths keep working, say so, and give the same modules."""

import importlib
import subprocess
import sys

import pytest

from vaeaug._moved import MOVED


@pytest.mark.parametrize(("old", "new"), sorted(MOVED.items()))
def test_an_old_path_gives_the_module_that_took_its_place(old, new):
    sys.modules.pop(f"vaeaug.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"vaeaug.{old} was moved: import vaeaug.{new}"):
        module = importlib.import_module(f"vaeaug.{old}")
    assert module is importlib.import_module(f"vaeaug.{new}")
    assert module.__spec__.name == f"vaeaug.{new}"


def test_the_warning_names_the_line_of_the_import(tmp_path):
    script = tmp_path / "old.py"
    script.write_text("from vaeaug.transforms import VAEMix\nprint(VAEMix.__module__)\n")
    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", str(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "vaeaug.integrations.torchvision\n"
    assert f"{script}:1: DeprecationWarning: vaeaug.transforms was moved" in done.stderr


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("vaeaug.nothing")

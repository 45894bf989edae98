"""The package as it is imported: light, explicit, typed."""

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vaeaug

HEAVY = (
    "torch",
    "torchvision",
    "h5py",
    "albumentations",
    "ray",
    "matplotlib",
    "sklearn",
    "pydantic",
)


@pytest.mark.parametrize("what", ["vaeaug", "vaeaug.cli", "vaeaug.data", "vaeaug.shards"])
def test_importing_loads_nothing_heavy(what):
    code = f"import sys, {what}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert sorted(set(vaeaug.__all__) - {"__version__", "load"}) == sorted(vaeaug._HOME)
    for name in vaeaug.__all__:
        assert getattr(vaeaug, name) is not None
        assert name in dir(vaeaug)


def test_no_module_hides_a_public_name():
    # Importing a submodule sets an attribute of the package: a module must not be called like a
    # public function.
    for module in pkgutil.walk_packages(vaeaug.__path__, "vaeaug."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name, home in vaeaug._HOME.items():
        assert getattr(vaeaug, name) is getattr(importlib.import_module(f"vaeaug.{home}"), name)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'vaeaug' has no attribute 'mix'"):
        _ = vaeaug.mix


def test_version_and_types():
    assert importlib.metadata.version("vaeaug") == vaeaug.__version__
    assert (Path(vaeaug.__file__).parent / "py.typed").exists()

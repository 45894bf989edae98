"""Old import paths of public modules: they give the module that took their place, and a warning.

``import vaeaug.lightning`` is ``import vaeaug.integrations.lightning``: the same module under
both names, so that classes are the same whichever path they were imported by.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old name: new name, both below "vaeaug.".
MOVED = {
    "transforms": "integrations",
    "transforms.albumentations": "integrations.albumentations",
    "transforms.torchvision": "integrations.torchvision",
    "lightning": "integrations.lightning",
    "hub": "integrations.hub",
    "oversampling": "integrations.oversampling",
    "sampling": "generator",
    "interchange": "export",
}


class _MovedModules(MetaPathFinder, Loader):
    """Finds and loads a module by its old name."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "vaeaug" or name not in MOVED:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        name = spec.name.removeprefix("vaeaug.")
        # Level 2 is the import system, which Python leaves out: the warning names the import.
        warnings.warn(
            f"vaeaug.{name} was moved: import vaeaug.{MOVED[name]}",
            DeprecationWarning,
            stacklevel=2,
        )
        module = importlib.import_module(f"vaeaug.{MOVED[name]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system gave the module the specification of its old name.
        spec = module.__spec__
        if spec is not None:
            module.__spec__ = spec.loader_state


def install() -> None:
    """Make the old paths importable."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())


def renamed_attribute(old: str, new: str) -> Any:
    """An old name of an attribute: it gives the attribute, and a warning.

    Args:
        old: The old name.
        new: The name that took its place.

    Returns:
        A property for the class, under the old name.
    """

    def read(instance: Any) -> Any:
        warnings.warn(
            f"{type(instance).__name__}.{old} was renamed: read .{new}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(instance, new)

    return property(read, doc=f"Old name of `{new}`.")

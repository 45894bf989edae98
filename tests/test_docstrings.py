"""Every public function says what it takes and what it gives."""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import vaeaug

ROOMS = {
    "vaeaug": vaeaug.__all__,
    "vaeaug.evaluation": None,
    "vaeaug.integrations": None,
    "vaeaug.integrations.albumentations": ("LatentAugment", "SyntheticPool", "worker_init_fn"),
    "vaeaug.integrations.hub": ("to_hub", "from_hub", "write_for_hub"),
    "vaeaug.integrations.lightning": ("MergedDataModule",),
    "vaeaug.plot": None,
    "vaeaug.job.applications": (
        "encode_to",
        "decode_from",
        "traverse",
        "write_traversal",
        "likeness",
        "add_noise",
    ),
}
# Methods whose contract is that of a protocol: torch's, albumentations', imbalanced-learn's.
PROTOCOLS = ("vaeaug.integrations.albumentations", "vaeaug.integrations.torchvision")


def public_functions() -> Iterator[tuple[str, Any]]:
    for room, names in ROOMS.items():
        module = importlib.import_module(room)
        for name in names or module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield f"{room}.{name}", value
            if inspect.isclass(value) and value.__module__ not in PROTOCOLS:
                for method, function in vars(value).items():
                    function = getattr(function, "__func__", function)
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{room}.{name}.{method}", function


@pytest.mark.parametrize(
    ("name", "function"), [pytest.param(*pair, id=pair[0]) for pair in public_functions()]
)
def test_a_public_function_says_what_it_takes_and_gives(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    arguments = [
        parameter
        for parameter in inspect.signature(function).parameters
        if parameter not in ("self", "cls", "args", "kwargs")
    ]
    if arguments:
        assert "\nArgs:\n" in text, name
    section = text.partition("\nArgs:\n")[2]
    described = re.split(r"^(?:Returns|Yields|Raises|Warns):$", section, flags=re.M)[0]
    missing = [each for each in arguments if f"    {each}:" not in described.replace("*", "")]
    assert not missing, f"{name}: {missing}"
    gives = inspect.signature(function).return_annotation
    if gives not in (None, "None", inspect.Signature.empty):
        assert "\nReturns:\n" in text or "\nYields:\n" in text, name

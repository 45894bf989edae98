"""A configuration from what people have of one: a mapping, a YAML file, ``a.b=c`` overrides."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vaeaug.config.job import AugmentConfig, ConfigError, make_config, set_key, short
from vaeaug.files.yaml_text import MOST_CHARACTERS, NOT_VALID, YAMLTextError, load_yaml


def as_config(given: "AugmentConfig | Mapping[str, Any] | str | Path | None") -> AugmentConfig:
    """A configuration from what people have of one.

    Args:
        given: One; a mapping of its keys, nested or dotted (``{"training.steps": 500}``); the path
            of a YAML file; or None for the defaults.

    Returns:
        The configuration.

    Raises:
        ConfigError: If it is none of these, or holds a wrong key or value.
    """
    if given is None:
        return AugmentConfig()
    if isinstance(given, AugmentConfig):
        return given
    if isinstance(given, str | Path):
        return load_config(given)
    if not isinstance(given, Mapping):
        raise ConfigError(
            "config: expected an AugmentConfig, a mapping of its keys, the path of a YAML file or "
            f"None, got {type(given).__name__}"
        )
    document: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise ConfigError(f"config: expected the names of keys, got {key!r}")
        group = document.get(key)
        if isinstance(value, Mapping) and isinstance(group, dict) and "." not in key:
            value = {**group, **value}
        set_key(document, key, value)
    return make_config(document)


def load_config(
    path: str | Path | None = None, overrides: Iterable[str] = (), **keys: Any
) -> AugmentConfig:
    """Read YAML, apply ``a.b=c`` overrides, then `keys`.

    Args:
        path: A YAML file; None for the defaults.
        overrides: Texts ``key=value``, the value in YAML.
        **keys: Dotted keys and their values; None leaves a key as it is.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the file cannot be read, is not a mapping, or holds a wrong key or value.
    """
    document: dict[str, Any] = {}
    if path is not None:
        document = _read_yaml(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set: expected key=value such as model.beta=2, got {override!r}")
        try:
            value = load_yaml(text)
        except YAMLTextError as error:
            why = "" if str(error).startswith(NOT_VALID) else f": {error}"
            raise ConfigError(f"--set {key}: {short(text)} is not a YAML value{why}") from None
        set_key(document, key.strip(), value)
    for key, value in keys.items():
        if value is not None:
            set_key(document, key, value)
    return make_config(document, where="configuration" if path is None else str(path))


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file, for editors and other programs.

    Returns:
        Plain JSON types.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **AugmentConfig.model_json_schema(),
    }


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Compare two configurations.

    Args:
        old: Configuration as plain JSON types.
        new: Another one.

    Returns:
        A line ``key: old -> new`` for every key that differs.
    """
    before, after = flat(old), flat(new)
    missing = "(absent)"
    return [
        f"{key}: {before.get(key, missing)!r} -> {after.get(key, missing)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, missing) != after.get(key, missing)
    ]


def as_overrides(config: AugmentConfig) -> list[str]:
    """What a configuration changes of the defaults, as `load_config` takes it.

    Args:
        config: The configuration.

    Returns:
        Texts ``key=value``, the value in JSON, which is YAML too.
    """
    defaults, given = flat(AugmentConfig().to_json()), flat(config.to_json())
    return [
        f"{key}={json.dumps(value)}"
        for key, value in sorted(given.items())
        if value != defaults.get(key)
    ]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            # One more than is read: a file of gigabytes, or without an end, is never loaded whole.
            text = file.read(MOST_CHARACTERS + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected a UTF-8 text file of YAML") from None
    try:
        document = load_yaml(text)
    except YAMLTextError as error:
        raise ConfigError(f"{path}: {error}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(document).__name__}")
    return document


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give the keys of a configuration their dotted names.

    Args:
        document: A configuration as plain JSON types.
        prefix: What stands before every key.

    Returns:
        Values by dotted key; mappings below the second level are values.
    """
    pairs: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name.count(".") < 1:
            pairs.update(flat(value, f"{name}."))
        else:
            pairs[name] = value
    return pairs

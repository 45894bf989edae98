"""Whoever takes synthetic data into a training is told what is known of it."""

import logging
import warnings

from vaeaug.shards._manifest import Manifest

_log = logging.getLogger("vaeaug")
_said: set[str] = set()


def say_verdict(manifest: Manifest, *, stacklevel: int) -> None:
    """Say what the evaluation found: nothing harms in silence.

    Args:
        manifest: Of the run whose samples are going to be used.
        stacklevel: Of the warning; 1 is the caller's own line, 2 that of who called it.

    Warns:
        UserWarning: If the evaluation found that they do not help. That nothing was evaluated is
            logged, once a run and process.
    """
    gate = manifest.gate
    where = str(manifest.folder)
    if isinstance(gate, str):
        if where not in _said:
            _said.add(where)
            _log.warning(
                "%s: not evaluated: whether this synthetic data helps is not known; "
                "`vaeaug evaluate DATA OUT` measures it",
                where,
            )
    elif gate.get("verdict") == "does not help":
        warnings.warn(
            f"{where}: the evaluation found: {gate.get('sentence')} share=0 trains on real images "
            "alone.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )

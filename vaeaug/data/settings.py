"""Reading as the configuration of a job says."""

from collections.abc import Mapping
from typing import Any

from vaeaug.data.dataset import LabelledImages
from vaeaug.data.reading import read

# Settings that `read` takes by the same name.
_READ = (
    *("split", "size", "keys", "alpha", "layout", "class_names", "value_range", "resize"),
    *("mode", "on_error"),
)


def read_by(
    source: Any,
    settings: Mapping[str, Any],
    *,
    seed: int,
    workers: int | None = None,
    progress: bool = True,
) -> LabelledImages:
    """Read a source as the part `data` of a job's configuration says.

    Args:
        source: Anything that `read` takes.
        settings: The part, as plain data: what ``run.json`` holds, or a dumped model.
        seed: Of the choice of images where ``class_counts`` keeps some of each class.
        workers: As for `read`.
        progress: As for `read`.

    Raises:
        DataError: As for `read`.
    """
    given = {name: settings[name] for name in _READ if settings.get(name) is not None}
    data = read(source, workers=workers, progress=progress, **given)
    counts = settings.get("class_counts")
    if counts is None:
        return data
    if isinstance(counts, Mapping):  # JSON has texts alone for keys
        counts = {int(label): n for label, n in counts.items()}
    return data.imbalanced(counts, seed=seed)

"""The names that people give to images, labels and splits: one list for every reader.

Arrays in a file, columns of a table or of a dataset, fields of a sample and keys of a batch are all
found by these. Names are compared in lower case, with "-" and spaces as "_". The earlier a name
stands in its list, the surer it is. Standard library only, so that any part may use it.
"""

from collections.abc import Collection, Iterable

# Pixels or values themselves.
IMAGES = (
    *("images", "image", "imgs", "img", "x", "data", "pixels", "pixel_values", "pictures"),
    *("picture", "photos", "photo", "inputs", "input", "samples", "signals", "signal", "volumes"),
    *("volume", "audio", "features", "embeddings"),
)
# Of these, vectors that a network made of images.
FEATURES = ("features", "embeddings")
# Paths of images, and other names that surely mean a file.
PATHS = (
    *("path", "paths", "file", "files", "filename", "filenames", "file_name", "file_path"),
    *("filepath", "filepaths", "image_path", "img_path", "imagepath", "image_file", "image_name"),
    *("img_name", "imagename", "image_filename", "img_file", "full_path", "relative_path"),
    *("rel_path", "image", "images", "img", "audio", "audio_path", "wav", "fname"),
)
# Names of images without a folder and often without an ending.
IDS = ("image_id", "img_id", "imageid", "id_code", "file_id", "id", "slice_id", "uid")
LABELS = (
    *("label", "labels", "target", "targets", "class", "y", "category", "cls", "class_label"),
    *("class_id", "category_id", "label_id", "diagnosis", "dx", "breed", "species", "class_name"),
    *("category_name", "label_name", "classes", "categories"),
)
SPLITS = ("split", "set", "subset", "fold", "partition", "dataset", "data_set", "usage")


def plain(name: str) -> str:
    """Bring a name to the form in which names are compared.

    Args:
        name: A name of an array, column, field or key.

    Returns:
        The name in lower case, with "_" between words.
    """
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def find_all(wanted: Collection[str], names: Iterable[str]) -> list[str]:
    """Find the names that are known.

    Args:
        wanted: One of the lists of this module.
        names: The names of a source, in any spelling.

    Returns:
        Those of `names` that are in the list, the surest first.
    """
    by_plain: dict[str, list[str]] = {}
    for name in names:
        by_plain.setdefault(plain(name), []).append(name)
    return [name for key in wanted for name in by_plain.get(key, ())]


def find(wanted: Collection[str], names: Iterable[str]) -> str | None:
    """Find the surest name that is known.

    Args:
        wanted: One of the lists of this module.
        names: The names of a source, in any spelling.

    Returns:
        The surest of `names` that is in the list, or None.
    """
    return next(iter(find_all(wanted, names)), None)

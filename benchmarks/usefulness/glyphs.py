"""Pictures of characters in the fonts of a Debian machine: the script that makes them, a loader.

    apt-get install fonts-freefont-ttf fonts-lato ...       # the list: README.md
    python -m benchmarks.usefulness.glyphs --out runs/glyphs.npz

Every font that has all characters gives a 28 x 28 picture of each. Fonts that repeat another's
pictures are dropped; families are those of the fonts' name tables, so that a test can be made of
families that training never saw.
"""

import argparse
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from vaeaug import LabelledImages

# Characters whose small and capital forms differ, without O and 0, l and 1.
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijkmnqrty23456789&@?%#$"
SIDE, MARGIN = 28, 3
DRAWN = 96  # size in points at which outlines are drawn before they are made small
FONTS = Path("/usr/share/fonts")
DEFAULT = Path("runs/glyphs.npz")
TEST_FAMILIES, DEVELOPMENT_FAMILIES = 300, 100


# -- Making ----------------------------------------------------------------------------------------


def picture(font: ImageFont.FreeTypeFont, character: str) -> UInt8[np.ndarray, "28 28"] | None:
    """A character in the middle, as large as fits, white on black.

    Args:
        font: At `DRAWN` points.
        character: One.

    Returns:
        The picture; None where the font draws nothing.
    """
    left, top, right, bottom = font.getbbox(character)
    width, height = right - left, bottom - top
    if not 0 < max(width, height) <= 8 * DRAWN:
        return None
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).text((-left, -top), character, 255, font)
    if canvas.getbbox() is None:
        return None
    canvas = canvas.crop(canvas.getbbox())
    scale = (SIDE - 2 * MARGIN) / max(canvas.size)
    size = tuple(max(1, round(scale * n)) for n in canvas.size)
    small = canvas.resize(size, Image.Resampling.LANCZOS)
    whole = Image.new("L", (SIDE, SIDE))
    whole.paste(small, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(whole)


def faces(path: Path) -> Iterator[tuple[int, str]]:
    """The faces of a font file that have every character.

    Args:
        path: A TrueType or OpenType font, or a collection of them.

    Yields:
        Index of the face in the file, and its family.
    """
    from fontTools.ttLib import TTCollection, TTFont

    is_collection = path.suffix.lower() in (".ttc", ".otc")
    fonts = TTCollection(path).fonts if is_collection else [TTFont(path, lazy=True)]
    for i, font in enumerate(fonts):
        if not set(map(ord, CHARACTERS)) <= font.getBestCmap().keys():
            continue
        # The typographic family, 16, has the weights of a family under one name; 1 is the older.
        names = (font["name"].getDebugName(number) for number in (16, 1))
        family = next(filter(None, names), None)
        if family:
            yield i, family.strip()


def render(folder: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Draw every font under a folder.

    Args:
        folder: Of fonts.

    Returns:
        Pictures of shape (fonts, characters, 28, 28), the family of each font, and what was left
        out and why.
    """
    drawn: dict[str, tuple[np.ndarray, str]] = {}
    left_out = []
    endings = {".ttf", ".otf", ".ttc", ".otc"}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in endings):
        try:
            found = list(faces(path))
            for i, family in found:
                font = ImageFont.truetype(
                    path, DRAWN, index=i, layout_engine=ImageFont.Layout.BASIC
                )
                pictures = [picture(font, character) for character in CHARACTERS]
                if any(one is None for one in pictures):
                    left_out.append(f"{path}: a character without ink")
                    continue
                images = np.stack(pictures)
                digest = hashlib.sha256(images.tobytes()).hexdigest()
                if digest in drawn:
                    left_out.append(f"{path}: the same pictures as another font")
                    continue
                if _repeats_itself(images):
                    left_out.append(f"{path}: one picture for several characters")
                    continue
                drawn[digest] = images, family
            if not found:
                left_out.append(f"{path}: characters are missing")
        # Damaged fonts raise errors of many kinds in two libraries; one font is not the set.
        except Exception as error:
            left_out.append(f"{path}: {type(error).__name__}: {error}")
    if not drawn:
        raise SystemExit(f"glyphs: expected fonts with all characters under {folder}, found none")
    images, families = zip(*drawn.values(), strict=True)
    return np.stack(images), list(families), left_out


def _repeats_itself(images: UInt8[np.ndarray, "k 28 28"]) -> bool:
    """Whether the font shows capitals for small letters, or boxes."""
    return len({image.tobytes() for image in images}) < len(images)


def write(folder: Path, out: Path, *, most: int) -> None:
    """Draw the fonts and write the pictures.

    Args:
        folder: Of fonts.
        out: The npz file: images (n, 28, 28), labels, family, class_names, family_names.
        most: Fonts of a family, at most; the first of them by path.
    """
    images, families, left_out = render(folder)
    names = sorted(set(families))
    seen: dict[str, int] = {}
    kept = []
    for i, family in enumerate(families):
        seen[family] = seen.get(family, 0) + 1
        if seen[family] <= most:
            kept.append(i)
    k = len(CHARACTERS)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        images=images[kept].reshape(-1, SIDE, SIDE),
        labels=np.tile(np.arange(k, dtype=np.uint8), len(kept)),
        family=np.repeat([names.index(families[i]) for i in kept], k).astype(np.int16),
        class_names=np.array(list(CHARACTERS)),
        family_names=np.array(names),
    )
    for line in left_out:
        print(f"left out: {line}")
    print(f"{out}: {len(kept)} fonts of {len(names)} families, {len(left_out)} fonts left out")


# -- Reading ---------------------------------------------------------------------------------------


@cache
def load(path: Path) -> dict[str, np.ndarray]:
    """Read the pictures.

    Args:
        path: What `write` left.

    Returns:
        images, labels, family and class_names.

    Raises:
        SystemExit: If there is no such file.
    """
    if not path.exists():
        raise SystemExit(
            f"{path}: expected the glyphs, found no file; python -m benchmarks.usefulness.glyphs "
            "makes it, --glyphs FILE names another"
        )
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in ("images", "labels", "family", "class_names")}
    found["labels"] = found["labels"].astype(np.int64)
    return found


def parts(
    path: Path, counts: list[int], seed: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """Training, development and test images of a seed, of disjoint families.

    Test is one font of each of 300 families, development one of each of 100 others; training
    images are of the rest. A smaller count gives a subset of the images of a larger one.

    Args:
        path: The glyphs.
        counts: Training images, in the seed's order of the classes.
        seed: Of the families, the order of the classes, and the images.

    Returns:
        Training, development and test images.

    Raises:
        ValueError: If a class has fewer images than asked for.
    """
    found = load(path)
    labels, family = found["labels"], found["family"]
    rng = np.random.default_rng(seed)
    families = rng.permutation(family.max() + 1)
    test = families[:TEST_FAMILIES]
    development = families[TEST_FAMILIES : TEST_FAMILIES + DEVELOPMENT_FAMILIES]
    training = ~np.isin(family, [*test, *development])
    wanted = np.zeros(len(found["class_names"]), int)
    wanted[rng.permutation(len(wanted))] = counts
    rows = []
    for c, n in enumerate(wanted):
        of_class = rng.permutation(np.flatnonzero((labels == c) & training))
        if len(of_class) < n:
            raise ValueError(
                f"{path}: expected {n} training images of {str(found['class_names'][c])!r}, found "
                f"{len(of_class)}; more font packages have to be installed"
            )
        rows.append(of_class[:n])

    def data(rows: Int64[np.ndarray, " n"], split: str) -> LabelledImages:
        images, names = found["images"][rows][..., None], tuple(found["class_names"].tolist())
        return LabelledImages(images, labels[rows], names, (0, 255), split, source=str(path.name))

    def one_font_each(chosen: np.ndarray) -> Int64[np.ndarray, " n"]:
        return np.sort(
            np.concatenate(
                [
                    of[np.unique(family[of], return_index=True)[1]]
                    for c in range(len(wanted))
                    for of in [np.flatnonzero((labels == c) & np.isin(family, chosen))]
                ]
            )
        )

    return (
        data(np.concatenate(rows), "train"),
        data(one_font_each(development), "val"),
        data(one_font_each(test), "test"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fonts", type=Path, default=FONTS, help="folder of fonts")
    parser.add_argument("--out", type=Path, default=DEFAULT)
    parser.add_argument("--most", type=int, default=2, help="fonts of a family, at most")
    arguments = parser.parse_args()
    write(arguments.fonts, arguments.out, most=arguments.most)


if __name__ == "__main__":
    main()

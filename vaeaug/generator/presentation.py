"""What a notebook shows of a generator."""

from typing import TYPE_CHECKING

import numpy as np

from vaeaug.notebook import MAX_ROWS, Card, Table, counted, strip

if TYPE_CHECKING:
    from vaeaug.generator.synthesizer import Synthesizer


def summary_card(generator: "Synthesizer") -> Card:
    """Describe a generator without drawing from it.

    Args:
        generator: The generator.

    Returns:
        The classes, with how each is drawn and why.
    """
    of_class = np.bincount(
        generator.labels[: generator.n_real], minlength=len(generator.class_names)
    )
    rows = []
    for label, (name, count) in enumerate(
        zip(generator.class_names, of_class.tolist(), strict=True)
    ):
        drawn = len(generator.rows[label]) > 0
        sampler = generator.default_sampler(label) if drawn else "none"
        reason = generator.sampler_reason(label) if drawn else "no training samples"
        rows.append((name, count, sampler, reason))
    weights = sum(parameter.numel() for parameter in generator.model.parameters())
    shape = " x ".join(map(str, generator.image_shape))
    lines = [
        f"{generator.means.shape[1]} latents, {weights:,} weights, samples of shape {shape}, "
        f"{generator.dtype}; on {generator.device}"
    ]
    table = Table(("class", "training samples", "sampler", "why"), rows)
    title = f"Generator of {counted(len(generator.class_names), 'classes')}"
    return Card(title, lines, [table], notes=generator.notes)


def samples_card(
    generator: "Synthesizer", label: int | str | None, n: int, *, seed: int, sampler: str
) -> Card:
    """Draw samples, and show them above the training samples that they were drawn around.

    Args:
        generator: The generator.
        label: Class index or name; None: every class with training samples.
        n: Samples of each class.
        seed: As in `Synthesizer.sample`.
        sampler: As in `Synthesizer.sample`.

    Returns:
        A row for each class; of more classes than a table shows, of the first.
    """
    if label is None:
        present = [index for index, rows in enumerate(generator.rows) if len(rows)]
    else:
        present = [generator.index_of(label)]
    rows, used = [], set()
    for index in present[:MAX_ROWS]:
        batch = generator.sample(index, n, seed=seed, sampler=sampler)
        used.add(batch.sampler)
        name = generator.class_names[index]
        picture = strip(batch.images, generator.value_range, alt=f"Synthetic {name}", columns=n)
        rows.append((name, "synthetic", picture))
        has_source = generator.data is not None and bool((batch.source_index >= 0).all())
        if has_source and 2 * len(present) <= MAX_ROWS:
            assert generator.data is not None
            sources = generator.data.images_at(batch.source_index)
            picture = strip(sources, generator.value_range, alt=f"Real {name}", columns=n)
            rows.append(("", "drawn around", picture))
    notes = []
    if len(present) > MAX_ROWS:
        notes.append(f"{len(present) - MAX_ROWS} more classes are not shown")
    if any(row[2] is None for row in rows):
        notes.append("feature vectors have no look")
    lines = [f"drawn by {', '.join(sorted(used))}, seed {seed}"]
    return Card("Samples of the generator", lines, [Table(("class", "", ""), rows)], notes=notes)

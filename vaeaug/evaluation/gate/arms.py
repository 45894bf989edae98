"""Arms: the ways to train a probe, with and without synthetic samples."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from vaeaug.config import Recipe
from vaeaug.data import LabelledImages

Balance = Literal[
    "none", "oversampling", "logit adjustment", "effective number", "tau-norm", "nearest mean"
]
Mix = Literal["mixup", "cutmix"]


@dataclass(frozen=True)
class Arm:
    """How one probe is trained. Arms differ in nothing else.

    Attributes:
        balance: Against unequal classes: class-balanced draws, logit adjustment (Menon et al.
            2021, arXiv:2007.07314) or weights by the effective number of samples (Cui et al. 2019,
            arXiv:1901.05555). Of linear heads also tau-normalised weights and the nearest mean of a
            class (Kang et al. 2020, arXiv:1910.09217), whose cRT is class-balanced draws.
        classic: Random shift, and for images rotation and zoom.
        flip: Random horizontal flip (images).
        mix: Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899) of the batch.
        recipe: How synthetic samples are used; None: real images alone.
        pool: Images of the unlabelled pool that the generator's classifier is sure of are training
            images too, with the class that it gives them (pseudo-labels).
        beside: Synthetic samples stand beside a whole batch of real draws; else they take the
            place of real draws.
        length: Number of steps, as a multiple of the configured one.
    """

    balance: Balance = "none"
    classic: bool = False
    flip: bool = False
    mix: Mix | None = None
    pool: bool = False
    recipe: Recipe | None = None
    beside: bool = False
    length: float = 1.0

    @property
    def name(self) -> str:
        """The arm in words, for tables."""
        parts: list[str] = [] if self.balance == "none" else [self.balance]
        parts += ["classic"] * self.classic + ["flip"] * self.flip
        parts += [{"mixup": "Mixup", "cutmix": "CutMix"}[self.mix]] if self.mix else []
        parts += ["pseudo-labels"] * self.pool
        if self.recipe is not None:
            parts.append(f"synthetic ({self.recipe}{', beside' if self.beside else ''})")
        if self.length != 1:
            parts.append(f"{self.length:g} x the steps")
        return " + ".join(parts) or "none"

    def with_recipe(self, recipe: Recipe, *, beside: bool = False) -> "Arm":
        """Train on merged data instead.

        Args:
            recipe: How synthetic samples are used.
            beside: Whether synthetic samples are added to the real draws instead of replacing them.

        Returns:
            The same training on merged data.
        """
        return replace(self, recipe=recipe, beside=beside)


def fixed_arms(train: LabelledImages) -> Iterator[Arm]:
    """List the baselines that are always trained.

    Args:
        train: The data; flips and CutMix are for images.

    Yields:
        The arms, in the order of the table.
    """
    if train.are_features:
        yield from _head_arms()
        return
    images = len(train.image_shape) == 3
    yield Arm()
    yield Arm("oversampling")
    classic = Arm("oversampling", classic=True)
    yield classic
    if images:
        yield replace(classic, flip=True)
    yield replace(classic, mix="mixup")
    if images:
        yield replace(classic, mix="cutmix")
    yield Arm("logit adjustment", classic=True)
    yield Arm("effective number", classic=True)
    if images:
        # Together they were the best of all on long-tailed Fashion-MNIST; each alone was not.
        yield Arm("logit adjustment", mix="cutmix")


def quick_arms(train: LabelledImages) -> list[Arm]:
    """List the baselines of a prediction, two of `fixed_arms`: the usual remedies for rare classes.

    Args:
        train: The data; classic augmentation is not for features.

    Returns:
        Class-balanced draws and logit adjustment.
    """
    classic = not train.are_features
    return [Arm("oversampling", classic=classic), Arm("logit adjustment", classic=classic)]


def _head_arms() -> Iterator[Arm]:
    """Ways to train a linear head on features: there is nothing to shift, to rotate or to cut."""
    yield Arm()
    yield Arm("oversampling")
    yield Arm("oversampling", mix="mixup")
    yield Arm("logit adjustment")
    yield Arm("effective number")
    yield Arm("tau-norm")
    yield Arm("nearest mean")

"""The arms: baselines without synthetic data, and recipes with it."""

from dataclasses import dataclass, replace

from vaeaug.config import Recipe
from vaeaug.evaluation import Arm


@dataclass(frozen=True)
class Trial:
    """One row of the table.

    Attributes:
        base: How real images are trained on.
        recipe: How synthetic samples are used; None: not at all.
        dataset: Which of the datasets that `make` left: "base" is what the default sampler draws,
            "interpolate" edits, the others are named by their sampler.
        beside: Synthetic samples beside a whole batch of real draws.
        teacher: Synthetic labels are half those of three probes trained on real images alone.
        real_as_synthetic: Real images take the place of synthetic ones (with a teacher:
            distillation without a generator).
        length: Steps, as a multiple.
    """

    base: Arm
    recipe: Recipe | None = None
    dataset: str = ""
    beside: bool = False
    teacher: bool = False
    real_as_synthetic: bool = False
    length: float = 1.0

    @property
    def arm(self) -> Arm:
        """What the probe is told."""
        return replace(self.base, recipe=self.recipe, beside=self.beside, length=self.length)


PLAIN = Arm("oversampling", classic=True)
# What `baselines` are best on the development images is what the recipes are added to.
BASE = PLAIN

BASELINES = {
    "none": Trial(Arm()),
    "oversampling": Trial(Arm("oversampling")),
    "classic": Trial(PLAIN),
    "classic + flip": Trial(replace(PLAIN, flip=True)),
    "Mixup": Trial(replace(PLAIN, mix="mixup")),
    "CutMix": Trial(replace(PLAIN, mix="cutmix")),
    "logit adjustment": Trial(Arm("logit adjustment", classic=True)),
    "effective number": Trial(Arm("effective number", classic=True)),
    "flip + Mixup": Trial(replace(PLAIN, flip=True, mix="mixup")),
    "logit adjustment + Mixup": Trial(Arm("logit adjustment", classic=True, mix="mixup")),
    "logit adjustment + flip": Trial(Arm("logit adjustment", classic=True, flip=True)),
}
# Where no classic augmentation is allowed, as where none is known to keep the label.
BARE = Arm("oversampling")
BARE_BASELINES = {
    "bare": Trial(BARE),
    "bare Mixup": Trial(replace(BARE, mix="mixup")),
    "bare CutMix": Trial(replace(BARE, mix="cutmix")),
    "bare logit adjustment": Trial(Arm("logit adjustment")),
    "bare logit adjustment + CutMix": Trial(Arm("logit adjustment", mix="cutmix")),
}
BARE_RECIPES = {
    "bare, edits 50 %": Trial(BARE, Recipe(share=0.5), "interpolate"),
    "bare, edits 70 %": Trial(BARE, Recipe(share=0.7), "interpolate"),
    "bare Mixup, edits 50 %": Trial(replace(BARE, mix="mixup"), Recipe(share=0.5), "interpolate"),
    "bare CutMix, edits 50 %": Trial(replace(BARE, mix="cutmix"), Recipe(share=0.5), "interpolate"),
    "bare logit adjustment + CutMix, edits 50 %": Trial(
        Arm("logit adjustment", mix="cutmix"), Recipe(share=0.5), "interpolate"
    ),
    "bare logit adjustment + CutMix, edits 30 %, last 40 % real": Trial(
        Arm("logit adjustment", mix="cutmix"), Recipe(real_only_last=0.4), "interpolate"
    ),
    "bare logit adjustment + CutMix, default 30 %, last 40 % real": Trial(
        Arm("logit adjustment", mix="cutmix"), Recipe(real_only_last=0.4), "base"
    ),
    "bare logit adjustment + CutMix, edits 30 %, beside": Trial(
        Arm("logit adjustment", mix="cutmix"), Recipe(), "interpolate", beside=True
    ),
    "bare, edits 50 %, teacher": Trial(
        BARE, Recipe(share=0.5, soft=True), "interpolate", teacher=True
    ),
}
MORE_BASELINES = {
    "classic, twice the steps": Trial(BASE, length=2.0),
    "distillation": Trial(BASE, Recipe(share=0.5, soft=True), teacher=True, real_as_synthetic=True),
}
RECIPES = {
    "edits 30 %": Trial(BASE, Recipe(), "interpolate"),
    "edits 30 %, last 40 % real": Trial(BASE, Recipe(real_only_last=0.4), "interpolate"),
    "default 30 %, last 40 % real": Trial(BASE, Recipe(real_only_last=0.4), "base"),
    "edits 50 %, last 40 % real": Trial(BASE, Recipe(share=0.5, real_only_last=0.4), "interpolate"),
    "edits 30 %, teacher": Trial(BASE, Recipe(soft=True), "interpolate", teacher=True),
    "edits 50 %, teacher": Trial(BASE, Recipe(share=0.5, soft=True), "interpolate", teacher=True),
    "edits 30 %, beside": Trial(BASE, Recipe(), "interpolate", beside=True),
    "edits, rare only": Trial(BASE, Recipe(classes="rare"), "interpolate"),
    "edits 30 %, batch norm apart": Trial(BASE, Recipe(separate_batch_norm=True), "interpolate"),
    "gmm 30 %": Trial(BASE, Recipe(), "gmm"),
    "gmm 30 %, last 40 % real": Trial(BASE, Recipe(real_only_last=0.4), "gmm"),
    "gmm 30 %, teacher": Trial(BASE, Recipe(soft=True), "gmm", teacher=True),
    "transfer 30 %, last 40 % real": Trial(BASE, Recipe(real_only_last=0.4), "transfer"),
    "transfer 30 %, teacher": Trial(BASE, Recipe(soft=True), "transfer", teacher=True),
}

"""How synthetic samples are drawn, and how a trainer uses them."""

import warnings
from typing import Any, Literal

from pydantic import Field

from vaeaug.config.sections import Section

Sampler = Literal[
    "prior",
    "posterior",
    "interpolate",
    "gmm",
    "flow",
    "transfer",
    "blend",
    "delta",
    "calibrated",
]
# Those of discrete latents: codes cannot be moved.
CODE_SAMPLERS = ("prior", "posterior", "delta")
# The keys that decide which samples there are; the others say how a trainer uses them.
_DRAWING = ("sampler", "temperature", "min_label_probability", "soft")


class Recipe(Section):
    """How synthetic samples are drawn and how a trainer uses them. `share` 0 is "none"."""

    share: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Part of a class's draws that is synthetic; `plan.share` where that is given.",
    )
    classes: Literal["all", "rare"] = Field(
        "all", description="rare: classes with fewer images than the mean of all."
    )
    sampler: Literal["auto", Sampler] = Field(
        "auto", description="How z is drawn. auto: by the size of the class."
    )
    temperature: float = Field(1.0, gt=0, le=4, description="Scale of the noise.")
    min_label_probability: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Reject below this p(label) of the real-only classifier; with K > 10 classes, "
        "below this times 10 / K.",
    )
    soft: bool = Field(
        False,
        description="Store and use labels that are half the label and half what the classifiers of "
        "the real images say (a distilled label).",
    )
    weight: float = Field(1.0, gt=0, le=1, description="Loss weight of a synthetic sample.")
    separate_batch_norm: bool = Field(
        False, description="Synthetic samples do not update the statistics of batch norm."
    )
    real_only_last: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Part of the training, at its end, on real images alone. 0.2 to 0.4 was "
        "measured better than 0.",
    )

    @property
    def is_none(self) -> bool:
        """Whether real images alone are used."""
        return self.share == 0 or self.real_only_last == 1

    def settings(self) -> dict[str, Any]:
        """The keys of a job that decide which samples are drawn.

        Returns:
            Dotted key to value, for `AugmentConfig.changed`.
        """
        return {f"recipe.{name}": getattr(self, name) for name in _DRAWING}

    @classmethod
    def of(cls, config: Any, **keys: Any) -> "Recipe":
        """Deprecated: the recipe of a job is ``config.recipe``.

        Args:
            config: The job.
            **keys: Keys of the recipe that are changed.

        Returns:
            A copy of the job's recipe.
        """
        warnings.warn(
            "Recipe.of(config) is deprecated: use config.recipe",
            DeprecationWarning,
            stacklevel=2,
        )
        return cls.model_validate({**config.recipe.model_dump(), **keys})

    def __str__(self) -> str:
        if self.is_none:
            return "none"
        settings = self.model_dump(exclude_defaults=True, exclude={"share", "classes"})
        words = [f"{self.share:.0%} of {self.classes} classes"]
        words += [
            name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}"
            for name, value in settings.items()
        ]
        return ", ".join(words)

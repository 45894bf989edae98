"""How synthetic samples are drawn, and how a trainer uses them."""

from typing import Any, Literal

from pydantic import Field

from vaeaug.config.sections import Section

Sampler = Literal["prior", "posterior", "interpolate", "gmm", "flow", "transfer", "blend"]


class Recipe(Section):
    """How synthetic samples are drawn and how a trainer uses them. `share` 0 is "none"."""

    share: float = Field(0.3, ge=0, lt=1, description="Part of a class's draws that is synthetic.")
    classes: Literal["all", "rare"] = Field(
        "all", description="rare: classes with fewer images than the mean of all."
    )
    sampler: Literal["auto", Sampler] = Field("auto", description="As sampling.sampler.")
    temperature: float = Field(1.0, gt=0, le=4, description="As sampling.temperature.")
    min_label_probability: float = Field(
        0.02, ge=0, lt=1, description="As screening.min_label_probability."
    )
    soft: bool = Field(
        False, description="Labels are half those of a classifier of the real images."
    )
    weight: float = Field(1.0, gt=0, le=1, description="Loss weight of a synthetic sample.")
    separate_batch_norm: bool = Field(
        False, description="Synthetic samples do not touch the statistics of batch norm."
    )
    real_only_last: float = Field(
        0.0, ge=0, le=1, description="Part of the training, at its end, on real images alone."
    )

    @property
    def is_none(self) -> bool:
        """Whether real images alone are used."""
        return self.share == 0 or self.real_only_last == 1

    def settings(self) -> dict[str, Any]:
        """The keys of a job that draws by this recipe."""
        return {
            "sampling.sampler": self.sampler,
            "sampling.temperature": self.temperature,
            "screening.min_label_probability": self.min_label_probability,
            "screening.soft_labels": self.soft,
        }

    @classmethod
    def of(cls, config: Any, **keys: Any) -> "Recipe":
        """The recipe that a job stands for where none was searched."""
        return cls.model_validate(
            {
                **({"share": config.plan.share} if config.plan.share else {}),
                "sampler": config.sampling.sampler,
                "temperature": config.sampling.temperature,
                "min_label_probability": config.screening.min_label_probability,
                "soft": config.screening.soft_labels,
                **keys,
            }
        )

    def __str__(self) -> str:
        if self.is_none:
            return "none"
        rest = self.model_dump(exclude_defaults=True, exclude={"share", "classes"})
        words = [f"{self.share:.0%} of {self.classes} classes"]
        words += [
            name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}"
            for name, value in rest.items()
        ]
        return ", ".join(words)

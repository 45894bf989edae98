"""How it is measured whether synthetic data helps."""

from pydantic import Field

from vaeaug.config.sections import Section


class EvaluationConfig(Section):
    """How the effect of synthetic data is measured. It changes no byte of the dataset."""

    budget: float = Field(
        240.0,
        gt=0,
        description="Seconds to spend; they decide how many splits are run, at least `min_splits`.",
    )
    folds: int = Field(5, ge=2, le=50, description="Number of folds; each split holds out one.")
    min_splits: int = Field(3, ge=2, description="Fewest splits, whatever the budget.")
    max_splits: int = Field(10, ge=2, le=1000, description="Most splits.")
    steps: int | None = Field(
        None, ge=1, description="Training steps of each probe. Default: by the number of images."
    )
    judge_steps: int | None = Field(
        None,
        ge=1,
        description="Training steps of each classifier that judges fidelity (default 200) and "
        "shortcuts (300).",
    )
    batch_size: int = Field(128, ge=4, le=65536, description="Images per training step of a probe.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak AdamW learning rate.")
    width: int = Field(16, ge=4, le=512, description="Channels of the small probe's first layer.")
    min_effect: float = Field(
        0.005, ge=0, lt=1, description="Smallest gain in balanced accuracy that counts."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence level of the intervals.")
    min_held_out: int = Field(
        3, ge=1, description="A class with fewer held-out images makes the verdict unsure."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the splits and the probes.")
    workers: int | None = Field(
        None, ge=1, description="Worker processes. Default: one per core. 1: none is started."
    )

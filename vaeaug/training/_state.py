"""A training stage, its state, its checkpoint and its log."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaeaug.files import append, new_file, open_regular, publish, read_whole
from vaeaug.training._loss_scale import LossScale

# A step is exploding when a guarded metric is this many times its running mean over good steps.
EXPLODING = 100.0


class TrainingError(RuntimeError):
    """Training failed, or a checkpoint cannot be used or written."""


# Default weight decay of a stage.
WEIGHT_DECAY = 1e-4
# Default peak learning rate.
LEARNING_RATE = 2e-3
# Default number of evaluations.
EVALUATIONS = 20


@dataclass(frozen=True)
class Stage:
    """One run of the training loop.

    Attributes:
        name: Name in the log and of the checkpoint.
        steps: Optimiser steps.
        classes: The classes it trains on.
        adapt: Fit the classes' own parameters with the trunk frozen.
        is_one_class: The model has one class only and calls it 0.
        learning_rate: Peak AdamW learning rate.
        class_power: A class is drawn in proportion to count**class_power.
        budget: Seconds after which the stage ends; None: only the steps count.
        weight_decay: Of AdamW.
        evaluations: How often the average weights are scored, where the job does not say it.
    """

    name: str
    steps: int
    classes: tuple[int, ...]
    adapt: bool = False
    is_one_class: bool = False
    learning_rate: float = LEARNING_RATE
    class_power: float = 0.5
    budget: float | None = None
    weight_decay: float = WEIGHT_DECAY
    evaluations: int = EVALUATIONS

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the stage that is over.

        Args:
            step: Steps taken.
            seconds: Seconds spent.

        Returns:
            From 0 to 1.
        """
        by_time = 0.0 if self.budget is None else seconds / self.budget
        return min(1.0, max(step / self.steps, by_time))


@dataclass
class StageRecord:
    """What a checkpoint holds besides weights and optimiser.

    Attributes:
        step: Steps taken, including skipped ones.
        done: Whether the stage has ended.
        skipped: Steps skipped because the loss was not finite or exploding.
        bad_in_a_row: Steps skipped since the last good one.
        evaluations_without_gain: Held-out evaluations since the best one.
        running_error: Running mean of the squared error per image.
        running_kl: Running mean of the KL per image, nats.
        first: Held-out score before the first step, per class or of all; higher is better. For
            the VAE it is the ELBO in nats.
        best: Best held-out score so far, per class or of all.
        latest: The last held-out score, per class or of all.
        history: Step and mean held-out score of each evaluation.
        seconds: Spent in the stage.
        collapse_adjustment: After a posterior collapse, the factor of beta and the least free bits.
        notes: Observations for the user.
        pending: Metrics of the last step, if its evaluation on held-out images is still due.
    """

    step: int = 0
    done: bool = False
    skipped: int = 0
    bad_in_a_row: int = 0
    evaluations_without_gain: int = 0
    running_error: float = math.nan
    running_kl: float = math.nan
    first: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    latest: list[float] = field(default_factory=list)
    history: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    collapse_adjustment: list[float] = field(default_factory=lambda: [1.0, 0.0])
    notes: list[str] = field(default_factory=list)
    pending: dict[str, float] | None = None


class Watch:
    """Whether steps are good, judged and counted on the device, which nobody waits for.

    Args:
        record: The counts so far.
        device: Where the losses are.
    """

    def __init__(self, record: StageRecord, device: torch.device) -> None:
        self.running = torch.tensor(
            [record.running_error, record.running_kl], dtype=torch.float64, device=device
        )
        self.counts = torch.tensor([record.skipped, record.bad_in_a_row], device=device)
        self._allowed = torch.tensor([1.0, 10 * EXPLODING], dtype=torch.float64, device=device)

    def judge(self, guard: Tensor, loss: Tensor, norm: Tensor) -> Tensor:
        """Judge a step, and count it.

        Args:
            guard: The metrics that are watched, (2,).
            loss: The loss.
            norm: Norm of its gradient.

        Returns:
            1 if the step has to be skipped, because something is not finite or exploding; else 0.
        """
        guard = guard.double()
        is_finite = torch.cat([guard, torch.stack([loss.double(), norm.double()])]).isfinite().all()
        # The constants keep the small errors of a nearly perfect model from looking like
        # explosions. Nothing is above NaN, which is the mean before the first good step.
        is_exploding = (guard > EXPLODING * self.running + self._allowed).any()
        bad = ~is_finite | is_exploding
        mean = torch.where(self.running.isnan(), guard, 0.98 * self.running + 0.02 * guard)
        self.running.copy_(torch.where(bad, self.running, mean))
        self.counts += bad
        self.counts[1] *= bad
        return bad.float()

    def read(self, record: StageRecord, metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Wait for the device, and note what it counted.

        Args:
            record: Is brought up to date.
            metrics: Metrics of the last step.

        Returns:
            Their values.
        """
        on_device = {name: each for name, each in metrics.items() if isinstance(each, Tensor)}
        parts = [each.detach().double().reshape(1) for each in on_device.values()]
        read = torch.cat([self.running, self.counts.double(), *parts]).tolist()
        record.running_error, record.running_kl = read[:2]
        record.skipped, record.bad_in_a_row = map(int, read[2:4])
        values = {**metrics, **dict(zip(on_device, read[4:], strict=True))}
        return {**values, "skipped": read[2]}


@dataclass
class TrainState:
    """The state of training in a stage.

    Attributes:
        model: The weights that the optimiser updates.
        average: Their exponential moving average (EMA), which is evaluated.
        best: The EMA weights that were best on held-out images.
        optimiser: Optimiser of the model.
        record: How far the stage has come.
        objective: What is minimised.
        scale: Scales the loss; None where it need not be.
        watch: Judges the steps.
        moving: The parameters that are trained: of the average, and of the model. They are listed
            once, because to walk the modules takes as long as to update a small network.
    """

    model: nn.Module
    average: nn.Module
    best: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    record: StageRecord
    objective: "Objective"
    scale: LossScale | None = None
    watch: Watch = field(init=False)
    moving: tuple[list[Tensor], list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        """Count on the device of the model."""
        self.watch = Watch(self.record, next(self.model.parameters()).device)
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        trained = [pair for pair in pairs if pair[1].requires_grad]
        self.moving = [mean for mean, _ in trained], [parameter for _, parameter in trained]


@dataclass(frozen=True)
class StepLoss:
    """The loss of one step.

    Attributes:
        loss: The loss to minimise, in units that suit one clipping norm, such as nats per value.
        guard: Two metrics that are watched for explosion, such as the squared error and the KL.
        metrics: Metrics for the log, on the device.
    """

    loss: Tensor
    guard: Float[Tensor, " 2"]
    metrics: dict[str, Tensor]


def as_guard(first: Tensor, second: Tensor | None = None) -> Float[Tensor, " 2"]:
    """Join the two metrics that are watched for explosion.

    Args:
        first: Such as the squared error.
        second: Such as the KL. Default: 0.

    Returns:
        Both, without gradients.
    """
    first = first.detach()
    return torch.stack([first, torch.zeros_like(first) if second is None else second.detach()])


class Objective(Protocol):
    """What a stage minimises, and how it is judged on held-out images.

    Attributes:
        is_repeatable: Steps differ only in what they ask of the tape, and wait for nothing.
        is_divisible: The trained parameters are used in methods that are `row_by_row` alone, so
            that the rows of a step can be divided over processes.
        has_one_loss: All gradients of a step come from the loss that it returns.
    """

    is_repeatable: bool
    is_divisible: bool
    has_one_loss: bool

    def trained(self, model: Any) -> Mapping[str, nn.Parameter]:
        """Return the parameters that the stage trains.

        Args:
            model: The model of the stage.

        Returns:
            Parameters by name.
        """

    def start(self, state: TrainState) -> None:
        """Prepare the state before the first step.

        Args:
            state: The training state.
        """

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Compute the loss of a step.

        Args:
            state: The training state.
            step: Number of the step.
            done: Completed fraction of the stage.

        Returns:
            The loss and its metrics.
        """

    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Score the EMA weights and keep the best ones.

        Args:
            state: The training state.
            done: Completed fraction of the stage.

        Returns:
            Metrics for the log.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors and plain types that a checkpoint needs besides the state.

        Returns:
            Content of a checkpoint by name.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: Content of a checkpoint.
        """


def content_of(state: TrainState) -> dict[str, Any]:
    """Return all that a stage needs to go on; of a stage that is done, only the best weights.

    Args:
        state: The training state.

    Returns:
        Tensors and plain types.
    """
    content: dict[str, Any] = {
        "state": vars(state.record),
        "best": state.best,
        "objective": state.objective.state_dict(),
    }
    if not state.record.done:
        content["model"] = state.model.state_dict()
        content["average"] = state.average.state_dict()
        content["optimiser"] = state.optimiser.state_dict()
        if state.scale is not None:
            content["scale"] = state.scale.state_dict()
    return content


def restore(state: TrainState, content: Mapping[str, Any], device: torch.device) -> None:
    """Restore a state from what `content_of` returned.

    Args:
        state: The training state, changed in place.
        content: Tensors and plain types, on the device.
        device: Device of the weights.
    """
    state.record = StageRecord(**_with_current_names(content["state"]))
    state.watch = Watch(state.record, device)
    state.best = content["best"]
    state.model.load_state_dict(state.best)  # fails if the stage is of another model
    if not state.record.done:
        state.model.load_state_dict(content["model"])
        state.average.load_state_dict(content["average"])
        _load_optimiser(state.optimiser, content["optimiser"])
        if state.scale is not None:
            state.scale.load_state_dict(content["scale"])
    state.objective.load_state_dict(content["objective"])


def save(folder: Path | None, stage: Stage, state: TrainState) -> None:
    """Replace the checkpoint of a stage; of a stage that is done, only the best weights are saved.

    Args:
        folder: Folder of checkpoints; None: nothing is written.
        stage: The stage.
        state: The training state.

    Raises:
        TrainingError: If the checkpoint cannot be written.
    """
    if folder is None:
        return
    content = content_of(state)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage.name}.pt"
    try:
        with new_file(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch puts its own error in the place of a full disk, and of a Ctrl-C that comes then.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise TrainingError(
            f"{path}: the checkpoint cannot be written ({error}); the previous one is kept, and "
            "the same command resumes from there"
        ) from error


def resume(folder: Path | None, stage: Stage, state: TrainState, device: torch.device) -> None:
    """Restore the state from its checkpoint, if there is one.

    Args:
        folder: Folder of checkpoints; None: there is none.
        stage: The stage.
        state: The training state, changed in place.
        device: Device of the weights.

    Raises:
        TrainingError: If the checkpoint cannot be read or belongs to another model.
    """
    path = None if folder is None else folder / f"{stage.name}.pt"
    if path is None or not path.exists():
        return
    try:
        with open_regular(path) as file:
            content = torch.load(file, map_location=device, weights_only=True)
        restore(state, content, device)
    except Exception as error:  # a damaged file can raise anything
        raise TrainingError(
            f"{path}: expected a checkpoint of stage {stage.name!r}, got one that cannot be used "
            f"({type(error).__name__}: {error}); delete it to train the stage again"
        ) from error


def _load_optimiser(optimiser: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Restore an optimiser that may have been saved on another device."""
    kept = [(group["lr"], group["capturable"]) for group in optimiser.param_groups]
    optimiser.load_state_dict(content)
    for group, (rate, capturable) in zip(optimiser.param_groups, kept, strict=True):
        group["lr"], group["capturable"] = rate, capturable


def _with_current_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's record with the field names of this version."""
    names = {"relief": "collapse_adjustment"}
    return {names.get(name, name): value for name, value in record.items()}


class MetricsLog:
    """``metrics.jsonl``, one line per logged step, consistent with the checkpoints.

    Args:
        folder: The run folder; None logs nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / "metrics.jsonl"

    def write(self, **entry: Any) -> None:
        """Append a line; metrics that are not finite become strings, because JSON cannot hold them.

        Args:
            **entry: Names and values of the line.

        Raises:
            TrainingError: If the log cannot be written.
        """
        if self.path is None:
            return
        safe = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in entry.items()
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append(self.path, (json.dumps(safe) + "\n").encode())
        except OSError as error:
            raise self._error(error) from error

    def rewind(self, stage: str, step: int) -> None:
        """Drop the lines that were logged after the checkpoint from which training resumes.

        Args:
            stage: Name of the stage.
            step: Step of the checkpoint.

        Raises:
            TrainingError: If the log cannot be read or written.
        """
        if self.path is None or not self.path.exists():
            return
        # The last line of a killed process may end anywhere, even inside a character.
        try:
            lines = read_whole(self.path).decode(errors="replace").splitlines()
        except OSError as error:
            raise self._error(error) from error
        remaining = [line for line in lines if not _is_later(line, stage, step)]
        if len(remaining) < len(lines):
            try:
                publish(self.path, "".join(line + "\n" for line in remaining).encode())
            except OSError as error:
                raise self._error(error) from error

    def _error(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"{self.path}: the log cannot be written: {error.strerror}; the previous checkpoint "
            f"is kept, and the same command resumes from there"
        )


def _is_later(line: str, stage: str, step: int) -> bool:
    try:
        entry = json.loads(line)
        return bool(entry.get("stage") == stage and entry.get("step", 0) > step)
    except (ValueError, RecursionError, AttributeError, TypeError):
        # The last line of a killed process, or a damaged one.
        return True

"""Callbacks for TensorBoard, MLflow and Weights & Biases: ``augment(..., callbacks=[...])``.

Each is a function like `progress`, which is called after every step, and writes the metrics of some
of them: ``trunk/loss`` at the step of the stage ``trunk``. A tracker that fails says so once and
writes nothing more; the job goes on. Each library is loaded when its tracker begins, and is an
extra: ``pip install 'vaeaug[tensorboard]'``, ``vaeaug[mlflow]`` or ``vaeaug[wandb]``.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vaeaug.config import flat

log = logging.getLogger("vaeaug")

# Steps between two that are written; held-out scores and the last step of a stage always are.
EVERY = 20
# MLflow takes no more parameters, and no longer values, in one call.
MOST_PARAMETERS, LONGEST = 100, 500


class _Tracker:
    """What the trackers have in common: which steps are written, and that a failure ends nothing.

    Args:
        every: Steps of a stage between two that are written.
    """

    def __init__(self, every: int = EVERY) -> None:
        if every < 1:
            raise ValueError(f"every: expected 1 step or more, got {every}")
        self.every = every
        self._is_open = self._failed = False

    def begin(self, about: Mapping[str, Any]) -> None:
        """Open what is written to.

        Args:
            about: ``config`` and ``data`` of the job, plain JSON.
        """
        self._is_open = True
        self._try(self._open, about)

    def __call__(self, what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        """Write the metrics of a step, if it is its turn.

        Args:
            what: The stage.
            done: Steps of it that are done.
            total: All its steps.
            metrics: Metrics of the step.
        """
        if not self._is_open:
            self.begin({})
        if not metrics or not (
            done % self.every == 0 or done == total or any("held_out" in name for name in metrics)
        ):
            return
        finite = {
            f"{what}/{name}": float(value)
            for name, value in metrics.items()
            if math.isfinite(float(value))
        }
        self._try(self._log, finite, done)

    def end(self, error: BaseException | None) -> None:
        """Close what was written to.

        Args:
            error: What ended the job; None: it is complete.
        """
        if self._is_open:
            self._try(self._close, error)
        self._is_open = self._failed = False

    def _try(self, write: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            write(*arguments)
        except ImportError as error:
            name = type(self).__name__
            raise ImportError(
                f"{name}: expected the package {error.name!r}; pip install 'vaeaug[{name.lower()}]'"
            ) from error
        except Exception as error:
            self._failed = True
            log.warning(
                "%s: cannot write (%s: %s); nothing more is tracked, the job goes on",
                type(self).__name__,
                type(error).__name__,
                error,
            )

    def _open(self, about: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _log(self, metrics: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def _close(self, error: BaseException | None) -> None:
        raise NotImplementedError


class TensorBoard(_Tracker):
    """Write event files for TensorBoard: ``tensorboard --logdir FOLDER``.

    Args:
        log_dir: Folder of the event files.
        every: Steps of a stage between two that are written.
    """

    def __init__(self, log_dir: str | Path, *, every: int = EVERY) -> None:
        super().__init__(every)
        self.log_dir = Path(log_dir)

    def _open(self, about: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(self.log_dir))
        if about:
            text = json.dumps(about, indent=2)
            self._writer.add_text("job", "    " + text.replace("\n", "\n    "), 0)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def _close(self, error: BaseException | None) -> None:
        self._writer.close()


class MLflow(_Tracker):
    """Log a run of MLflow: the configuration as parameters, the metrics, and how it ended.

    Args:
        tracking_uri: Of the server or store; None: as MLflow is set up.
        experiment: Name of the experiment, made where it is missing.
        run_name: Name of the run; None: MLflow's choice.
        every: Steps of a stage between two that are written.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str = "vaeaug",
        run_name: str | None = None,
        every: int = EVERY,
    ) -> None:
        super().__init__(every)
        self.tracking_uri, self.experiment, self.run_name = tracking_uri, experiment, run_name

    def _open(self, about: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self.tracking_uri)
        known = self._client.get_experiment_by_name(self.experiment)
        experiment = (
            self._client.create_experiment(self.experiment)
            if known is None
            else known.experiment_id
        )
        self.run_id = self._client.create_run(experiment, run_name=self.run_name).info.run_id
        parameters = [
            Param(name, str(value)[:LONGEST])
            for name, value in flat(about.get("config", {})).items()
        ]
        for first in range(0, len(parameters), MOST_PARAMETERS):
            self._client.log_batch(self.run_id, params=parameters[first : first + MOST_PARAMETERS])
        if "data" in about:
            self._client.log_dict(self.run_id, dict(about["data"]), "data.json")

    def _log(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(
            self.run_id,
            metrics=[Metric(name, value, now, step) for name, value in metrics.items()],
        )

    def _close(self, error: BaseException | None) -> None:
        killed = isinstance(error, KeyboardInterrupt)
        status = "FINISHED" if error is None else "KILLED" if killed else "FAILED"
        self._client.set_terminated(self.run_id, status)


class WandB(_Tracker):
    """Log a run of Weights & Biases.

    Args:
        project: Name of the project.
        every: Steps of a stage between two that are written.
        **options: Of ``wandb.init``, such as ``mode="offline"``.
    """

    def __init__(self, project: str = "vaeaug", *, every: int = EVERY, **options: Any) -> None:
        super().__init__(every)
        self.project, self.options = project, options

    def _open(self, about: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project=self.project, config=dict(about), **self.options)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        # Every stage counts its own steps, and a run of W&B has one count that only grows.
        stage = next(iter(metrics), "").partition("/")[0]
        self._run.log({**metrics, f"{stage}/step": step})

    def _close(self, error: BaseException | None) -> None:
        self._run.finish(exit_code=0 if error is None else 1)


TRACKERS: dict[str, Callable[[str], _Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


def tracker(text: str) -> _Tracker:
    """Make a tracker from ``NAME:WHERE``, as the command line has it.

    Args:
        text: "tensorboard:FOLDER", "mlflow:URI" or "wandb:PROJECT".

    Returns:
        The tracker.

    Raises:
        ValueError: If the text has a different form.
    """
    name, colon, where = text.partition(":")
    if name not in TRACKERS or not colon or not where:
        known = ", ".join(f"{name}:..." for name in TRACKERS)
        raise ValueError(f"expected one of {known}, got {text!r}")
    return TRACKERS[name](where)

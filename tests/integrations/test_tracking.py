"""Trackers with the real libraries, on local files."""

import json
import logging
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_job import as_options, digits, tiny_config

from vaeaug.cli import main
from vaeaug.integrations.tracking import MLflow, TensorBoard, WandB, tracker
from vaeaug.job.pipeline import train_only


@pytest.fixture(autouse=True)
def local_mlflow(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def losses(log: Path) -> dict[int, float]:
    """Step to loss of the trunk, as the run's own log has them."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["stage"] == "trunk"}


def test_a_job_is_tracked_as_its_own_log_has_it(tmp_path):
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    uri = f"file:{tmp_path}/mlflow"
    flow = MLflow(uri, experiment="digits", run_name="tiny", every=4)
    seen = []
    train_only(
        digits(),
        tmp_path / "out",
        tiny_config(),
        device="cpu",
        progress=False,
        callbacks=[
            TensorBoard(tmp_path / "board", every=4),
            flow,
            lambda *arguments: seen.append(arguments[:3]),
        ],
    )
    logged = losses(tmp_path / "out" / "metrics.jsonl")
    expected = {step: loss for step, loss in logged.items() if step % 4 == 0}
    assert sorted(expected) == [4, 8, 12]
    assert ("trunk", 12, 12) in seen
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    read = {event.step: event.value for event in events.Scalars("trunk/loss")}
    assert read == pytest.approx(expected)
    assert "trunk/held_out_elbo" in events.Tags()["scalars"]
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(flow.run_id)
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    assert run.data.params["model.latent_dim"] == "4"
    history = client.get_metric_history(flow.run_id, "trunk/loss")
    assert {metric.step: metric.value for metric in history} == pytest.approx(expected)


def test_an_interrupted_job_is_a_killed_run(tmp_path):
    from mlflow import MlflowClient

    def stop(what, done, total, metrics):
        if (what, done) == ("trunk", 5):
            raise KeyboardInterrupt

    uri = f"file:{tmp_path}/mlflow"
    flow = MLflow(uri)
    with pytest.raises(KeyboardInterrupt):
        train_only(
            digits(), tmp_path / "out", tiny_config(), progress=False, callbacks=[flow, stop]
        )
    assert MlflowClient(tracking_uri=uri).get_run(flow.run_id).info.status == "KILLED"


def test_a_tracker_that_fails_says_so_once_and_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    board = TensorBoard(tmp_path / "file" / "board", every=1)
    with caplog.at_level(logging.WARNING):
        train_only(digits(), tmp_path / "out", tiny_config(), progress=False, callbacks=[board])
    said = [record.getMessage() for record in caplog.records if "cannot write" in record.message]
    assert len(said) == 1
    assert said[0].startswith("TensorBoard: cannot write (NotADirectoryError")


@pytest.mark.parametrize("text", ["tensorboard", "tensorboard:", "excel:table"])
def test_a_wrong_tracker_is_refused(text):
    with pytest.raises(ValueError, match="expected one of tensorboard:"):
        tracker(text)
    result = CliRunner().invoke(main, ["train", "digits", "--out", "x", "--track", text])
    assert result.exit_code == 2
    assert "expected one of" in result.stderr


def test_the_command_line_tracks_and_logs_json(tmp_path):
    words = ["train", "digits", "--out", str(tmp_path / "out"), *as_options()]
    words += ["--set", "data.class_counts=[20,12,0,0,0,0,0,0,0,0]"]
    track = ["--track", f"tensorboard:{tmp_path / 'board'}"]
    result = CliRunner().invoke(main, ["--log-format", "json", *words, *track])
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "board").glob("events.out.tfevents.*"))
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert any(line["message"].startswith("trunk: 12 steps") for line in lines)
    assert {line["level"] for line in lines} <= {"INFO", "WARNING"}
    failed = CliRunner().invoke(main, ["--log-format", "json", *words, "--set", "model.beta=2"])
    assert failed.exit_code == 2
    (line,) = [json.loads(line) for line in failed.stderr.splitlines()][-1:]
    assert (line["level"], line["logger"]) == ("ERROR", "vaeaug")
    assert "changed: model.beta: 1.0 -> 2.0" in line["message"]


def test_weights_and_biases_gets_it_too(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed (vaeaug[wandb])")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder, seen = tmp_path / "out", {}

    class Read(WandB):
        def _close(self, error):
            seen.update(dict(self._run.summary), config=dict(self._run.config))
            super()._close(error)

    watched = Read("digits", every=4, mode="offline", dir=str(tmp_path))
    train_only(digits(), folder, tiny_config(), progress=False, callbacks=[watched])
    assert wandb.run is None  # finished
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while file.stat().st_size < 1000 and time.monotonic() < deadline:  # its process writes on
        time.sleep(0.1)
    assert file.stat().st_size >= 1000
    assert (seen["trunk/step"], seen["trunk/loss"]) == (
        12,
        pytest.approx(losses(folder / "metrics.jsonl")[12]),
    )
    assert "adapt/held_out_elbo" in seen
    assert seen["config"]["config"]["model"]["latent_dim"] == 4

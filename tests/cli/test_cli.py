"""The command line: verbs, streams, exit codes, interruption."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

import vaeaug
from vaeaug.cli import main
from vaeaug.cli._group import SECTIONS
from vaeaug.config import AugmentConfig

VERBS = sorted(main.commands)
JOB = [
    *("augment", "digits", "--set", "data.class_counts=[40,40,40,40,40,30,30,30,20,20]"),
    *("--set", "model.width=8", "--set", "screening.classifier_steps=20"),
    *("--set", "training.steps=300", "--set", "training.adapt_steps=60"),
    *("--set", "training.checkpoint_every=10", "--set", "restoration.steps=4", "--device", "cpu"),
]


def run(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {verb}")
    # A sentence says what it does, and every option has its own.
    assert main.commands[verb].help
    for parameter in main.commands[verb].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path):
    result = run(*JOB, "--out", tmp_path / "out", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [each["real"] for each in document["classes"]] == [40] * 5 + [30] * 3 + [20] * 2
    assert document["n_synthetic"] == sum(each["n_synthetic"] for each in document["classes"])
    assert {"target_count", "bytes", "shards", "reason"} <= document["classes"][0].keys()
    assert not (tmp_path / "out").exists()
    table = run("plan", *JOB[1:-2]).stdout
    assert table.splitlines()[0].split() == [
        "class",
        "real",
        "synthetic",
        "repeated",
        "together",
        "MiB",
        "shards",
        "why",
    ]


def test_the_verbs_on_a_finished_run(finished, digits, tmp_path):
    out = finished.out_dir
    checked = run("verify", out, "--json")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["ok"] is True
    document = json.loads(run("inspect", out, "--json").stdout)
    assert document["n"] == finished.manifest.n_images
    shard = out / finished.manifest.shards[0].path
    assert json.loads(run("inspect", shard, "--json").stdout)["synthetic"] is True
    assert json.loads(run("inspect", out / "model", "--json").stdout)["latent_dim"] == 32
    damaged = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(out), str(damaged)], check=True)
    victim = damaged / finished.manifest.shards[3].path
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    wrong = run("verify", damaged)
    assert wrong.exit_code == 1
    assert victim.name in wrong.stdout


def test_usage_errors_exit_2(tmp_path):
    assert run("augment", "digits").exit_code == 2
    assert run("plan", "digits", "--size", "8xq").exit_code == 2
    assert run("plan", "digits", "--set", "seed").exit_code == 2
    assert run("frobnicate").exit_code == 2


def command(out):
    options = ["--set", "training.steps=100", "--set", "training.adapt_steps=20", "--json"]
    return [sys.executable, "-m", "vaeaug", *JOB, "--out", str(out), *options]


def test_killed_by_each_signal_it_goes_on_to_the_same_bytes(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = subprocess.run(command(whole), env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 4), done.stderr
    assert json.loads(done.stdout)["out"] == str(whole)
    step = 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = subprocess.Popen(
            command(broken),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        checkpoint = broken / "checkpoints" / "trunk.pt"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 60
        while not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        said = re.search(r"interrupted after step (\d+) of stage '(\w+)', which is saved", errors)
        assert said is not None, errors
        assert errors.endswith(f"resume with: vaeaug {shlex.join(command(broken)[3:])}\n")
        saved = torch.load(broken / "checkpoints" / f"{said[2]}.pt", weights_only=True)["state"]
        assert said[2] == "trunk"
        assert saved["step"] == int(said[1]) > step
        step = int(said[1])
        assert not (broken / "manifest.json").exists()
    again = subprocess.run(command(broken), env=environment, capture_output=True, text=True)
    assert again.returncode == done.returncode, again.stderr
    for name in ("manifest.json", "model/model.safetensors", "samples.png"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert vaeaug.verify(broken).ok


def test_a_shortfall_exits_4_and_is_said(tmp_path):
    tight = ["--set", "screening.duplicate_factor=50", "--set", "training.steps=10"]
    result = run(*JOB, "--out", tmp_path / "out", *tight)
    assert result.exit_code == 4, result.output
    assert "Partial: class '0':" in result.stdout
    manifest = vaeaug.Manifest.load(tmp_path / "out")
    assert not manifest.complete
    assert vaeaug.verify(tmp_path / "out").ok
    assert sum(each.accepted for each in manifest.classes) == manifest.n_images


TINY = [
    *("--set", "data.class_counts=[24,16,10,0,0,0,0,0,0,0]", "--set", "model.width=8"),
    *(
        "--set",
        "model.latent_dim=4",
        "--set",
        "training.steps=6",
        "--set",
        "training.adapt_steps=4",
    ),
    *("--set", "screening.classifier_steps=4", "--set", "screening.duplicate_factor=0"),
    *("--set", "screening.near_copy_factor=0", "--set", "recipe.min_label_probability=0"),
]


def document(*arguments):
    """What a verb prints with --json; its logs are elsewhere."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_train_generate_screen_and_merge(tmp_path):
    trained, generated, merged = (tmp_path / name for name in ("trained", "generated", "merged.h5"))
    printed, log = document("train", "digits", "--out", trained, *TINY)
    assert printed == {"model": str(trained / "model")}
    judge, trunk, *_ = log.splitlines()
    assert judge.startswith("classifier: 3 steps, held-out log-likelihood ")
    assert trunk.startswith("trunk: 6 steps, held-out ELBO ")

    totals = ["--sampling-strategy", "{0: 30, '1': 20, 2: 12}"]
    command = ["generate", trained, "digits", "--out", generated, *TINY, *totals, "--seed", "3"]
    # The images that class_counts keeps are those of the generator, whatever the seed.
    wrong = run(*command, "--set", "data.seed=3")
    assert wrong.exit_code == 1
    assert "expected the images that the generator was trained on" in wrong.stderr
    printed, _ = document(*command)
    assert [each["accepted"] for each in printed["classes"][:3]] == [6, 4, 2]
    assert printed["complete"] is True

    before = sorted(generated.rglob("*"))
    judged, _ = document("screen", "digits", generated, *TINY)
    assert {name: each["accepted"] for name, each in judged.items()} == {"0": 6, "1": 4, "2": 2}
    assert sorted(generated.rglob("*")) == before

    printed, _ = document("merge", "digits", generated, "--to", merged, "--share", "all")
    totals = {"real": 50, "synthetic": 12, "repeated": 0, "together": 62}
    assert {name: printed[name] for name in totals} == totals
    assert printed["file"] == str(merged)
    assert sum(each["together"] for each in printed["classes"]) == 62
    again = run("merge", "digits", generated, "--to", merged)
    assert again.exit_code == 1
    assert str(merged) in again.stderr
    assert run("merge", "digits", generated, "--to", merged, "--share", "lots").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "8xq"], "--size: expected HxW such as 32x32, got '8xq'"),
        (["--set", "seed"], "--set: expected key=value such as model.beta=2, got 'seed'"),
        (["--sampling-strategy", "0.5"], "for more classes use target_ratio=0.5"),
        (["--sampling-strategy", "{0:300}"], "a mapping {class: total}"),
        (["--config", "absent.yaml"], "absent.yaml: cannot read the configuration"),
        (["--seed", "-1"], "-1 is not in the range x>=0"),
    ],
)
def test_a_usage_error_says_what_was_expected(arguments, message):
    result = run("plan", "digits", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_strategy_as_a_yaml_mapping():
    printed, _ = document("plan", "digits", "--sampling-strategy", "{3: 200}")
    assert printed["n_synthetic"] == 200 - 147
    assert [each["label"] for each in printed["classes"] if each["n_synthetic"]] == [3]


@pytest.mark.parametrize("module", ["vaeaug", "vaeaug.cli"])
def test_it_runs_as_a_module(module):
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"vaeaug, version {vaeaug.__version__}\n"
    assert done.stderr == ""


def test_config_prints_a_whole_configuration_that_loads_again(tmp_path):
    done = run("config", "--set", "model.beta=2", "--set", "plan.sampling_strategy={3: 40}")
    assert done.exit_code == 0
    path = tmp_path / "all.yaml"
    path.write_text(done.stdout)
    config = vaeaug.load_config(path)
    assert config.model.beta == 2
    assert config.plan.sampling_strategy == {3: 40}
    assert run("config", "--config", str(path)).stdout == done.stdout


def test_config_prints_the_schema():
    schema = json.loads(run("config", "--schema").stdout)
    assert set(schema["properties"]) == set(vaeaug.AugmentConfig.model_fields)


def test_config_refuses_an_unknown_key():
    done = run("config", "--set", "model.bta=2")
    assert done.exit_code == 2
    assert "did you mean 'model.beta'?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (["plan", "nowhere", "--json"], "DataError", 1),
        (["plan", "--json"], "MissingParameter", 2),
        (["plan", "digits", "--json", "--set", "model.beta=-1"], "ConfigError", 2),
        (["verify", "--json", "--no-such-option", "OUT"], "NoSuchOption", 2),
    ],
)
def test_with_json_a_failure_is_json_too(arguments, kind, code):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert error["message"] in result.stderr
    without = [argument for argument in arguments if argument != "--json"]
    assert CliRunner().invoke(main, without).stdout == ""


def test_every_command_has_a_section_of_the_help():
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(main.commands)
    assert "Other:" not in CliRunner().invoke(main, ["--help"]).output


def test_the_list_of_commands_is_not_cut():
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    assert "..." not in text.partition("Job:")[2]
    assert re.search(
        r"merge +Write REAL and the synthetic images of OUT into one HDF5 file\.", text
    )


def test_the_sampling_strategy_is_offered_where_it_is_used():
    offered = {verb for verb in main.commands if "--sampling-strategy" in run(verb, "-h").stdout}
    assert offered == {"augment", "plan", "train", "generate"}


def completed(words):
    """What bash is told of the last word."""
    environment = {
        **os.environ,
        "_VAEAUG_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "from vaeaug.cli import main; main(prog_name='vaeaug')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("verb", ["augment", "plan", "merge", "evaluate", "encode"])
def test_data_is_completed_by_paths_and_by_what_is_built_in(verb):
    words = ["vaeaug", verb, *(["model"] if verb == "encode" else []), "di"]
    assert completed(words).split() == ["plain,digits", "file,di"]


@pytest.mark.parametrize("before", [("augment", "digits", "--set"), ("sweep", "digits", "--vary")])
def test_keys_of_a_configuration_are_completed(before):
    said = completed(["vaeaug", *before, "training.st"]).split()
    assert said == ["plain,training.steps="]
    said = completed(["vaeaug", *before, "data."]).split()
    assert said == [f"plain,data.{name}=" for name in type(AugmentConfig().data).model_fields]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_takes_the_completion(shell, tmp_path):
    """The words of the documentation, in the shell itself."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    (line,) = re.findall(rf"^eval .*{shell}_source.*$", page.read_text(), re.MULTILINE)
    asked = {
        "bash": "COMP_WORDS=(vaeaug augment digits --set training.st) COMP_CWORD=4; "
        'complete -p vaeaug; _vaeaug_completion vaeaug; printf "%s\\n" "${COMPREPLY[@]}"',
        # Outside of a line that is typed, zsh completes nothing: what it would show is printed.
        "zsh": "words=(vaeaug augment digits --set training.st) CURRENT=5; "
        "print ${_comps[vaeaug]}; "
        'compadd() { print -r -- "$@" }; _describe() { print -r -- ${(P)3} }; '
        "_vaeaug_completion",
    }[shell]
    start = "autoload -U compinit; compinit -u -d $HOME/dump; " if shell == "zsh" else ""
    (tmp_path / "vaeaug").write_text(f'#!/bin/sh\nexec {sys.executable} -m vaeaug "$@"\n')
    (tmp_path / "vaeaug").chmod(0o755)
    done = subprocess.run(
        [shell, *(["--norc"] if shell == "bash" else ["-f"]), "-c", f"{start}{line}\n{asked}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_vaeaug_completion" in done.stdout, done.stderr
    assert "training.steps=" in done.stdout, (done.stdout, done.stderr)


def test_a_merged_file_is_inspected_and_nothing_is_printed_as_python(finished, digits, tmp_path):
    path = vaeaug.write_merged(digits, finished.out_dir, tmp_path / "merged.h5")
    document = json.loads(run("inspect", path, "--json").stdout)
    counts = [each._asdict() for each in vaeaug.merge(digits, finished.out_dir).counts]
    assert document == {
        "merged": str(path),
        "n": sum(each["together"] for each in counts),
        "classes": counts,
    }
    for what in (path, finished.out_dir, next((finished.out_dir / "shards").iterdir())):
        text = run("inspect", what).stdout
        assert not set("{}[]'") & set(text.replace(str(what), "")), text


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        ([ImportError("initialization failed"), KeyboardInterrupt()], 130, "interrupted"),
        ([ImportError("initialization failed"), KeyboardInterrupt("SIGTERM")], 143, "interrupted"),
        (
            [vaeaug.DataError("x is missing"), ImportError(), KeyboardInterrupt()],
            130,
            "interrupted",
        ),
        ([vaeaug.DataError("x is missing"), ImportError()], 1, "x is missing"),
        ([OSError("disk full"), KeyboardInterrupt()], 1, "disk full"),
    ],
)
def test_an_interrupt_in_a_compiled_import_is_an_interrupt(errors, code, said):
    """pybind11's modules fail with an ImportError that an interrupt has caused."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause

    @click.group(cls=type(main))
    def group():
        pass

    @group.command()
    def draws():
        raise errors[0]

    result = CliRunner().invoke(group, ["draws"])
    assert (result.exit_code, result.stderr) == (code, f"vaeaug: {said}\n")

"""A few damaged inputs of `benchmarks/inputs.py`: none hangs, fills memory or is foreign."""

import numpy as np
import pytest

from benchmarks import inputs
from benchmarks._sources import SOURCES

pytest.importorskip("datasets")
pytest.importorskip("webdataset")


@pytest.mark.slow
def test_damaged_inputs_are_read_or_refused() -> None:
    found = inputs.run(7 * len(SOURCES), 11, list(SOURCES))
    assert len(found) == 7 * len(SOURCES)
    assert [one for one in found if one.kind in inputs.BAD] == []
    # Damage is of use only if most of it is noticed.
    assert sum(one.kind == "refused" for one in found) > len(found) / 2


def test_every_way_changes_something_and_a_seed_repeats_it() -> None:
    data = b'{"a": [1, 2, {"b": "c"}], "d": null}' * 1
    ways = set()
    for seed in range(300):
        changed, said = inputs.damaged(data, "a.json", np.random.default_rng(seed))
        assert changed != data
        assert (changed, said) == inputs.damaged(data, "a.json", np.random.default_rng(seed))
        ways.add(said)
    assert len(ways) == 10


@pytest.mark.parametrize(
    ("reads", "kind"),
    [
        (lambda path: path.read_text(), "read"),
        (lambda path: {}["a"], "foreign"),
        (lambda path: bytearray(8 * 2**30), "memory"),
        (lambda path: inputs.SOURCES["yaml"].read(path / "nothing"), "refused"),
        (lambda path: inputs.os.kill(inputs.os.getpid(), 9), "foreign"),
        (lambda path: inputs.time.sleep(60), "hang"),
    ],
    ids=["right", "foreign", "memory", "clear", "killed", "hang"],
)
def test_what_comes_of_an_input_is_told_apart(tmp_path, monkeypatch, reads, kind) -> None:
    monkeypatch.setattr(inputs, "SECONDS", 2.0)
    source = inputs.Source(lambda folder: folder, reads, ("*",))
    monkeypatch.setitem(inputs.SOURCES, "one", source)
    path = tmp_path / "a"
    path.write_text("a")
    with inputs.Worker() as worker:
        assert worker.read("one", path)[0] == kind
        monkeypatch.undo()

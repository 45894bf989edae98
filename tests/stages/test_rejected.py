"""A few rejected samples are kept for looking: the first ones drawn, bounded."""

from pathlib import Path

import numpy as np
import pytest

from vaeaug.generator import SampleBatch
from vaeaug.screening import Screened
from vaeaug.shards import ShardError, read_rejected, write_rejected
from vaeaug.stages import RejectedToKeep

REASONS = np.array(["", "duplicate", "near-copy", "duplicate", "", "duplicate"], dtype=object)


def drawn(n: int, start: int = 0) -> tuple[SampleBatch, Screened]:
    """The samples `start` to `start + n` of an endless row of real values and reasons."""
    seed = np.arange(start, start + n)
    images = np.repeat(seed.astype(np.uint8), 12).reshape(n, 2, 2, 3)
    batch = SampleBatch(
        images, np.ones(n, np.int64), np.zeros((n, 2), np.float32), seed, seed.astype(np.uint64), ""
    )
    values = seed.astype(np.float32)
    return batch, Screened(
        reason=REASONS[seed % len(REASONS)],
        p_label=values / 100,
        nn_distance=values,
        nn_index=seed + 7,
        probabilities=np.zeros((n, 3), np.float32),
        near=np.zeros(n, np.bool_),
    )


@pytest.mark.parametrize("step", [1, 7, 60])
def test_the_first_of_each_reason_are_kept_however_they_are_batched(step: int) -> None:
    kept = RejectedToKeep(1, 4)
    for start in range(0, 60, step):
        n = min(step, 60 - start)
        kept.add(*drawn(n, start), n)
    samples = kept.samples()
    assert samples is not None
    assert samples.seed.tolist() == [1, 2, 3, 5, 7, 8, 14, 20]
    assert samples.reason.tolist() == [REASONS[i % 6] for i in samples.seed.astype(int)]
    np.testing.assert_array_equal(samples.images[:, 0, 0, 0], samples.seed.astype(np.uint8))
    np.testing.assert_array_equal(samples.nn_index, samples.seed.astype(np.int64) + 7)


def test_candidates_that_were_never_asked_for_are_not_kept() -> None:
    kept = RejectedToKeep(1, 4)
    kept.add(*drawn(6), 2)
    samples = kept.samples()
    assert samples is not None
    assert samples.seed.tolist() == [1]
    assert RejectedToKeep(1, 4).samples() is None


def test_bytes_are_bounded_and_one_sample_is_always_kept() -> None:
    for max_bytes, most in ((3 * 12, 3), (1, 1)):
        kept = RejectedToKeep(1, 100, max_bytes=max_bytes)
        kept.add(*drawn(60), 60)
        samples = kept.samples()
        assert samples is not None
        assert (samples.reason == "duplicate").sum() == most
    none = RejectedToKeep(1, 0)
    none.add(*drawn(60), 60)
    assert none.samples() is None


def test_a_file_is_read_as_it_was_written_and_always_the_same(tmp_path: Path) -> None:
    kept = RejectedToKeep(2, 5)
    kept.add(*drawn(30), 30)
    samples = kept.samples()
    assert samples is not None
    path = tmp_path / "rejected.h5"
    write_rejected(path, samples)
    content = path.read_bytes()
    again = read_rejected(path)
    assert again.label == 2
    for name in ("images", "reason", "source_index", "seed", "p_label", "nn_distance", "nn_index"):
        np.testing.assert_array_equal(getattr(again, name), getattr(samples, name))
    write_rejected(path, again)
    assert path.read_bytes() == content


def test_another_file_is_refused(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "rejected.h5"
    with pytest.raises(ShardError, match="got no such file"):
        read_rejected(path)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = np.bytes_("other"), 1
    with pytest.raises(ShardError, match="expected format 'vaeaug-rejected' of version 1"):
        read_rejected(path)
    kept = RejectedToKeep(0, 2)
    kept.add(*drawn(20), 20)
    samples = kept.samples()
    assert samples is not None
    write_rejected(path, samples)
    with h5py.File(path, "r+") as file:
        del file["seed"]
        file["seed"] = h5py.ExternalLink("/etc/passwd", "seed")
    with pytest.raises(ShardError, match="seed: expected"):
        read_rejected(path)
    with h5py.File(path, "r+") as file:
        del file["seed"]
        file["seed"] = np.arange(1, dtype=np.uint64)
    with pytest.raises(ShardError, match="expected arrays of one length"):
        read_rejected(path)

"""100,000 reads through real loaders: no wrong sample, no repeated randomness, whatever starts the
workers. What a worker process needs is at module level, for spawned ones import it.
"""

import hashlib

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import vaeaug
from vaeaug.integrations import LatentAugment, SyntheticPool

# In five loaders together.
READS = 100_000


class Drawn(Dataset):
    """Real digits through `SyntheticPool`: (row of the real image, its label, what came out)."""

    def __init__(self, real, out, n):
        self.images, self.labels = real.images, real.labels
        self.pool, self.n = SyntheticPool(out, p=0.5), n

    def __len__(self):
        return self.n

    def __getitems__(self, indices):
        return [self[index] for index in indices]

    def __getitem__(self, index):
        row = index % len(self.labels)
        label = int(self.labels[row])
        image = self.pool(image=self.images[row], label=label)["image"]
        return row, label, image.reshape(-1)


def key_of(image):
    return np.ascontiguousarray(image).tobytes()


@pytest.fixture(scope="module")
def known(finished):
    """Label of every synthetic image, by its bytes."""
    pool = vaeaug.ShardDataset(finished.out_dir)
    images = pool.images_at(range(len(pool)))
    return {key_of(image): int(label) for image, label in zip(images, pool.labels, strict=True)}


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_no_sample_of_another_label_in_a_hundred_thousand(finished, digits, known, workers, method):
    n = READS // 5
    loader = DataLoader(
        Drawn(digits, finished.out_dir, n),
        batch_size=500,
        num_workers=workers,
        multiprocessing_context=method,
    )
    torch.manual_seed(0)
    n_read = n_real = 0
    batches = []
    for rows, labels, images in loader:
        batches.append(hashlib.sha256(images.numpy().tobytes()).hexdigest())
        for row, label, image in zip(rows.tolist(), labels.tolist(), images.numpy(), strict=True):
            is_real = np.array_equal(image, digits.images[row].reshape(-1))
            assert is_real or known[key_of(image)] == label == digits.labels[row]
            n_real += is_real
            n_read += 1
    assert n_read == n
    assert abs(n_real / n - 0.5) < 5 * np.sqrt(0.25 / n) + 1e-9
    assert len(set(batches)) == len(batches)


# Spawned workers read every slot right in the test below.
@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork")])
def test_a_merged_loader_reads_every_slot_once_and_right(finished, digits, workers, method):
    merged = vaeaug.merge(digits, finished.out_dir, share=0.5, balance="classes")
    pool = merged.synthetic.images_at(range(len(merged.synthetic)))
    sampler = vaeaug.BalancedSampler(merged, num_samples=READS // 5)
    loader = DataLoader(
        merged,
        batch_size=512,
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context=method,
    )
    order = np.array(list(sampler))
    at = 0
    for images, labels in loader:
        slots = order[at : at + len(labels)]
        rows, made = merged.index[slots], merged.is_synthetic[slots]
        wanted = np.empty((len(slots), 8, 8, 1), np.uint8)
        wanted[made], wanted[~made] = pool[rows[made]], digits.images[rows[~made]]
        assert np.array_equal(images.movedim(1, -1).numpy(), wanted)
        assert np.array_equal(labels.numpy(), merged.labels[slots])
        at += len(slots)
    assert at == READS // 5


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_that_are_kept_alive_follow_the_epoch(finished, digits, method):
    merged = vaeaug.merge(digits, finished.out_dir, share=0.3)
    merged.recipe["real_only_last"] = 0.34
    pool = merged.synthetic.images_at(range(len(merged.synthetic)))
    loader = DataLoader(
        merged,
        batch_size=200,
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=True,
    )
    seen = set()
    for epoch in range(3):
        merged.set_epoch(epoch, 3)
        images = torch.cat([images for images, _ in loader]).movedim(1, -1).numpy()
        rows, made = merged.index, merged.is_synthetic
        wanted = np.empty((len(merged), 8, 8, 1), np.uint8)
        wanted[made], wanted[~made] = pool[rows[made]], digits.images[rows[~made]]
        assert np.array_equal(images, wanted)
        assert made.any() == (epoch < 2)
        seen.add(images.tobytes())
    assert len(seen) == 3


class Edited(Dataset):
    """One digit, edited again and again by the torchvision transform in the worker."""

    def __init__(self, real, out):
        self.image = torch.from_numpy(real.images[0]).movedim(-1, 0) / 255
        self.label, self.edit = int(real.labels[0]), LatentAugment(out, p=1.0)

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return self.edit(self.image, self.label)[0]


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "forkserver")])
def test_no_two_edits_are_the_same_in_workers_and_epochs(finished, digits, workers, method):
    loader = DataLoader(
        Edited(digits, finished.out_dir),
        batch_size=10,
        num_workers=workers,
        multiprocessing_context=method,
    )
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        edits = [image.numpy().tobytes() for _ in range(2) for batch in loader for image in batch]
        assert len(set(edits)) == len(edits) == 80
        runs.append(edits)
        if method == "forkserver":
            return  # one start of it shows as much
    assert runs[0] == runs[1] != runs[2]

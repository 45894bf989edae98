"""Which slots a sampler draws, in which order, for whom; and what a batch carries."""

import multiprocessing
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

sys.path.insert(0, str(Path(__file__).parent.parent / "shards"))
from example_run import CLASS_NAMES, make_run
from test_merging import TorchImages, double, expected_item, real_images

from vaeaug import BalancedSampler, MergeError, ShardDataset, collate, merge

COUNTS = (14, 7, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """9, 7 and 8 synthetic images of three classes."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, counts=(9, 7, 8), shape=(6, 5, 3))
    return folder


def merged_of(run, **options):
    return merge(real_images(COUNTS), run, options.pop("share", "all"), **options)


def drawn(sampler):
    return np.array(list(sampler))


# --- what an epoch holds


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, {"ant": 0.5, 1: 0.25}])
@pytest.mark.parametrize("n", [30, 31, 97, 300])
def test_every_class_equally_often_with_its_share(run, share, n):
    merged = merged_of(run)
    sampler = BalancedSampler(merged, share=share, num_samples=n)
    slots = drawn(sampler)
    counts = np.bincount(merged.labels[slots], minlength=3)
    assert len(slots) == n == counts.sum()
    assert counts.max() - counts.min() <= 1
    for label, name in enumerate(CLASS_NAMES):
        wanted = share.get(name, share.get(label, 0.0)) if isinstance(share, dict) else share
        made = merged.is_synthetic[slots[merged.labels[slots] == label]].sum()
        assert made == round(wanted * counts[label])


def test_the_share_of_the_dataset_is_the_default(run):
    merged = merged_of(run, share=0.4, balance="classes")
    slots = drawn(BalancedSampler(merged))
    assert len(slots) == len(merged)
    assert np.array_equal(np.sort(slots), np.arange(len(merged)))  # it is balanced already


def test_no_image_is_drawn_twice_before_all_were_drawn_once(run):
    merged = merged_of(run)
    sampler = BalancedSampler(merged, share=0.5, num_samples=3 * 20)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        slots = drawn(sampler)
        for label in range(3):
            for kind in (False, True):
                own = np.flatnonzero((merged.labels == label) & (merged.is_synthetic == kind))
                times = np.array([(slots == slot).sum() for slot in own])
                assert times.max() - times.min() <= 1
                assert times.sum() == 10


def test_over_epochs_no_class_gets_the_rest_for_good(run):
    merged = merged_of(run)
    sampler = BalancedSampler(merged, num_samples=31)
    total = np.zeros(3, dtype=int)
    for epoch in range(9):
        sampler.set_epoch(epoch)
        total += np.bincount(merged.labels[drawn(sampler)], minlength=3)
    assert total.tolist() == [93, 93, 93]


def test_over_epochs_every_image_is_used(run):
    merged = merged_of(run)
    sampler = BalancedSampler(merged, share=0.5, num_samples=12)
    seen = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        seen |= set(drawn(sampler).tolist())
    assert seen == set(range(len(merged)))


# --- reproducible


def test_the_order_is_of_seed_and_epoch_alone(run):
    first = BalancedSampler(merged_of(run), share=0.3, seed=5)
    again = BalancedSampler(merged_of(run), share=0.3, seed=5)
    other = BalancedSampler(merged_of(run), share=0.3, seed=6)
    torch.manual_seed(1)
    one = drawn(first)
    torch.manual_seed(2)
    assert np.array_equal(one, drawn(again))
    assert not np.array_equal(one, drawn(other))
    first.set_epoch(1)
    assert not np.array_equal(one, drawn(first))
    first.set_epoch(0)
    assert np.array_equal(one, drawn(first))


def test_it_is_the_same_batch_sequence_with_any_number_of_workers(run):
    batches = []
    for workers in (0, 1, 2):
        merged = merged_of(run, details=True, seed=3)
        sampler = BalancedSampler(merged, share=0.3, seed=3, num_samples=50)
        sampler.set_epoch(2)
        loader = DataLoader(
            merged, batch_size=7, sampler=sampler, num_workers=workers, collate_fn=collate
        )
        batches.append(list(loader))
    for other in batches[1:]:
        for one, two in zip(batches[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_processes_of_a_training_share_one_epoch(run, drop_last):
    whole = BalancedSampler(merged_of(run), share=0.3, num_samples=50)
    parts = [
        BalancedSampler(
            merged_of(run),
            share=0.3,
            num_samples=50,
            num_replicas=4,
            rank=rank,
            drop_last=drop_last,
        )
        for rank in range(4)
    ]
    assert isinstance(whole, DistributedSampler)
    rows = [drawn(part) for part in parts]
    assert [len(row) for row in rows] == [len(part) for part in parts] == [12 + (not drop_last)] * 4
    together = np.stack(rows, axis=1).reshape(-1)
    expected = drawn(whole)
    assert np.array_equal(together[:48], expected[:48])
    if not drop_last:
        assert np.array_equal(together[48:], [*expected[48:], *expected[:2]])


def test_a_training_of_more_processes_than_draws_gets_draws_for_all(run):
    parts = [
        BalancedSampler(merged_of(run), num_samples=3, num_replicas=8, rank=rank)
        for rank in range(8)
    ]
    assert [len(drawn(part)) for part in parts] == [1] * 8


# --- resumed


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_epoch_goes_on_where_it_was(run, workers):
    merged = merged_of(run, details=True)
    sampler = BalancedSampler(merged, share=0.3, num_samples=60)
    sampler.set_epoch(4)
    options = {"batch_size": 8, "num_workers": workers, "collate_fn": collate}
    whole = list(DataLoader(merged, sampler=sampler, **options))
    stopped = BalancedSampler(merged_of(run, details=True), share=0.3, num_samples=60)
    stopped.set_epoch(4)
    batches = iter(DataLoader(stopped.dataset, sampler=stopped, **options))
    for _ in range(3):
        next(batches)
    state = pickle.loads(pickle.dumps(stopped.state_dict(position=3 * 8)))  # noqa: S301
    later = BalancedSampler(merged_of(run, details=True), share=0.3, num_samples=60)
    later.load_state_dict(state)
    rest = list(DataLoader(later.dataset, sampler=later, **options))
    assert len(rest) == len(whole) - 3
    for one, two in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.images, two.images)
    # The epoch after a resumed one is whole again.
    later.set_epoch(5)
    assert len(drawn(later)) == 60


def test_its_own_position_is_what_it_handed_out(run):
    sampler = BalancedSampler(merged_of(run), num_samples=20)
    order = drawn(sampler)
    one_by_one = iter(sampler)
    for _ in range(6):
        next(one_by_one)
    other = BalancedSampler(merged_of(run), num_samples=20)
    other.load_state_dict(sampler.state_dict())
    assert np.array_equal(drawn(other), order[6:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "expected seed 0 as of this sampler, got 9"),
        ({"num_samples": 21}, "expected num_samples 20"),
        ({"num_replicas": 2}, "expected num_replicas 1"),
        ({"position": 21}, "expected a position from 0 to 20, got 21"),
        ({"more": 1}, "expected the keys"),
    ],
)
def test_a_state_of_another_sampler_is_refused(run, change, message):
    sampler = BalancedSampler(merged_of(run), num_samples=20)
    with pytest.raises(MergeError, match=message):
        sampler.load_state_dict(sampler.state_dict() | change)


# --- the recipe


def test_the_ending_on_real_images_is_followed(run):
    merged = merged_of(run, share=0.5)
    merged.recipe["real_only_last"] = 0.5
    sampler = BalancedSampler(merged, share=0.5, n_epochs=4)
    shares = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        shares.append(float(merged.is_synthetic[drawn(sampler)].mean()))
    assert shares[2:] == [0, 0]
    assert min(shares[:2]) > 0.4


# --- refused


def test_a_class_without_real_images_is_drawn_from_its_synthetic_ones(run):
    merged = merge(real_images((14, 7, 0)), run, "all")
    slots = drawn(BalancedSampler(merged, share=0.3, num_samples=30))
    assert merged.is_synthetic[slots][merged.labels[slots] == 2].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.0}, r"share: expected a number in \[0, 1\)"),
        ({"share": "all"}, "share: expected numbers"),
        ({"share": {"nothing": 0.1}}, "share: expected each class once"),
        ({"num_samples": 0}, "num_samples: expected at least 1, got 0"),
    ],
)
def test_arguments_that_make_no_epoch_are_refused(run, options, message):
    with pytest.raises(MergeError, match=message):
        BalancedSampler(merged_of(run), **options)


@pytest.mark.usefixtures("unchecked")
def test_another_dataset_is_refused():
    with pytest.raises(MergeError, match=r"expected what vaeaug\.merge returns, got list"):
        BalancedSampler([1, 2, 3])


# --- what a batch carries


@pytest.mark.parametrize("soft", [False, True])
def test_a_batch_carries_labels_kinds_and_weights(run, soft):
    data = real_images(COUNTS)
    merged = merge(data, run, 0.5, details=True, soft=soft)
    loader = DataLoader(merged, batch_size=9, collate_fn=collate)
    batches = list(loader)
    synthetic = ShardDataset(run)
    slot = 0
    for batch in batches:
        assert batch.weights.dtype == torch.float32
        assert batch.labels.dtype == (torch.float32 if soft else torch.int64)
        for row in range(len(batch.images)):
            image, label = expected_item(merged, data, synthetic, slot)
            assert np.array_equal(batch.images[row].numpy(), np.moveaxis(image, -1, 0))
            said = batch.labels[row]
            assert (said.argmax() if soft else said) == label
            assert batch.is_synthetic[row] == merged.is_synthetic[slot]
            assert batch.weights[row] == pytest.approx(merged.weights[slot])
            slot += 1
    assert slot == len(merged)


def test_weights_are_those_of_the_recipe(run):
    merged = merge(real_images(COUNTS), run, 0.5, details=True, transform=double)
    merged.recipe["weight"] = 0.25
    batch = collate(merged.__getitems__(range(len(merged))))
    made = batch.is_synthetic
    assert made.any()
    assert torch.all(batch.weights[~made] == 1)
    rows = merged.index[made.numpy()]
    assert np.allclose(batch.weights[made], 0.25 * merged.synthetic.weight[rows])
    assert batch.images.dtype == torch.float32


def test_items_without_weights_are_refused(run):
    with pytest.raises(MergeError, match=r"merged with details=True, got tuple of length 2"):
        collate(merged_of(run).__getitems__([0, 1]))


# --- Hugging Face


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("reordered", [False, True])
def test_a_hugging_face_dataset_is_merged_by_class_names(run, reordered):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    data = real_images(COUNTS)
    names = list(CLASS_NAMES)[::-1] if reordered else list(CLASS_NAMES)
    rows = datasets.Dataset.from_dict(
        {
            "picture": [Image.fromarray(image) for image in data.images],
            "kind": [names.index(CLASS_NAMES[label]) for label in data.labels.tolist()],
        },
        features=datasets.Features(
            {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=names)}
        ),
    )
    merged = merge(rows, run, 0.5)
    assert list(merged.class_names) == names
    plain = merge(TorchImages(data, classes=CLASS_NAMES), run, 0.5)
    assert len(merged) == len(plain)
    synthetic = ShardDataset(run)
    items = merged.__getitems__(range(len(merged)))
    for slot, (image, label) in enumerate(items):
        row = int(merged.index[slot])
        if merged.is_synthetic[slot]:
            wanted, found = synthetic[row]
            name = synthetic.class_names[found]
        else:
            wanted, name = data.images[row], CLASS_NAMES[data.labels[row]]
        assert names[label] == name
        assert np.array_equal(image.numpy(), np.moveaxis(wanted, -1, 0))


# --- a real group of processes


def draw_in_group(run, store, rank, queue):
    """What one process of a distributed training draws, with everything by default."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    sampler = BalancedSampler(merged_of(run), share=0.3, num_samples=51)
    sampler.set_epoch(3)
    queue.put((rank, list(sampler)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_in_a_process_group_each_process_finds_its_part(run, tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=draw_in_group, args=(run, tmp_path / "store", rank, queue))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    parts = dict(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    whole = BalancedSampler(merged_of(run), share=0.3, num_samples=51)
    whole.set_epoch(3)
    expected = list(whole)
    expected.append(expected[0])
    assert [index for pair in zip(parts[0], parts[1], strict=True) for index in pair] == expected

import dataclasses
import errno
import logging
import math
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parent.parent / "shards"))
from example_run import CLASS_NAMES, PROVENANCE, make_run

import vaeaug
from vaeaug.files import claim_target
from vaeaug.job.pipeline import augment
from vaeaug.merging import (
    MergedDataset,
    MergeError,
    counts_of_file,
    counts_of_run,
    merge,
    write_merged,
)
from vaeaug.merging._slots import fill as _fill
from vaeaug.merging._slots import slot_counts as _slot_counts
from vaeaug.plan import make_plan
from vaeaug.shards import Manifest, ShardDataset, ShardError

SHAPE = (6, 5, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """9, 7 and 8 synthetic images of three classes."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, counts=(9, 7, 8), shape=SHAPE)
    return folder


def real_images(counts=(14, 7, 2), *, class_names=CLASS_NAMES, dtype="uint8", **more):
    """What ``vaeaug.read`` returns, as far as ``merge`` looks at it. Pickles."""
    rng = np.random.default_rng(1)
    n = sum(counts)
    images = rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    if dtype == "float32":
        images = (images / 255).astype(np.float32)
    usual = {
        "images": images,
        "labels": rng.permutation(np.repeat(np.arange(len(counts)), counts)),
        "class_names": class_names,
        "fingerprint": PROVENANCE.data_fingerprint,
        "value_range": (0.0, 255.0) if dtype == "uint8" else (0.0, 1.0),
    }
    return SimpleNamespace(**(usual | more))


def counted(n_real, n_made, share, balance):
    """Slots of a run without a plan."""
    names = [str(i) for i in range(len(n_real))]
    return _slot_counts(
        n_real, n_made, share=share, balance=balance, planned=None, class_names=names
    )


def planned_run(folder, counts, strategy="auto", *, made=None, **keys):
    """A run whose manifest has a plan for real images of these counts, and its real images."""
    plan = make_plan(
        np.repeat(np.arange(len(counts)), counts), strategy, class_names=CLASS_NAMES, **keys
    )
    made = made or [each.n_synthetic for each in plan]
    manifest = make_run(folder, counts=made, shape=SHAPE)
    classes = tuple(
        dataclasses.replace(entry, real=each.real, target_count=each.target_count)
        for entry, each in zip(manifest.classes, plan, strict=True)
    )
    dataclasses.replace(
        manifest,
        classes=classes,
        real_counts=tuple(counts),
        extra={"plan": plan.to_json(), "recipe": {"share": 0.3, "origin": "default"}},
    ).save(folder)
    return real_images(counts)


class TorchImages(Dataset):
    """A map-style dataset over ``real_images``; ``how`` says what its items hold."""

    def __init__(self, data, how="array", **attributes):
        self.data = data
        self.how = how
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.data.labels)

    def __getitem__(self, i):
        image, label = self.data.images[i], int(self.data.labels[i])
        if self.how == "pil":
            return Image.fromarray(image), label
        if self.how == "tensor":
            return torch.from_numpy(image).movedim(-1, 0), torch.tensor(label)
        return image, np.array([label])


def expected_item(merged, data, synthetic, slot):
    """The item of a slot by the plainest way there is."""
    row = int(merged.index[slot])
    if merged.is_synthetic[slot]:
        image, label = synthetic[row]
        return image, merged.class_names.index(synthetic.class_names[label])
    return data.images[row], int(data.labels[row])


def double(image):
    """A transform that pickles."""
    return image.float() * 2


# --- shares


@settings(max_examples=200, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 9)), min_size=1, max_size=6),
    share=st.floats(0, 0.99),
)
def test_every_class_has_the_same_share_and_every_real_image(counts, share):
    n_real, n_made = zip(*counts, strict=True)
    for n, slots in zip(n_real, counted(n_real, n_made, share, None), strict=True):
        total = slots.real + slots.synthetic
        assert slots.real == n
        assert slots.synthetic == round(share * total)
        assert abs(total - n / (1 - share)) <= 0.5 + 1e-6


@settings(max_examples=200, deadline=None)
@given(
    n_real=st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    share=st.floats(0, 0.99),
)
def test_balanced_classes_have_equal_slots_and_equal_shares(n_real, share):
    slots = counted(n_real, [1] * len(n_real), share, "classes")
    assert len(set(slots)) == 1
    assert slots[0].real == max(n_real)
    assert slots[0].synthetic == round(share * sum(slots[0]))


def test_a_class_of_which_there_is_nothing_has_no_slots():
    assert counted([6, 0, 3], [6, 0, 6], 0.5, "classes") == [(6, 6), (0, 0), (6, 6)]
    with pytest.raises(MergeError, match=r"expected real images of every class, got none of \['1'"):
        counted([6, 0, 3], [6, 2, 6], 0.5, "classes")


def test_a_merge_balances_by_the_plan_with_the_same_share_for_every_class(tmp_path):
    data = planned_run(tmp_path, (16, 9, 2))
    merged = merge(data, tmp_path)
    # 16 / 0.7 = 23 slots a class, 7 of them synthetic; two images fill 16 slots.
    assert [tuple(each) for each in merged.counts] == [
        ("ant", 16, 7, 0, 23),
        ("bee", 9, 7, 7, 23),
        (CLASS_NAMES[2], 2, 7, 14, 23),
    ]
    assert np.bincount(merged.labels).tolist() == [23, 23, 23]
    assert np.bincount(merged.labels[merged.is_synthetic]).tolist() == [7, 7, 7]
    for label, n in enumerate((16, 9, 2)):
        rows = merged.index[(merged.labels == label) & ~merged.is_synthetic]
        assert len(set(rows.tolist())) == n, "every real image is there"
        assert np.ptp(np.unique(rows, return_counts=True)[1]) <= 1, "repeated evenly"
    assert counts_of_run(ShardDataset(tmp_path).manifest) == merged.counts
    path = write_merged(data, tmp_path, tmp_path.parent / "merged.h5", overwrite=True)
    assert counts_of_file(path) == merged.counts


def test_another_share_keeps_the_class_sizes_of_the_plan(tmp_path):
    data = planned_run(tmp_path, (16, 9, 2))
    half = merge(data, tmp_path, 0.5)
    assert [each.together for each in half.counts] == [32, 32, 32]
    assert [each.synthetic for each in half.counts] == [7, 7, 7], "all that there are"
    assert np.bincount(half.labels[half.is_synthetic]).tolist() == [16, 16, 16]
    none = merge(data, tmp_path, 0)
    assert [each.together for each in none.counts] == [16, 16, 16]
    plain = merge(data, tmp_path, balance=None)
    assert [each.together for each in plain.counts] == [23, 13, 3]


def test_a_plan_to_the_letter_is_merged_to_the_letter(tmp_path):
    data = planned_run(tmp_path, (16, 9, 2), {"çat": 12, "bee": 10})
    with pytest.warns(UserWarning, match=r"no synthetic samples of the classes \['ant'\]"):
        merged = merge(data, tmp_path)
    assert [tuple(each) for each in merged.counts] == [
        ("ant", 16, 0, 0, 16),
        ("bee", 9, 1, 0, 10),
        (CLASS_NAMES[2], 2, 10, 0, 12),
    ]


def test_a_class_without_samples_is_filled_by_its_images_and_one_that_fell_short_by_its_samples(
    tmp_path,
):
    data = planned_run(tmp_path, (16, 9, 2), min_class_count=3, made=[7, 4, 0])
    with pytest.warns(UserWarning, match=r"no synthetic samples of the classes \['çat'\]"):
        merged = merge(data, tmp_path)
    assert [tuple(each) for each in merged.counts] == [
        ("ant", 16, 7, 0, 23),
        ("bee", 9, 4, 10, 23),
        (CLASS_NAMES[2], 2, 0, 21, 23),
    ]


def test_a_recipe_that_a_search_found_goes_before_the_share_of_the_plan(tmp_path):
    data = planned_run(tmp_path, (16, 9, 2))
    manifest = Manifest.load(tmp_path)
    found = manifest.extra | {"recipe": {"share": 0.5, "classes": "rare", "origin": "search"}}
    dataclasses.replace(manifest, extra=found).save(tmp_path)
    merged = merge(data, tmp_path)
    assert [each.together for each in merged.counts] == [32, 32, 32]
    assert np.bincount(merged.labels[merged.is_synthetic], minlength=3).tolist() == [0, 0, 16]


def test_real_images_of_other_counts_get_the_common_share(tmp_path):
    planned_run(tmp_path, (16, 9, 2))
    merged = merge(real_images((20, 9, 2)), tmp_path, on_mismatch="ignore")
    assert [each.together for each in merged.counts] == [29, 23, 23]


@settings(max_examples=200, deadline=None)
@given(pool=st.integers(1, 40), n=st.integers(1, 100), start=st.integers(0, 5))
def test_a_pool_is_used_evenly_and_wholly(pool, n, start):
    rest = n % pool
    turn = math.ceil(pool / rest) if rest else 1
    used = set()
    for epoch in range(start * turn, (start + 1) * turn):
        rows = _fill(pool, n, epoch, (0, 1, 1))
        counts = np.bincount(rows, minlength=pool)
        assert len(rows) == n
        assert counts.max() - counts.min() <= 1
        used |= set(rows.tolist())
    assert used == set(range(pool))


def test_known_slots(run):
    data = real_images()
    merged = merge(data, run, share=0.5)
    assert np.bincount(merged.labels).tolist() == [28, 14, 4]
    assert np.bincount(merged.labels[merged.is_synthetic]).tolist() == [14, 7, 2]
    real_rows = merged.index[~merged.is_synthetic]
    assert sorted(real_rows.tolist()) == list(range(23))
    assert "46 images, 23 of them synthetic" in repr(merged)

    balanced = merge(data, run, share=0.5, balance="classes")
    assert np.bincount(balanced.labels).tolist() == [28, 28, 28]
    assert np.bincount(balanced.labels[balanced.is_synthetic]).tolist() == [14, 14, 14]
    rare = balanced.index[~balanced.is_synthetic & (balanced.labels == 2)]
    assert sorted(Counter(rare.tolist()).values()) == [7, 7]


def test_share_per_class_and_all(run):
    data = real_images()
    merged = merge(data, run, share={"ant": 0.5, 1: 0})
    assert np.bincount(merged.labels[merged.is_synthetic], minlength=3).tolist() == [14, 0, 0]
    merged = merge(data, run, share="all")
    assert sorted(merged.index[merged.is_synthetic].tolist()) == list(range(24))
    assert sorted(merged.index[~merged.is_synthetic].tolist()) == list(range(23))
    assert not merge(data, run, share=0).is_synthetic.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.0}, r"share: expected a number in \[0, 1\), or 'all', got 1.0"),
        ({"share": -0.1}, "share: expected a number"),
        ({"share": "half"}, "share: expected a number .* got 'half'"),
        ({"share": {"dog": 0.3}}, "share: expected each class once, by a name or index of .*'dog'"),
        ({"share": {"ant": 0.3, 0: 0.2}}, "expected each class once"),
        ({"share": {"ant": 2}}, r"share\['ant'\]: expected a number in \[0, 1\)"),
        ({"share": "all", "balance": "classes"}, "expected balance None"),
        ({"balance": "rare"}, "balance: expected 'plan', 'classes' or None, got 'rare'"),
        ({"on_mismatch": "warn"}, "on_mismatch: expected 'error' or 'ignore', got 'warn'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_shares_are_refused(run, arguments, message):
    with pytest.raises(MergeError, match=message):
        merge(real_images(), run, **arguments)


@pytest.mark.usefixtures("unchecked")
def test_a_class_without_synthetic_samples_is_said(tmp_path):
    make_run(tmp_path, counts=(9, 0, 8), shape=SHAPE)
    with pytest.warns(UserWarning, match=r"no synthetic samples of the classes \['bee'\]") as seen:
        merged = merge(real_images(), tmp_path, share=0.5)
    assert len(seen) == 1
    assert "plan.share" in str(seen[0].message)
    assert seen[0].filename == __file__
    assert np.bincount(merged.labels[merged.is_synthetic], minlength=3).tolist() == [14, 0, 2]
    with warnings.catch_warnings():  # none was asked for
        warnings.simplefilter("error")
        merge(real_images(), tmp_path, share={"ant": 0.5})
        merge(real_images(), tmp_path, share=0)


def test_not_evaluated_is_said_once(tmp_path, caplog):
    manifest = make_run(tmp_path, counts=(9, 7, 8), shape=SHAPE)
    caplog.set_level(logging.WARNING, logger="vaeaug")
    merge(real_images(), tmp_path, share=0)
    assert not caplog.records, "real images alone need no word"
    merge(real_images(), tmp_path)
    merge(real_images(), tmp_path)
    (said,) = caplog.messages
    assert said.startswith(
        f"{tmp_path}: not evaluated: it is not known whether this synthetic data helps"
    )
    caplog.clear()
    dataclasses.replace(manifest, gate={"verdict": "helps"}).save(tmp_path)
    merge(real_images(), tmp_path)
    assert not caplog.records


@pytest.mark.usefixtures("unchecked")
def test_data_that_does_not_help_is_not_merged_in_silence(tmp_path):
    manifest = make_run(tmp_path, counts=(9, 7, 8), shape=SHAPE)
    gate = {"verdict": "does not help", "sentence": "Synthetic data does not help: -2 points."}
    dataclasses.replace(manifest, gate=gate).save(tmp_path)
    with pytest.warns(
        UserWarning, match="does not help: -2 points. share=0 trains on real"
    ) as seen:
        merge(real_images(), tmp_path)
    assert seen[0].filename == __file__
    merge(real_images(), tmp_path, share=0)


# --- the recipe of the run


def run_with(tmp_path, **recipe):
    manifest = make_run(tmp_path, counts=(9, 7, 8), shape=SHAPE)
    gate = {"verdict": "helps"}
    dataclasses.replace(manifest, gate=gate, extra={"recipe": recipe}).save(tmp_path)
    return tmp_path


def test_the_recipe_of_the_run_is_the_default(tmp_path):
    data, run = real_images((12, 12, 12)), run_with(tmp_path, share=0.5, weight=0.5, soft=True)
    merged = merge(data, run)
    assert merged.is_synthetic.mean() == 0.5
    assert merged[0][1].shape == (3,), "soft labels"
    assert set(merged.weights[~merged.is_synthetic]) == {1}
    expected = merged.synthetic.weight[merged.index[merged.is_synthetic]] * 0.5
    assert np.array_equal(merged.weights[merged.is_synthetic], expected.astype(np.float32))
    told = merge(data, run, share=0.25, soft=False)
    assert told.is_synthetic.mean() == 0.25
    assert isinstance(told[0][1], int)


def test_a_recipe_of_none_merges_real_images_alone(tmp_path):
    assert not merge(real_images(), run_with(tmp_path, share=0.0)).is_synthetic.any()


def test_a_recipe_for_rare_classes(tmp_path):
    manifest = make_run(tmp_path, counts=(9, 7, 8), shape=SHAPE)
    dataclasses.replace(
        manifest,
        gate={"verdict": "helps"},
        real_counts=(14, 7, 2),
        extra={"recipe": {"share": 0.5, "classes": "rare"}},
    ).save(tmp_path)
    merged = merge(real_images((14, 7, 2)), tmp_path)
    shares = [merged.is_synthetic[merged.labels == label].mean() for label in range(3)]
    assert shares == [0, 0.5, 0.5]


def test_a_recipe_that_ends_on_real_images(tmp_path):
    data = real_images((12, 12, 12))
    merged = merge(data, run_with(tmp_path, share=0.25, real_only_last=0.4))
    labels = merged.labels.copy()
    parts = []
    for epoch in range(5):
        merged.set_epoch(epoch, 5)
        assert np.array_equal(merged.labels, labels)
        real = merged.index[~merged.is_synthetic]
        assert np.array_equal(data.labels[real], merged.labels[~merged.is_synthetic])
        parts.append(merged.is_synthetic.mean())
    assert parts == [0.25, 0.25, 0.25, 0, 0]
    merged.set_epoch(4)
    assert merged.is_synthetic.mean() == 0.25, "how long the training is was not said"
    with pytest.raises(MergeError, match="below n_epochs 5, got 5"):
        merged.set_epoch(5, 5)


# --- items


def test_items_are_those_of_the_sources(run):
    data, synthetic = real_images(), ShardDataset(run)
    merged = merge(data, run, share=0.4, return_is_synthetic=True)
    for slot in range(len(merged)):
        image, label, is_synthetic = merged[slot]
        wanted, wanted_label = expected_item(merged, data, synthetic, slot)
        assert image.dtype == torch.uint8
        assert image.shape == (3, 6, 5)
        np.testing.assert_array_equal(image.movedim(0, -1).numpy(), wanted)
        assert (label, type(label)) == (wanted_label, int)
        assert label == merged.labels[slot]
        assert is_synthetic is bool(merged.is_synthetic[slot])
    order = [len(merged) - 1, 0, 3, 3, 20]
    for many, slot in zip(merged.__getitems__(order), order, strict=True):
        assert torch.equal(many[0], merged[slot][0])
        assert many[1:] == merged[slot][1:]
    assert len(merged[0]) == 3
    assert len(merge(data, run)[0]) == 2
    with pytest.raises(IndexError, match="expected an index in"):
        merged[len(merged)]


def test_iterating_ends(run):
    merged = merge(real_images(), run)
    assert len(list(merged)) == len(merged)


def test_transform_sees_both_kinds_and_the_source_stays(run):
    data = real_images()
    before = data.images.copy()
    plain, doubled = merge(data, run), merge(data, run, transform=double)
    for slot in (0, len(plain) - 1):
        assert torch.equal(doubled[slot][0], plain[slot][0].float() * 2)
    merge(data, run, transform=torch.Tensor.zero_).__getitems__(range(len(plain)))
    np.testing.assert_array_equal(data.images, before)


def test_labels_are_aligned_by_name(run):
    data = real_images((4, 5, 6), class_names=["çat", "ant", "bee"])
    merged = merge(data, run, share=0.5)
    synthetic = ShardDataset(run)
    assert merged.class_names == ("çat", "ant", "bee")
    for slot in np.flatnonzero(merged.is_synthetic):
        name = synthetic.class_names[synthetic.labels[merged.index[slot]]]
        assert merged.class_names[merged.labels[slot]] == name
        assert merged[slot][1] == merged.labels[slot]


def test_weights_are_those_of_the_shards(run):
    merged, synthetic = merge(real_images(), run, share=0.4), ShardDataset(run)
    for epoch in (0, 3):
        merged.set_epoch(epoch)
        made = merged.is_synthetic
        assert (merged.weights[~made] == 1).all()
        np.testing.assert_array_equal(
            merged.weights[made], synthetic.weight[merged.index[merged.is_synthetic]]
        )


def test_epochs_and_seeds(run):
    data = real_images()
    merged = merge(data, run, share=0.2)
    first = merged.index.copy()
    assert np.array_equal(merge(data, run, share=0.2).index, first)
    used = set()
    for epoch in range(9):  # 9, 7 and 8 samples, at least one slot each
        merged.set_epoch(epoch)
        if epoch == 1:
            assert not np.array_equal(merged.index, first)
        used |= set(merged.index[merged.is_synthetic & (merged.labels == 0)].tolist())
    assert used == set(range(9))
    merged.set_epoch(0)
    assert np.array_equal(merged.index, first)
    assert not np.array_equal(merge(data, run, share=0.2, seed=1).index, first)
    with pytest.raises(MergeError, match="epoch: expected an integer >= 0, got -1"):
        merged.set_epoch(-1)


@pytest.mark.parametrize("how", ["array", "tensor", "pil"])
def test_torch_datasets(run, how):
    data = real_images()
    wanted = merge(data, run, share=0.4)
    for real in (
        TorchImages(data, how),
        TorchImages(data, how, targets=data.labels.tolist()),
        TorchImages(data, how, labels=torch.from_numpy(data.labels), classes=list(CLASS_NAMES)),
        Subset(TorchImages(data, how), range(len(data.labels))),
    ):
        merged = merge(real, run, share=0.4)
        assert np.array_equal(merged.labels, wanted.labels)
        for a, b in zip(merged, wanted, strict=True):
            assert torch.equal(a[0], b[0])
            assert a[1] == b[1]


def test_labels_of_the_items_win_over_untransformed_targets(run):
    data = real_images()
    merged = merge(TorchImages(data, targets=(data.labels + 1) % 3), run, share=0.4)
    assert np.array_equal(merged.labels, merge(data, run, share=0.4).labels)


def test_gray_pil_images(tmp_path):
    make_run(tmp_path, shape=(6, 5, 1))
    data = real_images(images=np.arange(23 * 30, dtype=np.uint8).reshape(23, 6, 5))
    merged = merge(TorchImages(data, "pil"), tmp_path)
    assert merged[0][0].shape == (1, 6, 5)


@pytest.mark.parametrize("layout", ["NLC", "NDHWC"])
def test_other_layouts_and_floats(tmp_path, layout):
    manifest = make_run(tmp_path, layout=layout, dtype="float32", counts=(9, 7, 8))
    shape = manifest.image_shape
    images = np.random.default_rng(0).random((23, *shape), dtype=np.float32)
    merged = merge(real_images(images=images, value_range=(0, 1)), tmp_path)
    image, _ = merged[0]
    assert image.dtype == torch.float32
    assert image.shape == (shape[-1], *shape[:-1])


# --- what does not belong together


@pytest.mark.parametrize(
    ("real", "message"),
    [
        ({"class_names": ("ant", "bee", "cat")}, r"class names: expected those of the run \('ant'"),
        ({"class_names": ("ant", "bee")}, "real labels: expected an index of the 2 classes, got 2"),
        ({"images": np.zeros((23, 6, 5, 1), np.uint8)}, r"image shape: expected \(6, 5, 3\) .*1\)"),
        (
            {"images": np.zeros((23, 6, 5, 3), np.float32), "value_range": (-9, 7)},
            "expected values as in the run .uint8 from 0 to 255.* got float32 from -9 to 7; pass",
        ),
        (
            {"images": np.zeros((23, 6, 5, 3), np.int32)},
            "expected values as in the run .*, got int32 from 0 to 255",
        ),
        (
            {"fingerprint": "d" * 64},
            "fingerprint: expected c{64}, that of the generator.*got d{64}",
        ),
        ({"labels": np.zeros(5, int)}, r"real labels: expected shape \(23,\), .* got \(5,\)"),
    ],
)
def test_what_does_not_belong_together_is_refused(run, real, message):
    data = real_images(**real)
    with pytest.raises(MergeError, match=message):
        merge(data, run)
    if "fingerprint" in real:
        assert len(merge(data, run, on_mismatch="ignore")) > 0
    else:
        with pytest.raises(MergeError, match=message):
            merge(data, run, on_mismatch="ignore")


def test_torch_datasets_that_do_not_belong_are_refused(run):
    data = real_images()
    with pytest.raises(MergeError, match="class names: expected those of the run"):
        merge(TorchImages(data, classes=["a", "b", "c"]), run)
    merged = merge(TorchImages(data, classes=["a", "b", "c"]), run, class_names=CLASS_NAMES)
    assert merged.class_names == CLASS_NAMES
    with pytest.raises(MergeError, match=r"fingerprint: expected c{64}"):
        merge(TorchImages(data, fingerprint="test split"), run)
    with pytest.raises(MergeError, match="real labels: expected an index of the 3 classes, got 3"):
        merge(TorchImages(real_images((9, 9, 4, 1))), run)
    with pytest.raises(MergeError, match="expected at least one image, got none"):
        merge(TorchImages(SimpleNamespace(labels=[], images=[])), run)
    with pytest.raises(MergeError, match="real: expected images with class_names, a map-style"):
        merge(iter([]), run)

    data.images = list(data.images)
    data.images[5] = data.images[5][:3]
    mixed = merge(TorchImages(data), run)
    [slot] = np.flatnonzero(~mixed.is_synthetic & (mixed.index == 5))
    with pytest.raises(MergeError, match=r"real dataset\[5\]: expected uint8 of shape \(6, 5, 3\)"):
        mixed[slot]


def test_floats_of_another_scale_are_refused(tmp_path):
    make_run(tmp_path, dtype="float32", shape=SHAPE)
    data = real_images(images=np.full((23, *SHAPE), 200, np.float32))
    with pytest.raises(MergeError, match=r"value range: expected the first real image in \(0, 1\)"):
        merge(TorchImages(data), tmp_path)


@pytest.mark.parametrize(
    ("dtype", "value_range", "said"),
    [
        (torch.float32, (0.0, 1.0), None),  # what ToTensor gives
        (torch.float16, (0.0, 1.0), None),
        (torch.float32, (-1.0, 1.0), (-1, 1)),
        (torch.float32, (0.0, 255.0), (0, 255)),
    ],
)
def test_samples_are_given_in_the_units_of_the_real_images(run, caplog, dtype, value_range, said):
    caplog.set_level(logging.INFO, logger="vaeaug")
    low, high = value_range
    data = real_images()
    scaled = torch.from_numpy(data.images).movedim(-1, 1) / 255 * (high - low) + low
    items = [
        (image.to(dtype), int(label)) for image, label in zip(scaled, data.labels, strict=True)
    ]
    plain = merge(data, run, 0.5)
    merged = merge(items, run, 0.5, value_range=said)
    assert any(
        "the samples are converted to the units of the real images" in line
        for line in caplog.messages
    )
    for slot in np.flatnonzero(merged.is_synthetic)[:5]:
        image, label = merged[int(slot)]
        stored, other = plain[int(slot)]
        assert (image.dtype, label) == (dtype, other)
        wanted = stored / 255 * (high - low) + low
        assert torch.allclose(image.float(), wanted, atol=1e-3 * (high - low))
    images, _ = next(iter(DataLoader(merged, batch_size=len(merged))))
    assert images.dtype == dtype


def test_float_samples_beside_real_pictures_of_bytes(tmp_path):
    make_run(tmp_path, dtype="float32", shape=SHAPE)
    data = real_images()
    merged = merge(TorchImages(data), tmp_path, 0.5)
    stored = ShardDataset(tmp_path)
    slot = int(np.flatnonzero(merged.is_synthetic)[0])
    image = merged[slot][0]
    assert image.dtype == torch.uint8
    wanted = np.round(stored.images_at([merged.index[slot]])[0] * 255)
    assert np.array_equal(image.movedim(0, -1).numpy(), wanted.astype(np.uint8))
    path = write_merged(TorchImages(data), tmp_path, tmp_path.parent / "bytes.h5", overwrite=True)
    with h5py.File(path, "r") as file:
        assert file["images"].dtype == np.uint8
        assert file.attrs["image_value_range"].tolist() == [0, 255]


def test_whatever_read_takes_is_merged_as_the_run_read_it(tmp_path):
    from small_job import tiny_config

    rng = np.random.default_rng(0)
    for name, n in (("ant", 12), ("bee", 9)):
        for split in ("train", "test"):
            folder = tmp_path / "insects" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    out, source = tmp_path / "out", tmp_path / "insects"
    config = tiny_config(**{"data.size": (8, 8), "data.mode": "L", "training.steps": 4})
    augment(source, out, config, progress=False)
    by_path = merge(str(source), out)
    assert [tuple(each) for each in by_path.counts] == [
        ("ant", 12, 5, 0, 17),
        ("bee", 9, 5, 3, 17),
    ]
    data = vaeaug.read(source, size=(8, 8), mode="L")
    pair = merge(
        (data.images, data.labels), out, class_names=data.class_names, on_mismatch="ignore"
    )
    for other in (merge(source, out), pair):
        assert np.array_equal(other.labels, by_path.labels)
        assert torch.equal(other[3][0], by_path[3][0])
    # torchvision's own reading of the same folder, with a transform that gives floats in [0, 1].
    small = v2.Compose(
        [
            v2.ToImage(),
            v2.Grayscale(),
            v2.Resize((8, 8)),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    folder = ImageFolder(source / "train", small)
    merged = merge(folder, out)
    assert merged.counts == by_path.counts
    images, labels = next(iter(DataLoader(merged, batch_size=len(merged))))
    assert (images.dtype, images.shape) == (torch.float32, (34, 1, 8, 8))
    assert torch.equal(labels, torch.from_numpy(by_path.labels))
    # The same transform for both, collated together.
    shards = ShardDataset(out, transform=small)
    both = ConcatDataset([folder, shards])
    images, labels = next(iter(DataLoader(both, batch_size=len(both))))
    assert (images.dtype, images.shape) == (torch.float32, (31, 1, 8, 8))
    stored = torch.from_numpy(ShardDataset(out).images_at([0])).movedim(-1, 1) / 255
    assert torch.allclose(images[21], stored[0])
    assert labels[21:].tolist() == shards.labels.tolist()


def test_a_hugging_face_set_of_other_columns(run):
    datasets = pytest.importorskip("datasets")
    data = real_images()
    names = [CLASS_NAMES[label] for label in data.labels]
    features = datasets.Features(
        {"pixel_values": datasets.Array3D(SHAPE, "uint8"), "species": datasets.Value("string")}
    )
    rows = {"pixel_values": list(data.images), "species": names}
    merged = merge(
        datasets.Dataset.from_dict(rows, features=features).with_format("numpy"), run, 0.5
    )
    plain = merge(data, run, 0.5)
    assert merged.class_names == CLASS_NAMES
    assert np.array_equal(merged.labels, plain.labels)
    assert torch.equal(merged[0][0], plain[0][0])


def test_an_unfinished_run_is_refused(run, tmp_path):
    (tmp_path / "shards").mkdir()
    with pytest.raises(ShardError, match="no manifest: the run has not finished"):
        merge(real_images(), tmp_path)


# --- processes


def _ids(batch):
    images, labels, made = batch
    keys = [image.numpy().tobytes() for image in images]
    return list(zip(keys, labels.tolist(), made.tolist(), strict=True))


@pytest.mark.parametrize(
    ("method", "compress"),
    [("fork", None), ("fork", "gzip"), ("spawn", "gzip"), ("forkserver", None)],
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_give_every_slot_once(tmp_path, method, compress):
    make_run(tmp_path, counts=(9, 7, 8), shape=SHAPE, compress=compress)
    merged = merge(real_images(), tmp_path, share=0.4, return_is_synthetic=True)
    wanted = Counter(
        _ids(
            (
                [i for i, _, _ in merged],
                torch.tensor(merged.labels),
                torch.tensor(merged.is_synthetic),
            )
        )
    )  # and now handles are open
    loader = DataLoader(
        merged,
        batch_size=7,
        shuffle=True,
        num_workers=2,
        multiprocessing_context=method,
        generator=torch.Generator().manual_seed(0),
    )
    got = Counter()
    for batch in loader:
        got.update(_ids(batch))
    assert got == wanted
    merged.synthetic.close()


# --- one file


def test_write_merged(run, tmp_path):
    data = real_images()
    path = write_merged(data, run, tmp_path / "merged.h5", share=0.4)
    merged, synthetic = merge(data, run, share=0.4), ShardDataset(run)
    with h5py.File(path) as file:
        assert file["images"].chunks is None
        assert file["images"].shape == (len(merged), *SHAPE)
        for slot in range(len(merged)):
            image, label = expected_item(merged, data, synthetic, slot)
            np.testing.assert_array_equal(file["images"][slot], image)
            assert file["labels"][slot] == label
        np.testing.assert_array_equal(file["is_synthetic"][...], merged.is_synthetic)
        np.testing.assert_array_equal(file["source_index"][...], merged.index)
        np.testing.assert_array_equal(file["weight"][...], merged.weights)
        assert file["is_synthetic"].dtype == bool
        # Of fixed length: HDF5 keeps others in a heap that one damaged byte makes endless.
        assert [name.decode() for name in file.attrs["class_names"]] == list(CLASS_NAMES)
        assert file.attrs["class_names"].dtype.kind == "S"
        assert file.attrs["format"].decode() == "vaeaug-merged"
    assert [p.name for p in tmp_path.iterdir()] == ["merged.h5"]

    before = path.read_bytes()
    with pytest.raises(MergeError, match=r"merged.h5: expected no such file"):
        write_merged(data, run, path, share=0.1)
    assert path.read_bytes() == before
    write_merged(data, run, path, share=0.4, overwrite=True)
    assert path.read_bytes() == before  # same input, same bytes


def test_the_second_writer_of_one_file_is_refused(run, tmp_path):
    path = tmp_path / "merged.h5"
    with claim_target(path), pytest.raises(MergeError, match="another process is writing it; wait"):
        write_merged(real_images(), run, path)
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / ".merged.h5.0123456789abcdef.tmp"
    left.touch()
    write_merged(real_images(), run, path)
    assert list(tmp_path.iterdir()) == [path]


def test_write_merged_in_blocks(run, tmp_path, monkeypatch):
    data = real_images()
    whole = write_merged(data, run, tmp_path / "whole.h5").read_bytes()
    monkeypatch.setattr("vaeaug.shards._format.BLOCK_BYTES", 300)
    assert write_merged(data, run, tmp_path / "blocks.h5").read_bytes() == whole


def test_a_failing_source_leaves_no_file(run, tmp_path):
    data = real_images()
    data.images = list(data.images)
    data.images[5] = data.images[5][:3]
    with pytest.raises(MergeError, match=r"real dataset\[5\]"):
        write_merged(TorchImages(data), run, tmp_path / "merged.h5")
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from test_merging import real_images
from vaeaug.merging import write_merged
from vaeaug.shards import ShardError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_merged(real_images(), sys.argv[2], sys.argv[3])
except ShardError as error:
    print(error.errno, error)
"""


def test_no_room_leaves_no_file(run, tmp_path):
    target = tmp_path / "merged.h5"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(Path(__file__).parent), str(run), str(target)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (said,) = done.stderr.splitlines()
    assert "not evaluated" in said
    assert done.stdout.startswith(f"{errno.EFBIG} {target}: cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_said(run, tmp_path):
    with pytest.raises(ShardError, match="cannot be written: No such file or directory"):
        write_merged(real_images(), run, tmp_path / "nowhere" / "merged.h5")


def test_merged_is_a_torch_dataset(run):
    assert isinstance(merge(real_images(), run), MergedDataset)
    assert issubclass(MergedDataset, Dataset)

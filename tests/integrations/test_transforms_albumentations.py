"""SyntheticPool and LatentAugment of the albumentations adapter, and `worker_init_fn`."""

import dataclasses
import functools
import pickle
import shutil

import albumentations as A
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset

import vaeaug
from vaeaug.integrations import SyntheticPool, TransformError, worker_init_fn
from vaeaug.integrations.albumentations import LatentAugment
from vaeaug.shards import ShardError

BOTH = [SyntheticPool, LatentAugment]


@pytest.fixture(scope="module")
def out(finished):
    return finished.out_dir


@pytest.fixture(scope="module")
def pool(out):
    return vaeaug.ShardDataset(out)


def image_of(digits, label=3):
    return digits.images[np.flatnonzero(digits.labels == label)[0]]


def row_of(pool, image):
    """Rows of the pool that are this image."""
    whole = pool.images_at(range(len(pool)))
    return np.flatnonzero((whole == image).reshape(len(whole), -1).all(axis=1))


# --- SyntheticPool


@pytest.mark.parametrize("label", [0, 3, np.int64(9), "7", torch.tensor(5), np.array([2])])
def test_a_drawn_image_is_one_of_the_pool_and_of_the_label(out, pool, digits, label):
    transform = SyntheticPool(out, p=1.0)
    given = int(np.asarray(label).item())
    for _ in range(20):
        image = transform(image=image_of(digits), label=label)["image"]
        rows = row_of(pool, image)
        assert len(rows)
        assert (pool.labels[rows] == given).all()


def test_every_sample_of_the_class_is_drawn_equally_often(out, pool, digits):
    transform = SyntheticPool(out, p=1.0)
    transform.set_random_seed(0)
    own = np.flatnonzero(pool.labels == 9)
    n = 50 * len(own)
    drawn = [transform.get_params_dependent_on_data({}, {"label": 9})["row"] for _ in range(n)]
    times = np.array([drawn.count(row) for row in own.tolist()])
    assert times.sum() == n
    # Poisson counts of mean 50: six standard deviations.
    assert (abs(times - 50) < 6 * np.sqrt(50)).all()


def test_p_is_the_share(out, digits):
    transform = SyntheticPool(out, p=0.3)
    transform.set_random_seed(1)
    image = image_of(digits)
    outs = [transform(image=image, label=3)["image"] for _ in range(2000)]
    share = np.mean([not np.array_equal(each, image) for each in outs])
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("axes", [2, 3])
def test_the_type_and_axes_of_the_image_are_kept(out, pool, digits, dtype, axes):
    image = image_of(digits)
    image = image.astype(np.float32) / 255 if dtype == np.float32 else image
    image = image[..., 0] if axes == 2 else image
    found = SyntheticPool(out, p=1.0)(image=image, label=3)["image"]
    assert found.dtype == dtype
    assert found.shape == image.shape
    assert found.flags.c_contiguous
    assert found.flags.writeable
    whole = found if dtype == np.uint8 else np.rint(found * 255).astype(np.uint8)
    assert len(row_of(pool, whole.reshape(8, 8, 1)))


def test_a_class_without_samples_keeps_its_images(tmp_path, digits):
    """No synthetic sample of a class: the image stays, it becomes none of another class."""
    keys = ["model.width=8", "training.steps=3", "training.adapt_steps=1"]
    keys += ["screening.classifier_steps=2", "recipe.min_label_probability=0"]
    keys += ["plan.sampling_strategy={9: 20}"]
    vaeaug.augment(digits, tmp_path / "run", vaeaug.load_config(None, keys), device="cpu")
    transform = SyntheticPool(tmp_path / "run", p=1.0)
    image = image_of(digits)
    assert np.array_equal(transform(image=image, label=3)["image"], image)
    assert not np.array_equal(transform(image=image, label=9)["image"], image)


def test_labels_of_another_order_are_mapped_by_name(out, pool, digits):
    names = pool.class_names[::-1]
    image = SyntheticPool(out, class_names=names, p=1.0)(image=image_of(digits), label=0)["image"]
    assert (pool.labels[row_of(pool, image)] == 9).all()


def test_the_verdict_is_said(tmp_path, out, digits):
    shutil.copytree(out, tmp_path / "run")
    manifest = vaeaug.Manifest.load(tmp_path / "run")
    gate = {"verdict": "does not help", "sentence": "-2 points."}
    dataclasses.replace(manifest, gate=gate).save(tmp_path / "run")
    # An evaluation changes no sample, so the hash is the same.
    saved = A.to_dict(SyntheticPool(out, p=1.0))
    saved["transform"]["path"] = str(tmp_path / "run")
    with pytest.warns(UserWarning, match=r"the evaluation found: -2 points\."):
        transform = A.from_dict(saved)
    assert not np.array_equal(transform(image=image_of(digits), label=3)["image"], image_of(digits))
    with pytest.warns(UserWarning, match="does not help|evaluation found") as seen:
        SyntheticPool(tmp_path / "run")
    assert seen[0].filename == __file__


# --- LatentAugment


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("axes", [2, 3])
def test_an_image_is_moved_and_keeps_its_type(out, digits, dtype, axes):
    image = image_of(digits)
    image = image.astype(np.float32) / 255 if dtype == np.float32 else image
    image = image[..., 0] if axes == 2 else image
    found = LatentAugment(out, p=1.0)(image=image, label=3)["image"]
    assert found.dtype == dtype
    assert found.shape == image.shape
    assert not np.array_equal(found, image)
    assert found.max() <= (255 if dtype == np.uint8 else 1)
    far = np.abs(found.astype(float) - image).mean() / (255 if dtype == np.uint8 else 1)
    assert far < 0.1


def test_it_moves_as_the_torchvision_one_does(out, digits):
    from vaeaug.integrations import LatentAugment as OfTorchvision

    image = image_of(digits)
    own = LatentAugment(out, p=1.0)
    found = own(image=image, label=3)["image"]
    params = own.params
    other = OfTorchvision(out, p=1.0).transform(
        torch.from_numpy(image).movedim(-1, 0),
        {
            "rows": torch.tensor([True]),
            "uniform": torch.from_numpy(params["uniform"]),
            "noise": torch.from_numpy(params["noise"]),
            "labels": 3,
        },
    )
    assert np.array_equal(found, other.movedim(0, -1).numpy())


# --- both


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("how", ["dict", "json", "yaml", "pickle"])
def test_what_is_saved_comes_back_as_it_was(out, digits, tmp_path, kind, how):
    chain = A.Compose([kind(out, p=0.7), A.HorizontalFlip(p=0.5)], seed=11)
    if how == "dict":
        again = A.from_dict(A.to_dict(chain))
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(chain))  # noqa: S301
    else:
        A.save(chain, tmp_path / f"chain.{how}", data_format=how)
        again = A.load(tmp_path / f"chain.{how}", data_format=how)
    assert again[0].sha256 == chain[0].sha256
    assert repr(again) == repr(chain)
    images = []
    for each in (chain, again):
        each.set_random_seed(11)
        images.append([each(image=image_of(digits), label=3)["image"] for _ in range(10)])
    assert all(np.array_equal(a, b) for a, b in zip(*images, strict=True))


@pytest.mark.parametrize("kind", BOTH)
def test_a_saved_transform_holds_a_path_and_a_hash_and_no_model(out, kind):
    saved = A.to_dict(kind(out))["transform"]
    assert saved["path"] == str(out)
    assert len(saved["sha256"]) == 64
    assert len(str(saved)) < 600
    assert len(pickle.dumps(kind(out))) < 6000


@pytest.mark.parametrize("kind", BOTH)
def test_another_artefact_than_the_saved_one_is_refused(out, digits, kind):
    saved = A.to_dict(kind(out, p=1.0))
    saved["transform"]["sha256"] = "0" * 64
    again = A.from_dict(saved)  # loads nothing yet
    with pytest.raises(TransformError, match=f"{out}: expected the .* of hash 000"):
        again(image=image_of(digits), label=3)


@pytest.mark.parametrize("kind", BOTH)
def test_a_folder_that_holds_nothing_is_refused(tmp_path, kind):
    with pytest.raises((TransformError, ShardError), match=str(tmp_path)):
        kind(tmp_path)


@pytest.mark.parametrize("kind", BOTH)
def test_the_same_seed_gives_the_same_images(out, digits, kind):
    runs = []
    for seed in (5, 5, 6):
        np.random.seed(len(runs))  # noqa: NPY002 - numpy's global state must not matter
        chain = A.Compose([kind(out, p=0.8)], seed=seed)
        runs.append(np.stack([chain(image=image_of(digits), label=3)["image"] for _ in range(12)]))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.filterwarnings("ignore:Got processor for keypoints, but no transform")
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "more",
    [
        {"mask": np.zeros((8, 8), np.uint8)},
        {"masks": [np.zeros((8, 8), np.uint8)]},
        {"keypoints": np.array([[1.0, 1.0]])},
    ],
)
def test_places_in_an_image_are_refused(out, digits, kind, more):
    chain = A.Compose([kind(out, p=0.0)], keypoint_params=A.KeypointParams("xy"))
    with pytest.raises(TransformError, match="masks, boxes and keypoints of the real image do not"):
        chain(image=image_of(digits), label=3, **{"keypoints": np.empty((0, 2)), **more})


@pytest.mark.filterwarnings("ignore:Got processor for bboxes, but no transform")
@pytest.mark.parametrize("kind", BOTH)
def test_boxes_are_refused(out, digits, kind):
    chain = A.Compose(
        [kind(out, p=1.0)], bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"])
    )
    with pytest.raises(TransformError, match="got also bboxes"):
        chain(image=image_of(digits), label=3, bboxes=np.array([[0, 0, 4, 4]]), kinds=[1])


@pytest.mark.parametrize("kind", BOTH)
def test_what_else_comes_along_is_the_same_object(out, digits, kind):
    more = {"path": "a.png", "thing": object()}
    found = kind(out, p=1.0)(image=image_of(digits), label=3, **more)
    assert found["label"] == 3
    assert all(found[key] is more[key] for key in more)


@pytest.mark.parametrize("kind", BOTH)
def test_the_label_may_have_another_name(out, digits, kind):
    found = kind(out, label_key="digit", p=1.0)(image=image_of(digits), digit=3)
    assert not np.array_equal(found["image"], image_of(digits))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 10}, "expected an index below 10 or one"),
        ({"label": "boot"}, "got 'boot'"),
        ({"label": 1.5}, "got 1.5"),
        ({"label": True}, "got True"),
        ({"image": np.zeros((9, 8, 1), np.uint8)}, r"shape \(8, 8, 1\), got \(9, 8, 1\); apply it"),
        ({"image": np.zeros((8, 8, 3), np.uint8)}, r"got \(8, 8, 3\)"),
        ({"image": np.zeros((8, 8, 1), np.float64)}, "expected uint8 or float32, got float64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(out, digits, kind, given, message):
    transform = kind(out, p=1.0)
    with pytest.raises(TransformError, match=message):
        transform(**{"image": image_of(digits), "label": 3, **given})


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("values", [(2, 2), (0, 255), (-1, 1)])
def test_values_outside_the_range_are_refused(out, kind, values):
    image = np.linspace(*values, 64, dtype=np.float32).reshape(8, 8, 1)
    message = "expected values from 0 to 1, got {} to {}; .*Normalize, or pass value_range"
    with pytest.raises(TransformError, match=message.format(*values)):
        kind(out, p=1.0)(image=image, label=3)


@pytest.mark.parametrize("kind", BOTH)
def test_the_range_may_be_said(out, digits, kind):
    image = image_of(digits)
    scaled = (image / 127.5 - 1).astype(np.float32)
    outs = []
    for given, value_range in ((image, None), (scaled, (-1, 1))):
        transform = kind(out, p=1.0, value_range=value_range)
        transform = A.from_dict(transform.to_dict())
        transform.set_random_seed(4)
        outs.append(transform(image=given, label=3)["image"])
    plain, moved = outs
    assert moved.dtype == np.float32
    np.testing.assert_allclose((moved + 1) * 127.5, plain, atol=0.51)
    with pytest.raises(TransformError, match=r"value_range: expected \(lowest, highest\)"):
        kind(out, value_range=(1, 0))


@pytest.mark.parametrize("kind", BOTH)
def test_a_missing_label_is_said(out, digits, kind):
    with pytest.raises(ValueError, match=r"requires .* missing keys: .'label'"):
        kind(out, p=1.0)(image=image_of(digits))


# --- randomness of workers


class Transformed(Dataset):
    """The same image again and again, as a transform gives it."""

    def __init__(self, transform, digits, n=24):
        self.transform, self.image, self.n = transform, image_of(digits), n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.transform(image=self.image, label=3)["image"], torch.initial_seed()


def epochs(dataset, n_epochs=2, **options):
    """Images of every epoch as bytes, by worker."""
    loader = DataLoader(dataset, batch_size=1, num_workers=2, **options)
    found = []
    for _ in range(n_epochs):
        by_worker = {}
        for images, seeds in loader:
            by_worker.setdefault(int(seeds[0]), []).append(images[0].numpy().tobytes())
        found.append(list(by_worker.values()))
    return found


def streams(found):
    return [b"".join(stream) for epoch in found for stream in epoch]


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", BOTH)
def test_every_worker_and_epoch_draws_its_own(out, digits, kind, seed, persistent):
    chain = A.Compose([kind(out, p=1.0)], seed=seed)
    runs = []
    for again in range(3):
        torch.manual_seed(min(again, 1))
        runs.append(
            streams(
                epochs(
                    Transformed(chain, digits, 12),
                    multiprocessing_context="fork",
                    persistent_workers=persistent,
                )
            )
        )
    assert len(set(runs[0])) == len(runs[0]) == 4
    assert runs[1] == runs[2]  # reproducible by torch's seed
    assert runs[0] != runs[1]


def test_others_draw_the_same_in_each_worker_unless_seeded(digits):
    """The fault, and the cure; where the fault is gone the cure may go too."""
    chain = A.Compose([A.GaussNoise(p=1.0)], seed=3)
    dataset = Transformed(chain, digits, 8)
    torch.manual_seed(0)
    assert len(set(streams(epochs(dataset, multiprocessing_context="fork")))) == 1
    torch.manual_seed(0)
    cured = streams(epochs(dataset, multiprocessing_context="fork", worker_init_fn=worker_init_fn))
    assert len(set(cured)) == len(cured) == 4
    torch.manual_seed(0)
    again = streams(epochs(dataset, multiprocessing_context="fork", worker_init_fn=worker_init_fn))
    assert cured == again


def in_attribute(chain):
    return chain


def in_list(chain):
    return [{"train": (chain,)}]


def in_partial(chain):
    return functools.partial(apply, chain)


def in_closure(chain):
    def closure(**data):
        return chain(**data)

    return closure


def in_method(chain):
    return chain.__call__


def apply(chain, **data):
    return chain(**data)


class Holding(Dataset):
    def __init__(self, holder, chain, digits):
        self.holder, self.image = holder, image_of(digits)
        self.again = self  # datasets may refer to themselves
        self.call = functools.partial(_nothing)
        _CHAINS[id(holder)] = chain

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return _CHAINS[id(self.holder)](image=self.image)["image"], torch.initial_seed()


_CHAINS = {}


def _nothing():
    return None


@pytest.mark.parametrize("hold", [in_attribute, in_list, in_partial, in_closure, in_method])
@pytest.mark.parametrize("nested", [False, True])
def test_transforms_are_found_wherever_the_dataset_holds_them(digits, hold, nested):
    chain = A.Compose([A.GaussNoise(p=1.0)])
    dataset = Holding(hold(chain), chain, digits)
    dataset = Subset(dataset, range(8)) if nested else dataset
    found = streams(
        epochs(dataset, 1, multiprocessing_context="fork", worker_init_fn=worker_init_fn)
    )
    assert len(set(found)) == len(found) == 2

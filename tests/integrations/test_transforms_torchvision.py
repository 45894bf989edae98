"""VAEMix and LatentAugment, tested as torchvision tests its own transforms."""

import dataclasses
import pickle
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

import vaeaug
from vaeaug.generator import ClassMover
from vaeaug.integrations import LatentAugment, TransformError, VAEMix

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def batch(digits):
    rows = np.random.default_rng(0).permutation(len(digits))[:24]
    return (
        torch.from_numpy(digits.images[rows]).movedim(-1, 1).contiguous(),
        torch.from_numpy(digits.labels[rows]),
    )


def changed_rows(one, two):
    return (one != two).flatten(1).any(dim=1)


# --- VAEMix


@pytest.mark.parametrize("make", [torch.Tensor.clone, tv_tensors.Image])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("device", DEVICES)
def test_mix_keeps_type_shape_labels_and_the_other_rows(synthesizer, batch, make, dtype, device):
    images, labels = batch
    images = make(v2.functional.to_dtype(images, dtype, scale=True).to(device))
    labels = labels.to(device)
    torch.manual_seed(0)
    mixed, same = VAEMix(synthesizer, share=0.5)(images, labels)
    assert type(mixed) is type(images)
    assert (mixed.dtype, mixed.shape, mixed.device) == (images.dtype, images.shape, images.device)
    assert same is labels
    torch.manual_seed(0)
    rows = VAEMix(synthesizer, share=0.5).make_params([images])["rows"]
    changed = changed_rows(mixed, images).cpu()
    assert torch.equal(changed, rows)
    assert 0 < int(rows.sum()) < len(rows)
    synthesizer.to("cpu")


def test_mixed_samples_are_of_the_label(synthesizer, batch, digits):
    """A classifier of the real images knows them as what they are labelled."""
    from sklearn.neighbors import KNeighborsClassifier

    whole = vaeaug.read("digits")
    classifier = KNeighborsClassifier(3).fit(whole.images.reshape(len(whole), -1), whole.labels)
    torch.manual_seed(0)
    images, labels = batch[0].repeat(20, 1, 1, 1), batch[1].repeat(20)
    mixed, _ = VAEMix(synthesizer, share=1.0)(images, labels)
    right = classifier.predict(mixed.flatten(1).numpy()) == labels.numpy()
    assert right.mean() > 0.6  # 0.1 is chance; the generator had 120 steps


def test_the_share_is_kept_on_average(synthesizer):
    images = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    torch.manual_seed(1)
    mix = VAEMix(synthesizer, share=0.3)
    rows = mix.make_params([images])["rows"]
    # Five standard errors of a binomial share.
    assert abs(rows.double().mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 4000)


def test_p_is_of_whole_batches(synthesizer, batch):
    mix = VAEMix(synthesizer, p=0.5, share=1.0)
    torch.manual_seed(0)
    mixed = [mix(*batch) for _ in range(40)]
    whole = [bool(changed_rows(images, batch[0]).all()) for images, _ in mixed]
    untouched = [images is batch[0] for images, _ in mixed]
    assert all(a != b for a, b in zip(whole, untouched, strict=True))
    assert 8 <= sum(whole) <= 32  # within 3.8 standard deviations of 20


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_mixed_is_the_same_object(synthesizer, batch, p):
    sample = (*batch, "text", {"more": 1})
    out = VAEMix(synthesizer, p=p, share=0.0 if p else 1.0)(sample)
    assert out is sample


def test_other_entries_pass_through_as_the_same_objects(synthesizer, batch):
    more = {"path": "a.png", "weight": object(), "number": torch.arange(24)}
    images, labels, out = VAEMix(synthesizer, share=0.5)(*batch, more)
    assert images is not batch[0]
    assert labels is batch[1]
    assert all(out[key] is more[key] for key in more)


def test_it_is_reproducible_by_torchs_seed(synthesizer, batch):
    mix = VAEMix(synthesizer, share=0.5)
    outs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        np.random.seed(len(outs))  # noqa: NPY002 - numpy's global state must not matter
        outs.append(mix(*batch)[0])
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_transform_draws_nothing(synthesizer, batch):
    mix = VAEMix(synthesizer, share=0.5)
    params = mix.make_params([batch[0]])
    params |= {"labels": batch[1], "classes": batch[1]}
    state = torch.get_rng_state()
    one, two = (mix.transform(batch[0], params) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(state, torch.get_rng_state())


def test_probabilities_are_drawn_from_and_become_certain(synthesizer, batch):
    images = batch[0][:1].repeat(2000, 1, 1, 1)
    labels = torch.zeros(2000, 10)
    labels[:, 3], labels[:, 7] = 0.25, 0.75
    torch.manual_seed(0)
    mixed, out = VAEMix(synthesizer, share=0.5)(images, labels)
    changed = changed_rows(mixed, images)
    assert torch.equal(out[~changed], labels[~changed])
    assert set(out[changed].argmax(dim=1).tolist()) == {3, 7}
    assert torch.equal(out[changed].max(dim=1).values, torch.ones(int(changed.sum())))
    share = float(out[changed][:, 7].mean())
    assert abs(share - 0.75) < 5 * np.sqrt(0.75 * 0.25 / int(changed.sum()))


@pytest.mark.parametrize("other", [v2.MixUp, v2.CutMix])
def test_it_composes_with_torchvisions(synthesizer, batch, other):
    chain = v2.Compose([VAEMix(synthesizer, share=0.5), other(num_classes=10)])
    images, labels = chain(v2.functional.to_dtype(batch[0], torch.float32, scale=True), batch[1])
    assert images.shape == batch[0].shape
    assert labels.shape == (24, 10)
    assert torch.allclose(labels.sum(dim=1), torch.ones(24))


def test_a_choice_between_batch_transforms(synthesizer, batch):
    choice = v2.RandomChoice([VAEMix(synthesizer), v2.MixUp(num_classes=10)])
    images, _ = choice(v2.functional.to_dtype(batch[0], torch.float32, scale=True), batch[1])
    assert images.shape == batch[0].shape


def second(sample):
    return sample["what"]["kind"]


def test_the_labels_getter_finds_them(synthesizer, batch):
    sample = {"picture": batch[0], "what": {"kind": batch[1], "n": 3}}
    out = VAEMix(synthesizer, share=0.5, labels_getter=second)(sample)
    assert out["what"]["kind"] is batch[1]
    assert changed_rows(out["picture"], batch[0]).any()


@pytest.mark.parametrize("key", ["label", "labels", "target", "targets", "class", "Category"])
def test_labels_are_found_by_their_usual_names(synthesizer, batch, key):
    out = VAEMix(synthesizer, share=0.5)({"image": batch[0], key: batch[1]})
    assert changed_rows(out["image"], batch[0]).any()


def test_labels_of_another_order_are_mapped_by_name(synthesizer, batch):
    names = synthesizer.class_names[::-1]
    reversed_labels = len(names) - 1 - batch[1]
    torch.manual_seed(0)
    plain, _ = VAEMix(synthesizer, share=0.5)(*batch)
    torch.manual_seed(0)
    by_name, _ = VAEMix(synthesizer, share=0.5, class_names=names)(batch[0], reversed_labels)
    assert torch.equal(plain, by_name)


def test_a_generator_with_its_images_keeps_their_detail(synthesizer, digits, batch):
    """Residual edits are nearer to real images than decoded draws, which are blurred."""
    own = pickle.loads(pickle.dumps(synthesizer)).attach(digits)  # noqa: S301
    distance = {}
    real = torch.from_numpy(digits.images).movedim(-1, 1).flatten(1).float()
    for name, generator in (("plain", synthesizer), ("attached", own)):
        torch.manual_seed(0)
        mixed, _ = VAEMix(generator, share=1.0)(*batch)
        distance[name] = torch.cdist(mixed.flatten(1).float(), real).min(dim=1).values.mean()
    assert distance["attached"] < distance["plain"]


def test_it_works_in_a_collate_function_of_workers(synthesizer, batch):
    items = list(zip(*batch, strict=True))
    loader = DataLoader(
        items,
        batch_size=8,
        num_workers=2,
        multiprocessing_context="fork",
        collate_fn=MixedCollate(VAEMix(synthesizer, share=1.0)),
    )
    for number, (images, labels) in enumerate(loader):
        own = slice(8 * number, 8 * number + 8)
        assert torch.equal(labels, batch[1][own])
        assert changed_rows(images, batch[0][own]).all()


@dataclasses.dataclass
class MixedCollate:
    """torchvision's recipe: collate, then mix."""

    mix: VAEMix

    def __call__(self, items):
        return self.mix(*default_collate(items))


# --- LatentAugment


def as_kind(image, kind):
    if kind == "pil":
        return PIL.Image.fromarray(image.squeeze(0).numpy())
    if kind == "tv":
        return tv_tensors.Image(image)
    return image if kind == "uint8" else v2.functional.to_dtype(image, torch.float32, scale=True)


def values(image):
    if isinstance(image, PIL.Image.Image):
        return np.asarray(image)
    return image.numpy()


@pytest.mark.parametrize("kind", ["uint8", "float", "tv", "pil"])
def test_augment_keeps_type_shape_and_label(synthesizer, batch, kind):
    image, label = as_kind(batch[0][0], kind), int(batch[1][0])
    torch.manual_seed(0)
    out, same = LatentAugment(synthesizer, p=1.0)(image, label)
    assert type(out) is type(image)
    assert same is label
    assert values(out).shape == values(image).shape
    assert values(out).dtype == values(image).dtype
    assert not np.array_equal(values(out), values(image))


@pytest.mark.parametrize("kind", ["uint8", "float", "tv"])
def test_augment_takes_batches(synthesizer, batch, kind):
    images = as_kind(batch[0], kind)
    torch.manual_seed(0)
    out, labels = LatentAugment(synthesizer, p=0.5)(images, batch[1])
    assert type(out) is type(images)
    assert labels is batch[1]
    torch.manual_seed(0)
    rows = LatentAugment(synthesizer, p=0.5).make_params([images])["rows"]
    assert torch.equal(changed_rows(out, images), rows)


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_of_a_batch_is_what_it_is_alone(synthesizer, batch, device):
    augment = LatentAugment(synthesizer, p=1.0)
    images = v2.functional.to_dtype(batch[0], torch.float32, scale=True).to(device)
    params = augment.make_params([images]) | {"labels": batch[1]}
    together = augment.transform(images, params)
    for row in (0, 7, 23):
        own = {
            **{key: params[key][row : row + 1] for key in ("rows", "uniform", "noise")},
            "labels": batch[1][row],
        }
        alone = augment.transform(images[row], own)
        assert torch.allclose(alone, together[row], atol=1e-5)
    synthesizer.to("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_what_the_cpu_gives(synthesizer, batch):
    augment = LatentAugment(synthesizer, p=1.0)
    images = v2.functional.to_dtype(batch[0], torch.float32, scale=True)
    params = augment.make_params([images]) | {"labels": batch[1]}
    there = augment.transform(images.cuda(), params).cpu()
    synthesizer.to("cpu")
    assert torch.allclose(augment.transform(images, params), there, atol=1e-3)


def test_more_strength_moves_farther_and_none_leaves_it(synthesizer, batch):
    images = v2.functional.to_dtype(batch[0], torch.float32, scale=True)
    moved = []
    for strength in (0.0, 0.3, 0.9):
        torch.manual_seed(0)
        out, _ = LatentAugment(synthesizer, strength, p=1.0)(images, batch[1])
        moved.append(float((out - images).abs().mean()))
    assert moved[0] < 1e-6
    assert 0.0 < moved[1] < moved[2]


def test_an_edit_keeps_detail_that_a_reconstruction_loses(synthesizer, batch):
    images = v2.functional.to_dtype(batch[0], torch.float32, scale=True)
    far = {}
    for residual in (True, False):
        torch.manual_seed(0)
        out, _ = LatentAugment(synthesizer, 0.3, p=1.0, residual=residual)(images, batch[1])
        far[residual] = float((out - images).square().mean())
    assert far[True] < far[False]


def test_moved_images_stay_in_their_class(synthesizer, digits):
    from sklearn.neighbors import KNeighborsClassifier

    whole = vaeaug.read("digits")
    classifier = KNeighborsClassifier(3).fit(whole.images.reshape(len(whole), -1), whole.labels)
    images, labels = torch.from_numpy(digits.images).movedim(-1, 1), torch.from_numpy(digits.labels)
    torch.manual_seed(0)
    moved, _ = LatentAugment(synthesizer, p=1.0)(images, labels)
    right = classifier.predict(moved.flatten(1).numpy()) == digits.labels
    assert right.mean() > 0.9


@pytest.mark.parametrize(("place", "rank"), [(0.0, 1), (0.999, 20)])
def test_a_training_image_moves_towards_a_neighbour_of_its_own(synthesizer, digits, place, rank):
    """The nearest is the image itself: the choice goes from the next one to the twentieth after."""
    rows = np.flatnonzero(digits.labels == 0)
    own, n = synthesizer.means[rows], len(rows)
    order = np.argsort(np.square(own[:, None] - own[None]).sum(axis=2), axis=1, kind="stable")
    assert np.array_equal(order[:, 0], np.arange(n))
    x = torch.from_numpy(digits.images[rows]).movedim(-1, 1).float() / 255
    y = torch.zeros(n, dtype=torch.long)
    moved = ClassMover(synthesizer).move(
        x,
        y,
        uniform=torch.tensor([[place, 0.5]]).expand(n, 2),
        noise=torch.full((n, own.shape[1]), torch.nan),
        strength=0.8,
    )
    target = 0.4 * own + 0.6 * own[order[:, rank]]
    with torch.no_grad():
        decode = synthesizer.model.decode
        wanted = x + decode(torch.from_numpy(target), y) - decode(torch.from_numpy(own), y)
    assert torch.allclose(moved, wanted.clamp(0, 1), atol=1e-4)


def test_without_a_label_the_likeliest_class_is_taken(synthesizer, batch):
    images = batch[0]
    torch.manual_seed(0)
    alone = LatentAugment(synthesizer, p=1.0)(images)
    found = synthesizer.likeliest_labels(images.movedim(1, -1).numpy())
    torch.manual_seed(0)
    labelled, _ = LatentAugment(synthesizer, p=1.0)(images, torch.from_numpy(found))
    # A bound of images that came through floats may differ in its last digits.
    assert changed_rows(alone, labelled).double().mean() < 0.1


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_what_is_no_image_passes_through_as_the_same_object(synthesizer, batch, p):
    more = ["text", 3.5, object(), None, torch.arange(4), np.zeros(3)]
    sample = (batch[0][0], int(batch[1][0]), more)
    out = LatentAugment(synthesizer, p=p)(sample)
    assert all(a is b for a, b in zip(out[2], more, strict=True))
    assert (out[0] is sample[0]) == (p == 0)


@pytest.mark.parametrize("sample", ["text", {"a": 1}, (None, 3), 7])
def test_a_sample_without_an_image_is_the_same_object(synthesizer, sample):
    assert LatentAugment(synthesizer, p=1.0)(sample) is sample


def test_transforms_of_a_dataset_of_images(synthesizer, batch):
    chain = v2.Compose(
        [
            LatentAugment(synthesizer, p=1.0),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5], [0.5]),
        ]
    )
    image, label = chain(as_kind(batch[0][0], "pil"), int(batch[1][0]))
    assert isinstance(image, tv_tensors.Image)
    assert image.shape == (1, 8, 8)
    assert float(image.min()) >= -1
    assert label == int(batch[1][0])


def test_volumes_and_video(digits):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 12)
    clips = rng.integers(0, 256, (24, 4, 8, 8, 1), dtype=np.uint8)
    data = vaeaug.LabelledImages(clips, labels, ("a", "b"), (0, 255))
    keys = ["model.width=8", "training.steps=2", "training.adapt_steps=1"]
    generator = vaeaug.fit(data, vaeaug.load_config(None, keys), device="cpu")
    volume = torch.from_numpy(clips[0]).movedim(-1, 0)  # (C, T, H, W)
    torch.manual_seed(0)
    moved, _ = LatentAugment(generator, p=1.0)(volume, 0)
    torch.manual_seed(0)
    video = tv_tensors.Video(volume.movedim(0, 1))  # (T, C, H, W)
    as_video, _ = LatentAugment(generator, p=1.0)(video, 0)
    assert isinstance(as_video, tv_tensors.Video)
    assert torch.equal(as_video.as_subclass(torch.Tensor).movedim(1, 0), moved)
    mixed, _ = VAEMix(generator, share=1.0)(volume[None], torch.tensor([1]))
    assert mixed.shape == volume[None].shape


# --- both


def transforms_of(source):
    return [VAEMix(source, share=0.5), LatentAugment(source, p=0.5)]


@pytest.mark.parametrize("which", [0, 1])
def test_pickled_it_gives_the_same(synthesizer, batch, which):
    transform = transforms_of(synthesizer)[which]
    again = pickle.loads(pickle.dumps(transform))  # noqa: S301
    outs = []
    for each in (transform, again):
        torch.manual_seed(0)
        outs.append(each(*batch)[0])
    assert torch.equal(*outs)
    assert repr(transform) == repr(again)


@pytest.mark.parametrize("which", [0, 1])
def test_a_folder_is_as_good_as_the_generator_and_pickles_small(finished, batch, which):
    at_hand = vaeaug.load(finished.out_dir)
    lazy = transforms_of(finished.out_dir)[which]
    outs = []
    for each in (transforms_of(at_hand)[which], lazy):
        torch.manual_seed(0)
        outs.append(each(*batch)[0])
    assert torch.equal(*outs)
    assert len(pickle.dumps(lazy)) < 3000


def test_a_folder_that_changed_is_refused(finished, batch, tmp_path):
    generator = vaeaug.load(finished.out_dir)
    generator.save(tmp_path / "model")
    transform = LatentAugment(tmp_path / "model", p=1.0)
    generator.latents = dataclasses.replace(
        generator.latents, means=generator.means + 1, _neighbours={}
    )
    generator.save(tmp_path / "model")
    with pytest.raises(TransformError, match="expected the generator of hash"):
        transform(*batch)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "what",
    [
        tv_tensors.BoundingBoxes([[0, 0, 2, 2]], format="XYXY", canvas_size=(8, 8)),
        tv_tensors.Mask(torch.zeros(8, 8, dtype=torch.uint8)),
        tv_tensors.KeyPoints([[1, 1]], canvas_size=(8, 8)),
    ],
)
def test_places_in_an_image_are_refused(synthesizer, batch, which, what):
    with pytest.raises(TransformError, match=f"images and labels, got {type(what).__name__}"):
        transforms_of(synthesizer)[which]((*batch, what))


class OnMeta(Dataset):
    """A dataset whose transform's generator is on an accelerator; "meta" stands for one here."""

    def __init__(self, transform, images, labels):
        self.transform, self.images, self.labels = transform, images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i : i + 1], self.labels[i : i + 1])


@pytest.mark.parametrize("which", [0, 1])
def test_an_accelerator_in_a_worker_is_refused_with_advice(synthesizer, batch, which):
    device = "cuda" if torch.cuda.is_available() else "meta"
    there = pickle.loads(pickle.dumps(synthesizer)).to(device)  # noqa: S301
    loader = DataLoader(
        OnMeta(transforms_of(there)[which], *batch),
        num_workers=1,
        multiprocessing_context="fork",
    )
    with pytest.raises(TransformError, match=r"in worker process 0.*after the loader.*to\('cpu'\)"):
        list(loader)


def test_an_accelerator_is_not_handed_to_a_spawned_worker(synthesizer, batch):
    device = "cuda" if torch.cuda.is_available() else "meta"
    there = pickle.loads(pickle.dumps(synthesizer)).to(device)  # noqa: S301
    loader = DataLoader(
        OnMeta(VAEMix(there), *batch), num_workers=1, multiprocessing_context="spawn"
    )
    with pytest.raises(TransformError, match=r"handed to a worker process.*after the loader"):
        iter(loader)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: VAEMix(g, p=1.5), "p: expected a number from 0 to 1, got 1.5"),
        (lambda g: VAEMix(g, share=-1), "share: expected a number from 0 to 1"),
        (lambda g: VAEMix(g, sampler="transfer"), "neither transfer nor blend"),
        (lambda g: VAEMix(g, temperature=float("nan")), "temperature: expected at least 0"),
        (lambda g: VAEMix(g, labels_getter="mine"), "labels_getter: expected a function"),
        (lambda g: LatentAugment(g, strength=2), "strength: expected a number from 0 to 1"),
        (lambda g: LatentAugment("nowhere"), r"config\.json, .* is missing"),
    ],
)
def test_wrong_arguments_are_refused(synthesizer, make, message):
    with pytest.raises(TransformError, match=message):
        make(synthesizer)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (lambda x, y: (x, y + 10), "labels: expected 0 to 9, got 1"),
        (lambda x, y: (x, y[:3]), "a label for each image"),
        (lambda x, y: (x, 3), "expected labels as a tensor"),
        (lambda x, y: x, "expected labels as a tensor"),
        (lambda x, y: (x[:, :, :7], y), r"shape \(1, 8, 8\), channels first.* got \(1, 7, 8\)"),
        (lambda x, y: (x.int(), y), "uint8 or floating-point images, got torch.int32"),
        (lambda x, y: (x, torch.full((24, 10), -1.0)), "probabilities of at least 0"),
        (lambda x, y: (x, torch.full((24, 9), 1 / 9)), r"\(n, 10\), got .* shape \(24, 9\)"),
        (lambda x, y: (x, torch.full((24, 1), 1.0)), r"\(n, 10\), got .* shape \(24, 1\)"),
        (lambda x, y: (x, y.float()), r"got torch.float32 of shape \(24,\)"),
        (lambda x, y: (x.float(), y), "expected values from 0 to 1, got 0 to 255.*value_range"),
        (lambda x, y: (x / 255 * 2 - 1, y), "from 0 to 1, got -1 to 1; apply it before Normalize"),
    ],
)
def test_batches_that_cannot_be_mixed_are_refused(synthesizer, batch, sample, message):
    with pytest.raises(TransformError, match=message):
        VAEMix(synthesizer, share=1.0)(sample(*batch))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (lambda x, y: (x.float(), y), "expected values from 0 to 1.*before Normalize"),
        (lambda x, y: (x[0, 0], 3), "an image of 3 axes or a batch of 4"),
        (lambda x, y: (x, y[:3]), "expected 24 class indices"),
        (lambda x, y: (x, torch.full((24, 10), 0.1)), "apply it before labels are mixed"),
        (lambda x, y: (PIL.Image.new("I;16", (8, 8)), 3), "mode L, RGB or RGBA, got I;16"),
        (lambda x, y: (PIL.Image.new("RGB", (8, 8)), 3), r"expected images of shape \(1, 8, 8\)"),
    ],
)
def test_images_that_cannot_be_moved_are_refused(synthesizer, batch, sample, message):
    with pytest.raises(TransformError, match=message):
        LatentAugment(synthesizer, p=1.0)(sample(*batch))


def test_another_value_range_may_be_said(synthesizer, batch):
    augment = LatentAugment(synthesizer, p=1.0, value_range=(0, 255))
    torch.manual_seed(0)
    out, _ = augment(batch[0].float(), batch[1])
    torch.manual_seed(0)
    plain, _ = LatentAugment(synthesizer, p=1.0)(batch[0], batch[1])
    assert torch.allclose(out, plain.float(), atol=0.51)


def test_labels_of_one_column_are_class_indices(synthesizer, batch):
    images, labels = batch
    torch.manual_seed(0)
    flat, _ = VAEMix(synthesizer, share=1.0)(images, labels)
    torch.manual_seed(0)
    column = labels[:, None]
    mixed, same = VAEMix(synthesizer, share=1.0)(images, column)
    assert same is column
    assert torch.equal(mixed, flat)
    torch.manual_seed(0)
    moved, _ = LatentAugment(synthesizer, p=1.0)(images, labels)
    for given in (column, labels.numpy(), column.numpy()):
        torch.manual_seed(0)
        assert torch.equal(LatentAugment(synthesizer, p=1.0)(images, given)[0], moved)


def test_samples_are_in_the_range_that_is_said(synthesizer, batch):
    images, labels = batch
    torch.manual_seed(0)
    plain, _ = VAEMix(synthesizer, share=1.0)(images, labels)
    for low, high in ((-1.0, 1.0), (0.0, 255.0)):
        torch.manual_seed(0)
        scaled = images / 255 * (high - low) + low
        mixed, _ = VAEMix(synthesizer, share=1.0, value_range=(low, high))(scaled, labels)
        back = (mixed - low) / (high - low) * 255
        assert torch.allclose(back, plain.float(), atol=0.51)


@pytest.mark.parametrize("kind", [VAEMix, LatentAugment])
def test_the_verdict_of_a_run_is_said(finished, tmp_path, kind):
    shutil.copytree(finished.out_dir, tmp_path / "run")
    gate = {"verdict": "does not help", "sentence": "-2 points."}
    dataclasses.replace(finished.manifest, gate=gate).save(tmp_path / "run")
    with pytest.warns(UserWarning, match=r"the evaluation found: -2 points\.") as seen:
        kind(tmp_path / "run")
    assert seen[0].filename == __file__

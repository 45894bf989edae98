import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.config import ConfigError
from vaeaug.generator import SamplingError
from vaeaug.training import train

KEYS = {
    "training.steps": 20,
    "training.adapt_steps": 4,
    "training.learning_rate": 0.002,
    "training.label_swap": 20.0,
    "model.width": 8,
    "semi_supervised.classifier_steps": 20,
    "restoration.steps": 20,
    "restoration.width": 8,
}


def of_classes(digits, classes):
    rows = np.flatnonzero(np.isin(digits.labels, classes))
    chosen = digits.subset(rows)
    return vaeaug.LabelledImages(
        chosen.images,
        chosen.labels - min(classes),
        digits.class_names[min(classes) : max(classes) + 1],
        digits.value_range,
    )


@pytest.fixture(scope="module")
def source(digits, tmp_path_factory):
    """A generator of the digits 0 to 4, in a folder."""
    folder = tmp_path_factory.mktemp("source") / "model"
    data = of_classes(digits, range(5))
    vaeaug.fit(data, KEYS | {"training.steps": 150}, device="cpu", progress=False).save(folder)
    return folder


def test_other_classes_start_from_what_all_share(digits, source):
    data = of_classes(digits, range(5, 10))
    keys = KEYS | {"training.steps": 1, "training.learning_rate": 1e-12, "restoration.steps": 1}
    keys |= {"restoration.learning_rate": 1e-12, "training.init": str(source)}
    generator = vaeaug.fit(data, keys, device="cpu", progress=False)
    start = vaeaug.load(source)
    shared = generator.model.trunk_parameters()
    assert generator.class_names == ("5", "6", "7", "8", "9")
    assert generator.notes[-1] == f"started from {source}, data {start.data_fingerprint[:12]}"
    for name, parameter in start.model.trunk_parameters().items():
        torch.testing.assert_close(shared[name], parameter, rtol=0, atol=1e-6)
    ours, theirs = (dict(g.restorer.named_parameters()) for g in (generator, start))
    for name, parameter in theirs.items():
        torch.testing.assert_close(ours[name], parameter, rtol=0, atol=1e-6)


def test_it_learns_faster_than_from_nothing(digits, source):
    data, config = of_classes(digits, range(5, 10)), vaeaug.AugmentConfig().changed(**KEYS)
    scores = [
        train(data, config, device="cpu", start=start).stages["trunk"].best[0]
        for start in (None, vaeaug.load(source).model)
    ]
    assert scores[1] > scores[0] + 5  # nats


def test_discrete_models_start_from_others_too(digits):
    keys = KEYS | {"model.latent": "discrete", "training.steps": 1, "training.learning_rate": 1e-12}
    config, models = vaeaug.AugmentConfig().changed(**keys), []
    for classes in (range(5), range(4, 10)):
        start = models[-1] if models else None
        data = of_classes(digits, classes)
        models.append(train(data, config, device="cpu", start=start).model)
    first, second = (model.trunk_parameters() for model in models)
    for name, parameter in first.items():
        torch.testing.assert_close(second[name], parameter, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"model.width": 16}, ConfigError, r"training\.init .*model: expected width 16, got 8"),
        ({"model.grouping": "separate"}, ConfigError, "grouping shared or adapted"),
        ({"training.init": "nowhere"}, SamplingError, "nowhere"),
    ],
)
def test_what_cannot_be_started_from_is_refused(digits, source, keys, error, message):
    data = of_classes(digits, range(5, 10))
    keys = KEYS | {"training.init": str(source)} | keys
    with pytest.raises(error, match=message):
        vaeaug.fit(data, keys, device="cpu", progress=False)

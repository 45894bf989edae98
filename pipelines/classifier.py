"""The small classifier that the recipes train, how it is trained and how it is scored.

Nothing here knows of vaeaug beyond `LabelledImages`; put a network of your own in its place.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, WeightedRandomSampler
from torchvision.transforms import v2

import vaeaug

BATCH = 128
# Convolution, batch norm and pooling by the number of axes in space.
LAYERS = {
    1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d),
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d),
}


class Unit(nn.Module):
    """Values of a range to [0, 1]."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images: Tensor) -> Tensor:
        """The same in other units."""
        return (images - self.low) / (self.high - self.low)


def classic_augmentation(image_shape: Sequence[int]) -> nn.Module:
    """A flip and a shift of up to two pixels, of each image by itself."""
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(image_shape[:2], padding=2)])


def small_cnn(
    image_shape: Sequence[int], n_classes: int, value_range: tuple[float, float] = (0, 255)
) -> nn.Module:
    """Three convolutions with batch norm and a linear layer, for signals and images.

    Args:
        image_shape: Axes in space, of 8 values and more, then channels.
        n_classes: Number of classes.
        value_range: Lowest and highest value of the images.
    """
    *space, channels = image_shape
    conv, norm, pool = LAYERS[len(space)]

    def stage(n_in: int, n_out: int, stride: int = 1) -> list[nn.Module]:
        return [conv(n_in, n_out, 3, stride, padding=1, bias=False), norm(n_out), nn.ReLU()]

    return nn.Sequential(
        Unit(*value_range),
        *stage(channels, 16, stride=2),
        *stage(16, 32),
        pool(2),
        *stage(32, 64),
        pool(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * math.prod(-(-n // 2) // 2 // 2 for n in space), n_classes),
    )


def train(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, steps: int, lr: float = 2e-3
) -> nn.Module:
    """One step of AdamW for each of `steps` batches; labels are indices or probabilities."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    model.train()
    for images, labels in batches:
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def train_classifier(
    dataset: Dataset,
    n_classes: int,
    *,
    steps: int,
    seed: int,
    lr: float = 2e-3,
    value_range: tuple[float, float] = (0, 255),
) -> nn.Module:
    """Train on `dataset`, whose slots are already balanced over the classes."""
    torch.manual_seed(seed)
    channels, *space = dataset[0][0].shape
    model = small_cnn((*space, channels), n_classes, value_range)
    sampler = RandomSampler(dataset, replacement=True, num_samples=BATCH * steps)
    return train(model, DataLoader(dataset, BATCH, sampler=sampler), steps=steps, lr=lr)


def class_balanced(labels: np.ndarray, n: int) -> WeightedRandomSampler:
    """Draws n rows, every class equally often."""
    return WeightedRandomSampler(torch.from_numpy(1 / np.bincount(labels)[labels]), n)


@torch.no_grad()
def recalls(model: nn.Module, test: vaeaug.LabelledImages) -> np.ndarray:
    """Recall of each class on real test images."""
    images = torch.from_numpy(test.images).movedim(-1, 1)
    predicted = np.concatenate([model(x).argmax(1).numpy() for x in images.split(500)])
    return np.array([(predicted[test.labels == c] == c).mean() for c in range(test.n_classes)])

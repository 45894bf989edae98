"""Real and synthetic images together, for a trainer."""

from vaeaug.merging._collate import MergedBatch, collate
from vaeaug.merging._dataset import MergedDataset, MergedItem
from vaeaug.merging._merge import DEFAULT_SHARE, merge
from vaeaug.merging._sampler import BalancedSampler
from vaeaug.merging._slots import MergeError, Share, rare_classes
from vaeaug.merging._write import write_merged

__all__ = [
    "DEFAULT_SHARE",
    "BalancedSampler",
    "MergeError",
    "MergedBatch",
    "MergedDataset",
    "MergedItem",
    "Share",
    "collate",
    "merge",
    "rare_classes",
    "write_merged",
]

"""Merging: real and synthetic images as one dataset for a trainer."""

from vaeaug.merging._balanced_sampler import BalancedSampler
from vaeaug.merging._collate import MergedBatch, collate
from vaeaug.merging._merge import counts_of_run, merge
from vaeaug.merging._merged_dataset import MergedDataset, MergedItem
from vaeaug.merging._real import channels_last
from vaeaug.merging._slots import (
    DEFAULT_SHARE,
    Balance,
    ClassCounts,
    MergeError,
    Share,
)
from vaeaug.merging._write import counts_of_file, is_merged, write_merged
from vaeaug.strata import rare_classes

__all__ = [
    "DEFAULT_SHARE",
    "Balance",
    "BalancedSampler",
    "ClassCounts",
    "MergeError",
    "MergedBatch",
    "MergedDataset",
    "MergedItem",
    "Share",
    "channels_last",
    "collate",
    "counts_of_file",
    "counts_of_run",
    "is_merged",
    "merge",
    "rare_classes",
    "write_merged",
]

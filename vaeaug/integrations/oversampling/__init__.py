"""Oversampling in imbalanced-learn's manner: tables, images, signals and volumes as arrays.

What a job does with files, `VAEOverSampler` does with arrays in memory, within a `Pipeline`. Tables
go through the dense network, arrays of more axes through the convolutional one.
"""

from vaeaug.integrations.oversampling._estimator import VAEOverSampler

__all__ = ["VAEOverSampler"]

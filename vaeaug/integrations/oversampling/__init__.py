"""Oversampling with imbalanced-learn's interface: tables, images, signals and volumes as arrays.

`VAEOverSampler` does for arrays in memory what a job does for files, and works in a `Pipeline`. It
uses the dense network for tables and the convolutional one for arrays with more axes.
"""

from vaeaug.integrations.oversampling._estimator import VAEOverSampler

__all__ = ["VAEOverSampler"]

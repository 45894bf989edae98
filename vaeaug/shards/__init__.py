"""The on-disk format of synthetic data: HDF5 shards and the manifest that publishes them.

``docs/shard-format.md`` specifies the format. h5py is loaded when a shard is first written
or read, not when this package is imported.
"""

from vaeaug.shards._format import (
    FormatVersionError,
    ShardError,
    ShardProvenance,
    library_versions,
    write_attributes,
)
from vaeaug.shards._hdf5_output import publish_bytes, published_hdf5, sha256_file
from vaeaug.shards._images import write_images
from vaeaug.shards._manifest import ClassEntry, Generation, Manifest, ShardEntry, read_class
from vaeaug.shards._reader import Shard
from vaeaug.shards._shard_dataset import ShardDataset
from vaeaug.shards._verdict import described_run, how_to_evaluate, warn_if_unhelpful
from vaeaug.shards._verify import Problem, VerifyReport, verify
from vaeaug.shards._writer import ShardWriter

__all__ = [
    "ClassEntry",
    "FormatVersionError",
    "Generation",
    "Manifest",
    "Problem",
    "Shard",
    "ShardDataset",
    "ShardEntry",
    "ShardError",
    "ShardProvenance",
    "ShardWriter",
    "VerifyReport",
    "described_run",
    "how_to_evaluate",
    "library_versions",
    "publish_bytes",
    "published_hdf5",
    "read_class",
    "sha256_file",
    "verify",
    "warn_if_unhelpful",
    "write_attributes",
    "write_images",
]

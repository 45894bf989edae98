"""The on-disk format of synthetic data: HDF5 shards and the manifest that publishes them.

``docs/shard-format.md`` specifies the format. h5py is loaded when a shard is first written
or read, not when this package is imported.
"""

from vaeaug.shards._excluded import LIST_NAME, kept_rows, read_list, save_list, with_excluded
from vaeaug.shards._extra import EXCLUDED
from vaeaug.shards._format import (
    NEXT_FOLDER,
    SHARDS_FOLDER,
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
from vaeaug.shards._rejected import RejectedSamples, read_rejected, write_rejected
from vaeaug.shards._remote import GENERATOR, Pushed, fetch, push
from vaeaug.shards._shard_dataset import ShardDataset
from vaeaug.shards._verdict import described_run, how_to_evaluate, warn_if_unhelpful
from vaeaug.shards._verify import Problem, VerifyReport, verify
from vaeaug.shards._writer import ShardWriter, renumber, shard_name

__all__ = [
    "EXCLUDED",
    "GENERATOR",
    "LIST_NAME",
    "NEXT_FOLDER",
    "SHARDS_FOLDER",
    "ClassEntry",
    "FormatVersionError",
    "Generation",
    "Manifest",
    "Problem",
    "Pushed",
    "RejectedSamples",
    "Shard",
    "ShardDataset",
    "ShardEntry",
    "ShardError",
    "ShardProvenance",
    "ShardWriter",
    "VerifyReport",
    "described_run",
    "fetch",
    "how_to_evaluate",
    "kept_rows",
    "library_versions",
    "publish_bytes",
    "published_hdf5",
    "push",
    "read_class",
    "read_list",
    "read_rejected",
    "renumber",
    "save_list",
    "sha256_file",
    "shard_name",
    "verify",
    "warn_if_unhelpful",
    "with_excluded",
    "write_attributes",
    "write_images",
    "write_rejected",
]

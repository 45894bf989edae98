"""Reading: whatever the user has becomes one validated type, `LabelledImages`.

    source -> a reader of `formats` -> raw arrays and what the source states (`finish.RawData`)
           -> `finish` -> `LabelledImages`

The heavy libraries (torch, torchvision, h5py, scikit-learn, Pillow) are imported by the readers
that need them, when they run; importing this package loads numpy only.
"""

from vaeaug.data.checks import DataError
from vaeaug.data.dataset import LabelledImages
from vaeaug.data.layout import channels_last
from vaeaug.data.pool import read_pool
from vaeaug.data.reading import read
from vaeaug.data.settings import read_by, read_configured

__all__ = [
    "DataError",
    "LabelledImages",
    "channels_last",
    "read",
    "read_by",
    "read_configured",
    "read_pool",
]

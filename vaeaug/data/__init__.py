"""Reading: whatever the user has becomes one validated type, `LabelledImages`.

The heavy libraries (torch, torchvision, h5py, scikit-learn, Pillow) are imported by the readers
that need them, when they run; importing this package loads numpy only.
"""

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.layout import channels_last
from vaeaug.data.pool import read_pool
from vaeaug.data.reading import read
from vaeaug.data.settings import read_by

__all__ = ["DataError", "LabelledImages", "channels_last", "read", "read_by", "read_pool"]

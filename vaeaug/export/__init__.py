"""The samples of a run for programs that know nothing of vaeaug.

`vaeaug.read` takes each of these formats back. What they hold is in ``docs/interchange.md``.
"""

from vaeaug.export._export import FORMATS, Exported, export_dataset
from vaeaug.export._samples import ExportError

__all__ = ["FORMATS", "ExportError", "Exported", "export_dataset"]

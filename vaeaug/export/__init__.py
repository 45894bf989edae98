"""Export of the samples of a run in formats of other programs.

`vaeaug.read` reads each of these formats back. ``docs/interchange.md`` describes their content.
"""

from vaeaug.export._export import FORMATS, Exported, export_dataset
from vaeaug.export._samples import ExportError

__all__ = ["FORMATS", "ExportError", "Exported", "export_dataset"]

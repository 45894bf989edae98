"""What a person looks at."""

from vaeaug.report.picture import COLUMNS, MAX_CLASSES, ClassPanel, write_samples
from vaeaug.report.strips import write_strips

__all__ = ["COLUMNS", "MAX_CLASSES", "ClassPanel", "write_samples", "write_strips"]

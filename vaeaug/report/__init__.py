"""What a person looks at."""

from vaeaug.report.picture import COLUMNS, MAX_CLASSES, ClassPanel, write_samples

__all__ = ["COLUMNS", "MAX_CLASSES", "ClassPanel", "write_samples"]

"""`vaeaug studio`: a page on this machine to see every sample of a run and throw some out."""

from vaeaug.studio.collection import Collection, StudioError
from vaeaug.studio.server import Studio

__all__ = ["Collection", "Studio", "StudioError"]

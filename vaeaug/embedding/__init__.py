"""Features of images by a frozen backbone: a data set of vectors that the rest works on as is."""

from vaeaug.embedding.backbones import Backbone, EmbeddingError, load_backbone
from vaeaug.embedding.embed import embed
from vaeaug.embedding.views import Views

__all__ = ["Backbone", "EmbeddingError", "Views", "embed", "load_backbone"]

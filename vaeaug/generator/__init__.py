"""(model, label, seeds) -> samples, whatever the batch, the worker or the device.

Sample i of class c in run r is a function of (r, c, i): a counter-based generator keyed by them
draws the noise on the CPU, and networks run in blocks of a fixed shape that start at fixed
multiples, so that even floating-point rounding does not depend on how many are asked for at once.
"""

from vaeaug.generator.batch import SampleBatch
from vaeaug.generator.codec import BLOCK, SamplingError
from vaeaug.generator.configured import edits_images, keeps_detail, sample_configured
from vaeaug.generator.divided import DRAWING, draws_divided, follow_drawing, sample_divided
from vaeaug.generator.from_data import FROM_DATA
from vaeaug.generator.image_codec import ImageCodec, ImageCodecError, LatentSpace
from vaeaug.generator.live import ClassMover, draw_batch
from vaeaug.generator.samplers import (
    EDITING,
    SAMPLERS,
    SMALL_CLASS,
    WITH_SOURCE,
    sample_generator,
)
from vaeaug.generator.sound_codec import SoundCodec
from vaeaug.generator.storage import FILES
from vaeaug.generator.synthesizer import Synthesizer

__all__ = [
    "BLOCK",
    "DRAWING",
    "EDITING",
    "FILES",
    "FROM_DATA",
    "SAMPLERS",
    "SMALL_CLASS",
    "WITH_SOURCE",
    "ClassMover",
    "ImageCodec",
    "ImageCodecError",
    "LatentSpace",
    "SampleBatch",
    "SamplingError",
    "SoundCodec",
    "Synthesizer",
    "draw_batch",
    "draws_divided",
    "edits_images",
    "follow_drawing",
    "keeps_detail",
    "sample_configured",
    "sample_divided",
    "sample_generator",
]

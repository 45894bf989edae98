"""Do synthetic images, or the generator, give away training images?"""

from vaeaug.evaluation.matching import shared_images
from vaeaug.evaluation.privacy.measure import Privacy, measure_privacy

__all__ = ["Privacy", "measure_privacy", "shared_images"]

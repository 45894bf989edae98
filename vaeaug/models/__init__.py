"""Networks: q(z|x,y), p(x|z,y), the ELBO, and the small classifier that screening asks."""

from vaeaug.models.classifier import SmallClassifier
from vaeaug.models.cvae import CVAE, MIN_SIGMA, ElboTerms
from vaeaug.models.separate import SeparateCVAE

__all__ = ["CVAE", "MIN_SIGMA", "ElboTerms", "SeparateCVAE", "SmallClassifier"]

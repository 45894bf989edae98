"""Networks: q(z|x,y), p(z|y), p(x|z,y), their bounds, the latent flow and classifiers."""

from vaeaug.models.blocks import Geometry, SizeError, fold_space, scale_images, unfold_space
from vaeaug.models.bounds import bits_per_dimension, importance_weighted_bound
from vaeaug.models.classifier import (
    LogSpectrogram,
    SmallClassifier,
    SoundClassifier,
    small_classifier,
)
from vaeaug.models.content import mean_codes
from vaeaug.models.cvae import CVAE, ElboTerms, gaussian_kl, groups_of
from vaeaug.models.discrete import (
    HEAD,
    Codebook,
    CodePrior,
    in_order,
    perplexity,
    random_order,
)
from vaeaug.models.discriminator import Discriminator, feature_distance
from vaeaug.models.flow import LatentFlow
from vaeaug.models.likelihoods import LIKELIHOODS, MIN_SIGMA, make_likelihood, optimal_log_sigma2
from vaeaug.models.networks import latent_groups
from vaeaug.models.precision import exact_float32, is_faster_in_bfloat16
from vaeaug.models.restorer import (
    MAX_NOISE,
    MIN_NOISE,
    NOISE_LEVELS,
    PEAKS,
    Restorer,
    poisson_level,
)
from vaeaug.models.separate import SeparateCVAE
from vaeaug.models.weights import weights_sha256

__all__ = [
    "CVAE",
    "HEAD",
    "LIKELIHOODS",
    "MAX_NOISE",
    "MIN_NOISE",
    "MIN_SIGMA",
    "NOISE_LEVELS",
    "PEAKS",
    "CodePrior",
    "Codebook",
    "Discriminator",
    "ElboTerms",
    "Geometry",
    "LatentFlow",
    "LogSpectrogram",
    "Restorer",
    "SeparateCVAE",
    "SizeError",
    "SmallClassifier",
    "SoundClassifier",
    "bits_per_dimension",
    "exact_float32",
    "feature_distance",
    "fold_space",
    "gaussian_kl",
    "groups_of",
    "importance_weighted_bound",
    "in_order",
    "is_faster_in_bfloat16",
    "latent_groups",
    "make_likelihood",
    "mean_codes",
    "optimal_log_sigma2",
    "perplexity",
    "poisson_level",
    "random_order",
    "scale_images",
    "small_classifier",
    "unfold_space",
    "weights_sha256",
]

"""The report page, the dataset card and the pictures of a run."""

from vaeaug.report.card import write_card
from vaeaug.report.charts import logged_curves
from vaeaug.report.clips import are_clips, gif_bytes
from vaeaug.report.headline import Headline, Outlook, headline, in_points
from vaeaug.report.latent_map import write_latent_map
from vaeaug.report.page import write_report
from vaeaug.report.picture import (
    COLUMNS,
    MAX_CLASSES,
    ClassPanel,
    write_samples,
)
from vaeaug.report.rate_distortion import draw_rate_distortion
from vaeaug.report.sounds import (
    SPECTROGRAM_RANGE,
    as_pictures,
    players,
    spectrogram_panels,
    wav_bytes,
)
from vaeaug.report.strips import write_strips
from vaeaug.tiles import draw_sample

__all__ = [
    "COLUMNS",
    "MAX_CLASSES",
    "SPECTROGRAM_RANGE",
    "ClassPanel",
    "Headline",
    "Outlook",
    "are_clips",
    "as_pictures",
    "draw_rate_distortion",
    "draw_sample",
    "gif_bytes",
    "headline",
    "in_points",
    "logged_curves",
    "players",
    "spectrogram_panels",
    "wav_bytes",
    "write_card",
    "write_latent_map",
    "write_report",
    "write_samples",
    "write_strips",
]

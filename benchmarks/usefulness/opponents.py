"""The arms that our samples meet, each with the grid from which development data choose.

Stage one chooses the classic augmentation; all other arms stand on it. Stage two chooses each arm's
setting. Our samples are an arm among the others, with a grid of the same size.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

Method = Literal["train", "head", "deepsmote", "pool"]
Setting = dict[str, Any]


def grid(**values: list[Any]) -> list[Setting]:
    """Every combination of the values.

    Args:
        **values: Name to values.

    Returns:
        Settings.
    """
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


@dataclass(frozen=True)
class Opponent:
    """A row of the table.

    Attributes:
        method: "train": the network as `small_cnn.Training` says; "head": a new linear layer on
            the features of the classic network; "deepsmote": samples of DeepSMOTE's scheme; "pool":
            our samples.
        grid: Settings to choose from; of "pool" one may have a setting of "head", and the last
            layer is trained again.
        stands: Whether the chosen classic augmentation is beneath it.
        pool: Of "pool": the sampler.
        on_best: Beneath it is the best of the trained opponents.
    """

    method: Method
    grid: list[Setting] = field(default_factory=lambda: [{}])
    stands: bool = True
    pool: str = ""
    on_best: bool = False


_DECAYS = [0.01, 0.1, 1.0, 3.0, 10.0]
# Only classes under the number of the largest are made larger by SMOTE, DeepSMOTE and TailCalib.
_STANDING = {
    "Mixup": Opponent("train", grid(mixup=[0.2, 1.0])),
    "CutMix": Opponent("train", grid(cutmix=[0.5, 1.0])),
    "logit adjustment": Opponent("train", grid(tau=[1.0, 1.5])),
    "label smoothing": Opponent("train", grid(smoothing=[0.05, 0.1])),
    "head": Opponent("head", grid(scheme=["none"], weight_decay=_DECAYS)),
    "SMOTE in features": Opponent(
        "head", grid(scheme=["smote"], neighbours=[3, 8], weight_decay=_DECAYS)
    ),
    "TailCalib": Opponent(
        "head",
        grid(
            scheme=["tailcalib"],
            neighbours=[1, 2, 3],
            alpha=[0.0, 0.2],
            weight_decay=_DECAYS,
        ),
    ),
    "TailCalib, on the best": Opponent(
        "head",
        grid(scheme=["tailcalib"], neighbours=[1, 2], alpha=[0.0], weight_decay=[1.0, 3.0, 10.0]),
        on_best=True,
    ),
    "DeepSMOTE": Opponent("deepsmote", grid(share=[-1.0, 0.5])),
}
CLASSIC = {
    "images": {
        "none": Opponent("train", stands=False),
        "classic": Opponent("train", grid(affine=[1.0, 1.5]), stands=False),
    },
    "signals": {
        "none": Opponent("train", stands=False),
        "jitter": Opponent("train", grid(jitter=[0.05, 0.2]), stands=False),
        "scaling": Opponent("train", grid(scaling=[0.1, 0.3]), stands=False),
        "time warp": Opponent("train", grid(warp=[0.05, 0.15]), stands=False),
        "all three": Opponent(
            "train",
            [
                {"jitter": 0.05, "scaling": 0.1, "warp": 0.05},
                {"jitter": 0.2, "scaling": 0.3, "warp": 0.15},
            ],
            stands=False,
        ),
    },
}
OPPONENTS = {kind: {**CLASSIC[kind], **_STANDING} for kind in CLASSIC}

SAMPLERS = ("transfer", "delta", "edits")
_USES = grid(share=[0.5], until=[0.8, 0.6])
_TAILS = grid(
    scheme=["tailcalib"], neighbours=[1, 2], alpha=[0.0], weight_decay=[0.01, 0.1, 1.0, 3.0]
)
SAMPLES = {name: Opponent("pool", _USES, pool=name) for name in SAMPLERS} | {
    f"{name}, on the best": Opponent("pool", _USES, pool=name, on_best=True) for name in SAMPLERS
}
# TailCalib's head on the network that was trained with our samples; its settings are tried too.
# On the best, features of our samples are used as well: as what normals are put around, or as rows
# that the head is trained on, with or without normals around the real ones.
_AROUND = [tail | {"around": around} for around in ("real", "all") for tail in _TAILS]
_ROWS = [
    {**head, "rows": "all"}
    for head in grid(
        scheme=["tailcalib"], neighbours=[1, 2], alpha=[0.0], weight_decay=[1.0, 3.0, 10.0]
    )
    + grid(scheme=["none"], weight_decay=[1.0, 3.0])
]
SAMPLES |= {
    f"{name}{on}, then TailCalib": Opponent(
        "pool",
        [use | {"head": tail} for use in _USES for tail in tails],
        pool=name,
        on_best=bool(on),
    )
    for name in SAMPLERS
    for on, tails in (("", _TAILS), (", on the best", _AROUND + _ROWS))
}

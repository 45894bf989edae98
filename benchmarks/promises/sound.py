"""Few-shot classifiers of sounds: SpecAugment, pitch and stretch, with our samples and without.

    apt-get install espeak-ng                                   # words
    apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-wav   # voices
    python -m benchmarks.promises.sound --out sound.jsonl
    python -m benchmarks.promises.sound --data words --seeds 0 --small   # a minute, and worthless

Data: `words`, the ten digits spoken by espeak-ng in many voices (synthetic speech, and declared as
such), where training, validation and test have other voices; and `voices`, recordings: prompts of
Asterisk by five speakers in five languages, where the class is the speaker and training, validation
and test have other prompts. Half of the classes are rare.

A small network on log-mel spectrograms is trained on the real recordings alone, with SpecAugment
(Park et al. 2019, arXiv:1904.08779), with pitch shift and time stretch, or with both, each at two
strengths, and the better strength again with our samples in place of a part of each batch, at two
shares. Strengths and shares are those that are best on the validation part of the first seed; the
other seeds take them as they are. All are compared on the test parts, paired by seed.

Results are appended to a JSON-lines file; what is there is not run again.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F

import vaeaug
from vaeaug.report import as_pictures, write_strips
from vaeaug.spectrogram import Spectrogram

DATA = ("words", "voices")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")
VARIANTS = Path("/usr/lib/x86_64-linux-gnu/espeak-ng-data/voices/!v")
SOUNDS = Path("/usr/share/asterisk/sounds")
SPEAKERS = {
    "Allison, English": "en_US_f_Allison",
    "Allison, Spanish": "es_MX_f_Allison",
    "June, French": "fr_CA_f_June",
    "Carlo, Italian": "it_IT_m_Carlo",
    "Ivrvoice, Russian": "ru_RU_f_IvrvoiceRU",
}
RATE, LENGTH = 8000, 8000
FREQUENT, RARE = 20, 4
# Sounds of each class to validate and to test on.
JUDGED = {"words": (15, 25), "voices": (40, 100)}
# Mel bands, and the copies of each recording with another pitch and tempo.
BANDS, COPIES = 40, 8
STEPS, BATCH = 400, 64
MASKS = {"weak": (6, 12), "strong": (12, 30)}  # widest masks: bands, frames
WARPS = {"weak": (1.0, 0.08), "strong": (3.0, 0.2)}  # semitones, relative tempo
SHARES = (0.3, 0.6)
# Synthetic sounds of each class.
DRAWN = 60
# Keys of the generator's job; those of --small make it a matter of seconds.
KEYS: dict[str, Any] = {"restoration.steps": 0, "screening.classifier_steps": 200}
SMALL: dict[str, Any] = {
    "training.learning_rate": 0.002,
    "model.width": 8,
    "training.batch_size": 16,
    "screening.folds": 2,
    "screening.classifier_steps": 10,
    "recipe.min_label_probability": 0.0,
}

Sounds = np.ndarray  # (n, LENGTH), float32


@dataclass(frozen=True)
class Part:
    """Sounds with labels."""

    x: Sounds
    y: np.ndarray


@dataclass(frozen=True)
class Parts:
    """Sounds to learn from, to choose settings on, and to test on."""

    names: tuple[str, ...]
    train: Part
    validation: Part
    test: Part


# -- Data ------------------------------------------------------------------------------------------


def parts_of(name: str, seed: int, args: argparse.Namespace) -> Parts:
    rng = np.random.default_rng([seed, 7])
    pools = spoken(args) if name == "words" else prompts(args)
    names = tuple(pools)
    n_rare = len(names) // 2
    rare = set(rng.permutation(len(names))[:n_rare].tolist())
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "val": [], "test": []}
    n_val, n_test = (6, 6) if args.small else JUDGED[name]
    # Words: the same voices for all of them, of which training has others; prompts by their names.
    n = min(len(pool) for pool in pools.values())
    shared = np.random.default_rng(11).permutation(n)
    for label, pool in enumerate(pools.values()):
        judged, rest = shared[: n_val + n_test], shared[n_val + n_test :]
        n_train = min(RARE if label in rare else FREQUENT, len(rest))
        chosen = rng.permutation(rest)[:n_train]
        for part, rows in (("train", chosen), ("val", judged[:n_val]), ("test", judged[n_val:])):
            parts[part].append((pool[np.sort(rows)], np.full(len(rows), label)))

    def joined(part: str) -> Part:
        return Part(*(np.concatenate(column) for column in zip(*parts[part], strict=True)))

    return Parts(names, joined("train"), joined("val"), joined("test"))


def spoken(args: argparse.Namespace) -> dict[str, Sounds]:
    """The digits in each voice of espeak-ng, with an accent, a pitch and a speed of its own."""
    cache = args.runs / f"words{'-small' if args.small else ''}.npz"
    if not cache.exists():
        rng = np.random.default_rng(3)
        variants = [path.name for path in sorted(VARIANTS.iterdir())]
        variants = [variants[i] for i in rng.permutation(len(variants))]
        if args.small:
            variants = variants[:20]
        by_word: dict[str, list[Sounds]] = {word: [] for word in WORDS}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "word.wav"
            for variant in variants:
                accent = ACCENTS[rng.integers(len(ACCENTS))]
                pitch, speed = rng.integers(15, 85), rng.integers(110, 200)
                for word in WORDS:
                    command = ["espeak-ng", "-v", f"{accent}+{variant}", "-p", str(pitch)]
                    command += ["-s", str(speed), "-w", str(file), word]
                    subprocess.run(command, check=True)
                    by_word[word].append(trimmed(*loaded(file)))
        np.savez(cache, **{word: np.stack(sounds) for word, sounds in by_word.items()})
    with np.load(cache, allow_pickle=False) as stored:
        return {word: stored[word] for word in WORDS}


def prompts(args: argparse.Namespace) -> dict[str, Sounds]:
    """The first second of speech in each prompt that all speakers have."""
    cache = args.runs / "voices.npz"
    if not cache.exists():
        folders = {name: args.sounds / folder for name, folder in SPEAKERS.items()}
        for name, folder in folders.items():
            if not folder.is_dir():
                raise SystemExit(f"{folder}: expected the recordings of {name}; see --help")
        common = set.intersection(
            *({str(p.relative_to(f)) for p in f.rglob("*.wav")} for f in folders.values())
        )
        found = {
            name: np.stack([trimmed(*loaded(folder / path)) for path in sorted(common)])
            for name, folder in folders.items()
        }
        np.savez(cache, **found)
    with np.load(cache, allow_pickle=False) as stored:
        return {name: stored[name] for name in SPEAKERS}


def loaded(path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return sound.mean(axis=1), rate


def trimmed(sound: np.ndarray, rate: int) -> Sounds:
    """A second from shortly before the sound begins, at full scale; less is filled with silence."""
    if rate != RATE:
        common = np.gcd(rate, RATE)
        sound = resample_poly(sound, RATE // common, rate // common)
    peak = float(np.abs(sound).max()) or 1.0
    loud = np.flatnonzero(np.abs(sound) > 0.03 * peak)
    begin = max(0, (loud[0] if len(loud) else 0) - RATE // 20)
    sound = sound[begin : begin + LENGTH] * (0.9 / peak)
    return np.pad(sound, (0, LENGTH - len(sound))).astype(np.float32)


# -- Opponents -------------------------------------------------------------------------------------


def warped(x: Sounds, strength: str, seed: int) -> Sounds:
    """Copies with another pitch and another tempo, by a phase vocoder and resampling."""
    semitones, tempo = WARPS[strength]
    rng = np.random.default_rng([seed, 5])
    out = np.empty_like(x)
    for i, sound in enumerate(x):
        pitch = 2 ** (rng.uniform(-semitones, semitones) / 12)
        faster = 1 + rng.uniform(-tempo, tempo)
        # Slower by the pitch, then played faster by it: the pitch alone has changed.
        slow = stretched(torch.from_numpy(sound), faster / pitch).numpy()
        up, down = 100, round(100 * pitch)
        moved = resample_poly(slow, up, down)[:LENGTH]
        out[i] = np.pad(moved, (0, LENGTH - len(moved)))
    return out.clip(-1, 1)


def stretched(sound: Tensor, speed: float, window: int = 512) -> Tensor:
    """The phase vocoder (Flanagan & Golden 1966)."""
    hann, hop = torch.hann_window(window), window // 4
    s = torch.stft(sound, window, hop, window=hann, return_complex=True)
    at = torch.arange(0, s.shape[1] - 1, speed)
    index, part = at.long(), at - at.floor()
    size = (1 - part) * s[:, index].abs() + part * s[:, index + 1].abs()
    advance = 2 * torch.pi * hop * torch.arange(len(s))[:, None] / window
    step = s[:, index + 1].angle() - s[:, index].angle() - advance
    step = step - 2 * torch.pi * torch.round(step / (2 * torch.pi)) + advance
    phase = torch.cat([s[:, :1].angle(), step[:, :-1]], dim=1).cumsum(dim=1)
    length = round(len(sound) / speed)
    return torch.istft(torch.polar(size, phase), window, hop, window=hann, length=length)


def masked(x: Tensor, strength: str, generator: torch.Generator) -> Tensor:
    """SpecAugment: two masks along each axis, of a random width."""
    x = x.clone()
    for axis, widest in zip((1, 2), MASKS[strength], strict=True):
        side = x.shape[axis]
        for _ in range(2):
            width = torch.rand(len(x), generator=generator) * widest
            begin = torch.rand(len(x), generator=generator) * (side - width)
            place = torch.arange(side)[None]
            inside = (place >= begin[:, None]) & (place < (begin + width)[:, None])
            x = x.masked_fill(inside[:, :, None] if axis == 1 else inside[:, None], 0.0)
    return x


# -- The classifier --------------------------------------------------------------------------------


def mel(x: Sounds) -> Tensor:
    """Log-mel spectrograms, (n, bands, frames), standardised for each sound."""
    window, hop = 256, 80
    s = torch.stft(
        torch.from_numpy(x), window, hop, window=torch.hann_window(window), return_complex=True
    )
    power = s.abs().square()
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, power.shape[1])
    rising = (bins - edges[:-2, None]) / (edges[1:-1, None] - edges[:-2, None])
    falling = (edges[2:, None] - bins) / (edges[2:, None] - edges[1:-1, None])
    bank = torch.from_numpy(np.maximum(0, np.minimum(rising, falling)).astype(np.float32))
    features = torch.log(torch.einsum("mf,nft->nmt", bank, power) + 1e-4)
    mean, std = features.mean(dim=(1, 2), keepdim=True), features.std(dim=(1, 2), keepdim=True)
    return (features - mean) / std.clamp(min=1e-3)


def network(n_classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for n_in, n_out in ((1, 24), (24, 48), (48, 96)):
        layers += [nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(96 * 12, n_classes))


@dataclass(frozen=True)
class Arm:
    """How a classifier is trained."""

    mask: str = ""
    warp: str = ""
    share: float = 0.0

    @property
    def kind(self) -> str:
        """The classic augmentation, in words."""
        parts = [name for name, used in (("SpecAugment", self.mask), ("warp", self.warp)) if used]
        return " + ".join(parts) or "none"


def trained(
    parts: Parts, arm: Arm, real: dict[str, Tensor], drawn: Any, args: Any, seed: int
) -> nn.Module:
    """Train on class-balanced batches; `real` has log-mel spectrograms and their copies by warp."""
    rng = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    steps = 8 if args.small else args.steps
    y = parts.train.y
    features = real[arm.warp]  # (copies, n, bands, frames)
    model = network(len(parts.names))
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps + 1)
    rows_of = [np.flatnonzero(y == label) for label in range(len(parts.names))]
    model.train()
    for _ in range(steps):
        labels = rng.integers(len(rows_of), size=BATCH)
        rows = np.array([rng.choice(rows_of[label]) for label in labels])
        x = features[torch.from_numpy(rng.integers(len(features), size=BATCH)), rows]
        if arm.share:
            synthetic, by_class = drawn
            for place in np.flatnonzero(rng.random(BATCH) < arm.share):
                own = by_class[labels[place]]
                if len(own):
                    x[place] = synthetic[rng.choice(own)]
        x = torch.roll(x, int(rng.integers(-8, 9)), dims=2)
        if arm.mask:
            x = masked(x, arm.mask, generator)
        loss = F.cross_entropy(model(x[:, None]), torch.from_numpy(labels), label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def recalls(model: nn.Module, part: Part, n_classes: int) -> np.ndarray:
    """Recall of each class."""
    right = model(mel(part.x)[:, None]).argmax(dim=1).numpy() == part.y
    return np.array([right[part.y == label].mean() for label in range(n_classes)])


PLAIN = [Arm(mask, warp) for mask in ("", *MASKS) for warp in ("", *WARPS)]


def best(rows: Sequence[dict[str, Any]], *, ours: bool) -> dict[str, Arm]:
    """The arm of each kind of augmentation that is best on the validation part."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        arm = arm_of(row)
        if (arm.share > 0) != ours or arm.share == 1:
            continue
        if row["validation"] > found.get(arm.kind, {"validation": -1})["validation"]:
            found[arm.kind] = row
    return {kind: arm_of(row) for kind, row in found.items()}


def plain_arms(tuning: Sequence[dict[str, Any]] | None) -> list[Arm]:
    """All of them where nothing is tuned yet, else those that were best."""
    return PLAIN if tuning is None else [*best(tuning, ours=False).values()]


def our_arms(own: Sequence[dict[str, Any]], tuning: Sequence[dict[str, Any]] | None) -> list[Arm]:
    """Ours, added to the best strength of each kind of augmentation; and samples alone."""
    if tuning is not None:
        return [*best(tuning, ours=True).values(), Arm(share=1.0)]
    plain = best(own, ours=False).values()
    added = [Arm(arm.mask, arm.warp, share) for arm in plain for share in SHARES]
    return [*added, Arm(share=1.0)]


def arm_of(row: dict[str, Any]) -> Arm:
    return Arm(row["mask"], row["warp"], row["share"])


# -- Ours ------------------------------------------------------------------------------------------


def labelled(parts: Parts, part: Part) -> vaeaug.LabelledImages:
    return vaeaug.LabelledImages(
        images=part.x[..., None],
        labels=part.y.astype(np.int64),
        class_names=parts.names,
        value_range=(-1.0, 1.0),
        split="train",
        sample_rate=RATE,
        front_end="stft",
    )


def samples_of(
    name: str, parts: Parts, seed: int, args: argparse.Namespace
) -> tuple[Part, dict[str, Any]]:
    """Accepted samples, and what the run says of its generator."""
    data = labelled(parts, parts.train)
    folder = args.runs / f"{name}-{seed}"
    each = 4 if args.small else DRAWN
    totals = {label: int(n) + each for label, n in enumerate(data.counts)}
    config = vaeaug.AugmentConfig().changed(
        **{
            "seed": seed,
            "training.steps": 10 if args.small else args.generator_steps,
            "plan.sampling_strategy": totals,
            **KEYS,
            **(SMALL if args.small else {}),
        }
    )
    began = time.process_time()
    vaeaug.augment(data, folder, config, progress=False)
    seconds = time.process_time() - began
    shards = vaeaug.ShardDataset(folder)
    samples = Part(shards.images_at(np.arange(len(shards)))[..., 0], shards.labels)
    said = json.loads((folder / "diagnostics.json").read_text())
    return samples, {
        "samples": len(shards),
        "candidates": sum(entry.candidates for entry in shards.manifest.classes),
        "label_control": said["label_control"],
        "unexplained": said["fit"]["unexplained"],
        "samplers": shards.manifest.extra["samplers"],
        "cpu_seconds": round(seconds, 1),
    }


# -- Measuring -------------------------------------------------------------------------------------


def run(name: str, seed: int, args: argparse.Namespace, out: Path) -> None:
    """Train and append what is not in the file yet."""
    key = {"data": name, "seed": seed}

    def there(of_seed: int = seed) -> list[dict[str, Any]]:
        wanted = {"data": name, "seed": of_seed}
        return [row for row in read(out) if wanted.items() <= row.items() and "test" in row]

    tuning = None if seed == args.seeds[0] else there(args.seeds[0])

    def lacking(wanted: Sequence[Arm]) -> list[Arm]:
        found = {arm_of(row) for row in there()}
        return [arm for arm in wanted if arm not in found]

    plain = plain_arms(tuning)
    if not lacking(plain) and not lacking(our_arms(there(), tuning)):
        return
    parts = parts_of(name, seed, args)
    own = mel(parts.train.x)[None]
    real = {"": own}
    for strength in WARPS:
        copies = [
            mel(warped(parts.train.x, strength, seed + 100 * i))
            for i in range(1 if args.small else COPIES)
        ]
        real[strength] = torch.cat([own, torch.stack(copies)])
    counts = np.bincount(parts.train.y)
    rare = counts < counts.max()

    def measure(arm: Arm, drawn: tuple[Tensor, list[np.ndarray]] | None) -> None:
        model = trained(parts, arm, real, drawn, args, seed)
        row = key | vars(arm)
        for split, part in (("validation", parts.validation), ("test", parts.test)):
            by_class = recalls(model, part, len(parts.names))
            row |= {split: round(float(by_class.mean()), 4)}
            row |= {f"{split}_rare": round(float(by_class[rare].mean()), 4)}
        append(out, row)
        print(*(f"{k} {v}" for k, v in row.items() if v != ""), sep=", ", flush=True)

    for arm in lacking(plain):
        measure(arm, None)
    samples, facts = samples_of(name, parts, seed, args)
    if not any("facts" in row for row in read(out) if key.items() <= row.items()):
        append(out, key | {"facts": facts, "train": counts.tolist()})
    by_class = [np.flatnonzero(samples.y == label) for label in range(len(parts.names))]
    drawn = (mel(samples.x), by_class)
    for arm in lacking(our_arms(there(), tuning)):
        measure(arm, drawn)


def append(path: Path, row: dict[str, Any]) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval over seeds (Student)."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, float("nan")
    return mean, float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))


def table(rows: list[dict[str, Any]], tuned: int) -> str:
    """Balanced accuracy on the test part in %, of each kind without ours and with it."""
    lines = [
        "| data | baseline | without ours | rare | with ours | rare | gain, points | rare |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == name and "test" in row]
        tuning = [row for row in of_data if row["seed"] == tuned]
        pairs = [best(tuning, ours=ours) for ours in (False, True)]
        by_arm: dict[Arm, dict[int, dict[str, Any]]] = {}
        for row in of_data:
            by_arm.setdefault(arm_of(row), {})[row["seed"]] = row
        # The best of all, on the same part that the strengths were chosen on.
        for arms in pairs:
            arms["the best of these"] = max(
                arms.values(), key=lambda arm: float(by_arm[arm][tuned]["validation"])
            )
        for kind in pairs[0]:
            without, with_ours = (by_arm[arms[kind]] for arms in pairs)
            seeds = sorted(set(without) & set(with_ours))
            cells = [
                f"{100 * np.mean([part[seed][column] for seed in seeds]):.1f}"
                for part in (without, with_ours)
                for column in ("test", "test_rare")
            ]
            for column in ("test", "test_rare"):
                gains = [100 * (with_ours[s][column] - without[s][column]) for s in seeds]
                mean, half = interval(gains)
                cells.append(f"{mean:+.1f} ± {half:.1f}")
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
        alone = [row["test"] for row in by_arm.get(Arm(share=1.0), {}).values()]
        if alone:
            mean, half = interval([100 * accuracy for accuracy in alone])
            lines.append(f"| {name} | our samples alone | | | {mean:.1f} ± {half:.1f} | | | |")
    return "\n".join(lines)


def draw(path: Path, name: str, args: argparse.Namespace) -> None:
    """Spectrograms of recordings and of samples of four classes."""
    seed = args.seeds[0]
    parts = parts_of(name, seed, args)
    drawn, _ = samples_of(name, parts, seed, args)
    spectrogram = Spectrogram.of(LENGTH, RATE)
    strips = []
    for label in range(min(4, len(parts.names))):
        rows = {"recordings": parts.train, "samples": drawn}
        shown = {title: part.x[part.y == label][:4] for title, part in rows.items()}
        shown = {title: x for title, x in shown.items() if len(x) == 4}
        pictures = [as_pictures(x[..., None], spectrogram, (-1.0, 1.0)) for x in shown.values()]
        strips.append((parts.names[label], list(shown), np.stack(pictures)))
    write_strips(path, strips, value_range=(0.0, 1.0))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS, help="of each classifier")
    parser.add_argument("--generator-steps", type=int, default=500)
    parser.add_argument("--small", action="store_true", help="seconds, for a trial of the program")
    parser.add_argument("--sounds", type=Path, default=SOUNDS)
    parser.add_argument("--runs", type=Path, default=Path("runs/sound"))
    parser.add_argument("--out", type=Path, default=Path("sound.jsonl"))
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args(arguments)
    args.runs.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for name in args.data:
            run(name, seed, args, args.out)
    print(table([row for row in read(args.out) if row["data"] in args.data], args.seeds[0]))
    if args.picture:
        draw(args.picture, args.data[0], args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

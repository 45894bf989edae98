"""Sharing a generator on the Hugging Face Hub; needs the extra ``vaeaug[hub]``."""

import json
from pathlib import Path
from typing import Any

from vaeaug.files.names import for_markdown
from vaeaug.generator import SamplingError, Synthesizer
from vaeaug.shards import publish_bytes

_CARD = """---
library_name: vaeaug
tags: [synthetic, data-augmentation, variational-autoencoder]
---

# A vaeaug generator

A conditional VAE with class densities, trained on {n} labelled samples of shape {shape} in
{k} classes: {names}. Its samples are synthetic. It holds the latents of its training images:
whoever has it can decode them.

```python
import vaeaug.integrations.hub

generator = vaeaug.integrations.hub.from_hub({repository})
batch = generator.sample(label=0, n=64, seed=0)
```
"""


def to_hub(generator: Synthesizer, repository: str, *, private: bool = True, **options: Any) -> str:
    """Upload a generator with a model card.

    Args:
        generator: The generator to share, including the latents of its training images.
        repository: "user/name" on the hub.
        private: Whether only the owner can see it.
        **options: Options of ``huggingface_hub.HfApi``, such as `token`.

    Returns:
        Address of the commit.

    Raises:
        SamplingError: If ``huggingface_hub`` is not installed.
    """
    import tempfile

    api = _library().HfApi(**options)
    api.create_repo(repository, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_for_hub(generator, folder, repository)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))


def write_for_hub(generator: Synthesizer, folder: str | Path, repository: str) -> None:
    """Write the files that `to_hub` uploads: the generator and a README.

    Args:
        generator: The generator to share.
        folder: The folder; it is created if missing.
        repository: "user/name", for the README.
    """
    generator.save(folder)
    card = _CARD.format(
        n=generator.n_real,
        shape=tuple(generator.image_shape),
        k=len(generator.class_names),
        names=", ".join(map(for_markdown, generator.class_names)),
        repository=json.dumps(repository),
    )
    publish_bytes(Path(folder) / "README.md", card.encode())


def from_hub(repository: str, **options: Any) -> Synthesizer:
    """Download a generator without executing any of its files.

    Args:
        repository: "user/name" on the hub.
        **options: Options of ``huggingface_hub.snapshot_download``, such as `revision` or `token`.

    Returns:
        The generator, on the CPU.

    Raises:
        SamplingError: If ``huggingface_hub`` is not installed, or the repository is not a
            generator.
    """
    folder = _library().snapshot_download(
        repository, allow_patterns=["*.json", "*.safetensors"], **options
    )
    return Synthesizer.load(folder)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise SamplingError("the hub needs huggingface_hub: pip install 'vaeaug[hub]'") from None
    return huggingface_hub

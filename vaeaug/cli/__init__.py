"""The command line: one command per verb. Results on stdout, progress and logs on stderr.

Exit codes: 0: success; 1: failure; 2: usage or configuration error; 3: the evaluation found that
the synthetic data does not help; 4: partial result, a class has fewer samples than planned; 130
(Ctrl-C) or 143 (SIGTERM): interrupted, and the same command resumes.
"""

from vaeaug.cli import _compression, _dataset, _embedding, _generator, _job
from vaeaug.cli._group import main

__all__ = ["main"]

for _command in (
    _job.plan,
    _job.train,
    _job.sweep,
    _job.generate,
    _job.augment,
    _job.evaluate,
    _job.report,
    _job.screen,
    _dataset.merge,
    _dataset.export,
    _dataset.push,
    _dataset.verify,
    _dataset.exclude,
    _dataset.studio,
    _dataset.inspect,
    _dataset.show_config,
    _embedding.embed,
    _compression.coder,
    _compression.compress,
    _compression.decompress,
    _generator.encode,
    _generator.decode,
    _generator.reconstruct,
    _generator.denoise,
    _generator.traverse,
    _generator.styles,
):
    main.add_command(_command)

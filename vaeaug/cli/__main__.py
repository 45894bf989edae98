"""``python -m vaeaug.cli``: the command line."""

from vaeaug.cli import main

main()

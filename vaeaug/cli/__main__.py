"""``python -m vaeaug.cli``."""

from vaeaug.cli import main

main()

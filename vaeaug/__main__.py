"""``python -m vaeaug``: the command line."""

from vaeaug.cli import main

main(prog_name="vaeaug")

#!/usr/bin/env bash
# Everything that is measured on a card, in ten minutes at most: the tests that need one, the table of
# rates beside the limits of the card, and a default job on 4,000 images of Fashion-MNIST.
#
#     bash benchmarks/gpu.sh [FOLDER]     # the figures are appended to FOLDER/gpu.jsonl
#
# Fashion-MNIST: apt-get install dataset-fashion-mnist. Nothing else may be running.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
mkdir -p "$out"
python=${PYTHON:-python3}
"$python" -m pytest -q tests/training/test_cuda.py | tail -n 20
"$python" -m benchmarks.gpu --out "$out/gpu.jsonl"
data=/usr/share/datasets/fashion-mnist
if [ -d "$data" ]; then
    rm -rf "$out/job"
    time "$python" -m vaeaug augment "$data" --split train \
        --set "data.class_counts=[400,400,400,400,400,400,400,400,400,400]" --out "$out/job"
fi

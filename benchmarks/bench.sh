#!/usr/bin/env bash
# Rates beside limits that are measured in the same run, exponents of growth, and the default job on
# digits: what `make bench` runs, in less than 15 minutes of two cores. Nothing else may be running.
#
#     bash benchmarks/bench.sh [FOLDER]     # lines of JSON are appended to FOLDER/*.jsonl
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/bench}
mkdir -p "$out"
python=${PYTHON:-python3}
echo "== training, sampling, screening and shards beside their limits (one thread)"
OMP_NUM_THREADS=1 "$python" -m benchmarks.speed --device cpu --out "$out/speed.jsonl"
echo "== reading image files: one thread, threads, processes"
"$python" -m benchmarks.decoding --n 800 --out "$out/decoding.jsonl"
echo "== exponents of time over images, classes and values"
OMP_NUM_THREADS=1 "$python" -m benchmarks.growth --out "$out/growth.jsonl"
echo "== seconds until a program has started"
"$python" -m benchmarks.starting --out "$out/starting.jsonl"
echo "== the default job on digits"
rm -rf "$out/job"
time "$python" -m vaeaug augment digits --out "$out/job"

"""Nearest training images: the search of the screening beside faiss.

    apt-get install dataset-fashion-mnist
    pip install faiss-cpu                              # a peer, not a dependency
    python -m benchmarks.neighbours --out neighbours.jsonl

The points are those of the screening: principal components of Fashion-MNIST's training images and
of shifted copies of them. Half of the queries are test images; half are near copies: training
images moved by a part of the distance below which a sample counts as a copy. None may be missed.
`missed` is the share of these whose own image is not among the nearest five. Processor seconds of
one thread, of building and of a query.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

import vaeaug
from pipelines.balance_rare_classes import FASHION_MNIST
from vaeaug.screening import SampleSpace
from vaeaug.screening.nearest_points import CELLS, LOOKED_INTO, NearestPoints

NEIGHBOURS = 5
Query = Callable[[np.ndarray, int], np.ndarray]


def ours(points: np.ndarray, reach: float) -> Query:
    """The search of the screening."""
    search = NearestPoints(points)
    search.reach = reach
    return search.query


def inverted_file(points: np.ndarray, reach: float) -> Query:
    """Faiss's inverted file, with as many cells as ours, and as many looked into."""
    import faiss

    n_cells = round(CELLS * len(points) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(points.shape[1]), points.shape[1], n_cells)
    index.train(points)
    index.add(points)
    index.nprobe = LOOKED_INTO
    return lambda queries, k: index.search(queries, k)[1]


def every_point(points: np.ndarray, reach: float) -> Query:
    """Faiss's exact search."""
    import faiss

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return lambda queries, k: index.search(queries, k)[1]


def graph(points: np.ndarray, reach: float) -> Query:
    """Faiss's navigable small worlds, at its defaults."""
    import faiss

    index = faiss.IndexHNSWFlat(points.shape[1], 32)
    index.add(points)
    return lambda queries, k: index.search(queries, k)[1]


SEARCHES = {
    "ours": ours,
    "faiss IVFFlat": inverted_file,
    "faiss Flat": every_point,
    "faiss HNSW": graph,
}


def shifted(data: vaeaug.LabelledImages, copies: int) -> vaeaug.LabelledImages:
    """The images and copies of them, each shifted by a pixel or two."""
    shifts = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (0, 2)][:copies]
    images = np.concatenate([np.roll(data.images, shift, axis=(1, 2)) for shift in shifts])
    return vaeaug.read((images, np.tile(data.labels, copies)), value_range=data.value_range)


def main() -> None:
    """Measure each search at each size, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(FASHION_MNIST))
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4], help="of the images")
    parser.add_argument("--queries", type=int, default=2000, help="test images, and near copies")
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--out", type=Path, default=Path("runs/neighbours.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train = vaeaug.read(options.data, split="train")
    test = vaeaug.read(options.data, split="test")
    for copies in options.copies:
        space = SampleSpace(shifted(train, copies), seed=0)
        rng = np.random.default_rng(0)
        reach = float(np.max(space.calibrate(0.01)[0]))
        points = space.projected
        rows = rng.integers(len(points), size=options.queries)
        step = rng.standard_normal((len(rows), points.shape[1]), np.float32)
        step *= (reach * rng.random(len(rows), np.float32) / np.linalg.norm(step, axis=1))[:, None]
        copied = points[rows] + step
        others = space.project(test.images[: options.queries])
        nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points)
        truth = nearest.kneighbors(others, return_distance=False)
        for name in options.searches:
            begin = time.process_time()
            query = SEARCHES[name](points, reach)
            built = time.process_time() - begin
            begin = time.process_time()
            found = query(copied, NEIGHBOURS)
            of_others = query(others, NEIGHBOURS)
            taken = time.process_time() - begin
            line = {
                "search": name,
                "points": len(points),
                "dimensions": points.shape[1],
                "seconds_built": round(built, 2),
                "ms_a_query": round(1000 * taken / (len(copied) + len(others)), 3),
                "missed": float(1 - (found == rows[:, None]).any(axis=1).mean()),
                "nearest_of_test_images_found": float((of_others == truth).any(axis=1).mean()),
            }
            print(json.dumps(line), flush=True)
            with open(options.out, "a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

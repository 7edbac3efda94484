"""How time grows with the number of items, of classes and of folds: the heads of the default mode on features that are there, and `find_label_issues` on their predictions.

    python benchmarks/scaling.py [--repeats 1]

One of the three varies, the others are 8,000 items, 10 classes and 5 folds. The features are simulated: each class has a centre. A line of JSON for each.
"""
import argparse, json, tempfile, time
from pathlib import Path

import numpy as np

from fastclean.issues import find_label_issues

import memory

GRID = [*((n, 10, 5) for n in (1000, 2000, 4000, 8000, 16000, 32000)), *((8000, K, 5) for K in (2, 30, 100, 300)), *((8000, 10, k) for k in (3, 10, 20))]

def measure(n, K, folds):
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=n)
    y = np.where(rng.random(n) < .1, rng.integers(K, size=n), true)
    with tempfile.TemporaryDirectory() as t:
        w = Path(t)
        np.save(w/'x.npy', (rng.normal(size=(K, 512))[true] + 3*rng.normal(size=(n, 512))).astype(np.float16)); np.save(w/'y.npy', y)
        start = time.perf_counter()
        p = memory.fitted(w, memory.given(w, n, n_splits=folds, vocab=list(range(K))))
        heads, start = time.perf_counter() - start, time.perf_counter()
        find_label_issues(y, p)
        return dict(n=n, K=K, folds=folds, heads=round(heads, 2), find_label_issues=round(time.perf_counter() - start, 2))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--repeats', type=int, default=1)
    a = p.parse_args()
    measure(500, 3, 3)   # imports
    for _ in range(a.repeats):
        for o in GRID: print(json.dumps(measure(*o)), flush=True)

"""Neighbours of a million items among themselves: time, memory, and how many of the true ones are found.

    python benchmarks/neighbours.py [--n 1000000] [--d 1280] [--k 25]

Features of a thousand photographs, the last layer of the default backbone, with a part of another photograph and noise added (see memory.py); k neighbours of each by `nearest`. A thousand items are searched for exactly: their true
neighbours give the recall, and their time, n/1,000 times, what an exact search would have taken. Memory is the peak of the process, the features in it. A line of JSON.
"""
import argparse, json, tempfile, time
from pathlib import Path

import numpy as np

import memory
from fastclean import features

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=1_000_000)
    p.add_argument('--d', type=int, default=1280)
    p.add_argument('--k', type=int, default=25)
    p.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-benchmark').expanduser(), help='folder for the data')
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=a.work) as tmp:
        memory.jittered(Path(tmp), a.n)
        x = np.load(Path(tmp)/'x.npy', mmap_mode='r')[:, -256 - a.d:-256]   # the thumbnail stands last
        start, busy = time.perf_counter(), time.process_time()
        idx, _ = features.nearest(x, a.k)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        at = np.sort(np.random.default_rng(0).choice(a.n, min(a.n, 1000), replace=False))
        features.EXACT_UP_TO = np.inf
        start = time.perf_counter()
        exact = features.nearest(x, a.k + 1, x[at])[0]
        per_item = (time.perf_counter() - start)/len(at)
    found = [len(set(e[e != i][:a.k]) & set(o))/a.k for e, o, i in zip(exact, idx[at], at)]
    print(json.dumps(dict(n=a.n, d=a.d, k=a.k, seconds=round(seconds, 1), processor=round(busy, 1), exact_seconds=round(per_item*a.n), recall=round(float(np.mean(found)), 4), peak_gb=round(memory.peak()/1024, 2))), flush=True)

if __name__ == '__main__': main()

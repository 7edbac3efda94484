"""Time and peak memory of `find_label_issues` beside cleanlab's, in one run, from thousands of items to tens of millions.

    python benchmarks/labels.py [--sizes 1000000x10 1000000x100 100000x1000 1280000x1000] [--repeats 3]
    python benchmarks/labels.py --sizes 50000000x10 --which fastclean --mapped     # probabilities that stay on disk
    python benchmarks/labels.py --sizes 200000x1000 --profile                      # where the time goes

Each measurement is a process of its own that makes the same simulated probabilities first, a tenth of the labels wrong. Time is that of the call, its imports included; memory is the peak of the whole process, array
included. cleanlab's filter is its default one, in one process: with more it would copy the array.
"""
import argparse, json, resource, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np

SIZES = ['1000000x10', '1000000x100', '100000x1000', '1280000x1000']

def simulate(n, K, path=None, block=2**24):
    "Labels of which a tenth are wrong, and probabilities, made a part at a time."
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=n)
    y = np.where(rng.random(n) < .1, rng.integers(K, size=n), true)
    p = np.empty((n, K), np.float32) if path is None else np.lib.format.open_memmap(path, 'w+', np.float32, (n, K))
    for s in range(0, n, block//K):
        t = true[s:s + block//K]
        q = rng.random((len(t), K), dtype=np.float32)
        q **= 8
        q[np.arange(len(t)), t] += rng.random(len(t), dtype=np.float32)*6
        q /= q.sum(1, keepdims=True)
        p[s:s + len(t)] = q
    return (y, p, true) if path is None else (y, np.load(path, mmap_mode='r'), true)

def flagged(which, y, p):
    "The mask of issues, in the order of the items."
    if which == 'fastclean':
        from fastclean.issues import find_label_issues
        d = find_label_issues(y, p)
        mask = np.zeros(len(y), bool)
        mask[d['item'].to_numpy()[d.is_label_issue.to_numpy()].astype(np.int64)] = True
        return mask
    from cleanlab.filter import find_label_issues
    return find_label_issues(y, p, n_jobs=1)

def measure(which, n, K, mapped, profile):
    "Time, memory and what was found, as a line of JSON."
    with tempfile.TemporaryDirectory(dir=Path.home()) as tmp:
        y, p, true = simulate(n, K, Path(tmp)/'p.npy' if mapped else None)
        before, start, busy = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
        if profile:
            import cProfile, pstats
            with cProfile.Profile() as prof: mask = flagged(which, y, p)
            pstats.Stats(prof).sort_stats('cumulative').print_stats(25)
        else: mask = flagged(which, y, p)
    wrong, hits = int((y != true).sum()), int((mask & (y != true)).sum())
    print(json.dumps(dict(which=which, n=n, K=K, mapped=mapped, seconds=round(time.perf_counter() - start, 1), processor=round(time.process_time() - busy, 1), peak_gb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6, 2),
        before_gb=round(before/1e6, 2), flagged=int(mask.sum()), precision=round(hits/max(mask.sum(), 1), 4), recall=round(hits/wrong, 4))), flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sizes', nargs='*', default=SIZES, help='items x classes')
    p.add_argument('--which', nargs='*', default=['fastclean', 'cleanlab'])
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--mapped', action='store_true', help='map the probabilities from a file')
    p.add_argument('--profile', action='store_true')
    p.add_argument('--one', action='store_true', help='measure here, in this process')
    a = p.parse_args()
    if a.one: n, K = map(int, a.sizes[0].split('x')); return measure(a.which[0], n, K, a.mapped, a.profile)
    for size in a.sizes:
        for _ in range(a.repeats):
            for which in a.which:
                subprocess.run([sys.executable, __file__, '--one', '--sizes', size, '--which', which, *['--mapped']*a.mapped, *['--profile']*a.profile], check=True)

if __name__ == '__main__': main()

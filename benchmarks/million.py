"""Time and memory of `find_label_issues` at 1,000,000 items and 100 classes, beside cleanlab's, in one run.

    python benchmarks/million.py [--repeats 3]

Each measurement is a process of its own that makes the same simulated probabilities first; the time is that of the call alone, import included, the memory that of the whole process.
"""
import argparse, resource, subprocess, sys, time

def measure(which):
    import numpy as np
    rng = np.random.default_rng(0); n, K = 1_000_000, 100
    true = rng.integers(K, size=n); y = np.where(rng.random(n) < .1, rng.integers(K, size=n), true)
    p = rng.random((n, K), dtype=np.float32); p **= 8; p[np.arange(n), true] += rng.random(n, dtype=np.float32)*6; p /= p.sum(1, keepdims=True)
    start = time.perf_counter()
    if which == 'fastclean':
        from fastclean.issues import find_label_issues
        flagged = int(find_label_issues(y, p).is_label_issue.sum())
    else:
        from cleanlab.filter import find_label_issues
        flagged = int(find_label_issues(y, p, n_jobs=1).sum())
    print(f'{which:10} {time.perf_counter() - start:6.1f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6:.2f} GB, {flagged:,} flagged', flush=True)

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--repeats', type=int, default=3); ap.add_argument('--only')
    a = ap.parse_args()
    if a.only: measure(a.only)
    else:
        for _ in range(a.repeats):
            for which in ('fastclean', 'cleanlab'): subprocess.run([sys.executable, __file__, '--only', which], check=True)

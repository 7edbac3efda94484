"""What `fastclean correct` makes of Imagenette with a quarter of its labels wrong, and whether `undo` gives every byte back; and time and memory of a plan for a million rows.

    python benchmarks/correct.py --work DIR          # noise, find, correct, undo; what is in DIR already is not made again
    python benchmarks/correct.py --rows 1000000      # a plan from a table of issues of so many rows
"""
import argparse, hashlib, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

FC = [sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))']
IMAGENETTE = Path.home()/'.fastai'/'data'/'imagenette2-160'/'train'

def fastclean(*args):
    "A command, as a user types it, and its seconds."
    start = time.time()
    subprocess.run(FC + [os.fspath(o) for o in args], check=True, stdout=subprocess.DEVNULL)
    return time.time() - start

def hashes(folder): return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).rglob('*')) if p.is_file()}

def labels_of(copy):
    "The label of each of the noisy items in a corrected copy."
    from fastclean.copies import read_manifest
    from fastclean.data import read_source
    f = read_source(copy).frame
    at = {r['to']: r['from'] for r in read_manifest(copy).changes.to_dict('records')}
    return pd.Series(list(f.given_label), index=[at.get(o, o) for o in f['item']])

def accuracy(work, a):
    "Noise → find → correct → undo."
    from fastclean.inject import read_noise
    noisy, found = work/'noisy', work/'found'
    print(f"noise  {fastclean('noise', a.data, noisy, '--rate', '.25'):6.1f} s")
    print(f"find   {fastclean('find', noisy, '--out', found, *(['--cache', a.cache] if a.cache else [])):6.1f} s", flush=True)
    t, before = read_noise(noisy).frame.set_index('item'), hashes(noisy)
    was = t.given_label == t.true_label
    print(f'{len(before):,} files, {len(t):,} labels, {was.mean():.4f} of them right')
    for threshold in (None, .95):
        dst = work/f'right-{threshold}'
        seconds = fastclean('correct', noisy, dst, '--issues', found, *(['--threshold', str(threshold)] if threshold else []))
        now = labels_of(dst).reindex(t.index) == t.true_label
        by = pd.DataFrame({k: g.groupby(t.true_label).mean() for k, g in (('before', was), ('after', now))})
        print(f"threshold {threshold or 'by default'}: {now.mean():.4f} right after {seconds:.1f} s; by class from {by.after.min():.3f} to {by.after.max():.3f} (before {by.before.min():.3f} to {by.before.max():.3f}); "
              f"worse than before: {(by.after < by.before).sum()} classes; right labels made wrong: {(was & ~now).sum()}")
        assert hashes(noisy) == before, 'the source was changed'
        seconds = fastclean('undo', dst)
        print(f"undo   {seconds:6.1f} s; {'every byte is back' if hashes(dst) == before else 'SOMETHING IS NOT AS IT WAS'}", flush=True)
        subprocess.run(['rm', '-rf', dst], check=True)

def simulate(path, n, K=100):
    "A table of issues of n rows, a tenth of the labels wrong."
    from fastclean.core import Predictions
    from fastclean.issues import find_label_issues, write_issues
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=n); y = np.where(rng.random(n) < .1, rng.integers(K, size=n), true)
    p = rng.random((n, K), dtype=np.float32); p **= 8; p[np.arange(n), true] += rng.random(n, dtype=np.float32)*6; p /= p.sum(1, keepdims=True)
    write_issues(find_label_issues(Predictions.from_arrays(y, p, [f'class {k}' for k in range(K)], [f'{k:03}/{i:07}.jpg' for i, k in enumerate(y)])), path)

def plan(path):
    "Time and memory of reading the table and of planning."
    from fastclean.correct import plan_corrections
    from fastclean.issues import read_issues
    memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6
    start = time.perf_counter(); issues = read_issues(path); read, m = time.perf_counter() - start, memory()
    print(f'{len(issues):,} rows read in {read:.1f} s, {m:.2f} GB', flush=True)
    for action in ('relabel', 'prune', 'reweight'):
        start = time.perf_counter(); out = plan_corrections(issues, action)
        print(f'{action:9} planned in {time.perf_counter() - start:5.1f} s: {len(out):,} items, {len(out.refused):,} refused; peak {memory():.2f} GB', flush=True)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--data', type=Path, default=IMAGENETTE); ap.add_argument('--work', type=Path); ap.add_argument('--cache', help='features that several runs share')
    ap.add_argument('--rows', type=int); ap.add_argument('--plan', type=Path, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.plan: return plan(a.plan)
    with tempfile.TemporaryDirectory() as tmp:
        if not a.rows: return accuracy(a.work or Path(tmp), a)
        simulate(Path(tmp)/'issues.csv', a.rows)
        subprocess.run([sys.executable, __file__, '--plan', Path(tmp)/'issues.csv'], check=True)     # a process of its own: its memory is the plan's

if __name__ == '__main__': main()

"""Time and memory of the issues table and the report at 1,000,000 rows, of which some 100,000 are suspects, with evidence for those that have a card.

    python benchmarks/report.py [--n 1000000] [--classes 100]

The probabilities are mapped from disk, as `Predictions.load(folder, mmap=True)` gives them. Each step is timed, by the clock and by the processor; the memory is the peak of the process so far."""
import argparse, resource, tempfile, time
from pathlib import Path

def main(n, K, d, folder):
    import numpy as np
    from PIL import Image
    from fastclean.core import Predictions
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=n); y = np.where(rng.random(n) < .1, (true + rng.integers(1, K, n)) % K, true)
    p = np.lib.format.open_memmap(folder/'p.npy', 'w+', np.float32, (n, K)); x = np.lib.format.open_memmap(folder/'x.npy', 'w+', np.float16, (n, d))
    centres = rng.normal(size=(K, d)).astype(np.float32)
    for s in range(0, n, 50_000):
        t = true[s:s + 50_000]
        q = rng.random((len(t), K), dtype=np.float32); q **= 8; q[np.arange(len(t)), t] += rng.random(len(t), dtype=np.float32)*6; p[s:s + 50_000] = q/q.sum(1, keepdims=True)
        x[s:s + 50_000] = centres[t] + rng.normal(size=(len(t), d)).astype(np.float32)
    p.flush(); x.flush(); del p, x
    preds = Predictions.from_arrays(y, np.load(folder/'p.npy', mmap_mode='r'), [f'class {k}' for k in range(K)], [f'train/class_{i % K:03d}/image_{i:07d}.jpeg' for i in range(n)])
    x, picture = np.load(folder/'x.npy', mmap_mode='r'), [Image.fromarray(rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)).resize((200, 200)) for _ in range(9)]
    def step(name, f):
        start, cpu = time.perf_counter(), time.process_time(); out = f()
        print(f'{name:24} {time.perf_counter() - start:6.1f} s (processor {time.process_time() - cpu:6.1f} s)   peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6:5.2f} GB', flush=True)
        return out
    step('imports and data', lambda: None)
    from fastclean.evidence import label_evidence
    from fastclean.health import label_joint, summarise
    from fastclean.issues import find_label_issues, read_issues, write_issues
    from fastclean.report import write_report
    issues = step('find_label_issues', lambda: find_label_issues(preds))
    step('write_issues', lambda: write_issues(issues, folder/'issues.csv'))
    step('read_issues', lambda: read_issues(folder/'issues.csv'))
    marked = issues[issues.is_label_issue]
    evidence = step('evidence of 500', lambda: label_evidence(issues, preds, x, suspects=marked[:500]))
    step(f'evidence of {len(marked):,}', lambda: label_evidence(issues, preds, x))
    joint = step('label_joint', lambda: label_joint(preds))
    summary = step('summarise', lambda: summarise(preds, issues, joint=joint))
    report = step('write_report', lambda: write_report(preds, issues, folder/'report.html', summary=summary, joint=joint, load=lambda o: picture[len(o) % 9], evidence=evidence))
    print(f'{len(marked):,} suspects; issues.csv {(folder/"issues.csv").stat().st_size/1e6:.0f} MB, report.html {report.stat().st_size/1e6:.1f} MB')

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--n', type=int, default=1_000_000); ap.add_argument('--classes', type=int, default=100); ap.add_argument('--dims', type=int, default=256)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as t: main(a.n, a.classes, a.dims, Path(t))

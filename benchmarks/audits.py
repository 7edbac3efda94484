"""How often the intervals of an audit hold the truth: audits of simulated lists of suspects, drawn anew each time and answered with the truth.

    python benchmarks/audits.py [--times 1000] [--n 50]

Each list has its own size, number of classes, noise rate and model, good or bad. Prints, for each quantity, how often its interval holds the truth, and the widths.
"""
import argparse

import numpy as np
import pandas as pd

from fastclean.audit import audit_coverage
from fastclean.core import Predictions
from fastclean.issues import find_label_issues

def suspects(seed):
    "A table of issues, the right label of each row, and what it is."
    rng = np.random.default_rng(seed)
    n, K, rate, sharp = int(rng.integers(300, 5000)), int(rng.choice([2, 3, 10])), rng.uniform(0, .4), rng.uniform(.5, 5)
    true = rng.integers(0, K, n)
    given = np.where(rng.random(n) < rate, rng.integers(0, K, n), true)
    z = rng.normal(size=(n, K)) + sharp*np.eye(K)[true]
    issues = find_label_issues(Predictions.from_arrays(given, np.exp(z)/np.exp(z).sum(1, keepdims=True)))
    return issues, true[issues['item'].astype(int)], dict(n=n, K=K, rate=round(rate, 2), sharp=round(sharp, 1), marked=int(issues.is_label_issue.sum()))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--times', type=int, default=1000); p.add_argument('--n', type=int, default=50); p.add_argument('--each', type=int, default=20, help='audits of each list')
    a = p.parse_args()
    rows = []
    for seed in range(a.times//a.each):
        issues, true, what = suspects(seed)
        rows.append(dict(what, **audit_coverage(issues, true, a.n, a.each)))
    d = pd.DataFrame(rows)
    print(d.head(10).to_string()); print(f'\nof {a.times:,} audits of {a.n} labels, intervals that hold the truth:'); print(d[['precision', 'found', 'missed', 'recall', 'noise_rate']].mean().round(3).to_string())

if __name__ == '__main__': main()

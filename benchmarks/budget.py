"""How many wrong labels are among the first N that a person looks at: `budget=N` beside the plain order by `label_score`.

`python benchmarks/budget.py [--sets imagenette cifar10-b] [--seeds 0 1 2]`: goes over the noisy cells that `python benchmarks/cutoff.py make` has left, and prints sums and the number of cells in which one is ahead.
"""
import argparse, warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cutoff import MODELS, NOISE, SETS, cell_file, cells
from fastclean.core import Predictions
from fastclean.issues import find_label_issues

def errors(f, sizes=(100, 500)):
    "For each N: wrong labels among the first N by `budget`, and by `label_score`."
    d = np.load(f); wrong, preds = d['y'] != d['true'], Predictions.from_arrays(d['y'], d['p'])
    plain = find_label_issues(preds)
    ranked = plain.sort_values('label_score', kind='stable')
    count = lambda t, n: int(wrong[t['item'].astype(int)[:n]].sum())
    for n in sizes: yield dict(cell=f.stem, N=n, budget=count(find_label_issues(preds, budget=n), n), score=count(ranked, n), table=count(plain, n))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='*', default=SETS); p.add_argument('--models', nargs='*', default=MODELS); p.add_argument('--seeds', nargs='*', type=int, default=range(3))
    p.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-cutoff').expanduser())
    a = p.parse_args(); a.noise = [o for o in NOISE if o != 'clean']
    warnings.simplefilter('ignore')
    d = pd.DataFrame([r for c in cells(a) if (f := cell_file(a.work, *c)).exists() for r in errors(f)])
    print(d.groupby('N')[['budget', 'score', 'table']].sum().assign(cells=d.groupby('N').size(), ahead=(d.budget > d.score).groupby(d.N).sum(), behind=(d.budget < d.score).groupby(d.N).sum()).to_string())

if __name__ == '__main__': main()

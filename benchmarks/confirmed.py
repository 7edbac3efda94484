"""What 200 confirmed labels are worth: F1 of the others before and after, on CIFAR-10's human labels.

    python benchmarks/confirmed.py [--work ~/.cache/fastclean-cutoff]

Takes the probabilities that `benchmarks/cutoff.py make` keeps. A person looks at 200 items, chosen at random or by `budget`, and says what each truly is; the cut-off is made again with that. The
rounds are not fitted again (`fastclean find --decisions` does that, too).
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fastclean.core import Predictions
from fastclean.issues import find_label_issues, given_posterior
from fastclean.transition import plausible_sharpening

def f1(preds, true, rest):
    flag, wrong = (given_posterior(preds).given.to_numpy() < .5)[rest], (preds.given_label != true)[rest]
    return 2*(flag & wrong).sum()/(flag.sum() + wrong.sum())

def confirm(y, p, true, at):
    "A record in which some labels are confirmed or corrected."
    given, verified = y.copy(), np.zeros(len(y), bool)
    given[at], verified[at] = true[at], True
    return Predictions.from_arrays(given, p, verified=verified, extra=pd.DataFrame(dict(original_label=y)))

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-cutoff').expanduser())
    rows = []
    for f in sorted((ap.parse_args().work/'cells').glob('cifar10-*_human_*.npz')):
        d = np.load(f); y, p, true = d['y'], d['p'], d['true']
        plain = Predictions.from_arrays(y, p)
        by_budget = find_label_issues(plain, budget=200)['item'][:200].astype(int).to_numpy()
        for how, at in [*((f'random', np.random.default_rng(s).choice(len(y), 200, replace=False)) for s in range(5)), ('budget', by_budget)]:
            rest = np.ones(len(y), bool); rest[at] = False
            known = confirm(y, p, true, at)
            rows.append(dict(cell=f.stem, how=how, before=f1(plain, true, rest), after=f1(known, true, rest), power_before=plausible_sharpening(plain).best, power_after=plausible_sharpening(known).best))
    t = pd.DataFrame(rows)
    print(t.groupby(['cell', 'how']).mean(numeric_only=True).round(3).to_string())
    print(t.groupby('how')[['before', 'after']].mean().round(4).to_string())

if __name__ == '__main__': main()

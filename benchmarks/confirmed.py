"""What 200 confirmed labels are worth: F1 of the others before and after, on CIFAR-10's human labels.

    python benchmarks/confirmed.py [--refit] [--work ~/.cache/fastclean-cutoff]

Takes the probabilities that `benchmarks/cutoff.py make` keeps. A person looks at 200 items, chosen at random or by `budget`, and says what each truly is; the cut-off is made again with that. With `--refit`
the rounds are fitted again, too, as `fastclean find --decisions` does it.
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

def choices(y, plain, seeds=5):
    "Items that a person looks at: at random, and those that `budget` puts first."
    yield from (('random', np.random.default_rng(s).choice(len(y), 200, replace=False)) for s in range(seeds))
    yield 'budget', find_label_issues(plain, budget=200)['item'][:200].astype(int).to_numpy()

def refit(work, name, seed=0):
    "Rows for one set, each by folds that know what a person has said."
    from cutoff import image_dls, noisy
    from fastclean.featurefolds import FeatureFolds
    files, true, y, vocab = noisy(name, 'human', seed, work)
    def fit(labels, known=()):
        p = FeatureFolds(image_dls(files, labels, vocab, work), seed=seed, features_cache=work/'features', tag=name, verified=[f'{i:05}' for i in known]).predictions()
        return p if not len(known) else Predictions.from_arrays(p.given_label, p.pred_probs, verified=p.verified, extra=pd.DataFrame(dict(original_label=y)))
    plain = fit(y)
    for how, at in choices(y, Predictions.from_arrays(y, plain.pred_probs), seeds=3):
        rest = np.ones(len(y), bool); rest[at] = False
        known = fit(confirm(y, plain.pred_probs, true, at).given_label, at)
        if known.verified.sum() != 200: raise ValueError(f'{known.verified.sum()} items are confirmed')
        yield dict(cell=name, how=how, before=f1(plain, true, rest), after=f1(known, true, rest), power_before=plausible_sharpening(plain).best, power_after=plausible_sharpening(known).best)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-cutoff').expanduser())
    ap.add_argument('--refit', action='store_true', help='fit the rounds again with what is confirmed')
    a, rows = ap.parse_args(), []
    if a.refit: rows = [r for name in ('cifar10-a', 'cifar10-b') for r in refit(a.work, name)]
    for f in sorted((a.work/'cells').glob('cifar10-*_human_*.npz')) if not a.refit else ():
        d = np.load(f); y, p, true = d['y'], d['p'], d['true']
        plain = Predictions.from_arrays(y, p)
        for how, at in choices(y, plain):
            rest = np.ones(len(y), bool); rest[at] = False
            known = confirm(y, p, true, at)
            rows.append(dict(cell=f.stem, how=how, before=f1(plain, true, rest), after=f1(known, true, rest), power_before=plausible_sharpening(plain).best, power_after=plausible_sharpening(known).best))
    t = pd.DataFrame(rows)
    print(t.groupby(['cell', 'how']).mean(numeric_only=True).round(3).to_string())
    print(t.groupby('how')[['before', 'after']].mean().round(4).to_string())

if __name__ == '__main__': main()

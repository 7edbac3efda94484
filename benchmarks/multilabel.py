"""Wrong labels where an item can have several: fastclean beside cleanlab on the same probabilities.

Collages of none to four digits (scikit-learn's) or photographs (Imagenette), classes equally frequent or not, five kinds of noise. Out-of-fold probabilities by `FeatureFolds`.
    python benchmarks/multilabel.py [--sets digits imagenette] [--n 1500] [--out FOLDER]      # about a minute a cell on two cores; prints a row for each and the means
"""
import argparse, tempfile, warnings
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.internal.multilabel_utils import onehot2int
from cleanlab.multilabel_classification import get_label_quality_scores
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from fastai.vision.all import ColReader, DataBlock, ImageBlock, MultiCategoryBlock
from PIL import Image
from sklearn.metrics import average_precision_score

from fastclean.binary import multilabel_posterior
from fastclean.featurefolds import FeatureFolds

NOISE = ('symmetric', 'balanced', 'forgotten', 'unequal', 'clean')

def tiles(name):
    "Pictures, their classes, and their side."
    if name == 'digits':
        from sklearn.datasets import load_digits
        d = load_digits()
        return [Image.fromarray(np.round(o*255/16).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC) for o in d.images], d.target, 32
    root = Path('~/.fastai/data/imagenette2-160/train').expanduser()
    files = [(f, i) for i, c in enumerate(sorted(root.iterdir())) for f in sorted(c.iterdir())[:300]]
    return [Image.open(f).convert('RGB').resize((80, 80)) for f, _ in files], np.array([i for _, i in files]), 80

def collages(name, folder, n, skew, seed=0):
    "Write n collages and give their true labels, (n, 10)."
    (ims, y, s), rng, w = tiles(name), np.random.default_rng(seed), 1/np.arange(1, 11)**skew
    truth = np.zeros((n, 10), int)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        m = rng.integers(1, 5)
        classes = rng.choice(10, m, replace=False, p=w/w.sum()) if rng.random() > .03 else []
        im = Image.new('RGB', (2*s, 2*s))
        for at, k in zip(rng.permutation(4), classes): im.paste(ims[rng.choice(np.flatnonzero(y == k))], ((at % 2)*s, (at//2)*s)); truth[i, k] = 1
        im.save(folder/f'{i:04d}.png')
    return truth

def noisy(truth, kind, seed=1):
    "Labels with noise: 5 % flipped; as many added as lost; one in five forgotten; rates that differ from class to class; none."
    rng, there = np.random.default_rng(seed), truth == 1
    rate = dict(symmetric=.05, balanced=np.where(there, .1, .1*truth.mean(0)/(1 - truth.mean(0))), forgotten=np.where(there, .2, 0), clean=0,
                unequal=np.where(there, rng.random(10)*.3, rng.random(10)*.08))[kind]
    return np.where(rng.random(truth.shape) < rate, 1 - truth, truth)

def predictions(folder, given, cache):
    "Out-of-fold by `FeatureFolds`."
    cols, n = [str(k) for k in range(10)], len(given)
    df = pd.DataFrame(given, columns=cols).assign(f=[f'{i:04d}.png' for i in range(n)])
    block = DataBlock((ImageBlock, MultiCategoryBlock(encoded=True, vocab=cols)), get_x=ColReader('f', pref=f'{folder}/'), get_y=lambda r: r[cols].to_numpy(int), splitter=lambda o: (list(range(n)), []))
    return FeatureFolds(block.dataloaders(df, num_workers=0, path=folder), features_cache=cache, image_size=128, twins=False).predictions()

def scores(preds, truth):
    "F1 and average precision of labels and items, beside cleanlab's; of clean labels, how many are flagged."
    y, p, wrong, labels = preds.given_label, preds.pred_probs, preds.given_label != truth, onehot2int(preds.given_label)
    w = multilabel_posterior(preds)
    right, seen = np.where(y == 1, w, 1 - w), np.where(y == 1, p, 1 - p)
    marks = dict(fastclean=right < .5, **{f: find_multilabel_issues_per_class(labels, p, filter_by=f, n_jobs=1) for f in ('prune_by_noise_rate', 'confident_learning')})
    if not wrong.any(): return {f'n {k}': int(m.sum()) for k, m in marks.items()}
    out = {f'F1 {k}': 2*(m & wrong).sum()/(m.sum() + wrong.sum()) for k, m in marks.items()}
    ap, some = lambda t, s: average_precision_score(t.ravel(), -s.ravel()), wrong.any(1)
    return out | {'AP fastclean': ap(wrong, right), 'AP self_confidence': ap(wrong, seen), 'item AP fastclean': ap(some, np.log(np.maximum(right, 1e-30)).sum(1)),
                  'item AP cleanlab': ap(some, get_label_quality_scores(labels, p))}

if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--sets', nargs='+', default=['digits', 'imagenette']); ap.add_argument('--n', type=int, default=1500); ap.add_argument('--out', type=Path)
    args, rows = ap.parse_args(), []
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as tmp:
        for name in args.sets:
            for skew in (0, 1.2):
                folder = (args.out or Path(tmp))/f'{name}-{skew}'
                truth = collages(name, folder/'images', args.n, skew)
                for kind in NOISE:
                    rows.append(dict(set=name, skew=skew, noise=kind) | scores(predictions(folder/'images', noisy(truth, kind), folder/'features'), truth))
                    print({k: round(float(v), 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    print(pd.DataFrame(rows).drop(columns=['skew', 'noise']).groupby('set').mean().round(3).T.to_string())

"""What rounds bring: wrong labels found after one round and after two, in the strict and in the simple form.

    python benchmarks/rounds.py                # KFoldLearner with a small convolutional network and label smoothing
    python benchmarks/rounds.py --net plain    # the same plan with one hidden layer in numpy, on 64 principal components: seconds instead of minutes

All 1,797 digits of scikit-learn with 20 % symmetric noise, 2,000 MNIST images with 10 and 40 %, five folds, three seeds. Rows are appended to a CSV as they come, and those that are
there are not made again. MNIST is read from fastai's data folder (`mnist_png`); where it is missing its cells are left out.
"""
import argparse, contextlib, io, os, time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from fastclean.core import Predictions
from fastclean.folds import fold_ids
from fastclean.issues import find_label_issues
from fastclean.noise import SymmetricNoise
from fastclean.rounds import n_trainings, run_rounds

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'

def digits():
    "All 1,797 digits at 16 pixels, and their labels."
    d = load_digits()
    return (d.images/16).astype(np.float32).repeat(2, 1).repeat(2, 2), d.target

def mnist(n=2000):
    "Every 30th training image, and its label; None where there are none."
    files = sorted((DATA/'mnist_png'/'training').glob('*/*.png'), key=lambda f: (int(f.stem), f.parent.name))[::30][:n]
    if not files: return None
    return np.stack([np.asarray(Image.open(f)) for f in files]).astype(np.float32)/255, np.array([int(f.parent.name) for f in files])

def scores(preds, true):
    "How well the wrong labels are found."
    issues = find_label_issues(preds)
    at = issues['item'].astype(int).to_numpy()
    given = preds.given_label[np.argsort(preds.items.astype(int))]
    wrong, found = (given != true)[at], issues.is_label_issue.to_numpy()
    hits = (wrong & found).sum()
    return dict(wrong=int(wrong.sum()), flagged=int(found.sum()), f1=2*hits/(wrong.sum() + found.sum()), precision=hits/max(found.sum(), 1), recall=hits/wrong.sum(),
                ap=average_precision_score(wrong, -issues.label_score), accuracy=(preds.predicted_label == true[preds.items.astype(int)]).mean())

def conv(x, given, seed, epochs, form):
    "Rounds of `KFoldLearner`: predictions by round, and the round that it would use."
    import torch
    from dataclasses import replace
    from fastai.data.all import DataLoaders, TfmdDL
    from fastai.learner import Learner
    from fastai.losses import LabelSmoothingCrossEntropyFlat
    from fastclean.kfold import KFoldLearner
    from fastclean.learners import small_net
    torch.set_num_threads(1)
    xs = torch.tensor(x)[:, None].expand(-1, 3, -1, -1)
    dls = DataLoaders(TfmdDL([(o, int(y)) for o, y in zip(xs, given)], bs=64, shuffle=True, drop_last=True, num_workers=0)); dls.c = 10
    def fit(learn):
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 5e-3)
    kf = KFoldLearner(dls, lambda dls: Learner(dls, small_net(10, width=8), loss_func=LabelSmoothingCrossEntropyFlat(eps=.1)), rounds=2, strict=form == 'strict', seed=seed)
    with contextlib.redirect_stdout(io.StringIO()): kf.run(fit)
    job, used, preds = kf._job, kf.used_rounds, {}
    for r in (1, 2): kf._job = replace(job, round=r); preds[r] = kf.predictions()
    return preds, used

def network(x, t, seed, epochs, width=64, rate=.5):
    "One hidden layer, trained by plain gradient descent on soft targets; gives a function from features to probabilities."
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, .2, (x.shape[1], width)).astype(np.float32), rng.normal(0, .1, (width, t.shape[1])).astype(np.float32)
    def probs(x): z = np.maximum(x@a, 0)@b; e = np.exp(z - z.max(1, keepdims=True)); return e/e.sum(1, keepdims=True)
    for e in range(epochs):
        for i in np.array_split(rng.permutation(len(x)), len(x)//32):
            h = np.maximum(x[i]@a, 0)
            d = rate*(1 - e/epochs)*(probs(x[i]) - t[i])/len(i)
            da = x[i].T@((d@b.T)*(h > 0))
            b -= h.T@d; a -= da
    return probs

def plain(x, given, seed, epochs, form):
    "As `conv`, by `run_rounds` on the small network in numpy."
    f = x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(0)
    z = f@np.linalg.svd(f, full_matrices=False)[2][:64].T
    z = np.c_[z/z.std(0).max()*.7, np.ones(len(z))].astype(np.float32)
    fold, preds = fold_ids(given, 5, seed=seed), {}
    def fit(r, todo, targets):
        out = {}
        for k in todo:
            held = np.isin(fold, k)
            t = np.eye(10, dtype=np.float32)[given] if targets is None else targets[np.atleast_1d(k)[0]]
            out[k] = network(z[~held], t[~held], seed, epochs)(z[held])
        if np.ndim(todo[0]) == 0:
            p = np.empty((len(z), 10), np.float32)
            for k in todo: p[fold == k] = out[k]
            preds[r] = Predictions.from_arrays(given, p)
        return out
    used = run_rounds(given, fold, fit, 2, form == 'strict')
    return preds, used

def run(data, rate, seed, net, epochs):
    "Rows of one cell and seed."
    x, true = data
    given = SymmetricNoise(rate)(true, vocab=10, seed=seed)
    for form in ('strict', 'simple'):
        start = time.process_time()
        preds, used = dict(conv=conv, plain=plain)[net](x, given, seed, epochs, form)
        seconds = round(time.process_time() - start, 1)
        for r in (1, 2) if form == 'strict' else (2,):
            yield dict(form=form if r > 1 else 'one round', used=used if r > 1 else 1, **scores(preds[r], true), trainings=n_trainings(5, r, form == 'strict' and r > 1), cpu_seconds=seconds if r > 1 else None)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2]); p.add_argument('--cells', nargs='+', default=['digits-.2', 'mnist-.1', 'mnist-.4'])
    p.add_argument('--net', choices=('conv', 'plain'), default='conv'); p.add_argument('--epochs', type=int, help='default 8 for conv, 40 for plain')
    p.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.csv'))
    a = p.parse_args()
    epochs = a.epochs or dict(conv=8, plain=40)[a.net]
    for seed in a.seeds:
        for cell in a.cells:
            rows = pd.read_csv(a.out) if a.out.exists() else pd.DataFrame(columns=['cell', 'net', 'seed', 'epochs'])
            if ((rows.cell == cell) & (rows.net == a.net) & (rows.seed == seed) & (rows.epochs == epochs)).any(): continue
            name, rate = cell.split('-')
            data = dict(digits=digits, mnist=mnist)[name]()
            if data is None: print(f'{cell}: no data'); continue
            new = pd.DataFrame([dict(cell=cell, n=len(data[1]), net=a.net, seed=seed, epochs=epochs, **o) for o in run(data, float(rate), seed, a.net, epochs)])
            rows = pd.read_csv(a.out) if a.out.exists() else rows   # another cell may have come
            (pd.concat([rows, new]) if len(rows) else new).round(4).to_csv(a.out, index=False)
            print(f'{cell} seed {seed}:', *(f"{o.form} F1 {o.f1:.3f} AP {o.ap:.3f}" for o in new.itertuples()), sep='  ', flush=True)
    print('\nmean over seeds\n', pd.read_csv(a.out).groupby(['net', 'cell', 'form'])[['f1', 'ap', 'precision', 'recall', 'accuracy', 'used', 'cpu_seconds']].mean().round(3), sep='')

if __name__ == '__main__': main()

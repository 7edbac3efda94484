"""What rounds bring to `KFoldLearner`: wrong labels found after one round and after two, in the strict and in the simple form.

python benchmarks/rounds.py [--seeds 0 1 2] [--cells digits-.2 mnist-.1 mnist-.4] [--epochs 12] [--out benchmarks/rounds.csv]

A small convolutional network with label smoothing, five folds, symmetric noise. Rows are appended as they come, and those that are there are not made again.
MNIST is read from fastai's data folder (`mnist_png`, 2,000 images); where it is missing its cells are left out.
"""
import argparse, contextlib, io, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.data.all import Categorize, Config, Datasets
from fastai.learner import Learner
from fastai.losses import LabelSmoothingCrossEntropyFlat
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from fastclean.issues import find_label_issues
from fastclean.kfold import KFoldLearner
from fastclean.learners import small_net
from fastclean.noise import SymmetricNoise
from fastclean.rounds import n_trainings

def digits():
    "All 1,797 digits at 16 pixels, and their labels."
    d = load_digits()
    return torch.tensor(d.images/16, dtype=torch.float32).repeat_interleave(2, 1).repeat_interleave(2, 2), d.target

def mnist(n=2000):
    "Every 30th training image, and its label; None where there are none."
    root = Path(Config().data)/'mnist_png'/'training'
    files = sorted(root.glob('*/*.png'), key=lambda f: (int(f.stem), f.parent.name))[::30][:n]
    if not files: return None
    return torch.tensor(np.stack([np.asarray(Image.open(f)) for f in files])/255, dtype=torch.float32), np.array([int(f.parent.name) for f in files])

def learner(dls): return Learner(dls, small_net(10, width=8), loss_func=LabelSmoothingCrossEntropyFlat(eps=.1))

def scores(preds, given, true):
    "How well the wrong labels are found."
    issues = find_label_issues(preds)
    at = issues['item'].astype(int).to_numpy()
    wrong, found = (given != true)[at], issues.is_label_issue.to_numpy()
    hits = (wrong & found).sum()
    order = preds.items.astype(int)
    return dict(wrong=int(wrong.sum()), flagged=int(found.sum()), f1=2*hits/(wrong.sum() + found.sum()), precision=hits/max(found.sum(), 1), recall=hits/wrong.sum(),
                ap=average_precision_score(wrong, -issues.label_score), accuracy=(preds.predicted_label == true[order]).mean())

def run(x, true, rate, seed, epochs):
    "Rows of one cell and seed."
    given = SymmetricNoise(rate)(true, vocab=10, seed=seed)
    x = x[:, None].expand(-1, 3, -1, -1)
    dls = Datasets(range(len(x)), [[lambda i: x[i]], [lambda i: given[i], Categorize(vocab=range(10))]]).dataloaders(bs=32, num_workers=0)
    for form in ('strict', 'simple'):
        start = time.time()
        kf = KFoldLearner(dls, learner, rounds=2, strict=form == 'strict', seed=seed)
        def fit(learn):
            with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 5e-3)
        with contextlib.redirect_stdout(io.StringIO()): kf.run(fit)
        seconds, used, job = time.time() - start, kf.used_rounds, kf._job
        for r in (1, 2) if form == 'strict' else (2,):
            kf._job = replace(job, round=r)
            yield dict(form=form if r > 1 else 'one round', used=used if r > 1 else 1, **scores(kf.predictions(), given, true), trainings=n_trainings(5, r, form == 'strict' and r > 1), seconds=round(seconds) if r > 1 else None)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2]); p.add_argument('--cells', nargs='+', default=['digits-.2', 'mnist-.1', 'mnist-.4'])
    p.add_argument('--epochs', type=int, default=12); p.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.csv'))
    a = p.parse_args()
    for seed in a.seeds:
        for cell in a.cells:
            rows = pd.read_csv(a.out) if a.out.exists() else pd.DataFrame(columns=['cell', 'seed', 'epochs'])
            if ((rows.cell == cell) & (rows.seed == seed) & (rows.epochs == a.epochs)).any(): continue
            name, rate = cell.split('-')
            data = dict(digits=digits, mnist=mnist)[name]()
            if data is None: print(f'{cell}: no data'); continue
            new = pd.DataFrame([dict(cell=cell, n=len(data[1]), seed=seed, epochs=a.epochs, **o) for o in run(*data, float(rate), seed, a.epochs)])
            print(new.drop(columns=['n', 'wrong']).round(3).to_string(index=False, header=seed == a.seeds[0] and cell == a.cells[0]), flush=True)
            (pd.concat([rows, new]) if len(rows) else new).round(4).to_csv(a.out, index=False)
    rows = pd.read_csv(a.out)
    print('\nmean over seeds\n', rows.groupby(['cell', 'epochs', 'form'])[['f1', 'ap', 'precision', 'recall', 'accuracy', 'used', 'seconds']].mean().round(3), sep='')

if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

"""How often the interval of the noise rate holds the truth, on simulated populations.

    python benchmarks/intervals.py [--n 1000]

Each population has its own size, number of classes, unbalanced classes, noise (none, symmetric, pair, a random matrix) and rate, and a model of its own: how well it sees the true class, how
much of the noise it has learnt, and how over- or underconfident it is. Prints how often the interval of `noise_interval` holds the realised share of wrong labels, and its width.
"""
import argparse

import numpy as np
import pandas as pd

from fastclean.core import Predictions
from fastclean.health import noise_interval
from fastclean.noise import random_noise_matrix

def population(seed):
    "Predictions of a random model on random labels; the share of wrong labels; what they are."
    rng = np.random.default_rng(seed)
    n, K, kind, rate = int(rng.integers(500, 5000)), int(rng.choice([2, 3, 5, 10, 20])), rng.choice(['none', 'symmetric', 'pair', 'random']), rng.uniform(.01, .35)
    if kind == 'none': T = np.eye(K)
    elif kind == 'symmetric': T = np.full((K, K), rate/(K - 1)); np.fill_diagonal(T, 1 - rate)
    elif kind == 'pair': T = (1 - rate)*np.eye(K) + rate*np.roll(np.eye(K), 1, axis=1)
    else: T = random_noise_matrix(K, K*(1 - rate), seed=int(rng.integers(1 << 30)))
    true = rng.choice(K, n, p=rng.dirichlet(np.full(K, 10.)))
    given = (T[true].cumsum(1) > rng.random((n, 1))).argmax(1)
    strength, learnt, power = rng.uniform(2, 4), rng.uniform(0, 1), np.exp(rng.uniform(-.4, .4))
    z = strength*(strength*np.eye(K)[true] + rng.standard_normal((n, K)))
    p = np.exp(z - z.max(1, keepdims=True)); p /= p.sum(1, keepdims=True)   # calibrated on the true classes
    p = (learnt*p@T + (1 - learnt)*p)**power
    p /= p.sum(1, keepdims=True)
    return Predictions.from_arrays(given, p), float((given != true).mean()), dict(kind=kind, K=K, n=n, rate=rate, accuracy=float((p.argmax(1) == true).mean()))

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--n', type=int, default=1000)
    rows = []
    for seed in range(ap.parse_args().n):
        preds, truth, what = population(seed)
        r = noise_interval(preds)
        rows.append(dict(what, truth=truth, **{k: r[k] for k in ('rate', 'low', 'high')}))
    d = pd.DataFrame(rows)
    d['held'], d['width'] = (d.low <= d.truth) & (d.truth <= d.high), d.high - d.low
    d['above'] = d.truth > d.high
    print(d.groupby('kind')[['held', 'above', 'width', 'accuracy']].mean().round(3).to_string())
    print(d.groupby(pd.cut(d.accuracy, [0, .8, .9, .95, .99, 1]), observed=True)[['held', 'width']].mean().round(3).to_string())
    if (~d.held).any(): print(d[~d.held].round(4).to_string())
    print(f'{d.held.sum()} of {len(d)} intervals hold the truth ({d.held.mean():.1%}); mean width {d.width.mean():.3f}')

if __name__ == '__main__': main()

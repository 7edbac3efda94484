"""DivideMix and InstanceGM beside cross entropy, plain and tuned, and the best of the robust methods, under wrong labels of several kinds.

    python benchmarks/semisup.py run [--sets mnist cifar10] [--noises …] [--methods …] [--seeds 0 1 2] [--jobs 2] [--hours 12]
    python benchmarks/semisup.py table
    python benchmarks/semisup.py cost        # time and memory of an epoch, each method in a process of its own

Images, noise, network, schedule and number of epochs are those of methods.py: 5,000 training images (3,000 photographs at 64 pixels with `--sets imagenette-small --noises 'symmetric .5' 'margin .3' 'margin .4'`), a plain
convolutional network from scratch, tested on 2,500 images with right labels after each epoch. DivideMix and
InstanceGM train two such networks and count an epoch when both have seen their labelled items once; their settings are the package's. `last` is the accuracy after the last epoch, `auc` how well the training items with wrong
labels are told apart at the end: by the clean probability of DivideMix, else by the probability of the given label; `seconds` is processor time of the training alone, `seconds_before` what had to be trained before it (tuning,
out-of-fold predictions). A row of semisup.csv for each training, as it comes; rows that are there are not made again.
"""
import argparse, json, multiprocessing, resource, time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

import methods as base
from methods import EPOCHS, KEYS, LR

OUT = Path(__file__).with_name('semisup.csv')
NOISES = ['symmetric .5', 'margin .3', 'margin .4', 'human']
TWO = ['dividemix', 'instancegm']
REFERENCE = ['plain', 'tuned', 'gce', 'elr', 'reweight', 'clean-retrain']   # made here where asked for; else those of methods.csv

def data(name, noise, seed, work, n):
    "DataLoaders that know the truth, and which labels of the training items are wrong."
    dls, vocab, true, given = base.data(name, noise, seed, work, n)
    dls.noise = SimpleNamespace(frame=pd.DataFrame(dict(item=[str(i) for i in range(n)], true_label=[vocab[k] for k in true])))
    return dls, given != true

def quiet(learn, how):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(how['epochs'], how['lr'])

def two(method, dls, make, how, seed, watch, settings):
    "A training by DivideMix or InstanceGM; the probability that each label is right."
    import torch
    from fastclean.semisup.dividemix import DivideMix, train_dividemix
    from fastclean.semisup.instancegm import InstanceGM
    if method == 'instancegm': settings = dict(half=torch.ops.mkldnn._is_mkldnn_bf16_supported()) | settings   # as the networks have it
    dm = train_dividemix(dls, make, fit=partial(quiet, how=how), seed=seed, watch=watch, method=dict(dividemix=DivideMix, instancegm=InstanceGM)[method], **settings)
    return np.mean([d.prob for d in dm.co_divide.divide()], axis=0), dm.co_divide.history

def one(method, dls, make, how, seed, watch, preds):
    "A training by any other method; the probability of each given label."
    from fastclean.loaders import given_labels, learner_probs, plain_dl
    from fastclean.methods import train_robust
    learn = train_robust(dls, make, method, **how, preds=preds, seed=seed, watch=watch)
    y = given_labels(dls.train_ds)
    return learner_probs(learn, plain_dl(dls, dls.train_ds))[np.arange(len(y)), y], None

def run(name, noise, seed, method, work, n=None, epochs=EPOCHS, settings={}):
    "A row: one training."
    import torch
    from sklearn.metrics import roc_auc_score
    from fastclean.methods import METHODS as KNOWN
    torch.set_num_threads(1)
    most, make = base.sizes(name)[0], base.learner_of(name)
    n = min(n or most, most)
    dls, wrong = data(name, noise, seed, work, n)
    start, how, watch = time.process_time(), dict(epochs=epochs, lr=LR), base._History()
    if method == 'tuned': lr, k = base.tune(dls, make, seed, epochs, n < most); how = dict(lr=lr, epochs=max(1, k*epochs//EPOCHS))
    preds = base.predictions(dls, (name, noise, n, seed), work) if method in KNOWN and KNOWN[method].needs_preds else None
    ready = time.process_time()
    if method in TWO: right, history = two(method, dls, make, how, seed, watch, settings)
    else: right, history = one('plain' if method == 'tuned' else method, dls, make, how, seed, watch, preds)
    last = {} if history is None else {k: round(float(history[k].iloc[-2:].mean()), 4) for k in ('n_labelled', 'labelled_right')}
    return dict(set=name, noise=noise, seed=seed, method=method, wrong=round(float(wrong.mean()), 4), last=round(watch.acc[-1], 4), best=round(max(watch.acc), 4), auc=round(float(roc_auc_score(wrong, -right)), 4), **last,
                seconds=round(time.process_time() - ready, 1), seconds_before=round(ready - start, 1), settings=json.dumps(how | settings), history=' '.join(f'{o:.4f}' for o in watch.acc))

def make(a):
    keys = [(d, o, s, m) for s in a.seeds for m in a.methods for d in a.sets for o in a.noises]
    base.make_rows(a, keys, partial(run, work=a.work, n=a.n, epochs=a.epochs, settings=a.settings), ('last', 'best', 'auc', 'seconds'))
    table(a)

def table(a):
    d = pd.read_csv(a.out)
    if base.OUT.exists():
        other = pd.read_csv(base.OUT)
        other = other[other.method.isin(REFERENCE) & other[['set', 'noise']].apply(tuple, axis=1).isin(set(zip(d.set, d.noise)))]
        d = pd.concat([d, other]).drop_duplicates(KEYS)
    d['cell'] = d.set + ' ' + d.noise
    about = lambda v: f'{v.mean():.3f}' + (f' ± {1.96*v.std()/len(v)**.5:.3f}' if len(v) > 1 else '')
    for c in ('last', 'auc', 'seconds'): print(f'\n{c}: mean over seeds and its 95 % interval\n' + d.dropna(subset=c).pivot_table(index='method', columns='cell', values=c, aggfunc=about).fillna('').to_string())

def _cost(method, epochs, work, n):
    return run('cifar10', 'symmetric .5', 100, method, work, n, epochs, settings=dict(warmup=0) if method in TWO else {})['seconds'], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

def cost(a):
    "Seconds of an epoch, as the difference of two trainings, and the largest resident size of the process."
    a.work.mkdir(parents=True, exist_ok=True)
    fresh = lambda *o: multiprocessing.get_context('spawn').Pool(1).apply(_cost, (*o, a.work, a.n))
    got = {m: (fresh(m, 1), fresh(m, 3)) for m in ('plain', 'dividemix', 'instancegm')}
    d = pd.DataFrame({m: dict(seconds_per_epoch=(b[0] - o[0])/2, memory_mb=b[1]) for m, (o, b) in got.items()}).T
    print(d.assign(times_plain=d.seconds_per_epoch/d.seconds_per_epoch['plain']).round(2).to_string())

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'table', 'cost'])
    p.add_argument('--sets', nargs='*', default=['mnist', 'cifar10'])
    p.add_argument('--noises', nargs='*', default=NOISES)
    p.add_argument('--methods', nargs='*', default=TWO, help=f'and any of methods.py, as {" ".join(REFERENCE)}')
    p.add_argument('--seeds', nargs='*', type=int, default=range(3))
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--hours', type=float, default=12, help='begin no training after so many hours')
    p.add_argument('--n', type=int, help='training images, for a smaller grid')
    p.add_argument('--epochs', type=int, default=EPOCHS, help='for a smaller grid')
    p.add_argument('--settings', type=json.loads, default={}, help='of DivideMix and InstanceGM, as JSON, for tuning on other seeds')
    p.add_argument('--out', type=Path, default=OUT)
    p.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-benchmark/methods').expanduser(), help='folder for what several trainings share')
    a = p.parse_args()
    dict(run=make, table=table, cost=cost)[a.what](a)

if __name__ == '__main__': main()

"""What losses and callbacks add to a training step of a small convolutional network, and how much memory the record of `TrainingDynamics` takes.

    python benchmarks/overhead.py [--rounds 9] [--steps 8]
    python benchmarks/overhead.py --only TrainingDynamics --rounds 25     # one more closely

Images of 64 × 64 pixels in memory, batches of 64, the small network of `fastclean find`, one thread. In each round every variant trains the same batches once, in an order drawn anew, between two trainings
by plain cross entropy; the overhead is the median over the rounds of its processor time over the mean of those two. `plain again` is plain training in the place of a variant: what is noise. Processor time (`time.process_time`), so that other programs of the machine disturb little. Of the callbacks, `own` is the
time inside their own methods over that of the rest of the same trainings, which hardly any noise reaches; it leaves out what they make the backward pass do, which the noise layers do.
"""
import argparse, gc, sys, time, warnings
from functools import partial

import numpy as np
import pandas as pd
import torch
import fastai.callback.progress   # no_bar
from fastai.data.all import Categorize, Datasets
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat

from fastclean.callback.dynamics import TrainingDynamics, trajectory_noise
from fastclean.callback.elr import ELR
from fastclean.callback.joint import JointOptimization
from fastclean.callback.noise_layers import NNAQC, InstanceTransition, NoiseAdaptation
from fastclean.learners import small_net
from fastclean.losses import LOSSES, BackwardCorrection, ForwardCorrection, LogWeightedCorrection
from fastclean.targets import SoftTargets

K, BS, SIZE = 10, 64, 64
T = np.full((K, K), .02) + .8*np.eye(K)

def dataloaders(n):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, SIZE, SIZE, generator=g)
    ds = Datasets(range(n), [[lambda i: x[i]], [lambda i: i % K, Categorize(vocab=range(K))]], splits=[range(n), []])
    return ds.dataloaders(bs=BS, num_workers=0)

def variants(n):
    "Name -> loss and callbacks of a training."
    known = (ForwardCorrection, BackwardCorrection, LogWeightedCorrection)
    losses = {f'loss {k}': (partial(f, T) if f in known else f, ()) for k, f in LOSSES.items()}
    layers = {type(cb()).__name__: (CrossEntropyLossFlat, (cb,)) for cb in (TrainingDynamics, ELR, JointOptimization, NoiseAdaptation, NNAQC, InstanceTransition)}
    return losses | layers | dict(SoftTargets=(CrossEntropyLossFlat, (partial(SoftTargets, np.full((n, K), 1/K)),)))

def seconds(dls, loss, cbs):
    "Processor time of one epoch."
    torch.manual_seed(0)
    learn = Learner(dls, small_net(K), loss_func=loss(), cbs=[cb() for cb in cbs])
    learn.create_opt()
    with learn.no_bar(), learn.no_logging():
        start = time.process_time(); learn.fit(1, 1e-3); took = time.process_time() - start
    del learn; gc.collect()   # a learner and its callbacks hold each other, and the last loss its graph: a hundred megabytes
    return took

def own(dls, loss, cbs, rounds):
    "Time in the methods of callbacks over that of the rest of their trainings."
    inside, made = [], [cb() for cb in cbs]
    for cb in made:
        def timed(event, cb=cb, call=type(cb).__call__):
            start = time.process_time(); got = call(cb, event); inside.append(time.process_time() - start)
            return got
        cb.__class__ = type(type(cb).__name__, (type(cb),), dict(__call__=lambda self, event, timed=timed: timed(event)))
    total = sum(seconds(dls, loss, [lambda cb=cb: cb for cb in made]) for _ in range(rounds))
    return sum(inside)/(total - sum(inside))

def overheads(rounds, steps, only):
    n = steps*BS
    dls, todo = dataloaders(n), {k: v for k, v in variants(n).items() if not only or k in only}
    plain = lambda: seconds(dls, CrossEntropyLossFlat, ())
    plain(); rng, ratio, base = np.random.default_rng(0), {k: [] for k in ['plain again', *todo]}, []
    for r in range(rounds):
        before = plain()
        for k in rng.permutation(list(ratio)):
            took = plain() if k == 'plain again' else seconds(dls, *todo[k])
            after = plain()
            ratio[k].append(2*took/(before + after) - 1); base.append(after/steps); before = after
        print(f'round {r + 1} of {rounds}: a plain step takes {1e3*np.median(base[-len(ratio):]):.1f} ms', file=sys.stderr)
    d = pd.DataFrame({k: np.percentile(v, [50, 25, 75]) for k, v in ratio.items()}, index=['median', 'quarter', 'three quarters']).T
    d['own'] = [own(dls, *todo[k], rounds) if k in todo and todo[k][1] else np.nan for k in d.index]
    return d, np.median(base)

def memory(n=1_000_000, epochs=2):
    "Bytes of a record of a million items, and what it takes to sum it up."
    dyn = TrainingDynamics()
    dyn.names, dyn.vocab, dyn.given = np.array([f'train/class/{i:07d}.jpg' for i in range(n)], dtype=object), list(range(K)), np.full(n, -1)
    rng = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(n, generator=rng)
        dyn._parts = [(o, o % K, torch.rand(len(o), 3)) for o in order.split(BS)]
        start = time.process_time(); dyn.after_train(); flush = time.process_time() - start
    start = time.process_time(); dyn.scores(); scores = time.process_time() - start
    return dict(mb_per_epoch=dyn.records[0].nbytes/1e6, mb_labels=dyn.given.nbytes/1e6, mb_names=(dyn.names.nbytes + sum(map(sys.getsizeof, dyn.names)))/1e6, seconds_end_of_epoch=flush, seconds_scores=scores)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--rounds', type=int, default=9)
    ap.add_argument('--steps', type=int, default=8)
    ap.add_argument('--only', nargs='*', help='some variants; default all')
    args = ap.parse_args()
    warnings.simplefilter('ignore'); torch.set_num_threads(1)
    d, step = overheads(args.rounds, args.steps, args.only)
    print(f'a plain step of {BS} images of {SIZE} px: {1e3*step:.1f} ms of processor time\n')
    print((100*d).round(1).astype(str).add(' %').to_string())
    print('\na million items: ' + ', '.join(f'{k} {v:.1f}' for k, v in memory().items()))

if __name__ == '__main__': main()

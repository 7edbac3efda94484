"""A script of several processes that train each fold together, as `torchrun` starts it: `python tests/together.py OUT CACHE`. Without WORLD_SIZE, one process trains alone."""
import os, sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from fastai.data.all import Categorize, Datasets, RandomSplitter
from fastai.distributed import DistributedDL   # and `Learner.distrib_ctx`
from fastai.learner import Learner
from sklearn.datasets import load_digits
from torch import nn

from fastclean.identity import as_array, digest
from fastclean.kfold import KFoldLearner

def on_the_cpu(self, t, rank):
    "fastai's own moves the numbers to a GPU first."
    t = torch.tensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()

torch.set_num_threads(1)
DistributedDL._broadcast = on_the_cpu
out, cache, several = Path(sys.argv[1]), Path(sys.argv[2]), 'WORLD_SIZE' in os.environ
if several: torch.distributed.init_process_group('gloo')
digits = load_digits()
def pixels(i): return torch.tensor(digits.images[i]/16, dtype=torch.float32)
def label(i): return str(digits.target[i])
def learner(dls): return Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, dls.c)))
dls = Datasets(range(600), [[pixels], [label, Categorize(vocab=list('0123456789'))]], splits=RandomSplitter(.2, seed=0)(range(600))).dataloaders(bs=16, num_workers=0, device='cpu')
weights = []
def fit(learn):
    with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(cpu=True) if several else nullcontext(): learn.fit_one_cycle(5, 1e-2)
    weights.append(digest(*[as_array(o) for o in learn.model.state_dict().values()]))
p = KFoldLearner(dls, learner, n_splits=3, cache=None if cache.name == 'none' else cache, tag='together').run(fit).predictions()
np.savez(out/f"{os.environ.get('RANK', 'alone')}.npz", probs=p.pred_probs, items=p.items.astype(str), given=p.given_label, weights=weights)
if several: torch.distributed.barrier(); torch.distributed.destroy_process_group()   # the first one's folder goes with it

"Gradual unfreezing: every parameter in one group, stages that add up, rates that move only what they should; the learner is its own again afterwards."
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.torch_core import params
from fastcore.basics import noop
from torch import nn
from torch.utils.data import TensorDataset

from fastclean.kfold import KFoldLearner
from fastclean.losses import GeneralizedCrossEntropy
from fastclean.recipe import GradualCall, _smoothed, unfreezing_groups, unfreezing_stages

torch.set_num_threads(1)
X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()

def loaders():
    dls = DataLoaders(*[DataLoader(TensorDataset(X, Y), bs=8, shuffle=not i, num_workers=0) for i in range(2)])
    dls.vocab = ['a', 'b']
    return dls

class Wrapped(nn.Module):
    "A network as libraries build them: a parameter of its own, a container of blocks, a norm."
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(6))
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(6)])
        self.norm = nn.BatchNorm1d(6)
    def forward(self, x): return self.norm(self.blocks(x + self.token))

def body_head(m): return [params(m[0]), params(m[1])]
def learner(splitter=body_head, **kw): return Learner(loaders(), nn.Sequential(Wrapped(), nn.Linear(6, 2)), splitter=splitter, **{'loss_func': CrossEntropyLossFlat(), **kw})
def plain_learner(dls): return Learner(dls, nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), loss_func=CrossEntropyLossFlat())

def quietly(learn, *args, **kw):
    with learn.no_bar(), learn.no_logging(): return learn.fine_tune_gradual(*args, **{'sink': noop, **kw})

class Seen(Callback):
    "Which groups were trained in each epoch, with which highest rates, under which loss."
    order = 70 # after the scheduler
    def before_fit(self): self.log = getattr(self, 'log', [])
    def before_epoch(self): self.log.append(dict(first=self.opt.frozen_idx, groups=len(self.opt.param_lists), lr=[], loss=self.loss_func, free=sum(p.requires_grad for p in self.model.parameters())))
    def before_batch(self):
        if self.training: self.log[-1]['lr'].append([h['lr'] for h in self.opt.hypers])

@pytest.mark.parametrize('groups', [2, 3, 4, 8, 50])
@pytest.mark.parametrize('splitter', [body_head, params])
def test_each_parameter_in_one_group(groups, splitter):
    learn = learner(splitter)
    g = unfreezing_groups(learn, groups)
    assert sorted(id(p) for o in g for p in o) == sorted(map(id, learn.model.parameters()))
    assert all(g) and len(g) <= max(groups, 2)
    assert {id(p) for p in g[-1]} == set(map(id, learn.model[1].parameters()))

def test_groups_follow_the_blocks_from_the_input():
    learn = learner()
    first, second, third, head = unfreezing_groups(learn, 4)
    where = {id(p): n for n, p in learn.model.named_parameters()}
    assert where[id(first[0])] == '0.token'
    at = [[int(where[id(p)].split('.')[2]) for p in g if 'blocks' in where[id(p)]] for g in (first, second, third)]
    assert max(at[0]) < min(at[1]) and max(at[1]) < min(at[2]) and sorted(sum(at, [])) == sorted([*range(6)]*2)

def test_own_groups_stay():
    split = lambda m: [params(m[0].blocks[:3]), params(m[0].blocks[3:]), params(m[0].norm), params(m[1])]
    learn = learner(split)
    assert [[id(p) for p in g] for g in unfreezing_groups(learn, 9)] == [[id(p) for p in g] for g in split(learn.model)]

def test_parameters_that_the_splitter_leaves_out_stay_out():
    learn = learner(lambda m: [params(m[0].blocks), params(m[1])])
    assert not {id(learn.model[0].token), *map(id, learn.model[0].norm.parameters())} & {id(p) for g in unfreezing_groups(learn) for p in g}

def test_one_part_is_one_group():
    learn = Learner(loaders(), nn.Linear(6, 2), loss_func=CrossEntropyLossFlat())
    assert [len(g) for g in unfreezing_groups(learn)] == [2]
    assert unfreezing_stages([14], 2)[['from_group', 'epochs']].values.tolist() == [[0, 3]]
    quietly(learn, 1)

@pytest.mark.parametrize('n', range(1, 7))
@pytest.mark.parametrize('epochs', range(0, 9))
@pytest.mark.parametrize('freeze', [0, 1, 2])
def test_epochs_add_up(n, epochs, freeze):
    s = unfreezing_stages([1]*n, epochs, freeze_epochs=freeze)
    assert s.epochs.sum() == epochs + freeze
    assert (s.epochs > 0).all() and (np.diff(s.from_group) < 0).all()
    if epochs: assert s.from_group.iloc[-1] == 0

def test_wrong_epochs():
    for bad in (-1, 1.5, None):
        with pytest.raises(ValueError, match='whole numbers'): unfreezing_stages([1, 1], bad)

def test_what_is_trained_when():
    learn, seen = learner(), Seen()
    quietly(learn, 4, base_lr=1e-2, cbs=seen)
    assert [o['first'] for o in seen.log] == [3, 2, 1, 0, 0] and {o['groups'] for o in seen.log} == {4}
    lr = [np.array(o['lr']) for o in seen.log]
    for l in lr[1:]: assert np.allclose(l/l[:, 3:], [[.01, .01*100**(1/3), .01*100**(2/3), 1]])   # the head's, in equal factors
    assert .7e-2 < lr[0][:, 3].max() <= 1e-2 and all(.35e-2 < l[:, 3].max() <= .5e-2 for l in lr[1:4])
    assert all(type(o['loss']) is LabelSmoothingCrossEntropyFlat and o['loss'].func.eps == .1 for o in seen.log)

def test_frozen_weights_do_not_move():
    learn = learner(train_bn=False)
    low = learn.model[0].blocks[0][0].weight
    before = low.detach().clone()
    quietly(learn, 0, freeze_epochs=2)
    assert torch.equal(low, before)
    quietly(learn, 1)
    assert not torch.equal(low, before)

@pytest.mark.parametrize('stop', [KeyboardInterrupt, ValueError, CancelFitException])
def test_own_again(stop):
    class Stop(Callback):
        n = 0
        def after_batch(self):
            self.n += 1
            if self.n == 10: raise stop('enough')
    learn = learner(params)
    loss, splitter = learn.loss_func, learn.splitter
    try: quietly(learn, 3, cbs=Stop())
    except (KeyboardInterrupt, ValueError): pass
    assert learn.loss_func is loss and learn.splitter is splitter and len(learn.opt.param_lists) == 1
    assert all(p.requires_grad for p in learn.model.parameters()) and len(learn.opt.param_lists[0]) == len(list(learn.model.parameters()))
    pickle.dumps(learn.loss_func)
    quietly(learn, 1)

def test_class_weights_and_axis_are_kept():
    w = torch.tensor([1., 3.])
    got = _smoothed(CrossEntropyLossFlat(weight=w), .2)
    assert torch.equal(got.func.weight, w) and got.axis == -1 and _smoothed(CrossEntropyLossFlat(axis=1), .2).axis == 1 and got.func.eps == .2
    x, y = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    logp = x.log_softmax(1)
    hand = .2*-logp.mean(1).mean() + .8*-(w[y]*logp[range(5), y]).sum()/w[y].sum()
    assert torch.allclose(got(x, y), hand)
    assert torch.equal(_smoothed(GeneralizedCrossEntropy(weight=[1, 3]), .1).func.weight, w)

def test_losses_that_are_not_smoothed():
    learn = learner(loss_func=BCEWithLogitsLossFlat())
    with pytest.raises(ValueError, match='label_smoothing=0'): learn.fine_tune_gradual(1)
    with pytest.raises(ValueError, match='between 0 and 1'): learner().fine_tune_gradual(1, label_smoothing=1.)
    seen, learn = Seen(), learner(loss_func=GeneralizedCrossEntropy())
    quietly(learn, 1, label_smoothing=0, cbs=seen)
    assert all(o['loss'] is learn.loss_func for o in seen.log)

def test_summary_comes_first():
    said, learn = [], learner()
    class First(Callback):
        def before_fit(self): assert len(said) == 1
    quietly(learn, 2, sink=said.append, cbs=First())
    lines = said[0].splitlines()
    assert '4 groups' in lines[0] and 'label smoothing 0.1 in the place of CrossEntropyLoss' in lines[0] and len(lines) == 2 + 3
    assert 'the head' in lines[2] and 'everything' in lines[-1]

def test_in_folds():
    kf = KFoldLearner(loaders(), plain_learner, n_splits=3)
    with_call = kf.fine_tune_gradual(2, base_lr=.05).predictions()
    by_hand = KFoldLearner(loaders(), plain_learner, n_splits=3).run(partial(quietly, epochs=2, base_lr=.05)).predictions()
    assert np.allclose(with_call.pred_probs, by_hand.pred_probs, atol=1e-6)
    assert str(kf._job.call) == 'fine_tune_gradual(2, base_lr=0.05)'
    assert pickle.loads(pickle.dumps(GradualCall('fine_tune_gradual', (2,)))).identity()['epochs'] == '2'

def test_in_rounds():
    preds = KFoldLearner(loaders(), plain_learner, n_splits=3, rounds=2, strict=False).fine_tune_gradual(2, base_lr=.05).predictions()
    assert len(preds) == 2*len(X)

"DivideMix and InstanceGM: one step by hand, what learns from what, stops and kills, and data that the method has no answer to."
import multiprocessing, os, signal, warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import fastai.callback.fp16
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import Learner
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip
from fastai.data.all import Categorize, Datasets
from fastai.learner import load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from fastai.tabular.all import Categorify, TabularDataLoaders
from fasttransform import ItemTransform
from torch import nn

from fastclean.callback.checkpoint import Checkpoint
from fastclean.core import FastcleanWarning
from fastclean.foldtask import repeatable
from fastclean.frozen import array_dls
from fastclean.issues import COLUMNS
from fastclean.loaders import plain_dl
from fastclean.semisup import codivide
from fastclean.semisup.codivide import CoDivide, TwoNetworks
from fastclean.semisup.dividemix import DivideMix, train_dividemix
from fastclean.semisup.graphical import GraphicalModel, UnitImages
from fastclean.semisup.instancegm import InstanceGM
from fastclean.semisup.mixture import GUARDS, clean_probs, divide, evaluating, item_losses
from fastclean.semisup.views import Step, planned_dl

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings('ignore')

class Shake(ItemTransform):
    "An augmentation that draws once for a batch."
    split_idx = 0
    def encodes(self, b): return (b[0] + torch.randn(1)*.3, *b[1:])

def blobs(n=60, valid=20, shape=(4,), K=3, wrong=.3, seed=0):
    "Separable items with some wrong labels, and their truth."
    rng = np.random.default_rng(seed)
    y = np.arange(n + valid) % K
    x = rng.normal(size=(n + valid, *shape)) + 2.5*np.eye(K, int(np.prod(shape)))[y].reshape(-1, *shape)
    given = np.where((rng.random(n + valid) < wrong) & (np.arange(n + valid) < n), (y + 1) % K, y)
    return torch.tensor(x).float(), given, y, np.repeat(['train', 'valid'], [n, valid])

def make_dls(bs=16, tfms=(Shake(),), truth=True, **kwargs):
    x, given, y, split = blobs(**kwargs)
    dls = array_dls(x, given, split, bs=bs, batch_tfms=list(tfms))
    if truth: dls.noise = SimpleNamespace(frame=pd.DataFrame(dict(item=[str(i) for i in range(len(y))], true_label=y)))
    return dls

def linear(dls, **kwargs):
    d, K = dls.train_ds[0][0].numel(), len(dls.vocab)
    return Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(d, K)), loss_func=CrossEntropyLossFlat(), metrics=accuracy, **kwargs)

def conv(dls):
    x = dls.train_ds[0][0]
    return Learner(dls, nn.Sequential(nn.Conv2d(x.shape[0], 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(dls.vocab))), loss_func=CrossEntropyLossFlat(), metrics=accuracy)

def quiet(learn, epochs=3, lr=1e-2, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr, **kwargs)
    return learn

# one step, all of it, in numpy

def softmax(z): e = np.exp(z - z.max(1, keepdims=True)); return e/e.sum(1, keepdims=True)

def np_mixture(losses):
    "Two Gaussians by expectation–maximisation from the best split: the probability of the lower one."
    x = (losses - losses.min())/np.ptp(losses)
    cut = min(np.sort(x)[:-1], key=lambda c: x[x <= c].var()*(x <= c).sum() + x[x > c].var()*(x > c).sum())
    r, last = np.stack([x <= cut, x > cut], 1).astype(float), -np.inf
    for _ in range(10):
        n = r.sum(0) + 10*np.finfo(float).eps
        mean = (r*x[:, None]).sum(0)/n
        var = (r*(x[:, None] - mean)**2).sum(0)/n + 5e-4
        joint = n/len(x)*np.exp(-(x[:, None] - mean)**2/2/var)/np.sqrt(2*np.pi*var)
        bound = np.log(joint.sum(1)).mean()
        # the bound of a step is taken before its means: sklearn compares the expectation of the step before
        new = joint/joint.sum(1, keepdims=True)
        if abs(bound - last) < 1e-2: break
        r, last = new, bound
    return new[:, mean.argmin()]

def np_step(W, b, x, t, n, weight):
    "Gradient of the loss of MixMatch by hand."
    K, N = t.shape[1], len(x)
    p = softmax(x@W.T + b)
    g = np.zeros_like(p)
    g[n:] += weight*2*(p[n:] - t[n:])/((N - n)*K)
    g -= (1/K)/p.mean(0)/N
    dz = p*(g - (g*p).sum(1, keepdims=True))
    dz[:n] += (p[:n] - t[:n])/n
    loss = -(t[:n]*np.log(p[:n])).sum(1).mean() + weight*((p[n:] - t[n:])**2).mean() + (np.log(1/K) - np.log(p.mean(0))).mean()
    return loss, dz.T@x, dz.sum(0)

@pytest.mark.parametrize('weight', [0., 15.])
def test_one_step_of_eight_items(monkeypatch, weight):
    x = torch.tensor([[2., .1], [1.5, -.2], [1.8, .4], [-.1, 2.1], [.3, 1.7], [.2, 1.9], [1.9, 0.], [-.2, 2.]])
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0])   # the last two are wrong
    dls = array_dls(torch.cat([x, x]), np.r_[y, y], ['train']*8 + ['valid']*8, bs=8, batch_tfms=[Shake()])
    torch.manual_seed(3)
    dm = DivideMix(dls, lambda dls: linear(dls, opt_func=partial(SGD, mom=0.), wd=0.), warmup=0, length=4, lambda_u=30., bs=8)
    dm.co_divide.trained, dm.co_divide.warmed = round(weight*4/30), 0   # epochs on the ramp so far
    with torch.no_grad():
        for k, net in enumerate(dm.model.nets): net[1].weight.copy_(torch.tensor([[1., -1], [-1, 1.]])*(.8 + .3*k)); net[1].bias.copy_(torch.tensor([.1, -.1])*k)
    nets = [[o.detach().numpy().astype(float) for o in net.parameters()] for net in dm.model.nets]
    seen, perms, randperm = [], [], torch.randperm
    monkeypatch.setattr(codivide, 'draw_lambda', lambda alpha: .7)
    monkeypatch.setattr(torch, 'randperm', lambda n: (perms.append(randperm(n)), perms[-1])[1])
    class Before(Callback):
        order = CoDivide.order - 1
        def before_batch(self):
            if self.training: seen.append(self.xb[0].clone().numpy().astype(float))
    class After(Callback):
        order = CoDivide.order + 1
        def after_loss(self):
            if self.training: seen.append((self.co_divide.step, self.loss_grad.item(), perms[-1].numpy()))
    with dm.no_bar(), dm.no_logging(): dm.fit(1, .5, cbs=[Before(), After()])
    ce = [-np.log(softmax(x.numpy().astype(float)@W.T + b)[np.arange(8), y]) for W, b in nets]
    prob = [np_mixture(o) for o in ce]
    assert len(seen) == 4 and dm.co_divide.history.weight.tolist() == [weight]*2   # a step for each network
    for k, (views, (step, loss, perm)) in enumerate(zip(seen[::2], seen[1::2])):
        w = prob[1 - k]   # of the other network
        lab, unl = step.labelled, step.unlabelled
        assert step.net == k and set(lab) == set(np.flatnonzero(w > .5)) and set(unl) == set(np.flatnonzero(w <= .5)) == {6, 7}
        l, n = len(lab), 8
        v1, v2 = views[:n], views[n:]
        assert np.abs(v1 - x.numpy()[step.items] - (v1 - x.numpy()[step.items])[0, 0]).max() < 1e-6 and np.abs(v1 - v2).max() > 1e-3
        own, other = ([softmax(v@W.T + b) for v in (v1, v2)] for W, b in (nets[k], nets[1 - k]))
        refined = w[lab, None]*np.eye(2)[y[lab]] + (1 - w[lab, None])*(own[0][:l] + own[1][:l])/2
        guessed = (own[0][l:] + own[1][l:] + other[0][l:] + other[1][l:])/4
        refined, guessed = (o**2/(o**2).sum(1, keepdims=True) for o in (refined, guessed))
        xs, ts = np.concatenate([v1[:l], v2[:l], v1[l:], v2[l:]]), np.concatenate([refined, refined, guessed, guessed])
        xs, ts = (.7*o + .3*o[perm] for o in (xs, ts))
        expected, dW, db = np_step(*nets[k], xs, ts, 2*l, weight)
        assert abs(loss - expected) < 1e-5
        nets[k] = [nets[k][0] - .5*dW, nets[k][1] - .5*db]
        for a, p in zip(nets[k], dm.model.nets[k].parameters()): assert np.abs(a - p.detach().numpy()).max() < 1e-5

def test_mixture_by_hand():
    rng = np.random.default_rng(1)
    losses = np.r_[rng.normal(.3, .05, 60), rng.normal(2., .1, 40)]
    w, mix = clean_probs(losses)
    assert np.abs(w - np_mixture(losses)).max() < 1e-6
    x = (losses - losses.min())/np.ptp(losses)
    assert np.allclose(mix['means'], [x[:60].mean(), x[60:].mean()], atol=1e-3) and np.allclose(mix['weights'], [.6, .4], atol=1e-3)
    wide = np.r_[rng.normal(.3, .02, 50), rng.normal(.5, .6, 50).clip(0)]
    w, mix = clean_probs(wide)
    x = (wide - wide.min())/np.ptp(wide)
    assert (np.diff(w[np.argsort(x)][np.sort(x) > mix['means'][1]]) <= 1e-12).all()   # the highest losses are never trusted more again

# what learns from what

def test_gradients():
    dls = make_dls(shape=(1, 8, 8), bs=8)
    for cls in (DivideMix, InstanceGM):
        gm, seen = cls(dls, conv, warmup=0), []
        class Look(Callback):
            order = CoDivide.order + 1
            def before_batch(self):
                if self.training: assert not self.co_divide.targets.requires_grad and not self.xb[0].requires_grad
            def before_step(self):
                if self.training: k = self.model.turn; seen.append([any(p.grad is not None and p.grad.any() for p in net.parameters()) for net in (self.model.nets[k], self.model.nets[1 - k])])
        quiet(gm, 1, cbs=Look())
        assert seen and all(o == [True, False] for o in seen)
        assert gm.co_divide.rows[-1]['n_unlabelled'] > 0

@pytest.mark.slow
def test_the_graphical_model_teaches_the_network():
    def reach(**weights):
        got = []
        class Grad(Callback):
            order = CoDivide.order + 1
            def before_step(self):
                if not self.training: return
                cb, net = self.co_divide, self.model.nets[self.model.turn]
                terms = cb.graphs[self.model.turn](cb.unit(cb.view), net(cb.view), torch.as_tensor(cb._y[cb.step.items]))
                got.append(sum(g.abs().sum().item() for g in torch.autograd.grad(sum(weights[k]*terms[k] for k in weights), list(net.parameters()), allow_unused=True) if g is not None))
        quiet(InstanceGM(make_dls(shape=(3, 8, 8), bs=8), conv, warmup=0), 1, cbs=Grad())
        return got
    for term in ('image', 'given', 'classes', 'latent'): assert min(reach(**{term: 1.})) > 0

def test_every_batch_moves_the_graphical_model():
    gm, moved = InstanceGM(make_dls(shape=(1, 8, 8), bs=8), conv, warmup=1), []
    class Look(Callback):
        order = CoDivide.order + 1
        def before_batch(self): self.old = [[p.detach().clone() for p in g.parameters()] for g in self.co_divide.graphs] if self.training else None
        def after_batch(self):
            if self.training: moved.append((self.co_divide.warm, self.model.turn, [any((a != b).any() for a, b in zip(old, g.parameters())) for old, g in zip(self.old, self.co_divide.graphs)]))
    quiet(gm, 2, cbs=Look())
    assert {(k, *m) for warm, k, m in moved if warm} == {(0, False, False), (1, False, False)}
    assert {(k, *m) for warm, k, m in moved if not warm} == {(0, True, False), (1, False, True)}

def test_the_graphical_model_in_bfloat16():
    x, logits, y = torch.rand(16, 3, 32, 32), torch.randn(16, 3, requires_grad=True), torch.arange(16) % 3
    def terms(half):
        torch.manual_seed(0)
        return GraphicalModel(3, 3, half=half)(x, logits, y)
    full, half = terms(False), terms(True)
    for k, v in half.items(): assert v.dtype == torch.float32 and abs(v - full[k]) < .02*(1 + abs(full[k]))
    assert half['given'] != full['given']   # it is another arithmetic
    sum(half.values()).backward()
    assert logits.grad.isfinite().all() and logits.grad.any()
    quiet(InstanceGM(make_dls(shape=(3, 8, 8), bs=8), conv, warmup=0, half=True), 1)

def test_evaluating_restores_each_layer():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    net.train(); net[0].eval()
    with evaluating(net): assert not net.training and not net[1].training and not torch.is_grad_enabled()
    assert net.training and net[1].training and not net[0].training

def test_losses_are_of_the_items_in_order():
    dls = make_dls(tfms=[Shake()])
    learn = linear(dls)
    a, b = (item_losses([learn.model], plain_dl(dls, dls.train_ds, bs=bs)) for bs in (7, 60))
    x = torch.stack([dls.train_ds[i][0] for i in range(60)]).as_subclass(torch.Tensor)
    y = torch.tensor([int(dls.train_ds[i][1]) for i in range(60)])
    assert np.allclose(a, b, atol=1e-6) and np.allclose(a[0], F.cross_entropy(learn.model(x), y, reduction='none').detach(), atol=1e-5)

# with fastai

@pytest.mark.parametrize('cls', [DivideMix, InstanceGM])
def test_a_whole_training(cls, tmp_path):
    dls = make_dls(shape=(1, 8, 8), n=120, bs=16)
    with repeatable(0): dm = quiet(cls(dls, conv, warmup=1), 3, 2e-2)
    h = dm.co_divide.history
    assert h.phase.tolist() == ['warm-up']*2 + ['divided']*4 and h.network.tolist() == [0, 1]*3
    assert {'labelled', 'unlabelled', 'prior', 'weight', 'loss', 'n_labelled', 'auc', 'labelled_right', 'mean_0', 'valid_loss', 'accuracy'} <= set(h)
    issues = dm.issues()
    assert list(issues.columns) == list(COLUMNS) and len(issues) == 120 and issues.label_score.between(0, 1).all()
    assert set(issues.certainty[issues.is_label_issue]) <= {'obvious', 'possible'} and (issues.certainty[~issues.is_label_issue] == '').all()
    p = dm.get_preds()[0]
    a, b = (o.get_preds(act=lambda z: z)[0] for o in dm.learners)
    assert torch.allclose(p, (a + b).softmax(1), atol=1e-5)
    dm.learners[1].export(tmp_path/'one.pkl')
    dm.plot_division(); dm.plot_history()
    dm.save(tmp_path/'m'); other = cls(dls, conv).load(tmp_path/'m')
    assert torch.allclose(other.get_preds()[0], p)
    with dm.no_bar(), dm.no_logging(): dm.lr_find(num_it=4, show_plot=False)
    assert len(dm.co_divide.history) == 6

@pytest.mark.parametrize('change', [lambda o: o.to_fp16(), lambda o: o.to_bf16(), lambda o: o.add_cb(GradientClip(.1)), lambda o: o.add_cb(BnFreeze())])
def test_with_callbacks(change):
    learn = quiet(change(InstanceGM(make_dls(shape=(1, 8, 8)), conv, warmup=1)), 2)
    assert np.isfinite(np.array(learn.recorder.values, float)).all() and all(p.isfinite().all() for p in learn.model.parameters())

def test_workers_give_the_same_batches():
    dls = make_dls()
    steps = [Step(0, np.array([3, 1]), np.array([9])), Step(1, np.array([5]))]
    got = []
    for workers in (0, 2):
        dls.train.fake_l.num_workers = workers
        got.append([(x.shape, y.tolist()) for x, y in planned_dl(dls.train, steps)])
    assert got[0] == got[1] and [len(y) for _, y in got[0]] == [6, 2]

def test_groups_and_fine_tune():
    dls = make_dls(shape=(1, 8, 8))
    def make(dls):
        learn = conv(dls)
        learn.splitter = lambda m: [list(m[:3].parameters()), list(m[3:].parameters())]
        return learn
    dm = DivideMix(dls, make, warmup=1)
    dm.create_opt()
    assert [len(o) for o in dm.opt.param_lists] == [8, 4]
    body = [p.clone() for p in dm.model.nets[0][0].parameters()]
    with dm.no_bar(), dm.no_logging():
        dm.freeze(); dm.fit(1, 1e-2)
        assert all(torch.equal(a, b) for a, b in zip(body, dm.model.nets[0][0].parameters()))
        dm.fine_tune(2, 1e-2)
    assert dm.co_divide.history.phase.tolist() == ['warm-up']*2 + ['divided']*6 and dm.co_divide.history.epoch.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]

def test_running_statistics_are_of_images_not_of_blends():
    "As those of a network that sees each step's views once, and nothing else."
    dm, seen = DivideMix(make_dls(shape=(1, 8, 8)), conv, warmup=0), []
    class Look(Callback):
        order = CoDivide.order - 1
        def before_batch(self):
            if self.training: seen.append((self.co_divide.steps[self.iter].net, self.xb[0].clone(), [net[0].weight.detach().clone() for net in self.model.nets], [net[0].bias.detach().clone() for net in self.model.nets]))
    quiet(dm, 1, cbs=Look())
    for k, net in enumerate(dm.model.nets):
        bn = nn.BatchNorm2d(8)
        for turn, x, W, b in seen:
            if turn == k: bn(F.conv2d(x.as_subclass(torch.Tensor), W[k], b[k], padding=1))
        assert torch.allclose(bn.running_mean, net[1].running_mean, atol=1e-5) and torch.allclose(bn.running_var, net[1].running_var, atol=1e-4) and net[1].momentum == .1

def test_a_later_longer_fit_needs_no_second_warm_up():
    dm = DivideMix(make_dls(), linear, warmup=.34, length=.5)
    quiet(dm, 3); quiet(dm, 8)
    h = dm.co_divide.history
    assert h.phase.tolist() == ['warm-up']*2 + ['divided']*20

def test_a_training_that_never_divides_says_so():
    with pytest.warns(FastcleanWarning, match='every epoch was warm-up'): train_dividemix(make_dls(), linear, fit=partial(quiet, epochs=1))
    with warnings.catch_warnings(): warnings.simplefilter('error', FastcleanWarning); train_dividemix(make_dls(n=200), linear, fit=partial(quiet, epochs=2), warmup=0.)

def test_learners_train_on_as_they_were():
    dm = DivideMix(make_dls(), lambda dls: linear(dls, wd=.3, wd_bn_bias=True, train_bn=False, moms=(.8, .7, .8)))
    assert all((o.wd, o.wd_bn_bias, o.train_bn, o.moms) == (.3, True, False, (.8, .7, .8)) for o in dm.learners)
    with pytest.raises(ValueError, match='nothing was trained'): dm.plot_history()

def test_networks_may_differ_and_bring_callbacks():
    made = []
    def make(dls): made.append(1); return linear(dls, cbs=GradientClip(1.)) if len(made) == 1 else linear(dls, cbs=GradientClip(2.))
    dm = quiet(DivideMix(make_dls(), make, warmup=0), 1)
    assert dm.gradient_clip.max_norm == 1 and len(made) == 2 and dm.gradient_clip.learn is dm

def test_a_broken_training_leaves_no_trace(tmp_path):
    dm = InstanceGM(make_dls(shape=(1, 8, 8)), conv, warmup=0)
    class Stop(Callback):
        order = CoDivide.order + 1
        def after_batch(self):
            if self.training and self.iter == 1: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): quiet(dm, 2, cbs=Stop())
    a, b = (o.get_preds(act=lambda z: z)[0] for o in dm.learners)
    assert torch.allclose(dm.get_preds(act=lambda z: z)[0], a + b, atol=1e-5) and not dm.co_divide.rows
    dm.export(tmp_path/'broken.pkl')
    loaded, dls = load_learner(tmp_path/'broken.pkl'), make_dls(shape=(1, 8, 8))
    assert loaded.co_divide.steps is None and torch.allclose(loaded.get_preds(dl=plain_dl(dls, dls.valid_ds), act=lambda z: z)[0], a + b, atol=1e-5)
    quiet(dm, 1)
    assert len(dm.co_divide.history) == 2

# stops and kills

def _dm(cls, watch, file=None):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = make_dls(shape=(1, 8, 8), bs=16)
        cbs = [Checkpoint(file)] if file else []
        return train_dividemix(dls, conv, fit=partial(quiet, epochs=4), seed=5, watch=lambda step: [*cbs, *watch], method=cls, warmup=1, average=2)

class Kill(Callback):
    "What no program can defend itself against."
    def before_batch(self):
        if self.training and self.epoch == 2 and self.iter == 1: os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.parametrize('cls', [DivideMix, InstanceGM])
@pytest.mark.slow
def test_goes_on_after_a_kill(cls, tmp_path):
    child = multiprocessing.get_context('fork').Process(target=_dm, args=(cls, [Kill()], tmp_path/'c.pth'))
    child.start(); child.join()
    assert child.exitcode == -signal.SIGKILL and (tmp_path/'c.pth').exists()
    whole, resumed = _dm(cls, []), _dm(cls, [], tmp_path/'c.pth')
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values()): assert torch.equal(a, b)
    assert whole.co_divide.history.astype(str).equals(resumed.co_divide.history.astype(str)) and len(whole.co_divide.history) == 8
    if cls is InstanceGM:
        for a, b in zip(whole.co_divide.graphs.state_dict().values(), resumed.co_divide.graphs.state_dict().values()): assert torch.equal(a, b)

# what the method has no answer to

@pytest.mark.parametrize('n', [2, 3, 5])
def test_few_items(n):
    dm = quiet(DivideMix(make_dls(n=n, valid=3, truth=False), linear, warmup=1), 3)
    assert dm.co_divide.history.n_labelled.dropna().between(1, n).all() and np.isfinite(dm.co_divide.history.loss).all()

def test_no_wrong_labels(): assert np.isfinite(quiet(DivideMix(make_dls(wrong=0.), linear, warmup=1), 2).co_divide.history.loss).all()

def test_all_labelled(monkeypatch):
    dm = DivideMix(make_dls(), linear, warmup=0, threshold=0.)
    with pytest.warns(FastcleanWarning, match='all labels are trusted'): quiet(dm, 1)
    assert dm.co_divide.history.guards.str.contains('all labelled').all() and (dm.co_divide.history.unlabelled == 0).all() and (dm.co_divide.history.n_unlabelled == 0).all()

def test_nothing_labelled():
    d = divide(np.r_[np.full(5, np.nan), 1., 2.], np.array([0]*5 + [1, 1]))
    assert 'not finite' in d.guards and d.labelled[5] and d.labelled[:5].sum() == 1   # class 0 has lost all its labels
    with pytest.warns(FastcleanWarning, match='of some classes'): d = divide([1., 1.1, 5., 5.1], [0, 0, 1, 1], threshold=.999999999)
    assert set(np.array([0, 0, 1, 1])[d.labelled]) == {0, 1} and len(GUARDS) == 4

def test_a_rare_class_is_kept():
    y = np.r_[np.zeros(500, int), np.ones(20, int)]
    losses = np.r_[np.random.default_rng(0).normal(.2, .05, 500), np.full(20, 5.) + np.arange(20)/10]
    d = divide(losses, y)
    assert np.flatnonzero(d.labelled[500:]).tolist() == [0, 1] and (d.prob[500:502] == .5).all() and 'class' in d.guards

@pytest.mark.parametrize('low', [6, 20])
def test_one_component_takes_nearly_everything(low):
    y = np.arange(5000) % 10
    losses = np.r_[np.full(low, .01), np.random.default_rng(0).normal(2.3, .01, 5000 - low)]
    d = divide(losses, y)
    assert (np.bincount(y[d.labelled]) >= 50).all() and 'class' in d.guards
    losses = np.r_[np.random.default_rng(0).normal(.1, .01, 4999), 9.]
    d = divide(losses, y)
    assert d.labelled.all() and 'all labelled' in d.guards

def test_a_class_of_which_one_label_is_trusted():
    y = np.r_[np.zeros(4800, int), np.ones(200, int)]
    losses = np.r_[np.random.default_rng(0).normal(.2, .05, 4800), .2, np.full(199, 5.) + np.arange(199)/100]
    assert divide(losses, y).labelled[4800:].sum() == 20

def test_a_network_that_diverged():
    def make(dls): learn = linear(dls); learn.model[1].weight.data[:] = float('nan'); return learn
    with pytest.warns(FastcleanWarning, match='no finite numbers'): dm = quiet(DivideMix(make_dls(), make, warmup=0), 1)
    assert len(dm.co_divide.history) == 2

@pytest.mark.parametrize('prior', ['given', [.85, .1, .05]])
def test_shares_of_the_classes(prior, monkeypatch):
    from fastclean.semisup.mixmatch import mixmatch_loss
    z, t = torch.zeros(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    q = torch.tensor([.7, .2, .1])
    assert torch.isclose(mixmatch_loss(z, t, 2, 1., q)[1]['prior'], (q*(3*q).log()).sum()) and mixmatch_loss(z, t, 2, 1.)[1]['prior'].abs() < 1e-6
    assert torch.isfinite(mixmatch_loss(z, t, 2, 1., torch.tensor([1., 0, 0]))[0])
    x, given, y, split = blobs(n=90)
    keep = np.flatnonzero((y == 0) | (np.arange(len(y)) % 8 == 0) | (split == 'valid'))   # most are of the first class
    seen, real = [], codivide.mixmatch_loss
    monkeypatch.setattr(codivide, 'mixmatch_loss', lambda *args: seen.append(args[4]) or real(*args))
    quiet(DivideMix(array_dls(x[keep], given[keep], split[keep], bs=16), linear, warmup=1, prior=prior), 2)
    train = given[keep][split[keep] == 'train']
    assert seen and all(torch.allclose(o, torch.tensor(np.bincount(train, minlength=3)/len(train) if prior == 'given' else prior).float()) for o in seen)

# errors

def table():
    d = pd.DataFrame(dict(a=np.arange(40.), b=list('xy')*20, y=list('pq')*20))
    return TabularDataLoaders.from_df(d, procs=[Categorify], cat_names=['b'], cont_names=['a'], y_names='y', valid_idx=list(range(30, 40)), bs=8)

@pytest.mark.parametrize('kwargs', [dict(T=0), dict(lambda_u=-1), dict(threshold=1.), dict(average=0), dict(warmup=-1)])
def test_settings(kwargs):
    with pytest.raises(ValueError, match='must be 0 or more'): CoDivide(**kwargs)
    with pytest.raises(ValueError, match='shares of the training'): CoDivide(warmup=5.)

@pytest.mark.parametrize('prior', ['true', [.5, .6], [1.5, -.5], 3])
def test_shares_that_cannot_be(prior):
    with pytest.raises(ValueError, match='prior must be the shares of the classes'): CoDivide(prior=prior)
    with pytest.raises(ValueError, match='prior has 2 shares for 3 classes'): quiet(DivideMix(make_dls(), linear, prior=[.5, .5]), 1)

@pytest.mark.parametrize('cb', [MixUp(), GradientAccumulation(8)])
def test_callbacks_that_do_not_fit(cb):
    with pytest.raises(ValueError, match=f'leave out {type(cb).__name__}'): quiet(DivideMix(make_dls(), linear), 1, cbs=cb)

def test_data_that_do_not_fit():
    with pytest.raises(ValueError, match='is for images'): quiet(InstanceGM(make_dls(), linear), 1)
    with pytest.raises(ValueError, match='whole number'): train_dividemix(make_dls(), linear, 0)
    with pytest.raises(ValueError, match='one tensor of real numbers'): DivideMix(table(), linear)
    with pytest.raises(ValueError, match='one tensor of real numbers'): DivideMix(array_dls(torch.ones(30, 4, dtype=torch.long), [0, 1]*15, ['train']*20 + ['valid']*10), linear)
    same = linear(make_dls()).model
    with pytest.warns(FastcleanWarning, match='same weights'): DivideMix(make_dls(), lambda dls: Learner(dls, same, loss_func=CrossEntropyLossFlat()))

def test_truth_and_no_truth():
    dls = make_dls(truth=False)
    assert 'auc' not in quiet(DivideMix(dls, linear, warmup=0), 1).co_divide.history
    assert 'auc' in quiet(DivideMix(make_dls(), linear, warmup=0), 1).co_divide.history

@pytest.mark.parametrize('low, high', [(-1., 1.), (0., 255.), (-2.1, 2.6)])
def test_images_back_to_black_and_white(low, high):
    x = torch.rand(30, 3, 32, 32)
    x[0, 0, 0, :2] = torch.tensor([0., 1.])
    unit = UnitImages(array_dls(low + x*(high - low), [0, 1]*15, ['train']*20 + ['valid']*10))
    assert torch.allclose(unit(low + x*(high - low)), x, atol=1e-4)

def test_callbacks_of_any_name():
    class History(Callback): "A name that a learner's attribute could take."
    class Issues(Callback): pass
    with pytest.raises(AttributeError): DivideMix(make_dls(), linear).no_such_thing
    quiet(DivideMix(make_dls(), linear), 1, cbs=[History(), Issues()])

"Every callback of training: by hand, wherever fastai lets it get, and without a trace where it must leave none."
import inspect, pickle, warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import Learner
from fastai.callback.training import GradientAccumulation, GradientClip
import fastai.callback.fp16
from fastai.data.all import Categorize, Datasets, MultiCategorize, OneHotEncode
from fastai.learner import load_learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD, Adam, OptimWrapper
from fastai.text.all import AWD_LSTM, TextDataLoaders, awd_lstm_clas_config, text_classifier_learner
from fastai.torch_core import params
from torch import nn

from fastclean.callback.core import Begin, train_items
from fastclean.callback.checkpoint import Checkpoint
from fastclean.callback.dynamics import TrainingDynamics
from fastclean.callback.elr import ELR
from fastclean.callback.joint import JointOptimization, mean_entropy, mean_kl
from fastclean.callback.noise_layers import NNAQC, InstanceTransition, NoiseAdaptation, NoiseLayer, project_rows
from fastclean.callback.weights import SampleWeights
from fastclean.core import Predictions, seeded
from fastclean.issues import find_label_issues
from fastclean.kfold import KFoldLearner
from fastclean.losses import LOSSES, BackwardCorrection, ForwardCorrection, LogWeightedCorrection
from fastclean.targets import SoftTargets

torch.set_num_threads(1)
N, M, K = 66, 60, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
def vector(i): return X[i]
def label(i): return i % K
Y = np.arange(M) % K
P = np.random.default_rng(0).dirichlet(np.ones(K), M) + .5*np.eye(K)[Y]
PREDS = Predictions.from_arrays(Y, P/P.sum(1, keepdims=True))
ISSUES = find_label_issues(PREDS)
MAKE = dict(dynamics=TrainingDynamics, adaptation=partial(NoiseAdaptation, warmup=0.), dropout=partial(NoiseAdaptation, 0., .2, warmup=0.), nnaqc=NNAQC, instance=partial(InstanceTransition, warmup=0.), elr=ELR,
            joint=partial(JointOptimization, start=1, last=2), weights=partial(SampleWeights, ISSUES), soft=partial(SoftTargets, np.full((M, K), 1/K)))
LAYERS = ['adaptation', 'dropout', 'nnaqc', 'instance']
each = pytest.mark.parametrize('name', MAKE)
layer = pytest.mark.parametrize('name', LAYERS)

def dls_of(**kw): return Datasets(range(N), [[vector], [label, Categorize(vocab=range(K))]], splits=[range(M), range(M, N)]).dataloaders(**{**dict(bs=8, num_workers=0), **kw})
def net(): return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, K))
def groups(m): return [params(m[0]), params(m[2])]
def learner(dls=None, **kw): return Learner(dls or dls_of(), net(), **{**dict(loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=groups), **kw})
def quietly(learn, n=2, fit='fit_one_cycle', *args, **kw):
    with learn.no_bar(), learn.no_logging(): getattr(learn, fit)(n, *args, **kw)
    return learn
def trained(*cbs, seed=1, n=2, fit='fit_one_cycle', **kw):
    with seeded(seed): return quietly(learner(cbs=cbs, **kw), n, fit)
def weights(o): return [p.detach().clone() for p in o.model.state_dict().values()]
def same(a, b): return all(torch.equal(p, q) for p, q in zip(a, b))
def state(cb):
    "What a callback has learnt or recorded."
    if isinstance(cb, NoiseLayer): return [] if cb.noise_layer is None else [p.detach().clone() for p in cb.noise_layer.parameters()]
    if isinstance(cb, TrainingDynamics): return [torch.as_tensor(o).nan_to_num(-9).clone() for o in cb.records]
    if isinstance(cb, ELR): return [] if cb.means is None else [cb.means.clone()]
    if isinstance(cb, JointOptimization): return [] if cb.soft_labels is None else [torch.as_tensor(cb.soft_labels).clone()]
    return []

# ---- every callback
def test_every_callback_is_here():
    import fastclean.callback, importlib, pkgutil
    mods = [importlib.import_module(f'fastclean.callback.{m.name}') for m in pkgutil.iter_modules(fastclean.callback.__path__)]
    made = {o for m in mods for o in vars(m).values() if inspect.isclass(o) and issubclass(o, Callback) and o.__module__ == m.__name__} - {Begin, NoiseLayer, Checkpoint}     # `Checkpoint` has a file of tests to itself
    assert made | {SoftTargets} == {type(f()) for f in MAKE.values()}

@each
def test_documented_ordered_and_picklable(name):
    cb = MAKE[name]()
    assert type(cb).__doc__ and not cb.run_valid and -8 < cb.order < 6      # after `ItemIds`, before gradients are accumulated or scaled
    src = next(l for l in inspect.getsource(type(cb) if 'order' in vars(type(cb)) else type(cb).__mro__[1]).splitlines() if l.strip().startswith('order'))
    assert '#' in src, 'the order has a reason'
    again = pickle.loads(pickle.dumps(cb))
    assert same(weights(trained(cb)), weights(trained(again)))

@each
def test_it_does_something_and_a_second_fit_is_a_fresh_one(name):
    cb, other = MAKE[name](), MAKE[name]()
    first = trained(cb); s = state(cb)
    assert name == 'dynamics' or not same(weights(first), weights(trained()))
    assert same(weights(first), weights(trained(cb))) and same(state(cb), s)         # two fits of one callback
    assert same(weights(first), weights(trained(other))) and same(state(other), s)   # two callbacks
    trained(cb, seed=2); assert same(weights(first), weights(trained(cb)))

@each
def test_no_trace_of_lr_find(name, tmp_path):
    def look(*cbs):
        "Losses of a search, and the learner."
        with seeded(0): learn = learner(path=tmp_path, cbs=cbs); w = weights(learn)
        with seeded(0), learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=12, show_plot=False)
        assert same(w, weights(learn))
        return [float(o) for o in learn.recorder.losses], learn
    cb = MAKE[name]()
    found, learn = look(cb)
    assert state(cb) == []
    if name != 'soft': assert found == look()[0]   # `SoftTargets` looks for the rate of the soft targets
    loss = learn.loss_func
    quietly(learn, 2); s = state(cb)
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=12, show_plot=False); learn.validate()
    assert same(state(cb), s) and learn.loss_func is loss and type(loss) is CrossEntropyLossFlat

@each
def test_validation_and_predictions_are_the_models(name):
    cb = MAKE[name]()
    learn = trained(cb); s, last = state(cb), learn.recorder.values[-1][1]
    x, y = X[M:], torch.as_tensor([i % K for i in range(M, N)])
    with torch.no_grad(): z = learn.model.eval()(x)
    with learn.no_bar(), learn.no_logging():
        p, t, losses = learn.get_preds(with_loss=True)
        loss, acc = learn.validate()
        assert torch.allclose(p, z.softmax(1), atol=1e-6) and torch.allclose(losses, F.cross_entropy(z, y, reduction='none'), atol=1e-5)
        assert np.isclose(loss, F.cross_entropy(z, y), atol=1e-5) and np.isclose(acc, (z.argmax(1) == y).float().mean())
        assert np.isclose(last, loss, atol=1e-5)
        learn.get_preds(dl=learn.dls.train)
    assert same(state(cb), s) and not learn.model._forward_pre_hooks and not any(m._forward_pre_hooks for m in learn.model.modules())

@each
def test_export_save_and_load(name, tmp_path):
    cb = MAKE[name]()
    learn = trained(cb, path=tmp_path)
    p = learn.get_preds()[0]
    learn.export('l.pkl')
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); again = load_learner(tmp_path/'l.pkl')
    with again.no_bar(), learn.no_bar(): assert torch.allclose(again.get_preds(dl=learn.dls.valid)[0], p, atol=1e-6)
    learn.save('m')
    with warnings.catch_warnings(): warnings.simplefilter('error', UserWarning); new = learner(path=tmp_path); new.create_opt(); new.load('m')     # the optimizer's state, too
    assert same(weights(new), weights(learn)) and len(new.opt.state_dict()['state']) == len(learn.opt.state_dict()['state'])
    quietly(learn, 1)                                                                # and goes on

@each
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_in_mixed_precision(name, dtype):
    class Half(Callback):
        "What `MixedPrecision` does on a GPU, on the CPU."
        order = 10
        def before_batch(self): self.cast = torch.autocast('cpu', dtype=dtype); self.cast.__enter__()
        def after_pred(self): self.learn.pred = self.learn.pred.float()
        def after_loss(self): self.cast.__exit__(None, None, None)
    learn = trained(MAKE[name](), Half())
    assert all(torch.isfinite(o).all() for o in weights(learn)) and not same(weights(learn), weights(trained()))

@each
def test_to_fp16(name):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with seeded(1): learn = learner(cbs=MAKE[name]()).to_fp16(); quietly(learn)
    assert all(torch.isfinite(o).all() for o in weights(learn))

@each
@pytest.mark.parametrize('as_what', ['instance', 'class'])
def test_inside_the_folds(name, as_what):
    if name in ('soft',): pytest.skip('its targets are for one training set')
    cbs = MAKE[name]() if as_what == 'instance' else type('Sub', (type(MAKE[name]()),), {'__init__': lambda self: vars(self).update(vars(MAKE[name]())), 'order': MAKE[name]().order})
    kf = KFoldLearner(dls_of(), partial(Learner, model=None, cbs=cbs) if False else (lambda dls: learner(dls, cbs=cbs)), n_splits=3)
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); preds = kf.fit(1).predictions()
    assert len(preds) == N and np.allclose(preds.pred_probs.sum(1), 1, atol=1e-4)

@each
def test_with_other_callbacks(name):
    from fastai.callback.tracker import EarlyStoppingCallback
    ways = [((GradientAccumulation(16), GradientClip(), EarlyStoppingCallback(patience=5)), {}),
            ((), dict(loss_func=LabelSmoothingCrossEntropyFlat(), opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))),
            ((), dict(opt_func=partial(SGD, mom=.9), fit='fine_tune')),
            ((), dict(opt_func=OptimWrapper(opt=torch.optim.SGD(net().parameters(), lr=.1)), splitter=params))]
    for cbs, how in ways: assert all(o.isfinite().all() for o in weights(trained(MAKE[name](), *cbs, **how)))

@each
def test_after_an_interruption(name, tmp_path):
    "The learner works as if nothing had been, and the next fit is a fresh one."
    class Stop(Callback):
        order = 100
        def after_backward(self):
            if self.iter == 3: raise KeyboardInterrupt
    cb, learn = MAKE[name](), learner(path=tmp_path)
    with pytest.raises(KeyboardInterrupt): quietly(learn, cbs=[cb, Stop()])
    learn.export('l.pkl')
    def again(learn, cb):
        with seeded(1): learn.dls, learn.model, learn.opt = dls_of(), net(), None; return weights(quietly(learn, cbs=cb))
    assert same(again(learn, cb), again(learner(), MAKE[name]()))

@pytest.mark.parametrize('name', [o for o in MAKE if o not in ('weights', 'soft')])
def test_several_labels_are_refused(name):
    dls = Datasets(range(20), [[vector], [lambda i: [label(i)], MultiCategorize(vocab=list(range(3))), OneHotEncode()]], splits=[range(16), range(16, 20)]).dataloaders(bs=4, num_workers=0)
    with pytest.raises(ValueError, match='one label for each item'): quietly(Learner(dls, net(), loss_func=BCEWithLogitsLossFlat()), cbs=MAKE[name]())

@pytest.mark.parametrize('loss', LOSSES)
def test_every_loss_beside_every_callback(loss):
    T = np.full((K, K), .1) + .7*np.eye(K)
    f = LOSSES[loss](T) if LOSSES[loss] in (ForwardCorrection, BackwardCorrection, LogWeightedCorrection) else LOSSES[loss]()
    for name in MAKE: assert all(torch.isfinite(o).all() for o in weights(trained(MAKE[name](), loss_func=f, n=1))), name

# ---- the layers
class Look(Callback):
    order, run_valid = 50, False
    def before_fit(self): self.seen = []
    def after_loss(self): self.seen.append((self.learn.pred.detach().clone(), self.learn.loss.item(), self.learn.yb[0]))

@layer
def test_metrics_and_callbacks_see_the_models_predictions(name):
    class Own(Callback):
        order, run_valid = -9, False
        def before_fit(self): self.z = []
        def after_pred(self): self.z.append(self.learn.pred.detach().clone())
    look, own = Look(), Own()
    trained(MAKE[name](), look, own)
    assert len(look.seen) == 14 and all(torch.equal(a[0], b) for a, b in zip(look.seen, own.z))

def test_the_loss_is_that_of_the_noisy_label():
    "The first batch, by hand."
    T = np.full((K, K), .1) + .7*np.eye(K)
    look = Look(); trained(NoiseAdaptation(T=T, decay=.3), look)
    z, loss, y = look.seen[0]
    assert np.isclose(loss, -(z.softmax(1)@torch.tensor(T).float())[range(8), y].log().mean(), atol=1e-5)
    look = Look(); trained(NoiseAdaptation(), look, loss_func=CrossEntropyLossFlat())
    z, loss, y = look.seen[0]; assert np.isclose(loss, F.cross_entropy(z, y), atol=1e-5)      # the identity is no layer
    look, a, b = Look(), .3, .4; trained(NNAQC(a, b), look)
    z, loss, y = look.seen[0]; p = z.softmax(1)
    quality = -((b*p + (1 - b)*F.one_hot(y, K))*p.log()).sum(1).mean()
    assert np.isclose(loss, a*F.cross_entropy(np.log(99*(K - 1))*p, y) + (1 - a)*quality, atol=1e-5)
    look = Look(); trained(InstanceTransition(T=T), look)
    z, loss, y = look.seen[0]; assert np.isclose(loss, -(z.softmax(1)@torch.tensor(T).float())[range(8), y].log().mean(), atol=1e-5)

def test_the_trace_decays_after_the_warm_up():
    class T(Callback):
        order = 50
        def before_fit(self): self.seen = []
        def after_batch(self):
            if self.training: self.seen.append(float(np.trace(self.learn.noise_adaptation.T)))
    see = T(); trained(NoiseAdaptation(warmup=.5), see, n=4)
    half = len(see.seen)//2
    assert np.allclose(see.seen[:half], K, atol=1e-4) and see.seen[-1] < K - 1e-4
    with seeded(0): w = torch.eye(K).requires_grad_(); cb = NoiseAdaptation(decay=.6)
    cb.learn = type('L', (), dict(pct_train=1.))(); cb.noise_layer = nn.Module(); cb.noise_layer.W = w
    cb.penalty().backward(); assert torch.allclose(w.grad, .2*torch.eye(K))

@pytest.mark.parametrize('W', [torch.randn(20, 5, generator=torch.Generator().manual_seed(k)) for k in range(3)])
def test_the_projection_is_the_nearest(W):
    P = project_rows(W)
    assert torch.allclose(P.sum(1), torch.ones(20), atol=1e-5) and (P >= 0).all() and torch.allclose(project_rows(P), P, atol=1e-6)
    for _ in range(50): assert ((W - torch.distributions.Dirichlet(torch.ones(5)).sample((20,))).norm(dim=1) >= (W - P).norm(dim=1) - 1e-5).all()

@layer
def test_rows_are_probabilities_and_the_matrix_moves(name):
    cb = MAKE[name](); trained(cb, n=4)
    assert cb.T.shape == (K, K) and np.allclose(cb.T.sum(1), 1, atol=1e-5) and (cb.T >= 0).all()
    still = MAKE[name](warmup=.999); trained(still, n=1)
    assert not np.allclose(cb.T, still.T, atol=1e-4)

@layer
def test_the_optimizer_of_the_model_is_left_alone(name):
    cb, learn = MAKE[name](), learner()
    quietly(learn, 1, 'fine_tune', cbs=cb)
    assert [len(g) for g in learn.opt.param_lists] == [2, 2] and cb._opt_of_layer is None

@layer
def test_the_layer_learns_at_the_rate_of_the_last_group(name):
    class Rates(Callback):
        order = 50
        def before_fit(self): self.seen = []
        def after_step(self): h = self.learn.cbs[-2]._opt_of_layer.hypers[0]; self.seen.append((h['lr']/self.learn.opt.hypers[-1]['lr'], h['mom']/self.learn.opt.hypers[-1]['mom'], h['wd']))
    cb, see = MAKE[name](lr_mult=3.), Rates()
    quietly(learner(), 2, 'fit_one_cycle', slice(1e-4, 1e-2), cbs=[cb, see])
    assert np.allclose(see.seen, [(3, 1, 0)]*14)

@layer
def test_a_skipped_step_is_skipped(name):
    class Skip(Callback):
        order = 100
        def before_step(self): raise CancelStepException
    cb, fresh = MAKE[name](), MAKE[name]()
    with seeded(1): quietly(learner(), 1, cbs=[cb, Skip()])
    with seeded(1): quietly(learner(), 1, 'fit_one_cycle', 1e-30, cbs=fresh)
    assert np.allclose(cb.T, fresh.T, atol=1e-6)

@layer
def test_the_scale_of_mixed_precision_is_taken_out(name):
    class Scaler:
        def get_scale(self): return 1024.
    class Scale(Callback):
        order = 10
        def before_fit(self): self.learn.scaler = Scaler()
        def before_backward(self): self.learn.loss_grad = self.learn.loss_grad*1024
        def before_step(self):
            for p in self.learn.model.parameters(): p.grad /= 1024
        def after_fit(self): self.learn.scaler = None
    make = partial(trained, opt_func=partial(SGD, mom=.9))
    a, b = MAKE[name](), MAKE[name]()
    assert all(torch.allclose(p, q, atol=1e-5) for p, q in zip(weights(make(a)), weights(make(b, Scale())))) and np.allclose(a.T, b.T, atol=1e-5)

@layer
def test_soft_targets_and_mixup_beside_a_layer(name):
    hot = np.eye(K)[Y]
    a, b = trained(MAKE[name]()), trained(MAKE[name](), SoftTargets(hot))
    assert all(torch.allclose(p, q, atol=1e-4) for p, q in zip(weights(a), weights(b)))
    trained(MAKE[name](), MixUp()); trained(MAKE[name](), MixUp(), SoftTargets(hot))

@layer
def test_keep_goes_on(name):
    cb = MAKE[name](keep=True)
    trained(cb); T = cb.T
    cb = pickle.loads(pickle.dumps(cb))
    quietly(learner(), 1, 'fit', 1e-30, cbs=cb); assert np.allclose(cb.T, T, atol=1e-5)

def test_instance_matrices_are_by_item():
    cb = InstanceTransition(warmup=0.); learn = trained(cb, n=5)
    M_ = cb.matrices(learn, learn.dls.train_ds)
    with torch.no_grad():
        f = learn.model[:2](X[:M]); T = (cb.noise_layer.W + cb.noise_layer.head(f).view(-1, K, K)).softmax(2)
    assert M_.shape == (M, K, K) and np.allclose(M_, T, atol=1e-5) and np.abs(M_ - M_.mean(0)).max() > 1e-4

@pytest.mark.parametrize('make, message', [(lambda: NoiseAdaptation(dropout=1.), 'decay and dropout'), (lambda: NoiseAdaptation(warmup=1.), 'share of the training'), (lambda: NNAQC(2), 'alpha and beta'),
    (lambda: InstanceTransition(start=1.), 'between 0 and 1'), (lambda: ELR(beta=1.), 'beta'), (lambda: JointOptimization(last=0), '1 epoch or more'), (lambda: SampleWeights(ISSUES.drop(columns='item')), 'no column item'),
    (lambda: SampleWeights(pd.concat([ISSUES, ISSUES])), 'twice'), (lambda: trained(InstanceTransition(T=np.eye(2))), 'for 2 classes, the data have 3'), (lambda: trained(InstanceTransition(layer='1')), 'must name a linear layer'),
    (lambda: trained(SampleWeights(ISSUES[:9])), '51 of 60 training items'), (lambda: trained(ELR(), MixUp()), 'leave out MixUp'), (lambda: trained(JointOptimization(), MixUp()), 'leave out MixUp'), (lambda: ELR().targets, 'no targets yet'),
    (lambda: JointOptimization(start=70.), 'share of the training'), (lambda: JointOptimization(alpha=-1), '0 or more'), (lambda: (cb := JointOptimization(start=5), trained(cb), cb.step2()), 'no label was replaced')])
def test_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message): make()

@pytest.mark.parametrize('name', MAKE)
def test_texts(name, words):
    "A text learner gives more than logits until `RNNCallback` has taken them off."
    cb = MAKE[name]() if name in ('adaptation', 'dropout', 'nnaqc', 'instance', 'elr', 'dynamics') else None
    if cb is None: pytest.skip('bound to the items of this file')
    with seeded(0): learn = text_classifier_learner(words, AWD_LSTM, pretrained=False, config=awd_lstm_clas_config | dict(emb_sz=8, n_hid=8, n_layers=1), metrics=accuracy)
    quietly(learn, 1, cbs=cb)
    assert np.isfinite(learn.recorder.values).all() and (state(cb) or name == 'elr')
    p, _ = learn.get_preds()
    assert torch.allclose(p.sum(1), torch.ones(len(p)), atol=1e-5)

@pytest.fixture(scope='module')
def words():
    rng = np.random.default_rng(0)
    d = pd.DataFrame(dict(text=[' '.join(rng.choice(['red', 'green', 'blue', 'old', 'new'], 6)) for _ in range(40)], label=['a', 'b', 'c', 'd']*10, is_valid=[False]*32 + [True]*8))
    return TextDataLoaders.from_df(d, text_col='text', label_col='label', valid_col='is_valid', bs=8, seq_len=8, num_workers=0)

# ---- ELR, joint optimisation, weights
def test_elr_by_hand():
    "Two epochs of batches in order: means, and the gradient of the term."
    class See(Callback):
        order, run_valid = ELR.order - 1, False
        def before_fit(self): self.p, self.add, self.want, self.t = [], [], [], torch.zeros(M, K)
        def after_loss(self):
            self.was = self.learn.loss_grad.item(); p = self.learn.pred.softmax(1).detach().clamp(1e-4, 1 - 1e-4); i = self.learn.item_ids.items
            self.t[i] = .6*self.t[i] + .4*p/p.sum(1, keepdim=True)
            self.want.append(2*(1 - (p*self.t[i]).sum(1)).log().mean().item())
        def before_backward(self): self.add.append(self.learn.loss_grad.item() - self.was)
    elr, see = ELR(2., .6), See()
    learn = trained(elr, see, n=3)
    assert np.allclose(see.add, see.want, atol=1e-5) and torch.allclose(elr.means, see.t, atol=1e-6)
    seen = elr.means.sum(1) > 0
    assert np.allclose(elr.targets[seen].sum(1), 1, atol=1e-5) and seen.sum() >= 56

def test_the_terms_of_joint_optimisation():
    p = torch.tensor([[.2, .8, 0], [.6, .4, 0]])
    assert torch.isclose(mean_kl(torch.tensor([.5, .5, 0]), p), torch.tensor(.5*np.log(.5/.4) + .5*np.log(.5/.6)).float()) and torch.isfinite(mean_kl(torch.tensor([0., 0, 1]), p))
    assert torch.isclose(mean_entropy(p), torch.distributions.Categorical(p + 1e-12).entropy().mean(), atol=1e-5)

def test_joint_labels_are_the_mean_of_the_last_epochs():
    class See(Callback):
        order, run_valid = 40, False
        def before_fit(self): self.p, self.soft = [], []
        def before_train(self): self.p.append(torch.full((M, K), np.nan))
        def after_pred(self): self.p[-1][self.learn.item_ids.items] = self.learn.pred.softmax(1).detach()
        def after_train(self): self.soft.append(self.learn.joint_optimization.soft_labels.copy())
        def before_batch(self): self.y = self.learn.yb[0]; self.used.append((self.epoch, self.learn.item_ids.items, self.y.clone()))
        used = []
    joint, see = JointOptimization(start=2, last=2), See()
    trained(joint, see, n=4)
    hot = np.eye(K, dtype=np.float32)[Y]
    assert np.array_equal(see.soft[0], hot)
    for e in (1, 2, 3):
        got, mean = see.soft[e], torch.stack(see.p[e - 1:e + 1]).nanmean(0).numpy()
        seen = ~np.isnan(mean[:, 0])
        assert np.allclose(got[seen], mean[seen], atol=1e-5) and np.array_equal(got[~seen], see.soft[e - 1][~seen])
    for e, items, y in see.used: assert torch.allclose(y, torch.as_tensor(hot if e < 2 else see.soft[e - 1])[items], atol=1e-6)
    assert type(joint.step2()) is SoftTargets and np.array_equal(joint.step2().targets, see.soft[-1])

def test_joint_loss_is_the_one_of_the_paper():
    class See(Callback):
        order, run_valid = 40, False
        def before_fit(self): self.got = []
        def before_backward(self): self.got.append((self.learn.pred.softmax(1).detach(), self.learn.loss_grad.item(), self.learn.yb[0]))
    see, prior = See(), np.array([.5, .25, .25])
    trained(JointOptimization(start=9, alpha=2., beta=.3, prior=prior), see, n=1)
    for p, loss, y in see.got:
        assert np.isclose(loss, -p[range(8), y].log().mean() + 2*(prior*np.log(prior/p.mean(0).numpy())).sum() - .3*(p*p.log()).sum(1).mean(), atol=1e-4)

def test_weights_are_matched_by_name():
    cb = SampleWeights(ISSUES.sample(frac=1, random_state=1))
    want = ISSUES.set_index('item').label_score.reindex(map(str, range(M))).to_numpy()
    a, b = trained(cb), trained(SoftTargets(weights=want))
    assert np.allclose(cb.weights, want) and same(weights(a), weights(b))
    sure = ISSUES.assign(verified=True); cb = SampleWeights(sure); assert same(weights(trained(cb)), weights(trained(SoftTargets(weights=np.ones(M)))))
    assert SampleWeights(ISSUES, floor=.9).by_item.min() >= .9

def test_soft_targets_from_predictions():
    from fastclean.transition import label_posterior
    dls, post = dls_of(), label_posterior(PREDS)
    turned = Predictions.from_arrays(Y[::-1], PREDS.pred_probs[::-1], items=PREDS.items[::-1])
    assert np.allclose(SoftTargets.from_predictions(turned, dls).targets, post, atol=1e-3) and np.array_equal(SoftTargets.from_predictions(PREDS, dls, post).targets, post)
    other = Predictions.from_arrays(Y, PREDS.pred_probs, vocab=[2, 0, 1])
    assert np.allclose(SoftTargets.from_predictions(other, dls, post).targets[:, [2, 0, 1]], post)
    with pytest.raises(ValueError, match="a class 'x'"): SoftTargets.from_predictions(Predictions.from_arrays(Y, PREDS.pred_probs, vocab=[0, 1, 'x']), dls)
    with pytest.raises(ValueError, match='posterior must be of shape'): SoftTargets.from_predictions(PREDS, dls, post[:5])

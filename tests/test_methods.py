"Every way to train past wrong labels: by its name, from the same start, to the same end."
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.all import Categorize, Datasets, MultiCategorize, OneHotEncode
from fastai.learner import Learner, load_learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.metrics import accuracy
from fastai.torch_core import params
from fastcore.basics import noop
from torch import nn

from fastclean.callback.checkpoint import Checkpoint
from fastclean.callback.elr import ELR
from fastclean.callback.joint import JointOptimization
from fastclean.callback.noise_layers import NNAQC, InstanceTransition, NoiseAdaptation
from fastclean.callback.weights import SampleWeights
from fastclean.core import Predictions, seeded
from fastclean.frozen import array_dls
from fastclean.issues import find_label_issues
from fastclean.loaders import given_labels
from fastclean.losses import (BackwardCorrection, BootstrapLoss, BrierLoss, ForwardCorrection, GeneralizedCrossEntropy, LogWeightedCorrection, MAELoss, RampLoss,
                              SymmetricCrossEntropy, UnhingedLoss, WARPLoss)
from fastclean.methods import METHODS as ALL, robust_learner, train_robust
from fastclean.targets import SoftTargets
from fastclean.health import joint_transition, label_joint
from fastclean.transition import label_posterior

torch.set_num_threads(1)
N, M, K, D = 300, 240, 3, 5
VOCAB = ['ant', 'bee', 'cat']
RNG = np.random.default_rng(0)
TRUE = np.arange(N) % K
X = (2*np.eye(K, D)[TRUE] + .6*RNG.normal(size=(N, D))).astype(np.float32)
WRONG = np.isin(np.arange(N), RNG.choice(M, 80, replace=False))                    # a third of the training labels
LABELS = np.where(WRONG, (TRUE + RNG.integers(1, K, N)) % K, TRUE)
SPLIT = np.where(np.arange(N) < M, 'train', 'valid')
P = F.softmax(torch.as_tensor(3*X[:, :K]), 1).numpy()
CE, LS = CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
METHODS = {k: m for k, m in ALL.items() if m.course != 'two'}   # two networks at once are for images, and have tests of their own
each = pytest.mark.parametrize('method', METHODS)

def dls_of(labels=LABELS, **kw): return array_dls(X, [VOCAB[k] for k in labels], SPLIT, VOCAB, bs=16, **kw)
def preds_of(n=M, labels=LABELS, order=None, vocab=VOCAB, **kw):
    order = np.arange(n) if order is None else order
    return Predictions.from_arrays(labels[order], P[order], vocab, **{**dict(items=[str(i) for i in order], split=SPLIT[order]), **kw})
PREDS = preds_of()
def net(): return nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Dropout(.1), nn.Linear(16, K))
def make(dls, **kw):
    learn = Learner(dls, net(), **{**dict(loss_func=CE(), metrics=accuracy, splitter=groups), **kw})
    learn.logger = noop
    return learn
def train(method, epochs=2, dls=None, fn=make, **kw): return train_robust(dls or dls_of(), fn, method, epochs, **{**dict(preds=PREDS, lr=1e-2), **kw})
def groups(m): return [params(m[0]), params(m[3])]
def weights(learn): return [p.detach().clone() for p in learn.model.state_dict().values()]
def same(a, b): return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b)))
def own(learn): return [type(cb) for cb in learn.cbs if type(cb).__module__.startswith('fastclean')]

@pytest.fixture(scope='module')
def trained():
    "One learner of each, ten epochs."
    return {m: train(m, 10) for m in METHODS}

class See(Callback):
    "How a training starts, on what, and how it goes on."
    order = 2000
    def before_fit(self): self.n = [*getattr(self, 'n', []), self.learn.n_epoch]
    def before_batch(self):
        if self.training and not hasattr(self, 'start'): self.start, self.first = [p.detach().clone() for p in self.learn.model.parameters()], self.learn.xb[0].clone()
    def before_train(self): self.was, self.cbs = self.learn.loss_func, own(self.learn)

# ---- what each name stands for
IS = dict(plain=(CE, []), smoothing=(LS, []), recipe=(CE, []), forward=(ForwardCorrection, []), backward=(BackwardCorrection, []), mae=(MAELoss, []), brier=(BrierLoss, []), unhinged=(UnhingedLoss, []), ramp=(RampLoss, []),
          warp=(WARPLoss, []), gce=(GeneralizedCrossEntropy, []), sce=(SymmetricCrossEntropy, []), bootstrap=(BootstrapLoss, []), elr=(CE, [ELR]), nnaqc=(CE, [NNAQC]), joint=(CE, [SoftTargets]), reweight=(CE, [SampleWeights]), soft=(CE, [SoftTargets])) | {
          'log-weighted': (LogWeightedCorrection, []), 'warp-ramp': (WARPLoss, []), 'bootstrap-hard': (BootstrapLoss, []), 'noise-layer': (CE, [NoiseAdaptation]), 'noise-dropout': (CE, [NoiseAdaptation]),
          'instance-transition': (CE, [InstanceTransition]), 'clean-retrain': (CE, [])}

def test_every_method_is_here(): assert list(IS) != [] and set(IS) == set(METHODS) and all(m.about and m.course in ('once', 'gradual', 'joint', 'clean') for m in METHODS.values())

@each
def test_it_trains(method, trained):
    learn = trained[method]
    assert (type(learn.loss_func), own(learn)) == IS[method]
    with learn.no_bar(): p, y = learn.get_preds()
    assert p.shape == (N - M, K) and torch.allclose(p.sum(1), torch.ones(len(p)), atol=1e-5) and (p >= 0).all() and torch.equal(y, torch.as_tensor(TRUE[M:]))
    assert (p.argmax(1).numpy() == TRUE[M:]).mean() > .75
    with torch.no_grad(): assert torch.allclose(p, learn.model.eval()(torch.as_tensor(X[M:])).softmax(1), atol=1e-5)

@each
@pytest.mark.slow
def test_the_same_seed_is_the_same_training(method):
    dls = dls_of()
    a = train(method, dls=dls)
    with seeded(9): b = train(method)                       # whatever the state of the random numbers
    assert same(a, b) and same(a, train(method, dls=dls)) and not same(a, train(method, seed=1))

@each
@pytest.mark.slow
def test_all_start_from_the_same_weights_and_batch(method):
    def look(m): s = []; train(m, watch=lambda step: s.append(See()) or [s[-1]]); return s
    want, *_ = look('plain')
    for see in look(method):
        assert all(torch.equal(p, q) for p, q in zip(see.start, want.start))
        if method != 'clean-retrain': assert torch.equal(see.first, want.first)    # it leaves items out

def test_the_random_numbers_of_others_are_left_alone():
    with seeded(3): a = np.random.rand(), torch.rand(1).item()
    with seeded(3): train('joint'); b = np.random.rand(), torch.rand(1).item()
    assert a == b

def test_methods_do_something(trained):
    w = {m: torch.cat([p.flatten() for p in weights(l)]) for m, l in trained.items()}
    for a in METHODS:
        for b in METHODS: assert a == b or not torch.equal(w[a], w[b]), (a, b)

def test_settings_of_the_losses_and_layers():
    make_ = partial(robust_learner, dls_of(), make, preds=PREDS)
    assert make_('smoothing').loss_func.func.eps == .1 if hasattr(make_('smoothing').loss_func, 'func') else make_('smoothing').loss_func.eps == .1
    assert make_('warp-ramp').loss_func.s == -.8 and make_('warp').loss_func.s is None and make_('bootstrap-hard').loss_func.hard and not make_('bootstrap').loss_func.hard
    assert make_('noise-dropout').noise_adaptation.dropout == .1 and make_('noise-dropout').noise_adaptation.decay == 0 and make_('noise-layer').noise_adaptation.decay == .5 and make_('noise-layer').noise_adaptation.dropout == 0
    assert all(make_(m).cbs[-1].keep for m in ('elr', 'noise-layer', 'noise-dropout', 'nnaqc', 'instance-transition'))
    T = joint_transition(label_joint(PREDS))
    assert torch.equal(make_('forward').loss_func.M, ForwardCorrection(T).M) and torch.equal(make_('backward').loss_func.M, BackwardCorrection(T).M)
    issues = find_label_issues(PREDS).set_index('item').label_score
    reweight = train('reweight'); assert np.allclose(reweight.sample_weights.weights, issues.reindex([str(i) for i in range(M)]))
    soft = make_('soft'); assert np.allclose(soft.soft_targets.targets, label_posterior(PREDS), atol=1e-5)

# ---- the courses
def test_once_is_fit_one_cycle():
    with_fit = train('gce', fit=lambda learn: learn.fit_one_cycle(2, 1e-2))
    assert same(train('gce'), with_fit) and not same(with_fit, train('gce', fit=lambda learn: learn.fit_one_cycle(2, 1e-3)))
    assert same(train('plain', 9, lr=5., fit=lambda learn: learn.fit(1)), train('plain', fit=lambda learn: learn.fit(1)))        # epochs and lr are the function's
    with pytest.raises(ValueError, match='takes a function of the learner'): train('gce', fit=3)

def test_the_recipe_is_gradual():
    see = See(); learn = train('recipe', 4, watch=lambda step: [see])
    assert see.n == [1, 3] and type(see.was) is LS and type(learn.loss_func) is CE and same(learn, train('recipe', fit=lambda l: l.fine_tune_gradual(3, 1e-2, sink=lambda o: None)))
    see = See(); train('recipe', 1, watch=lambda step: [see]); assert see.n == [1, 0] or see.n == [1]

@pytest.mark.parametrize('epochs, want', [(2, [1, 1]), (3, [2, 1]), (5, [3, 2]), (10, [6, 4])])
def test_joint_optimisation_in_two_steps(epochs, want):
    seen = {}
    learn = train('joint', epochs, watch=lambda step: [seen.setdefault(step, See())])
    assert list(seen) == ['labels', ''] and [o for s in seen.values() for o in s.n] == want
    assert JointOptimization in seen['labels'].cbs and SoftTargets in seen[''].cbs
    with seeded(42): first = make(dls_of())
    assert learn.soft_targets.targets.shape == (M, K) and np.allclose(learn.soft_targets.targets.sum(1), 1, atol=1e-4)
    calls = []; train('joint', fit=lambda l: calls.append(l) or l.fit(1)); assert len(calls) == 2 and calls[0] is not calls[1]

def test_clean_retrain_trains_on_cleaned_labels(trained):
    learn, issues = trained['clean-retrain'], find_label_issues(PREDS)
    items, y = np.array([int(o) for o in learn.dls.train_ds.items]), given_labels(learn.dls.train_ds)
    wrong = (y != TRUE[items]).mean()
    assert wrong < .05 < WRONG[:M].mean() and len(items) > .75*M
    changed = y != LABELS[items]
    assert changed.sum() > 30 and (y[changed] == TRUE[items[changed]]).mean() > .95
    gone = np.setdiff1d(np.arange(M), items)
    assert set(gone) | set(items[changed]) == {int(o) for o in issues['item'][issues.is_label_issue]}
    sure = P[items[changed]].max(1); assert (sure > .8).all()
    assert torch.equal(torch.as_tensor(given_labels(learn.dls.valid_ds)), torch.as_tensor(LABELS[M:]))             # others' labels stay
    assert same(learn, train('plain', 10, learn.dls)) and list(learn.dls.vocab if hasattr(learn.dls, 'vocab') else VOCAB) == VOCAB

@each
@pytest.mark.slow
def test_watchers(method):
    seen = {}
    learn = train(method, watch=lambda step: [seen.setdefault(step, See())])
    assert list(seen) == (['labels', ''] if method == 'joint' else ['']) and See not in map(type, learn.cbs)
    assert sum(o for s in seen.values() for o in s.n) == 2                         # epochs of all steps together
    assert same(learn, train(method))                                             # they only watch

@each
@pytest.mark.slow
def test_it_goes_on_after_an_interruption(method, tmp_path):
    class Stop(Callback):
        order = 2000
        def after_step(self):
            if self.epoch == self.learn.n_epoch - 1 and self.iter == 3: raise KeyboardInterrupt
    kept = lambda step: [Checkpoint(tmp_path/f'{step}.pth')]
    whole = train(method, 4)
    for step in ('labels', '') if method == 'joint' else ('',):
        with pytest.raises(KeyboardInterrupt): train(method, 4, watch=lambda s: kept(s) + [Stop()]*(s == step))
    assert same(whole, train(method, 4, watch=kept)) and same(whole, train(method, 4, watch=kept))
    other = 'plain' if method != 'plain' else 'gce'
    if METHODS[method].course in ('once', 'gradual'):
        with pytest.raises(ValueError, match='is of another training'): train(other, 4, watch=kept)

# ---- what stays
@each
@pytest.mark.slow
def test_class_weights_stay(method):
    w = torch.tensor([1., 2., 5.])
    for loss in (CE(weight=w), LS(weight=w)):
        learn = train(method, fn=partial(make, loss_func=loss))
        assert torch.equal(getattr(learn.loss_func, 'func', learn.loss_func).weight, w)
    assert not same(learn, train(method))

@each
def test_export(method, trained, tmp_path):
    learn = trained[method]; learn.path = tmp_path
    learn.export('l.pkl')
    again = load_learner(tmp_path/'l.pkl')
    with again.no_bar(), learn.no_bar(): a, b = again.get_preds(dl=learn.dls.valid)[0], learn.get_preds()[0]
    assert torch.allclose(a, b, atol=1e-6)

@each
def test_without_validation_labels_or_string_names(method):
    "Numbers as classes, and a training set alone with validation rows of none."
    dls = array_dls(X, LABELS.tolist(), SPLIT, [0, 1, 2], bs=16)
    learn = train(method, dls=dls, preds=Predictions.from_arrays(LABELS[:M], P[:M]))
    assert all(torch.isfinite(o).all() for o in weights(learn))

# ---- predictions
KNOWN = [m for m in METHODS if METHODS[m].needs_preds]

@pytest.mark.slow
def test_which_need_predictions():
    assert set(KNOWN) == {'forward', 'backward', 'log-weighted', 'reweight', 'soft', 'clean-retrain'}
    for m in set(METHODS) - set(KNOWN): assert same(train(m, 2, preds=None), train(m, 2, preds=preds_of(5)))      # whatever is given to others is not looked at

@pytest.mark.parametrize('method', KNOWN)
def test_predictions_must_be_there_and_fit(method):
    with pytest.raises(ValueError, match=f'{method!r} needs out-of-fold predictions'): train(method, preds=None)
    if method != 'clean-retrain':
        with pytest.raises(ValueError, match=f'{method!r} needs out-of-fold predictions'): robust_learner(dls_of(), make, method)
    for preds, message in [(preds_of(200), '40 of 240 training items have no prediction, the first is .200.: were they made for other data'), (preds_of(items=[f'x{i}' for i in range(M)]), '240 of 240 training items'),
                           (preds_of(split='valid'), '240 of 240 training items'), (preds_of(vocab=['a', 'b', 'c']), 'the predictions are for the classes'), (preds_of(vocab=VOCAB[::-1]), 'the predictions are for the classes'),
                           (preds_of(labels=TRUE), '80 of 240 training items have another label in the predictions: predict these data again')]:
        with pytest.raises(ValueError, match=message): train(method, preds=preds)

@pytest.mark.parametrize('method', KNOWN)
def test_rows_of_other_splits_and_in_another_order(method):
    want = train(method)
    assert same(want, train(method, preds=preds_of(N)))                            # validation rows are left out
    assert same(want, train(method, preds=preds_of(N, order=np.random.default_rng(1).permutation(N))))

# ---- what is refused
def test_what_does_not_fit():
    with pytest.raises(ValueError, match="method must be one of plain, .*clean-retrain, .*; got 'magic'"): train('magic')
    with pytest.raises(ValueError, match="method must be one of"): robust_learner(dls_of(), make, 'magic')
    for e in (0, -1, 1.5, '3', None):
        with pytest.raises(ValueError, match='epochs must be a whole number from 1'): train('gce', e)
    for m in METHODS:
        if m == 'joint':
            with pytest.raises(ValueError, match='two steps: give 2 epochs or more'): train(m, 1)
            with pytest.raises(ValueError, match='steps of its own: use train_robust'): robust_learner(dls_of(), make, m, PREDS)
        else: assert all(torch.isfinite(o).all() for o in weights(train(m, 1)))
    with pytest.raises(ValueError, match='steps of its own: use train_robust'): robust_learner(dls_of(), make, 'clean-retrain', PREDS)

@each
def test_several_labels_are_refused(method):
    dls = Datasets(range(20), [[lambda i: torch.as_tensor(X[i])], [lambda i: [int(TRUE[i])], MultiCategorize(vocab=list(range(K))), OneHotEncode()]], splits=[range(16), range(16, 20)]).dataloaders(bs=4, num_workers=0)
    with pytest.raises(ValueError, match='one label for each item'): train(method, dls=dls, fn=partial(make, loss_func=BCEWithLogitsLossFlat()))

def test_any_data_of_fastai():
    "Datasets with transforms, and not arrays."
    dls = Datasets(range(N), [[lambda i: torch.as_tensor(X[i])], [lambda i: VOCAB[LABELS[i]], Categorize(vocab=VOCAB)]], splits=[range(M), range(M, N)]).dataloaders(bs=16, num_workers=0)
    for m in ('soft', 'clean-retrain', 'joint', 'forward', 'reweight'): assert all(torch.isfinite(o).all() for o in weights(train(m, dls=dls))), m

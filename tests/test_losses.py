"Every loss: by hand, by its gradients, and wherever fastai takes a loss."
import pickle, warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.mixup import MixUp
from fastai.data.all import Categorize, Datasets
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, load_learner
from fastai.metrics import accuracy
import fastai.callback.schedule, fastai.callback.fp16
from torch import nn

from fastclean.core import Predictions
from fastclean.kfold import KFoldLearner
from fastclean.losses import *
from fastclean.losses import LOSSES, NoiseRobustLoss
from fastclean.targets import SoftTargets

K = 4
T = np.array([[.7, .1, .1, .1], [.3, .6, .1, 0], [0, .2, .8, 0], [0, 0, .4, .6]])
known = (ForwardCorrection, BackwardCorrection, LogWeightedCorrection)
MAKE = {k: partial(v, T) if v in known else v for k, v in LOSSES.items()} | dict(row=partial(LogWeightedCorrection, T, form='row'), prior=partial(LogWeightedCorrection, T, [.1, .2, .3, .4]), sampled=partial(WARPLoss, sampled=True),
        warp_ramp=partial(WARPLoss, s=-.8), hard=partial(BootstrapLoss, hard=True))
each = pytest.mark.parametrize('name', MAKE)

@pytest.fixture
def batch():
    torch.manual_seed(0)
    return 3*torch.randn(60, K, dtype=torch.double), torch.randint(K, (60,))

def by_hand(name, z, y):
    "Each loss of one item, in numpy, from its formula."
    z = z.numpy(); e = np.exp(z - z.max()); p = e/e.sum(); onehot = np.eye(K)[y]; others = [j for j in range(K) if j != y]
    margin, v = z[y] - max(z[others]), np.maximum(0, 1 - z[y] + z[others])
    L = lambda r: sum(1/i for i in range(1, r + 1))
    c = z - z.mean(); c = c/np.linalg.norm(c)
    def given_true(prior): J = np.asarray(prior)[:, None]*T; return J[:, y]/J[:, y].sum()
    def warp(v): r = (v > 0).sum(); return L(r)/r*v.sum() if r else 0.
    return dict(forward=lambda: -np.log(p@T)[y], backward=lambda: (np.linalg.inv(T)@-np.log(p))[y], log_weighted=lambda: -given_true([.25]*4)@np.log(p), prior=lambda: -given_true([.1, .2, .3, .4])@np.log(p),
                row=lambda: -T[y]@np.log(p), mae=lambda: np.abs(p - onehot).sum(), brier=lambda: ((p - onehot)**2).sum(), unhinged=lambda: 1 - (c[y] - c[others].mean()), ramp=lambda: min(1.8, max(0, 1 - margin)),
                warp=lambda: warp(v), warp_ramp=lambda: warp(np.minimum(v, 1.8)), gce=lambda: (1 - p[y]**.7)/.7, sce=lambda: -.1*np.log(p[y]) + 6*(1 - p[y]),
                bootstrap=lambda: -(.95*onehot + .05*p)@np.log(p), hard=lambda: -(.8*onehot + .2*np.eye(K)[p.argmax()])@np.log(p))[name]()

@pytest.mark.parametrize('name', [o for o in MAKE if o != 'sampled'])
def test_by_hand(name, batch):
    z, y = batch
    np.testing.assert_allclose(MAKE[name](reduction='none')(z, y), [by_hand(name, a, int(b)) for a, b in zip(z, y)], rtol=2e-6, atol=2e-6)

@each
def test_gradients_are_those_of_finite_differences(name, batch):
    z, y = (o[:12] for o in batch)
    f = MAKE[name]()
    def seeded(x): torch.manual_seed(0); return f(x, y)
    assert torch.autograd.gradcheck(seeded, z.requires_grad_(), eps=1e-6, atol=1e-5)

@pytest.mark.parametrize('name, total', [('mae', 2*(K - 1)), ('unhinged', K), ('sce_without_ce', 6*(K - 1))])
def test_symmetric_losses_add_up_to_a_constant(name, total, batch):
    f = dict(mae=MAELoss(), unhinged=UnhingedLoss(), sce_without_ce=SymmetricCrossEntropy(0, 1))[name]
    torch.testing.assert_close(f.per_class(batch[0]).sum(1), torch.full((60,), float(total), dtype=torch.double))

@pytest.mark.parametrize('name', ['mae', 'unhinged', 'brier', 'ramp', 'gce', 'warp_ramp'])
def test_bounded_losses_are_bounded(name):
    z = 1e4*torch.randn(500, K)
    f = MAKE[name](reduction='none')
    assert -1 < min(f(z, torch.full((500,), k)).min() for k in range(K)) and max(f(z, torch.full((500,), k)).max() for k in range(K)) < 10

def test_backward_correction_is_unbiased(batch):
    z = batch[0]
    torch.testing.assert_close(BackwardCorrection(T).double().per_class(z)@torch.tensor(T).T, -F.log_softmax(z, 1), rtol=1e-4, atol=1e-4)

def test_forward_correction_finds_the_true_model():
    torch.manual_seed(0)
    x = torch.randn(20_000, 2); true = torch.distributions.Categorical(logits=torch.stack([3*x[:, 0], 2*x[:, 1], x.sum(1), -x[:, 0]], 1)).sample()
    given = torch.distributions.Categorical(probs=torch.tensor(T).float()[true]).sample()
    def fit(loss):
        m = nn.Linear(2, K); opt = torch.optim.LBFGS(m.parameters(), max_iter=100)
        def step(): opt.zero_grad(); o = loss(m(x), given); o.backward(); return o
        opt.step(step)
        return F.cross_entropy(m(x), true).item()
    plain, corrected, best = fit(nn.CrossEntropyLoss()), fit(ForwardCorrection(T)), F.cross_entropy(torch.stack([3*x[:, 0], 2*x[:, 1], x.sum(1), -x[:, 0]], 1), true).item()
    assert corrected < best + .01 < plain - .2

def test_sampled_warp_is_about_the_exact_one():
    torch.manual_seed(0)
    z, y = torch.randn(1, 30), torch.tensor([7])
    sampled = WARPLoss(sampled=True)(z.expand(20_000, 30), y.expand(20_000))
    assert .7 < sampled/WARPLoss()(z, y) < 1.3

# ---- reductions, weights, soft targets, shapes, precision
@each
def test_reductions_and_class_weights(name, batch):
    z, y = batch
    if name == 'sampled': return   # draws anew at each call
    w, losses = torch.tensor([1., 2, .5, 4]), MAKE[name](reduction='none')(z, y)
    torch.testing.assert_close(MAKE[name]()(z, y), losses.mean()); torch.testing.assert_close(MAKE[name](reduction='sum')(z, y), losses.sum())
    torch.testing.assert_close(MAKE[name](weight=w)(z, y), (w[y]*losses).sum()/w[y].sum())
    torch.testing.assert_close(MAKE[name](weight=w, reduction='none')(z, y), w[y]*losses)

@each
def test_soft_targets_are_the_expectation(name, batch):
    z, y = batch
    if name == 'sampled': return
    q = torch.rand(60, K, dtype=torch.double).softmax(1)
    expect = sum(q[:, k]*MAKE[name](reduction='none')(z, torch.full((60,), k)) for k in range(K))
    torch.testing.assert_close(MAKE[name](reduction='none')(z, q), expect, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(MAKE[name]()(z, F.one_hot(y, K).double()), MAKE[name]()(z, y), rtol=1e-5, atol=1e-5)
    w, onehot = torch.tensor([1., 2, .5, 4]), F.one_hot(y, K).double()
    torch.testing.assert_close(MAKE[name](weight=w, reduction='none')(z, q), sum(w[k]*q[:, k]*MAKE[name](reduction='none')(z, torch.full((60,), k)) for k in range(K)), rtol=1e-5, atol=1e-5)
    for how in ('mean', 'sum', 'none'): torch.testing.assert_close(MAKE[name](weight=w, reduction=how)(z, onehot), MAKE[name](weight=w, reduction=how)(z, y), rtol=1e-5, atol=1e-5)

@each
def test_half_precision_and_extreme_logits(name, batch):
    z, y = batch
    for x in (z.half(), z.bfloat16(), (1000*z).float(), torch.zeros(60, K)):
        x = x.detach().clone().requires_grad_()
        o = MAKE[name]()(x, y); o.backward()
        assert o.dtype == torch.float32 and torch.isfinite(o) and torch.isfinite(x.grad).all()

@each
def test_axis_and_more_dimensions(name, batch):
    z, y = batch
    if name == 'sampled': return
    torch.testing.assert_close(MAKE[name](axis=1)(z.view(6, 10, K).movedim(-1, 1), y.view(6, 10)), MAKE[name]()(z, y))
    f = MAKE[name](axis=1)
    assert f.decodes(z.view(6, 10, K).movedim(-1, 1)).shape == (6, 10) and torch.allclose(f.activation(z.view(6, 10, K).movedim(-1, 1)).sum(1), torch.ones(6, 10, dtype=torch.double))

@pytest.mark.parametrize('make, message', [(lambda: ForwardCorrection(np.ones((2, 3))), 'square'), (lambda: ForwardCorrection(np.eye(3)*2), 'sum to 1'), (lambda: BackwardCorrection(np.full((3, 3), 1/3)), 'cannot be inverted'),
                                           (lambda: LogWeightedCorrection(T, form='x'), "'posterior' or 'row'"), (lambda: LogWeightedCorrection(T, [1, 2]), 'shares of the 4'), (lambda: GeneralizedCrossEntropy(0), 'above 0'),
                                           (lambda: RampLoss(s=1.5), 'below 1'), (lambda: WARPLoss(s=1.), 'below 1'), (lambda: BootstrapLoss(beta=3), 'from 0 to 1'), (lambda: MAELoss(weight=[1, -1]), 'at least 0'),
                                           (lambda: MAELoss(weight=[[1, 2]]), 'one value for each class'), (lambda: MAELoss(weight=[1, 2])(torch.zeros(3, 4), torch.zeros(3).long()), 'weights for 2 classes')])
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message): make()

def test_noise_matrix_from_predictions():
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, 5000); given = np.array([rng.choice(K, p=T[k]) for k in true])
    p = np.full((5000, K), .01) + .96*np.eye(K)[true]
    preds = Predictions.from_arrays(given, p)
    for cls in known: assert isinstance(cls.from_predictions(preds), cls)
    np.testing.assert_allclose(ForwardCorrection.from_predictions(preds).M.exp(), T, atol=.03)
    split = np.repeat(['train', 'valid'], 2500)
    clean = Predictions.from_arrays(np.where(split == 'valid', true, given), p, split=split)
    np.testing.assert_allclose(ForwardCorrection.from_predictions(clean).M.exp(), T, atol=.05)   # validation labels are right here, and tell nothing of the others

def test_log_weights_know_the_shares_of_the_classes():
    rng, shares = np.random.default_rng(0), np.array([.85, .1, .05])
    true = rng.choice(3, 6000, p=shares); given = np.where(rng.random(6000) < .2, rng.integers(0, 3, 6000), true)
    loss = LogWeightedCorrection.from_predictions(Predictions.from_arrays(given, np.full((6000, 3), .01) + .97*np.eye(3)[true]))
    told = np.array([[(true[given == y] == k).mean() for k in range(3)] for y in range(3)])
    np.testing.assert_allclose(loss.M, told, atol=.06)

def test_weights_come_from_anywhere():
    w = torch.nn.Parameter(torch.tensor([1., 2, 3, 4]))
    assert torch.equal(MAELoss(weight=w).weight, MAELoss(weight=[1, 2, 3, 4]).weight) and not MAELoss(weight=w).weight.requires_grad

# ---- in fastai
class Get:
    def __init__(self, o): self.o = o
    def __call__(self, i): return self.o[i]

def learner(loss, n=120, bs=20, **kwargs):
    torch.manual_seed(0)
    x = torch.randn(n, 2); y = (x[:, 0] > 0).long() + 2*(x[:, 1] > 0).long()
    ds = Datasets(list(range(n)), [[Get(x)], [Get(y.tolist()), Categorize(vocab=list(range(K)), add_na=False)]], splits=[list(range(n - 30)), list(range(n - 30, n))])
    dls = ds.dataloaders(bs=bs, num_workers=0)
    return Learner(dls, nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, K)), loss_func=loss, metrics=accuracy, **kwargs)

@each
@pytest.mark.slow
def test_in_a_learner(name, tmp_path):
    learn = learner(MAKE[name](), path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(show_plot=False, num_it=12)
        learn.fit_one_cycle(2, 1e-2)
        learn.fit(1, cbs=MixUp())
        learn.fit(1, cbs=SoftTargets(np.eye(K)[[y for _, y in learn.dls.train_ds]].astype(np.float32)*.9 + .025))
        p, targs, dec, losses = learn.get_preds(with_decoded=True, with_loss=True)
        interp = ClassificationInterpretation.from_learner(learn)
        m = interp.confusion_matrix()
    assert torch.allclose(p.sum(1), torch.ones(30), atol=1e-5) and torch.equal(dec, p.argmax(1)) and losses.shape == (30,) and m.sum() == 30
    learn.export('l.pkl')
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); again = load_learner(tmp_path/'l.pkl')
    assert type(again.loss_func) is type(learn.loss_func)

@each
def test_in_mixed_precision(name):
    learn = learner(MAKE[name]()).to_fp16() if torch.cuda.is_available() else learner(MAKE[name]())
    with learn.no_bar(), learn.no_logging(), torch.autocast('cpu', dtype=torch.bfloat16): learn.fit(1, 1e-3)
    assert all(torch.isfinite(o).all() for o in learn.model.parameters())

@each
def test_pickled_and_described(name, batch):
    f = MAKE[name](weight=[1, 2, 3, 4.])
    g = pickle.loads(pickle.dumps(f))
    torch.manual_seed(0); a = f(*batch); torch.manual_seed(0)
    assert torch.equal(a, g(*batch)) and type(f).__doc__ and f.y_int

def test_inside_the_folds():
    kf = KFoldLearner(learner(None).dls, lambda dls: Learner(dls, nn.Linear(2, K), loss_func=GeneralizedCrossEntropy()), n_splits=3)
    preds = kf.run(lambda l: l.fit(1)).predictions()
    assert len(preds) == 120 and np.allclose(preds.pred_probs.sum(1), 1, atol=1e-4)

def test_every_loss_is_listed():
    import fastclean.losses as L
    made = {o for o in vars(L).values() if isinstance(o, type) and issubclass(o, NoiseRobustLoss) and not o.__name__.startswith('_')} - {NoiseRobustLoss}
    assert made == set(LOSSES.values())

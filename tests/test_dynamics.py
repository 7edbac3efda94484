"The record of the training is that of the items, and what is computed from it is what its authors compute."
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import Learner
import fastai.callback.data   # weighted_dataloaders
from fastai.data.all import Categorize, Datasets, MultiCategorize, OneHotEncode
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from torch import nn

from fastclean.callback.core import train_items
from fastclean.callback.dynamics import TrainingDynamics, aum_issues, fake_class, plot_data_map, trajectory_noise
from fastclean.core import seeded
from fastclean.loaders import class_names, given_labels
from fastclean.targets import SoftTargets

torch.set_num_threads(1)
N, K = 66, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
def vector(i): return X[i]
def third(i): return 'abc'[i % K]

def dls_of(method='dataloaders', *args, **kw):
    ds = Datasets(range(N), [[vector], [third, Categorize(vocab=['a', 'b', 'c'])]], splits=[range(60), range(60, N)])
    return getattr(ds, method)(*args, **{**dict(bs=8, num_workers=0), **kw})

def learner(dls=None, **kw):
    dls = dls or dls_of()
    return Learner(dls, nn.Linear(4, dls.c), loss_func=CrossEntropyLossFlat(), **kw)

def quietly(learn, n=2, fit='fit', **kw):
    with learn.no_bar(), learn.no_logging(): getattr(learn, fit)(n, **kw)
    return learn

class Look(Callback):
    "What the record should be, written down by items that name themselves."
    order, run_valid = 40, False
    def before_fit(self): self.seen = []
    def before_epoch(self): self.seen.append({})
    def after_batch(self):
        for x, z, y in zip(self.x, self.learn.pred.detach(), self.y):
            p, e = z.softmax(0), torch.eye(len(z))[y]
            i = int((X == x).all(1).nonzero()[0, 0])
            others = [float(o) for k, o in enumerate(z) if k != int(y)]
            self.seen[-1].setdefault(i, []).append((float(z[y]) - max(others), float(p[y]), float((p - e).norm()), int(y)))

@pytest.mark.parametrize('make', [dls_of, partial(dls_of, shuffle=False), partial(dls_of, drop_last=False), partial(dls_of, num_workers=2), partial(dls_of, 'weighted_dataloaders', np.arange(60.)**2)], ids=['shuffled', 'in order', 'with the rest', 'workers', 'weighted'])
def test_the_record_is_by_item(make):
    dyn, look = TrainingDynamics(), Look()
    quietly(learner(make(), cbs=[dyn, look]), 3)
    assert dyn.margins.shape == (60, 3) and len(look.seen) == 3
    for e, seen in enumerate(look.seen):
        assert set(np.flatnonzero(~np.isnan(dyn.margins[:, e]))) == set(seen)
        for i, o in seen.items():
            want = np.mean(o, axis=0)
            np.testing.assert_allclose([dyn.margins[i, e], dyn.probs[i, e], dyn.errors[i, e]], want[:3], rtol=1e-3, atol=1e-5)
            assert dyn.given[i] == want[3] == i % K

def made(margins, probs=None, errors=None):
    dyn = TrainingDynamics()
    margins = np.asarray(margins, dtype=float)
    probs, errors = (np.full(margins.shape, .5) if o is None else np.asarray(o) for o in (probs, errors))
    dyn.names, dyn.vocab, dyn.given = np.array([f'i{k}' for k in range(len(margins))], object), ['a', 'b', 'c'], np.arange(len(margins)) % K
    dyn.records = list(np.stack([margins, probs, errors], 2).transpose(1, 0, 2))
    return dyn

def test_scores_by_hand():
    nan = np.nan
    s = made([[1, -1, 2, -1, -1], [-1]*5, [3, nan, 1, nan, -2], [nan]*5, [1, 2, 3, 4, 5], [1, nan, -1, 0, 1]], errors=[[.1, .3, .5, .7, .9]]*6).scores(el2n_epochs=(1, 3))
    np.testing.assert_array_equal(s.forgetting, [2, np.inf, 1, nan, 0, 1])
    np.testing.assert_allclose(s.aum, [0, -1, 2/3, nan, 3, .25])
    np.testing.assert_allclose(s.correctness, [.4, 0, 2/3, nan, 1, .5])
    np.testing.assert_allclose(s.el2n, .4); assert list(s.epochs) == [5, 5, 3, 0, 5, 4] and list(s.given_label) == ['a', 'b', 'c']*2

def test_variability_is_the_standard_deviation():
    p = np.random.default_rng(0).random((5, 7)); p[2, 3] = np.nan
    s = made(np.ones((5, 7)), p).scores()
    np.testing.assert_allclose(s.variability, np.nanstd(p, axis=1)); np.testing.assert_allclose(s.confidence, np.nanmean(p, axis=1))

def test_validation_predictions_and_lr_find_leave_no_trace(tmp_path):
    dyn = TrainingDynamics()
    learn = quietly(learner(cbs=dyn, path=tmp_path))
    before = dyn.margins.copy()
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=10, show_plot=False); learn.validate(); learn.get_preds(ds_idx=0); learn.get_preds()
    np.testing.assert_array_equal(dyn.margins, before)
    quietly(learn, 1)
    assert dyn.margins.shape == (60, 1)

def test_an_interrupted_lr_find_does_not_switch_it_off(tmp_path):
    class Stop(Callback):
        def after_batch(self): raise KeyboardInterrupt
    dyn = TrainingDynamics()
    learn = learner(cbs=dyn, path=tmp_path)
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(Stop()), pytest.raises(KeyboardInterrupt): learn.lr_find(num_it=10, show_plot=False)
    quietly(learn)
    assert dyn.margins.shape == (60, 2)

def test_two_fits():
    fresh, kept, net = TrainingDynamics(), TrainingDynamics(keep=True), learner()
    quietly(net, 2, cbs=[fresh, kept]); first = kept.margins.copy(); quietly(net, 3, cbs=[fresh, kept])
    assert fresh.margins.shape == (60, 3) and kept.margins.shape == (60, 5)
    np.testing.assert_array_equal(kept.margins, np.c_[first, fresh.margins])
    with seeded(1): a = TrainingDynamics(); quietly(learner(), cbs=a)
    with seeded(1): quietly(learner(), cbs=fresh)
    np.testing.assert_array_equal(a.margins, fresh.margins)

@pytest.mark.parametrize('stop', [CancelTrainException, CancelEpochException, CancelFitException])
def test_what_was_seen_before_a_stop_is_there(stop):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.epoch == 1 and self.iter == 2: raise stop
    dyn = TrainingDynamics()
    quietly(learner(), 2, cbs=[dyn, Stop()])
    assert dyn.margins.shape == (60, 2) and (~np.isnan(dyn.margins[:, 1])).sum() == 24

def test_beside_soft_targets_it_records_the_given_label():
    a, b, look = TrainingDynamics(), TrainingDynamics(), Look()
    with seeded(0): quietly(learner(), cbs=a)
    with seeded(0): quietly(learner(), cbs=[SoftTargets(np.eye(3)[np.arange(60) % 3]), b])
    np.testing.assert_array_equal(a.margins, b.margins); assert (b.given == np.arange(60) % 3).all()

def test_mixup_records_the_blend_under_the_own_label():
    dyn, look = TrainingDynamics(), TrainingDynamics()
    quietly(learner(), 4, cbs=[MixUp(), dyn])
    assert dyn.margins.shape == (60, 4) and (dyn.given == np.arange(60) % 3).all()

def test_names_and_the_join():
    dyn = TrainingDynamics()
    quietly(learner(), cbs=dyn)
    issues = pd.DataFrame(dict(item=['63', '5', '0'], label_score=[.1, .2, .3]), index=[7, 8, 9])
    both = dyn.join(issues)
    assert list(both.index) == [7, 8, 9] and list(both['item']) == ['63', '5', '0'] and np.isnan(both.aum.iloc[0]) and np.isclose(both.aum.iloc[1], dyn.scores().aum[5])
    assert list(dyn.join(both).columns) == list(both.columns)      # twice is once
    with pytest.raises(ValueError, match="is_label_issue is a column of the issues"): dyn.join(issues, dyn.scores().assign(is_label_issue=True))
    with pytest.raises(ValueError, match='none of the items'): dyn.join(issues.assign(item=['x', 'y', 'z']))
    with pytest.raises(ValueError, match='a row for each item and class'): dyn.join(issues.assign(**{'class': 'a'}))

def test_what_cannot_be_recorded():
    with pytest.raises(ValueError, match='nothing is recorded'): TrainingDynamics().scores()
    with pytest.raises(ValueError, match='within the 2 recorded'): made(np.ones((3, 2))).scores((0, 5))
    ds = Datasets(range(20), [[vector], [third, MultiCategorize(vocab=['a', 'b', 'c']), OneHotEncode()]], splits=[range(16), range(16, 20)])
    with pytest.raises(ValueError, match='one label for each item'): quietly(Learner(ds.dataloaders(bs=4, num_workers=0), nn.Linear(4, 3), loss_func=BCEWithLogitsLossFlat()), cbs=TrainingDynamics())

def test_it_can_be_pickled():
    dyn = TrainingDynamics()
    quietly(learner(), cbs=dyn)
    again = pickle.loads(pickle.dumps(dyn))
    pd.testing.assert_frame_equal(again.scores(), dyn.scores())

def test_memory():
    dyn = TrainingDynamics()
    quietly(learner(), 3, cbs=dyn)
    assert sum(r.nbytes for r in dyn.records) == 60*3*3*4

# ---- the noise model, the fake class and the picture
def simulated(n=900, epochs=9, wrong=.2, seed=0):
    "Margins that rise; those of wrong labels later."
    rng = np.random.default_rng(seed)
    bad = rng.random(n) < wrong
    m = np.linspace(-1, 6, epochs)*np.where(bad, .5, 1.2)[:, None] - np.where(bad, 3., 0)[:, None] + rng.normal(0, .7, (n, epochs))
    return made(m), bad

def test_the_noise_model_finds_the_late_ones():
    dyn, bad = simulated()
    for least in (100, 10_000):       # one mixture each, and one for all
        p = trajectory_noise(dyn, least)
        assert ((p > .5) == bad).mean() > .98 and abs(p.mean() - bad.mean()) < .02

def test_the_noise_model_with_little():
    dyn, _ = simulated(30, 1)
    assert np.isfinite(trajectory_noise(dyn)).all()
    dyn.records[0][:4] = np.nan
    assert np.isnan(trajectory_noise(dyn)[:4]).all() and np.isfinite(trajectory_noise(dyn)[4:]).all()
    assert (trajectory_noise(made(np.ones((30, 4)))) == 0).all()
    with pytest.raises(ValueError, match='ten items'): trajectory_noise(made(np.ones((3, 4))))

def test_the_fake_class():
    dls = dls_of()
    new = fake_class(dls, [3, 5])
    y = given_labels(new.train_ds)
    assert class_names(new) == ['a', 'b', 'c', 'fake class'] and new.c == 4 and list(np.flatnonzero(y == 3)) == [3, 5]
    assert (given_labels(new.valid_ds) == given_labels(dls.valid_ds)).all() and (given_labels(dls.train_ds) == np.arange(60) % 3).all() and class_names(dls) == ['a', 'b', 'c']
    assert new.train_ds.tls[1].decode(torch.tensor(3)) == 'fake class'

def test_aum_issues_judges_every_item_once():
    calls = []
    def fit(learn): calls.append(given_labels(learn.dls.train_ds)); quietly(learn, 1, 'fine_tune' if False else 'fit')
    with seeded(0): d = aum_issues(dls_of(drop_last=False), learner, fit)
    fakes = [set(np.flatnonzero(y == 3)) for y in calls]
    assert len(d) == 60 and set(d['item']) == set(map(str, range(60))) and set(d.given_label) == {'a', 'b', 'c'} and d.aum.notna().all()
    assert [len(f) for f in fakes] == [15, 15] and not fakes[0] & fakes[1] and d.threshold.nunique() == 2
    assert set(d['item'][d.threshold == d.threshold.mode()[0]].astype(int)) == set(range(60)) - fakes[0]
    assert (d.is_label_issue == (d.aum < d.threshold)).all() and d.is_label_issue.is_monotonic_decreasing
    pd.testing.assert_frame_equal(d, aum_issues(dls_of(drop_last=False), learner, fit))      # one seed is one result
    weighted = lambda dls: Learner(dls, nn.Linear(4, dls.c), loss_func=CrossEntropyLossFlat(weight=torch.ones(3)))
    with pytest.raises(ValueError, match='weights for 3 classes, and here there is a fake one more'): aum_issues(dls_of(), weighted, fit)

def test_the_picture():
    dyn, bad = simulated(200)
    dyn.records[0][:3] = np.nan
    fig = plot_data_map(dyn.scores(), bad, title='A $title$ of mine')
    assert fig._repr_png_()[:4] == b'\x89PNG' and len(plot_data_map(dyn.scores(), most=50).axes[0].collections[0].get_offsets()) == 50
    with pytest.raises(ValueError, match='no item has a score'): plot_data_map(dyn.scores()[:0])

def test_train_items_are_the_names_of_the_predictions():
    from fastclean.kfold import KFoldLearner
    dls = dls_of()
    preds = KFoldLearner(dls, learner, n_splits=2).run(lambda l: quietly(l, 1)).predictions()
    assert list(preds.items[preds.split == 'train']) == list(train_items(dls))

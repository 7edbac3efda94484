"Noise in DataFrames, DataLoaders, DataBlocks and folder copies."
import json, os, random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.tabular.all import Categorify, Normalize, TabularDataLoaders
from fastai.text.all import TextDataLoaders
from fastai.vision.all import (CategoryBlock, ClassificationInterpretation, CrossEntropyLossFlat, accuracy, load_learner, ColReader, ColSplitter, DataBlock, DataLoaders, Datasets, GrandparentSplitter, ImageBlock, ImageDataLoaders, IndexSplitter, Learner,
                               MultiCategoryBlock, PILImage, PILImageBW, RandomSplitter, Resize, Categorize, ToTensor, get_image_files, parent_label)
from PIL import Image

from fastclean.core import FastcleanWarning, Predictions
from fastclean.data import read_source, read_table
from fastclean.inject import *
from fastclean.loaders import class_names, given_labels, item_names, plain_dl
from fastclean.noise import *

CLASSES = ['ant', 'bee', 'cow']
HALF = SymmetricNoise(.5)

def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (8, 8), value % 256).save(path, format='PNG')

@pytest.fixture
def folder(tmp_path):
    for s, n in (('train', 20), ('valid', 8)):
        for k, c in enumerate(CLASSES):
            for i in range(n): write(tmp_path/'src'/s/c/f'{c}{i:02}.png', 40*k + i)
    return tmp_path/'src'

@pytest.fixture
def dls(folder): return ImageDataLoaders.from_folder(folder, item_tfms=Resize(8), bs=8, num_workers=0)

def block(**kw): return DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=GrandparentSplitter(), **kw)
def flips(truth): return truth.frame[truth.frame.is_flipped].set_index('item').given_label.to_dict()
def labels_of(dls, i=0): return dict(zip(item_names(dls[i].dataset, dls.path), given_labels(dls[i].dataset)))

def tree(folder):
    "Every file's path, content and time of change."
    return {p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(Path(folder).rglob('*')) if p.is_file()}

# ---- the truth

def test_truth_knows_rate_and_matrix():
    df = pd.DataFrame(dict(label=np.array(CLASSES)[np.arange(30_000) % 3]))
    noise = MatrixNoise([[.7, .3, 0], [0, 1, 0], [.1, .1, .8]])
    _, t = add_noise(df, 'label', noise, where=np.arange(30_000) < 15_000)
    T = noise.matrix(3)
    assert (np.abs(t.matrix - T) <= 5*np.sqrt(T*(1 - T)/5000) + 1e-12).all()
    assert t.rate == t.frame.is_flipped[:15_000].mean() > 0 and not t.frame.is_flipped[15_000:].any()
    assert len(t) == 30_000 and t.seed == 42 and t.noise['model'] == 'MatrixNoise' and 'labels made wrong' in repr(t) and len(repr(t)) < 200
    assert np.isnan(add_noise(df[df.label != 'cow'], 'label', noise, vocab=CLASSES)[1].matrix[2]).all()

# ---- DataFrames

@pytest.mark.parametrize('labels', [['b', 'a', None]*50, [2, 1, 2]*50, [2., 1., np.nan]*50, [True, False, True]*50, pd.Categorical(['z', 'a', None]*50, ['z', 'm', 'a']),
                                    pd.array(['b', 'a', pd.NA]*50, dtype='string'), ['NA', 'None', '1']*50, [1, '1', None]*50], ids=str)
def test_columns_of_any_kind(labels):
    df = pd.DataFrame(dict(x=range(150), y=labels), index=range(1000, 1150))
    before = df.copy()
    new, t = add_noise(df, 'y', HALF)
    pd.testing.assert_frame_equal(df, before)
    assert new.y.dtype == df.y.dtype and new.index.equals(df.index) and new.x.equals(df.x)
    assert np.array_equal(new.y.isna(), df.y.isna()) and set(new.y.dropna()) <= set(t.vocab)
    changed = np.array([a is not b and a != b for a, b in zip(new.y.astype(object).where(new.y.notna(), None), df.y.astype(object).where(df.y.notna(), None))])
    assert np.array_equal(changed, t.frame.is_flipped) and 0 < changed.sum() < 150
    assert t.frame.item.tolist() == [str(i) for i in df.index] and t.frame.given_label.tolist() == [None if pd.isna(o) else o for o in new.y]
    if isinstance(df.y.dtype, pd.CategoricalDtype): assert t.vocab == ['z', 'm', 'a']

def test_frame_order_and_item_column():
    df = pd.DataFrame(dict(path=[f'{i}.png' for i in range(200)], y=['a', 'b']*100))
    new, _ = add_noise(df, 'y', HALF)
    assert add_noise(df.sample(frac=1, random_state=0), 'y', HALF)[0].sort_index().equals(new)
    assert add_noise(df[50:90], 'y', HALF)[0].equals(new[50:90])
    by_path, t = add_noise(df, 'y', HALF, item_col='path')
    assert not by_path.equals(new) and t.frame.item.tolist() == df.path.tolist()
    assert add_noise(df.set_axis(range(500, 700)), 'y', HALF, item_col='path')[0].y.tolist() == by_path.y.tolist()
    twice, t = add_noise(pd.concat([df, df]), 'y', HALF, item_col='path')
    assert twice.y.tolist() == by_path.y.tolist()*2 and t.frame.item.is_unique

def test_a_function_in_place_of_a_model():
    df = pd.DataFrame(dict(y=['a', 'b', None, 'a']))
    new, t = add_noise(df, 'y', lambda y, items, vocab, seed: np.where(y < 0, y, (y + 1) % len(vocab)))
    assert new.y.fillna('-').tolist() == ['b', 'a', '-', 'b'] and t.noise == dict(model='<lambda>')
    for bad in (lambda *a: [0, 1], lambda *a: [0]*4, lambda *a: [7, 0, -1, 0], lambda *a: [-1]*4):
        with pytest.raises(ValueError): add_noise(df, 'y', bad)

@pytest.mark.parametrize('kw, says', [(dict(label_col='nope'), "no column 'nope'"), (dict(label_col='y', item_col='nope'), "no column 'nope'"), (dict(label_col='y', vocab=['a', 'c']), 'not in vocab'),
                                     (dict(label_col='one'), 'at least two classes')])
def test_bad_frames(kw, says):
    with pytest.raises(ValueError, match=says): add_noise(pd.DataFrame(dict(y=['a', 'b'], one='x')), noise=HALF, **kw)

# ---- DataLoaders

def test_dls_get_noise_and_keep_the_rest(dls):
    new = dls.with_noise(HALF)
    old_labels, new_labels, t = labels_of(dls), labels_of(new), new.noise
    assert {k for k in old_labels if old_labels[k] != new_labels[k]} == set(flips(t)) and 10 < len(flips(t)) < 50
    assert all(class_names(new)[new_labels[k]] == v for k, v in flips(t).items())
    assert [CLASSES[y] for y in old_labels.values()] == t.frame.true_label[:60].tolist()
    assert labels_of(new, 1) == labels_of(dls, 1) and t.frame.split.tolist() == ['train']*60 + ['valid']*24
    assert 'noise' not in dls.__dict__ and type(new) is type(dls) and new.vocab == dls.vocab and new.bs == dls.bs and new.path == dls.path
    assert t.frame.item.tolist() == [*item_names(dls.train_ds, dls.path), *item_names(dls.valid_ds, dls.path)]
    x, y = new.one_batch()
    assert x.shape == (8, 3, 8, 8) and len(y) == 8

def test_items_of_the_truth_are_those_of_predictions(dls):
    new = dls.with_noise(HALF, on='valid')
    learn = Learner(new, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)), loss_func=CrossEntropyLossFlat())
    with learn.no_bar(): preds = Predictions.from_learner(learn)
    t = new.noise.frame[new.noise.frame.split == 'valid']
    assert t.item.tolist() == preds.items.tolist() and t.given_label.tolist() == preds.label_names(preds.given_label).tolist()
    assert t.is_flipped.any() and not new.noise.frame.is_flipped[:60].any()

def test_on(dls):
    both = dls.with_noise(HALF, on='all').noise
    assert flips(both) == flips(dls.with_noise(HALF).noise) | flips(dls.with_noise(HALF, on='valid').noise)
    assert both.rate == both.frame.is_flipped.mean()
    assert flips(dls.with_noise(HALF, on='all', root=dls.path/'train').noise) == flips(both)          # not all lie below that root
    for bad in ('test', 0, None):
        with pytest.raises(ValueError, match='on must be'): dls.with_noise(HALF, on=bad)

def test_noise_on_two_splits_one_after_the_other(dls):
    two = dls.with_noise(SymmetricNoise(.4)).with_noise(PairNoise(.5), on='valid')
    assert flips(two.noise) == flips(dls.with_noise(SymmetricNoise(.4)).noise) | flips(dls.with_noise(PairNoise(.5), on='valid').noise)
    assert 'SymmetricNoise(rate=0.4, among=\'others\') on train and PairNoise(rate=0.5) on valid' in repr(two.noise)
    assert labels_of(two) == labels_of(dls.with_noise(SymmetricNoise(.4))) and two.noise.on == 'all' and two.noise.noise['valid']['model'] == 'PairNoise'
    assert [CLASSES[y] for y in [*labels_of(dls).values(), *labels_of(dls, 1).values()]] == two.noise.frame.true_label.tolist()
    for on in ('train', 'all'):
        with pytest.raises(ValueError, match='have noise on'): dls.with_noise(HALF).with_noise(HALF, on=on)
        with pytest.raises(ValueError, match='have noise on'): two.with_noise(HALF, on=on)

def test_order_workers_and_extra_files_change_nothing(folder, dls):
    want = flips(dls.with_noise(HALF).noise)
    files = list(get_image_files(folder).sorted()); random.Random(0).shuffle(files)
    shuffled = DataBlock((ImageBlock, CategoryBlock), get_items=lambda p: files, get_y=parent_label, splitter=GrandparentSplitter()).with_noise(HALF).datasets(folder)
    assert flips(shuffled.noise) == want
    mixed = DataBlock((ImageBlock, CategoryBlock), get_items=lambda p: files, get_y=parent_label, splitter=GrandparentSplitter(), item_tfms=Resize(8)).dataloaders(folder, path=folder, bs=5, num_workers=2)
    new = mixed.with_noise(HALF)
    assert flips(new.noise) == want
    x, y = zip(*new.valid); assert torch.cat(y).tolist() == given_labels(new.valid_ds).tolist()
    for i in range(7): write(folder/'train'/'bee'/f'more{i}.png')
    more = ImageDataLoaders.from_folder(folder, item_tfms=Resize(8), num_workers=0).with_noise(HALF)
    assert {k: v for k, v in flips(more.noise).items() if 'more' not in k} == want

def test_flips_move_with_the_folder(folder, dls, tmp_path, monkeypatch):
    want = flips(dls.with_noise(HALF).noise)
    os.rename(folder, tmp_path/'elsewhere')
    b = block(item_tfms=Resize(8))
    at = lambda d: {k[k.index('train/'):]: v for k, v in flips(d.noise).items()}
    assert at(b.dataloaders(tmp_path/'elsewhere', num_workers=0).with_noise(HALF)) == want           # dls.path is '.'
    monkeypatch.chdir(tmp_path)
    assert at(b.dataloaders(tmp_path/'elsewhere', num_workers=0).with_noise(HALF)) == want
    assert at(b.dataloaders('elsewhere', num_workers=0).with_noise(HALF)) == want                    # relative paths
    assert at(b.dataloaders('elsewhere', path='elsewhere', num_workers=0).with_noise(HALF)) == want
    assert at(b.with_noise(HALF).dataloaders('elsewhere', num_workers=0)) == want
    assert at(b.with_noise(HALF).dataloaders(tmp_path/'elsewhere', path=tmp_path, num_workers=0)) != want    # another root, other names
    assert at(b.dataloaders(tmp_path/'elsewhere', path=tmp_path, num_workers=0).with_noise(HALF, root=tmp_path/'elsewhere')) == want

def test_an_extra_folder_above_the_common_one_changes_nothing(folder, monkeypatch):
    want = flips(block(item_tfms=Resize(8)).with_noise(HALF).dataloaders(folder, path=folder, num_workers=0).noise)
    one = DataBlock((ImageBlock, CategoryBlock), get_items=lambda p: get_image_files(p, folders=['train']), get_y=parent_label, splitter=RandomSplitter(seed=0), item_tfms=Resize(8))
    got = flips(one.with_noise(HALF, on='all').datasets(folder).noise)
    assert got == want
    monkeypatch.chdir(folder.parent)
    assert flips(one.dataloaders(folder, path=folder.name, num_workers=0).with_noise(HALF, on='all').noise) == want      # a relative path, absolute files

def test_dls_of_a_frame_and_the_frame_flip_the_same_rows(folder):
    files = get_image_files(folder).sorted()
    df = pd.DataFrame(dict(name=[o.relative_to(folder).as_posix() for o in files], label=[o.parent.name for o in files]), index=range(7, 7 + len(files)))
    dls = ImageDataLoaders.from_df(df, folder, seed=1, item_tfms=Resize(8), bs=8, num_workers=0)
    new = dls.with_noise(HALF, on='all')
    assert flips(new.noise) == flips(add_noise(df, 'label', HALF)[1])
    made = ImageDataLoaders.from_df(add_noise(df, 'label', HALF)[0], folder, seed=1, item_tfms=Resize(8), bs=8, num_workers=0)
    assert labels_of(made) == labels_of(new)
    blk = DataBlock((ImageBlock, CategoryBlock), get_x=ColReader('name', pref=folder), get_y=ColReader('label'), splitter=RandomSplitter(seed=1), item_tfms=Resize(8))
    assert flips(blk.with_noise(HALF, on='all').dataloaders(df, num_workers=0).noise) == flips(new.noise)
    assert len(new.one_batch()) == 2

def test_rows_that_cannot_be_told_apart(folder):
    files = get_image_files(folder).sorted()
    df = pd.DataFrame(dict(name=[str(o) for o in files], label=[o.parent.name for o in files], is_valid=False))
    df = pd.concat([df, df.assign(is_valid=True)])
    dls = ImageDataLoaders.from_df(df, '/', valid_col='is_valid', item_tfms=Resize(8), num_workers=0)
    with pytest.raises(ValueError, match='cannot be told apart'): dls.with_noise(HALF)
    dls = ImageDataLoaders.from_df(df.reset_index(drop=True), '/', valid_col='is_valid', item_tfms=Resize(8), num_workers=0)
    assert labels_of(dls.with_noise(HALF), 1) == labels_of(dls, 1)
    blk = DataBlock((ImageBlock, CategoryBlock), get_x=ColReader('name'), get_y=ColReader('label'), splitter=ColSplitter('is_valid'))
    with pytest.raises(ValueError, match='cannot be told apart'): blk.with_noise(HALF).datasets(df)

def test_text():
    df = pd.DataFrame(dict(text=[' '.join(['good', 'film'][j % 2] for j in range(i + 1)) for i in range(60)], label=['neg', 'pos']*30))      # a row is known by its length
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=8, num_workers=0, seed=3)
    new, (given, t) = dls.with_noise(HALF, on='all'), add_noise(df, 'label', HALF)
    assert flips(new.noise) == flips(t) and flips(t) and type(new.train) is type(dls.train) and new.vocab == dls.vocab
    for ds in (new.train_ds, new.valid_ds):
        seen = {int((x != 1).sum()) - 2: y.item() for b in plain_dl(new, ds) for x, y in zip(*b)}
        assert len(seen) == len(ds) and all(['neg', 'pos'][y] == given.label[n] for n, y in seen.items())

def test_tabular_says_what_to_do():
    df = pd.DataFrame(dict(a=np.arange(40.), b=['x', 'y']*20, label=['n', 'p']*20))
    make = lambda d: TabularDataLoaders.from_df(d, procs=[Categorify, Normalize], cat_names=['b'], cont_names=['a'], y_names='label', bs=8, valid_idx=range(8))
    with pytest.raises(ValueError, match='add_noise'): make(df).with_noise(HALF)
    noisy, t = add_noise(df, 'label', HALF, where=df.index >= 8)
    ys = make(noisy).train_ds.y
    assert {str(i) for i in ys.index[ys.to_numpy() != df.label[ys.index].map(dict(n=0, p=1)).to_numpy()]} == set(flips(t)) and flips(t)

def test_item_noise_on_dls(dls):
    x = np.random.default_rng(0).normal(size=(60, 5))
    new = dls.with_noise(MarginNoise(.3, x))
    assert 5 < len(flips(new.noise)) < 32 and '60×5' in new.noise.noise['features']
    by_name = pd.DataFrame(x, index=item_names(dls.train_ds, dls.path)).sample(frac=1, random_state=0)
    assert flips(dls.with_noise(MarginNoise(.3, by_name)).noise) == flips(new.noise)
    with pytest.raises(ValueError, match='60 rows for the 84'): dls.with_noise(MarginNoise(.3, x), on='all')

def test_unsuitable_dls(folder):
    multi = DataBlock((ImageBlock, MultiCategoryBlock), get_items=get_image_files, get_y=lambda o: [parent_label(o)], splitter=GrandparentSplitter(), item_tfms=Resize(8))
    with pytest.raises(ValueError, match='multi-label'): multi.dataloaders(folder, num_workers=0).with_noise(HALF)
    with pytest.raises(ValueError, match='multi-label'): multi.with_noise(lambda labels, *args: labels).dataloaders(folder, num_workers=0)
    with pytest.raises(ValueError, match='multi-label'): multi.with_noise(HALF).dataloaders(folder, num_workers=0)
    plain = DataLoaders.from_dsets([(torch.zeros(1), 0)]*4, [(torch.zeros(1), 0)]*4, bs=2, num_workers=0)
    with pytest.raises(ValueError, match='fastai Datasets with one target'): plain.with_noise(HALF)
    one = ImageDataLoaders.from_name_func(folder, get_image_files(folder), lambda f: 'same', item_tfms=Resize(8), num_workers=0)
    with pytest.raises(ValueError, match='at least two classes'): one.with_noise(HALF)

@pytest.mark.parametrize('make', [lambda folder, dls: dls.with_noise(HALF), lambda folder, dls: block(item_tfms=Resize(8)).with_noise(HALF).dataloaders(folder, path=folder, bs=8, num_workers=0)])
def test_a_learner_needs_no_more_than_usual(folder, dls, make):
    new = make(folder, dls)
    learn = Learner(new, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(new.c)), metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        assert isinstance(learn.loss_func, CrossEntropyLossFlat) and new.c == 3
        assert learn.predict(new.train_ds.items[0])[0] in CLASSES
        assert learn.get_preds()[1].tolist() == given_labels(new.valid_ds).tolist()
        assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum() == 24
        learn.export(folder.parent/'m.pkl')
    assert load_learner(folder.parent/'m.pkl').predict(new.train_ds.items[0])[0] in CLASSES

# ---- DataBlock and Datasets

def test_block_copy_leaves_the_block_alone(folder):
    b = block(item_tfms=Resize(8))
    new = b.with_noise(HALF)
    clean, noisy = b.dataloaders(folder, path=folder, num_workers=0, bs=4), new.dataloaders(folder, path=folder, num_workers=0, bs=4)
    assert 'noise' not in clean.__dict__ and isinstance(new, DataBlock) and new is not b and type(b) is DataBlock
    assert flips(noisy.noise) == flips(clean.with_noise(HALF).noise) and labels_of(noisy) == labels_of(clean.with_noise(HALF))
    assert labels_of(noisy, 1) == labels_of(clean, 1) and noisy.bs == 4 and noisy.path == folder
    new.new(item_tfms=Resize(16))
    assert new.dataloaders(folder, num_workers=0, bs=4).one_batch()[0].shape[-1] == 16 and b.dataloaders(folder, num_workers=0, bs=4).one_batch()[0].shape[-1] == 8
    with pytest.raises(ValueError, match='already'): new.with_noise(HALF)
    assert len(noisy.test_dl(get_image_files(folder)[:3]).one_batch()[0]) == 3

def test_block_takes_on_and_seed(folder):
    b = block(item_tfms=Resize(8))
    a, c = (b.with_noise(HALF, seed, 'valid').dataloaders(folder, num_workers=0).noise for seed in (1, 2))
    assert a.seed == 1 and a.on == 'valid' and set(flips(a)) != set(flips(c)) and not a.frame[a.frame.split == 'train'].is_flipped.any()

def test_datasets_of_a_block_and_of_ones_own(folder):
    b = block(item_tfms=Resize(8))
    dsets = b.with_noise(HALF).datasets(folder)
    assert flips(dsets.noise) == flips(b.dataloaders(folder, path=folder, num_workers=0).with_noise(HALF).noise)
    names = {os.path.relpath(f, folder): dsets.vocab[y] for f, y in zip(dsets.train.items, given_labels(dsets.train))}
    assert all(names[k] == v for k, v in flips(dsets.noise).items())
    files = get_image_files(folder)
    own = Datasets(files, [[PILImageBW.create], [parent_label, Categorize()]], splits=GrandparentSplitter()(files)).with_noise(HALF)
    assert flips(own.noise) == flips(dsets.noise)
    dls = own.dataloaders(after_item=[Resize(8), ToTensor()], bs=8, num_workers=0)
    assert given_labels(dls.train_ds).tolist() == given_labels(own.train).tolist() and dls.vocab == CLASSES
    with pytest.raises(ValueError, match='have noise on'): own.with_noise(HALF)

def test_text_block_keeps_its_kind_of_loader():
    from fastai.text.all import TextBlock
    df = pd.DataFrame(dict(text=['good film '*(i % 5 + 1) for i in range(60)], label=['neg', 'pos']*30))
    b = DataBlock((TextBlock.from_df('text'), CategoryBlock), get_x=ColReader('text'), get_y=ColReader('label'), splitter=RandomSplitter(seed=0))
    clean, noisy = b.dataloaders(df, bs=8, num_workers=0), b.with_noise(HALF).dataloaders(df, bs=8, num_workers=0)
    assert type(noisy.train) is type(clean.train) and noisy.one_batch()[0].ndim == 2 and noisy.vocab[1] == ['neg', 'pos']
    assert flips(noisy.noise) and set(flips(noisy.noise)) <= set(flips(add_noise(df, 'label', HALF)[1]))

# ---- folder copies

def test_copy_of_a_folder(folder, tmp_path):
    before, dst = tree(folder), tmp_path/'deep'/'dst'
    t = noisy_copy(folder, dst, HALF)
    assert tree(folder) == before
    for item, split, true, given in t.frame[['item', 'split', 'true_label', 'given_label']].itertuples(index=False):
        s, c, name = item.split('/')
        assert (s, c) == (split, given)
        assert (dst/item).read_bytes() == before[f'{s}/{true}/{name}'][0]
    assert len(t) == 84 and 10 < t.frame.is_flipped.sum() < 50 and not t.frame[t.frame.split == 'valid'].is_flipped.any()
    d = read_table(dst/'noise.csv')
    assert list(d) == ['path', 'true_label', 'given_label', 'split'] and len(d) == 84
    assert d.set_index('path').given_label.to_dict() == t.frame.set_index('item').given_label.to_dict() and d.path.is_monotonic_increasing
    assert sorted(o.name for o in dst.iterdir()) == ['noise.csv', 'noise.json', 'train', 'valid'] and [o.name for o in dst.parent.iterdir()] == ['dst']
    again = read_source(dst)
    assert again.vocab == CLASSES and again.frame.set_index('item').given_label.to_dict() == t.frame.set_index('item').given_label.to_dict()

def test_folders_keep_their_names(folder, tmp_path):
    os.rename(folder/'train', folder/'Training_Set')
    os.makedirs(tmp_path/'outer'); os.rename(folder, tmp_path/'outer'/'photos')
    t = noisy_copy(tmp_path/'outer', tmp_path/'dst', HALF)
    assert {o.rsplit('/', 2)[0] for o in t.frame.item} == {'photos/Training_Set', 'photos/valid'} and {o.rsplit('/', 2)[1] for o in t.frame.item} == set(CLASSES)
    assert {p.name for p in (tmp_path/'outer').rglob('*.png')} == {Path(o).name for o in t.frame.item}

def test_copy_flips_what_the_loaders_flip(folder, tmp_path, dls):
    names = lambda t: {k.split('/')[-1]: v for k, v in flips(t).items()}
    assert names(noisy_copy(folder, tmp_path/'dst', HALF)) == names(dls.with_noise(HALF).noise)

def test_read_noise(folder, tmp_path):
    for on in ('train', 'valid', 'all'):
        t = noisy_copy(folder, tmp_path/on, HALF, seed=3, on=on)
        back = read_noise(tmp_path/on)
        pd.testing.assert_frame_equal(back.frame.sort_values('item', ignore_index=True), t.frame.sort_values('item', ignore_index=True), check_dtype=False)
        assert (back.vocab, back.noise, back.seed, back.on, back.rate) == (t.vocab, t.noise, 3, on, t.rate)
    flat = noisy_copy(folder/'train', tmp_path/'flat', HALF)
    assert list(read_table(tmp_path/'flat'/'noise.csv')) == ['path', 'true_label', 'given_label'] and read_noise(tmp_path/'flat').rate == flat.rate
    with pytest.raises(ValueError, match='not a noisy copy'): read_noise(folder)

def test_names_that_are_taken(tmp_path):
    for c in CLASSES:
        for i in range(30): write(tmp_path/'src'/c/f'{i}.png', 10*CLASSES.index(c) + i)
    for c in CLASSES:
        for i in range(9): write(tmp_path/'src'/c/('x'*250 + f'{i}.png'), i)
    before = tree(tmp_path/'src')
    t = noisy_copy(tmp_path/'src', tmp_path/'dst', PairNoise(.9))
    assert t.frame.item.is_unique and len(tree(tmp_path/'dst')) == 117 + 2
    content = sorted((Path(k).parts[0], v[0]) for k, v in before.items())
    assert content == sorted((r.true_label, (tmp_path/'dst'/r.item).read_bytes()) for r in t.frame.itertuples())
    kept = t.frame[~t.frame.is_flipped]
    assert all((tmp_path/'dst'/o).read_bytes() == before[o][0] for o in kept.item)
    assert noisy_copy(tmp_path/'src', tmp_path/'dst2', PairNoise(.9)).frame.equals(t.frame)

def test_odd_names(tmp_path):
    names = [b'caf\xe9.png', '日本.png'.encode(), b' a b.png', b'#2.png', b'a#2.png', b'x\\xe9.png', b'quo"te,.png', b'new\nline.png']
    for c in (b'NA', b'\xff\xfe', b'None', b'01', b'1'):
        for n in names: write(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b'src', c, n))), len(n))
    before = tree(tmp_path/'src')
    t = noisy_copy(tmp_path/'src', tmp_path/'dst', HALF)
    src = read_source(tmp_path/'dst')
    assert src.vocab == t.vocab == ['01', '1', 'NA', 'None', r'\xff\xfe'] and len(src) == len(t) == 40 and tree(tmp_path/'src') == before
    assert dict(zip(src.frame.item, src.frame.given_label)) == dict(zip(t.frame.item, t.frame.given_label))
    assert read_noise(tmp_path/'dst').frame.sort_values('item').given_label.tolist() == t.frame.sort_values('item').given_label.tolist()

def test_nested_folders_and_unlabelled_images(tmp_path):
    for i in range(12):
        for c in ('farm/cow', 'farm/pig', 'sea/cod', 'sea/eel'): write(tmp_path/'src'/c/f'{i}.png', i)
        for c in CLASSES: write(tmp_path/'flat'/'train'/c/f'{i}.png', i)
        write(tmp_path/'flat'/'unlabelled'/f'{i}.png', i)
    t = noisy_copy(tmp_path/'src', tmp_path/'dst', HALF, label_from='last')
    again = read_source(tmp_path/'dst')
    assert dict(zip(again.frame.item, again.frame.given_label)) == dict(zip(t.frame.item, t.frame.given_label)) and again.vocab == ['cod', 'cow', 'eel', 'pig']
    first = noisy_copy(tmp_path/'src', tmp_path/'dst1', HALF, label_from='first')
    again = read_source(tmp_path/'dst1')
    assert again.vocab == ['farm', 'sea'] and len(again) == len(first) == 48
    t = noisy_copy(tmp_path/'flat', tmp_path/'dst2', HALF)
    again = read_source(tmp_path/'dst2')
    assert (again.frame.split == 'unlabelled').sum() == 12 and len(read_table(tmp_path/'dst2'/'noise.csv')) == 36 and len(t) == 48
    assert t.frame.true_label.isna().sum() == 12

def test_copy_of_a_table(folder, tmp_path):
    files = get_image_files(folder).sorted()
    df = pd.DataFrame(dict(path=[o.relative_to(folder).as_posix() for o in files], label=[o.parent.name for o in files], is_valid=[o.parent.parent.name == 'valid' for o in files]))
    df.to_csv(folder/'labels.csv', index=False)
    t = noisy_copy(folder/'labels.csv', folder/'noisy', HALF)            # beside the table is a good place
    assert read_source(folder/'noisy').frame.set_index('item').given_label.to_dict() == t.frame.set_index('item').given_label.to_dict()
    assert {Path(k).name for k in flips(t)} == {Path(k).name for k in flips(noisy_copy(read_source(folder/'labels.csv'), tmp_path/'dst', HALF))}
    df['label'] = df.label.map(dict(ant='a/b', bee='c', cow='d')); df.to_csv(folder/'labels.csv', index=False)
    with pytest.raises(ValueError, match="'a/b' cannot be the name of a folder"): noisy_copy(folder/'labels.csv', tmp_path/'dst3', HALF)
    assert not (tmp_path/'dst3').exists()

def test_repeated_rows_stay_one_group(tmp_path):
    for i in range(30): write(tmp_path/'src'/f'{i}.png', i)
    rows = [(f'{i}.png', 'ab'[i % 2]) for i in range(30)] + [('0.png', 'b'), ('1.png', 'b')]
    pd.DataFrame(rows, columns=['path', 'label']).to_csv(tmp_path/'src'/'t.csv', index=False)
    t = noisy_copy(tmp_path/'src'/'t.csv', tmp_path/'dst', PairNoise(.3))
    again = read_source(tmp_path/'dst')
    assert len(t) == len(again) == 32 and again.frame.group.nunique() == 30

def test_what_cannot_be_read_is_left_out(folder, tmp_path):
    rows = [(f'train/{c}/{c}0{i}.png', c) for c in CLASSES for i in range(5)] + [('gone.png', 'ant')]
    pd.DataFrame(rows, columns=['path', 'label']).to_csv(folder/'t.csv', index=False)
    with pytest.warns(FastcleanWarning, match=r'1 files cannot be read and were left out, the first is gone\.png'): t = noisy_copy(folder/'t.csv', tmp_path/'dst', HALF)
    assert len(t) == len(read_table(tmp_path/'dst'/'noise.csv')) == 15
    src = read_source(folder)
    import shutil; shutil.rmtree(folder/'train'); shutil.rmtree(folder/'valid')
    with pytest.raises(ValueError, match='none of the 84 files'): noisy_copy(src, tmp_path/'dst2', HALF)
    assert not (tmp_path/'dst2').exists() and sorted(o.name for o in tmp_path.iterdir()) == ['dst', 'src']

def test_an_existing_copy(folder, tmp_path):
    dst = tmp_path/'dst'
    t = noisy_copy(folder, dst, HALF)
    before = tree(dst)
    assert flips(noisy_copy(folder, dst, HALF)) == flips(t) and tree(dst) == before                     # the same again: nothing to do
    for kw in (dict(seed=1), dict(on='all'), dict(noise=PairNoise(.1))):
        with pytest.raises(ValueError, match='other files or settings'): noisy_copy(folder, dst, **{**dict(noise=HALF), **kw})
    write(folder/'train'/'ant'/'new.png')
    with pytest.raises(ValueError, match='other files or settings'): noisy_copy(folder, dst, HALF)
    assert tree(dst) == before
    assert len(noisy_copy(folder, dst, HALF, force=True)) == 85 and tree(dst) != before
    (tmp_path/'mine').mkdir(); noisy_copy(folder, tmp_path/'mine', HALF)                                  # an empty folder is free
    for kw in ({}, dict(force=True)):                                                                     # what is no noisy copy is never replaced
        (tmp_path/'photos').mkdir(exist_ok=True); (tmp_path/'photos'/'a.txt').write_text('dear')
        with pytest.raises(ValueError, match='is not a noisy copy'): noisy_copy(folder, tmp_path/'photos', HALF, **kw)
        with pytest.raises(ValueError, match='is not a noisy copy'): noisy_copy(folder, tmp_path/'photos'/'a.txt', HALF, **kw)
    assert (tmp_path/'photos'/'a.txt').read_text() == 'dear'

def test_nothing_half_written(folder, tmp_path):
    def stop(rows):
        for i in rows:
            if i == 30: raise KeyboardInterrupt
            yield i
    with pytest.raises(KeyboardInterrupt): noisy_copy(folder, tmp_path/'dst', HALF, progress=stop)
    assert [o.name for o in tmp_path.iterdir()] == ['src']
    seen = []
    noisy_copy(folder, tmp_path/'dst', HALF, progress=lambda rows: (seen.append(i) or i for i in rows))
    assert seen == list(range(84))

@pytest.mark.parametrize('dst', ['src', 'src/noisy', '.', 'src/train/ant', 'link/noisy'])
def test_never_into_the_source(folder, tmp_path, dst):
    (tmp_path/'link').symlink_to(folder)
    before = tree(folder)
    with pytest.raises(ValueError, match='outside of it'): noisy_copy(folder, tmp_path/dst, HALF, force=True)
    assert tree(folder) == before

def test_bad_copies(folder, tmp_path):
    with pytest.raises(ValueError, match='is not there'): noisy_copy(tmp_path/'nowhere', tmp_path/'dst', HALF)
    with pytest.raises(ValueError, match='on must be'): noisy_copy(folder, tmp_path/'dst', HALF, on='test')
    with pytest.raises(ValueError, match="no labelled item on 'valid'"): noisy_copy(folder/'train', tmp_path/'dst', HALF, on='valid')
    with pytest.raises(ValueError, match="no class 'x'"): noisy_copy(folder, tmp_path/'dst', MappingNoise(dict(x='ant')))
    assert not (tmp_path/'dst').exists()

def test_margin_noise_in_a_copy(folder, tmp_path):
    src = read_source(folder)
    x = np.random.default_rng(0).normal(size=(84, 4))
    noise = MarginNoise(.3, pd.DataFrame(x, index=src.frame.item))
    assert 5 < noisy_copy(src, tmp_path/'dst', noise).frame.is_flipped.sum() < 32
    assert flips(noisy_copy(src, tmp_path/'dst2', MarginNoise(.3, x[:60]))) == flips(read_noise(tmp_path/'dst'))

"Plans, DataLoaders, DataFrames and copies: what is changed, what is not, and the way back."
import json, os, stat, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastai.tabular.all import Categorify, Normalize, TabularDataLoaders
from fastai.text.all import TextDataLoaders
from fastai.vision.all import CategoryBlock, ColReader, ColSplitter, DataBlock, ImageBlock, ImageDataLoaders, ItemGetter, MultiCategoryBlock, PILImageBW, Resize, TfmdLists, Transform, TransformBlock, torch
from PIL import Image

from fastclean.clean import dls_frame
from fastclean.cli import main
from fastclean.copies import correct_copy, read_journal, read_manifest
from fastclean.core import CacheLockedError, FastcleanWarning, Predictions, atomic_path
from fastclean.correct import *
from fastclean.corrections import _array_corrections, _corrections, write_corrections
from fastclean.data import read_source
from fastclean.issues import find_label_issues, write_issues
from fastclean.loaders import given_labels, source_dls
from fastclean.parts import read_parts
from fastclean.undo import undo

def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (8, 8), value % 256).save(path, format='PNG')

def record(source, true, seed=0, **kw):
    "Predictions that are nearly sure of the truth."
    K = len(source.vocab)
    p = .97*np.eye(K)[true] + .03*np.random.default_rng(seed).dirichlet(np.ones(K), len(true))
    return Predictions.from_arrays(source.given, p.astype(np.float32), source.vocab, source.frame['item'], source.frame['split'], **kw)

def snapshot(folder):
    "Name, permissions, content and time of everything below a folder."
    out = {}
    for p in sorted(Path(folder).rglob('*')):
        s = p.lstat()
        out[os.fspath(p.relative_to(folder))] = (s.st_mode, os.readlink(p) if p.is_symlink() else p.read_bytes() if stat.S_ISREG(s.st_mode) else None, s.st_mtime_ns if stat.S_ISREG(s.st_mode) else None)
    return out

CLASSES = ['ant', 'bee', 'cow']

@pytest.fixture
def folder(tmp_path):
    "Three classes below train and valid; every tenth file lies in the next class's folder."
    src = tmp_path/'src'
    for s, n in (('train', 30), ('valid', 10)):
        for k, c in enumerate(CLASSES):
            for i in range(n): write(src/s/(CLASSES[(k + 1) % 3] if i % 10 == 0 else c)/f'{c}{i:02}.png', 40*k + i)
    (src/'notes.txt').write_text('notes'); os.chmod(src/'notes.txt', 0o640)
    os.utime(src/'notes.txt', (1e9, 1e9))
    return src

def truth(source): return np.array([CLASSES.index(Path(p).name[:3]) for p in source.frame.path])

@pytest.fixture
def issues(folder):
    source = read_source(folder)
    return find_label_issues(record(source, truth(source)))

# ---- plans

def test_a_plan_does_what_it_says(folder, issues):
    plan = plan_corrections(issues)
    assert len(plan) == 12 and plan.counts() == {'relabel': 12} and len(plan.refused) == 0 and plan.n == 120
    assert all(Path(i).name[:3] == b for i, b in zip(plan.frame['item'], plan.frame.new_label))
    assert '12 relabelled' in repr(plan) and plan.digest == plan_corrections(issues).digest != plan_corrections(issues, threshold=.6).digest
    assert set(plan_corrections(issues, split='valid').frame['split']) == {'valid'}

def test_a_person_is_not_overruled(issues):
    sure = issues.copy(); first = sure['item'][0]
    sure.loc[0, 'verified'] = True
    for action in ('relabel', 'prune', 'reweight'): assert first not in set(plan_corrections(sure, action).frame['item'])

def test_only_obvious(issues):
    some = issues.copy(); some.loc[some.index[:4], 'certainty'] = 'possible'
    assert len(plan_corrections(some, only='obvious')) == 8

def test_weights_are_the_posterior(issues):
    f = plan_corrections(issues, 'reweight').frame.set_index('item')
    want = issues[issues.is_label_issue].set_index('item').label_score
    np.testing.assert_allclose(f.weight[want.index], want, atol=1e-6)

def test_a_class_is_not_emptied_by_a_table_but_by_a_person():
    data = pd.DataFrame(dict(item=list('abcd'), split='train', given_label=['x', 'x', 'y', 'y']))
    scored = _array_corrections(dict(corrected_paths=['a', 'b'], original_labels=['x', 'x'], corrected_labels=['y', 'y'], corrected_scores=[1, 1]))
    plan = plan_corrections(scored, data=data)
    assert len(plan) == 0 and list(plan.refused.reason) == ["the class 'x' would be left without items"]*2 and list(plan.refused.row) == [0, 1]
    decided = _corrections('decided', row=[0, 1], item=['a', 'b'], split=[None]*2, given_label=[None]*2, new_label=['y', 'y'], prob=[1, 1], wrong=[1, 1], obvious=[1, 1])
    with pytest.warns(FastcleanWarning, match="no training item is left in 'x'"): assert len(plan_corrections(decided, data=data)) == 2

def test_classes_that_empty_one_another():
    "y is refused, so x gets nothing from it and may not be emptied either."
    data = pd.DataFrame(dict(item=list('abcd'), split='train', given_label=['x', 'x', 'y', 'z']))
    c = _array_corrections(dict(corrected_paths=list('abc'), original_labels=list('xxy'), corrected_labels=list('zzx'), corrected_scores=[1]*3))
    assert len(plan_corrections(c, data=data)) == 0

@pytest.mark.parametrize('args, says', [(dict(action='delete'), 'action must be'), (dict(threshold=1.1), 'from 0 to 1'), (dict(threshold=float('nan')), 'from 0 to 1'), (dict(only='some'), 'only must be'),
                                        (dict(per_class=3), 'goes with pseudo'), (dict(action='soft'), 'needs the predictions')])
def test_what_cannot_be_planned(issues, args, says):
    with pytest.raises(ValueError, match=says): plan_corrections(issues, **args)

def test_another_table_is_none_of_issues():
    with pytest.raises(ValueError, match='not a table of issues'): plan_corrections(pd.DataFrame(dict(item=['a'])))

# ---- DataFrames

@pytest.mark.parametrize('labels, vocab', [([0, 1, 2], [0, 1, 2]), ([0., 1., 2.], [0., 1., 2.]), (['NA', '1', '01'], ['NA', '1', '01']), ([True, False], [False, True])])
def test_labels_keep_their_type(labels, vocab):
    rng, K = np.random.default_rng(0), len(vocab)
    true = rng.integers(K, size=200); given = np.where(rng.random(200) < .1, (true + 1) % K, true)
    p = .97*np.eye(K)[true] + .03*rng.dirichlet(np.ones(K), 200)
    df = pd.DataFrame(dict(y=[vocab[k] for k in given]), index=[f'r{i}' for i in range(200)])
    plan = plan_corrections(find_label_issues(Predictions.from_arrays(given, p.astype(np.float32), vocab, df.index)))
    out = clean_frame(df, plan, 'y')
    assert list(out.y) == [vocab[k] for k in true] and out.y.dtype == df.y.dtype and list(df.y) == [vocab[k] for k in given]

def test_repeated_rows_are_told_apart():
    df = pd.DataFrame(dict(name=['a', 'a', 'b', 'c'], y=['x', 'y', 'x', 'y']))
    table = find_label_issues(Predictions.from_arrays([0, 1, 0, 1], np.array([[.99, .01], [.01, .99], [.99, .01], [.01, .99]], np.float32), ['x', 'y'], ['a', 'a#2', 'b', 'c']))
    table.loc[table['item'] == 'a#2', ['is_label_issue', 'suggested_label', 'suggested_prob']] = [True, 'x', .99]
    assert list(clean_frame(df, plan_corrections(table), 'y', 'name').y) == ['x', 'x', 'x', 'y']

def several(n=60, K=3, seed=0):
    rng = np.random.default_rng(seed)
    true = (rng.random((n, K)) < .4).astype(int)
    given = true.copy(); at = rng.choice(n, 6, replace=False); given[at, at % K] ^= 1
    p = np.clip(true*.96 + .02 + rng.normal(0, .005, (n, K)), .001, .999).astype(np.float32)
    return true, given, Predictions.from_arrays(given, p, CLASSES, [f'{i:02}.png' for i in range(n)])

def test_several_labels():
    true, given, preds = several()
    plan = plan_corrections(find_label_issues(preds))
    names = lambda y: [' '.join(CLASSES[k] for k in np.flatnonzero(r)) for r in y]
    df = pd.DataFrame(dict(path=preds.items, labels=names(given)))
    new = clean_frame(df, plan, 'labels', 'path', label_delim=' ')
    assert sum(a != b for a, b in zip(df.labels, names(true))) == 6 and sum(a != b for a, b in zip(new.labels, names(true))) <= 2
    lists = df.assign(labels=[o.split() for o in df.labels])
    assert [' '.join(o) for o in clean_frame(lists, plan, 'labels', 'path').labels] == list(new.labels)
    with pytest.raises(ValueError, match='one label'): write_corrections(plan, 'x.json')
    with pytest.raises(ValueError, match='one label'): plan_corrections(find_label_issues(preds), 'soft', preds=preds)

# ---- DataLoaders

def test_images(folder, issues):
    dls = ImageDataLoaders.from_folder(folder, item_tfms=Resize(8), bs=8, num_workers=0)
    new, before = dls.clean(issues), dls_frame(dls)
    assert [Path(i).name[:3] for i in dls_frame(new)['item']] == list(dls_frame(new).given_label) and dls_frame(dls).equals(before)
    assert (new.train.bs, new.vocab, len(new.train_ds)) == (dls.train.bs, dls.vocab, len(dls.train_ds)) and len(new.corrections) == 12
    x, y = new.one_batch(); assert len(x) == 8
    assert len(dls.clean(issues, 'prune').valid_ds) == 27 and len(dls.clean(issues, 'prune', split='valid').train_ds) == 90
    w = dls.clean(issues, 'reweight')
    assert type(w.train).__name__ == 'WeightedDL' and (w.weights < .5).sum() == 9 and len(w.one_batch()[0]) == 8
    write_corrections(plan_corrections(issues), folder.parent/'c.json')
    assert len(dls.clean(folder.parent/'c.json').corrections) == 12

def test_items_of_a_test_set_are_passed_over(folder, issues):
    dls = ImageDataLoaders.from_folder(folder, item_tfms=Resize(8), bs=8, num_workers=0)
    more = pd.concat([issues, issues.head(2).assign(item=['t1', 't2'], split='test')], ignore_index=True)
    new = dls.clean(more)
    assert len(new.corrections) == 12 and len(new.corrections.refused) == 0

def test_texts():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(text=[f'this is a {"good" if i % 2 else "bad"} film number {i}' for i in range(60)], y=['pos' if i % 2 else 'neg' for i in range(60)], is_valid=[i % 5 == 0 for i in range(60)]))
    df.loc[[1, 10], 'y'] = ['neg', 'pos']
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='y', valid_col='is_valid', bs=8, seq_len=20)
    data = dls_frame(dls)
    true = np.array([int(i) % 2 for i in data['item']])
    p = .97*np.eye(2)[true] + .015
    table = find_label_issues(Predictions.from_arrays([list(dls.vocab[1]).index(o) for o in data.given_label], p.astype(np.float32), list(dls.vocab[1]), data['item'], data['split']))
    new = dls.clean(table)
    assert set(new.corrections.frame['item']) == {'1', '10'} and list(dls_frame(new).given_label) == [('neg', 'pos')[k] for k in true]
    assert len(dls.clean(table, 'prune').train_ds) == len(dls.train_ds) - 1
    assert dls.clean(table, 'reweight').one_batch()[0].shape[0] == 8

def test_tables():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    df = pd.DataFrame(dict(a=y + rng.normal(0, .1, 80), b=rng.choice(list('uv'), 80), y=np.where(y, 'yes', 'no')))
    df.loc[[3, 4], 'y'] = ['no', 'yes']
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, Normalize], cat_names=['b'], cont_names=['a'], y_names='y', valid_idx=list(range(60, 80)), bs=8)
    data = dls_frame(dls)
    true = np.array([int(i) % 2 for i in data['item']])
    p = .97*np.eye(2)[true] + .015
    table = find_label_issues(Predictions.from_arrays([list(dls.vocab).index(o) for o in data.given_label], p.astype(np.float32), list(dls.vocab), data['item'], data['split']))
    assert list(dls_frame(dls.clean(table)).given_label) == [('no', 'yes')[k] for k in true]
    assert len(dls.clean(table, 'prune').train_ds) == 58
    w = dls.clean(table, 'reweight')
    assert type(w.train).__name__ == 'TabWeightedDL' and len(w.one_batch()[0]) == 8

def test_several_labels_in_dataloaders(tmp_path):
    true, given, preds = several()
    for n in preds.items: write(tmp_path/n)
    df = pd.DataFrame(dict(path=preds.items, labels=[' '.join(CLASSES[k] for k in np.flatnonzero(r)) for r in given], is_valid=np.arange(60) >= 50))
    block = DataBlock((ImageBlock(PILImageBW), MultiCategoryBlock(vocab=CLASSES)), get_x=ColReader('path', pref=f'{tmp_path}/'), get_y=ColReader('labels', label_delim=' '), splitter=ColSplitter())
    dls = block.dataloaders(df.set_index('path', drop=False), bs=8, num_workers=0)
    table = find_label_issues(preds)
    new = dls.clean(table)
    now = np.concatenate([given_labels(new.train_ds), given_labels(new.valid_ds)])
    assert (given != true).any(1).sum() == 6 and (now != true).any(1).sum() <= 2
    assert new.one_batch()[1].shape == (8, 3)
    cut = dls.clean(table, 'prune')
    assert len(cut.train_ds) + len(cut.valid_ds) + len(cut.corrections) == 60

def decide(issues, path):
    "Three of the suspects, decided by a person: kept, relabelled to a class that nobody suggested, dropped; as a file and as a frame."
    from fastclean.review import Review
    review, (a, b, c) = Review(issues, path), issues[issues.is_label_issue].iloc[:3].itertuples()
    other, = set(CLASSES) - {b.given_label, b.suggested_label}
    review.decide(a.item, 'keep'); review.decide(b.item, 'relabel', other); review.decide(c.item, 'drop')
    return (a, b, c), other, review

@pytest.mark.parametrize('form', ['file', 'frame'])
def test_decisions_count_more_than_what_was_found(folder, issues, tmp_path, form):
    dls = ImageDataLoaders.from_folder(folder, item_tfms=Resize(8), bs=8, num_workers=0)
    before = dls_frame(dls).set_index('item').given_label
    (a, b, c), other, review = decide(issues, tmp_path/'d.csv')
    said = tmp_path/'d.csv' if form == 'file' else review.frame
    for given, n in ((issues, 11), (None, 2), (tmp_path/'issues.csv', 11)):
        if n == 11: write_issues(issues, tmp_path/'issues.csv')
        new = dls.clean(given, decisions=said)
        now = dls_frame(new).set_index('item').given_label
        assert now[a.item] == a.given_label and now[b.item] == other and c.item not in now and len(now) == 119
        assert new.corrections.counts() == (dict(relabel=10, prune=1) if n == 11 else dict(relabel=1, prune=1)) and sum(now != before[now.index]) == n - 1
        assert list(given_labels(new.train_ds)) == [CLASSES.index(now[i]) for i, s in zip(dls_frame(new)['item'], dls_frame(new)['split']) if s == 'train'] and new.one_batch()[0].shape[0] == 8
    pruned = dls.clean(issues, 'prune', decisions=said)
    now = dls_frame(pruned).set_index('item').given_label
    assert pruned.corrections.counts() == dict(prune=10, relabel=1) and now[a.item] == a.given_label and now[b.item] == other and len(now) == 110

def test_decisions_beside_weights_and_soft_targets(folder, issues, tmp_path):
    dls = ImageDataLoaders.from_folder(folder, item_tfms=Resize(8), bs=8, num_workers=0)
    (a, b, c), other, review = decide(issues[issues['split'] == 'train'], tmp_path/'d.csv')
    source = read_source(folder)
    w, soft = (dls.clean(issues, o, preds=record(source, truth(source)), decisions=review.frame) for o in ('reweight', 'soft'))
    for new in (w, soft):
        items = dls_frame(new)[dls_frame(new)['split'] == 'train']['item'].tolist()
        assert c.item not in items and len(items) == 89 and dls_frame(new).set_index('item').given_label[b.item] == other
    weights = dict(zip(items, w.weights))
    assert weights[a.item] == weights[b.item] == 1 and sum(o < .5 for o in weights.values()) == 6 and len(w.one_batch()[0]) == 8
    targets = dict(zip(items, soft.soft_targets))
    assert targets[a.item].tolist() == [float(v == a.given_label) for v in CLASSES] and targets[b.item].tolist() == [float(v == other) for v in CLASSES]
    found = dls.clean(issues, 'soft', preds=record(source, truth(source)))
    for i, t in zip(dls_frame(found)['item'], found.soft_targets): assert i in (a.item, b.item, c.item) or (targets[i] == t).all()

def test_decisions_that_cannot_be_used(folder, issues, tmp_path):
    dls = ImageDataLoaders.from_folder(folder, item_tfms=Resize(8), bs=8, num_workers=0)
    said = pd.DataFrame(dict(item=[issues['item'][0], 'nowhere.png'], label=['', 'bee'], action=['drop', 'relabel']))
    new = dls.clean(decisions=said)
    assert new.corrections.counts() == dict(prune=1) and len(dls_frame(new)) == 119 and list(new.corrections.refused.reason) == ['it is not in the data']
    (tmp_path/'empty.csv').write_text('item,label,action\n')
    same = dls.clean(decisions=tmp_path/'empty.csv')
    assert len(same.corrections) == 0 and same is not dls and dls_frame(same).equals(dls_frame(dls))
    for args, says in ((dict(), 'issues, or decisions, or both'), (dict(decisions=said[1:]), 'none of the items of the decisions'), (dict(decisions=tmp_path/'gone.csv'), 'not there'),
                       (dict(issues=plan_corrections(issues), decisions=said), 'made already'), (dict(decisions=said.drop(columns='item')), "no column 'item'")):
        with pytest.raises(ValueError, match=says): dls.clean(**args)

def test_decisions_on_rows_of_a_table():
    df = pd.DataFrame(dict(a=np.arange(40.) % 2, y=np.where(np.arange(40) % 2, 'yes', 'no')), index=[f'r{i}' for i in range(40)])
    dls = TabularDataLoaders.from_df(df, procs=[Normalize], cont_names=['a'], y_names='y', valid_idx=list(range(30, 40)), bs=8)
    new = dls.clean(decisions=pd.DataFrame(dict(item=['r1', 'r2', 'r31', 'r32'], label=['no', None, None, 'yes'], action=['relabel', 'drop', 'drop', 'relabel'])))
    now = dls_frame(new).set_index('item').given_label
    assert (len(new.train_ds), len(new.valid_ds)) == (29, 9) and {i for i in now.index if now[i] != df.y[i]} == {'r1', 'r32'} and new.corrections.counts() == dict(relabel=2, prune=2)
    assert len(new.one_batch()[0]) == 8 and list(dls_frame(dls).given_label) == list(df.y[dls_frame(dls)['item']])

def test_items_without_a_name_are_found_as_predictions_call_them():
    "They are numbered; in a record those of the validation set begin with `valid/`."
    items = [(torch.tensor([float(i)]), 'ab'[i % 2]) for i in range(20)]
    block = DataBlock((TransformBlock, CategoryBlock(vocab=['a', 'b'])), getters=[ItemGetter(0), ItemGetter(1)], splitter=lambda o: (list(range(15)), list(range(15, 20))))
    dls = block.dataloaders(items, bs=4, num_workers=0)
    names = [f'valid/{i}' if s == 'valid' else str(i) for s, n in (('train', 15), ('valid', 5)) for i in range(n)]
    assert [o for p in read_parts(dls) for o in p.names] == names
    y = np.array([i % 2 for i in range(20)]); wrong = np.arange(20) % 9 == 0
    p = np.where(np.eye(2)[y ^ wrong], .98, .02).astype(np.float32)
    table = find_label_issues(Predictions.from_arrays(y, p, ['a', 'b'], names, ['train']*15 + ['valid']*5))
    assert set(table['item'][table.is_label_issue]) == {'0', '9', 'valid/3'}
    said = pd.DataFrame(dict(item=['valid/1', '4', '9'], label=['b', None, None], action=['relabel', 'drop', 'keep']))
    new = dls.clean(table, decisions=said)
    assert new.corrections.counts() == dict(relabel=3, prune=1) and len(new.corrections.refused) == 0
    assert list(given_labels(new.train_ds)) == [1, *y[1:4], *y[5:15]] and list(given_labels(new.valid_ds)) == [1, 1, 1, 1, 1]

def test_lists_without_labels_can_lose_items():
    "A `TfmdLists` has no labels that fastclean could change; items of it can be dropped, and what cannot be done is said."
    class Pair(Transform):
        vocab = ['a', 'b']
        def encodes(self, o): return torch.tensor([float(o)]), torch.tensor(o % 2)
    dls = TfmdLists(list(range(20)), [Pair()], splits=(list(range(15)), list(range(15, 20)))).dataloaders(bs=4, num_workers=0)
    new = dls.clean(decisions=pd.DataFrame(dict(item=['3', '17'], label=None, action='drop')))
    assert list(new.train_ds.items) == [i for i in range(15) if i != 3] and list(new.valid_ds.items) == [15, 16, 18, 19] and len(new.one_batch()) == 2
    with pytest.raises(ValueError, match='put the labels into the data'): dls.clean(decisions=pd.DataFrame(dict(item=['3', '17'], label=['b', None], action=['relabel', 'drop'])))

def test_items_without_labels_beside_others(folder):
    src = read_source(folder)
    none = src.frame.index[src.frame['split'] == 'valid'][:5]
    src.frame.loc[none, 'given_label'] = None; src.frame.loc[none, 'split'] = 'unlabelled'
    dls, first, blank = source_dls(src, 8), src.frame['item'][0], src.frame['item'][none[0]]
    new = dls.clean(decisions=pd.DataFrame(dict(item=[first, blank], label=['cow', None], action=['relabel', 'drop'])))
    assert dls_frame(new).set_index('item').given_label[first] == 'cow' and [len(d.dataset) for d in new.loaders] == [90, 25, 4]
    with pytest.raises(ValueError, match='no labels that could be changed'): dls.clean(decisions=pd.DataFrame(dict(item=[blank], label=['cow'])))

# ---- folders

def test_a_folder_and_back(folder, issues, tmp_path):
    os.chmod(folder, 0o750); os.chmod(folder/'train', 0o700); os.chmod(folder/'train'/'ant', 0o711)
    before, dst = snapshot(folder), tmp_path/'dst'
    m = correct_copy(folder, dst, issues)
    assert snapshot(folder) == before and m.counts() == {'relabel': 12}
    assert [stat.S_IMODE(o.stat().st_mode) for o in (dst, dst/'train', dst/'train'/'ant')] == [0o750, 0o700, 0o711]
    new = read_source(dst)
    assert all(Path(p).name.split('_')[-1][:3] == y for p, y in zip(new.frame.path, new.frame.given_label)) and list(new.frame.split.value_counts()) == [90, 30]
    assert (dst/'notes.txt').stat().st_mode == before['notes.txt'][0] and (dst/'notes.txt').stat().st_mtime == 1e9
    assert [o.name for o in tmp_path.iterdir() if o.name.startswith('.')] == []
    assert undo(dst) == 12 and snapshot(dst) == before

def test_pruned_files_stay_in_the_copy(folder, issues, tmp_path):
    before, dst = snapshot(folder), tmp_path/'dst'
    correct_copy(folder, dst, plan_corrections(issues, 'prune'))
    assert len(read_source(dst)) == 108 and sum(1 for _ in (dst/'.fastclean'/'pruned').rglob('*.png')) == 12
    undo(dst); assert snapshot(dst) == before

@pytest.mark.parametrize('link', ['hard', 'reflink'])
def test_links(folder, issues, tmp_path, link):
    before, dst = snapshot(folder), tmp_path/'dst'
    correct_copy(folder, dst, issues, link=link)
    if link == 'hard': assert os.path.samefile(dst/'notes.txt', folder/'notes.txt')
    undo(dst); assert snapshot(dst) == snapshot(folder) == before

def test_names_that_are_not_utf8(tmp_path):
    src, odd = tmp_path/'src', os.fsdecode(b'caf\xe9')
    for c in (odd, 'dog'):
        for i in range(3): write(src/c/os.fsdecode(b'\xff%d.png' % i), i)
    (tmp_path/'c.csv').write_text('item,label\n' + r'dog/\xff0.png,caf\xe9' + '\n' + r'caf\xe9/\xff1.png,dog' + '\n')
    before = snapshot(src)
    assert main(['correct', str(src), str(tmp_path/'dst'), '--decisions', str(tmp_path/'c.csv')]) == 0
    assert sorted(os.listdir(os.fsencode(tmp_path/'dst'/'dog'))) == sorted([b'caf\xe9_\xff1.png', b'\xff1.png', b'\xff2.png'])
    assert main(['undo', str(tmp_path/'dst')]) == 0 and snapshot(tmp_path/'dst') == before

def test_names_that_are_taken(tmp_path):
    "Two files of one name change places, and a third has the name that would be next."
    src = tmp_path/'src'
    for p in ('a/1.png', 'a/2.png', 'b/1.png', 'b/A_1.PNG', 'b/3.png'): write(src/p, len(p))
    (tmp_path/'c.csv').write_text('item,label\na/1.png,b\nb/1.png,a\n')
    before = snapshot(src)
    m = correct_copy(src, tmp_path/'dst', tmp_path/'c.csv')
    assert dict(zip(m.changes['from'], m.changes['to'])) == {'a/1.png': 'b/a_1-2.png', 'b/1.png': 'a/b_1.png'}
    undo(tmp_path/'dst'); assert snapshot(tmp_path/'dst') == before

def test_unlabelled_files_get_a_label(tmp_path):
    src = tmp_path/'src'
    for c in CLASSES:
        for i in range(10): write(src/c/f'{c}{i}.png', i)
    for i in range(6): write(src/'unlabelled'/f'{CLASSES[i % 3]}-{i}.png', i)
    source = read_source(src)
    table = find_label_issues(record(source, truth(source)))
    plan = plan_corrections(table, pseudo=.9, per_class=1, data=source.frame, vocab=source.vocab)
    before = snapshot(src)
    m = correct_copy(src, tmp_path/'dst', plan)
    assert m.counts() == {'pseudo': 3} and all(p.startswith(f'{c}/{c}-') for p, c in zip(sorted(m.changes.to), CLASSES))
    assert read_source(tmp_path/'dst').frame.split.value_counts().to_dict() == {'train': 33, 'unlabelled': 3}
    undo(tmp_path/'dst'); assert snapshot(tmp_path/'dst') == before

def test_what_is_not_ours_is_left_alone(folder, issues, tmp_path):
    mine = tmp_path/'mine'; mine.mkdir(); (mine/'thesis.txt').write_text('mine')
    os.symlink(mine, tmp_path/'way')
    for dst, says in ((mine, 'not a corrected copy'), (tmp_path/'way', 'a link'), (folder/'in', 'beside it'), (tmp_path, 'beside it'), (folder, 'beside it'), (mine/'thesis.txt', 'a file')):
        with pytest.raises(ValueError, match=says): correct_copy(folder, dst, issues, force=True)
    part = tmp_path/'.dst.fastclean-part'; part.mkdir(); (part/'thesis.txt').write_text('mine')
    with pytest.raises(ValueError, match='not ours'): correct_copy(folder, tmp_path/'dst', issues)
    assert (mine/'thesis.txt').read_text() == (part/'thesis.txt').read_text() == 'mine'

def test_again_and_with_other_settings(folder, issues, tmp_path):
    dst = tmp_path/'dst'
    correct_copy(folder, dst, issues)
    first = snapshot(dst)
    correct_copy(folder, dst, issues); assert snapshot(dst) == first
    with pytest.raises(ValueError, match='other data or settings'): correct_copy(folder, dst, plan_corrections(issues, split='train'))
    assert snapshot(dst) == first
    (dst/'results.txt').write_text('hours of work')
    with pytest.raises(ValueError, match="not of the copy, the first is 'results.txt'"): correct_copy(folder, dst, plan_corrections(issues, split='train'), force=True)
    (dst/'results.txt').unlink()
    assert correct_copy(folder, dst, plan_corrections(issues, split='train'), force=True).counts() == {'relabel': 9}
    assert [o.name for o in tmp_path.iterdir() if o.name.startswith('.')] == []
    (folder/'notes.txt').write_text('other notes')
    with pytest.raises(ValueError, match='other data or settings'): correct_copy(folder, dst, plan_corrections(issues, split='train'))

def test_goes_on_where_it_stopped(folder, issues, tmp_path):
    dst, seen = tmp_path/'dst', []
    def stop(files):
        for i, f in enumerate(files):
            if i == 50: raise KeyboardInterrupt
            yield f
    with pytest.raises(KeyboardInterrupt): correct_copy(folder, dst, issues, progress=stop)
    part = tmp_path/'.dst.fastclean-part'
    made = {p: (part/p).stat().st_ino for p in read_journal(part)}
    assert len(made) == 50 and not dst.exists()
    if not (pid := os.fork()):
        try:
            with atomic_path(part/'.fastclean'/'manifest.jsonl'): os._exit(0)     # killed while it writes
        finally: os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0 and len(list(part.rglob('.*.tmp'))) == 1
    correct_copy(folder, dst, issues)
    assert not list(dst.rglob('.*.tmp'))
    assert {p: (dst/p).stat().st_ino for p in made} == made and not part.exists()
    undo(dst); assert snapshot(dst) == snapshot(folder)

def test_a_part_of_other_settings_is_replaced(folder, issues, tmp_path):
    def stop(files): raise OSError('no space left'); yield
    with pytest.raises(OSError): correct_copy(folder, tmp_path/'dst', issues, progress=lambda f: (x for x in stop(f)))
    m = correct_copy(folder, tmp_path/'dst', plan_corrections(issues, 'prune'))
    assert m.counts() == {'prune': 12}
    undo(tmp_path/'dst'); assert snapshot(tmp_path/'dst') == snapshot(folder)

def test_stopped_while_one_copy_takes_the_place_of_another(folder, issues, tmp_path, monkeypatch):
    import fastclean.copies as copies
    dst, rename, plan = tmp_path/'dst', os.rename, plan_corrections(issues, 'prune')
    correct_copy(folder, dst, issues)
    def stops(error):
        def stop(a, b):
            if Path(a).name.endswith('part'): raise error
            rename(a, b)
        monkeypatch.setattr(copies.os, 'rename', stop)
        with pytest.raises(type(error)): correct_copy(folder, dst, plan, force=True)
        monkeypatch.setattr(copies.os, 'rename', rename)
    was = snapshot(dst)
    stops(OSError('no'))                    # the old one goes back
    assert snapshot(dst) == was
    stops(KeyboardInterrupt())              # as a killed run
    assert not dst.exists()
    assert correct_copy(folder, dst, plan).counts() == {'prune': 12}
    assert [o.name for o in tmp_path.iterdir() if o.name.startswith('.')] == []
    undo(dst); assert snapshot(dst) == snapshot(folder)

def test_links_to_files_elsewhere(issues, folder, tmp_path):
    "A folder of links to a store: the links move, the store is not touched."
    store, src = tmp_path/'store', tmp_path/'farm'
    os.rename(folder, store)
    for p in sorted(store.rglob('*.png')): (src/p.relative_to(store)).parent.mkdir(parents=True, exist_ok=True); os.symlink(p, src/p.relative_to(store))
    before = snapshot(store), snapshot(src)
    m = correct_copy(src, tmp_path/'dst', issues)
    assert m.counts() == {'relabel': 12} and all((tmp_path/'dst'/o).is_symlink() and (tmp_path/'dst'/o).exists() for o in m.changes.to)
    undo(tmp_path/'dst')
    assert (snapshot(store), snapshot(tmp_path/'dst')) == before

def test_two_at_once(folder, issues, tmp_path):
    def also(files):
        with pytest.raises(CacheLockedError): correct_copy(folder, tmp_path/'dst', issues)
        return files
    correct_copy(folder, tmp_path/'dst', issues, progress=also)

def test_what_was_changed_is_not_given_back(folder, issues, tmp_path):
    dst = tmp_path/'dst'
    correct_copy(folder, dst, issues)
    now = snapshot(dst)
    for change, says in ((lambda f: f.write_bytes(b'other'), 'was changed'), (lambda f: f.unlink(), 'is missing'), (lambda f: (f.unlink(), os.symlink('/etc/hostname', f)), 'was changed')):
        f = dst/read_manifest(dst).changes['to'][3]
        was = f.read_bytes(); change(f)
        with pytest.raises(ValueError, match=says): undo(dst)
        f.unlink(missing_ok=True); f.write_bytes(was)
    (dst/read_manifest(dst).changes['from'][3]).write_bytes(b'in the way')
    with pytest.raises(ValueError, match='in the way'): undo(dst)
    (dst/read_manifest(dst).changes['from'][3]).unlink()
    assert {k: v[1] for k, v in snapshot(dst).items() if '.fastclean' not in k} == {k: v[1] for k, v in now.items() if '.fastclean' not in k}

def test_a_manifest_from_a_stranger(folder, issues, tmp_path):
    "Its paths do not leave the copy, not through a link either."
    dst, outside = tmp_path/'dst', tmp_path/'outside'
    outside.mkdir(); (outside/'x.png').write_bytes(b'x')
    correct_copy(folder, dst, issues)
    os.symlink(outside, dst/'away')
    name = (dst/'.fastclean'/'manifest.jsonl'); text = name.read_text()
    old = read_manifest(dst).changes['from'][0]
    for bad in ('../outside/x.png', '/tmp/x.png', 'away/x.png', 'a/../../x.png', ''):
        name.write_text(text.replace(json.dumps(old), json.dumps(bad)))
        with pytest.raises(ValueError, match='nothing was undone|not as they were'): undo(dst)
    for bad in ('[', '{}', '{"settings": 1, "made": [1]}', '['*10_000, '{"settings": {}, "made": ["../outside"]}\n'):
        name.write_text(bad)
        with pytest.raises(ValueError): undo(dst)
    assert sorted(os.listdir(outside)) == ['x.png'] and sorted(os.listdir(tmp_path)) == ['dst', 'outside', 'src']

def test_a_plan_for_other_data(folder, issues, tmp_path):
    plan = plan_corrections(issues)
    plan.frame['given_label'] = 'ant'
    m = correct_copy(folder, tmp_path/'dst', plan)
    assert len(m.refused) == (issues[issues.is_label_issue].given_label != 'ant').sum() and 'its label in the data' in m.refused.reason[0]
    with pytest.raises(ValueError, match='numbers to train with'): correct_copy(folder, tmp_path/'x', plan_corrections(issues, 'reweight'))

# ---- tables

@pytest.mark.parametrize('name', ['t.csv', 't.tsv', 't.parquet', 't.csv.gz'])
@pytest.mark.parametrize('action', ['relabel', 'prune'])
def test_tables_of_rows(tmp_path, name, action):
    y = np.arange(60) % 3
    df = pd.DataFrame(dict(text=[f'the {CLASSES[k]} said, "{i}" times, that it was no other' for i, k in enumerate(y)], label=[CLASSES[k] for k in y], n=np.arange(60)*1.5))
    df.loc[[4, 30], 'label'] = ['cow', 'bee']
    (tmp_path/'in').mkdir(); src = tmp_path/'in'/name
    df.to_parquet(src) if name.endswith('parquet') else df.to_csv(src, index=False, sep='\t' if 'tsv' in name else ',')
    source, before = read_source(src, text_col='text', label_col='label'), src.read_bytes()
    table = find_label_issues(record(source, y))
    m = correct_copy(src, tmp_path/'dst', plan_corrections(table, action), text_col='text', label_col='label')
    assert m.counts() == {action: 2} and set(m.changes.row) == {4, 30} and src.read_bytes() == before
    new = read_source(tmp_path/'dst'/name, text_col='text', label_col='label')
    assert list(new.frame.given_label) == ([CLASSES[k] for k in y] if action == 'relabel' else [o for i, o in enumerate(df.label) if i not in (4, 30)])
    undo(tmp_path/'dst')
    assert snapshot(tmp_path/'dst') == snapshot(tmp_path/'in')

def test_tables_of_paths(folder, tmp_path):
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*.png'))
    label = [Path(p).parent.name for p in paths]
    pd.DataFrame(dict(file=paths, label=label, is_valid=['valid' in p for p in paths])).to_csv(folder/'labels.csv', index=False, sep=';')
    src = folder/'labels.csv'
    source = read_source(src)
    m = correct_copy(src, folder/'right', find_label_issues(record(source, truth(source))))      # beside the table, below its folder
    assert m.counts() == {'relabel': 12}
    new = read_source(folder/'right'/'labels.csv')
    assert [Path(p).name[:3] for p in new.frame.path] == list(new.frame.given_label) and all(f.is_file() for f in new.files())
    assert not (folder/'right'/'notes.txt').exists()
    undo(folder/'right')
    assert (folder/'right'/'labels.csv').read_bytes() == src.read_bytes() and not (folder/'right'/'.fastclean').exists()

def test_a_table_that_was_edited_is_not_overwritten(tmp_path):
    df = pd.DataFrame(dict(text=[f'some words about the number {i} here' for i in range(40)], label=list('ab')*20))
    df.to_csv(tmp_path/'t.csv', index=False)
    (tmp_path/'c.csv').write_text('item,label\n3,a\n')
    correct_copy(tmp_path/'t.csv', tmp_path/'dst', tmp_path/'c.csv')
    (tmp_path/'dst'/'t.csv').write_text('hours of work')
    with pytest.raises(ValueError, match='was changed'): undo(tmp_path/'dst')
    assert (tmp_path/'dst'/'t.csv').read_text() == 'hours of work'

def test_several_labels_in_a_table(tmp_path):
    true, given, preds = several()
    for n in preds.items: write(tmp_path/'in'/n)
    names = lambda y: [' '.join(CLASSES[k] for k in np.flatnonzero(r)) for r in y]
    pd.DataFrame(dict(path=preds.items, labels=names(given))).to_csv(tmp_path/'in'/'l.csv', index=False)
    correct_copy(tmp_path/'in'/'l.csv', tmp_path/'dst', find_label_issues(preds), label_delim=' ')
    new = pd.read_csv(tmp_path/'dst'/'l.csv', keep_default_na=False).labels
    assert sum(set(a.split()) != set(b.split()) for a, b in zip(new, names(true))) <= 2 < 6 == sum(a != b for a, b in zip(names(given), names(true)))
    undo(tmp_path/'dst'); assert snapshot(tmp_path/'dst') == snapshot(tmp_path/'in')

# ---- commands

def test_from_a_terminal(folder, issues, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'fastclean-found').mkdir(); write_issues(issues, 'fastclean-found/issues.csv')
    before = snapshot(folder)
    assert main(['correct', 'src', 'dst', '--dry-run']) == 0 and not Path('dst').exists() and '12 relabelled' in capsys.readouterr().out
    assert main(['correct', 'src', 'dst']) == 0
    said = capsys.readouterr().out
    assert '12 relabelled, of 120 items' in said and 'fastclean undo dst' in said
    assert main(['correct', 'src', 'dst']) == 0 and main(['correct', 'src', 'dst', '--action', 'prune']) == 2
    assert main(['correct', 'src', 'dst', '--action', 'prune', '--only', 'obvious', '--split', 'train', '--link', 'hard', '--force']) == 0 and '9 pruned' in capsys.readouterr().out
    assert main(['undo', 'dst']) == 0 and snapshot('dst') == snapshot(folder) == before
    assert main(['undo', 'dst']) == 2

def test_a_result_that_is_not_to_be_relied_on(folder, issues, tmp_path, capsys):
    (tmp_path/'found').mkdir(); write_issues(issues, tmp_path/'found'/'issues.csv')
    (tmp_path/'found'/'summary.json').write_text(json.dumps(dict(sure='no', verdict='The model guesses.')))
    assert main(['correct', str(folder), str(tmp_path/'dst'), '--issues', str(tmp_path/'found')]) == 0
    assert 'The model guesses.' in capsys.readouterr().err

@pytest.mark.parametrize('args', [['--action', 'soft'], ['--threshold', '2'], ['--only', 'some'], ['--link', 'soft'], ['--issues', 'x', '--decisions', 'y'], ['--issues', 'nowhere'], ['--corrections', 'src'], ['--split', 'trian']])
def test_wrong_usage_is_one_line(folder, tmp_path, capsys, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    write_issues(find_label_issues(record(read_source('src'), truth(read_source('src')))), 'i.csv')
    assert main(['correct', 'src', 'dst', *(args if {'--issues', '--corrections'} & set(args) else ['--issues', 'i.csv', *args])]) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith('fastclean: ') and '\n' not in err and not Path('dst').exists()

# ---- corrections.json, of our backend and of the earlier plugin

ARRAYS = ('corrected_paths', 'original_labels', 'corrected_labels', 'corrected_scores')

def arrays(*rows): return dict(zip(ARRAYS, map(list, zip(*rows))))

@pytest.fixture
def pets(tmp_path, monkeypatch, capsys):
    "A folder per class, `src`; a function that corrects it by a file, and gives the exit code and what was said."
    monkeypatch.chdir(tmp_path)
    for k, c in enumerate(CLASSES):
        for i in range(6): write(tmp_path/'src'/c/f'{"cow" if i == 5 else c}{i:02}{c}.png', 40*k + i)
    def correct(content, *options, name='c.json'):
        Path(name).write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
        code = main(['correct', 'src', 'dst', '--issues', name, *options])
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err.strip()
    return correct

@pytest.mark.parametrize('name', ['corrections.json', 'corrections', 'corrections.txt', 'c.csv'])
def test_a_json_is_known_by_what_it_holds(pets, name):
    code, said = pets('\ufeff\n' + json.dumps(arrays(('ant/cow05ant.png', 'ant', 'cow', .97), ('bee/cow05bee.png', 'bee', 'cow', .4))), name=name)
    assert code == 0 and '1 relabelled, of 18 items' in said and 'ant → cow: 1' in said and not Path('dst/ant/cow05ant.png').exists()
    assert main(['undo', 'dst']) == 0 and snapshot('dst') == snapshot('src')

@pytest.mark.parametrize('content, says', [
    ('', 'not JSON'), ('{"corrected_paths": ["a', 'not JSON, or was cut off'), ('<html>502 Bad Gateway</html>', 'not JSON'), ('[1]', 'holds a list'), ('{"detail": "nothing was trained yet"}', "it says 'nothing was trained yet'"),
    ({k: [] for k in ARRAYS[:3]}, 'it has no corrected_scores'), ({**{k: ['x'] for k in ARRAYS}, 'corrected_scores': [.9, .8]}, 'differ in length: corrected_paths has 1, original_labels has 1, corrected_labels has 1, corrected_scores has 2'),
    ({**{k: [] for k in ARRAYS}, 'corrected_labels': 'cat'}, 'must be four arrays'), (arrays(('ant/ant00ant.png', 'ant', 'bee', '.9')), "score is not a number but '.9'"), (arrays(('ant/ant00ant.png', 'ant', 'bee', 7.2)), 'does not lie between 0 and 1'),
    (arrays(('../../etc/passwd', 'ant', 'bee', 1), ('/etc/passwd', 'ant', 'bee', 1)), 'found in other data'), (arrays(('pets/1.png', 'ant', 'bee', 1)), "is in src, the first is 'pets/1.png'")])
def test_a_json_that_cannot_be_used_is_one_line(pets, content, says):
    code, said = pets(content)
    assert code == 2 and says in said and said.startswith('fastclean: ') and '\n' not in said and not Path('dst').exists()

def test_neither_issues_nor_json(pets):
    code, said = pets('item,label\nant/ant00ant.png,bee\n', name='c.csv')
    assert code == 2 and 'neither a table of issues' in said and '\n' not in said

@pytest.mark.parametrize('entry, says', [(('ant/ant01ant.png', 'ant', 'bee', '.9'), "its score is not a number but '.9'"), (('ant/ant01ant.png', 'ant', 'bee', None), 'its score is not a number but None'),
    (('../ant/ant01ant.png', 'ant', 'bee', 1), 'leads out of the folder'), (('/src/ant/ant01ant.png', 'ant', 'bee', 1), 'paths start from the folder of the data'), (('ant/x.png', 'ant', 'bee', 1), 'not in the data'),
    (('ant/ant01ant.png', 'ant', 'cat', 1), "'cat' is not one of the classes"), (('ant/ant01ant.png', 'cow', 'bee', 1), "its label in the data is 'ant', not 'cow'"), (('ant01ant.png', 'cow', 'bee', 1), "no items of 'cow' are called so")])
def test_an_entry_that_cannot_be_used_is_listed_and_the_rest_is_done(pets, entry, says):
    code, said = pets(arrays(('ant/cow05ant.png', 'ant', 'cow', .97), entry))
    assert code == 0 and '1 relabelled' in said and '1 refused' in said
    assert sum(says in o for o in said.splitlines()) == 1 and Path('dst/cow/cow05ant.png').is_file()

def test_the_file_of_the_earlier_plugin(pets, tmp_path):
    "It lists every image by its bare name, which lies in the folder of the original label, and a corrected one may meet its name there."
    (tmp_path/'src/cow/cow05ant.png').write_bytes(b'another cow')
    rows = [(f.name, f.parent.name, 'cow' if f.name.startswith('cow') else f.parent.name, .7 if f.name == 'cow05bee.png' else .99) for f in sorted(Path('src').rglob('*.png'))]
    code, said = pets(arrays(*rows), '--threshold', '.95')
    assert code == 0 and '1 relabelled, of 19 items' in said and 'refused' not in said.splitlines()[2]
    assert Path('dst/cow/cow05ant.png').read_bytes() == b'another cow' and Path('dst/cow/ant_cow05ant.png').is_file() and Path('dst/bee/cow05bee.png').is_file()
    undo('dst'); assert snapshot('dst') == snapshot('src')
    os.rename('dst', 'undone')
    assert pets(arrays(*rows))[0] == 0 and Path('dst/cow/cow05bee.png').is_file()

def test_the_older_name_of_the_option(pets, capsys):
    Path('c.json').write_text(json.dumps(arrays(('ant/cow05ant.png', 'ant', 'cow', .97))))
    assert main(['correct', 'src', 'dst', '--corrections', 'c.json', '--issues', 'c.json']) == 2 and 'two names of the same' in capsys.readouterr().err
    assert main(['correct', 'src', 'dst', '--corrections', 'c.json']) == 0 and '1 relabelled' in capsys.readouterr().out
    assert main(['correct', '--help']) == 0 and '--corrections' not in capsys.readouterr().out

def test_a_person_counts_more_than_what_was_found(folder, issues, tmp_path, monkeypatch, capsys):
    "Kept, relabelled and dropped by a person, the other suspects by what was found; and all of it taken back."
    monkeypatch.chdir(tmp_path)
    write_issues(issues, tmp_path/'issues.csv')
    a, b, c = issues[issues.is_label_issue].head(3).itertuples()
    other, = {'ant', 'bee', 'cow'} - {b.given_label, b.suggested_label}
    Path('d.csv').write_text(f'item,label,action\n{a.item},{a.given_label},keep\n{b.item},{other},relabel\n{c.item},,drop\nnowhere.png,,drop\n')
    before = snapshot(folder)
    assert main(['correct', 'src', 'only', '--decisions', 'd.csv']) == 0 and '1 relabelled, 1 pruned, of 120 items' in (said := capsys.readouterr().out) and 'nowhere.png' in said
    assert main(['correct', 'src', 'dst', '--issues', 'issues.csv', '--decisions', 'd.csv']) == 0 and '10 relabelled, 1 pruned, of 120 items' in capsys.readouterr().out
    has = read_source('dst').frame.groupby(lambda i: 0).path.agg(set)[0]
    assert a.item in has and c.item not in has and b.item.replace(f'/{b.given_label}/', f'/{other}/') in has
    undo('dst'); assert snapshot('dst') == before

def test_planning_is_light_to_import():
    code = "import sys, fastclean.corrections, fastclean.correct, fastclean.copies, fastclean.undo; print(sorted({'torch', 'fastai', 'cleanlab'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent).stdout.strip() == '[]'

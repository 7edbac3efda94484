"Folds are even, whole and repeatable; the cache never gives back what is not whole or not its own."
import json, os, signal, subprocess, sys, time, warnings
from pathlib import Path

import numpy as np
import pytest

from fastclean.core import CacheLockedError, CacheMismatchError, FastcleanWarning
from fastclean.folds import FoldCache, fold_ids

def table(y, fold, k):
    t = np.zeros((y.max() + 1, k), int); np.add.at(t, (y, fold), 1)
    return t

@pytest.mark.parametrize('n, n_classes, k', [(10, 2, 2), (100, 3, 5), (1000, 7, 10), (997, 50, 3), (20_000, 2000, 5)])
def test_classes_and_folds_are_even(n, n_classes, k):
    y = np.random.default_rng(0).integers(0, n_classes, n); y[:n_classes] = np.arange(n_classes)[:n]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FastcleanWarning)
        fold = fold_ids(y, k)
    assert fold.min() == 0 and fold.max() == k - 1 and np.ptp(np.bincount(fold)) <= 1
    assert np.ptp(table(y, fold, k), axis=1).max() <= 1

def test_seed_and_shuffle():
    y = np.arange(200) % 4
    a = fold_ids(y, 5, seed=1)
    assert (a == fold_ids(y, 5, seed=1)).all() and (a != fold_ids(y, 5, seed=2)).any()
    assert len({tuple(a[y == c][:8]) for c in range(4)}) > 1   # not dealt in the order of the rows

def test_unlabelled_items_get_no_fold():
    y = np.array([0, 1, -1] * 20)
    fold = fold_ids(y, 4)
    assert (fold[y < 0] == -1).all() and (fold[y >= 0] >= 0).all() and np.ptp(np.bincount(fold[y >= 0])) == 0

def test_rare_classes_are_spread_and_named():
    y = np.array([0]*20 + [1]*3 + [2])
    with pytest.warns(FastcleanWarning, match=r"2 of 3 classes have fewer items than the 5 folds \('owl': 1, 'dog': 3\)"): fold = fold_ids(y, 5, vocab=['cat', 'dog', 'owl'])
    assert len(set(fold[y == 1])) == 3
    with pytest.warns(FastcleanWarning, match=r'100 of 101 classes .*, …\)'): fold_ids(np.r_[np.zeros(10, int), np.arange(1, 101)], 5)

@pytest.mark.parametrize('labels, kw, match', [([1]*9, {}, 'same label'), ([0, 1, 0, 1], {}, 'cannot make 5 folds'), ([-1]*9, {}, 'cannot make'), ([], {}, 'cannot make'),
    ([0, 1]*9, dict(n_splits=1), 'n_splits'), ([0, 1]*9, dict(n_splits=2.5), 'n_splits'), (2*np.eye(9), {}, 'between 0 and 1'), (np.ones((9, 2, 2)), {}, 'shape'), (['a', 'b']*9, {}, 'class numbers'),
    ([0, .5]*9, {}, 'class numbers'), ([0, np.nan]*9, {}, 'class numbers'), ([0, -2]*9, {}, 'between'), ([0, 1]*9, dict(groups=[1]*17), '18 items; got 17'),
    ([0, 1]*9, dict(groups=[None] + [1]*17), 'no value for 1'), ([0, 1]*9, dict(groups=[1, 2, 3]*6), '3 groups cannot make 5')])
def test_bad_input(labels, kw, match):
    with pytest.raises(ValueError, match=match): fold_ids(labels, **kw)

def test_groups_stay_whole_and_even():
    rng = np.random.default_rng(0)
    g = rng.integers(0, 200, 3000); y = (g % 6 + (rng.random(3000) < .2)) % 6
    names = np.array([f'patient {i}' for i in g])
    fold = fold_ids(y, 5, groups=names)
    assert all(len(set(fold[g == i])) == 1 for i in range(200))
    assert (np.abs(table(y, fold, 5) / np.bincount(y)[:, None] - .2) < .03).all() and np.ptp(np.bincount(fold)) < 100

def test_as_even_as_scikit_learn():
    from sklearn.model_selection import StratifiedGroupKFold
    ours, theirs = [], []
    for s in range(5):
        rng = np.random.default_rng(s)
        g = rng.integers(0, 300, 5000); w = rng.dirichlet(np.full(10, .3), 300).cumsum(1); y = (rng.random(5000)[:, None] > w[g]).sum(1).clip(max=9)
        other = np.empty(5000, int)
        for f, (_, held) in enumerate(StratifiedGroupKFold(5, shuffle=True, random_state=s).split(y, y, g)): other[held] = f
        for to, fold in ((ours, fold_ids(y, 5, groups=g, seed=s)), (theirs, other)): to.append(np.abs(table(y, fold, 5) / np.bincount(y)[:, None] - .2).mean())
    assert np.mean(ours) < 1.5 * np.mean(theirs)

def test_groups_of_one_are_no_groups():
    y = np.arange(50) % 3
    assert (fold_ids(y, 5, groups=np.arange(50)) == fold_ids(y, 5)).all()

def test_no_fold_is_empty():
    with pytest.warns(FastcleanWarning): fold = fold_ids([0, 0, 0, 0, 0, 1, 0, 1], 4, groups=[0, 0, 0, 0, 1, 1, 2, 3])
    assert len(set(fold)) == 4

def test_a_class_within_few_groups_is_named():
    y, g = np.array([0]*20 + [1]*8), np.r_[np.arange(20) // 2, np.full(8, 99)]
    with pytest.warns(FastcleanWarning, match=r'1 of 2 classes have fewer groups than the 5 folds \(1: 1\)'): fold_ids(y, 5, groups=g)

def test_many_groups_and_classes():
    rng = np.random.default_rng(0)
    y, g = rng.integers(0, 10_000, 100_000), rng.integers(0, 10_000, 100_000)
    with pytest.warns(FastcleanWarning, match='of 10,000 classes'): fold = fold_ids(y, 5, groups=g)   # scikit-learn's table of groups by classes would have 10^8 entries
    assert np.ptp(np.bincount(fold)) < 2000 and all(len(set(f)) == 1 for f in np.split(fold[np.argsort(g, kind='stable')], np.cumsum(np.bincount(g))[:-1]))

# ---- the cache
IDENTITY = dict(items=3, fit=dict(name='fit', n_epoch=3, lr=1e-3), path=Path('a'))

def test_what_is_saved_is_read(tmp_path):
    c = FoldCache(tmp_path/'c', IDENTITY)
    arrays = dict(a=np.eye(3, dtype=np.float32), b=np.arange(4).reshape(2, 2).T, n=np.array(7), e=np.zeros((0, 5)), h=np.ones(2, np.float16), m=np.array([True, False]))
    with c.open(): c.save('fold_0', arrays, meta=dict(same={'x': 'y'}, n=1))
    back = FoldCache(tmp_path/'c', IDENTITY).load('fold_0')
    assert set(back) == set(arrays)
    for k, v in arrays.items(): assert back[k].dtype == v.dtype and back[k].shape == v.shape and (back[k] == v).all()
    assert c.meta('fold_0') == dict(same={'x': 'y'}, n=1) and set(c.load('fold_0', 'm')) == {'m'} and c.load('fold_1') is None and c.meta('fold_1') is None
    assert 'fold_0' in c and 'fold_1' not in c and c.here()

def test_only_numbers(tmp_path):
    with FoldCache(tmp_path/'c', IDENTITY).open() as c:
        with pytest.raises(ValueError, match='must be numbers; s is'): c.save('x', dict(s=np.array(['a'])))
        assert 'x' not in c

def test_mismatch_says_what(tmp_path):
    with FoldCache(tmp_path, IDENTITY).open() as c: c.save('fold_0', dict(a=np.ones(1)))
    other = FoldCache(tmp_path, {**IDENTITY, 'fit': dict(name='fit', n_epoch=5, lr=1e-3), 'tag': 'x'})
    with pytest.raises(CacheMismatchError) as e:
        with other.open(): pass
    assert 'fit.n_epoch: here 5, there 3' in str(e.value) and 'tag: here x, there (nothing)' in str(e.value) and 'lr' not in str(e.value)
    assert 'fold_0' in c and other.load('fold_0') is None and not other.here()
    with other.open(replace=c): assert 'fold_0' not in other
    assert not c.here() and not list(tmp_path.glob('*.safetensors'))
    with pytest.raises(CacheMismatchError): c.open(replace=FoldCache(tmp_path, dict(third=1))).__enter__()

def test_an_entry_of_another_identity_is_not_read(tmp_path):
    with FoldCache(tmp_path/'a', IDENTITY).open() as a: a.save('fold_0', dict(a=np.ones(1)))
    with FoldCache(tmp_path/'b', dict(other=1)).open() as b: (tmp_path/'a'/'fold_0.safetensors').rename(tmp_path/'b'/'fold_0.safetensors'); assert 'fold_0' not in b

@pytest.mark.parametrize('damage', [lambda b: b[:7], lambda b: b[:len(b)//2], lambda b: b[:-1], lambda b: b + b'x', lambda b: b'', lambda b: b'\0'*len(b),
    lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:], lambda b: b.replace(b'"sums"', b'"sumz"'), lambda b: b'{"not": "safetensors"}'*9])
def test_damage_is_seen(tmp_path, damage):
    with FoldCache(tmp_path, IDENTITY).open() as c:
        c.save('fold_0', dict(a=np.random.rand(50)))
        f = tmp_path/'fold_0.safetensors'; f.write_bytes(damage(f.read_bytes()))
        with pytest.warns(FastcleanWarning, match='damaged'): assert 'fold_0' not in c
        c.save('fold_0', dict(a=np.ones(1)))
        assert 'fold_0' in c

def test_a_failed_write_leaves_what_was(tmp_path, monkeypatch):
    import fastclean.folds as m
    with FoldCache(tmp_path, IDENTITY).open() as c:
        c.save('fold_0', dict(a=np.ones(1)))
        def full(arrays, f, metadata): Path(f).write_bytes(b'half'); raise OSError(28, 'No space left on device')
        monkeypatch.setattr(m, 'save_file', full)
        for name in ('fold_0', 'fold_1'):
            with pytest.raises(OSError, match='No space'): c.save(name, dict(a=np.zeros(1)))
        assert c.load('fold_0')['a'] == 1 and 'fold_1' not in c and not list(tmp_path.glob('.*.tmp'))

def test_what_a_killed_write_left_is_swept(tmp_path):
    with FoldCache(tmp_path, IDENTITY).open(): pass
    (tmp_path/'.fold_0.safetensors-x.tmp').mkdir(); (tmp_path/'.fold_0.safetensors-x.tmp'/'new').write_bytes(b'half')
    with FoldCache(tmp_path, IDENTITY).open(): assert not list(tmp_path.glob('.*.tmp'))

def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path/'mine.safetensors').write_text('precious')
    with pytest.raises(ValueError, match='not a cache of fastclean and not empty'): FoldCache(tmp_path, IDENTITY).open().__enter__()
    assert [f.name for f in tmp_path.iterdir()] == ['mine.safetensors']
    (tmp_path/'file').write_text('')
    with pytest.raises(ValueError, match='is a file'): FoldCache(tmp_path/'file', IDENTITY).open().__enter__()
    (tmp_path/'b').mkdir(); (tmp_path/'b'/'identity.json').write_text('[1')
    with pytest.raises(ValueError, match='identity.json cannot be read'): FoldCache(tmp_path/'b', IDENTITY).open().__enter__()

@pytest.mark.parametrize('damage', [lambda t: '', lambda t: t[:40], lambda t: t.replace('"key": "', '"key": "0'), lambda t: '[]'])
def test_a_damaged_identity_is_written_again(tmp_path, damage):
    f = tmp_path/'identity.json'
    with FoldCache(tmp_path, IDENTITY).open() as c: c.save('fold_0', dict(a=np.ones(1))); c.save('fold_1', dict(a=np.ones(1)))
    (tmp_path/'fold_1.safetensors').write_bytes(b'cut'); good = f.read_text()
    f.write_text(damage(good))
    with pytest.raises(ValueError, match='identity.json cannot be read'): FoldCache(tmp_path, {**IDENTITY, 'seed': -1}).open().__enter__()   # whose entries these are not
    with pytest.warns(FastcleanWarning, match='identity.json of the cache .* is damaged'), FoldCache(tmp_path, IDENTITY).open() as c: assert c.load('fold_0')['a'] == 1
    assert f.read_text() == good
    f.write_text(damage(good)); (tmp_path/'sub').mkdir()
    with pytest.raises(ValueError, match='identity.json cannot be read'): FoldCache(tmp_path, IDENTITY).open().__enter__()
    (tmp_path/'sub').rmdir(); (tmp_path/'mine.txt').write_text('precious')
    with pytest.raises(ValueError, match='identity.json cannot be read'): FoldCache(tmp_path, IDENTITY).open().__enter__()

def test_a_second_run_is_kept_out(tmp_path):
    with FoldCache(tmp_path, IDENTITY).open():
        with pytest.raises(CacheLockedError, match=f'process {os.getpid()}'): FoldCache(tmp_path, IDENTITY).open().__enter__()
    with FoldCache(tmp_path, IDENTITY).open(): pass
    with pytest.raises(ZeroDivisionError):
        with FoldCache(tmp_path, IDENTITY).open(): 1/0
    with FoldCache(tmp_path, IDENTITY).open(): pass

HOLD = """
import os, sys, time
from fastclean.folds import FoldCache
with FoldCache(sys.argv[1], dict(a=1)).open():
    child = os.fork() if sys.argv[2] == 'fork' else 1
    if not child: time.sleep(20); os._exit(0)
    print('held', flush=True); time.sleep(60)
"""

@pytest.mark.parametrize('how', ['plain', 'fork'])
def test_a_killed_run_leaves_no_lock(tmp_path, how):
    p = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path), how], stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == b'held\n'
        with pytest.raises(CacheLockedError, match=f'process {p.pid}'): FoldCache(tmp_path, dict(a=1)).open().__enter__()
    finally: p.send_signal(signal.SIGKILL)
    p.wait()
    for _ in range(50):   # a forked child lets go of the file a moment later, where the machine is busy
        try:
            with FoldCache(tmp_path, dict(a=1)).open() as c: assert c.here()
            return
        except CacheLockedError: time.sleep(.1)
    raise AssertionError('still locked')

def test_who_holds_it_need_not_be_known(tmp_path):
    with FoldCache(tmp_path, IDENTITY).open():
        for text in ('', '[]', '{"pid": 1}'):
            (tmp_path/'.owner.json').write_text(text)
            with pytest.raises(CacheLockedError, match=r'working on the cache \S+: wait'): FoldCache(tmp_path, IDENTITY).open().__enter__()

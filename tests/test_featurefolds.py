"Features, heads and the strict rounds."
import os, signal, warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastclean.core import CacheMismatchError, FastcleanWarning
from fastclean.data import digits_sample, read_source
from fastclean.featurefolds import FeatureFolds
from fastclean.features import image_features, load_backbone, nearest, to_rgb
from fastclean.folds import fold_ids
from fastclean.heads import RidgeHeads, fit_rounds, neighbour_vote, one_hot
from fastclean.kernelmap import KernelMap
from fastclean.loaders import source_dls

SIZE = 48

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "300 digits, a folder per class."
    src, dst = digits_sample(tmp_path_factory.mktemp('all')/'digits'), tmp_path_factory.mktemp('some')
    for f in sorted(src.rglob('*.png'))[::6]:
        (dst/f.parent.name).mkdir(exist_ok=True)
        (dst/f.parent.name/f.name).write_bytes(f.read_bytes())
    return dst

@pytest.fixture(scope='module')
def features(tmp_path_factory): return tmp_path_factory.mktemp('features')

def folds(folder, features, **kwargs): return FeatureFolds(source_dls(read_source(folder), 32), image_size=SIZE, features_cache=features, **kwargs)

def test_every_item_once(folder, features):
    p = folds(folder, features).predictions()
    assert len(p) == 300 and set(p.fold) == set(range(5))
    assert (p.predicted_label == p.given_label).mean() > .85
    assert p.items[0].count('/') == 1 and p.meta['rounds'] == 1   # nothing is wrong here: further rounds explain the labels no better

def test_the_seed_reproduces_everything(folder, features):
    a, b, c = (folds(folder, features, seed=s).predictions().pred_probs for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)

@pytest.mark.parametrize('rounds', [1, 3])
def test_no_item_sees_its_own_label(folder, features, rounds):
    kf = folds(folder, features, rounds=rounds).fit()
    before, held = kf._store.load('fold-0'), np.flatnonzero(kf.fold == 0)
    kf.y[held] = (kf.y[held] + 1) % 10
    kf._prepare()
    after = kf._fit_fold(0)
    for r in range(1, rounds + 1): assert np.array_equal(after[f'{r}/held'], before[f'{r}/held'])
    kf.y[kf.fold == 1] = 0
    assert not np.array_equal(kf._fit_fold(0)[f'{rounds}/held'], before[f'{rounds}/held'])   # other folds' labels do count

def test_rounds_stop_where_they_explain_nothing(folder, features):
    kf = folds(folder, features)
    kf.fit()
    assert kf.used_rounds == 1
    noisy = folds(folder, features)
    noisy._read(); wrong = np.random.default_rng(0).random(300) < .3
    read = noisy._read
    def _read_noisy(): read(); noisy.labels = np.where(wrong, (noisy.labels + 1 + np.arange(300) % 9) % 10, noisy.labels)
    noisy._read = _read_noisy
    noisy.fit()
    assert noisy.used_rounds > 1

def test_confirmed_labels_are_not_doubted(folder, features):
    names = folds(folder, features).predictions().items[:30]
    kf = folds(folder, features, verified=names)
    p = kf.predictions()
    assert p.verified[:30].all() and not p.verified[30:].any()
    targets = kf._fold(0, 3)['targets'].astype(np.float32)
    sure = kf.known & (kf.fold != 0)
    assert sure.sum() > 15 and np.array_equal(targets[sure].argmax(1), kf.y[sure]) and (targets[sure].max(1) == 1).all()

def test_splits_and_unlabelled_items(folder, features, tmp_path):
    src = read_source(folder)
    d = pd.DataFrame(dict(path=src.files(), label=src.frame.given_label, split=np.resize(['train']*6 + ['valid', 'test'], len(src))))
    d.loc[d.index[::50], 'label'] = ''
    d.to_csv(tmp_path/'t.csv', index=False)
    s = read_source(tmp_path/'t.csv', item_col='path', label_col='label', drop_unlabelled=True)
    s.frame.loc[s.frame.index[::40], ['given_label', 'split']] = [None, 'unlabelled']
    p = FeatureFolds(source_dls(s, 32), image_size=SIZE).predictions()
    assert len(p) == len(s) and set(p.split) == {'train', 'valid', 'test', 'unlabelled'}
    assert ((p.fold >= 0) == (p.split == 'train')).all() and ((p.given_label < 0) == (p.split == 'unlabelled')).all()
    labelled = p.given_label >= 0
    assert (p.predicted_label == p.given_label)[labelled & (p.fold < 0)].mean() > .7

def test_unreadable_items_shift_nothing(folder, features, tmp_path):
    whole = folds(folder, features).predictions()
    for f in folder.rglob('*.png'):
        (tmp_path/f.parent.name).mkdir(exist_ok=True); (tmp_path/f.parent.name/f.name).write_bytes(f.read_bytes())
    for nm in ('0000.png', 'aaa.png', 'zzz.png'): (tmp_path/'3'/nm).write_bytes(b'\x89PNG\r\n\x1a\n broken')
    with pytest.warns(FastcleanWarning, match='3 of 303 items cannot be read'):
        p = FeatureFolds(source_dls(read_source(tmp_path), 32), image_size=SIZE).predictions()
    assert set(p.meta['unreadable']) == {'3/0000.png', '3/aaa.png', '3/zzz.png'} and list(p.items) == list(whole.items)
    assert (p.predicted_label == whole.predicted_label).mean() > .95

def test_nothing_readable(tmp_path):
    for c in 'ab':
        (tmp_path/c).mkdir()
        for i in range(5): (tmp_path/c/f'{i}.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='none of the 10 items can be read'): FeatureFolds(source_dls(read_source(tmp_path))).fit()

def test_cache_goes_on_and_refuses_other_work(folder, features, tmp_path):
    a = folds(folder, features, cache=tmp_path).predictions()
    (tmp_path/'folds'/'fold-3.safetensors').write_bytes(b'half')
    with pytest.warns(FastcleanWarning, match='damaged'): b = folds(folder, features, cache=tmp_path).predictions()
    assert np.array_equal(a.pred_probs, b.pred_probs)
    with pytest.raises(CacheMismatchError, match='rounds'): folds(folder, features, cache=tmp_path, rounds=2).fit()

def test_repeated_items_share_a_fold(folder, features, tmp_path):
    files = sorted(folder.rglob('*.png'))
    d = pd.DataFrame(dict(path=files + files[:40], label=[f.parent.name for f in files] + ['7']*40))
    d.to_csv(tmp_path/'t.csv', index=False)
    src = read_source(tmp_path/'t.csv')
    kf = FeatureFolds(source_dls(src, 32), image_size=SIZE, groups=list(src.frame.group)).fit()
    assert np.array_equal(kf.fold[:40], kf.fold[300:]) and str(kf.items[300]).endswith('#2')

def test_more_classes_than_items_in_some(tmp_path):
    rng = np.random.default_rng(0)
    for c in range(12):
        (tmp_path/f'c{c:02}').mkdir()
        for i in range(1 if c == 5 else 8): Image.fromarray((rng.random((16, 16, 3))*40 + 18*c).astype(np.uint8)).save(tmp_path/f'c{c:02}'/f'{i}.png')
    with pytest.warns(FastcleanWarning, match='fewer items'): p = FeatureFolds(source_dls(read_source(tmp_path), 32), image_size=32).predictions()
    assert p.pred_probs.shape == (89, 12) and np.isfinite(p.pred_probs).all()

def test_ridge_heads_agree_with_plain_ridge_regression():
    from sklearn.linear_model import Ridge
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(90, 8)).astype(np.float32), rng.integers(3, size=90)
    fold = fold_ids(y, 3)
    heads = RidgeHeads(z, fold, alphas=(1e-2,))
    _, head = heads.out_of_fold(one_hot(y, 3), 1)
    use = fold != 1
    want = Ridge(alpha=1e-2*heads.unit*use.sum()).fit(z[use], one_hot(y, 3)[use])
    z0 = z[use].mean(0)
    # RidgeHeads centres the labels, not the features: on centred features the two are the same
    zc = z - z0
    _, centred = RidgeHeads(zc, fold, alphas=(1e-2,)).out_of_fold(one_hot(y, 3), 1)
    want = Ridge(alpha=1e-2*RidgeHeads(zc, fold).unit*use.sum()).fit(zc[use], one_hot(y, 3)[use])
    assert np.allclose(zc@centred.weights + centred.offset, want.predict(zc), atol=1e-4)
    assert np.allclose(head(z).sum(1), 1, atol=1e-5)

def test_kernel_map_is_the_kernel():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    m = KernelMap(n_components=5, n_landmarks=60).fit(x)
    r = m.reduce(x)
    d = ((r[:, None] - r[None])**2).sum(-1)
    K, C = np.exp(-m.gamma*d), np.eye(60) - 1/60
    assert np.allclose(m(x)@m(x).T, C@K@C, atol=2e-3)

def test_votes_leave_out_what_may_not_vote():
    idx, sim, targets = np.array([[0, 1, 2]]), np.array([[.9, .9, .9]], np.float32), one_hot([0, 1, 1], 2)
    v = neighbour_vote(idx, sim, targets, np.array([True, False, False]))
    assert v[0, 0] > .99 and abs(v.sum() - 1) < 1e-6

def test_nearest_is_exact():
    x = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    z = x/np.linalg.norm(x, axis=1, keepdims=True)
    s = z@z.T; np.fill_diagonal(s, -2)
    idx, sim = nearest(x, 4, block=16)
    assert np.array_equal(idx, np.argsort(-s, 1)[:, :4]) and np.allclose(sim, -np.sort(-s, 1)[:, :4], atol=1e-5)

def test_images_of_every_mode(tmp_path):
    a = np.arange(64, dtype=np.uint8).reshape(8, 8)*4
    for mode in ('L', 'RGB', 'RGBA', 'LA', 'P', '1', 'CMYK', 'I', 'F', 'I;16'):
        im = Image.fromarray(a.astype(np.uint16)*200) if mode == 'I;16' else Image.fromarray(a).convert(mode)
        out = to_rgb(im, 16)
        assert out.shape == (16, 16, 3) and out.dtype == np.uint8 and np.ptp(out) > 50, mode

def test_backbones(tmp_path):
    import timm, torch
    m = timm.create_model('resnet18', pretrained=False)
    torch.save(m.state_dict(), tmp_path/'w.pth')
    b = load_backbone('resnet18', tmp_path/'w.pth')
    x, _ = image_features(lambda i: np.full((20, 20, 3), 7*i, np.uint8), 3, b, 64)
    assert x.shape == (3, 256 + 512 + 256) or x.shape == (3, 256 + 512 + 512 + 256)
    with pytest.raises(ValueError, match='do not fit'): load_backbone('resnet34', tmp_path/'w.pth')
    (tmp_path/'bad.pth').write_bytes(b'nonsense')
    with pytest.raises(ValueError, match='cannot be read'): load_backbone('resnet18', tmp_path/'bad.pth')

def test_interrupted_features_go_on(tmp_path):
    from fastclean.folds import FoldCache
    images = [np.full((16, 16, 3), i, np.uint8) for i in range(40)]
    seen = []
    def get(i):
        if i == 25 and not seen: seen.append(i); raise KeyboardInterrupt
        return images[i]
    cache, b = FoldCache(tmp_path/'c', dict(a=1)), load_backbone()
    with pytest.raises(KeyboardInterrupt), cache.open(): image_features(get, 40, b, 32, cache=cache, chunk=10)
    asked = []
    with cache.open(): x, _ = image_features(lambda i: asked.append(i) or images[i], 40, b, 32, cache=cache, chunk=10)
    assert min(asked) == 20
    assert np.array_equal(x, image_features(lambda i: images[i], 40, b, 32, chunk=10)[0])

@pytest.mark.slow
def test_features_in_two_processes_and_a_killed_one(tmp_path):
    from joblib import parallel_config
    from fastclean.folds import FoldCache
    flag, cache = tmp_path/'killed', FoldCache(tmp_path/'f', dict(kind='features'))
    def get(i):
        if i == 7: raise OSError('truncated')
        if i == 50 and not flag.exists(): flag.touch(); os.kill(os.getpid(), signal.SIGKILL)
        return np.full((20, 20, 3), i, np.uint8)
    with cache.open(), parallel_config('loky', n_jobs=2):
        with pytest.raises(RuntimeError, match='of 3 parts were finished.*goes on'): image_features(get, 60, size=32, cache=cache, chunk=20)
        done = {f: f.stat().st_mtime_ns for f in (tmp_path/'f').glob('features-*.safetensors')}
        x, errors = image_features(get, 60, size=32, cache=cache, chunk=20)
    assert flag.exists() and all(f.stat().st_mtime_ns == t for f, t in done.items()) and errors == {7: 'OSError: truncated'}
    assert np.allclose(x, image_features(get, 60, size=32, chunk=20)[0], atol=1e-2, rtol=1e-3)
    with parallel_config('loky', n_jobs=2): assert np.allclose(x, image_features(get, 60, size=32, chunk=20)[0], atol=1e-2, rtol=1e-3)   # without a cache

def test_two_folds_are_too_few(folder, features):
    with pytest.raises(ValueError, match='n_splits must be 3 or more; got 2'): folds(folder, features, n_splits=2)

@pytest.mark.parametrize('own', [True, False])
def test_nearest_in_cells(own, monkeypatch):
    "Beyond so many comparisons the cells hold nearly the same, never the item itself, and always k of them."
    from fastclean import features
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 24))
    x = (centres[rng.integers(40, size=3000)] + .5*rng.normal(size=(3000, 24))).astype(np.float32)
    x[:3] = -50*centres.sum(0) + rng.normal(size=(3, 24))   # three that are far from all others: a cell of their own
    query = None if own else x[::-1][:500] + .01
    exact = features.nearest(x, 12, query)
    monkeypatch.setattr(features, 'EXACT_UP_TO', 10**5)
    idx, sim = features.nearest(x, 12, query, block=700)
    assert idx.shape == exact[0].shape and sim.dtype == np.float32 and (idx >= 0).all() and (np.diff(sim, axis=1) <= 0).all()
    if own: assert (idx != np.arange(3000)[:, None]).all()
    assert np.mean([len(set(a) & set(b))/12 for a, b in zip(idx, exact[0])]) > .98 and all(len(set(o)) == 12 for o in idx)
    z, q = (o/np.linalg.norm(o, axis=1, keepdims=True) for o in (x, x if own else query))
    assert np.allclose(sim, np.einsum('id,ijd->ij', q, z[idx]), atol=1e-4)

@pytest.mark.parametrize('k', [60, 70, 80, 500])
def test_more_neighbours_than_the_cells_hold(k, monkeypatch):
    "Then the search is exact, and an item does not find itself either: not where one place is left."
    from fastclean import features
    x = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    exact = features.nearest(x, k)
    monkeypatch.setattr(features, 'EXACT_UP_TO', 10)
    idx, sim = features.nearest(x, k)
    assert (idx >= 0).all() and (idx != np.arange(600)[:, None]).all() and all(len(set(o)) == k for o in idx)
    assert k < 500 or np.allclose(sim, exact[1], atol=1e-5)

def test_where_items_lie_anywhere_more_cells_are_searched(monkeypatch):
    from fastclean import features
    x, looked = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32), []
    exact = features.nearest(x, 10)[0]
    monkeypatch.setattr(features, 'EXACT_UP_TO', 10)
    real = features._in_cells
    monkeypatch.setattr(features, '_in_cells', lambda *o: looked.append(o[-1]) or real(*o))
    idx, _ = features.nearest(x, 10)
    assert looked[0] == 8 and looked[-1] > 32
    assert np.mean([len(set(a) & set(b))/10 for a, b in zip(idx, exact)]) > .98
    assert features.nearest(x[:0], 3)[0].shape == (0, 0) and features.nearest(x[:, :0], 3)[0].shape == (4000, 3)

@pytest.mark.filterwarnings('error')
def test_equal_items_are_found_in_their_cell(monkeypatch):
    "A cell that most items fall into, and other cells that are empty; the search goes through it in parts."
    from fastclean import features
    x = np.repeat(np.eye(6, dtype=np.float32), [300, 5, 4, 3, 2, 1], axis=0)
    monkeypatch.setattr(features, 'EXACT_UP_TO', 10)
    idx, sim = features.nearest(x, 4)
    kind = x.argmax(1)
    for i, (row, of) in enumerate(zip(idx, kind)): assert i not in row and len(set(row)) == 4 and (kind[row] == of).sum() == min(4, (kind == of).sum() - 1)
    assert np.allclose(sim[:300], 1)

"Twins, their groups, outliers, and what is made of them."
import builtins, io, warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from fastclean.core import Predictions
from fastclean.data import digits_sample, read_source
from fastclean.datalab import to_datalab
from fastclean.featurefolds import FeatureFolds
from fastclean.issues import find_label_issues, read_issues, write_issues
from fastclean.loaders import source_dls
from fastclean.oddities import conflicting_twins, count_oddities, strange_items
from fastclean.twins import (Pictures, Texts, chance_of, class_distance, find_twins, join_groups, near_twins, normal_text, outlier_scores, picture_distance, same_files, same_rows, same_texts,
                             twin_groups, twin_of)

PHOTOS = Path.home()/'.fastai/data/imagenette2-160/val'
photos_needed = pytest.mark.skipif(not PHOTOS.is_dir(), reason='Imagenette is not there')

def smooth(n, rng, side=32):
    "Pictures that have nothing in common: noise, blurred."
    return [Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC) for _ in range(n)]

def saved(im, quality=70):
    o = io.BytesIO(); im.save(o, 'JPEG', quality=quality)
    return Image.open(o)

def grey(im, side=32): return np.asarray(im.convert('L').resize((side, side), Image.Resampling.BILINEAR))/255

def pairs_of(d): return set(zip(d.a, d.b))

# What is the same

def test_files(tmp_path):
    for nm, b in dict(a=b'one', b=b'two', c=b'one', d=b'three', empty=b'', void=b'').items(): (tmp_path/nm).write_bytes(b)
    files = [tmp_path/o for o in ('a', 'b', 'c', 'd', 'missing', 'lost', 'empty', 'void', 'a')]
    g = same_files(files)
    assert g[0] == g[2] == g[8] and g[6] == g[7] and len(set(g)) == 6      # what is not there is like nothing

def test_texts_differ_in_words():
    assert normal_text('  Ｈello,\tWORLD!! ') == 'hello world'
    assert list(same_texts(['a b', 'A, b!', 'ab', '', ' ', '!?', '?!', '猫 кот'])) == [0, 0, 1, 2, 2, 3, 4, 5]
    d = Texts(['the cat sat on the mat today', 'The cat sat on the mat, today.', 'the cat sat on the mat yesterday', 'no', 'ok'])([0, 0, 3, 3], [1, 2, 4, 3])
    assert d[0] == 0 and 0 < d[1] < .5 and d[2] == 1 and d[3] == 0

# How near

@pytest.mark.parametrize('change', [lambda im: saved(im, 60), lambda im: Image.fromarray(np.roll(np.asarray(im), (3, -2), (0, 1))), lambda im: ImageEnhance.Brightness(im).enhance(.75),
                                    lambda im: im.crop((3, 0, 64, 61))])
def test_distance_forgives_small_changes(change):
    rng = np.random.default_rng(1)
    ims = smooth(20, rng, 64)
    a, b = np.stack([grey(o) for o in ims]), np.stack([grey(change(o)) for o in ims])
    assert picture_distance(a, b).max() < .2 and picture_distance(a, np.roll(b, 1, 0)).min() > .5

def test_distance_of_blank_and_inverted_pictures():
    im = grey(smooth(1, np.random.default_rng(0))[0])
    blank = np.full_like(im, .5)
    assert list(picture_distance(np.stack([im, blank, blank, im]), np.stack([blank, im, blank, 1 - im])) == 1) == [True]*4

def test_chance_is_a_probability_that_holds():
    rng = np.random.default_rng(0)
    x = rng.random((4000, 10))
    d = np.sort(np.linalg.norm(x[:1000, None] - x[None], axis=2), 1)[:, 1:11]
    p = chance_of(d).min(1)
    for limit in (.3, .1, .03): assert .4*limit < (p < limit).mean() < 2.5*limit      # about as often as it says
    assert ((p >= 0) & (p <= 1)).all()

def test_no_twins_are_called_among_strangers():
    x = np.random.default_rng(0).normal(size=(800, 12)).astype(np.float32)
    assert len(find_twins(x)) <= 1

def test_twins_of_several_copies_and_exact_ones():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 12)).astype(np.float32)
    near = x[:40] + rng.normal(size=(40, 12)).astype(np.float32)*.01
    more = x[:40] + rng.normal(size=(40, 12)).astype(np.float32)*.01
    every = np.concatenate([x, near, more, x[100:105]])
    d = find_twins(every, same=same_rows(every))
    g = twin_groups(len(every), d)
    assert (g[:40] == g[400:440]).all() and (g[:40] == g[440:480]).all() and (g[100:105] == g[480:]).all()
    assert (d.distance == 0).sum() == 5 and np.bincount(g).max() == 3 and (d.a < d.b).all()

def test_few_items_and_no_items():
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    assert pairs_of(find_twins(x, same=[0, 1, 0, 2, 3, 0])) == {(0, 2), (0, 5)}
    assert len(near_twins(np.zeros((6, 5), int), np.ones((6, 5)))) == 0
    assert len(find_twins(np.zeros((0, 3), np.float32))) == 0

def icons(n, rng):
    "Three icons over and over, each a little brighter or darker and saved anew."
    out = []
    for i in range(n):
        im = Image.new('RGB', (48, 48), 'white')
        ImageDraw.Draw(im).ellipse((8 + i % 3*6, 8, 40, 40), fill=('red', 'green', 'blue')[i % 3])
        out.append(saved(ImageEnhance.Brightness(im).enhance(rng.uniform(.9, 1)), int(rng.integers(50, 95))).convert('RGB'))
    return out

def test_icons_in_masses_are_no_giant_group():
    ims = icons(300, np.random.default_rng(0))
    x = np.stack([np.asarray(o.resize((12, 12)), dtype=np.float32).ravel() for o in ims])
    g = twin_groups(300, find_twins(x - x.mean(0), same_rows(x), Pictures(lambda i: ims[i], 300)))
    assert np.bincount(g).max() < 20

def test_pictures_reads_what_it_must_once():
    ims, asked = smooth(4, np.random.default_rng(0)), []
    def get(i):
        asked.append(i)
        if i == 3: raise OSError('truncated')
        return ims[i]
    rough = np.stack([grey(o, 16) for o in ims[:3]] + [np.zeros((16, 16))])
    p = Pictures(get, 4, rough)
    assert p(np.array([0]), np.array([1]))[0] > .4 and asked == []      # too different to be worth a look
    p.rough = None
    assert p(np.array([0, 0, 0, 3]), np.array([0, 1, 3, 3])).round(2).tolist()[0] == 0 and sorted(asked) == [0, 1, 3]
    assert p(np.array([0]), np.array([3]))[0] == 1 and sorted(asked) == [0, 1, 3]

# Groups and names

def test_join_groups_closes_chains():
    assert list(join_groups([0, 1, 2, 3, 4], ['a', 'a', 'b', 'c', 'd'], [5, 6, 6, 7, 8])) == [0, 0, 0, 1, 2]
    assert list(join_groups(np.zeros(0, int), np.zeros(0, int))) == []

def test_a_group_of_near_twins_is_no_larger_than_a_fold():
    d = pd.DataFrame(dict(a=[0, 1, 2, 3], b=[1, 2, 3, 4], distance=[.1, 0, .1, .1]))
    assert np.bincount(twin_groups(6, d)).max() == 5
    assert list(twin_groups(6, d, largest=4)) == [0, 1, 1, 2, 3, 4]

def test_twin_names_the_one_that_differs():
    pairs = pd.DataFrame(dict(a=[0, 0, 3, 5], b=[1, 2, 4, 6], distance=[0, 0, .1, .05]))
    assert list(twin_of(pairs, [0, 0, 1, 2, 2, -1, 1, 0])) == [2, 2, 0, 4, 3, 6, 5, -1]
    # three near: the nearest of another label goes before a nearer one of the same
    pairs = pd.DataFrame(dict(a=[0, 0], b=[1, 2], distance=[.01, .2]))
    assert list(twin_of(pairs, [0, 0, 1])) == [2, 0, 0]
    # many copies: all are named, quickly, and the odd one out is everybody's
    n = 3000
    pairs = pd.DataFrame(dict(a=np.zeros(n - 1, int), b=np.arange(1, n), distance=0.))
    y = np.zeros(n, int); y[1234] = 1
    t = twin_of(pairs, y)
    assert (np.delete(t, 1234) == 1234).all() and t[1234] == 0

def test_conflicts_survive_the_file(tmp_path):
    extra = pd.DataFrame(dict(twin=pd.Series(['b', 'a', 'd', 'c', None, 'a'], dtype=object), outlier_score=[.9, .9, .8, .9, .1, .2]))
    p = Predictions.from_arrays([0, 1, 1, 1, 0, 1], np.full((6, 2), .5), ['1', 1], list('abcdef'), extra=extra)      # classes that look alike in a file
    issues = read_issues(write_issues(find_label_issues(p), tmp_path/'i.csv'))
    found = conflicting_twins(issues)
    assert {frozenset(o) for o in zip(found['item'], found.twin)} == {frozenset('ab'), frozenset('af')}
    assert count_oddities(issues) == dict(twins=dict(items=5, conflicting=2), strange=2) and list(strange_items(issues)['item']) == ['e', 'f']

# Outliers

def test_outliers_in_company_are_found():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 1000)
    x = rng.normal(size=(1000, 16)) + 3*np.eye(16)[y]
    far = rng.normal(size=(60, 16))*.1 + 6*np.eye(16)[10]      # sixty of a kind, under random labels
    s = outlier_scores(np.r_[x, far].astype(np.float32), np.r_[y, rng.integers(0, 4, 60)])
    assert s.dtype == np.float32 and ((s >= 0) & (s <= 1)).all()
    assert s[1000:].max() < np.quantile(s[:1000], .02) and (s[:1000] < .5).mean() < .03      # all of them stranger than 98 % of the others

@pytest.mark.parametrize('y', [[0, 0, 1, 1, -1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]])
def test_outliers_of_a_handful(y):
    x = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        s = outlier_scores(x, y)
    assert np.isfinite(s).all() and np.isfinite(class_distance(x, y)).all()
    assert np.isfinite(outlier_scores(np.zeros((30, 8), np.float32), np.arange(30) % 2)).all()

# In FeatureFolds

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "200 digits, five of them copied into the next class."
    src, dst = digits_sample(tmp_path_factory.mktemp('all')/'digits'), tmp_path_factory.mktemp('some')
    for i, f in enumerate(sorted(src.rglob('*.png'))[::9]):
        (dst/f.parent.name).mkdir(exist_ok=True)
        (dst/f.parent.name/f.name).write_bytes(f.read_bytes())
    for f in sorted((dst/'0').iterdir())[:5]: (dst/'1'/f'copy-{f.name}').write_bytes(f.read_bytes())
    return dst

@pytest.fixture(scope='module')
def features(tmp_path_factory): return tmp_path_factory.mktemp('features')

def test_copies_share_a_fold_and_name_each_other(folder, features):
    assert FeatureFolds(source_dls(read_source(folder), 32), twins=30).twins == 30
    make = lambda **kw: FeatureFolds(source_dls(read_source(folder), 32), image_size=48, features_cache=features, rounds=1, **kw).predictions()
    p, apart = make(), make(twins=False)
    at = {o: i for i, o in enumerate(p.items)}
    copies = [o for o in p.items if 'copy' in o]
    for c in copies:
        first = '0/' + c.split('copy-')[1]
        assert p.extra.twin[at[c]] == first and p.extra.twin[at[first]] == c and p.fold[at[c]] == p.fold[at[first]]
    assert p.extra.twin.notna().sum() == 10 and p.extra.outlier_score.between(0, 1).all()
    assert 'twin' not in apart.extra and any(apart.fold[at[c]] != apart.fold[at['0/' + c.split('copy-')[1]]] for c in copies)
    issues = find_label_issues(p)
    assert len(conflicting_twins(issues)) == 5

def test_groups_of_the_user_are_joined_with_twins(folder, features):
    src = read_source(folder)
    mine = np.arange(len(src)); mine[[0, 100]] = 0      # the first zero, which has a copy, and another item
    p = FeatureFolds(source_dls(src, 32), image_size=48, features_cache=features, rounds=1, groups=list(mine)).predictions()
    copy = list(p.items).index('1/copy-' + p.items[0].split('/')[1])
    assert p.fold[0] == p.fold[100] == p.fold[copy]

def test_a_twin_in_another_split_is_predicted_by_the_fold_that_has_not_seen_it(folder, features, tmp_path):
    src = read_source(folder)
    d = pd.DataFrame(dict(path=src.files(), label=src.frame.given_label, is_valid=['copy' in str(o) for o in src.files()]))
    d.to_csv(tmp_path/'t.csv', index=False)
    kf = FeatureFolds(source_dls(read_source(tmp_path/'t.csv', item_col='path', label_col='label'), 32), image_size=48, rounds=1).fit()
    p = kf.predictions()
    train, other = np.flatnonzero(kf.train), np.flatnonzero(~kf.train)
    assert len(other) == 5
    for j, i in enumerate(other):
        twin = list(p.items).index(p.extra.twin[i])
        assert p.fold[twin] == kf.twin[j] >= 0
        assert np.allclose(p.pred_probs[i], kf._fold(kf.twin[j])['other'][j], atol=1e-5)

def test_copies_in_masses_stop_nothing(tmp_path):
    for k, im in enumerate(smooth(3, np.random.default_rng(0))):
        for c in 'ab':
            (tmp_path/c).mkdir(exist_ok=True)
            for i in range(10): im.save(tmp_path/c/f'{k}-{i}.png')
    p = FeatureFolds(source_dls(read_source(tmp_path), 32), image_size=48, rounds=1).predictions()      # three different pictures for five folds
    assert len(p) == 60 and p.extra.twin.notna().all() and set(p.fold) == set(range(5))

@photos_needed
def test_planted_twins_of_photographs():
    from fastclean.features import image_features, load_backbone
    from fastclean.kernelmap import KernelMap
    ims = [Image.open(f).convert('RGB') for f in sorted(PHOTOS.rglob('*.JPEG'))[::16]]
    change = (lambda o: saved(o, 65), lambda o: ImageEnhance.Brightness(o).enhance(1.2), lambda o: o.crop((6, 5, *o.size)))
    n, every = len(ims), ims + [change[i % 3](ims[i]) for i in range(30)]
    f, _ = image_features(lambda i: every[i], len(every), load_backbone(), size=96)
    x = f.astype(np.float32)
    d = find_twins(KernelMap().fit(x).reduce(x), compare=Pictures(lambda i: every[i], len(every), x[:, -256:].reshape(-1, 16, 16)))
    planted = {(i, n + i) for i in range(30)}
    assert len(pairs_of(d) & planted) >= 29 and len(pairs_of(d) - planted) <= 1

# Datalab

def test_to_datalab_says_what_is_missing(monkeypatch):
    real = builtins.__import__
    def missing(name, *a, **k):
        if name.startswith('cleanlab.datalab') or name == 'datasets': raise ImportError("No module named 'datasets'", name='datasets')
        return real(name, *a, **k)
    monkeypatch.setattr(builtins, '__import__', missing)
    with pytest.raises(ImportError, match=r"datasets is missing. Install it with: pip install 'cleanlab\[datalab\]'") as e: to_datalab(Predictions.from_arrays([0, 1], np.eye(2)))
    assert '\n' not in str(e.value)

def test_to_datalab_leaves_out_what_has_no_label():
    pytest.importorskip('datasets')
    rng = np.random.default_rng(0)
    y = np.resize([0, 1, 3, -1], 200)      # class 2 has no item
    p = np.full((200, 4), .1); p[np.arange(200), np.maximum(y, 0)] = .7
    lab = to_datalab(Predictions.from_arrays(y, p, list('wxyz')), rng.normal(size=(200, 5)))
    assert len(lab.get_issues()) == 150 and 'label' in set(lab.get_issue_summary().issue_type)
    with pytest.raises(ValueError, match='none of the items has a label'): to_datalab(Predictions.from_arrays([-1, -1], np.eye(2)))
    with pytest.raises(ValueError, match='features has 3 rows for 200 items'): to_datalab(Predictions.from_arrays(y, p), np.zeros((3, 2)))

"""How many planted near duplicates are found, what else is called one, and what grouping them does for the labels.

`python benchmarks/duplicates.py [--sets cats_dogs imagenette cifar10 mnist] [--n 5000] [--planted 500] [--seed 0]`: takes n images of a set, saves changed copies of some of them in a
temporary folder (a third each: JPEG at quality 60 to 90; moved by 1 to 5 % in both directions, the margin black, continued or cut off; 10 to 25 % brighter or darker), makes 10 % of all
labels wrong and those of every planted pair: half of the pairs share a wrong label, in the other half one of the two is wrong. Then runs `FeatureFolds` with and without `twins` and
adds a row to benchmarks/duplicates.csv. What was called a twin and not planted is drawn into a picture, WORK/SET-others.png; pairs that a look at it showed to be real twins are in
benchmarks/duplicates_seen.csv and count as right. `--outliers` plants MNIST digits under random labels instead, and compares `outlier_score` with cleanlab's
`OutOfDistribution` (rows in benchmarks/outliers.csv): on all features, on the backbone's last layer alone, and on the probabilities.
The data are those in fastai's data folder.
"""
import argparse, contextlib, os, tempfile, time, warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance
from sklearn.metrics import roc_auc_score

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
OUT, OUTLIERS, SEEN = (Path(__file__).with_name(o) for o in ('duplicates.csv', 'outliers.csv', 'duplicates_seen.csv'))
FOLDERS = dict(cats_dogs='cats_dogs/training_set', imagenette='imagenette2-160/train', cifar10='cifar10/train', mnist='mnist_png/training')
KINDS = ('jpeg', 'shift', 'bright')

def some_images(name, n, seed):
    "Images of a set, drawn at random."
    files = sorted(f for f in (DATA/FOLDERS[name]).rglob('*.*') if f.suffix.lower() in ('.png', '.jpg', '.jpeg'))
    return [files[i] for i in np.random.default_rng(seed).permutation(len(files))[:n]]

def moved(im, dx, dy, margin):
    "A picture moved within its frame."
    w, h = im.size
    if margin == 'cut': return im.crop((max(dx, 0), max(dy, 0), w + min(dx, 0), h + min(dy, 0)))
    a = np.asarray(im)
    a = np.pad(a, ((abs(dy),)*2, (abs(dx),)*2) + ((0, 0),)*(a.ndim - 2), mode='edge' if margin == 'edge' else 'constant')
    return Image.fromarray(a[abs(dy) + dy:, abs(dx) + dx:][:h, :w])

def changed(im, kind, rng):
    "A near duplicate and the JPEG quality to save it with."
    if im.mode not in ('L', 'RGB'): im = im.convert('RGB')
    if kind == 'bright': im = ImageEnhance.Brightness(im).enhance(1 + rng.choice([-1, 1])*rng.uniform(.1, .25))
    by = lambda o: int(rng.choice([-1, 1])*max(1, round(o*rng.uniform(.01, .05))))
    if kind == 'shift': im = moved(im, by(im.width), by(im.height), str(rng.choice(['black', 'edge', 'cut'])))
    return im, int(rng.integers(60, 91)) if kind == 'jpeg' else 95

def flip(y, K, rng): return (y + rng.integers(1, K, len(y))) % K

def planted(name, n, m, seed, work):
    "A table of path, given and true label, pair and kind; a pair has one number."
    files, rng = some_images(name, n, seed), np.random.default_rng(seed + 1)
    at = rng.choice(len(files), m, replace=False)
    copies = []
    for j, i in enumerate(at):
        im, quality = changed(Image.open(files[i]), KINDS[j % 3], rng)
        copies.append(work/f'{name}-{seed}-{j:04d}.jpg')
        im.save(copies[-1], 'JPEG', quality=quality)
    label = [f.parent.name for f in files]
    vocab = sorted(set(label))
    y = np.array([vocab.index(o) for o in label])
    given = np.where(rng.random(n) < .1, flip(y, len(vocab), rng), y)
    given[at] = flip(y[at], len(vocab), rng)
    copy = np.where(np.arange(m)//3 % 2 == 0, given[at], y[at])   # shared, or one of the two
    swap = rng.random(m) < .5
    given[at], copy = np.where(swap, copy, given[at]), np.where(swap, given[at], copy)
    pair = np.full(n, -1); pair[at] = np.arange(m)
    return pd.DataFrame(dict(path=list(map(str, files + copies)), label=[vocab[k] for k in np.r_[given, copy]], true_label=[vocab[k] for k in np.r_[y, y[at]]],
                             pair=np.r_[pair, np.arange(m)], kind=np.r_[np.full(n, ''), np.resize(KINDS, m)]))

def folds(d, work, name, seed, **kwargs):
    "`FeatureFolds` on a table."
    from fastclean.data import read_source
    from fastclean.featurefolds import FeatureFolds
    from fastclean.loaders import source_dls
    csv = work/f'{name}.csv'
    d[['path', 'label']].to_csv(csv, index=False)
    return FeatureFolds(source_dls(read_source(csv, item_col='path', label_col='label'), 160), features_cache=work/'features', seed=seed, **kwargs)

def f1(wrong, found): return round(float(2*(wrong & found).sum()/(wrong.sum() + found.sum())), 4)

def short(path): return '/'.join(Path(path).parts[-2:])

def draw(pairs, files, path, side=96, across=8):
    "Pairs side by side."
    im = Image.new('RGB', (across*(2*side + 8), max(1, -(-len(pairs)//across))*(side + 14)), 'white')
    for q, (a, b, d) in enumerate(pairs):
        x, y = q % across*(2*side + 8), q//across*(side + 14)
        for z, i in enumerate((a, b)): im.paste(Image.open(files[i]).convert('RGB').resize((side, side)), (x + z*side, y))
        ImageDraw.Draw(im).text((x, y + side), f'{q}  {d:.3f}', fill='black')
    im.save(path)

def run(name, n, m, seed, work):
    "One set: a row of figures."
    from fastclean.issues import find_label_issues
    d = planted(name, n, m, seed, work)
    kf, start = folds(d, work, name, seed), time.time()
    kf._read()
    with contextlib.ExitStack() as stack: kf._features(stack, kf.datasets, kf._names)
    seconds = round(time.time() - start, 1)
    row, wrong, inside = dict(set=name, seed=seed, n=n, planted=m, seconds_features=seconds), (d.label != d.true_label).to_numpy(), (d.pair >= 0).to_numpy()
    for twins in (False, True):
        start = time.time()
        kf = folds(d, work, name, seed, twins=twins)
        issues = find_label_issues(kf.predictions()).set_index('item')
        seconds = time.time() - start
        found = issues.loc[kf.items, 'is_label_issue'].to_numpy()
        key = 'grouped' if twins else 'apart'
        row |= {f'f1_{key}': f1(wrong, found), f'f1_pairs_{key}': f1(wrong[inside], found[inside]), f'seconds_{key}': round(seconds, 1)}
    start = time.time(); kf._find_twins(); row['seconds_twins'] = round(time.time() - start, 1)
    called = {(a, b): dist for a, b, dist in kf.pairs.itertuples(index=False)}
    origin = {p: i for i, p in enumerate(d.pair[:n]) if p >= 0}
    true = {(origin[p], n + p): k for p, k in enumerate(d.kind[n:])}
    seen = pd.read_csv(SEEN) if SEEN.exists() else pd.DataFrame(columns=['set', 'a', 'b'])
    real = {frozenset(o) for o in seen[seen.set == name][['a', 'b']].itertuples(index=False)}
    back = lambda i: origin[i - n] if i >= n else i
    others = [(a, b) for a, b in called if (a, b) not in true]
    right = [o for o in others if frozenset(short(d.path[back(i)]) for i in o) in real]
    draw([(a, b, called[a, b]) for a, b in others], list(d.path), work/f'{name}-others.png')
    pd.DataFrame([dict(set=name, a=short(d.path[back(a)]), b=short(d.path[back(b)])) for a, b in others]).to_csv(work/f'{name}-others.csv')
    hit = set(true) & set(called)
    row |= dict(recall=round(len(hit)/m, 4), **{f'recall_{k}': round(float(np.mean([o in hit for o, kk in true.items() if kk == k])), 4) for k in KINDS}, called=len(called), others=len(others), others_real=len(right),
                precision=round((len(hit) + len(right))/max(len(called), 1), 4), largest=int(np.bincount(kf.group).max()))
    twin = issues.loc[kf.items[n:], 'twin']
    conflict = (d.label[n:].to_numpy() != d.label.iloc[[origin[p] for p in range(m)]].to_numpy())
    row['conflicts_named'] = f'{(conflict & twin.notna().to_numpy()).sum()} of {conflict.sum()}'
    return row

def outliers(name, n, m, seed, work):
    "AUROC of planted digits."
    from cleanlab.outlier import OutOfDistribution
    files = some_images(name, n, seed) + some_images('mnist', m, seed)
    vocab, rng = sorted({f.parent.name for f in files[:n]}), np.random.default_rng(seed)
    label = [f.parent.name for f in files[:n]] + [vocab[k] for k in rng.integers(0, len(vocab), m)]
    d = pd.DataFrame(dict(path=list(map(str, files)), label=label))
    kf = folds(d, work, f'{name}-{m}-digits', seed)
    p, strange = kf.predictions(), np.arange(n + m) >= n
    x = kf.features.astype(np.float32)
    start = time.time(); theirs = OutOfDistribution().fit_score(features=x, verbose=False); seconds = time.time() - start
    last = OutOfDistribution().fit_score(features=x[:, -1536:-256], verbose=False)   # EfficientNet-Lite0's 1,280, before the thumbnail
    probs = OutOfDistribution().fit_score(pred_probs=p.pred_probs, labels=p.given_label, verbose=False)
    ours = p.extra.outlier_score.to_numpy()
    return dict(set=f'{name} + {m} digits', seed=seed, n=n, planted=m, auroc=round(roc_auc_score(strange, -ours), 4), auroc_cleanlab=round(roc_auc_score(strange, -theirs), 4),
                auroc_cleanlab_last=round(roc_auc_score(strange, -last), 4), auroc_cleanlab_probs=round(roc_auc_score(strange, -probs), 4), below_half=int((ours < .5).sum()), below_half_planted=int((ours[strange] < .5).sum()), seconds_cleanlab=round(seconds, 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='*', default=list(FOLDERS), choices=list(FOLDERS))
    p.add_argument('--n', type=int, default=5000, help='images of each set, at most')
    p.add_argument('--planted', type=int, default=500)
    p.add_argument('--outliers', action='store_true')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--work', type=Path, default=Path(tempfile.gettempdir())/'fastclean-duplicates')
    a = p.parse_args()
    warnings.filterwarnings('ignore')
    a.work.mkdir(parents=True, exist_ok=True)
    for name in a.sets:
        n = min(a.n, len(some_images(name, a.n, a.seed)))
        row = (outliers if a.outliers else run)(name, n, a.planted, a.seed, a.work)
        out = OUTLIERS if a.outliers else OUT
        rows = pd.read_csv(out).to_dict('records') if out.exists() else []
        rows = [r for r in rows if (r['set'], r['seed'], r['planted']) != (row['set'], row['seed'], row['planted'])] + [row]
        pd.DataFrame(rows).sort_values(['set', 'seed']).to_csv(out, index=False)
        print(row, flush=True)

if __name__ == '__main__': main()

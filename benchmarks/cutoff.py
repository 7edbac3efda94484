"""How many labels are wrong: the cut-off of `find_label_issues` beside cleanlab's, over a grid of data sets, kinds of noise and models.

    python benchmarks/cutoff.py make  [--sets mnist …] [--models features-3 …] [--seeds 0 1 2]    # out-of-fold probabilities, kept in --work; goes on where it was stopped
    python benchmarks/cutoff.py score [--sets …] [--again]                                         # every rule on what is not yet scored (on all), rows into benchmarks/cutoff.csv
    python benchmarks/cutoff.py table                                                              # the summary of the rows

Sets: digits (scikit-learn's 1,797), mnist (3,000 items), and 5,000 each of cifar10-a (index 0 to 24,999), imagenette and cifar10-b (25,000 to 49,999). The rule was chosen on
digits, mnist and cifar10-a; imagenette and cifar10-b are there to report on. Noise: none, symmetric, pair, sparse, margin, and the human labels of CIFAR-10.
Models: frozen features in one round and in three, the ridge heads of one round without neighbours, and, on digits and mnist, a small network, the same with label
smoothing, and the same over-trained. The data are those that fastai's `untar_data` gives; nothing of them is written here.
"""
import argparse, os, time, warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
HERE = Path(__file__).parent
SETS = ['digits', 'mnist', 'cifar10-a', 'imagenette', 'cifar10-b']
TUNED, REPORTED = SETS[:3], SETS[3:]
NOISE = ['clean', 'symmetric-.05', 'symmetric-.2', 'symmetric-.4', 'pair-.2', 'sparse-.2', 'margin-.2', 'human']
MODELS = ['features-1', 'features-3', 'heads-1', 'small', 'smooth', 'over']

# ---- data
def items(name, work):
    "Paths, true labels and human labels (None where there are none) of a set."
    if name == 'digits':
        from fastclean.data import digits_sample
        files = sorted(digits_sample(work/'digits').rglob('*.png'))
        return files, [f.parent.name for f in files], None
    if name.startswith('cifar10'):
        d = pd.read_csv(DATA/'cifar10'/'human_labels.csv')
        d = d.iloc[:25_000] if name.endswith('a') else d.iloc[25_000:]
        d = d.iloc[np.sort(np.random.default_rng(0).permutation(len(d))[:5_000])]
        return [DATA/'cifar10'/o for o in d.path], list(d.true_label), list(d.human_label)
    root = DATA/('mnist_png/training' if name == 'mnist' else 'imagenette2-160/train')
    files = sorted(o for o in root.rglob('*') if o.suffix.lower() in ('.png', '.jpeg', '.jpg'))
    files = [files[i] for i in np.sort(np.random.default_rng(0).permutation(len(files))[:3_000 if name == 'mnist' else 5_000])]
    return files, [f.parent.name for f in files], None

def noisy(name, noise, seed, work):
    "Files, true and given class numbers, vocab; None where a set has no such labels."
    from fastclean import noise as N
    files, true, human = items(name, work)
    vocab = sorted(set(true)); number = {v: k for k, v in enumerate(vocab)}
    y = np.array([number[o] for o in true])
    if noise == 'human': return None if human is None else (files, y, np.array([number[o] for o in human]), vocab)
    if noise == 'clean': return files, y, y.copy(), vocab
    kind, rate = noise.split('-'); rate = float(rate)
    if kind == 'margin':
        model = N.MarginNoise(rate, pred_probs=clean_probs(name, work))
    else: model = dict(symmetric=N.SymmetricNoise, pair=N.PairNoise, sparse=lambda r: N.SparseNoise(r, sparsity=.6, matrix_seed=seed))[kind](rate)
    return files, y, model(y, [f.name for f in files], vocab, seed), vocab

def clean_probs(name, work):
    "Out-of-fold probabilities of a model of the clean labels: what margin noise takes its margins from."
    f = cell_file(work, name, 'clean', 0, 'heads-1')
    if not f.exists(): make(name, 'clean', 0, 'heads-1', work)
    return np.load(f)['p']

# ---- models
def image_dls(files, y, vocab, work):
    "DataLoaders as the command line makes them."
    from fastclean.data import Source
    from fastclean.loaders import source_dls
    frame = pd.DataFrame(dict(item=[f'{i:05}' for i in range(len(files))], path=[os.fspath(f) for f in files], given_label=[vocab[k] for k in y], split='train'))
    frame['group'] = np.arange(len(frame))
    return source_dls(Source(root=work, frame=frame, vocab=list(vocab), kind='image', settings={}), 160)

def features(files, y, vocab, seed, work, name, **kw):
    "Frozen EfficientNet-Lite0."
    from fastclean.featurefolds import FeatureFolds
    p = FeatureFolds(image_dls(files, y, vocab, work), seed=seed, features_cache=work/'features', tag=name, **kw).predictions()
    if len(p) != len(y): raise ValueError(f'{name}: {len(p)} of {len(y)} items were predicted')
    return p.pred_probs

def network(files, y, vocab, seed, work, name, smooth=0., epochs=8, dropout=.2):
    "A small network on the pixels, in the fold loop of fastai."
    import torch
    from fastai.basics import Learner, Categorize, Datasets, CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
    from fastai.layers import ConvLayer, Flatten
    from PIL import Image
    from torch import nn
    from fastclean.kfold import KFoldLearner
    x = torch.stack([torch.from_numpy(np.array(Image.open(f).convert('L').resize((28, 28)), dtype=np.float32)/255) for f in files])[:, None]
    def net(dls):
        model = nn.Sequential(ConvLayer(1, 16, stride=2), ConvLayer(16, 32, stride=2), ConvLayer(32, 64, stride=2), nn.AdaptiveAvgPool2d(2), Flatten(), nn.Dropout(dropout), nn.Linear(256, len(vocab)))
        return Learner(dls, model, loss_func=LabelSmoothingCrossEntropyFlat(eps=smooth) if smooth else CrossEntropyLossFlat())
    dls = Datasets(list(range(len(y))), [[x.__getitem__], [lambda i: vocab[y[i]], Categorize(vocab=vocab)]], splits=[list(range(len(y))), []]).dataloaders(bs=128, val_bs=1000, num_workers=0)
    def fit(learn):
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 6e-3)
    return KFoldLearner(dls, net, seed=seed).run(fit).predictions().pred_probs

RUN = {'features-1': partial(features, rounds=1), 'features-3': partial(features, rounds=3), 'heads-1': partial(features, rounds=1, neighbours=0),
       'small': network, 'smooth': partial(network, smooth=.1), 'over': partial(network, epochs=20, dropout=0.)}

# ---- make
def cell_file(work, name, noise, seed, model): return work/'cells'/f'{name}_{noise}_{seed}_{model}.npz'

def make(name, noise, seed, model, work):
    "Out-of-fold probabilities of one cell, saved with labels and truth."
    got = noisy(name, noise, seed, work)
    if got is None: return
    files, true, y, vocab = got
    start, f = time.time(), cell_file(work, name, noise, seed, model)
    p = RUN[model](files, y, vocab, seed, work, name)
    f.parent.mkdir(parents=True, exist_ok=True)
    part = f.with_suffix('.part.npz')
    np.savez(part, p=p.astype(np.float32), y=y, true=true, seconds=time.time() - start)
    os.replace(part, f)
    print(f'{f.stem}: {time.time() - start:.0f} s, agrees with the truth {np.mean(p.argmax(1) == true):.3f}', flush=True)

def cells(a):
    "Names, noise, seeds and models that were asked for, and that there can be."
    for seed in a.seeds:
        for noise in a.noise:
            for name in a.sets:
                for model in a.models:
                    if model in MODELS[3:] and name not in ('digits', 'mnist'): continue
                    if noise == 'human' and not name.startswith('cifar10'): continue
                    yield name, noise, seed, model

# ---- score
CLEANLAB = ['prune_by_noise_rate', 'prune_by_class', 'both', 'confident_learning', 'predicted_neq_given', 'low_normalized_margin', 'low_self_confidence']

def f1(flag, wrong): return 2*(flag & wrong).sum()/max(flag.sum() + wrong.sum(), 1)

def best_threshold(score, wrong):
    "F1 of the best cut through a ranking: nobody without the truth can do better with it."
    hit = np.cumsum(wrong[np.argsort(score, kind='stable')])
    return (2*hit/(np.arange(1, len(hit) + 1) + wrong.sum())).max() if wrong.any() else np.nan

def score(f):
    "Rows of one cell: what each rule flags, and how good that is."
    from cleanlab.filter import find_label_issues as cleanlab
    from fastclean.core import Predictions
    from fastclean.health import noise_interval
    from fastclean.issues import find_label_issues, given_posterior
    from fastclean.transition import GRID, _voices, confident_joint, plausible_sharpening
    d = np.load(f); p, y, wrong = d['p'], d['y'], d['y'] != d['true']
    name, noise, seed, model = f.stem.split('_')
    common = dict(set=name, noise=noise, seed=int(seed), model=model, n=len(y), wrong=int(wrong.sum()), accuracy=round(float((p.argmax(1) == d['true']).mean()), 4), disagree=int((p.argmax(1) != y).sum()))
    preds = Predictions.from_arrays(y, p)
    s, rate, post = plausible_sharpening(preds), noise_interval(preds), given_posterior(preds)
    def row(rule, flag, **more): return dict(common, rule=rule, flagged=int(flag.sum()), hit=int((flag & wrong).sum()), f1=round(f1(flag, wrong), 4) if wrong.any() else None, **more)
    flag = post.given.to_numpy() < .5
    sure = flag & (post[['timid', 'bold']].max(axis=1).to_numpy() < .5)
    rows = [row('posterior', flag, power=round(s.best, 3), rate=round(rate['rate'], 4), low=round(rate['low'], 4), high=round(rate['high'], 4), obvious=int(sure.sum()), obvious_hit=int((sure & wrong).sum()))]
    lik, count, _ = _voices(y, p, np.full(len(y), -1)); C = confident_joint(y, p)
    counted = float(np.exp(np.interp(C.sum() - np.trace(C), count + 1e-6*np.arange(len(GRID)), np.log(GRID))))
    for rule, t in (('power 1', 1.), ('power 1.5', 1.5), ('power 2', 2.), ('power 2.5', 2.5), ('power 3', 3.), ('likelihood', float(GRID[lik.argmax()])), ('confident joint', counted)):
        rows.append(row(rule, given_posterior(preds, t).given.to_numpy() < .5, power=round(t, 3)))
    for rule in CLEANLAB: rows.append(row(f'cleanlab {rule}', cleanlab(y, p, filter_by=rule, n_jobs=1)))
    best = best_threshold(post.given.to_numpy(), wrong)
    return rows + [dict(common, rule='best threshold', f1=round(best, 4) if wrong.any() else None)]

def table(d, sets):
    "The summary: mean F1 by rule and model, and every target that a rule has to meet."
    d = d[d['set'].isin(sets)]
    noisy, clean = d[d.noise != 'clean'], d[d.noise == 'clean']
    cell = ['set', 'noise', 'model']
    mean = noisy.groupby(['rule', *cell])[['f1', 'wrong']].mean().reset_index()
    out = mean.pivot_table(index='rule', columns='model', values='f1')
    out.insert(0, 'all', mean.groupby('rule').f1.mean())
    base = mean[mean.rule == 'cleanlab prune_by_noise_rate'].set_index(cell).f1
    gap = mean.assign(gap=mean.f1 - mean.set_index(cell).index.map(base))
    out['worst gap'] = gap.groupby('rule').gap.min()
    out['cells below'] = gap.assign(bad=(gap.gap < -.01) & (gap.wrong >= 500) | (gap.gap < -.02)).groupby('rule').bad.sum()
    c = clean.groupby(['rule', 'set', 'model'])[['flagged', 'accuracy', 'disagree', 'n']].mean()
    out['clean over'] = (c.flagged/np.where(c.accuracy >= .97, .01*c.n, c.disagree/3)).groupby('rule').max()   # 1: just what is allowed
    print(out.sort_values('all', ascending=False).round(3).to_string())
    o = d[d.rule == 'posterior']
    held = (o.low <= o.wrong/o.n) & (o.wrong/o.n <= o.high)
    print(f"interval: {held.mean():.1%} of {len(o)} cells; by noise {held.groupby(o.noise).mean().round(2).to_dict()}; mean width {(o.high - o.low).mean():.3f}")
    o = o[o.noise != 'clean']
    print(f"obvious: {o.obvious.sum():,} of {o.flagged.sum():,}, precision {o.obvious_hit.sum()/o.obvious.sum():.3f}; possible: precision {(o.hit - o.obvious_hit).sum()/(o.flagged - o.obvious).sum():.3f}")

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['make', 'score', 'table'])
    p.add_argument('--sets', nargs='*', default=SETS); p.add_argument('--noise', nargs='*', default=NOISE)
    p.add_argument('--models', nargs='*', default=MODELS); p.add_argument('--seeds', nargs='*', type=int, default=range(3))
    p.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-cutoff').expanduser(), help='where probabilities and features are kept')
    p.add_argument('--again', action='store_true', help='score cells anew that are in the table')
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.what == 'make':
        warnings.simplefilter('ignore')
        for c in cells(a):
            if not cell_file(a.work, *c).exists(): make(*c, a.work)
    if a.what == 'score':
        warnings.simplefilter('ignore')
        out = HERE/'cutoff.csv'
        rows = [] if a.again or not out.exists() else pd.read_csv(out).to_dict('records')
        done = {(r['set'], r['noise'], r['seed'], r['model']) for r in rows}
        for c in cells(a):
            if c in done or not (f := cell_file(a.work, *c)).exists(): continue
            rows += score(f)
            pd.DataFrame(rows).sort_values(['set', 'noise', 'seed', 'model'], kind='stable').to_csv(out, index=False)
    if a.what != 'make':
        d = pd.read_csv(HERE/'cutoff.csv')
        for title, sets in (('chosen on', TUNED), ('reported on', REPORTED)):
            if d['set'].isin(sets).any(): print(f"\n{title} {', '.join(sets)}"); table(d, sets)

if __name__ == '__main__': main()

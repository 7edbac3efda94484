"""Out-of-fold predictions three ways, in one run: the loop of fastai tutorials, `KFoldLearner` and `FeatureFolds`.

    python benchmarks/speed.py [--n 2000] [--size 160] [--ways loop kfold kfold loop features]
    python benchmarks/speed.py --kind text --ways loop features      # tweets; --kind table: scikit-learn's digits
    python benchmarks/speed.py --kind pass                           # the frozen backbone alone, beside a plain loader
    python benchmarks/speed.py --paired --n 150 --size 64     # loop and KFoldLearner fold by fold in turn, processor's seconds: what a busy machine does not blur

Images of Imagenette, one label in ten wrong; the same backbone (EfficientNet-Lite0, pretrained), image size and folds for all. The loop makes a fresh learner for each fold, calls `fine_tune(2)` and
`get_preds` (for texts `text_classifier_learner` with an AWD-LSTM and no language model before it, for tables `tabular_learner` for five epochs); `KFoldLearner` does the same through its own machinery; `FeatureFolds` is fastclean's default, rounds included, features computed in its time. Prints seconds, ratio, average precision and F1;
the loop comes before and after `KFoldLearner`, so that a machine that grows slower or busier is fair to both, and the processor's seconds, threads together, stand beside those of the clock.
"""
import argparse, os, tempfile, time, warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from fastai.tabular.all import *
from fastai.text.all import *
from fastai.vision.all import *
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold

from fastclean.core import Predictions
from fastclean.featurefolds import FeatureFolds
from fastclean.features import image_features, load_backbone
from fastclean.folds import FoldCache
from fastclean.foldtask import FitCall, FoldJob, run_fold
from fastclean.issues import find_label_issues
from fastclean.kfold import KFoldLearner
from fastclean.noise import SymmetricNoise
from fastclean.parts import read_parts

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'

def flipped(d, names):
    "Labels of which one in ten is wrong, beside the true ones."
    vocab = sorted(d.label.unique())
    y = SymmetricNoise(.1)(np.array([vocab.index(o) for o in d.label]), names, vocab, 0)
    return d.assign(label=[vocab[k] for k in y], true=d.label)

def frame(n):
    "Paths, given and true labels."
    files = sorted((DATA/'imagenette2-160'/'train').rglob('*.JPEG'))
    files = [files[i] for i in np.sort(np.random.default_rng(0).permutation(len(files))[:n])]
    return flipped(pd.DataFrame(dict(file=list(map(str, files)), label=[f.parent.name for f in files])), [f.name for f in files])

def dataloaders(d, size, valid=None):
    return ImageDataLoaders.from_df(d.assign(valid=False if valid is None else valid), path='/', fn_col='file', label_col='label', valid_col='valid' if valid is not None else None, valid_pct=0,
                                    item_tfms=Resize(size, method='squish'), bs=32, num_workers=0)

def learner(dls):
    "The backbone with a new classifier, in two groups, as `vision_learner` makes them."
    body = load_backbone().model.requires_grad_(True)
    model = nn.Sequential(body, nn.Sequential(nn.Dropout(.2), nn.Linear(body.num_features, dls.c)))
    return Learner(dls, model, splitter=lambda m: [params(m[0]), params(m[1])], loss_func=CrossEntropyLossFlat(), metrics=accuracy)

def quietly(learn):
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(2)

def loop(d, dls_of, learner_of, fit):
    "The loop of the tutorials."
    p = np.zeros((len(d), d.label.nunique()), np.float32)
    for _, held in StratifiedKFold(5, shuffle=True, random_state=0).split(d, d.label):
        valid = np.zeros(len(d), bool); valid[held] = True
        learn = learner_of(dls_of(d, valid))
        with learn.no_bar(), learn.no_logging(): fit(learn); p[held] = learn.get_preds()[0].numpy()
    return p

def in_order(preds): return preds.pred_probs[np.argsort(preds.items.astype(int))]   # fastai's splitter shuffles; items are named by the frame's index

WAYS = dict(loop=lambda d, size: loop(d, lambda d, valid: dataloaders(d, size, valid), learner, quietly), kfold=lambda d, size: in_order(KFoldLearner(dataloaders(d, size), learner).run(quietly).predictions()),
            features=lambda d, size: in_order(FeatureFolds(dataloaders(d, size), image_size=size).predictions()))

# Texts and tables: what fastai's tutorials do, and the default mode.

def tweets(n):
    d = pd.read_csv(DATA/'covid19tweet'/'train.tsv', sep='\t', quoting=3, dtype=str).rename(columns={'Text': 'text', 'Label': 'label'})[['text', 'label']]
    return flipped(d.sample(n, random_state=0).reset_index(drop=True), [str(i) for i in range(n)])

def columns(n):
    from sklearn.datasets import load_digits
    d = load_digits(as_frame=True)
    n = min(n, len(d.data))
    return flipped(d.data.assign(label=d.target.astype(str)).sample(n, random_state=0).reset_index(drop=True), [str(i) for i in range(n)])

def text_dls(d, valid=None): return TextDataLoaders.from_df(d.assign(valid=False if valid is None else valid), text_col='text', label_col='label', valid_col=None if valid is None else 'valid', valid_pct=0, bs=64, num_workers=0)

def table_dls(d, valid=None):
    return TabularDataLoaders.from_df(d.drop(columns='true'), procs=[Categorify, FillMissing, Normalize], cont_names=[c for c in d if c not in ('label', 'true')], y_names='label', y_block=CategoryBlock(),
                                      valid_idx=[] if valid is None else list(np.flatnonzero(valid)), bs=64, num_workers=0)

OTHERS = dict(
    text=(tweets, dict(loop=lambda d, size: loop(d, text_dls, lambda dls: text_classifier_learner(dls, AWD_LSTM, pretrained=False), lambda learn: learn.fine_tune(2)),
                       features=lambda d, size: in_order(FeatureFolds(text_dls(d), texts=d.text).predictions()))),
    table=(columns, dict(loop=lambda d, size: loop(d, table_dls, tabular_learner, lambda learn: learn.fit_one_cycle(5)), features=lambda d, size: in_order(FeatureFolds(table_dls(d)).predictions()))))

def one_pass(d, size):
    "The backbone over all images: as `image_features` does it, and in batches of a fastai loader."
    net = load_backbone()
    def plain():
        dl = dataloaders(d, size).test_dl(d, bs=64)
        mean, std = (torch.tensor(o).view(1, -1, 1, 1) for o in (net.mean, net.std))
        with torch.no_grad(): return np.concatenate([net.model((x - mean)/std).numpy() for x, *_ in dl])
    ways = dict(features=lambda: image_features(lambda i: Image.open(d.file[i]), len(d), net, size), loop=plain)
    for way in ('features', 'loop', 'features', 'loop'):
        start, cpu = time.perf_counter(), time.process_time(); ways[way](); seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(dict(way=way, seconds=round(seconds, 1), cpu=round(cpu, 1), ap=0, f1=0), flush=True)

def paired(d, size, rounds=2):
    "Processor's seconds of each fold in the loop and in `KFoldLearner`, in turn; reading the items and looking at the learner, which `KFoldLearner` does once, are in its sum."
    dls, seconds = dataloaders(d, size), dict(loop=0., kfold=0.)
    def timed(way, f):
        start = time.process_time(); f(); seconds[way] += time.process_time() - start
    def once():
        parts = read_parts(dls)
        job.ok = [p.ok for p in parts]
        kf._look(job)
    def loop_fold(valid):
        learn = learner(dataloaders(d, size, valid)); quietly(learn)
        with learn.no_bar(): learn.get_preds()
    kf = KFoldLearner(dls, learner)
    with tempfile.TemporaryDirectory() as t:
        job = FoldJob(dls, learner, kf.fold, [], kf.vocab, FitCall('run', (quietly,)), 42, cache=FoldCache(Path(t)/'cache', dict(kind='speed')))
        with job.cache.open():
            for r in range(rounds):
                timed('kfold', once)
                for f in range(5):
                    both = [('loop', lambda: loop_fold(kf.fold == f)), ('kfold', lambda: run_fold(job, f))]
                    for way, run in both if (f + r) % 2 else both[::-1]: timed(way, run)
                    print(f'round {r + 1}, fold {f + 1}:', {k: round(v, 1) for k, v in seconds.items()}, flush=True)
    print(f"KFoldLearner takes {seconds['kfold']/seconds['loop']:.3f} of the loop's time")

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--n', type=int, default=2000); a.add_argument('--size', type=int, default=160); a.add_argument('--ways', nargs='*', default='loop kfold kfold loop features'.split())
    a.add_argument('--paired', action='store_true')
    a.add_argument('--kind', default='image', choices=['image', 'text', 'table', 'pass'])
    a = a.parse_args()
    warnings.simplefilter('ignore')
    if a.kind == 'pass': return one_pass(frame(a.n), a.size)
    of, ways = OTHERS.get(a.kind, (frame, WAYS))
    d = of(a.n); vocab = sorted(d.label.unique())
    if a.paired: load_backbone(); return paired(d, a.size)
    y, wrong = np.array([vocab.index(o) for o in d.label]), (d.label != d.true).to_numpy()
    rows = []
    if a.kind == 'image': load_backbone()
    for way in a.ways:
        start, cpu = time.perf_counter(), time.process_time(); p = ways[way](d, a.size); seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        found = find_label_issues(Predictions.from_arrays(y, p))
        flag = np.zeros(len(d), bool); flag[found['item'][found.is_label_issue].astype(int)] = True
        rows.append(dict(way=way, seconds=round(seconds, 1), cpu=round(cpu, 1), ap=round(average_precision_score(wrong, -p[np.arange(len(d)), y]), 4), f1=round(float(2*(flag & wrong).sum()/(flag.sum() + wrong.sum())), 4)))
        print(rows[-1], flush=True)
    t = pd.DataFrame(rows).groupby('way', sort=False).mean()
    if 'loop' in t.index: t['times as fast as the loop'], t['by cpu'] = (t.seconds['loop']/t.seconds).round(2), (t.cpu['loop']/t.cpu).round(2)
    print(f'{len(d):,} items ({a.kind}' + (f', {a.size} pixels' if a.kind == 'image' else '') + '), 5 folds'); print(t.to_string())

if __name__ == '__main__': main()

"""What training again on corrected labels brings: `clean_and_retrain` on data whose truth is known.

`python benchmarks/retrain.py [--cells imagenette-25 imagenette-50 cifar10-human] [--seeds 0 1 2 3 4] [--actions relabel+prune soft ...]`: for each cell, seed and
action the accuracy on validation data with right labels of a head on frozen features that is trained on the noisy, the cleaned and the true labels. Imagenette
(with noisy_imagenette.csv) is measured on its own validation images; CIFAR-10 on its 10,000 test images, trained on the first 10,000 training images with the label
that one person gave each (human_labels.csv). All from fastai's data folder. Rows go to benchmarks/retrain.csv as they come; rows that are there are not run again.
Features are kept below `--work`: the first run of a set takes minutes, the heads seconds. Settings are the defaults; nothing of them looks at validation labels.
"""
import argparse, os, time
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
OUT = Path(__file__).with_name('retrain.csv')
CELLS, ACTIONS = ['imagenette-25', 'imagenette-50', 'cifar10-human'], ['relabel+prune', 'soft', 'relabel', 'prune', 'reweight']

def table(cell):
    "Folder of a cell, and its items: path, label, true_label, is_valid."
    name, how = cell.split('-')
    if name == 'imagenette':
        root = DATA/'imagenette2-160'
        d = pd.read_csv(root/'noisy_imagenette.csv')
        return root, pd.DataFrame(dict(path=d.path, label=d[f'noisy_labels_{how}'], true_label=d.noisy_labels_0, is_valid=d.is_valid))
    root = DATA/'cifar10'
    d = pd.read_csv(root/'human_labels.csv').iloc[:10_000]
    test = sorted(o.relative_to(root).as_posix() for o in (root/'test').rglob('*.png'))
    held = pd.DataFrame(dict(path=test, label=[Path(o).parent.name for o in test], is_valid=True))
    return root, pd.concat([d.rename(columns=dict(human_label='label')).assign(is_valid=False), held.assign(true_label=held.label)], ignore_index=True)

def loaders(cell):
    "DataLoaders of a cell with its wrong labels; the truth is their `noise`."
    from fastai.vision.all import ImageDataLoaders, Resize
    from fastclean.inject import NoiseTruth
    root, d = table(cell)
    dls = ImageDataLoaders.from_df(d.set_index('path', drop=False), root, fn_col='path', label_col='label', valid_col='is_valid', item_tfms=Resize(160), num_workers=0)
    d = pd.concat([d[~d.is_valid], d[d.is_valid]], ignore_index=True)
    frame = pd.DataFrame(dict(item=d.path, split=np.where(d.is_valid, 'valid', 'train'), true_label=d.true_label, given_label=d.label, is_flipped=d.label != d.true_label))
    dls.noise = NoiseTruth(frame, list(dls.vocab), dict(model=cell), 0, 'train')
    return dls

def run(cell, seed, actions, work):
    "Rows of a cell and a seed: one training on the given and on the true labels, and one for each action."
    from fastclean.featurefolds import FeatureFolds
    from fastclean.retrain import clean_and_retrain
    dls = loaders(cell)
    start = time.time()
    folds = FeatureFolds(dls, seed=seed, features_cache=work/'features').fit()
    preds, seconds = folds.predictions(), time.time() - start
    held = preds.split == 'valid'
    acc = lambda o: round(float((o.predicted_label == o.given_label).mean()), 4)
    row = dict(cell=cell, seed=seed, folds=acc(preds[np.flatnonzero(held)]), seconds_folds=round(seconds, 1))
    base = None
    for action in actions:
        r = clean_and_retrain(dls, action=action, finder=folds, seed=seed, compare=base is None)
        t = r.table
        if base is None: base = {k: round(float(t.accuracy[k]), 4) for k in ('given', 'true')}
        c, cost = t.loc['cleaned'], base['true'] - base['given']
        got = float(c.accuracy)
        yield row | dict(action=action, n=int(c.n), wrong=round(float(c.wrong), 4)) | base | dict(cleaned=round(got, 4), short=round(base['true'] - got, 4), recovered=round((got - base['given'])/cost, 4), seconds=round(float(c.seconds), 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--cells', nargs='*', default=CELLS)
    p.add_argument('--seeds', nargs='*', type=int, default=range(5))
    p.add_argument('--actions', nargs='*', default=ACTIONS)
    p.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-benchmark').expanduser(), help='folder for features')
    a = p.parse_args()
    rows = pd.read_csv(OUT).to_dict('records') if OUT.exists() else []
    for seed in a.seeds:
        for cell in a.cells:
            todo = [o for o in a.actions if not any((r['cell'], r['seed'], r['action']) == (cell, seed, o) for r in rows)]
            for new in run(cell, seed, todo, a.work) if todo else []:
                rows.append(new)
                pd.DataFrame(rows).sort_values(['cell', 'action', 'seed']).to_csv(OUT, index=False)
                print(new, flush=True)
    d = pd.DataFrame(rows)
    print(d.groupby(['cell', 'action'])[['folds', 'given', 'cleaned', 'true', 'wrong', 'short', 'recovered']].mean().round(4).to_string())

if __name__ == '__main__': main()

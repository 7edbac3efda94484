#!/usr/bin/env python3
"""Noisy Imagenette: train on its wrong labels, find them, and write what each way of finding says.

`python experiments/train.py --noise 5,25,50` trains a head on frozen features; `--arch resnet18 --epochs 10` a network from scratch, with gradual unfreezing;
`--arch find` is what `fastclean find` does by default. For each level of noise and each filter a table is written:
`RESULTS/imagenette_labelsmoothing/posterior/noisy5_train_predictions.csv`, or `imagenette_no_labelsmoothing` with `--label-smoothing 0`. A row is a training image: its path, all label
columns, the prediction, its confidence, the score of the given label, the fold that predicted it, and whether it is marked as wrong. With `--in-sample` the same from a model that has learnt
these labels (`..._in_sample.csv`): the way not to do it. `experiments/table.py` makes a table and a chart of them. The data are fastai's `URLs.IMAGENETTE_160`; the truth is in them and is
only looked at by the table.
"""
from functools import partial
from pathlib import Path

import pandas as pd
from fastai.vision.all import *
from fastcore.script import call_parse, store_true
from fastprogress import fastprogress

from fastclean.all import *
from fastclean.core import atomic_path
from fastclean.frozen import feature_dls, feature_learner
from fastclean.training import track_with

FILTERS = dict(prune_noise_rate='prune_by_noise_rate', prune_noise_rate_class='both', posterior='posterior')   # folder: filter of find_label_issues
LOSSES = dict(ce=CrossEntropyLossFlat, gce=GeneralizedCrossEntropy, sce=SymmetricCrossEntropy, mae=MAELoss, bootstrap=BootstrapLoss)

def labels(path, n=None):
    "The table of noisy Imagenette; the training images first, and only each n-th if that is said."
    d = pd.read_csv(path/'noisy_imagenette.csv')
    d = pd.concat([d[~d.is_valid], d[d.is_valid]], ignore_index=True)
    return d if n is None else d[::n].reset_index(drop=True)

def loaders(path, d, noise, size, bs=64):
    "DataLoaders over the images with the labels of one level of noise."
    return ImageDataLoaders.from_df(d.set_index('path', drop=False), path, fn_col='path', label_col=f'noisy_labels_{noise}', valid_col='is_valid', item_tfms=Resize(size, method='squish'),
                                    batch_tfms=aug_transforms(size=size, min_scale=.75) if size < 160 else None, bs=bs, num_workers=0)

def network(dls, arch, loss):
    "A head on frozen features, or a network of torchvision's or timm's from scratch: nothing is downloaded."
    learn = feature_learner(dls) if arch == 'frozen' else vision_learner(dls, globals().get(arch, arch), pretrained=False, metrics=accuracy)
    learn.loss_func = LOSSES[loss]()
    return learn

def predictions(dls, folds, how, in_sample):
    "Out-of-fold predictions of the training images, and if wanted those of a model that has seen their labels."
    if how.arch == 'find': return folds.predictions(), None
    if how.arch == 'frozen': dls = feature_dls(folds)
    learner = partial(network, arch=how.arch, loss=how.loss)
    fit = dict(epochs=how.epochs, base_lr=how.lr, freeze_epochs=how.freeze_epochs, label_smoothing=how.label_smoothing if how.loss == 'ce' else 0)
    oof = KFoldLearner(dls, learner, n_splits=how.n_splits, seed=how.seed).fine_tune_gradual(**fit).predictions()
    if not in_sample: return oof, None
    set_seed(how.seed)
    learn = learner(dls)
    cbs, finish = track_with(how.track, how.out, f'noisy{how.noise}-{how.arch}', {k: v for k, v in vars(how).items() if k not in ('out', 'track')})
    learn.fine_tune_gradual(**fit, cbs=cbs)
    finish()
    return oof, Predictions.from_learner(learn, 0)

def write(preds, d, noise, out, suffix=''):
    "A table for each filter."
    for folder, filter_by in FILTERS.items():
        issues = find_label_issues(preds, filter_by=filter_by).set_index('item')
        t = d[~d.is_valid].set_index('path', drop=False)
        t = t.join(issues[['predicted_label', 'label_score', 'fold', 'is_label_issue']].rename(columns=dict(predicted_label='prediction', label_score='score')), how='inner')
        t['confidence'] = pd.Series(preds.pred_probs.max(1), index=preds.items).reindex(t.index)
        (out/folder).mkdir(parents=True, exist_ok=True)
        with atomic_path(out/folder/f'noisy{noise}_train_predictions{suffix}.csv') as f: t.to_csv(f, index=False, lineterminator='\n')

@call_parse
def main(
    noise:str='5,25,50', # Percent of wrong labels: 1, 5, 25 or 50, or several with commas
    arch:str='frozen', # 'frozen' (a head on frozen features), 'find' (what `fastclean find` does), or a network from scratch, such as resnet18
    loss:str='ce', # ce, gce, sce, mae or bootstrap
    label_smoothing:float=.1, # Share of the label that is spread over all classes; for ce
    epochs:int=5, # Epochs after those of the head alone
    freeze_epochs:int=1, # Epochs of the head alone
    lr:float=2e-3, # Learning rate of the head
    size:int=64, # Side of the images, for a network; features are taken at 160
    n_splits:int=5, # Folds
    in_sample:store_true=False, # Also the predictions of a model that has seen the labels
    every:int=None, # Only each so-manieth image: to try it out
    track:str=None, # wandb or tensorboard: follow the training that has seen all labels
    seed:int=42, # Seed
    out:str='RESULTS', # Folder of the tables
):
    "Find the wrong labels of noisy Imagenette."
    if track and (not in_sample or arch == 'find'): raise SystemExit('--track follows the training that has seen all labels: say --in-sample, too, and another --arch than find')
    warnings.simplefilter('ignore', InSampleWarning)   # that is what --in-sample is to show
    fastprogress.NO_BAR = not sys.stdout.isatty()      # bars that move are no use in a log
    how, path = SimpleNamespace(**locals()), untar_data(URLs.IMAGENETTE_160)
    d = labels(path, every)
    for how.noise in map(int, str(noise).split(',')):
        dls = loaders(path, d, how.noise, 160 if arch in ('frozen', 'find') else size)
        folds = FeatureFolds(dls, seed=seed, features_cache=Path(out)/'.features').fit() if arch in ('frozen', 'find') else None
        oof, own = predictions(dls, folds, how, in_sample)
        name = 'imagenette_find' if arch == 'find' else f"imagenette_{'' if label_smoothing else 'no_'}labelsmoothing"
        to = Path(out)/(name if arch in ('frozen', 'find') else f'{arch}/{name}')
        write(oof, d, how.noise, to)
        if own is not None: write(own, d, how.noise, to, '_in_sample')
        print(f'{how.noise} % noise: written to {to}')

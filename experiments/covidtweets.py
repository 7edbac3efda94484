#!/usr/bin/env python3
"""Tweets about COVID-19, informative or not: find their wrong labels.

`python experiments/covidtweets.py` takes the training tweets of WNUT-2020 task 2 from fastai's data folder (`covid19tweet/train.tsv`, from github.com/VinAIResearch/COVID19Tweet, which may not
be passed on), makes a tenth of the labels wrong, and writes `RESULTS/covid/noisy/noisy_text.csv`: a row for each tweet with its text, the given and the true label, the prediction, its
confidence, the score of the given label, the fold that predicted it and whether it is marked. `--rate 0` looks for the errors of the data set itself; `--arch awd_lstm` trains fastai's
language model in each fold rather than a head on sentence embeddings, and downloads its weights. `RESULTS` is not in version control."""
from functools import partial
from pathlib import Path

import pandas as pd
from fastai.text.all import *
from fastcore.script import call_parse

from fastclean.all import *
from fastclean.core import atomic_path

def tweets(every):
    "The training tweets; the row number is the name of an item."
    path = fastai_path('data')/'covid19tweet'/'train.tsv'
    if not path.is_file(): raise SystemExit(f'{path} is not there: take train.tsv from github.com/VinAIResearch/COVID19Tweet')
    return pd.read_csv(path, sep='\t', quoting=3, dtype=str).rename(columns=dict(Text='text', Label='label'))[['text', 'label']][::every or 1].reset_index(drop=True)

@call_parse
def main(
    rate:float=.1, # Share of the labels that are made wrong
    arch:str='frozen', # 'frozen' (a head on sentence embeddings) or 'awd_lstm'
    epochs:int=4, # Epochs, for awd_lstm
    n_splits:int=5, # Folds
    every:int=None, # Only each so-manieth tweet: to try it out
    seed:int=42, # Seed
    out:str='RESULTS', # Folder of the table
):
    "Find the wrong labels of the COVID-19 tweets."
    d = tweets(every)
    truth = d.label
    if rate: d, _ = add_noise(d, 'label', SymmetricNoise(rate), seed=seed)
    d['true_label'] = truth
    dls = TextDataLoaders.from_df(d, text_col='text', label_col='label', valid_pct=.1, seed=seed, bs=64)
    folds = FeatureFolds(dls, texts=d.text, n_splits=n_splits, seed=seed, features_cache=Path(out)/'.features') if arch == 'frozen' else \
        KFoldLearner(dls, partial(text_classifier_learner, arch=AWD_LSTM, metrics=accuracy), n_splits=n_splits, seed=seed).fine_tune(epochs)
    issues = find_label_issues(preds := folds.predictions()).set_index('item')
    issues.index = issues.index.astype(int)
    t = d.join(issues[['predicted_label', 'label_score', 'fold', 'is_label_issue']].rename(columns=dict(predicted_label='prediction', label_score='score')))
    t['confidence'] = pd.Series(preds.pred_probs.max(1), index=preds.items.astype(int)).reindex(t.index)
    to = Path(out)/'covid'/'noisy'/'noisy_text.csv'
    to.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(to) as f: t.to_csv(f, index_label='row', lineterminator='\n')
    wrong, marked = t.label != t.true_label, t.is_label_issue.astype(bool)
    print(f'{to}: {marked.sum():,} of {len(t):,} marked' + (f', {wrong.sum():,} are wrong; precision {(wrong & marked).sum()/max(marked.sum(), 1):.3f}, recall {(wrong & marked).sum()/wrong.sum():.3f}' if rate else ''))

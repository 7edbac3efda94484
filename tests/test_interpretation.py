"CleanlabInterpretation beside fastai's own: the same numbers, method by method; and what it adds, over all splits."
import contextlib, io, warnings
from functools import partial

import matplotlib; matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.block import DataBlock, MultiCategoryBlock
from fastai.callback.progress import ProgressCallback
from fastai.data.transforms import ColReader, RandomSplitter
from fastai.interpret import ClassificationInterpretation
from fastai.tabular.all import Categorify, FillMissing, Normalize, TabularDataLoaders
from fastai.vision.all import ImageBlock, ImageDataLoaders, RandomResizedCrop, Resize, get_image_files, set_seed

from fastclean.core import InSampleWarning, Predictions
from fastclean.data import digits_sample
from fastclean.interpretation import CleanlabInterpretation
from fastclean.learners import small_learner, table_learner
from fastclean.loaders import class_names, given_labels, item_names, learner_probs, plain_dl
from fastclean.lookup import find_items, join_datasets, rows_to_show, show_item

KINDS = ('images', 'texts', 'rows')

def trained(learn, lr=5e-3, epochs=1):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr)
    return learn

def images(folder):
    "Digits with a twelfth of the labels replaced, cropped at random in training."
    dls = ImageDataLoaders.from_path_func(folder, sorted(get_image_files(digits_sample(folder)))[::3], lambda o: str((int(o.parent.name) + (hash_of(o) % 12 == 0)) % 10), valid_pct=.25, seed=1,
                                          item_tfms=RandomResizedCrop(32, min_scale=.6), bs=32, num_workers=0)
    return trained(small_learner(dls), epochs=3)

def hash_of(path): return int(path.stem)*2654435761 % 2**32 >> 7

def sentences(n=200, seed=0):
    rng, words = np.random.default_rng(seed), dict(good='great lovely warm bright fine happy'.split(), bad='awful cold dull grim sad broken'.split())
    y = np.where(rng.random(n) < .5, 'good', 'bad')
    return pd.DataFrame(dict(text=[' '.join(rng.choice(words[o] + 'the film was a and then it of'.split(), rng.integers(4, 30))) for o in y], label=np.where(rng.random(n) < .1, np.where(y == 'bad', 'good', 'bad'), y)))

def texts(folder):
    from fastai.text.all import AWD_LSTM, TextDataLoaders, awd_lstm_clas_config, text_classifier_learner
    dls = TextDataLoaders.from_df(sentences(), text_col='text', label_col='label', valid_pct=.25, seed=1, bs=16)
    return trained(text_classifier_learner(dls, AWD_LSTM, config=awd_lstm_clas_config | dict(emb_sz=24, n_hid=24, n_layers=1), pretrained=False), 2e-2, 3)

def wines():
    from sklearn.datasets import load_wine
    df = load_wine(as_frame=True).frame
    df['target'] = np.array(['a', 'b', 'c'])[np.where(np.arange(len(df)) % 15 == 0, (df.target + 1) % 3, df.target)]
    return df.assign(strong=np.where(df.alcohol > 13, 'yes', 'no'))

def rows(folder):
    dls = TabularDataLoaders.from_df(wines(), y_names='target', cat_names=['strong'], cont_names=['alcohol', 'flavanoids', 'hue'], procs=[Categorify, FillMissing, Normalize], bs=32, valid_pct=.25, seed=1)
    return trained(table_learner(dls), 1e-2, 4)

@pytest.fixture(scope='module')
def learners(tmp_path_factory):
    set_seed(1)
    made = {o.__name__: o(tmp_path_factory.mktemp('digits')) for o in (images, texts, rows)}
    for learn in made.values(): learn.remove_cbs(ProgressCallback)
    return made

@pytest.fixture(params=KINDS)
def learn(request, learners): return learners[request.param]

@pytest.fixture(autouse=True)
def close():
    yield
    plt.close('all')

def printed(f, *a, **kw):
    out = io.StringIO()
    with contextlib.redirect_stdout(out): f(*a, **kw)
    return out.getvalue()

def same(a, b):
    "Whether outputs are the same, of whatever they are made."
    if isinstance(a, (tuple, list)): return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a.shape == b.shape and torch.equal(a, b)

def quiet_training(learn, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', InSampleWarning)
        return CleanlabInterpretation.from_learner(learn, ds_idx=0, **kw)

def pair(learn, ds_idx):
    "fastai's interpretation and ours: of the training set, fastai's is given a loader that does not augment."
    if ds_idx: return ClassificationInterpretation.from_learner(learn), CleanlabInterpretation.from_learner(learn)
    return ClassificationInterpretation.from_learner(learn, dl=plain_dl(learn.dls, learn.dls.train_ds)), quiet_training(learn)

# The same as fastai's

@pytest.mark.parametrize('ds_idx', [0, 1])
def test_numbers_are_fastai_s(learn, ds_idx):
    a, b = pair(learn, ds_idx)
    assert same(a.losses, b.losses) and list(a.vocab) == list(b.vocab)
    assert (a.confusion_matrix() == b.confusion_matrix()).all() and a.most_confused() == b.most_confused() and a.most_confused(3) == b.most_confused(3)
    assert printed(a.print_classification_report) == printed(b.print_classification_report) != ''
    p, t, d = learn.get_preds(dl=a.dl, with_decoded=True)
    assert same((p, t, d), (b.preds, b.targs, b.decoded))
    assert np.allclose(b.record.pred_probs, p.numpy()) and (b.record.given_label == t.flatten().numpy()).all()

def test_top_losses_are_fastai_s(learn):
    a, b = pair(learn, 1)
    for largest in (True, False):
        x, y = (o.top_losses(5, largest) for o in (a, b))
        assert same(x, y)
    x, y = (o.top_losses(4, items=True)[2] for o in (a, b))
    assert x.equals(y) if isinstance(x, pd.DataFrame) else list(x) == list(y)

def test_items_are_fastai_s(learn):
    "Of texts, fastai gives the longest first, beside losses in the order that was asked for; here all are in that order."
    a, b = pair(learn, 1)
    idxs = [7, 2, 11]
    x, y = a[idxs], b[idxs]
    asked = learn.get_preds(dl=a.dl)[0][idxs]
    assert torch.equal(y[1], asked) and same(y[4], b.losses[idxs])
    order = [int(torch.isclose(asked, p, atol=1e-5).all(1).nonzero()[0]) for p in x[1]]
    at = lambda o: tuple(i[order] for i in o) if isinstance(o, tuple) else o[order]
    assert torch.allclose(x[1], y[1][order], atol=1e-6)
    assert same(x[0], at(y[0])) and same(tuple(o.flatten() for o in x[2:4]), tuple(o[order].flatten() for o in y[2:4]))
    one = b[3]
    assert torch.equal(one[1], learn.get_preds(dl=a.dl)[0][[3]]) and same(b[torch.tensor(idxs)][1:], y[1:])

def test_losses_stand_beside_their_texts(learners):
    learn = learners['texts']
    _, p, t, _, loss = CleanlabInterpretation.from_learner(learn)[list(range(12))]
    assert torch.allclose(-p[range(12), t].log(), torch.Tensor(loss), atol=1e-5)

def pictures():
    "The pictures and titles of the axes of the current figure."
    return [[(i.get_array().tobytes(), ax.get_title()) for i in ax.images] for ax in plt.gcf().axes]

def test_plots_are_fastai_s(learners):
    a, b = pair(learners['images'], 1)
    for plot in ('plot_top_losses(4)', 'plot_top_losses(range(2, 5))', 'plot_top_losses(3, largest=False)', 'plot_confusion_matrix()', 'plot_confusion_matrix(normalize=True)', 'show_results([3, 8, 1])'):
        drawn = []
        for interp in (a, b):
            plt.close('all')
            eval(f'interp.{plot}', dict(interp=interp, range=range)); drawn.append((pictures(), [t.get_text() for ax in plt.gcf().axes for t in ax.texts]))
        assert drawn[0] == drawn[1] and drawn[0][0], plot

@pytest.mark.parametrize('kind', ['texts', 'rows'])
def test_plots_of_texts_and_rows(learners, kind):
    a, b = pair(learners[kind], 1)
    b.plot_top_losses(4); b.plot_confusion_matrix()
    if kind == 'rows': assert printed(a.show_results, [3, 1]) == printed(b.show_results, [3, 1])

def test_the_model_is_asked_once(learn):
    b = CleanlabInterpretation.from_learner(learn)
    model, learn.model = learn.model, None
    try:
        b.confusion_matrix(); b.most_confused(); b.top_losses(3); b[[0, 1]]; b.plot_top_losses(2); b.issues; b.plot_top_suspects(2); b.inputs; printed(b.print_classification_report)
    finally: learn.model = model

def test_an_activation_of_ones_own(learners):
    act = partial(torch.softmax, dim=-1)
    hot = lambda o: act(o*3)
    a, b = (o.from_learner(learners['images'], act=hot) for o in (ClassificationInterpretation, CleanlabInterpretation))
    assert same(a.losses, b.losses) and torch.allclose(a[[2, 4]][1], b[[2, 4]][1], atol=1e-6) and b.act is hot
    with pytest.raises(ValueError, match='between 0 and 1'): CleanlabInterpretation.from_learner(learners['images'], act=lambda o: o)

def test_a_loader_of_ones_own(learners):
    learn = learners['rows']
    dl = learn.dls.test_dl(wines()[::5])
    a, b = (o.from_learner(learn, dl=dl) for o in (ClassificationInterpretation, CleanlabInterpretation))
    assert same(a.losses, b.losses) and set(b.record.split) == {'test'} and b.dl is dl
    with pytest.raises(ValueError, match='no labels'): CleanlabInterpretation.from_learner(learn, dl=learn.dls.test_dl(wines().drop(columns='target')))

# The training set

def test_training_predictions_warn_and_are_not_augmented(learners):
    learn = learners['images']
    with pytest.warns(InSampleWarning, match='KFoldLearner') as caught: a = CleanlabInterpretation.from_learner(learn, ds_idx=0)
    assert caught[0].filename == __file__ and same(a.losses, quiet_training(learn).losses)
    with warnings.catch_warnings():
        warnings.simplefilter('error', InSampleWarning)
        assert len(a.issues) == len(learn.dls.train_ds) and set(a.issues['split']) == {'train'}   # said once
    with pytest.warns(InSampleWarning): CleanlabInterpretation.from_learner(learn, dl=plain_dl(learn.dls, learn.dls.train_ds))
    assert np.allclose(a.record.pred_probs, learner_probs(learn, plain_dl(learn.dls, learn.dls.train_ds)), atol=1e-6)

def out_of_fold(learn, **kw):
    "Stands for a KFoldLearner: the given labels, blurred, for the training items in another order."
    ds = learn.dls.train_ds
    y, order = given_labels(ds), np.random.default_rng(0).permutation(len(ds))
    p = np.full((len(ds), len(class_names(learn.dls))), .05); p[np.arange(len(ds)), y] = 1; p[::9] = np.roll(p[::9], 1, axis=1)
    return Predictions.from_arrays(y[order], (p/p.sum(1, keepdims=True))[order], class_names(learn.dls), item_names(ds, learn.dls.path)[order], fold=0, **kw)

def test_out_of_fold_predictions_stand_in_for_the_training_set(learn):
    oof = out_of_fold(learn)
    with warnings.catch_warnings():
        warnings.simplefilter('error', InSampleWarning)
        b = CleanlabInterpretation.from_learner(learn, oof=oof)
    n, m = len(learn.dls.train_ds), len(learn.dls.valid_ds)
    assert len(b.record) == n + m and (b.record.split[:n] == 'train').all() and same(b.losses, ClassificationInterpretation.from_learner(learn).losses)
    assert np.array_equal(b.record.pred_probs[:n], oof.pred_probs) and len(b.top_suspects(split='train')) and len(b.suspects_df()) == b.issues.is_label_issue.sum()
    d = b.suspects_df(split='train')
    assert [item_names(learn.dls.loaders[i].dataset, learn.dls.path)[j] for i, j in zip(d.ds_idx, d.idx)] == d['item'].tolist()
    only = CleanlabInterpretation.from_learner(learn, ds_idx=0, oof=oof)
    assert len(only.record) == n and len(only.losses) == n and torch.allclose(torch.Tensor(only.losses), torch.from_numpy(-np.log(oof.pred_probs[np.arange(n), oof.given_label])), atol=1e-5)
    assert (only[[0, 5]][2].numpy() == oof.given_label[[0, 5]]).all()

def test_oof_must_fit(learners):
    learn = learners['rows']
    oof = out_of_fold(learn)
    with pytest.raises(ValueError, match='same order'): CleanlabInterpretation.from_learner(learn, oof=Predictions.from_arrays(oof.given_label, oof.pred_probs, ['x', 'y', 'z'], oof.items))
    oof.split[:] = 'valid'
    with pytest.raises(ValueError, match='no training items'): CleanlabInterpretation.from_learner(learn, oof=oof)
    b = CleanlabInterpretation.from_learner(learn)
    for f in (b.top_suspects, b.plot_top_suspects):
        with pytest.raises(ValueError, match='oof='): f(3, split='train')

def test_a_test_set_with_and_without_labels(learn, learners):
    if learn is learners['images']: items = learn.dls.train_ds.items[:9]; bare = items
    elif learn is learners['texts']: items = sentences(9, seed=5); bare = items.drop(columns='label')
    else: items = wines()[:9]; bare = items.drop(columns='target')
    kw = {} if learn is learners['rows'] else dict(with_labels=True)
    test = learn.dls.test_dl(items, **kw)
    b = CleanlabInterpretation.from_learner(learn, test_dl=test)
    assert (b.record.split[-9:] == 'test').all() and len(set(b.record.items)) == len(b.record) == len(learn.dls.valid_ds) + 9 and len(b.losses) == len(learn.dls.valid_ds)
    assert np.allclose(b.record.pred_probs[-9:], learner_probs(learn, test), atol=1e-5)
    u = CleanlabInterpretation.from_learner(learn, test_dl=learn.dls.test_dl(bare))
    assert (u.record.split[-9:] == 'unlabelled').all() and (u.record.given_label[-9:] == -1).all()
    seen = b.show_item(b.record.items[-1])
    assert isinstance(seen, dict) if learn is learners['rows'] else isinstance(seen, str) if learn is learners['texts'] else seen.size == (32, 32)

# From predictions

def record_of(dls, seed=0):
    "Predictions of all items of DataLoaders, as KFoldLearner gives them."
    parts, rng = [], np.random.default_rng(seed)
    for s, dl in zip(('train', 'valid', 'test'), dls.loaders):
        y = given_labels(dl.dataset)
        p = np.full((len(y), len(class_names(dls))), .04) + rng.random((len(y), len(class_names(dls))))*.02
        p[np.arange(len(y)), np.where(rng.random(len(y)) < .1, (y + 1) % len(class_names(dls)), y)] += 1
        parts.append(Predictions.from_arrays(y, p/p.sum(1, keepdims=True), class_names(dls), item_names(dl.dataset, dls.path), s))
    from fastclean.core import concat_predictions
    return concat_predictions(*parts)

def test_predictions_of_all_items(learn):
    r = record_of(learn.dls)
    b = CleanlabInterpretation.from_predictions(r, learn.dls)
    n, m = len(learn.dls.train_ds), len(learn.dls.valid_ds)
    assert b.confusion_matrix().sum() == n + m == len(b.losses) and b.confusion_matrix().trace() == (r.predicted_label == r.given_label).sum()
    assert b.most_confused()[0][2] == max((c := b.confusion_matrix()) [~np.eye(len(c), dtype=bool)])
    v = CleanlabInterpretation.from_predictions(r, learn.dls, ds_idx=1)
    assert same(v.losses, b.losses[n:]) and len(v.record) == n + m and len(v.dl.dataset) == m
    x, a = v[[3, 1]], CleanlabInterpretation.from_learner(learn)[[3, 1]]
    assert same(x[0], a[0]) and same(x[2].flatten().long(), a[2].flatten().long())
    x = b[[n + 2, 0, n]]
    assert (x[2].numpy() == r.given_label[[n + 2, 0, n]]).all() and torch.equal(x[1], torch.from_numpy(r.pred_probs[[n + 2, 0, n]]))
    b.plot_top_losses(3); b.plot_confusion_matrix()
    x = b.inputs   # of rows categories and numbers, of texts a list
    assert len(x[-1] if isinstance(x, tuple) else x) == n + m

def test_without_dataloaders(learn):
    r = record_of(learn.dls)
    b, full = CleanlabInterpretation.from_predictions(r), CleanlabInterpretation.from_predictions(r, learn.dls)
    assert same(b.losses, full.losses) and (b.confusion_matrix() == full.confusion_matrix()).all() and b.top_suspects(3).equals(full.top_suspects(3)) and same(b.top_losses(3), full.top_losses(3))
    b.plot_confusion_matrix(); b.plot_noise_matrix(); b.plot_label_health(); b.plot_confident_joint(); b.plot_calibration(); b.plot_top_suspects(2, load=lambda o: 'a text')
    for f in (lambda: b[0], lambda: b.plot_top_losses(2), lambda: b.show_results([1]), lambda: b.plot_top_suspects(2), b.suspects_df, lambda: b.inputs, lambda: b.top_losses(2, items=True), lambda: b.show_item(r.items[0])):
        with pytest.raises(ValueError, match='give the DataLoaders'): f()

def test_predictions_of_other_data(learners):
    r = record_of(learners['rows'].dls)
    with pytest.raises(ValueError, match='other classes or items'): CleanlabInterpretation.from_predictions(r, learners['images'].dls)
    with pytest.raises(ValueError, match="of split 'test'"): CleanlabInterpretation.from_predictions(r, ds_idx=2)
    r.given_label[:] = -1
    with pytest.raises(ValueError, match='no items with a label'): CleanlabInterpretation.from_predictions(r)

def test_unlabelled_items_and_items_that_are_gone(learners):
    learn = learners['images']
    r = record_of(learn.dls)
    r.given_label[:5] = -1; r.items = r.items.copy(); r.items[7] = 'gone.png'
    b = CleanlabInterpretation.from_predictions(r, learn.dls)
    assert len(b.losses) == len(r) - 5 and b.at[7, 0] == -1 and b.confusion_matrix().sum() == len(r) - 5
    with pytest.raises(ValueError, match='1 of the items are not in the DataLoaders'): b.plot_top_losses(3)
    b.plot_top_suspects(3)   # what can be shown is

def test_suspects(learn, learners):
    r = record_of(learn.dls)
    b = CleanlabInterpretation.from_predictions(r, learn.dls)
    t, d = b.top_suspects(), b.suspects_df()
    assert len(t) == b.issues.is_label_issue.sum() > 3 and t.label_score.is_monotonic_increasing and set(b.top_suspects(split='valid')['split']) == {'valid'} and len(b.top_suspects(2)) == 2
    assert len(b.top_suspects(split=['train', 'valid'])) == len(t) and d['item'].tolist() == t['item'].tolist()
    if learn is learners['texts']: assert d.text.str.len().min() > 5
    if learn is learners['rows']: assert d.alcohol.astype(float).between(10, 16).all() and set(d.strong) <= {'yes', 'no'}
    said = [o.get_text() for o in b.plot_top_suspects(4).texts]
    r0 = t.iloc[0]
    assert {str(r0.given_label), f'→ {r0.suggested_label}', f'{r0.split} · {r0.certainty}'} <= set(said)
    with pytest.raises(ValueError, match="no items of split 'test'"): b.plot_top_suspects(split='test')

def test_another_filter(learners):
    r = record_of(learners['rows'].dls)
    assert CleanlabInterpretation.from_predictions(r, filter_by='predicted_neq_given').issues.is_label_issue.sum() == (r.predicted_label != r.given_label).sum()

def test_evidence_of_suspects(learn):
    r = record_of(learn.dls)
    x = np.random.default_rng(0).normal(size=(len(r), 5))
    b = CleanlabInterpretation.from_predictions(r, learn.dls, features=x)
    e = b.evidence(2, n=3)
    assert e['item'].nunique() == 3 and e['rank'].max() == 2 and set(e.side) == {'suggested', 'given'}
    with_, without = b.plot_top_suspects(3), b.plot_top_suspects(3, evidence=False)
    assert len(with_.axes) == 3*(1 + 2*3) and len(without.axes) == 3
    with pytest.raises(ValueError, match='features='): CleanlabInterpretation.from_predictions(r, learn.dls).evidence()

# Several labels for an item

@pytest.fixture(scope='module')
def several(tmp_path_factory):
    from fastclean.multilabel import digit_collages
    path = tmp_path_factory.mktemp('collages')
    df = digit_collages(path/'c', 160)
    block = DataBlock((ImageBlock, MultiCategoryBlock), get_x=ColReader('path', pref=path/'c'), get_y=ColReader('labels', label_delim=' '), splitter=RandomSplitter(.25, seed=1), item_tfms=Resize(32))
    return trained(small_learner(block.dataloaders(df, bs=32, num_workers=0)))

def test_several_labels(several):
    several.remove_cbs(ProgressCallback)
    a, b = (o.from_learner(several) for o in (ClassificationInterpretation, CleanlabInterpretation))
    assert same(a.losses, b.losses) and same(a.top_losses(3), b.top_losses(3)) and b.record.multi_label
    b.plot_top_losses(2); assert 'micro avg' in printed(b.print_classification_report)
    for f in (b.confusion_matrix, b.most_confused, b.plot_confusion_matrix, b.plot_noise_matrix, b.plot_confident_joint):
        with pytest.raises(ValueError, match='one label for each item'): f()
    b.plot_label_health(); b.plot_calibration(); b.plot_top_suspects(3); b.suspects_df(2)
    own = CleanlabInterpretation.from_predictions(b.record, several.dls)
    assert np.allclose(own.losses, b.losses, atol=1e-4) and same(own.decoded.bool(), b.decoded.bool())
    with_ = CleanlabInterpretation.from_predictions(b.record, several.dls, features=np.random.default_rng(0).normal(size=(len(b.record), 4)))
    e = with_.evidence(2, n=4)
    assert set(e.neighbour_label) <= {True, False} and 'class' in e and len(with_.plot_top_suspects(2).axes) > 2

# What it is made of

def test_items_are_found_by_name(learn):
    dls = learn.dls
    names = np.concatenate([item_names(dl.dataset, dls.path) for dl in dls.loaders])
    n = len(dls.train_ds)
    at = find_items([dl.dataset for dl in dls.loaders], names[::-1], dls.path)
    assert at.tolist() == [[1, i] if i >= 0 else [0, i + n] for i in range(len(dls.valid_ds) - 1, -n - 1, -1)]
    some = at[[0, -1, 3, -2]]
    joined = join_datasets([dl.dataset for dl in dls.loaders], some)
    assert given_labels(joined).tolist() == [given_labels(dls.loaders[d].dataset)[i] for d, i in some]
    assert item_names(joined, dls.path).tolist() == names[::-1][[0, -1, 3, -2]].tolist()

def test_items_without_a_name():
    "In KFoldLearner, what is only numbered is called valid/3 in the validation set."
    from torch.utils.data import TensorDataset
    ds = [TensorDataset(torch.zeros(4, 2), torch.zeros(4)), TensorDataset(torch.zeros(3, 2), torch.zeros(3))]
    assert find_items(ds, np.array(['1', 'valid/1', 'valid/2'], dtype=object)).tolist() == [[0, 1], [1, 1], [1, 2]]
    assert find_items(ds, np.array(['1', '1#2'], dtype=object)).tolist() == [[0, 1], [1, 1]]

def test_what_is_shown_is_not_augmented(learners):
    ds = learners['images'].dls.train_ds
    a, b = (np.asarray(show_item(ds, 3)) for _ in range(2))
    assert (a == b).all() and a.shape[:2] == (32, 32)
    text = show_item(learners['texts'].dls.train_ds, 0)
    assert isinstance(text, str) and 'xxbos' not in text
    r = show_item(learners['rows'].dls.valid_ds, 0)
    name = int(item_names(learners['rows'].dls.valid_ds)[0])
    assert float(r['alcohol']) == pytest.approx(wines().alcohol[name], rel=1e-3) and r['strong'] == wines().strong[name]

def test_the_most_telling_columns_come_first():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    t = pd.DataFrame({f'noise {j}': rng.normal(size=60) for j in range(12)} | dict(tells=y*10. + rng.normal(size=60)), index=[str(i) for i in range(60)])
    given = y.copy(); given[5] = 0
    issues = pd.DataFrame(dict(item=t.index, is_label_issue=np.arange(60) == 5, given_label=given, suggested_label=y))
    load = rows_to_show(t, given, issues, [0, 1], columns=4)
    assert next(iter(load('5'))) == 'tells' and len(load('5')) == 4 and len(load('6')) == 13 and load('no') is None

# The predictions that users have

def test_folds_of_a_learner_and_of_features(learners):
    from fastclean.featurefolds import FeatureFolds
    from fastclean.kfold import KFoldLearner
    dls = learners['rows'].dls
    kf, ff = KFoldLearner(dls, table_learner, n_splits=3), FeatureFolds(dls, head='trees', n_splits=3)
    kf.run(lambda learn: trained(learn, 1e-2, 2))
    preds = kf.predictions(dls.test_dl(wines()[:7]))
    ff.fit()
    b = CleanlabInterpretation.from_predictions(preds, dls, test_dl=dls.test_dl(wines()[:7]), features=ff)
    assert (b.at >= 0).all() and set(preds.split) == {'train', 'valid', 'test'} and b.confusion_matrix().sum() == len(preds)
    e = b.evidence(2)
    assert e['item'].nunique() > 3 and len(b.plot_top_suspects(2).axes) > 2 and len(b.suspects_df()) == b.issues.is_label_issue.sum()
    oof = CleanlabInterpretation.from_learner(learners['rows'], oof=preds, features=ff)
    assert len(oof.record) == len(dls.train_ds) + len(dls.valid_ds) and len(oof.evidence(1))

def test_images_of_a_source_and_their_folds(tmp_path):
    from fastclean.data import read_source
    from fastclean.featurefolds import FeatureFolds
    from fastclean.loaders import source_dls
    folder = digits_sample(tmp_path/'digits')
    for i, o in enumerate(sorted(folder.rglob('*.png'))):
        if i % 8: o.unlink()
    dls = source_dls(read_source(folder), 32)
    ff = FeatureFolds(dls, n_splits=3, rounds=1, image_size=64)
    b = CleanlabInterpretation.from_predictions(ff.predictions(), dls, features=ff)
    assert b.show_item(b.record.items[5]).size == (32, 32) and b.inputs.shape[0] == len(b.record) and len(b.losses) == len(b.record)
    assert (b[[4]][2].numpy() == b.record.given_label[[4]]).all()

def test_predictions_that_are_in_sample_warn_wherever_they_come_from(learners):
    learn = learners['rows']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', InSampleWarning)
        own = Predictions.from_learner(learn, ds_idx=0)
    with pytest.warns(InSampleWarning, match='KFoldLearner') as caught: CleanlabInterpretation.from_predictions(own, learn.dls)
    assert caught[0].filename == __file__
    with pytest.warns(InSampleWarning): CleanlabInterpretation.from_learner(learn, oof=own[::-1])

def test_out_of_fold_predictions_in_another_order_are_the_same_items(learners):
    learn = learners['images']
    oof = out_of_fold(learn)
    a, b = (CleanlabInterpretation.from_learner(learn, oof=o) for o in (oof, oof[::-1][::2]))
    assert np.array_equal(np.asarray(a.show_item(oof.items[-1])), np.asarray(b.show_item(oof.items[-1])))

def test_logits_are_named(learners):
    learn = learners['images']
    loss, learn.loss_func = learn.loss_func, torch.nn.CrossEntropyLoss()
    try:
        with pytest.raises(ValueError, match='logits, give act='): CleanlabInterpretation.from_learner(learn)
    finally: learn.loss_func = loss

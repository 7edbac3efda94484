"The items of a batch are known whatever the loader does, and what is trained on in place of the labels leaves no trace."
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastai.callback.data   # weighted_dataloaders
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.schedule import Learner   # with fit_one_cycle and lr_find
from fastai.data.all import Categorize, CategoryBlock, DataBlock, DataLoaders, Datasets, ItemTransform, RandomSplitter, SkipItemException, TfmdDL, TransformBlock
from fastai.data.load import DataLoader
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.metrics import accuracy
from fastai.vision.all import ImageDataLoaders, PILImageBW, Resize, aug_transforms
from fastai.optimizer import SGD
from fastclean.core import seeded
from fastclean.losses import GeneralizedCrossEntropy, MAELoss, WARPLoss
from fastclean.targets import ItemCallback, ItemIds, SoftLoss, SoftTargets, batch_items, expected_loss

torch.set_num_threads(1)
N = 70

class Look(ItemCallback):
    "Keeps the items of each batch beside what is in it."
    def before_fit(self): super().before_fit(); self.seen = []
    def before_batch(self): self.seen.append((self.items, *self.learn.xb, *self.learn.yb))

def quietly(learn, n=2, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, **kw)
    return learn

def number(i): return torch.tensor([float(i), 0.])
def parity(i): return i % 2
def numbers(tfms=None, dl_type=None, **kw):
    dsets = Datasets(range(N), [[number], [parity, Categorize(vocab=[0, 1])]], splits=[range(60), range(60, N)])
    return dsets.dataloaders(**{**dict(bs=8, num_workers=0, after_item=tfms), **kw})
def weighted(**kw):
    dsets = Datasets(range(N), [[number], [parity, Categorize(vocab=[0, 1])]], splits=[range(60), range(60, N)])
    return dsets.weighted_dataloaders(np.arange(60)**2, **{**dict(bs=8, num_workers=0), **kw})
def flat(dls, **kw): return Learner(dls, nn.Linear(2, 2), loss_func=CrossEntropyLossFlat(), **kw)

def left_out(i):
    if i % 7 == 0: raise SkipItemException
    return number(i)
def skipping(**kw):
    dsets = Datasets(range(N), [[left_out], [parity, Categorize(vocab=[0, 1])]], splits=[range(1, 60), range(60, N)])
    return dsets.dataloaders(**{**dict(bs=8, num_workers=0), **kw})

# ---- which items are in a batch
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('make', [numbers, partial(numbers, shuffle=False), partial(numbers, drop_last=False), partial(numbers, bs=1), weighted, skipping], ids=['shuffled', 'in order', 'with the rest', 'one by one', 'weighted', 'skipping'])
def test_every_batch_says_its_items(make, workers):
    look, dls = Look(), make(num_workers=workers)
    before = dict(vars(dls.train))
    quietly(flat(dls, cbs=look))
    assert len(look.seen) > 8 and all((dls.train_ds.items[int(i)] == int(o)) for ids, x, _ in look.seen for i, o in zip(ids, x[:, 0])) and all(len(ids) == len(x) for ids, x, _ in look.seen)
    assert {k: v for k, v in vars(dls.train).items() if k in ('do_item', 'do_batch', 'after_batch')} == {k: v for k, v in before.items() if k in ('do_item', 'do_batch', 'after_batch')}

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Images whose grey value is their number."
    path = tmp_path_factory.mktemp('grey')
    for i in range(N):
        f = path/'ab'[i % 2]/f'{i:03}.png'; f.parent.mkdir(exist_ok=True)
        PILImageBW.create(np.full((8, 8), i, np.uint8)).save(f)
    return path

@pytest.mark.parametrize('workers', [0, 2])
def test_images_with_augmentation(folder, workers):
    dls = ImageDataLoaders.from_folder(folder, valid_pct=.2, seed=0, img_cls=PILImageBW, item_tfms=Resize(8), batch_tfms=aug_transforms(size=8, max_lighting=0, pad_mode='border'), bs=8, num_workers=workers)
    look = Look()
    quietly(Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), cbs=look))
    assert len(look.seen) == 2*(len(dls.train_ds)//8)
    for ids, x, y in look.seen:
        assert [int(dls.train_ds.items[i].stem) for i in ids] == (x[:, 0, 4, 4]*255).round().int().tolist()
        assert [int(dls.train_ds[int(i)][1]) for i in ids] == y.tolist()

@pytest.mark.parametrize('workers', [0, 2])
def test_frames(workers):
    df = pd.DataFrame(dict(a=np.arange(N, dtype=float), y=['u', 'v']*(N//2)), index=range(100, 100 + N))
    block = DataBlock(blocks=(TransformBlock, CategoryBlock), get_x=lambda r: number(r.a), get_y=lambda r: r.y, splitter=RandomSplitter(.2, seed=0))
    dls, look = block.dataloaders(df, bs=8, num_workers=workers), Look()
    quietly(flat(dls, cbs=look))
    assert len(look.seen) == 14 and all((dls.train_ds.items.a.iloc[ids].to_numpy() == x[:, 0].numpy()).all() for ids, x, _ in look.seen)

class Bag(nn.Module):
    def __init__(self, n, c): super().__init__(); self.e, self.l = nn.EmbeddingBag(n, 8, padding_idx=1), nn.Linear(8, c)
    def forward(self, x): return self.l(self.e(x))

@pytest.mark.parametrize('workers', [0, 2])
def test_texts_sorted_by_length(workers):
    from fastai.text.all import TextDataLoaders
    df = pd.DataFrame([dict(text=' '.join(['word']*(1 + i % 11) + [f'n{i}', f'n{i}', f'n{i}']), label='ab'[i % 2]) for i in range(N)])
    dls, look = TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=8, num_workers=workers, seed=1), Look()
    quietly(Learner(dls, Bag(len(dls.vocab[0]), 2), cbs=look))
    unpad = lambda o: o[o != 1].tolist()
    assert len(look.seen) >= 12 and all(unpad(row) == dls.train_ds[int(i)][0].tolist() for ids, x, _ in look.seen for i, row in zip(ids, x))

@pytest.mark.parametrize('workers', [0, 2])
def test_tables(workers):
    from fastai.tabular.all import Categorify, Normalize, TabularDataLoaders, tabular_learner
    df = pd.DataFrame(dict(a=np.arange(N, dtype=float), k=['x', 'y', 'z', 'z', 'y']*(N//5), y=['u', 'v']*(N//2)))
    dls, look = TabularDataLoaders.from_df(df, procs=[Categorify, Normalize], cat_names=['k'], cont_names=['a'], y_names='y', bs=8, num_workers=workers), Look()
    quietly(tabular_learner(dls, layers=[8], cbs=look))
    ds = dls.train_ds
    assert len(look.seen) == 2*(len(ds)//8) and all(np.allclose(ds.items.a.iloc[ids], cont[:, 0]) and (ds.items.y.iloc[ids].to_numpy() == y[:, 0].numpy()).all() for ids, cat, cont, y in look.seen)
    t = np.eye(2)[ds.items.y]
    with seeded(1): a = quietly(tabular_learner(rows_again(dls), layers=[8]))
    with seeded(1): b = quietly(tabular_learner(rows_again(dls), layers=[8], cbs=SoftTargets(t)))
    assert same(a, b)

def rows_again(dls): return DataLoaders(dls.train.new(num_workers=0), dls.valid)
def same(a, b): return all((p == q).all() for p, q in zip(a.model.state_dict().values(), b.model.state_dict().values()))

def test_the_order_of_the_loader_is_what_it_was():
    with seeded(3): dls = numbers(); quietly(flat(dls)); a = [int(i) for x, _ in dls.train for i in x[:, 0]]
    with seeded(3): dls = numbers(); quietly(flat(dls, cbs=Look())); b = [int(i) for x, _ in dls.train for i in x[:, 0]]
    assert a == b

def test_new_loaders_in_the_middle_are_plain():
    class New(Callback):
        def before_batch(self): self.got = self.learn.dls.train.new(), self.learn.dls.train.new(shuffle=False, dataset=self.learn.dls.valid_ds)
    new = New()
    learn = quietly(flat(numbers(), cbs=[new, Look()]), 1)
    for dl in new.got: assert not {'do_item', 'do_batch'} & set(vars(dl)) and type(dl.after_batch).__name__ == 'Pipeline' and len(dl.one_batch()) == 2
    assert type(learn.dls.train.after_batch).__name__ == 'Pipeline'

def test_predictions_know_no_items():
    learn = quietly(flat(numbers(), cbs=[ItemIds()]), 1)
    class Ask(Callback):
        def before_batch(self): batch_items(self.learn)
    with pytest.raises(ValueError, match='only while training'): learn.get_preds(cbs=Ask())
    with pytest.raises(ValueError, match='add ItemIds'): batch_items(flat(numbers()))

def doubled(b): return tuple(torch.cat([o, o]) for o in b)
class Doubled(ItemTransform):
    def encodes(self, b): return doubled(b)

def test_batches_of_other_rows_are_refused():
    with pytest.raises(ValueError, match='a batch of 8 items has 16 rows after its transforms'): quietly(flat(numbers(after_batch=Doubled()), cbs=ItemIds()))
    class More(Callback):
        def before_batch(self): self.learn.xb = (torch.cat([self.x, self.x]),)
    with pytest.raises(ValueError, match=r'predictions of shape \(16, 2\) and soft targets of shape \(8, 2\)'): quietly(flat(numbers(), cbs=[More(), SoftTargets(half)]))
half = np.full((60, 2), .5)

def test_loaders_that_have_no_positions():
    torchs = torch.utils.data.DataLoader([(number(i), i % 2) for i in range(20)], batch_size=4)
    dls = DataLoaders(torchs, torchs); dls.c = 2
    with pytest.raises(ValueError, match="must be fastai's; got torch"): quietly(flat(dls, cbs=ItemIds()))
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self): return iter([(number(i), i % 2) for i in range(20)])
    dls = DataLoaders(*[TfmdDL(Stream(), bs=4, n=20, num_workers=0)]*2)
    with pytest.raises(ValueError, match='must have positions'): quietly(flat(dls, cbs=ItemIds()))

def test_fastais_plain_loader():
    "With a function of the user's in the place of a pipeline."
    ds = [(number(i), i % 2) for i in range(20)]
    def shift(b): return b[0] + 1, b[1]
    dl, look = DataLoader(ds, bs=4, shuffle=True, after_batch=shift), Look()
    dls = DataLoaders(dl, DataLoader(ds, bs=4))
    quietly(flat(dls, cbs=look), 1)
    assert all((ids + 1 == x[:, 0]).all() for ids, x, _ in look.seen) and dl.after_batch is shift

@pytest.mark.parametrize('stop', [CancelTrainException, CancelEpochException, CancelFitException, KeyboardInterrupt, OSError])
def test_after_a_stop_in_the_middle(stop):
    "Cancelled or broken off: the loader works, the labels are labels, and the next training is as if nothing had been."
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.iter == 2: raise stop('stopped')
    dls, soft = numbers(), SoftTargets(half)
    learn = flat(dls, cbs=soft, metrics=accuracy)
    try: quietly(learn, cbs=Stop())
    except (KeyboardInterrupt, OSError): pass
    else: assert type(learn.loss_func) is CrossEntropyLossFlat and 'do_item' not in vars(dls.train) and not hasattr(learn, 'item_ids')
    x, y = dls.train.one_batch()
    assert x.shape == (8, 2) and (x[:, 0] % 2 == y).all()
    with learn.no_bar(), learn.no_logging(): loss, acc = learn.validate()
    p, y = learn.get_preds()
    assert np.isclose(loss, F.nll_loss(p.log(), y)) and np.isclose(acc, (p.argmax(1) == y).float().mean())
    quietly(learn)
    assert type(learn.loss_func) is CrossEntropyLossFlat and not {'do_item', 'do_batch'} & set(vars(dls.train))

# ---- losses
torch.manual_seed(0)
PRED, Y, W = torch.randn(16, 5), torch.randint(0, 5, (16,)), torch.rand(5)
SOFT = torch.softmax(torch.randn(16, 5), 1)

@pytest.mark.parametrize('loss', [f(**kw) for f in (CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat, FocalLossFlat) for kw in (dict(), dict(weight=W), dict(reduction='sum'), dict(reduction='none', weight=W))] +
    [CrossEntropyLossFlat(label_smoothing=.3), CrossEntropyLossFlat(label_smoothing=.3, weight=W), LabelSmoothingCrossEntropyFlat(eps=.4), nn.CrossEntropyLoss(weight=W), F.cross_entropy] +
    [f(**kw) for f in (GeneralizedCrossEntropy, MAELoss, WARPLoss) for kw in (dict(), dict(weight=W), dict(reduction='none', weight=W))], ids=lambda o: getattr(o, '__name__', str(o))[:50])
def test_one_hot_targets_are_labels(loss):
    def value(f):
        p = PRED.clone().requires_grad_()
        v = f(p); v.sum().backward()
        return v.detach().as_subclass(torch.Tensor), p.grad
    (a, da), (b, db) = value(lambda p: loss(p, Y)), value(lambda p: expected_loss(loss, p, F.one_hot(Y, 5).float()))
    assert a.shape == b.shape and torch.allclose(a, b, atol=1e-6, rtol=1e-5) and torch.allclose(da, db, atol=1e-7, rtol=1e-4)

@pytest.mark.parametrize('kw', [dict(), dict(label_smoothing=.2), dict(reduction='sum'), dict(reduction='none')], ids=str)
def test_soft_targets_are_torchs(kw): assert torch.allclose(expected_loss(CrossEntropyLossFlat(**kw), PRED, SOFT), F.cross_entropy(PRED, SOFT, **kw), rtol=1e-5)

def test_any_loss_is_expected():
    loss = FocalLossFlat()
    by_hand = sum(SOFT[:, k]*FocalLossFlat(reduction='none')(PRED, torch.full((16,), k)) for k in range(5)).mean()
    assert torch.allclose(expected_loss(loss, PRED, SOFT), by_hand) and loss.reduction == 'mean'

def test_a_loss_that_is_not_by_item():
    with pytest.raises(ValueError, match='a loss for each item'): expected_loss(lambda p, y, reduction='mean': F.cross_entropy(p, y), PRED, SOFT)

def test_rows_of_weights():
    t = SOFT.clone(); t[:4] = 0
    p = PRED.clone().requires_grad_()
    expected_loss(CrossEntropyLossFlat(weight=W), p, t).backward()
    assert (p.grad[:4] == 0).all() and (p.grad[4:] != 0).all()
    assert float(expected_loss(CrossEntropyLossFlat(weight=W), PRED, 0*SOFT)) == 0
    assert torch.allclose(expected_loss(CrossEntropyLossFlat(), PRED, 3*SOFT), 3*F.cross_entropy(PRED, SOFT))

def test_half_precision():
    v = SoftLoss(CrossEntropyLossFlat())(PRED.half(), SOFT)
    assert torch.allclose(v.float(), F.cross_entropy(PRED, SOFT), atol=2e-3)

def test_a_soft_loss_is_the_loss_of_labels():
    loss = CrossEntropyLossFlat()
    soft = SoftLoss(loss)
    assert soft(PRED, Y) == loss(PRED, Y) and (soft.activation(PRED) == loss.activation(PRED)).all() and (soft.decodes(PRED) == loss.decodes(PRED)).all()
    soft.reduction = 'sum'; assert loss.reduction == 'sum' == soft.reduction
    assert pickle.loads(pickle.dumps(soft))(PRED, Y) == soft(PRED, Y)

# ---- training
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
def vector(i): return X[i]
def third(i): return i % 3
def vectors(**kw): return Datasets(range(N), [[vector], [third, Categorize(vocab=range(3))]], splits=[range(60), range(60, N)]).dataloaders(**{**dict(bs=8, num_workers=0), **kw})
HOT = np.eye(3)[np.arange(60) % 3]

def trained(*cbs, loss=None, workers=0, n=2, **kw):
    with seeded(5):
        learn = Learner(vectors(num_workers=workers), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), loss_func=loss or CrossEntropyLossFlat(), metrics=accuracy, cbs=cbs, **kw)
        return quietly(learn, n)

@pytest.mark.parametrize('workers', [0, 2])
def test_training_on_one_hot_targets_is_plain_training(workers):
    a, b = trained(workers=workers), trained(SoftTargets(HOT), workers=workers)
    assert same(a, b) and a.recorder.values == b.recorder.values
    assert same(a, trained(SoftTargets(weights=np.full(60, 7.)), workers=workers))
    assert not same(a, trained(SoftTargets(HOT[::-1].copy())))

def test_even_weights_change_nothing_where_classes_have_weights():
    loss = lambda: GeneralizedCrossEntropy(weight=[1., 5., 20.])
    for a, b in zip(trained(loss=loss(), opt_func=SGD).model.parameters(), trained(SoftTargets(weights=np.ones(60)), loss=loss(), opt_func=SGD).model.parameters()): assert torch.allclose(a, b, atol=1e-5)

def test_two_that_make_targets_soft_are_refused():
    with pytest.raises(ValueError, match='one SoftTargets'): trained(SoftTargets(weights=np.ones(60)), SoftTargets(HOT))

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(weight=W[:3]), LabelSmoothingCrossEntropyFlat(), FocalLossFlat()], ids=lambda o: type(o).__name__)
def test_training_keeps_the_loss(loss):
    a, b = trained(loss=loss), trained(SoftTargets(HOT), loss=loss)
    assert all(torch.allclose(p, q, atol=1e-4) for p, q in zip(a.model.parameters(), b.model.parameters())) and b.loss_func is loss

@pytest.mark.slow
def test_soft_targets_are_learnt():
    t = np.random.default_rng(0).dirichlet([1, 1, 1], 60)
    learn = trained(SoftTargets(t), n=300)
    dl = learn.dls.test_dl(range(60))
    p = learn.get_preds(dl=dl)[0].numpy()
    hard = trained(n=300).get_preds(dl=dl)[0].numpy()
    assert np.abs(p - t).mean() < np.abs(hard - t).mean()*.8

def test_a_weight_of_zero_leaves_an_item_out():
    "Whatever stands in it."
    w = (np.arange(60) % 4 > 0).astype(float)
    wrong = HOT.copy(); wrong[w == 0] = np.roll(HOT[w == 0], 1, axis=1)
    assert same(trained(SoftTargets(HOT, w)), trained(SoftTargets(wrong, w))) and not same(trained(SoftTargets(HOT, w)), trained(SoftTargets(HOT)))
    assert same(trained(SoftTargets(HOT, w)), trained(SoftTargets(HOT, 9*w)))

def test_labels_are_what_they_were():
    class See(Callback):
        order = 50
        def after_batch(self): assert self.learn.yb[0].dtype == torch.int64 and self.learn.yb[0].ndim == 1
    learn = trained(SoftTargets(HOT*.8 + .2/3), See())
    assert isinstance(learn.loss_func, CrossEntropyLossFlat) and [int(o[1]) for o in learn.dls.train_ds] == [i % 3 for i in range(60)]
    with learn.no_bar(), learn.no_logging():
        p, y, losses = learn.get_preds(with_loss=True)
        assert np.isclose(learn.validate()[0], F.nll_loss(p.log(), y)) and losses.shape == (10,)

def test_metrics_of_training():
    from fastai.learner import Recorder
    with seeded(5):
        learn = Learner(vectors(), nn.Linear(6, 3), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
        learn.recorder.train_metrics = True
        quietly(learn, cbs=SoftTargets(HOT))
    assert len(learn.recorder.values[0]) == 4

@pytest.mark.parametrize('mix', [MixUp, CutMix])
def test_mixup_blends_the_targets(folder, mix):
    "Of one-hot targets it is fastai's own."
    def go(*cbs):
        with seeded(1):
            dls = ImageDataLoaders.from_folder(folder, valid_pct=.2, seed=0, img_cls=PILImageBW, item_tfms=Resize(8), bs=8, num_workers=0)
            return quietly(Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), cbs=cbs)), dls
    a, dls = go(mix())
    b, _ = go(mix(), SoftTargets(np.eye(2)[[int(f.stem) % 2 for f in dls.train_ds.items]]))
    assert all(torch.allclose(p, q, atol=1e-5) for p, q in zip(a.model.parameters(), b.model.parameters())) and isinstance(b.loss_func, CrossEntropyLossFlat)

def test_with_other_callbacks():
    from fastai.callback.training import GradientAccumulation
    a, b = trained(GradientAccumulation(16)), trained(GradientAccumulation(16), SoftTargets(HOT))
    assert same(a, b)
    look = Look()
    trained(look, SoftTargets(HOT))
    assert len(look.seen) == 14
    learn = trained(n=0)
    learn.add_cb(SoftTargets(HOT))
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=10, show_plot=False)
    assert isinstance(learn.loss_func, CrossEntropyLossFlat)
    assert not {'do_item', 'do_batch'} & set(vars(learn.dls.train))

@pytest.mark.parametrize('args, match', [((), 'targets, weights or both'), ((HOT[:9],), '9 rows for 60 items'), ((2*HOT,), 'must sum to 1'), ((None, np.ones(9)), r'each of the 60 items of the training set; got shape \(9,\)'),
    ((None, -np.ones(60)), 'at least 0'), ((None, np.zeros(60)), 'not all 0'), ((None, np.full(60, np.nan)), 'finite'), ((np.eye(4)[[0]*60],), r'predictions of shape \(8, 3\) and soft targets of shape \(8, 4\)')])
def test_what_does_not_fit(args, match):
    with pytest.raises(ValueError, match=match): trained(SoftTargets(*args))

def test_an_exported_learner(tmp_path):
    from fastai.learner import load_learner
    learn = trained(SoftTargets(HOT))
    learn.export(tmp_path/'l.pkl')
    again = load_learner(tmp_path/'l.pkl')
    assert torch.allclose(again.get_preds(dl=again.dls.test_dl([3, 4]))[0], learn.get_preds(dl=learn.dls.test_dl([3, 4]))[0])

def test_a_distributed_loader():
    "The half of the batches that one of two processes gets: its items are those of the whole training set."
    pytest.importorskip('accelerate')
    from fastai.distributed import DistributedDL
    class Alone(DistributedDL):
        def _broadcast(self, t, rank): return list(t)
    class Wrap(Callback):
        order = -20
        def before_train(self): self.learn.dl = Alone(self.learn.dl, 1, 2)
    look, dls = Look(), numbers()
    quietly(flat(dls, cbs=[look, Wrap()]))
    assert len(look.seen) == 6 and all((ids == x[:, 0]).all() for ids, x, _ in look.seen) and 'do_item' not in vars(dls.train)

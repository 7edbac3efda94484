"A training that is stopped and run again ends as if nothing had happened, bit by bit; what is not the same training is refused."
import copy, io, multiprocessing, os, pickle, random, time, warnings, zipfile
from functools import partial

import numpy as np
import pytest
import torch
import fastai.callback.fp16
from fastai.callback.core import Callback, CancelEpochException, CancelFitException
from fastai.callback.data import WeightedDL
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import Learner
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.data.all import Categorize, Datasets
from fastai.learner import load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD, Adam, OptimWrapper
from fastai.torch_core import params
from fastcore.basics import noop
from torch import nn

from fastclean.callback.checkpoint import Checkpoint, _labels, _plain
from fastclean.callback.dynamics import TrainingDynamics
from fastclean.callback.elr import ELR
from fastclean.callback.joint import JointOptimization
from fastclean.callback.noise_layers import NNAQC, InstanceTransition, NoiseAdaptation, NoiseLayer
from fastclean.callback.weights import SampleWeights
from fastclean.core import FastcleanWarning, Predictions, seeded
from fastclean.issues import find_label_issues
from fastclean.kfold import KFoldLearner
from fastclean.losses import GeneralizedCrossEntropy
import fastclean.recipe   # `Learner.fine_tune_gradual`
from fastclean.targets import ItemIds, SoftTargets

torch.set_num_threads(1)
N, M, K = 66, 60, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
def vector(i): return X[i] + .05*torch.randn(4) + .05*random.random() + .05*float(np.random.rand())    # every kind of random number
def label(i): return i % K
Y = np.arange(M) % K
P = np.random.default_rng(0).dirichlet(np.ones(K), M) + .5*np.eye(K)[Y]
ISSUES = find_label_issues(Predictions.from_arrays(Y, P/P.sum(1, keepdims=True)))
MAKE = dict(none=Callback, dynamics=partial(TrainingDynamics, keep=True), elr=partial(ELR, keep=True), elr_anew=ELR, adaptation=partial(NoiseAdaptation, warmup=0., keep=True), dropout=partial(NoiseAdaptation, 0., .2, warmup=0.),
            nnaqc=NNAQC, instance=partial(InstanceTransition, warmup=0., keep=True), joint=partial(JointOptimization, start=1, last=2), weights=partial(SampleWeights, ISSUES), soft=partial(SoftTargets, np.full((M, K), 1/K)))
FITS = dict(fit=(3,), fit_one_cycle=(3,), fine_tune=(2,), fine_tune_gradual=(3,))      # the last fit of each has two epochs or more

def dls_of(n=M, label=label, **kw):
    return Datasets(range(N), [[vector], [label, Categorize(vocab=range(K))]], splits=[range(n), range(M, N)]).dataloaders(**{**dict(bs=8, num_workers=0), **kw})
def net(d=8): return nn.Sequential(nn.Linear(4, d), nn.BatchNorm1d(d), nn.ReLU(), nn.Dropout(.2), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, K))
def groups(m): return [params(m[:5]), params(m[5:])]

class MyLearner(Learner):
    def two_fits(self, a, b): self.fit(a); self.fit(b)

class Stop(Callback):
    "Breaks a training off."
    def __init__(self, fit, epoch, event, it=3, order=2000, error=KeyboardInterrupt): self.at, self.event, self.it, self.order, self.error, self.fits = (fit, epoch), event, it, order, error, -1
    def before_fit(self): self.fits += 1
    def _if(self, event):
        if self.event == event and self.at == (self.fits, self.epoch) and (not event.endswith('batch') or self.iter == self.it): raise self.error
    def before_batch(self): self._if('before_batch' if self.training else 'before_valid_batch')
    def after_step(self): self._if('after_step')
    def before_validate(self): self._if('before_validate')
    def after_epoch(self): self._if('after_epoch')
    def after_fit(self): self._if('after_fit')

def train(cbs=(), fit='fit_one_cycle', args=None, seed=1, dls=dls_of, before=noop, model=net, **kw):
    "A learner, trained or not, and whether it came to its end."
    with seeded(seed):
        learn = MyLearner(dls(), model(), **{**dict(loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=params if fit == 'fine_tune_gradual' else groups, cbs=list(cbs)), **kw})
        before(learn)
        learn.ended = False
        with learn.no_bar(), learn.no_logging():
            try: getattr(learn, fit)(*(args or FITS[fit]), **(dict(sink=noop) if fit == 'fine_tune_gradual' else {})); learn.ended = True
            except (KeyboardInterrupt, MemoryError): pass
        learn.random = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), learn.dls.train.rng.getstate()
    return learn

def everything(learn):
    "All that a training leaves behind."
    def _of(cb):
        if isinstance(cb, NoiseLayer): return cb.noise_layer.state_dict()
        return [getattr(cb, k, None) for k in ('means', 'records', 'given', 'soft_labels', 'used', 'hps')]
    r = learn.recorder
    return _plain(dict(model=learn.model.state_dict(), opt=learn.opt.state_dict() if learn.opt else None, values=list(r.values), losses=torch.stack(r.losses), lrs=list(map(float, r.lrs)), iters=r.iters, hps=getattr(r, 'hps', None),
                       iter=learn.train_iter, random=list(learn.random), cbs={type(cb).__name__: _of(cb) for cb in learn.cbs if type(cb).__module__.startswith('fastclean') and not isinstance(cb, (Checkpoint, ItemIds))}))

def differ(a, b, at=''):
    "Where two of them are not the same."
    if isinstance(a, dict): return [o for k in {**a, **b} for o in (differ(a[k], b[k], f'{at}.{k}') if k in a and k in b else [f'{at}.{k}'])]
    if isinstance(a, (list, tuple)): return [at] if len(a) != len(b) else [o for i, (x, y) in enumerate(zip(a, b)) for o in differ(x, y, f'{at}.{i}')]
    same = torch.equal(a.nan_to_num(-9), b.nan_to_num(-9)) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b or a != a
    return [] if same else [at]
def same(a, b): assert differ(everything(a), everything(b)) == []; return True

def resumed(file, stops, make=lambda: (), **kw):
    "A training that is stopped some times, and goes on each time."
    for s in stops: assert not train([*make(), Checkpoint(file), s], **kw).ended, s.event
    learn = train([*make(), Checkpoint(file)], **kw)
    assert learn.ended
    return learn

# ---- the same end
@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('name', MAKE)
@pytest.mark.slow
def test_every_callback_in_every_fit(name, fit, tmp_path):
    make, last = lambda: [MAKE[name]()], len({'fine_tune': 'ab', 'fine_tune_gradual': 'abcd'}.get(fit, 'a')) - 1
    if fit == 'fine_tune_gradual': args = (4,); assert not train([Stop(last, 1, 'after_epoch')], fit, args).ended
    else: args = None
    assert same(train(make(), fit, args), resumed(tmp_path/'c.pth', [Stop(last, 1, 'before_batch')], make, fit=fit, args=args))

@pytest.mark.parametrize('fit', FITS)
@pytest.mark.slow
def test_wherever_it_is_stopped(fit, tmp_path):
    make = lambda: [ELR(), NoiseAdaptation(warmup=0.), TrainingDynamics()]
    whole, events = train(make(), fit), ['before_batch', 'after_step', 'before_validate', 'after_epoch', 'after_fit']
    class Log(Callback):
        def before_fit(self): self.seen = [*getattr(self, 'seen', []), self.n_epoch]
    log = Log(); train([log], fit)
    for i, n in enumerate(log.seen):
        for e in range(n):
            for event in events:
                if event != 'after_fit' or e == n - 1: assert same(whole, resumed(tmp_path/f'{i}{e}{event}', [Stop(i, e, event)], make, fit=fit)), (i, e, event)
            assert same(whole, resumed(tmp_path/f'{i}{e}valid', [Stop(i, e, 'before_valid_batch', 0)], make, fit=fit))
            assert same(whole, resumed(tmp_path/f'{i}{e}before', [Stop(i, e, 'after_epoch', order=999, error=MemoryError('full'))], make, fit=fit))       # before it is written, and by an error

def test_twice_and_after_the_end(tmp_path):
    make = lambda: [ELR()]
    whole = train(make(), 'fine_tune', (3,))
    assert same(whole, resumed(tmp_path/'a', [Stop(0, 0, 'before_batch'), Stop(0, 0, 'after_epoch'), Stop(1, 0, 'after_step'), Stop(1, 2, 'before_batch')], make, fit='fine_tune', args=(3,)))
    class Count(Callback):
        run_valid, n = False, 0
        def after_step(self): self.n += 1
    count = Count()
    again = train([ELR(), Checkpoint(tmp_path/'a'), count], 'fine_tune', (3,))
    assert same(whole, again) and count.n == 0
    h = again.checkpoint.history
    assert list(h.fit) == [0, 1, 1, 1] and list(h.epoch) == [0, 0, 1, 2] and np.allclose(h[['train_loss', 'valid_loss', 'accuracy']].to_numpy()[1:], list(map(list, whole.recorder.values)))

def test_the_same_learner_goes_on_after_an_interruption(tmp_path):
    "As in a notebook, where the cell is run again."
    class Once(Callback):
        def after_step(self):
            if self.epoch == 1 and self.learn.first: self.learn.first = False; raise KeyboardInterrupt
    whole = train([ELR()], 'fine_tune')
    def again(learn):
        learn.first = True
        with learn.no_bar(), learn.no_logging():
            with pytest.raises(KeyboardInterrupt): learn.fine_tune(2)
    assert same(whole, train([ELR(), Checkpoint(tmp_path/'c'), Once()], 'fine_tune', before=again))

def test_the_callback_changes_nothing(tmp_path):
    for fit in FITS: assert same(train([ELR()], fit), train([ELR(), Checkpoint(tmp_path/fit)], fit))

@pytest.mark.parametrize('loader', [partial(dls_of, num_workers=2), partial(dls_of, dl_type=WeightedDL), partial(dls_of, bs=60)], ids=['workers', 'weighted', 'one batch'])
def test_loaders(loader, tmp_path): assert same(train(dls=loader), resumed(tmp_path/'c', [Stop(0, 1, 'after_step', 0), Stop(0, 2, 'before_validate')], dls=loader))

@pytest.mark.parametrize('opt', [partial(OptimWrapper, opt=torch.optim.AdamW), partial(OptimWrapper, opt=torch.optim.SGD, momentum=.9), partial(SGD, mom=.9), SGD, partial(Adam, decouple_wd=False)])
@pytest.mark.parametrize('fit', FITS)
@pytest.mark.slow
def test_optimizers(opt, fit, tmp_path):
    make = lambda: [NoiseAdaptation(warmup=0.)]
    assert same(train(make(), fit, opt_func=opt), resumed(tmp_path/'c', [Stop(0, 0, 'after_epoch'), Stop(0 if fit.startswith('fit') else 1, 1 if fit != 'fine_tune_gradual' else 0, 'after_step')], make, fit=fit, opt_func=opt))

class Half(Callback):
    "What `MixedPrecision` does on a GPU, on the CPU."
    order = 10
    def before_batch(self): self.cast = torch.autocast('cpu', dtype=torch.bfloat16); self.cast.__enter__()
    def after_pred(self): self.learn.pred = self.learn.pred.float()
    def after_loss(self): self.cast.__exit__(None, None, None)

@pytest.mark.parametrize('how', ['to_fp16', 'to_bf16', 'autocast'])
def test_mixed_precision(how, tmp_path):
    half = (lambda l: l.add_cb(Half())) if how == 'autocast' else lambda l: getattr(l, how)()
    make = lambda: [NNAQC(), ELR()]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert same(train(make(), before=half), resumed(tmp_path/'c', [Stop(0, 1, 'after_step')], make, before=half))

def test_the_scale_of_mixed_precision(tmp_path):
    class Scale(Callback):
        order = 10
        class Scaler:
            scale = 1.
            def state_dict(self): return dict(scale=self.scale)
            def load_state_dict(self, s): self.scale = s['scale']
        def before_fit(self): self.learn.scaler = self.Scaler()
        def after_step(self): self.learn.scaler.scale *= 2
        def after_fit(self): self.learn.last, self.learn.scaler = self.learn.scaler.scale, None
    assert train([Scale()]).last == resumed(tmp_path/'c', [Stop(0, 1, 'after_step')], lambda: [Scale()]).last == 2.**21

def test_what_is_left_over_of_gradients(tmp_path):
    "Gradients are accumulated across epochs; a part of the model that is not used in a batch is stepped by its momentum once it was used."
    assert same(train([GradientAccumulation(40), NNAQC()]), resumed(tmp_path/'c', [Stop(0, 1, 'before_batch'), Stop(0, 2, 'before_batch')], lambda: [GradientAccumulation(40), NNAQC()]))
    class Drop(nn.Module):
        def __init__(self): super().__init__(); self.all, self.some = net(), nn.Linear(K, K)
        def forward(self, x): z = self.all(x); return z + self.some(z) if torch.rand(1) < .2 or not self.training else z
    assert same(train(model=Drop, splitter=params), resumed(tmp_path/'d', [Stop(0, 1, 'before_batch'), Stop(0, 2, 'before_batch')], model=Drop, splitter=params))

def test_no_validation_set(tmp_path):
    empty = lambda: Datasets(range(N), [[vector], [label, Categorize(vocab=range(K))]], splits=[range(M), []]).dataloaders(bs=8, num_workers=0)
    assert same(train(dls=empty), resumed(tmp_path/'c', [Stop(0, 1, 'after_step')], dls=empty))
    assert same(train(dls=empty, metrics=None), resumed(tmp_path/'d', [Stop(0, 1, 'after_step')], dls=empty, metrics=None))

def test_data_of_other_kinds(tmp_path):
    "Numbers, pictures or several labels as targets, and loaders that are not fastai's."
    from fastai.data.core import DataLoaders
    from fastai.data.transforms import MultiCategorize, OneHotEncode
    from torch.utils.data import DataLoader, TensorDataset
    class Masks(Categorize):
        def encodes(self, o): seen.append(o); return torch.full((2, 2), int(o))
    def many(*tfms): return lambda: Datasets(range(N), [[vector], *tfms], splits=[range(M), range(M, N)], n_inp=1).dataloaders(bs=8, num_workers=0)
    def hot(i): return [label(i)]
    def square(z, y): return (z.float().mean() - y.float().mean())**2
    plain = lambda: DataLoaders(*[DataLoader(TensorDataset(X, X.sum(1)), batch_size=8, shuffle=s) for s in (True, False)])
    seen = []
    for i, dls in enumerate([many([lambda i: float(X[i].sum())]), many([label, Masks(vocab=range(K))]), many([hot, MultiCategorize(vocab=list(range(K))), OneHotEncode()])]):
        assert same(train(dls=dls, loss_func=square, metrics=None), resumed(tmp_path/f'{i}', [Stop(0, 1, 'after_step')], dls=dls, loss_func=square, metrics=None))
    ds = many([label, Masks(vocab=range(K))])().train_ds; seen.clear(); assert _labels(ds) == '' and len(seen) == 1      # masks are not read for their labels
    def run(*cbs):
        with seeded(1):
            learn = Learner(plain(), net(), loss_func=square, cbs=list(cbs))
            with learn.no_bar(), learn.no_logging(): learn.fit(3)
            return list(learn.model.parameters())
    with pytest.raises(KeyboardInterrupt): run(Checkpoint(tmp_path/'p'), Stop(0, 1, 'after_step'))
    assert all(torch.equal(a, b) for a, b in zip(run(), run(Checkpoint(tmp_path/'p'))))

# ---- beside other callbacks
def test_best_model_and_early_stopping(tmp_path):
    def make(folder): return lambda: [SaveModelCallback(fname=folder, monitor='accuracy'), EarlyStoppingCallback('accuracy', patience=2), CSVLogger(tmp_path/f'{folder}.csv'), ReduceLROnPlateau(patience=1), ELR(keep=True)]
    kw = dict(path=tmp_path, args=(12, 1e-2))
    for fit in ('fit', 'fine_tune'):
        whole = train(make('whole')(), fit, **kw)
        assert len(whole.recorder.values) < 12
        last = len(whole.recorder.values) - 1
        for i, (e, event) in enumerate([(last - 1, 'after_step'), (last, 'before_batch'), (last, 'after_fit')]):
            half = resumed(tmp_path/f'{fit}{i}', [Stop(int(fit == 'fine_tune'), e, event)], make('half'), fit=fit, **kw)
            assert same(whole, half)
            read = lambda f: [l.rsplit(',', 1)[0] for l in (tmp_path/f).read_text().splitlines()]
            assert read('whole.csv') == read('half.csv')
        assert same(whole, train([*make('half')(), Checkpoint(tmp_path/f'{fit}{i}')], fit, **kw))
        assert 'save' not in vars(half) and len(half.checkpoint.rows) == len(whole.recorder.values) + (fit == 'fine_tune')      # the epoch that was the last is among them

def test_a_fit_that_was_cancelled(tmp_path):
    class Cancel(Callback):
        order = 70
        def __init__(self, fit, epoch, event): self.at, self.event, self.fits = (fit, epoch), event, -1
        def before_fit(self): self.fits += 1
        def after_batch(self): self._if('after_batch', CancelFitException)
        def before_validate(self): self._if('before_validate', CancelEpochException)
        def after_epoch(self): self._if('after_epoch', CancelFitException)
        def _if(self, event, e):
            if self.event == event and self.at == (self.fits, self.epoch): raise e
    for i, (fit, epoch, event) in enumerate([(0, 0, 'after_batch'), (0, 0, 'after_epoch'), (0, 1, 'after_batch'), (1, 0, 'before_validate')]):
        make = lambda: [ELR(), Cancel(fit, epoch, event)]
        for stop in (Stop(1, 2, 'before_batch'), Stop(1, 0, 'before_batch')): assert same(train(make(), 'two_fits', (2, 3)), resumed(tmp_path/f'{i}{stop.at}', [stop], make, fit='two_fits', args=(2, 3))), (fit, epoch, event)

@pytest.mark.parametrize('before', ['lr_find', 'validate', 'get_preds'])
def test_what_is_no_training_leaves_no_trace(before, tmp_path):
    how = lambda learn: learn.lr_find(num_it=10, show_plot=False) if before == 'lr_find' else getattr(learn, before)()
    def quiet(learn):
        with learn.no_bar(), learn.no_logging(): how(learn)
    kw = dict(before=quiet, path=tmp_path)
    whole = train([ELR()], 'fine_tune', **kw)
    got = resumed(tmp_path/'c', [Stop(2, 1, 'after_step')], lambda: [ELR()], fit='fine_tune', **kw)      # what came before is a fit for `Stop`
    assert same(whole, got) and len(got.checkpoint.rows) == 3
    file = (tmp_path/'c').read_bytes()
    quiet(got)
    assert (tmp_path/'c').read_bytes() == file and len(got.checkpoint.rows) == 3
    assert same(whole, train([ELR(), Checkpoint(tmp_path/'c')], 'fine_tune', **kw))                      # a file of a whole training
    with got.no_bar(), got.no_logging(): p, q = got.get_preds()[0], got.get_preds()[0]
    assert len(p) == N - M

def test_between_two_fits_there_are_no_weights(tmp_path):
    def script(file, *own):
        with seeded(1):
            learn = Learner(dls_of(), net(), loss_func=CrossEntropyLossFlat(), metrics=accuracy, cbs=[Checkpoint(tmp_path/file)] if not own else [])
            with learn.no_bar(), learn.no_logging():
                learn.fit(1, cbs=[Checkpoint(tmp_path/o) for o in own[:1]]); first = learn.validate(); learn.fit(1, cbs=[Checkpoint(tmp_path/o) for o in own[1:]])
                return list(first), list(learn.recorder.values[-1])
    once = script('one')
    with pytest.raises(ValueError, match='one has the weights of a later fit.*a file of its own'): script('one')
    assert script('', 'a', 'b') == once == script('', 'a', 'b')

# ---- folds
@pytest.mark.parametrize('how', ['learner_fn', 'fit'])
def test_folds(how, tmp_path):
    def make(dls, cbs=()): return Learner(dls, net(), loss_func=CrossEntropyLossFlat(), metrics=accuracy, cbs=list(cbs), path=tmp_path)
    def run(*cbs):
        with seeded(1):
            kf = KFoldLearner(dls_of(), make if how == 'fit' else partial(make, cbs=cbs), n_splits=3, seed=2)
            return kf.fit(2, cbs=list(cbs) if how == 'fit' else None).predictions().pred_probs
    class Later(Callback):
        "Stops in the second fold."
        def after_step(self):
            if self.epoch == 1 and (tmp_path/'c_fold1.pth').exists(): raise KeyboardInterrupt
    whole, cb = run(), Checkpoint('c.pth')
    with pytest.raises(KeyboardInterrupt): run(cb, Later())
    assert sorted(f.name for f in tmp_path.glob('c*')) == ['c_fold0.pth', 'c_fold1.pth']
    assert [len(torch.load(tmp_path/f'c_fold{i}.pth', weights_only=True)['rows']) for i in range(2)] == [2, 1]
    assert np.array_equal(run(cb), whole)                     # the same instance
    assert np.array_equal(run(Checkpoint('c.pth')), whole)    # a new one, with nothing left to train
    assert [len(torch.load(tmp_path/f'c_fold{i}.pth', weights_only=True)['rows']) for i in range(3)] == [2, 2, 2]

def test_rounds_on_soft_targets(tmp_path):
    "A round that is passed over has been trained on its targets."
    def make(dls): return Learner(dls, net(), loss_func=CrossEntropyLossFlat(), cbs=Checkpoint('c.pth'), path=tmp_path)
    def run():
        with seeded(1): kf = KFoldLearner(dls_of(), make, n_splits=3, rounds=2, strict=False).fit(1); return kf.predictions().pred_probs
    assert np.array_equal(run(), run()) and len(list(tmp_path.glob('c*'))) == 6

# ---- files
@pytest.mark.parametrize('change, what', [(dict(model=partial(net, 9)), 'model'), (dict(dls=partial(dls_of, 57)), 'items'), (dict(dls=partial(dls_of, label=lambda i: (i + 1) % K)), 'labels'), (dict(dls=partial(dls_of, bs=7)), 'batch size'),
    (dict(args=(4,)), 'epochs'), (dict(args=(2,)), 'epochs'), (dict(args=(3, 1e-2)), 'learning rates'), (dict(wd=.3), 'learning rates'), (dict(fit='fit', args=(3,)), 'callbacks'), (dict(cbs=[ELR()]), 'callbacks'),
    (dict(loss_func=GeneralizedCrossEntropy()), 'loss'), (dict(opt_func=SGD), 'optimizer'), (dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)), 'optimizer'), (dict(splitter=params), 'optimizer'), (dict(fit='fine_tune', args=(2,)), 'epochs')])
def test_another_training(change, what, tmp_path):
    cb = Checkpoint(tmp_path/'c')
    train([cb, Stop(0, 1, 'after_step')])
    before = (tmp_path/'c').read_bytes()
    with pytest.raises(ValueError, match=f'c is of another training, with other .*{what}.*: delete it to train anew'): train(**{**change, 'cbs': [*change.get('cbs', []), Checkpoint(tmp_path/'c')]})
    assert (tmp_path/'c').read_bytes() == before
    (tmp_path/'c').unlink(); assert same(train(**change), train(**{**change, 'cbs': [*copy.deepcopy(change.get('cbs', [])), Checkpoint(tmp_path/'c')]})) if 'cbs' not in change else True

def test_another_setting_of_a_callback(tmp_path):
    train([ELR(lam=1), Checkpoint(tmp_path/'c'), Stop(0, 1, 'after_step')])
    with pytest.raises(ValueError, match='with other callbacks'): train([ELR(lam=3), Checkpoint(tmp_path/'c')])
    train([ELR(lam=1), Checkpoint(tmp_path/'c')])

def test_another_order_of_callbacks_is_the_same_training(tmp_path):
    train([ELR(), NoiseAdaptation(warmup=0.), Checkpoint(tmp_path/'c'), Stop(0, 1, 'after_step')])
    assert same(train([ELR(), NoiseAdaptation(warmup=0.)]), train([NoiseAdaptation(warmup=0.), Checkpoint(tmp_path/'c'), ELR()]))

def test_after_a_refusal_the_learner_is_as_good_as_before(tmp_path):
    train([Checkpoint(tmp_path/'c')])
    def refused(learn):
        with learn.no_bar(), learn.no_logging(), pytest.raises(ValueError, match='epochs'): learn.fit_one_cycle(2)
        with learn.no_bar(), learn.no_logging(): learn.validate()
        (tmp_path/'c').unlink()
    learn = train([Checkpoint(tmp_path/'c')], args=(2,), before=refused)
    assert len(learn.checkpoint.rows) == 2 and 'save' not in vars(learn)

@pytest.fixture(scope='module')
def whole_file(tmp_path_factory): train([Checkpoint(f := tmp_path_factory.mktemp('c')/'c')]); return f.read_bytes()

def broken(data):
    rng = np.random.default_rng(0)
    yield b''
    for n in [1, 2, 10, 100, *rng.integers(0, len(data), 25), len(data) - 1]: yield data[:n]
    for n in (1, 10, 1000, 100_000): yield rng.bytes(n)
    for n in range(25): yield b'\x80\x02' + rng.bytes(50)
    yield b'PK\x03\x04' + rng.bytes(1000); yield b'a text, and no checkpoint\n'*50

def test_files_that_are_no_checkpoints(whole_file, tmp_path):
    f = tmp_path/'c'
    def refused():
        with pytest.raises(ValueError, match='c cannot be read as a checkpoint: delete it to train anew') as e: train([Checkpoint(f)])
        assert len(str(e.value).strip().splitlines()) == 2      # fastai's own line, and ours
    for b in broken(whole_file): f.write_bytes(b); refused(); assert f.read_bytes() == b
    for o in (1, [1], dict(kind='another'), net().state_dict(), torch.zeros(2)): torch.save(o, f); refused()
    f.unlink(); f.mkdir(); refused()

def test_a_damaged_file_of_ours_is_written_over(whole_file, tmp_path):
    f = tmp_path/'c'
    f.write_bytes(whole_file[:len(whole_file)//2])
    with pytest.warns(FastcleanWarning, match='c is damaged: the training begins anew'): assert same(train([Checkpoint(f, replace=True)]), train())
    assert same(train([Checkpoint(f, replace=True)]), train())      # and it is whole again

def test_one_byte_that_changed_is_noticed(whole_file, tmp_path):
    "torch reads weights without their checksum."
    f, undisturbed = tmp_path/'c', train()
    with zipfile.ZipFile(io.BytesIO(whole_file)) as z: largest = [z.read(o) for o in sorted(z.infolist(), key=lambda o: -o.file_size)[:3]]
    for o in largest:
        i = whole_file.index(o) + len(o)//2
        f.write_bytes(whole_file[:i] + bytes([whole_file[i] ^ 255]) + whole_file[i + 1:])
        with pytest.raises(ValueError, match='c cannot be read as a checkpoint'): train([Checkpoint(f)])
        with pytest.warns(FastcleanWarning, match='c is damaged: the training begins anew'): assert same(train([Checkpoint(f, replace=True)]), undisturbed)

class Evil:
    def __reduce__(self): return os.mkdir, (Evil.path,)
@pytest.mark.parametrize('save', [lambda o, f: torch.save(o, f), lambda o, f: f.write_bytes(pickle.dumps(o)), lambda o, f: torch.save(o, f, _use_new_zipfile_serialization=False)])
def test_no_code_of_a_stranger(save, tmp_path):
    Evil.path = str(tmp_path/'done')
    save(dict(kind='fastclean checkpoint 1', fits=Evil()), tmp_path/'c')
    with pytest.raises(ValueError, match='cannot be read'): train([Checkpoint(tmp_path/'c')])
    assert not (tmp_path/'done').exists()

def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path/'file').write_text('x')
    class Count(Callback):
        n = 0
        def after_step(self): Count.n += 1
    with pytest.raises(OSError, match='no checkpoint can be written to .*file/c'): train([Checkpoint(tmp_path/'file'/'c'), Count()])
    assert Count.n == 0                                         # said before the training
    assert len(train([Checkpoint(tmp_path/'new'/'folders'/'c')]).checkpoint.rows) == 3 and (tmp_path/'new'/'folders'/'c').is_file()

def test_a_disk_that_is_full(tmp_path, monkeypatch):
    train([Checkpoint(tmp_path/'c'), Stop(0, 0, 'after_epoch')])
    before, save = (tmp_path/'c').read_bytes(), torch.save
    def full(o, f): save(o, f); f.write_bytes(f.read_bytes()[:100]); raise OSError(28, 'No space left on device')
    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='checkpoint cannot be written to .*No space left'): train([Checkpoint(tmp_path/'c')])
    assert (tmp_path/'c').read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ['c']
    monkeypatch.undo()
    assert same(train(), train([Checkpoint(tmp_path/'c')]))

def _long(folder):
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); learn = train([ELR(), NoiseAdaptation(warmup=0.), Checkpoint(folder/'c')], 'fine_tune', (20,))
    torch.save(everything(learn), folder/'new'); os.replace(folder/'new', folder/'end')

def test_killed(tmp_path):
    "A process that dies at any moment, by the signal that nobody can catch."
    (tmp_path/'a').mkdir(); (tmp_path/'b').mkdir()
    started = time.time(); _long(tmp_path/'a'); epoch = (time.time() - started)/21
    c, rng = tmp_path/'b'/'c', random.Random(0)
    def start(): p = multiprocessing.get_context('fork').Process(target=_long, args=(tmp_path/'b',)); p.start(); return p
    def written(): return c.stat().st_mtime_ns if c.exists() else 0
    for _ in range(5):
        p = start()
        for _ in range(rng.randint(1, 3)):                      # some epochs on, and some way into the next
            was = written()
            while p.is_alive() and written() == was: time.sleep(.001)
        time.sleep(rng.uniform(0, epoch)); p.kill(); p.join()
        assert p.exitcode == -9 and torch.load(c, weights_only=True)['rows']
    start().join()
    a, b = (torch.load(tmp_path/o/'end', weights_only=True) for o in 'ab')
    assert differ(a, b) == []

# ---- size
def test_as_large_as_what_it_keeps(tmp_path):
    def entries(n): train([Checkpoint(tmp_path/f'{n}')], args=(n,)); return len(zipfile.ZipFile(tmp_path/f'{n}').namelist()), (tmp_path/f'{n}').stat().st_size
    (few, small), (many, large) = entries(1), entries(9)
    assert few == many and large - small < 9*8*100              # a number or two for each batch, and no file of its own
    big = partial(net, 600); train([Checkpoint(tmp_path/'big')], args=(1,), model=big)
    model = sum(o.numel()*4 for o in big().parameters())
    assert 3*model < (tmp_path/'big').stat().st_size < 3.1*model + 60_000      # weights and the two means of Adam

def test_export_and_copies(tmp_path):
    big = partial(net, 600); model = sum(o.numel()*4 for o in big().parameters())
    train([Checkpoint(tmp_path/'c'), Stop(0, 1, 'after_step')], model=big)
    learn = train([Checkpoint(tmp_path/'c')], model=big, path=tmp_path)
    learn.export('l.pkl')
    assert (tmp_path/'l.pkl').stat().st_size < model + 100_000
    stopped = train([Checkpoint(tmp_path/'c'), Stop(0, 2, 'before_batch')], model=big, path=tmp_path); stopped.export('s.pkl')
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); again = load_learner(tmp_path/'l.pkl')
    assert torch.equal(again.model.eval()(X), learn.model.eval()(X)) and (tmp_path/'s.pkl').stat().st_size < model + 100_000
    with again.no_bar(): assert again.get_preds(dl=learn.dls.valid)[0].shape == (N - M, K)
    for o in (copy.deepcopy(learn.checkpoint), pickle.loads(pickle.dumps(Checkpoint('x')))): assert type(o) is Checkpoint and o.fname.name in ('c', 'x') and o._saved is None

def test_what_cannot_be_kept_is_said(tmp_path):
    class Odd(ELR):
        _resumes = ('odd',)
        odd = None
        def begin(self): super().begin(); self.odd = object()
    with pytest.raises(ValueError, match='a object is none of them'): train([Odd(), Checkpoint(tmp_path/'c')])

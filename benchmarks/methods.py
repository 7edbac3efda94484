"""Every method of `train_robust` beside cross entropy that was tuned, under six kinds of wrong labels: where a robust method wins and where it does not.

    python benchmarks/methods.py run [--sets cifar10 mnist] [--noises …] [--methods …] [--seeds 0 1 2] [--jobs 2] [--hours 12]
    python benchmarks/methods.py run --sets digits --noises 'symmetric .5' --seeds 0 --out FILE    # minutes, without any data
    python benchmarks/methods.py table

5,000 training images of MNIST and of CIFAR-10, 28 and 32 pixels, a plain convolutional network (`Net`) from scratch, Adam with one cycle of 12 epochs at 5e-3, batches of 128; CIFAR's images are mirrored at
random. Accuracy on 2,500 test images with right labels after each epoch: the last one counts; the best one, which nobody could choose without them, shows what memorising costs. `tuned` is cross entropy whose
learning rate (2e-3, 5e-3, 1.5e-2) and length (3, 6, 12 epochs) are chosen for each noise and seed by 1,000 more images with labels as wrong as those of the training; all other methods have the settings that they
have in the package. Methods that need predictions get them from three folds of the same network, smoothed, 6 epochs. Margin noise comes from the same network trained on 5,000 other images; `human` are
the labels that one person gave to each CIFAR-10 image. `--sets imagenette --noises 'symmetric .5' 'pair .4'` takes 5,000 photographs at 64 pixels and a ResNet-18 from scratch instead, `imagenette-small` 3,000 of them and the plain network. Data from fastai's data folder. A row of methods.csv for each training, as it comes; rows that are there are not made again.
"""
import argparse, json, os, time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
OUT = Path(__file__).with_name('methods.csv')
NOISES = ['symmetric .5', 'human', 'margin .3', 'pair .4', 'symmetric .2', 'symmetric .8']
KEYS = ['set', 'noise', 'seed', 'method']
EPOCHS, LR, RATES, LENGTHS = 12, 5e-3, (2e-3, 5e-3, 1.5e-2), (3, 6, 12)
N, N_TUNE, N_TEST = 5000, 1000, 2500
SIZES = {'digits': (500, 200, 500), 'imagenette': (5000, 1000, 2500), 'imagenette-small': (3000, 600, 2500)}   # of training, tuning and test, where they are others

MIRRORED = ('cifar10', 'imagenette', 'imagenette-small')

def sizes(name): return SIZES.get(name, (N, N_TUNE, N_TEST))

def files(name):
    "Names, class names and paths of all training and of all test images, in an order that does not change."
    if name == 'digits': return digits()
    folder, splits = dict(mnist=('mnist_png', ('training', 'testing')), cifar10=('cifar10', ('train', 'test')), imagenette=('imagenette2-160', ('train', 'val')))[name.removesuffix('-small')]
    return [sorted((f, k.name, f'{k.path}/{f}') for k in os.scandir(DATA/folder/s) if k.is_dir() for f in os.listdir(k.path) if '.' in f[1:]) for s in splits]

def digits():
    "scikit-learn's digits: no file is needed."
    from sklearn.datasets import load_digits
    d = load_digits()
    rows = [(f'{i:04d}', str(y), np.uint8(o*15.9)) for i, (o, y) in enumerate(zip(d.images, d.target))]
    return rows[:1200], rows[1200:]

def kept(at, make):
    "An array that is made once."
    if not at.exists(): save(at, make())
    return np.load(at)

def pixels(rows, name):
    "Images, (n, 3, h, w), from −1 to 1."
    from PIL import Image
    side = dict(digits=24, imagenette=64).get(name.removesuffix('-small'))
    def read(o):
        im = (Image.fromarray(o) if isinstance(o, np.ndarray) else Image.open(o)).convert('RGB')
        return np.asarray(im.resize((side, side), Image.Resampling.BILINEAR) if side else im)
    return (np.stack([read(o[2]) for o in rows]).transpose(0, 3, 1, 2)/np.float32(127.5) - 1).astype(np.float32)

def sample(name, seed):
    "Images of training and tuning, of the reference of margin noise, and of the test: pixels, true class numbers, paths."
    train, test = files(name)
    vocab = sorted({o[1] for o in train})
    rng, (n, n_tune, n_test) = np.random.default_rng(seed), sizes(name)
    a = [train[i] for i in rng.permutation(len(train))[:2*n + n_tune]]
    b = [test[i] for i in rng.permutation(len(test))[:n_test]]
    return vocab, *[(o, np.array([vocab.index(r[1]) for r in o])) for o in (a[:n + n_tune], a[n + n_tune:], b)]

def network(large=False, K=10, w=16):
    "A plain convolutional network that can learn labels by heart, or a ResNet-18; half precision where the processor has it."
    import torch
    from torch import nn
    from torchvision.models import resnet18
    conv = lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
    class Net(nn.Sequential):
        def forward(self, x):
            with torch.autocast('cpu', torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()):
                return super().forward(x.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last)).float()
    if large: return Net(resnet18(num_classes=K)).to(memory_format=torch.channels_last)
    return Net(conv(3, w, 2), conv(w, 2*w, 1), conv(2*w, 2*w, 2), conv(2*w, 4*w, 1), conv(4*w, 4*w, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16*w, K)).to(memory_format=torch.channels_last)

def learner(dls, large=False):
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy
    learn = Learner(dls, network(large), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    learn.logger = lambda o: None
    return learn.remove_cb(learn.progress) if hasattr(learn, 'progress') else learn

def learner_of(name): return partial(learner, large=name == 'imagenette')

def loaders(x, y, split, vocab, mirror):
    "DataLoaders of the arrays: training, valid (the test images) and, for tuning, more with wrong labels."
    from fasttransform import ItemTransform
    from fastclean.frozen import array_dls
    import torch
    class Mirror(ItemTransform):
        split_idx = 0
        def encodes(self, b): return (torch.where(torch.rand(len(b[0]), 1, 1, 1) < .5, b[0].flip(-1), b[0]), *b[1:])
    return array_dls(x, [vocab[k] for k in y], split, vocab, bs=128, batch_tfms=[Mirror()] if mirror else None)

def clean_reference(name, seed, vocab, others, x, work):
    "Probabilities of the network trained on other images with right labels."
    def train():
        from fastclean.foldtask import repeatable
        xs = np.concatenate([pixels(others[0], name), x])
        dls = loaders(xs, np.concatenate([others[1], np.zeros(len(x), int)]), np.repeat(['train', 'valid'], [len(others[0]), len(x)]), vocab, name in MIRRORED)
        with repeatable(seed): learn = learner_of(name)(dls); learn.fit_one_cycle(EPOCHS, LR)
        return learn.get_preds()[0].numpy()
    return kept(work/f'reference_{name}_{seed}.npy', train)

def save(path, a):
    "An array in a file, at once."
    tmp = path.with_name(f'{path.stem}.{os.getpid()}.npy')
    np.save(tmp, a); tmp.replace(path)

def given_labels(name, noise, seed, vocab, items, others, x, work):
    "Class numbers with the noise in them."
    from fastclean.noise import MarginNoise, PairNoise, SymmetricNoise
    rows, y = items
    kind, *rate = noise.split()
    if kind == 'human':
        d = pd.read_csv(DATA/'cifar10'/'human_labels.csv')
        label = dict(zip(d.path.map(lambda o: Path(o).name), d.human_label))
        return np.array([vocab.index(label[r[0]]) for r in rows])
    rate = float(rate[0])
    model = MarginNoise(rate, pred_probs=clean_reference(name, seed, vocab, others, x, work)) if kind == 'margin' else dict(symmetric=SymmetricNoise, pair=PairNoise)[kind](rate)
    return model(y, [r[0] for r in rows], vocab, seed)

def data(name, noise, seed, work, n):
    "DataLoaders with n training images, the classes, and of those images the true and the given class numbers."
    vocab, items, others, test = sample(name, seed)
    x, held = (kept(work/f'{part}_{name}_{seed}.npy', lambda: pixels(rows, name)) for part, rows in (('train', items[0]), ('test', test[0])))
    given, (most, n_tune, n_test) = given_labels(name, noise, seed, vocab, items, others, x, work), sizes(name)
    split = np.repeat(['train', 'unused', 'test', 'valid'], [n, most - n, n_tune, n_test])
    return loaders(np.concatenate([x, held]), np.concatenate([given, test[1]]), split, vocab, name in MIRRORED), vocab, items[1][:n], given[:n]

class _History:
    "Accuracy on the test images after each epoch, over all steps."
    def __init__(self): self.acc = []
    def __call__(self, step):
        from fastai.callback.core import Callback
        acc = self.acc
        class History(Callback):
            order = 90
            def after_epoch(self): acc.append(float(self.recorder.values[-1][-1]))
        return [History()]

def predictions(dls, key, work):
    "Of the training items, by three folds of the network."
    from fastclean.core import Predictions
    from fastclean.kfold import KFoldLearner
    from fastai.losses import LabelSmoothingCrossEntropyFlat
    at = work/('preds_' + '_'.join(map(str, key)).replace(' ', ''))
    if not (at/'done').exists():
        def make(dls): learn = learner_of(key[0])(dls); learn.loss_func = LabelSmoothingCrossEntropyFlat(); return learn
        kf = KFoldLearner(dls, make, n_splits=3, seed=key[-1])
        p = kf.run(partial(_fold_fit, epochs=6)).predictions()
        p[np.flatnonzero(p.split == 'train')].save(at)
        (at/'done').touch()
    return Predictions.load(at)

def _fold_fit(learn, epochs): learn.fit_one_cycle(epochs, LR)

def tune(dls, make, seed, epochs, small):
    "Accuracy on labels as wrong as those of the training, of each learning rate and length."
    from fastclean.loaders import learner_probs, plain_dl, given_labels as labels
    from fastclean.methods import train_robust
    y, got = labels(dls[2].dataset), {}
    for lr in RATES[:1] if small else RATES:
        for n in LENGTHS:
            learn = train_robust(dls, make, 'plain', max(1, n*epochs//EPOCHS), lr, seed=seed + 1000)
            got[lr, n] = float((learner_probs(learn, plain_dl(dls, dls[2].dataset)).argmax(1) == y).mean())
    return max(got, key=got.get)

def run(name, noise, seed, method, work, n=None, epochs=EPOCHS):
    "A row: one training."
    import torch
    from fastclean.methods import METHODS, train_robust
    torch.set_num_threads(1)
    most, make = sizes(name)[0], learner_of(name)
    n = min(n or most, most)
    dls, vocab, true, given = data(name, noise, seed, work, n)
    start, how, watch = time.process_time(), dict(epochs=epochs, lr=LR), _History()
    if method == 'tuned': lr, k = tune(dls, make, seed, epochs, n < most); how = dict(lr=lr, epochs=max(1, k*epochs//EPOCHS))
    preds = predictions(dls, (name, noise, n, seed), work) if method != 'tuned' and METHODS[method].needs_preds else None
    ready = time.process_time()
    train_robust(dls, make, 'plain' if method == 'tuned' else method, **how, preds=preds, seed=seed, watch=watch)
    return dict(set=name, noise=noise, seed=seed, method=method, wrong=round(float((given != true).mean()), 4), last=round(watch.acc[-1], 4), best=round(max(watch.acc), 4), best_epoch=int(np.argmax(watch.acc)) + 1,
                seconds=round(time.process_time() - ready, 1), seconds_before=round(ready - start, 1), settings=json.dumps(how), history=' '.join(f'{o:.4f}' for o in watch.acc))

def make_rows(a, keys, run, said=('last', 'best', 'seconds')):
    "Rows of a CSV that are not there yet, by a function of set, noise, seed and method: each is written as it comes."
    a.work.mkdir(parents=True, exist_ok=True)
    rows, end = pd.read_csv(a.out).to_dict('records') if a.out.exists() else [], time.time() + 3600*a.hours
    there = {tuple(r[k] for k in KEYS) for r in rows}
    todo = [k for k in keys if (k[0] == 'cifar10' or k[1] != 'human') and k not in there]
    if not todo: return
    print(f'{len(todo)} trainings to make, {len(there)} are there', flush=True)
    def late(*key): return run(*key) if time.time() < end else None
    for row in Parallel(a.jobs, return_as='generator_unordered', pre_dispatch='2*n_jobs')(delayed(late)(*k) for k in todo):
        if row is None: continue
        rows.append(row)
        tmp = a.out.with_suffix('.tmp'); pd.DataFrame(rows).sort_values(KEYS).to_csv(tmp, index=False); tmp.replace(a.out)
        print({k: row[k] for k in (*KEYS, *said)}, flush=True)

def make(a):
    from fastclean.methods import METHODS
    methods = a.methods or ['plain', 'tuned', *[o for o, m in METHODS.items() if o != 'plain' and m.course != 'two']]   # two networks: semisup.py
    make_rows(a, [(d, o, s, m) for s in a.seeds for o in a.noises for d in a.sets for m in methods], partial(run, work=a.work, n=a.n, epochs=a.epochs))
    table(a)

def table(a):
    d = pd.read_csv(a.out)
    d['cell'] = d.set + ' ' + d.noise
    for c in ('last', 'best'): print(f'\naccuracy, {c} epoch: mean over seeds\n' + d.pivot_table(index='method', columns='cell', values=c).assign(mean=lambda o: o.mean(axis=1)).sort_values('mean', ascending=False).round(3).to_string())

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'table'])
    p.add_argument('--sets', nargs='*', default=['cifar10', 'mnist'])
    p.add_argument('--noises', nargs='*', default=NOISES)
    p.add_argument('--methods', nargs='*')
    p.add_argument('--seeds', nargs='*', type=int, default=range(3))
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--hours', type=float, default=12, help='begin no training after so many hours')
    p.add_argument('--n', type=int, help='training images, for a smaller grid')
    p.add_argument('--epochs', type=int, default=EPOCHS, help='for a smaller grid')
    p.add_argument('--out', type=Path, default=OUT)
    p.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-benchmark/methods').expanduser(), help='folder for predictions that several methods share')
    a = p.parse_args()
    dict(run=make, table=table)[a.what](a)

if __name__ == '__main__': main()

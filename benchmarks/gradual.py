"""`fine_tune_gradual` against `fine_tune` at equal epochs on the same noisy data, each with and without label smoothing.

`python benchmarks/gradual.py [--epochs 4] [--rates .3 .4] [--seeds 0 1 2]`: EfficientNet-Lite0, pretrained on ImageNet, on 500 images of MNIST at 32 pixels or
of cats and dogs at 64, of which a share has another label drawn at random; accuracy on 1,000 test images with right labels after the last epoch. (CIFAR-10 at 32 pixels,
`--sets cifar10`, gets no further than .2 with so few images, whatever the method.) All four trainings of a seed start from the
same weights, with the same items, wrong labels, batch size and learning rate (2e-3, fastai's default). Data from fastai's data folder; rows go to
benchmarks/gradual.csv as they come, and rows that are there are not run again.
"""
import argparse, os, time
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
OUT = Path(__file__).with_name('gradual.csv')
SETS = dict(mnist=('mnist_png', 'training', 'testing', 32), cats_dogs=('cats_dogs', 'training_set', 'test_set', 64), cifar10=('cifar10', 'train', 'test', 32))
METHODS = ('fine_tune', 'fine_tune smoothed', 'gradual', 'gradual smoothed')

def loaders(name, rate, seed, n=500, n_test=1000):
    "Training items with wrong labels and test items with right ones."
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize
    import fastclean.inject   # `DataLoaders.with_noise`
    from fastclean.noise import SymmetricNoise
    folder, *splits, size = SETS[name]
    rng, rows = np.random.default_rng(seed), []
    for split, k in zip(splits, (n, n_test)):
        files = sorted((DATA/folder/split).glob('*/*.*g'))
        rows += [(o.relative_to(DATA/folder).as_posix(), o.parent.name, split == splits[1]) for o in (files[i] for i in rng.permutation(len(files))[:k])]
    d = pd.DataFrame(rows, columns=['path', 'label', 'is_valid']).set_index('path', drop=False)
    dls = ImageDataLoaders.from_df(d, DATA/folder, fn_col='path', label_col='label', valid_col='is_valid', item_tfms=Resize(size), batch_tfms=Normalize.from_stats([.5]*3, [.5]*3), bs=32, num_workers=0)
    return dls.with_noise(SymmetricNoise(rate), seed=seed) if rate else dls

def run(name, rate, epochs, seed, method):
    "Accuracy on the test images."
    from fastai.vision.all import CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat, Learner, accuracy, nn, params
    from fastcore.basics import noop
    import fastclean.recipe   # `Learner.fine_tune_gradual`
    from fastclean.features import load_backbone
    from fastclean.foldtask import repeatable
    how, smooth = method.split()[0], method.endswith('smoothed')
    with repeatable(seed):
        dls = loaders(name, rate, seed)
        model = nn.Sequential(load_backbone().model.requires_grad_(True), nn.Linear(1280, dls.c))
        loss = LabelSmoothingCrossEntropyFlat() if smooth and how == 'fine_tune' else CrossEntropyLossFlat()
        learn = Learner(dls, model, loss_func=loss, metrics=accuracy, splitter=lambda m: [params(m[0]), params(m[1])])
        start = time.time()
        with learn.no_bar(), learn.no_logging():
            if how == 'fine_tune': learn.fine_tune(epochs)
            else: learn.fine_tune_gradual(epochs, label_smoothing=.1*smooth, sink=noop)
            return round(float(learn.validate()[1]), 4), round(time.time() - start, 1)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='*', default=['mnist', 'cats_dogs'])
    p.add_argument('--epochs', nargs='*', type=int, default=[4])
    p.add_argument('--rates', nargs='*', type=float, default=[.3])
    p.add_argument('--seeds', nargs='*', type=int, default=range(3))
    a = p.parse_args()
    rows, keys = pd.read_csv(OUT).to_dict('records') if OUT.exists() else [], ['set', 'rate', 'epochs', 'seed', 'method']
    for key in ((s, r, e, k, m) for e in a.epochs for s in a.sets for r in a.rates for k in a.seeds for m in METHODS):
        if any(tuple(r[k] for k in keys) == key for r in rows): continue
        acc, seconds = run(*key)
        rows.append(dict(zip(keys, key)) | dict(accuracy=acc, seconds=seconds))
        pd.DataFrame(rows).sort_values(keys).to_csv(OUT, index=False)
        print(rows[-1], flush=True)
    print(pd.DataFrame(rows).pivot_table(index=['set', 'rate', 'epochs'], columns='method', values='accuracy', aggfunc=['mean', 'std']).round(4).to_string())

if __name__ == '__main__': main()

"""How many of the wrong labels `fastclean find` finds, on data sets whose truth is known.

`python benchmarks/find_labels.py [--cells imagenette-5 cifar10-human ...] [--seeds 0 1 2 3 4]`: runs the command line with its default settings on each cell and
seed, compares issues.csv with the truth, and adds a row to benchmarks/find_labels.csv as each run ends; rows that are there are not run again. The data are
fastai's Imagenette (with noisy_imagenette.csv), MNIST and CIFAR-10 (with human_labels.csv) in fastai's data folder; features are kept between runs, and the
first run of a set has their time in it (`features` in the table says which).
"""
import argparse, json, os, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
OUT = Path(__file__).with_name('find_labels.csv')
CELLS = ['imagenette-0', 'imagenette-1', 'imagenette-5', 'imagenette-25', 'imagenette-50', 'mnist-symmetric-0.1', 'cifar10-human', 'mnist-symmetric-0.1-finetune']

def table(cell, seed):
    "A table of path, label, true label and split for one cell."
    name, *how = cell.split('-')
    if name == 'imagenette':
        d = pd.read_csv(DATA/'imagenette2-160'/'noisy_imagenette.csv')
        return pd.DataFrame(dict(path=[str(DATA/'imagenette2-160'/o) for o in d.path], label=d[f'noisy_labels_{how[0]}'], true_label=d.noisy_labels_0, is_valid=d.is_valid))
    if name == 'cifar10':
        d = pd.read_csv(DATA/'cifar10'/'human_labels.csv').iloc[:10_000]
        return pd.DataFrame(dict(path=[str(DATA/'cifar10'/o) for o in d.path], label=d.human_label, true_label=d.true_label))
    files = sorted((DATA/'mnist_png'/'training').rglob('*.png'))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:10_000]]
    from fastclean.inject import add_noise
    from fastclean.noise import SymmetricNoise
    d = pd.DataFrame(dict(path=list(map(str, files)), true_label=[f.parent.name for f in files]))
    names = [f.relative_to(DATA).as_posix() for f in files]
    vocab = sorted(set(d.true_label))
    y = np.array([vocab.index(o) for o in d.true_label])
    return d.assign(label=[vocab[k] for k in SymmetricNoise(float(how[1]))(y, names, vocab, seed)])

def run(cell, seed, work):
    "One run of the command line; a row of figures."
    d = table(cell, seed)
    src, out = work/f'{cell}-{seed}.csv', work/f'{cell}-{seed}'
    d.drop(columns='true_label').to_csv(src, index=False)
    extra = ['--mode', 'finetune'] if cell.endswith('finetune') else ['--cache', str(work/'features')]
    before = len(list((work/'features').glob('*'))) if (work/'features').exists() else 0
    start = time.time()
    subprocess.run([sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))', 'find', str(src), '--item-col', 'path', '--label-col', 'label',
                    '--out', str(out), '--seed', str(seed), *extra], check=True)
    seconds, after = time.time() - start, len(list((work/'features').glob('*'))) if (work/'features').exists() else 0
    from fastclean.issues import read_issues
    issues, summary = read_issues(out/'issues.csv'), json.loads((out/'summary.json').read_text())
    m = issues.merge(d[['path', 'true_label']], left_on='item', right_on='path', validate='one_to_one')
    if len(m) != len(d): raise ValueError(f'{len(m)} of {len(d)} items are in issues.csv')
    m = m[m.split == 'train']
    wrong, found = (m.given_label.astype(str) != m.true_label.astype(str)), m.is_label_issue
    hit = int((wrong & found).sum())
    return dict(cell=cell, seed=seed, n=len(m), wrong=int(wrong.sum()), flagged=int(found.sum()), hit=hit, precision=round(hit/max(int(found.sum()), 1), 4), recall=round(hit/int(wrong.sum()), 4) if wrong.any() else None,
                f1=round(2*hit/int(found.sum() + wrong.sum()), 4) if wrong.any() else None, ap=round(average_precision_score(wrong, -m.label_score), 4) if wrong.any() else None,
                rate=round(summary['noise_rate']['rate'], 4), low=round(summary['noise_rate']['low'], 4), high=round(summary['noise_rate']['high'], 4),
                size=summary['settings'].get('image_size') or 32, seconds=round(seconds, 1), features='computed' if after > before or cell.endswith('finetune') else 'kept')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--cells', nargs='*', default=CELLS)
    p.add_argument('--seeds', nargs='*', type=int, default=range(5))
    p.add_argument('--work', type=Path, default=Path(tempfile.gettempdir())/'fastclean-benchmark', help='folder for tables, results and features')
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(OUT).to_dict('records') if OUT.exists() else []
    for seed in a.seeds:
        for cell in a.cells:
            if any(r['cell'] == cell and r['seed'] == seed for r in rows): continue
            rows.append(run(cell, seed, a.work))
            pd.DataFrame(rows).sort_values(['cell', 'seed']).to_csv(OUT, index=False)
            print(rows[-1], flush=True)
    d = pd.DataFrame(rows)
    print(d.groupby('cell')[['wrong', 'flagged', 'precision', 'recall', 'f1', 'ap', 'seconds']].mean().round(4).to_string())
    print('lowest and highest F1:', {c: (g.f1.min(), g.f1.max()) for c, g in d.groupby('cell') if g.f1.notna().any()})

if __name__ == '__main__': main()

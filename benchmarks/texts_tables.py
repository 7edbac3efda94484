"""How many of the wrong labels `fastclean find` finds in texts and in tables.

`python benchmarks/texts_tables.py [--sets digits wine breast_cancer tweets] [--seeds 0 ... 9]`: makes a share of the labels wrong (symmetric noise), runs the command line with
its default settings, compares issues.csv with the truth and with what cleanlab's default filter marks on the same probabilities, and adds a row to texts_tables.csv as each run
ends; rows that are there are not run again. `--top FILE` runs the tweets with the labels as they are given and writes the first 50 suspects to a file, to be read by hand.
The tables are scikit-learn's own; the tweets are the training set of WNUT-2020 task 2 in fastai's data folder (`covid19tweet`), which may not be passed on: choose a FILE
outside the repository.
"""
import argparse, contextlib, io, json, os, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.metrics import average_precision_score

from fastclean.cli import main as fastclean
from fastclean.core import Predictions
from fastclean.issues import find_label_issues, read_issues
from fastclean.noise import SymmetricNoise

DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
OUT = Path(__file__).with_name('texts_tables.csv')
SETS = ['wine', 'breast_cancer', 'digits', 'tweets']

def clean(name):
    "A data set as a frame with its true labels in `label`."
    if name == 'tweets': return pd.read_csv(DATA/'covid19tweet'/'train.tsv', sep='\t', quoting=3, dtype=str).rename(columns={'Text': 'text', 'Label': 'label'})[['text', 'label']]
    d = getattr(datasets, f'load_{name}')(as_frame=True)
    return d.data.assign(label=np.asarray([str(o) for o in d.target_names], dtype=object)[d.target])

def find(d, work, seed):
    "`fastclean find` on a frame; the folder of its result."
    src, out = work/'table.csv', work/'found'
    d.to_csv(src, index=False)
    args = ['find', src, '--label-col', 'label', '--out', out, '--seed', seed, '--force', '--cache', work/'features', *(['--text-col', 'text'] if 'text' in d else [])]
    with contextlib.redirect_stdout(io.StringIO()): code = fastclean(list(map(str, args)))
    if code: raise RuntimeError(f'fastclean find ended with {code}')
    return out

def scores(wrong, found, prefix=''):
    hit = int((wrong & found).sum())
    return {f'{prefix}flagged': int(found.sum()), f'{prefix}precision': round(hit/max(int(found.sum()), 1), 4), f'{prefix}recall': round(hit/max(int(wrong.sum()), 1), 4),
            f'{prefix}f1': round(2*hit/max(int(found.sum() + wrong.sum()), 1), 4)}

def done(): return pd.read_csv(OUT).to_dict('records') if OUT.exists() else []

def run(name, rate, seed, work):
    "One run; a row of figures."
    d = clean(name)
    vocab = sorted(set(d.label))
    true = np.array([vocab.index(o) for o in d.label])
    given = SymmetricNoise(rate)(true, [str(i) for i in range(len(d))], vocab, seed)
    start = time.time()
    out = find(d.assign(label=[vocab[k] for k in given]), work, seed)
    seconds = time.time() - start
    wrong, issues, preds = given != true, read_issues(out/'issues.csv'), Predictions.load(out/'predictions')
    at = issues['item'].astype(int).to_numpy()
    if len(issues) != len(d): raise RuntimeError(f'{len(issues)} of {len(d)} rows are in issues.csv')
    lab = find_label_issues(preds, filter_by='prune_by_noise_rate')
    lab_at = lab['item'].astype(int).to_numpy()
    summary = json.loads((out/'summary.json').read_text())['noise_rate']
    return dict(set=name, rate=rate, seed=seed, n=len(d), wrong=int(wrong.sum()), accuracy=round(float((preds.pred_probs.argmax(1) == true[preds.items.astype(int)]).mean()), 4),
                **scores(wrong[at], issues.is_label_issue.to_numpy(bool)), ap=round(average_precision_score(wrong[at], -issues.label_score), 4),
                **scores(wrong[lab_at], lab.is_label_issue.to_numpy(bool), 'cleanlab_'), cleanlab_ap=round(average_precision_score(wrong[lab_at], -lab.label_score), 4),
                estimated=round(summary['rate'], 4), low=round(summary['low'], 4), high=round(summary['high'], 4), seconds=round(seconds, 1))

def top(file, work, n=50):
    "The first suspects among the tweets as they are, to be read."
    d = clean('tweets')
    issues = read_issues(find(d, work, 0)/'issues.csv').head(n)
    issues.assign(text=d.text.to_numpy()[issues['item'].astype(int)])[['item', 'given_label', 'suggested_label', 'suggested_prob', 'certainty', 'text']].to_csv(file, index=False)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='*', default=SETS)
    p.add_argument('--rates', nargs='*', type=float, default=[.1, .3])
    p.add_argument('--seeds', nargs='*', type=int, default=range(10))
    p.add_argument('--work', type=Path, default=Path(tempfile.gettempdir())/'fastclean-texts-tables', help='folder for tables, results and features')
    p.add_argument('--top', type=Path, help='file for the first 50 suspects of the tweets as they are labelled')
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.top: (a.work/'tweets').mkdir(exist_ok=True); return top(a.top, a.work/'tweets')
    for seed in a.seeds:
        for name in a.sets:
            for rate in a.rates:
                if any((r['set'], r['rate'], r['seed']) == (name, rate, seed) for r in done()): continue
                (a.work/name).mkdir(exist_ok=True)
                row = run(name, rate, seed, a.work/name)
                pd.DataFrame([*done(), row]).sort_values(['set', 'rate', 'seed']).to_csv(OUT, index=False)   # read again: another run may have added rows
                print({k: v for k, v in row.items() if not k.startswith('cleanlab')}, flush=True)
    d = pd.read_csv(OUT)
    print(d.groupby(['set', 'rate'])[['accuracy', 'f1', 'cleanlab_f1', 'ap', 'cleanlab_ap', 'precision', 'recall', 'seconds']].mean().round(3).to_string())

if __name__ == '__main__': main()

"The scripts of the experiments: their tables agree with the truth, and they run on real data where it is there."
import os, subprocess, sys
from pathlib import Path

import pandas as pd
import pytest

ROOT, DATA = Path(__file__).resolve().parent.parent, Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'

def run(script, *args, cwd):
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    r = subprocess.run([sys.executable, str(ROOT/'experiments'/script), *args], cwd=cwd, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stdout

def test_the_table_counts_what_is_in_the_files(tmp_path):
    d = pd.DataFrame(dict(path=list('abcdefgh'), noisy_labels_0='x', noisy_labels_5=['y', 'y', 'y', 'x', 'x', 'x', 'x', 'x'], is_label_issue=[True, True, False, True, False, False, False, False]))
    for name, suffix in (('imagenette_labelsmoothing', ''), ('imagenette_labelsmoothing', '_in_sample'), ('imagenette_find', '')):
        to = tmp_path/'RESULTS'/name/'posterior'/f'noisy5_train_predictions{suffix}.csv'
        to.parent.mkdir(parents=True, exist_ok=True); d.to_csv(to, index=False)
    said = run('table.py', '--to', 't.csv', '--chart-to', 'c.png', cwd=tmp_path)
    t = pd.read_csv(tmp_path/'t.csv')
    assert len(t) == 3 and '0.667' in said and (t[['wrong', 'marked', 'precision', 'recall', 'f1']].round(3).to_numpy() == [3, 3, .667, .667, .667]).all()
    assert set(t.predicted) == {'in-sample', 'out-of-fold'} and (tmp_path/'c.png').read_bytes()[:4] == b'\x89PNG'

def test_the_published_table_beats_the_first_fastclean():
    d = pd.read_csv(ROOT/'experiments'/'imagenette.csv')
    best = d[d.predicted == 'out-of-fold'].groupby('noise').f1.max()
    assert set(d.wrong) == {474, 2368, 4735} and all(best[k] > v for k, v in {5: .918, 25: .954, 50: .937}.items())

def test_the_page_shows_the_table(tmp_path):
    sys.path.insert(0, str(ROOT/'experiments'))
    from table import page
    d, text = pd.read_csv(ROOT/'experiments'/'imagenette.csv'), (ROOT/'docs'/'experiments.md').read_text()
    assert page(text, d) == text and '2,368' in text and text.count('\n| ') == 3*(1 + 9)
    r = d.query("network == 'fastclean find' and noise == 50 and filter == 'posterior'").iloc[0]
    assert f'| {r.marked:,} | {r.precision:.3f} | {r.recall:.3f} | {r.f1:.3f} |\n' in text

@pytest.mark.parametrize('args', [[], ['--in-sample', '--arch', 'find']])
@pytest.mark.slow
def test_nothing_is_tracked_in_silence(tmp_path, args):
    r = subprocess.run([sys.executable, str(ROOT/'experiments'/'train.py'), '--track', 'tensorboard', '--every', '500', '--noise', '50', '--epochs', '1', *args], cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert r.returncode and '--in-sample' in r.stderr.splitlines()[-1] and 'Traceback' not in r.stderr and not any(tmp_path.iterdir())

@pytest.mark.skipif(not (DATA/'imagenette2-160'/'noisy_imagenette.csv').is_file(), reason='Imagenette is not in the data folder')
@pytest.mark.slow
def test_imagenette(tmp_path):
    assert 'written to' in run('train.py', '--noise', '50', '--every', '50', '--in-sample', '--epochs', '1', cwd=tmp_path)
    d = pd.read_csv(tmp_path/'RESULTS'/'imagenette_labelsmoothing'/'posterior'/'noisy50_train_predictions.csv')
    assert {'path', 'noisy_labels_0', 'noisy_labels_50', 'prediction', 'confidence', 'score', 'fold', 'is_label_issue'} <= set(d.columns) and not d.isna().any(axis=None)
    assert d.path.str.startswith('train/').all() and set(d.fold) == set(range(5)) and d.confidence.between(0, 1).all()
    assert 'in-sample' in run('table.py', '--to', 't.csv', cwd=tmp_path)

@pytest.mark.skipif(not (DATA/'covid19tweet'/'train.tsv').is_file(), reason='the tweets are not in the data folder')
@pytest.mark.slow
def test_tweets(tmp_path):
    assert 'are wrong; precision' in run('covidtweets.py', '--every', '40', cwd=tmp_path)
    d = pd.read_csv(tmp_path/'RESULTS'/'covid'/'noisy'/'noisy_text.csv')
    assert len(d) == 175 and .02 < (d.label != d.true_label).mean() < .2 and not d[['text', 'prediction', 'confidence', 'score', 'fold', 'is_label_issue']].isna().any(axis=None)

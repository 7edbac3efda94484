"The benchmark of the methods, as a grid of seconds: it runs, resumes, and says what it said before."
import json, os, subprocess, sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1]/'benchmarks'/'methods.py'

def run(tmp_path, *args):
    env = os.environ | dict(OMP_NUM_THREADS='1')
    p = subprocess.run([sys.executable, str(SCRIPT), *map(str, args), '--out', str(tmp_path/'rows.csv'), '--work', str(tmp_path/'work')], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert p.returncode == 0, p.stderr[-2000:]
    return p.stdout

@pytest.mark.skipif(not SCRIPT.is_file(), reason='the benchmarks are not installed')
@pytest.mark.slow
def test_a_small_grid_of_the_methods(tmp_path):
    grid = ['--sets', 'digits', '--seeds', 0, '--noises', 'symmetric .5', 'margin .3', '--epochs', 4, '--jobs', 1]
    run(tmp_path, 'run', *grid, '--methods', 'plain', 'tuned', 'gce')
    first = pd.read_csv(tmp_path/'rows.csv')
    assert len(first) == 6 and first['last'].between(0, 1).all() and (first.best >= first['last']).all() and (abs(first.wrong - first.noise.str[-2:].astype(float)) < .08).all()
    said = run(tmp_path, 'run', *grid, '--methods', 'plain', 'tuned', 'gce', 'clean-retrain', 'joint')
    assert said.startswith('4 trainings to make, 6 are there') and 'clean-retrain' in said
    both = pd.read_csv(tmp_path/'rows.csv')
    keys = ['set', 'noise', 'seed', 'method']
    pd.testing.assert_frame_equal(both.merge(first[keys])[first.columns].sort_values(keys, ignore_index=True), first.sort_values(keys, ignore_index=True))
    assert (both.history.str.split().str.len()[both.method != 'tuned'] == 4).all()

@pytest.mark.parametrize('mapped', [[], ['--mapped']])
def test_time_and_memory_of_labels(mapped):
    for which in ('fastclean', 'cleanlab')[:2 - len(mapped)]:
        p = subprocess.run([sys.executable, str(SCRIPT.with_name('labels.py')), '--one', '--sizes', '3000x5', '--which', which, *mapped], capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
        assert p.returncode == 0, p.stderr[-2000:]
        row = json.loads(p.stdout.splitlines()[-1])
        assert (row['which'], row['n'], row['K']) == (which, 3000, 5) and row['precision'] > .8 and row['recall'] > .6 and row['peak_gb'] > .05

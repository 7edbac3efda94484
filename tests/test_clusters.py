"Folds and features on real clusters of several processes: Dask and Ray on this machine, with the loss of a worker in the middle."
import os, signal, socket, subprocess, sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.datasets import load_digits
from torch import nn

from fastai.data.all import Categorize, Datasets, RandomSplitter
from fastai.learner import Learner
from fastclean.features import image_features
from fastclean.folds import FoldCache
from fastclean.kfold import KFoldLearner

torch.set_num_threads(1)
pytestmark = pytest.mark.cluster

@contextmanager
def dask():
    import distributed
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster): yield SimpleNamespace(config=lambda **kwargs: parallel_config('dask'), again={})   # it goes on by itself

@contextmanager
def ray():
    import ray
    from ray.util.joblib import register_ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    register_ray()
    try: yield SimpleNamespace(config=lambda **kwargs: parallel_config('ray', n_jobs=2, **kwargs), again=dict(ray_remote_args=dict(max_restarts=2, max_task_retries=2)))
    finally: ray.shutdown()

@pytest.fixture(params=[dask, ray], ids=['dask', 'ray'])
def cluster(request):
    "Two worker processes: what makes joblib use them, and what makes it do the task of a dead one again."
    pytest.importorskip({dask: 'distributed', ray: 'ray'}[request.param])
    with request.param() as c: yield c

def loaders():
    "A hundred digits, known by their number; what workers need is made here, so that it travels with the task."
    digits = load_digits(n_class=4)
    x, y = torch.tensor(digits.images[:100]/16, dtype=torch.float32), digits.target[:100]
    def pixels(i): return x[i]
    def digit(i): return str(y[i])
    return Datasets(range(100), [[pixels], [digit, Categorize(vocab=list('0123'))]], splits=RandomSplitter(.2, seed=0)(range(100))).dataloaders(bs=16, num_workers=0)

def learner_of():
    def learner(dls): return Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, dls.c)))
    return learner

def folds(cache=None, fit=None): return KFoldLearner(loaders(), learner_of(), n_splits=3, cache=cache, tag='cluster').run(fit or quietly())

def quietly():
    def fit(learn):
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
    return fit

def dying(flag):
    "A training that kills its process, once, when the first fold is finished."
    def fit(learn):
        if not flag.exists() and list(flag.parent.glob('c/fold_*.safetensors')): flag.touch(); os.kill(os.getpid(), signal.SIGKILL)
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
    return fit

@pytest.fixture(scope='module')
def alone(): return folds().predictions()

def reader(flag=None):
    "Pictures by their number, one of which cannot be read."
    def get(i):
        if i == 7: raise OSError('truncated')
        if flag and i == 50 and not flag.exists(): flag.touch(); os.kill(os.getpid(), signal.SIGKILL)
        return np.full((20, 20, 3), i, np.uint8)
    return get

def test_a_cluster_gives_what_one_process_gives(cluster, tmp_path, alone):
    cache = FoldCache(tmp_path/'f', dict(kind='features'))
    with cache.open(), cluster.config(): p, (x, errors) = folds().predictions(), image_features(reader(), 60, size=32, cache=cache, chunk=20)
    assert list(p.items) == list(alone.items) and np.allclose(p.pred_probs, alone.pred_probs, atol=1e-5)
    expected, same = image_features(reader(), 60, size=32, chunk=20)
    assert errors == same == {7: 'OSError: truncated'} and np.allclose(x, expected, atol=1e-2, rtol=1e-3)
    assert len(list((tmp_path/'f').glob('features-*.safetensors'))) == 3

def test_a_lost_worker_costs_its_fold_alone(cluster, tmp_path, alone):
    flag = tmp_path/'killed'
    with cluster.config(**cluster.again): p = folds(tmp_path/'c', dying(flag)).predictions()
    assert flag.exists() and np.allclose(p.pred_probs, alone.pred_probs, atol=1e-5)

def test_a_cluster_that_does_not_go_on_says_what_to_do(cluster, tmp_path, alone):
    if not cluster.again: pytest.skip('Dask goes on by itself')
    flag = tmp_path/'killed'
    with cluster.config():
        with pytest.raises(RuntimeError, match='a worker process was killed.*goes on'): folds(tmp_path/'c', dying(flag))
        done = {f: f.stat().st_mtime_ns for f in (tmp_path/'c').glob('fold_*.safetensors')}
        p = folds(tmp_path/'c', dying(flag)).predictions()
    assert flag.exists() and done and all(f.stat().st_mtime_ns == t for f, t in done.items())
    assert np.allclose(p.pred_probs, alone.pred_probs, atol=1e-5)

def test_features_go_on_after_a_lost_worker(cluster, tmp_path):
    flag, cache = tmp_path/'killed', FoldCache(tmp_path/'f', dict(kind='features'))
    with cache.open(), cluster.config(**cluster.again): x, _ = image_features(reader(flag), 60, size=32, cache=cache, chunk=20)
    assert flag.exists() and np.allclose(x, image_features(reader(), 60, size=32, chunk=20)[0], atol=1e-2, rtol=1e-3)

def together(out, cache, n=2):
    "Several processes that train each fold together, and what each has in the end."
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = str(s.getsockname()[1])
    env = os.environ | dict(WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=port, ACCELERATE_USE_CPU='true', PYTHONPATH=str(Path(__file__).parents[1]))
    procs = [subprocess.Popen([sys.executable, Path(__file__).with_name('together.py'), out, cache], env=env | dict(RANK=str(r), LOCAL_RANK=str(r)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for r in range(n)]
    said = [p.communicate(timeout=300)[0] for p in procs]
    assert [p.returncode for p in procs] == [0]*n, said
    return [np.load(out/f'{r}.npz') for r in range(n)], said

def test_several_processes_train_each_fold_together(tmp_path):
    pytest.importorskip('accelerate')
    (a, b), said = together(tmp_path, tmp_path/'cache')
    assert 'fold 1 of 3' in said[0] and 'fold 1 of 3' not in said[1]
    assert list(a['weights']) == list(b['weights']) and len(a['weights']) == 3              # they are one training
    assert np.array_equal(a['probs'], b['probs']) and len(set(a['items'])) == 600
    assert (a['probs'].argmax(1) == a['given']).mean() > .85                                # in the order of the items
    (tmp_path/'cache'/'fold_1.safetensors').unlink()
    done = {f: f.stat().st_mtime_ns for f in (tmp_path/'cache').glob('fold_*.safetensors')}
    (again, _), said = together(tmp_path, tmp_path/'cache')
    assert '2 of 3 folds are in the cache' in said[0] and len(again['weights']) == 1 and all(f.stat().st_mtime_ns == t for f, t in done.items())
    assert np.array_equal(again['probs'], a['probs'])
    (bare, _), _ = together(tmp_path, 'none')
    assert np.array_equal(bare['probs'], a['probs'])

def test_processes_that_do_not_know_each_other(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='one of 2 processes.*init_process_group'): folds()

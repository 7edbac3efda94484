"Folds and features on real clusters of several processes: Dask and Ray on this machine, with the loss of a worker in the middle."
import os, signal, time
from contextlib import contextmanager
from pathlib import Path

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

@contextmanager
def dask():
    distributed = pytest.importorskip('distributed')
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster), parallel_config('dask'): yield

@contextmanager
def ray(**kwargs):
    library = pytest.importorskip('ray')
    from ray.util.joblib import register_ray
    library.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    register_ray()
    try:
        with parallel_config('ray', n_jobs=2, **kwargs): yield
    finally: library.shutdown()

def survivor(): return ray(ray_remote_args=dict(max_restarts=2, max_task_retries=2))

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

@pytest.mark.slow
@pytest.mark.parametrize('cluster', [dask, ray])
def test_a_cluster_gives_what_one_process_gives(cluster, alone):
    with cluster(): p = folds().predictions()
    assert list(p.items) == list(alone.items) and np.allclose(p.pred_probs, alone.pred_probs, atol=1e-5)

@pytest.mark.slow
@pytest.mark.parametrize('cluster', [dask, survivor])
def test_a_lost_worker_costs_its_fold_alone(cluster, tmp_path, alone):
    flag = tmp_path/'killed'
    with cluster(): p = folds(tmp_path/'c', dying(flag)).predictions()
    assert flag.exists() and np.allclose(p.pred_probs, alone.pred_probs, atol=1e-5)

@pytest.mark.slow
def test_ray_that_is_not_told_to_go_on_says_what_to_do(tmp_path, alone):
    flag = tmp_path/'killed'
    with ray():
        with pytest.raises(RuntimeError, match='a worker process was killed.*goes on'): folds(tmp_path/'c', dying(flag))
        done = {f: f.stat().st_mtime_ns for f in (tmp_path/'c').glob('fold_*.safetensors')}
        p = folds(tmp_path/'c', dying(flag)).predictions()
    assert flag.exists() and done and all(f.stat().st_mtime_ns == t for f, t in done.items())
    assert np.allclose(p.pred_probs, alone.pred_probs, atol=1e-5)

def reader(flag=None):
    "Pictures by their number, one of which cannot be read."
    def get(i):
        if i == 7: raise OSError('truncated')
        if flag and i == 50 and not flag.exists(): flag.touch(); os.kill(os.getpid(), signal.SIGKILL)
        return np.full((20, 20, 3), i, np.uint8)
    return get

@pytest.mark.slow
@pytest.mark.parametrize('cluster', [dask, survivor, lambda: parallel_config('loky', n_jobs=2)], ids=['dask', 'ray', 'loky'])
def test_features_in_shares(cluster, tmp_path):
    cache = FoldCache(tmp_path/'f', dict(kind='features'))
    with cache.open(), cluster(): x, errors = image_features(reader(), 60, size=32, cache=cache, chunk=20)
    expected, same = image_features(reader(), 60, size=32, chunk=20)
    assert errors == same == {7: 'OSError: truncated'} and np.allclose(x, expected, atol=1e-2, rtol=1e-3)
    assert len(list((tmp_path/'f').glob('features-*.safetensors'))) == 3

@pytest.mark.slow
def test_features_go_on_after_a_lost_worker(tmp_path):
    flag, cache = tmp_path/'killed', FoldCache(tmp_path/'f', dict(kind='features'))
    with cache.open(), parallel_config('loky', n_jobs=2):
        with pytest.raises(RuntimeError, match='parts were finished.*goes on'): image_features(reader(flag), 60, size=32, cache=cache, chunk=20)
        done = {f: f.stat().st_mtime_ns for f in (tmp_path/'f').glob('features-*.safetensors')}
        x, _ = image_features(reader(flag), 60, size=32, cache=cache, chunk=20)
    assert flag.exists() and all(f.stat().st_mtime_ns == t for f, t in done.items())
    assert np.allclose(x, image_features(reader(), 60, size=32, chunk=20)[0], atol=1e-2, rtol=1e-3)

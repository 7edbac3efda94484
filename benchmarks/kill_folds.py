"""Kill a cached k-fold run with `kill -9` at random moments, run it again, and see what was lost.

    python benchmarks/kill_folds.py              # twenty kills at random moments, five more while a fold is being written
    python benchmarks/kill_folds.py --jobs 2     # with two worker processes, of which the run's own process is killed
    python benchmarks/kill_folds.py --rounds 2   # in rounds: 20 trainings

Each kill has a cache of its own: a run is started, killed at a random moment, and started again. The second run must end with the
predictions of a run that nothing disturbed, and must not train again what was finished. Exits with 1 if one does not.
"""
import argparse, json, os, shutil, signal, sys, tempfile, time, warnings
from pathlib import Path

import fastclean
import numpy as np
import torch
from fastai.data.all import Categorize, Datasets, RandomSplitter
from fastai.learner import Learner
from joblib import parallel_config
from sklearn.datasets import load_digits
from torch import nn

from fastclean.kfold import KFoldLearner

digits = load_digits()
X = torch.tensor(digits.images / 16, dtype=torch.float32)

def pixels(i): return X[i]
def label(i): return str(digits.target[i])
def learner(dls): return Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, dls.c)))

def work(cache, out, how):
    "The run: five folds of 600 digits, whose models of 4 MB each are written, too."
    torch.set_num_threads(1)
    dls = Datasets(range(750), [[pixels], [label, Categorize()]], splits=RandomSplitter(.2, seed=0)(range(750))).dataloaders(bs=32, num_workers=0)
    with parallel_config('loky', n_jobs=how.jobs): preds = KFoldLearner(dls, learner, cache=cache, rounds=how.rounds).fit_one_cycle(2, 1e-2).predictions()
    np.save(out, preds.pred_probs)

def start(cache, out, how):
    "A forked process that works, so that fastai is imported only once."
    sys.stdout.flush()
    pid = os.fork()
    if pid: return pid
    with open(os.devnull, 'w') as null:
        os.dup2(null.fileno(), 1)
        if how.jobs > 1: os.dup2(null.fileno(), 2)   # its workers complain of the run that has gone
        try: work(cache, out, how); code = 0
        except BaseException as e: sys.stderr.write(f'{type(e).__name__}: {e}\n'); code = 1
        sys.stderr.flush(); os._exit(code)

def ended(pid, come):
    "Exit status of a process that ends before the moment has come, else None."
    while not come():
        if (got := os.waitpid(pid, os.WNOHANG))[0]: return got[1]
        time.sleep(.0005)

def at(seconds):
    "A moment so many seconds from now."
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end

def whole(pid): return os.waitpid(pid, 0)[1]
def finished(cache): return {f.name: f.stat().st_mtime_ns for f in cache.glob('*.safetensors')}
def halves(cache): return len(list(cache.glob('.*.tmp'))) if cache.exists() else 0

def one_kill(tmp, i, moment, fold, expected, how):
    "Start, kill, start again; None where it had ended before."
    cache, out = tmp/f'cache_{i}', tmp/f'{i}.npy'
    begin, pid = time.monotonic(), start(cache, out, how)
    if ended(pid, at(moment) if fold is None else lambda: any(cache.glob(f'.fold_{fold}*.tmp'))) is not None: shutil.rmtree(cache); return None
    moment = time.monotonic() - begin
    os.kill(pid, signal.SIGKILL); whole(pid)
    done, half = finished(cache) if cache.exists() else {}, halves(cache)
    begin = time.monotonic()
    ok = whole(start(cache, out, how)) == 0
    after = finished(cache)
    row = dict(moment=round(moment, 2), folds_finished=len(done), half_written=half, completed=ok, trained_again=sum(after.get(f) != t for f, t in done.items()),
               left_over=halves(cache), seconds=round(time.monotonic() - begin, 2), difference=float(np.abs(np.load(out) - expected).max()) if ok else None)
    shutil.rmtree(cache)
    return row

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--kills', type=int, default=20, help='how many')
    ap.add_argument('--aimed', type=int, default=5, help='how many more while a fold is being written')
    ap.add_argument('--jobs', type=int, default=1, help='worker processes of a run')
    ap.add_argument('--rounds', type=int, default=1, help='rounds of a run, in the strict form')
    ap.add_argument('--seed', type=int, default=0, help='seed of the moments')
    ap.add_argument('--json', action='store_true', help='print the summary as JSON, too')
    a = ap.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    rng, rows = np.random.default_rng(a.seed), []
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp); begin = time.monotonic()
        if whole(start(tmp/'cache', tmp/'whole.npy', a)): sys.exit('the undisturbed run failed')
        length, expected = time.monotonic() - begin, np.load(tmp/'whole.npy')
        print(f'undisturbed: {length:.2f} s for 5 folds{f" in {a.rounds} rounds" if a.rounds > 1 else ""}')
        print('kill  at s  finished  half-written  completed  trained again  largest difference')
        while len(rows) < a.kills + a.aimed:
            row = one_kill(tmp, len(rows), rng.uniform(0, length), None if len(rows) < a.kills else int(rng.integers(5)), expected, a)
            if row is None: continue
            rows.append(row)
            print(f"{len(rows):4} {row['moment']:6.2f} {row['folds_finished']:9} {row['half_written']:13} {str(row['completed']):>10} {row['trained_again']:14} {row['difference']!s:>19}", flush=True)
    s = dict(kills=len(rows), completed=sum(r['completed'] for r in rows), same=sum(r['completed'] and r['difference'] <= 1e-5 for r in rows),
             folds_finished_at_kill=sum(r['folds_finished'] for r in rows), folds_trained_again=sum(r['trained_again'] for r in rows),
             half_written=sum(r['half_written'] for r in rows), left_over=sum(r['left_over'] for r in rows), largest_difference=max(r['difference'] or 0 for r in rows))
    print(f"{s['completed']} of {s['kills']} completed, {s['same']} with the predictions of the undisturbed run (largest difference {s['largest_difference']:.1e}); lost: "
          f"{s['folds_trained_again']} of {s['folds_finished_at_kill']} finished folds; {s['half_written']} half-written files were there, none was read, {s['left_over']} are left")
    if a.json: print(json.dumps(s))
    sys.exit(s['same'] < s['kills'] or s['folds_trained_again'] > 0)

if __name__ == '__main__': main()

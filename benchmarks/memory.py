"""Time and peak memory of each stage, from ten thousand items to a million, and the bytes that another item takes.

    python benchmarks/memory.py run [--sizes 10000 100000 1000000] [--stages …]
    python benchmarks/memory.py table

Every stage is a process of its own, which starts from what the one before it left on disk, as a run that goes on does; memory is the peak of that process above what its imports take. The images are of Imagenette, by names of
their own that are links to files; features are those of real photographs, with noise added, since a million of them would take most of an hour: `features` therefore reads and writes all parts, but the network looks at the
first thousand images alone. Rows of memory.csv for each.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

OUT = Path(__file__).with_name('memory.csv')
SIZES = [10_000, 100_000, 1_000_000]
DATA = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'/'imagenette2-160'/'train'

def _files():
    files = sorted(DATA.rglob('*.JPEG'))
    return [files[i] for i in np.sort(np.random.default_rng(0).permutation(len(files))[:1000])]

def real_features(work):
    "Features of a thousand photographs, their classes; made once."
    from PIL import Image
    from fastclean.features import image_features
    files = _files()
    if not (work/'real.npy').exists(): np.save(work/'real.npy', image_features(lambda i: Image.open(files[i]), len(files))[0])
    return np.load(work/'real.npy'), pd.factorize(np.array([f.parent.name for f in files]))[0]

def jittered(work, n, block=50_000):
    "Features of n items near real ones, on disk, (n, d) float16, with their classes and labels of which a tenth are wrong."
    x, k = real_features(work)
    rng, spread = np.random.default_rng(1), x.std(0)
    of = rng.integers(len(x), size=n)
    out = np.lib.format.open_memmap(work/'x.npy', 'w+', np.float16, (n, x.shape[1]))
    for s in range(0, n, block):
        near, other = of[s:s + block], rng.integers(len(x), size=len(of[s:s + block]))
        share = rng.random((len(near), 1), dtype=np.float32)*.5   # on the way to another one
        out[s:s + block] = x[near]*(1 - share) + x[other]*share + rng.normal(size=(len(near), 1)).astype(np.float32)*.1*spread
    true = k[of]
    np.save(work/'y.npy', np.where(rng.random(n) < .1, rng.integers(10, size=n), true))

# Stages: each takes the working folder and n.

def source(w, n):
    from fastclean.data import read_source
    return read_source(w/'items.csv')

def features(w, n):
    "All parts, of which the network makes the first; the others are read, written and kept."
    from fastclean.features import _image_part, image_features, in_parts, load_backbone
    from fastclean.folds import FoldCache
    from PIL import Image
    files, net, x = _files(), load_backbone(), np.load(w/'x.npy', mmap_mode='r')
    def _read(rows): return np.fromfile(w/'x.npy', x.dtype, len(rows)*x.shape[1], offset=x.offset + rows.start*x.shape[1]*x.itemsize).reshape(len(rows), -1)   # pages of a mapped file would count as this process's memory
    def _make(rows): return _image_part(lambda i: Image.open(files[i % len(files)]), net, 160, None, rows) if not rows.start else (_read(rows), {})
    with FoldCache(w/'parts', dict(n=n)).open() as cache: out, _ = in_parts(_make, n, 1024, cache)
    shutil.rmtree(w/'parts')

def given(w, n, **kwargs):
    "A `FeatureFolds` as it is when its features are there."
    from fastclean.featurefolds import FeatureFolds
    kf = object.__new__(FeatureFolds)
    kf.__dict__ |= dict(kind='image', seed=42, head=None, rounds=3, n_splits=5, neighbours=20, multi_label=False, features=np.load(w/'x.npy'), labels=np.load(w/'y.npy'), ok=np.ones(n, bool), items=np.arange(n).astype(str), group=np.arange(n),
                        split=np.full(n, 'train', object), verified=np.zeros(n, bool), vocab=list(range(10)), groups=None, datasets=[], twins=True, words=None, pairs=None) | kwargs
    kf._reduce()
    return kf

def reduce(w, n): np.save(w/'reduced.npy', given(w, n)._reduced)

def twins(w, n):
    from fastclean.twins import find_twins, same_rows
    return find_twins(np.load(w/'reduced.npy'), same_rows(np.load(w/'x.npy')))

def fitted(w, kf):
    "The out-of-fold probabilities of the folds, three rounds; their files are written and removed."
    from fastclean.folds import FoldCache
    kf._split(); kf._prepare()
    with FoldCache(w/'folds', {}).open() as store:
        kf._store = store
        for k in range(kf.n_splits): store.save(f'fold-{k}', kf._fit_fold(k))
        p = kf._held(kf._best_round())
    shutil.rmtree(w/'folds')
    return p

def heads(w, n): np.save(w/'p.npy', fitted(w, given(w, n)))

def _record(w, n):
    from fastclean.core import Predictions
    return Predictions.from_arrays(np.load(w/'y.npy'), np.load(w/'p.npy', mmap_mode='r'), [f'class {k}' for k in range(10)], [f'train/{i:07d}.jpeg' for i in range(n)])

def issues(w, n):
    from fastclean.issues import find_label_issues, write_issues
    preds = _record(w, n)
    preds.save(w/'predictions'); write_issues(find_label_issues(preds), w/'issues.csv')

def report(w, n):
    from fastclean.core import Predictions
    from fastclean.evidence import label_evidence
    from fastclean.health import summarise
    from fastclean.issues import read_issues
    from fastclean.report import write_report
    from PIL import Image
    preds, found = Predictions.load(w/'predictions', mmap=True), read_issues(w/'issues.csv')
    evidence = label_evidence(found, preds, np.load(w/'x.npy', mmap_mode='r'), suspects=found[found.is_label_issue][:500])
    picture = Image.new('RGB', (200, 200))
    write_report(preds, found, w/'report.html', summary=summarise(preds, found), load=lambda o: picture, evidence=evidence)

STAGES = dict(source=source, features=features, reduce=reduce, twins=twins, heads=heads, issues=issues, report=report)
_IMPORTS = dict(source=['data'], features=['features', 'folds'], reduce=['featurefolds'], twins=['featurefolds'], heads=['featurefolds'], issues=['issues'], report=['report', 'features'])

def peak():
    "Largest resident size of this process in MB: of this program, not of the one that started it."
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM'): return round(int(line.split()[1])/1024)

def one(stage, w, n):
    import importlib
    for o in _IMPORTS[stage]: importlib.import_module(f'fastclean.{o}')
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    STAGES[stage](w, n)
    print(json.dumps(dict(n=n, stage=stage, seconds=round(time.perf_counter() - start, 1), processor=round(time.process_time() - cpu, 1), peak_mb=peak(), imports_mb=before)))

def items(w, n):
    "A table of n images."
    files = _files()
    pd.DataFrame(dict(path=[os.fspath(files[i % len(files)].relative_to(DATA)) for i in range(n)], label=[files[i % len(files)].parent.name for i in range(n)])).to_csv(w/'items.csv', index=False)
    for o in sorted({f.parent.name for f in files}): (w/o).symlink_to(DATA/o)

def run(a):
    rows = pd.read_csv(OUT).to_dict('records') if OUT.exists() else []
    for n in a.sizes:
        with tempfile.TemporaryDirectory(dir=a.work) as tmp:
            w = Path(tmp); items(w, n); jittered(w, n)
            for stage in a.stages:
                row = json.loads(subprocess.run([sys.executable, __file__, 'one', '--sizes', str(n), '--stages', stage, '--work', tmp], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
                rows = [r for r in rows if (r['n'], r['stage']) != (n, stage)] + [row]
                print(row, flush=True)
                pd.DataFrame(rows).sort_values(['n', 'stage'], key=lambda c: c.map(list(STAGES).index) if c.name == 'stage' else c).to_csv(OUT, index=False)
    table()

def table():
    d = pd.read_csv(OUT).assign(mb=lambda d: d.peak_mb - d.imports_mb)
    t = d.pivot(index='stage', columns='n', values='mb').loc[[o for o in STAGES if o in set(d.stage)]]
    n = t.columns
    if len(n) > 1: t['bytes an item'] = ((t[n[-1]] - t[n[-2]])*2**20/(n[-1] - n[-2])).round()
    print('peak memory above the imports, MB'); print(t.to_string())
    print('seconds'); print(d.pivot(index='stage', columns='n', values='seconds').reindex(t.index).to_string())

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'table', 'one'])
    p.add_argument('--sizes', nargs='*', type=int, default=SIZES)
    p.add_argument('--stages', nargs='*', default=list(STAGES), choices=list(STAGES))
    p.add_argument('--work', type=Path, default=Path('~/.cache/fastclean-benchmark').expanduser(), help='folder for the data: six gigabytes for a million')
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    dict(run=run, table=lambda a: table(), one=lambda a: one(a.stages[0], a.work, a.sizes[0]))[a.what](a)

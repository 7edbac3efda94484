#!/usr/bin/env python3
"""Run the tutorials: `tutorials.py` all of them in the small setting, which is a test and keeps nothing; `tutorials.py --full 03_covid_tweets` one in full, whose outputs are written into it.

The small setting is the environment variable FASTCLEAN_SMALL, which each tutorial asks for in its first lines. The data are where fastai keeps its downloads, or are downloaded."""
import argparse, os, re, shutil, socket, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import clean_nb

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT/'nbs'/'tutorials'
MOST = 2_000_000   # bytes of a tutorial with its outputs

CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1

def cores(n): return {1: 'one core', 2: 'two cores'}.get(n, f'{n} cores')
def duration(seconds): return f'{seconds//60:.0f} min {seconds%60:.0f} s' if seconds >= 60 else f'{seconds:.0f} s'

def is_shown(o):
    "Whether an output is for readers: no progress, no warnings of libraries."
    if o.get('name') == 'stderr' or ('text' in o and not o['text'].strip()): return False
    data = o.get('data', {})
    bar = set(data) <= {'text/html', 'text/plain'} and '<table' not in data.get('text/html', '') and 'IPython.core.display.HTML' in data.get('text/plain', '')
    return not bar and 'class="fastprogress"' not in data.get('text/html', '')

def keep(nb, path, seconds):
    "Write a tutorial with what it gave, and how long it took."
    for c in nb.cells:
        if c.cell_type == 'code':
            for o in c.outputs:
                if o.get('name') == 'stdout': o.text = re.sub(r'(?m)^fold \d+ of \d+: .*\n', '', o.text)
            c.outputs = [o for o in c.outputs if is_shown(o)]
        else: c.source = re.sub(r'(?m)^\*The full run.*\*$', f'*The full run took {duration(seconds)} on {cores(CORES)}: `python tools/tutorials.py --full {path.stem}`*', c.source)
    clean_nb(nb)
    text = nbformat.writes(nb) + '\n'
    if str(ROOT) in text or str(Path.home()) in text: raise SystemExit(f'{path.name}: a path of this machine is in its outputs')
    if len(text.encode()) > MOST: raise SystemExit(f'{path.name}: {len(text.encode()):,} bytes with its outputs, more than {MOST:,}')
    path.write_text(text, encoding='utf-8')

def missing(nb):
    "What a tutorial's front matter says that it needs, where it is neither there nor to be had."
    for o in ' '.join(re.findall(r'(?m)^programs: (.+)$', nb.cells[0].source)).split():
        if not any(map(shutil.which, o.split('|'))): return o
    need = re.search(r'(?m)^data: (\S+)( \(by hand\))?$', nb.cells[0].source)
    if not need or (Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'/need[1]).is_dir(): return None
    if need[2]: return need[1]
    try: socket.create_connection(('s3.amazonaws.com', 443), 5).close()   # fastai downloads from there
    except OSError: return need[1]

def run(path, full, threads):
    "Execute one; whether it went well."
    nb, start = nbformat.read(path, 4), time.time()
    if name := missing(nb): print(f'{path.stem}: SKIPPED, for {name} is not there and cannot be downloaded', flush=True); return not full
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads), MPLBACKEND='module://matplotlib_inline.backend_inline')
    env.pop('FASTCLEAN_SMALL', None)
    if not full: env['FASTCLEAN_SMALL'] = '1'
    client = NotebookClient(nb, timeout=5400, kernel_name='python3', resources={'metadata': {'path': str(HOME)}}, store_widget_state=False, coalesce_streams=True)
    try: client.execute(env=env)
    except CellExecutionError as e:
        print(f'{path.stem}: failed after {duration(time.time() - start)}', re.sub(r'\x1b\[[0-9;]*m', '', str(e))[-1500:], sep='\n', flush=True)
        return False
    seconds = time.time() - start
    if full: keep(nb, path, seconds)
    print(f'{path.stem}: {duration(seconds)}', flush=True)
    return True

def main():
    "Run what is asked for."
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('names', nargs='*', help='which ones; default all')
    p.add_argument('--full', action='store_true', help='in full, one after the other, and keep the outputs')
    p.add_argument('--workers', type=int, default=2, help='how many at a time in the small setting')
    a = p.parse_args()
    paths = [HOME/f'{o.removesuffix(".ipynb")}.ipynb' for o in a.names] or sorted(HOME.glob('*.ipynb'))
    n = 1 if a.full else a.workers
    with ThreadPoolExecutor(n) as ex: good = list(ex.map(lambda o: run(o, a.full, max(1, CORES//n)), paths))
    return 0 if all(good) else 1

if __name__ == '__main__': sys.exit(main())

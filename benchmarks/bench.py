"""One command for all that is measured against a rival: `make bench`.

    python benchmarks/bench.py run [--only labels mapped imports report folds pass scaling neighbours] [--repeats 3]
    python benchmarks/bench.py table

Ours and its rival are measured in turn, each in a process of its own, and compared by the medians of the same run; another machine gives other seconds and much the same ratios. Rows go to bench.json as they come, with the
machine that made them; `run` makes those of a part anew. The parts:

- labels: `find_label_issues` and cleanlab's, from a million items of ten classes to 1.28 million of a thousand (a 5.1 GB array; it takes 16 GB of memory for cleanlab's sake);
- mapped: 50 million items of ten classes, whose probabilities stay on disk (no rival);
- imports: what `import` costs, beside what it stands on;
- report: table, CSV and report of a million rows, with their memory (no rival);
- folds: `fastclean`'s out-of-fold predictions of 200 photographs, 200 tweets and 1,797 rows of a table, and the loop of fastai's tutorials; the backbone of the photographs is the same;
- pass: that backbone over 1,000 photographs, beside a plain loader;
- scaling: the heads and `find_label_issues` as items, classes and folds grow (no rival);
- neighbours: of 200,000 and of a million items in 1,280 dimensions; exact search is the rival, from a thousand of them.
"""
import argparse, json, os, platform, re, subprocess, sys, time
from pathlib import Path

from labels import SIZES

HERE = Path(__file__).parent
OUT = HERE/'bench.json'
IMPORTS = {'pandas': 'import pandas', 'fastclean.issues': 'import fastclean.issues', 'fastai.vision.all': 'import fastai.vision.all', 'fastclean.all': 'import fastai.vision.all, fastclean.all'}

def machine():
    "What the figures were made on."
    info = Path('/proc/cpuinfo')
    cpu = re.search(r'model name\s*: (.*)', info.read_text()) if info.exists() else None
    memory = os.sysconf('SC_PAGE_SIZE')*os.sysconf('SC_PHYS_PAGES')/2**30 if hasattr(os, 'sysconf') else 0
    return dict(cpu=cpu[1] if cpu else platform.processor(), cores=os.cpu_count(), memory_gb=round(memory), python=platform.python_version(), date=time.strftime('%Y-%m-%d'))

def said(*command):
    "The lines that a command prints."
    return subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()

def _labels(size, repeats, *args):
    for line in said(HERE/'labels.py', '--sizes', size, '--repeats', repeats, *args):
        o = json.loads(line)
        yield dict(case=size, **{k: o[k] for k in ('which', 'seconds', 'processor', 'peak_gb', 'before_gb', 'flagged', 'precision', 'recall')})

def labels(repeats):
    for size in SIZES: yield from _labels(size, repeats)

def mapped(repeats): yield from _labels('50000000x10', 1, '--which', 'fastclean', '--mapped')

def imports(repeats):
    for r in range(repeats + 2):
        for name, code in IMPORTS.items():
            yield dict(case=name, which='import', seconds=float(said('-c', f'import time; s = time.perf_counter(); {code}; print(time.perf_counter() - s)')[-1]))

def report(repeats):
    for line in said(HERE/'report.py'):
        if m := re.match(r'(.+?) +([\d.]+) s \(processor +([\d.]+) s\) +peak +([\d.]+) GB', line): yield dict(case=m[1], which='fastclean', seconds=float(m[2]), processor=float(m[3]), peak_gb=float(m[4]))

def _ways(case, *args):
    for line in said(HERE/'speed.py', *args):
        if m := re.match(r"\{'way': '(\w+)', 'seconds': ([\d.]+), 'cpu': ([\d.]+), 'ap': ([\d.]+), 'f1': ([\d.]+)", line[line.find('{'):]): yield dict(case=case, which=m[1], seconds=float(m[2]), processor=float(m[3]), f1=float(m[5]))

def folds(repeats):
    for kind, n, case in (('image', 200, '200 photographs'), ('text', 200, '200 tweets'), ('table', 1797, '1,797 rows, 64 columns')): yield from _ways(case, '--kind', kind, '--n', n, '--ways', 'features', 'loop', 'features')

def one_pass(repeats): yield from _ways('1,000 photographs', '--kind', 'pass', '--n', 1000)

def scaling(repeats):
    for line in said(HERE/'scaling.py'):
        o = json.loads(line)
        yield dict(case=f"{o['n']} items, {o['K']} classes, {o['folds']} folds", which='fastclean', **o)

def neighbours(repeats):
    for n in (200_000, 1_000_000):
        o = json.loads(said(HERE/'neighbours.py', '--n', n)[-1])
        yield dict(case=f'{n:,} × 1,280', which='exact', seconds=o['exact_seconds'])
        yield dict(case=f'{n:,} × 1,280', which='fastclean', **{k: o[k] for k in ('n', 'seconds', 'processor', 'peak_gb', 'recall')})

PARTS = {'labels': labels, 'mapped': mapped, 'imports': imports, 'report': report, 'folds': folds, 'pass': one_pass, 'scaling': scaling, 'neighbours': neighbours}

def run(parts, repeats):
    made = json.loads(OUT.read_text()) if OUT.exists() else {}
    for part in parts:
        rows = []
        for row in PARTS[part](repeats):
            rows.append(row)
            print(part, row, flush=True)
            made[part] = dict(machine=machine(), rows=rows)
            OUT.write_text(json.dumps(made, indent=1) + '\n')

def table():
    import pandas as pd
    for part, o in json.loads(OUT.read_text()).items():
        d = pd.DataFrame(o['rows'])
        print(f'\n{part}: {o["machine"]}')
        print(d.groupby(['case', 'which'], sort=False).median(numeric_only=True).round(3).to_string())

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'table'])
    p.add_argument('--only', nargs='*', default=list(PARTS), choices=list(PARTS))
    p.add_argument('--repeats', type=int, default=3)
    a = p.parse_args()
    if a.what == 'run': run(a.only, a.repeats)
    table()

if __name__ == '__main__': main()

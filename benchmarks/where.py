"""Where the time goes, before the work on speed and after it.

    git worktree add ../before 18913ca
    python benchmarks/where.py run --before ../before
    python benchmarks/where.py table

The same calls with the code of another checkout and with this one, in turn, each in a process of its own: `find_label_issues` on simulated probabilities (see labels.py), and the frozen pass over photographs. What a part takes is
measured around the functions that do it. Rows of where.csv: medians of three runs.
"""
import argparse, importlib, json, os, subprocess, sys, time
from pathlib import Path

import pandas as pd

OUT = Path(__file__).with_name('where.csv')
CASES = ['100000x1000', '1000000x100', '1280000x1000', 'pass']
LABELS = {'arrays checked': ['Predictions.from_arrays'], 'power chosen': ['plausible_sharpening'], 'noise matrices': ['split_transitions', 'several_transitions'], 'posterior': ['given_posterior'], 'table': ['_table']}

def watch(parts, *modules):
    "From now on, add what each function takes to its part, less what other parts take within."
    spent = {}
    def watched(part, f):
        def timed(*args, **kwargs):
            start, before = time.perf_counter(), sum(spent.values())
            try: return f(*args, **kwargs)
            finally: spent[part] = spent.get(part, 0) + time.perf_counter() - start - (sum(spent.values()) - before)
        return timed
    for part, names in parts.items():
        for m, (of, _, name) in ((m, o.rpartition('.')) for m in modules for o in names):
            o = getattr(m, of, None) if of else m
            if hasattr(o, name): setattr(o, name, watched(part, getattr(o, name)))
    return spent

def of_labels(size):
    from labels import simulate
    y, p, _ = simulate(*map(int, size.split('x')))
    start = time.perf_counter()
    issues, transition = map(importlib.import_module, ('fastclean.issues', 'fastclean.transition'))
    imports = time.perf_counter() - start
    spent = watch(LABELS, issues, transition)
    issues.find_label_issues(y, p)
    return dict(imports=imports, **spent, all=time.perf_counter() - start)

def of_pass(n=1000):
    import speed
    from fastclean import features
    d, net, spent = speed.frame(n), features.load_backbone(), watch({'network': ['_forward']}, features)
    start = time.perf_counter()
    features.image_features(lambda i: speed.Image.open(d.file[i]), n, net, 160)
    whole = time.perf_counter() - start
    return {**spent, 'waiting for pictures, and the rest': whole - spent['network'], 'all': whole}

def run(before, cases, repeats):
    rows = pd.read_csv(OUT).to_dict('records') if OUT.exists() else []
    for case in cases:
        taken = []
        for _ in range(repeats):
            for code, root in (('before', before), ('after', Path(__file__).parents[1])):
                out = subprocess.run([sys.executable, __file__, 'one', '--cases', case], check=True, stdout=subprocess.PIPE, text=True, env=os.environ | dict(PYTHONPATH=os.fspath(Path(root).resolve()))).stdout
                taken += [dict(case=case, code=code, part=k, seconds=v) for k, v in json.loads(out.splitlines()[-1]).items()]
        found = pd.DataFrame(taken).groupby(['case', 'code', 'part'], sort=False).seconds.median().round(2).reset_index()
        print(found.to_string(), flush=True)
        rows = [r for r in rows if r['case'] != case] + found.to_dict('records')
        pd.DataFrame(rows).to_csv(OUT, index=False)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'table', 'one'])
    p.add_argument('--before', type=Path, help='a checkout of the code before')
    p.add_argument('--cases', nargs='*', default=CASES, choices=CASES)
    p.add_argument('--repeats', type=int, default=3)
    a = p.parse_args()
    if a.what == 'one': return print(json.dumps(of_pass() if a.cases[0] == 'pass' else of_labels(a.cases[0])))
    if a.what == 'run':
        if not a.before: p.error('--before names the checkout of the code before')
        run(a.before, a.cases, a.repeats)
    print(pd.read_csv(OUT).pivot_table(index=['case', 'part'], columns='code', values='seconds', sort=False)[['before', 'after']].to_string())

if __name__ == '__main__': main()

#!/usr/bin/env python3
"""What a user sees, as pictures to be looked at: `screenshots.py OUT [REPORT ...]`.

Takes each report in headless Chromium at desktop and phone width, whole and at its beginning, light and dark. Without a REPORT it makes three:
of scikit-learn's digits as images, of its wines as a table, and of sentences; each with a tenth of the labels replaced."""
import subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]

def replaced(labels, rate=.1, seed=0):
    "Labels of which some are replaced by another."
    import numpy as np
    rng, classes = np.random.default_rng(seed), sorted(set(labels))
    return [classes[(classes.index(o) + rng.integers(1, len(classes))) % len(classes)] if rng.random() < rate else o for o in labels]

def digits(folder):
    "Images in a folder per class."
    from fastclean.data import digits_sample
    from fastclean.inject import noisy_copy
    from fastclean.noise import SymmetricNoise
    noisy_copy(digits_sample(folder/'all'), folder/'digits', SymmetricNoise(.1), seed=42)
    return folder/'digits', {}

def wines(folder):
    "A table of measurements."
    import numpy as np
    from sklearn.datasets import load_wine
    d = load_wine(as_frame=True).frame
    d['target'] = replaced(list(np.array(['barolo', 'grignolino', 'barbera'])[d.target]))
    d.to_csv(folder/'wines.csv', index=False)
    return folder/'wines.csv', dict(label_col='target')

def sentences(folder, n=400, seed=0):
    "A table of texts."
    import numpy as np
    import pandas as pd
    rng = np.random.default_rng(seed)
    about = dict(weather='rain sun wind cloud storm frost snow fog'.split(), food='bread soup cheese apple salt pepper oven butter'.split(), travel='train ticket harbour bridge road hotel map border'.split())
    def text(o):
        a, b, c, d = rng.choice(about[o], 4)
        return rng.choice([f'In the morning there was {a} and {b}, and by noon nothing but {c}, which nobody who knows the place had expected.', f'She said that the {a} was worse than the {b}; the {c}, however, was a {d}.',
                           f'Without {a} there is no {b}. We looked for {c} all day, and when the evening came, and with it the others, we had found only {d} and some {a}.', f'{a} {b} {c}: {d}!'])
    y = rng.choice(list(about), n)
    pd.DataFrame(dict(text=[text(o) for o in y], topic=replaced(list(y)))).to_csv(folder/'sentences.csv', index=False)
    return folder/'sentences.csv', dict(label_col='topic', text_col='text')

def make(out):
    "Three reports."
    from fastclean.cli import find_in
    from fastclean.data import read_source
    for what in (digits, wines, sentences):
        folder = out/what.__name__
        folder.mkdir(parents=True, exist_ok=True)
        src, how = what(folder)
        find_in(read_source(src, **how), folder/'found')
        yield folder/'found'/'report.html'

def shoot(browser, report, out):
    "All pictures of a report."
    name = report.resolve().parent.parent.name if report.resolve().parent.name == 'found' else report.resolve().parent.name
    for width in (1280, 390):
        for dark in (False, True):
            browser.size(width, dark=dark); browser.open(report)
            assert browser.problems() == [] and browser.js('document.documentElement.scrollWidth') <= width, f'{report} at {width}'
            browser.js('Promise.all([...document.images].slice(0, 400).map(i => (i.loading = "eager", i.decode().catch(() => 0))))')
            if not dark: browser.shot(out/f'{name}-{width}.png')
            browser.shot(out/f'{name}-{width}{"-dark" if dark else ""}-top.png', clip=dict(x=0, y=0, width=width, height=1800, scale=1))

if __name__ == '__main__':
    from browser import Browser
    if len(sys.argv) < 2: sys.exit(__doc__)
    out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
    reports = [Path(o) for o in sys.argv[2:]]
    if not reports: sys.exit(subprocess.run([sys.executable, __file__, str(out), *map(str, make(out))]).returncode)   # a browser in a process of its own
    with Browser() as browser:
        for r in reports: shoot(browser, r, out)
    print(*sorted(o.name for o in out.glob('*.png')), sep='\n')

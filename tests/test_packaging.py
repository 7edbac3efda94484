"What is built is complete, and what is generated is checked: modules against notebooks, README against its notebook."
import base64, importlib.util, os, shutil, stat, subprocess, sys, tarfile, zipfile
from configparser import ConfigParser
from email.parser import HeaderParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT/f'tools/{name}.py')
    mod = importlib.util.module_from_spec(spec); spec.loader.exec_module(mod)
    return mod

def call(name, *args): return subprocess.run([sys.executable, ROOT/f'tools/{name}.py', *args], capture_output=True, text=True)
def state(folder): return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(folder.rglob('*')) if f.is_file()}

def save(path, *cells):
    path.parent.mkdir(exist_ok=True)
    nb = new_notebook(cells=list(cells), metadata={'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}})
    for i, c in enumerate(nb.cells): c['id'] = f'{i:08}'
    nbformat.write(nb, path)

def edit(path, old, new):
    text = path.read_text(); assert old in text
    path.write_text(text.replace(old, new))

# --- modules against notebooks

@pytest.fixture
def project(tmp_path):
    "A small project whose two modules have just been exported; `run.py` is written by hand."
    shutil.copy(ROOT/'pyproject.toml', tmp_path)
    for i, name in enumerate(('first', 'second')):
        save(tmp_path/f'nbs/0{i}_{name}.ipynb', new_code_cell(f'#| default_exp {name}'), new_markdown_cell(f'# {name}\n\n> A module'), new_code_cell(f'#| export\ndef {name}_value(): return 1'))
    (tmp_path/'fastclean').mkdir()
    for n in ('__init__', 'run'): (tmp_path/f'fastclean/{n}.py').write_text('"By hand."\n__version__ = str(1)\n')
    subprocess.run([sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()'], cwd=tmp_path, check=True)
    return tmp_path

def test_export_in_step(project):
    before = state(project)
    r = call('check_export', project)
    assert (r.returncode, r.stderr) == (0, '') and 'in step' in r.stdout
    assert state(project) == before                                                     # only read
    assert (project/'fastclean/__init__.py').read_text() == '"By hand."\n__version__ = str(1)\n'   # an export leaves it as it is

def test_export_out_of_step(project):
    lib = project/'fastclean'
    edit(lib/'first.py', 'return 1', 'return 2')                                        # a module edited by hand
    edit(project/'nbs/01_second.ipynb', 'second_value', 'second_number')                # a notebook not exported: module and index
    shutil.copy(lib/'first.py', lib/'gone.py')                                          # a module whose notebook is gone
    save(project/'nbs/02_third.ipynb', new_code_cell('#| default_exp third'), new_code_cell('#| export\nx = 1'))
    before = state(project)
    r = call('check_export', project)
    assert r.returncode == 1
    said = dict(l.split(': ', 1) for l in r.stderr.splitlines() if l.startswith('fastclean/'))
    assert said == {'fastclean/first.py': 'its notebook says something else', 'fastclean/second.py': 'its notebook says something else',
                    'fastclean/_modidx.py': 'its notebook says something else', 'fastclean/third.py': 'missing', 'fastclean/gone.py': 'no notebook exports it'}
    assert state(project) == before

def test_export_index(project):
    (project/'fastclean/_modidx.py').unlink()
    assert tool('check_export').out_of_step(project) == {'fastclean/_modidx.py': 'missing'}

# --- README against the index notebook

def index(path, *more, picture=PNG):
    save(path/'nbs/index.ipynb', new_markdown_cell('# fastclean\n\n> Find wrong labels'), new_code_cell('#| hide\nsecret = 1'),
        new_markdown_cell('Use `vision_learner`, see [core](00_core.ipynb#Predictions) and [far](https://example.org/a). [why](why.md), `HELP.md` and `NONE.md`'),
        new_markdown_cell(':::{.callout-tip title="Try it"}\n\nOne\n\n- two\n\n:::\n\nAfter.'),
        new_markdown_cell('::: {.callout-warning}\n\n## Careful\n\nBody\n:::\n\n```python\n[a](00_core.ipynb)\n\n\n:::{.callout-tip}\n:::\n```'),
        new_code_cell('show()', outputs=[new_output('stream', name='stderr', text='a warning\n'), new_output('display_data', data={'image/png': picture, 'text/plain': '<Figure>'})]),
        new_code_cell('#| echo: false\nunseen()', outputs=[new_output('execute_result', data={'text/html': '<style scoped>\n b {}\n</style>\n<table><tr><td>7</td></tr></table>', 'text/plain': '7'})]),
        new_code_cell('#| output: false\nfit()', outputs=[new_output('stream', text='noise of training')]),
        new_code_cell('#| include: false\nnothing()', outputs=[new_output('stream', text='nothing')]), *more)

@pytest.fixture
def docs(tmp_path):
    shutil.copy(ROOT/'pyproject.toml', tmp_path)
    index(tmp_path)
    (tmp_path/'nbs/00_core.ipynb').write_text('{}')
    (tmp_path/'docs').mkdir(); (tmp_path/'docs/why.md').write_text('why'); (tmp_path/'HELP.md').write_text('help')
    return tmp_path

def test_readme_written(docs):
    r = call('readme', docs)
    assert r.returncode == 0, r.stderr
    md = (docs/'README.md').read_text()
    assert md.startswith('# fastclean\n\n> Find wrong labels\n')
    for gone in ('secret', 'unseen', 'a warning', 'style', 'noise of training', 'nothing', '#|', '.callout-warning', '\n\n\n\n'): assert gone not in md
    assert '> [!TIP]\n> **Try it**\n>\n> One\n>\n> - two\n\nAfter.' in md
    assert '> [!WARNING]\n> **Careful**\n>\n> Body\n' in md
    assert '[core](nbs/00_core.ipynb#Predictions) and [far](https://example.org/a)' in md
    assert '[why](docs/why.md), [`HELP.md`](HELP.md) and `NONE.md`' in md       # pages of the documentation, and those beside the README
    assert '```python\n[a](00_core.ipynb)\n\n\n:::{.callout-tip}\n:::\n```' in md        # code is left alone
    assert '```python\nshow()\n```' in md and '```python\nfit()\n```' in md and '<td>7</td>' in md
    assert '`vision_learner`' in md
    pictures = list((docs/'README_files').iterdir())
    assert [p.read_bytes() for p in pictures] == [base64.b64decode(PNG)] and f'](README_files/{pictures[0].name})' in md

@pytest.mark.slow
def test_readme_check(docs):
    call('readme', docs)
    before = state(docs)
    assert call('readme', '--check', docs).returncode == 0 and state(docs) == before

    edit(docs/'README.md', 'https://example.org/a', 'https://example.org/b')
    r = call('readme', '--check', docs)
    assert r.returncode == 1 and 'README.md' in r.stderr and 'README_files' not in r.stderr

@pytest.mark.parametrize('change', ['text', 'picture', 'no picture', 'stray picture', 'no readme'])
def test_readme_behind(docs, change):
    readme = tool('readme')
    readme.write(docs)
    assert readme.behind(docs) == []
    picture, = (docs/'README_files').iterdir()
    if change == 'text': index(docs, new_markdown_cell('A new word.')); want = ['README.md']
    if change == 'picture': picture.write_bytes(b'old'); want = [f'README_files/{picture.name}']
    if change == 'no picture': picture.unlink(); want = [f'README_files/{picture.name}']
    if change == 'stray picture': (docs/'README_files/z.png').write_bytes(b''); want = ['README_files/z.png']
    if change == 'no readme': (docs/'README.md').unlink(); want = ['README.md']
    assert readme.behind(docs) == want
    readme.write(docs)
    assert readme.behind(docs) == []

def test_readme_links_of_names(docs):
    "The address of a documented name may move with its library, and a name without an address is plain."
    readme = tool('readme')
    assert readme.links('[`x`](core.html#x) [`y`](https://a.b/y)', docs/'nbs') == '`x` [`y`](https://a.b/y)'
    assert readme.without_addresses('a [`y`](https://a.b/y) [z](https://a.b/z)') == 'a `y` [z](https://a.b/z)'

def test_readme_without_index(docs):
    (docs/'nbs/index.ipynb').unlink()
    r = call('readme', '--check', docs)
    assert r.returncode == 1 and r.stderr == 'nbs/index.ipynb: missing\n'

# --- what is built

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A wheel and a source archive, made from a copy."
    pytest.importorskip('setuptools', '77')
    src = tmp_path_factory.mktemp('build')
    for f in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'CHANGELOG.md', 'MANIFEST.in'): shutil.copy(ROOT/f, src)
    for d in ('fastclean', 'tests'): shutil.copytree(ROOT/d, src/d, ignore=shutil.ignore_patterns('__pycache__'))
    subprocess.run([sys.executable, '-c', 'from setuptools.build_meta import *; print(build_sdist("dist"), build_wheel("dist"))'], cwd=src, check=True, capture_output=True)
    whl, = src.glob('dist/*.whl'); sdist, = src.glob('dist/*.tar.gz')
    return zipfile.ZipFile(whl), tarfile.open(sdist)

def package_files(): return {f.relative_to(ROOT).as_posix() for f in (ROOT/'fastclean').rglob('*') if f.is_file() and f.suffix in ('.py', '.html', '.css', '.js')}

def test_wheel_is_complete(built):
    names = {n for n in built[0].namelist() if '.dist-info/' not in n}
    assert names == package_files()
    assert {'fastclean/report.html', 'fastclean/report.css', 'fastclean/report.js'} <= names

def test_sdist_is_complete(built):
    names = {n.partition('/')[2] for n in built[1].getnames()}
    assert package_files() | {'settings.ini', 'setup.py', 'pyproject.toml', 'LICENSE', 'README.md', 'CHANGELOG.md', 'tests/browser.py'} <= names

def test_metadata(built):
    whl = built[0]
    read = lambda n: next(whl.read(o).decode() for o in whl.namelist() if o.endswith(f'.dist-info/{n}'))
    cfg = ConfigParser(delimiters=['='], interpolation=None); cfg.read(ROOT/'settings.ini'); cfg = cfg['DEFAULT']
    meta = HeaderParser().parsestr(read('METADATA'))
    assert (meta['Name'], meta['Version'], meta['Summary'], meta['License-Expression']) == ('fastclean', cfg['version'], cfg['description'], 'Apache-2.0')
    assert meta['Requires-Python'] == '>=3.11' and meta['Author'] == cfg['author']
    needs = meta.get_all('Requires-Dist')
    assert set(cfg['requirements'].split()) <= set(needs)
    assert {k.removesuffix('_requirements') for k in cfg if k.endswith('_requirements')} | {'all'} == set(meta.get_all('Provides-Extra'))
    assert 'fastclean = fastclean.cli:main' in read('entry_points.txt') and 'fastclean = fastclean._modidx:d' in read('entry_points.txt')

# --- the commands of a clean clone

def test_ci_script():
    ci = ROOT/'.ci/run'
    assert ci.stat().st_mode & stat.S_IXUSR
    subprocess.run(['bash', '-n', ci], check=True)
    assert all(t in ci.read_text() for t in ('make test\n', 'make test-slow\n', 'make demo', 'make test-browser'))

@pytest.mark.skipif(not shutil.which('make'), reason='make is not installed')
def test_make(tmp_path):
    "Everything is made in a fresh clone: the environment first, then each step of the tests."
    shutil.copy(ROOT/'Makefile', tmp_path)
    for n in ('settings.ini', 'setup.py', 'pyproject.toml'): shutil.copy(ROOT/n, tmp_path)
    env = {k: v for k, v in os.environ.items() if not k.startswith('MAKE')}       # this may run inside `make test` itself
    plan = lambda target: subprocess.run(['make', '-n', target], cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    steps = ['-m venv .venv', "-e '.[dev,docs]'", 'tools/check_export.py', 'tools/readme.py --check', '-m pytest', 'nbdev-test']
    at = [plan('test').index(s) for s in steps]
    assert at == sorted(at)
    assert plan('demo').index("-e '.[dev,docs]'") < plan('demo').index('fastclean demo')
    (tmp_path/'.venv').mkdir(); (tmp_path/'.venv/.installed').touch()
    assert 'pip install' not in plan('demo')                # installed once
    os.utime(tmp_path/'settings.ini', (now := (tmp_path/'.venv/.installed').stat().st_mtime + 10, now))
    assert 'pip install' in plan('demo')                    # and again when its requirements change

# --- figures

def test_figures_of_the_readme_are_those_of_the_benchmark():
    rows = pd.read_csv(ROOT/'benchmarks'/'find_labels.csv').groupby('cell')[['wrong', 'flagged', 'precision', 'recall', 'f1']].mean()
    table = [[o.strip() for o in line.strip('|\n').split('|')] for line in (ROOT/'README.md').read_text().split('## How well it finds them')[1].split('\n\n')[2].splitlines()[2:]]
    shown = [dict(zip(rows, (float(o.replace(',', '')) if o else 0. for o in r[1:]))) for r in table]
    cells = ['imagenette-0', 'imagenette-1', 'imagenette-5', 'imagenette-25', 'imagenette-50', 'mnist-symmetric-0.1', 'mnist-symmetric-0.1-finetune', 'cifar10-human']
    assert len(shown) == len(cells)
    for cell, r in zip(cells, shown):
        for k, v in r.items(): assert abs(v - np.nan_to_num(rows.loc[cell, k])) <= (.5 if k in ('wrong', 'flagged') else .0006), (cell, k)

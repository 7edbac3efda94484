"The pages of the documentation: what is shown of a notebook, what is said of a name, and which words become references."
import os, sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT/'tools'))
docs = pytest.importorskip('docs') if (ROOT/'tools/docs.py').exists() else pytest.skip('no tools', allow_module_level=True)

def book(*cells): return new_notebook(cells=[new_markdown_cell(c[2:]) if c.startswith('m ') else new_code_cell(c, outputs=[new_output('stream', text='seen')]) for c in cells])
CORE = book('m # core\n\n> What it is about', '#| default_exp core', '#| hide\nsecret = 1', "#| export\ndef to_jsonable(o): pass\ndef _private(o): pass", 'm See `to_jsonable`, `nobody` and [noise\nof labels](noise.html).\n\n```python\n`to_jsonable`\n```', 'shown()')
NOISE = book('m # noise', '#| default_exp noise', '#| export\n@patch\ndef to_jsonable(self:MarginNoise): pass\nclass MarginNoise:\n    def rate(self): pass\n    def _hidden(self): pass')
GUIDE = book('m # A guide\n\n`to_jsonable`')
BOOKS = {Path('00_core.ipynb'): CORE, Path('03_noise.ipynb'): NOISE, Path('20_guide.ipynb'): GUIDE, Path('index.ipynb'): new_notebook(cells=[new_raw_cell('---'), new_markdown_cell('# It')])}
NAMES = docs.Names(BOOKS)

def text(name): return '\n'.join(c.source for c in docs.page(BOOKS[Path(name)], NAMES, NAMES.pages[name]).cells)

def test_what_a_cell_defines():
    assert list(docs.defined(NOISE.cells[2].source)) == ['MarginNoise.to_jsonable', 'MarginNoise']
    assert docs.methods_of(NOISE.cells[2].source, 'MarginNoise') == ['rate']
    assert docs.methods_of('class A:\n    @property\n    def b(self): pass\n    @b.setter\n    def b(self, v): pass', 'A') == ['b']

def test_pages_and_rooms():
    assert NAMES.pages == {'00_core.ipynb': 'api/core', '03_noise.ipynb': 'api/noise', '20_guide.ipynb': 'guides/20_guide', 'index.ipynb': 'index'}
    assert NAMES.rooms['Guides'] == ['guides/20_guide', 'experiments', 'comparison'] and NAMES.rooms['Data and noise'] == ['api/core', 'api/noise']
    assert 'api/index' in text('index.ipynb') and '[A guide](guides/20_guide.ipynb)' in text('index.ipynb') and '---' not in text('index.ipynb')
    first = docs.Names(BOOKS | {Path('25_how_it_works.ipynb'): book('m # How it works')}).rooms['Guides']
    assert first == ['guides/25_how_it_works', 'guides/20_guide', 'experiments', 'comparison']

def test_one_page_leads_to_all_modules():
    pages = docs.reference(NAMES)
    assert list(pages) == ['api/index', 'api/data-and-noise']
    for o in pages.values(): assert '| [`core`](core.ipynb) | What it is about |' in o
    assert '[Data and noise](data-and-noise.md)' in pages['api/index'] and pages['api/index'].endswith('\n\ndata-and-noise\n```\n') and pages['api/data-and-noise'].endswith('core\nnoise\n```\n')

def test_what_is_shown_of_a_notebook():
    said = text('00_core.ipynb')
    for o in ('# core\n\nWhat it is about', '```{index} to_jsonable (core)\n```\n\n(core.to_jsonable)=\n\n## `to_jsonable`', 'Source', 'shown()'): assert o in said
    for o in ('secret', 'default_exp', '#|', '## `_private`'): assert o not in said
    assert docs.page(CORE, NAMES, 'api/core').cells[-1].outputs[0].text == 'seen'

def test_references():
    said = text('00_core.ipynb')
    assert '[`to_jsonable`](#core.to_jsonable)' in said and '`nobody`,' not in said and '`nobody` and' in said
    assert '[noise\nof labels](../api/noise.ipynb)' in said and '```python\n`to_jsonable`\n```' in said
    assert '[`to_jsonable`](#core.to_jsonable)' in text('20_guide.ipynb')
    both = docs.Names(BOOKS | {Path('05_features.ipynb'): book('#| default_exp features', '#| export\ndef to_jsonable(o): pass')})
    assert docs.prose('`to_jsonable`', both, 'guides/x', None) == '`to_jsonable`'   # which of the two is not clear
    assert docs.prose('`to_jsonable`', both, 'api/core', 'core') == '[`to_jsonable`](#core.to_jsonable)'

def test_what_is_said_of_a_name():
    def function(n:int, # A number | of things, as `to_jsonable` takes it
                 path='a', # No type is said
    )->str: # What comes back
        "What it does."
    said = docs.parameters(function, lambda o: o.upper())
    assert said.splitlines()[3:-1] == ['| `n` | `int` |  | A NUMBER \\| OF THINGS, AS `TO_JSONABLE` TAKES IT |', "| `path` |  | `'a'` | NO TYPE IS SAID |", '| *Returns* | `str` |  | WHAT COMES BACK |']
    assert said.splitlines()[::len(said.splitlines()) - 1] == [':::{container} parameters', ':::']
    assert docs.signature('f', function) == "f(n, path='a')"
    assert docs.signature('f', lambda **kwargs: 0) == 'f(**kwargs)'
    assert docs.parameters(lambda: 0, str) == ''

def test_all_names_are_explained():
    import nbformat
    books = {f: nbformat.read(f, 4) for f in sorted((ROOT/'nbs').glob('*.ipynb'))}
    at = docs.Names(books).at
    assert {'find_label_issues', 'KFoldLearner', 'DivideMix', 'MarginNoise', 'Source'} <= at.keys()
    said = docs.entry('issues', 'find_label_issues', 2, '', str)
    assert '\n\n(issues.find_label_issues)=\n\n## `find_label_issues`' in said and '| *Returns* |' in said

# pictures, formulas, and what is fetched

@pytest.mark.parametrize('f', sorted((ROOT/'nbs').rglob('*.ipynb')), ids=lambda o: o.stem)
def test_no_picture_is_hidden(f):
    import nbformat
    for c in nbformat.read(f, 4).cells:
        if 'hide' in docs.directives(c): assert not [k for o in c.outputs for k in o.get('data', {}) if k.startswith('image/')], c.source   # `echo: false` hides the code alone

def test_what_would_be_fetched_from_elsewhere():
    assert docs.fetched('<script defer src="https://a/b.js"></script><a href="https://a"><img alt="x"\n src="//a/c.png"><link rel="stylesheet" href="_static/d.css">') == ['https://a/b.js', '//a/c.png']

SITE = ROOT/'_docs/html'

@pytest.mark.skipif(not (SITE/'index.html').exists(), reason='no site has been built: make docs')
def test_the_site_fetches_nothing_and_shows_formulas():
    import re
    for f in SITE.rglob('*.html'):
        said = f.read_text(encoding='utf-8')
        assert docs.fetched(said) == [], f
        assert not re.search(r'class="math[ "]|\\\(', re.sub(r'(?s)<div class="math">\s*<math.*?</math></div>|<pre.*?</pre>|<code.*?</code>', '', said)), f
    assert '<math' in (SITE/'api/transition.html').read_text(encoding='utf-8')

# what the pages tell a reader to type

PAGES = sorted((ROOT/'docs').rglob('*.md')) + [ROOT/'README.md']

@pytest.mark.parametrize('page', PAGES, ids=lambda o: o.name)
def test_commands_and_code_that_a_reader_copies(page):
    import ast, builtins, re, shlex
    import fastclean.all as everything
    from typer.main import get_command
    from fastclean import actions, auditing, cli, noising, reviewing, training   # noqa: F401: their commands
    from fastclean.labelstudio import commands                         # noqa: F401
    said = page.read_text(encoding='utf-8')
    for line in re.findall(r'(?m)^fastclean .*', '\n'.join(re.findall(r'(?ms)^```sh\n(.*?)^```', said))):
        words, command = shlex.split(line, comments=True)[1:], get_command(cli.app)
        while hasattr(command, 'commands'): command = command.commands[words.pop(0)]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert {o for o in words if o.startswith('--')} <= known, line
    free = {'parallel_config', 'dls', 'learner_fn', 'preds', 'issues', 'interp', 'folds', 'votes', 'model', 'arch', 'kf', 'learn', 'path', 'item'}
    for code in re.findall(r'(?ms)^```python\n(.*?)^```', said):
        tree = ast.parse(code)
        new = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | {a.asname or a.name for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names} | {o for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) for o in (n.name, *(a.arg for a in n.args.args))}
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - new - free
        assert {o for o in used if not hasattr(everything, o) and not hasattr(builtins, o)} == set(), code

# the workflows of a fork

@pytest.mark.parametrize('name', ['test', 'docs', 'release'])
def test_workflows(name):
    import yaml
    flow = yaml.safe_load((ROOT/f'.github/workflows/{name}.yml').read_text())
    assert set(flow) == {'name', True, 'permissions', 'jobs'} | ({'concurrency'} if name != 'release' else set())   # YAML reads `on` as true
    targets = set((ROOT/'Makefile').read_text().split('.PHONY:')[1].split('\n')[0].split())
    for job in flow['jobs'].values():
        assert set(job.get('needs', '').split()) <= set(flow['jobs']) and job['runs-on'] == 'ubuntu-latest'
        for step in job['steps']:
            assert ('run' in step) != ('uses' in step) and '@' in step.get('uses', '@')
            words = step.get('run', '').split()
            if words[:1] == ['make']: assert set(words[1:]) <= targets
            if words and '/' in words[0]: assert os.access(ROOT/words[0], os.X_OK)

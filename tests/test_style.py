"The code's own rules: documented throughout, short, light to import, and nothing of one machine in what is committed."
import ast, importlib, io, json, re, subprocess, sys, tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIB = ROOT/'fastclean'
MODULES = sorted(f for f in LIB.rglob('*.py') if f.name != '_modidx.py')
NOTEBOOKS = sorted(f for f in (ROOT/'nbs').rglob('*.ipynb') if not any(p[0] in '._' for p in f.relative_to(ROOT/'nbs').parts))
LIGHT = ['core', 'transition', 'issues']       # a data pipeline can use them alone
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
MAX_LINES = 350

def name(f): return f.relative_to(ROOT).as_posix()
each_module = pytest.mark.parametrize('f', MODULES, ids=name)
each_notebook = pytest.mark.parametrize('f', NOTEBOOKS, ids=name)

def public(body):
    "Public functions, classes and methods, with their qualified names; constructors are public."
    for o in body:
        if not isinstance(o, (*FUNCTION, ast.ClassDef)) or (o.name[0] == '_' and o.name != '__init__'): continue
        yield o.name, o
        if isinstance(o, ast.ClassDef): yield from ((f'{o.name}.{n}', m) for n, m in public(o.body))

def parameters(f):
    "Parameters that a caller gives."
    a = f.args
    args = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    patched = any('patch' in ast.unparse(d) for d in f.decorator_list)
    return args[1:] if args and (args[0].arg in ('self', 'cls') or patched) else args

def comments(src): return {t.start[0]: t.string for t in tokenize.generate_tokens(io.StringIO(src).readline) if t.type == tokenize.COMMENT}

def faults(src):
    "What a module's source leaves undocumented, and what it catches blindly."
    tree, com = ast.parse(src), comments(src)
    for n, o in public(tree.body):
        if not ast.get_docstring(o) and not n.endswith('__init__'): yield f'{n}: no docstring'
        if not isinstance(o, FUNCTION): continue
        lines = [a.end_lineno for a in parameters(o)]
        for a in parameters(o):
            if not com.get(a.end_lineno, '').strip('# ') or lines.count(a.end_lineno) > 1: yield f'{n}({a.arg}): no docment of its own'
    for o in ast.walk(tree):
        if isinstance(o, ast.ExceptHandler) and o.type is None: yield f'line {o.lineno}: bare except'
        if isinstance(o, ast.Raise) and ast.unparse(o.exc or o).startswith(('Exception', 'BaseException')): yield f'line {o.lineno}: raise Exception'

def written(nb):
    "The texts of a notebook's outputs; pictures are left out."
    for i, c in enumerate(nb['cells']):
        for o in c.get('outputs', []):
            texts = [o.get('text', ''), o.get('traceback', ''), *(v for k, v in o.get('data', {}).items() if not k.startswith('image/p'))]
            for t in texts: yield i, t if isinstance(t, str) else ''.join(t) if isinstance(t, list) else json.dumps(t)

MACHINE = re.compile(r'''(?:^|[\s'"(=:])(?:file://)?(/(?:root|home|tmp|Users|private|var|mnt|work)/[^\s'"<]*)''')

@each_module
def test_imports(f): importlib.import_module('.'.join(f.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'))

@each_module
def test_documented(f): assert list(faults(f.read_text(encoding='utf-8'))) == []

@each_module
def test_short(f): assert len(f.read_text(encoding='utf-8').splitlines()) <= MAX_LINES

@pytest.mark.parametrize('module', LIGHT)
def test_light_to_import(module):
    code = f"import sys, fastclean.{module}; print(sorted({{'torch', 'torchvision', 'fastai', 'timm', 'cleanlab', 'matplotlib.pyplot'}} & set(sys.modules)))"
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert r.stdout.strip() == '[]'

@each_notebook
def test_no_machine_in_outputs(f):
    nb = json.loads(f.read_text(encoding='utf-8'))
    assert [(i, m[1]) for i, t in written(nb) for m in MACHINE.finditer(t)] == []

@each_notebook
def test_no_error_in_outputs(f):
    nb = json.loads(f.read_text(encoding='utf-8'))
    assert [i for i, c in enumerate(nb['cells']) for o in c.get('outputs', []) if o['output_type'] == 'error'] == []

def test_the_rules_bite():
    bad = '''
def f(a, # meaning
      b): return a
class C:
    "A class."
    def __init__(self, x): self.x = x
    def g(self): return 1
    def _h(self, y): return y
@patch
def p(self:C, q, r): # both
    "Patched."
    try: pass
    except: raise Exception('vague')
'''
    assert sorted(faults(bad)) == sorted(['f: no docstring', 'f(b): no docment of its own', 'C.__init__(x): no docment of its own', 'C.g: no docstring',
        'p(q): no docment of its own', 'p(r): no docment of its own', 'line 13: bare except', 'line 13: raise Exception'])
    good = 'def f(\n    a, # meaning\n    *args, # others\n)->int: # what\n    "Does it."\n    return 1\n'
    assert list(faults(good)) == []
    out = lambda t: {'cells': [{'outputs': [{'output_type': 'stream', 'text': [t]}]}]}
    found = lambda t: [m[1] for _, s in written(out(t)) for m in MACHINE.finditer(s)]
    assert found("Path('/tmp/x/issues.csv')") == ['/tmp/x/issues.csv'] and found('a/tmp/b and n/home/') == []

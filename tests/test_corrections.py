"Corrections from strangers: whatever a file says, nothing is written outside of the copy, and what is refused is listed. FASTCLEAN_HOSTILE=10000 tries that many files."
import csv, io, json, math, os, shutil, stat, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from fastclean.cli import main
from fastclean.copies import correct_copy, read_manifest
from fastclean.core import Predictions
from fastclean.corrections import *
from fastclean.corrections import _array_corrections
from fastclean.data import read_source
from fastclean.issues import find_label_issues, write_issues
from fastclean.undo import undo

EXAMPLES = int(os.environ.get('FASTCLEAN_HOSTILE', 150))
VOCAB = ['cat', 'dog', 'pig']
PATHS = ['0.png', '1.png', '..', '../x', '../../etc/passwd', '/etc/passwd', '/', '', '.', './cat/0.png', 'cat/../dog/1.png', 'cat\\0.png', 'C:\\x', 'C:cat/0.png', '\\\\server\\share', 'cat/0.png\0', 'cat/\n', 'out.png', 'far/0.png', 'link.png',
         'cat', 'cat/', '.fastclean/correct.json', 'cat/0.png/', '\udcff', '\ud800', 'CON', 'a'*5000, 'cat/0.PNG', '~/x', 'file:///etc/passwd', '$(touch x)', 'dog/\\xff.png', 'cat/away.png']
LABELS = ['a/b', '..', '.', '', ' ', '../dog', '/tmp', 'C:', 'C:\\', 'dog\0', 'dog\n', 'nul', 'COM1', '.fastclean', '.hidden', 'Dog', 'DOG', 'train', 'unlabelled', '\ud800', '\udcff', 'x'*300, 'dog.', '~', '=1+1', 'far', 'a\\b',
          '\u202egod', 'cow', 'link.png', 'café', 1, 0.5, True, None, [], {}, ['dog']]

def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (6, 6), value % 256).save(path, format='PNG')

def make_source(base):
    "Three classes of four images, with links, odd names and things that are no images; and something outside that must stay as it is."
    src = base/'src'
    for k, c in enumerate(VOCAB):
        for i in range(4): write(src/c/f'{i + k}.png', 10*k + i)
    (base/'outside').mkdir(); write(base/'outside'/'0.png', 99); (base/'outside'/'secret.txt').write_text('secret')
    os.link(src/'cat'/'0.png', src/'dog'/os.fsdecode(b'\xff.png'))
    (src/'notes.txt').write_text('notes'); (src/'empty').mkdir()
    os.symlink(base/'outside', src/'far'); os.symlink('../../outside/0.png', src/'cat'/'out.png'); os.symlink('../dog/1.png', src/'pig'/'in.png'); os.symlink('cat/0.png', src/'link.txt')
    os.symlink('nowhere', src/'cat'/'away.png')
    return src

def snapshot(folder, but=()):
    "Everything below a folder: kind, permissions, content, and time of files."
    out = {}
    for top, dirs, files in os.walk(folder):
        for n in dirs + files:
            p = os.path.join(top, n)
            s = os.lstat(p)
            if any(p == os.fspath(b) or p.startswith(os.fspath(b) + os.sep) for b in but): continue
            what = os.readlink(p) if stat.S_ISLNK(s.st_mode) else open(p, 'rb').read() if stat.S_ISREG(s.st_mode) else None
            out[os.path.relpath(p, folder)] = (s.st_mode, what, None if stat.S_ISDIR(s.st_mode) else s.st_mtime_ns)
        dirs[:] = [d for d in dirs if not os.path.islink(os.path.join(top, d))]
    return out

@pytest.fixture(scope='module')
def box(tmp_path_factory):
    base = tmp_path_factory.mktemp('box')
    src = make_source(base)
    source = read_source(src)
    p = np.full((len(source), 4), .01, np.float32); p[np.arange(len(source)), (source.given + (np.arange(len(source)) % 3 == 0)) % 4] = .97
    issues = find_label_issues(Predictions.from_arrays(source.given, p, source.vocab, source.frame['item']))
    (base/'in').mkdir(); (base/'out').mkdir()
    return dict(base=base, src=src, frame=source.frame, issues=issues, before=snapshot(base, [base/'in', base/'out']), label=dict(zip(source.frame['item'], source.frame.given_label)))

# ---- what strangers write

any_text = st.text(st.characters(exclude_categories=()), max_size=12)
ITEMS = [f'{c}/{i + k}.png' for k, c in enumerate(VOCAB) for i in range(4)] + ['pig/in.png', 'cat/out.png', 'far/0.png']
path = st.one_of(st.sampled_from(ITEMS), st.sampled_from(ITEMS), st.sampled_from(PATHS), any_text, st.one_of(st.none(), st.integers(), st.floats(), st.lists(st.integers(), max_size=2)))
label = st.one_of(st.sampled_from(VOCAB), st.sampled_from(VOCAB), st.sampled_from(LABELS), any_text)
score = st.one_of(st.floats(0, 1), st.sampled_from([1, 0, .99]), st.floats(), st.integers(), st.sampled_from([10**400, -1, True, None, '0.9', [], {}, 1.0000001]))

@st.composite
def entries(draw):
    "Entries that would be applied, each with up to two of its fields spoilt; some said twice."
    out = []
    for _ in range(draw(st.integers(0, 6))):
        p = draw(st.sampled_from(ITEMS))
        e = [p, p.split('/')[0], draw(st.sampled_from(VOCAB)), draw(st.floats(.5, 1))]
        for i in draw(st.sampled_from([(), (), (0,), (1,), (2,), (2,), (2,), (3,), (0, 2), (1, 2), (2, 3)])): e[i] = draw((path, label, label, score)[i])
        out += [tuple(e)]*draw(st.sampled_from([1, 1, 1, 2]))
    return out

json_value = st.recursive(st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), any_text), lambda o: st.one_of(st.lists(o, max_size=4), st.dictionaries(any_text, o, max_size=4)), max_leaves=8)

def as_json(rows): return json.dumps(dict(zip(ARRAYS, map(list, zip(*rows)))) if rows else {k: [] for k in ARRAYS})

@st.composite
def json_file(draw):
    "A corrections.json, whole or broken; its entries where they can be told."
    rows = draw(entries())
    how = draw(st.sampled_from(['whole']*8 + ['cut', 'other', 'bytes', 'missing', 'longer', 'deep', 'value', 'twice', 'bom']))
    text = as_json(rows)
    if how in ('whole', 'bom'): return 'json', ('\ufeff'*(how == 'bom') + text).encode(), rows
    d = json.loads(text)
    if how == 'cut': raw = text[:draw(st.integers(0, len(text) - 1))].encode()
    elif how == 'other': raw = json.dumps(draw(json_value)).encode()
    elif how == 'bytes': raw = draw(st.binary(max_size=60))
    elif how == 'missing': d.pop(draw(st.sampled_from(ARRAYS))); raw = json.dumps(d).encode()
    elif how == 'longer': d[draw(st.sampled_from(ARRAYS))].append('x'); raw = json.dumps(d).encode()
    elif how == 'deep': raw = (draw(st.sampled_from(['[', '{"a":', '[{"a":']))*draw(st.sampled_from([900, 100_000]))).encode()
    elif how == 'value': d[draw(st.sampled_from(ARRAYS))] = draw(json_value); raw = json.dumps(d).encode()
    else: raw = text.replace('"corrected_scores"', '"corrected_labels"').encode()
    return 'json', raw, None

@st.composite
def csv_file(draw):
    "A table of decisions, well-formed or not."
    if not draw(st.integers(0, 4)): return 'csv', draw(st.one_of(st.binary(max_size=80), st.builds(lambda t: ('item,label\n' + t).encode('utf-8', 'surrogatepass'), any_text))), None
    out = io.StringIO()
    rows = [(str(p), str(new)) for p, _, new, _ in draw(entries())]
    w = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator='\n')
    w.writerow(draw(st.sampled_from([('item', 'label'), ('item', 'label'), ('label', 'item'), ('item', 'given_label', 'verified'), ('item', 'item'), ('x',)])))
    w.writerows(rows)
    return 'csv', out.getvalue().encode('utf-8', 'surrogatepass'), None

@st.composite
def issues_file(draw):
    "A table of issues in which some cells were changed."
    return 'issues', [(draw(st.integers(0, 12)), draw(st.sampled_from(['item', 'given_label', 'suggested_label', 'suggested_prob', 'split', 'is_label_issue', 'label_score', 'certainty', 'fold'])),
                       draw(st.one_of(path, label, score))) for _ in range(draw(st.integers(1, 5)))], None

def put(box, file, n):
    kind, content, rows = file
    f = box['base']/'in'/f'{n}.{"json" if kind == "json" else "csv"}'
    if kind == 'issues':
        write_issues(box['issues'], f)
        lines = [list(o) for o in csv.reader(io.StringIO(f.read_text()))]
        for row, col, v in content: lines[1 + row % (len(lines) - 1)][lines[0].index(col)] = str(v).replace('\0', '').encode('utf-8', 'replace').decode()
        out = io.StringIO(); csv.writer(out, lineterminator='\n').writerows(lines); f.write_text(out.getvalue(), newline='')
    else: f.write_bytes(content)
    return f

# ---- what may come of it

def new_label_ok(o, allow):
    "An oracle of its own: what a new class may be called at most."
    return o in VOCAB or o == 'far' or (allow and isinstance(o, str) and o.strip() != '' and not set(o) & set('/\\:\0\n') and o not in ('.', '..') and o[0] != '.')

def meant(box, p, old):
    "The item that a bare name of a file stands for, as the earlier plugin writes them; everything else as it is."
    if not isinstance(p, str) or '/' in p or p in box['label']: return p
    same = [k for k, v in box['label'].items() if v == old and k.split('/')[-1] == p.encode('utf-8', 'surrogatepass').decode('utf-8', 'replace')]
    return same[0] if len(same) == 1 else p

def could_be(box, row, allow):
    "Whether an entry may be applied: written here again, as plainly as can be."
    p, old, new, s = row
    p = meant(box, p, old)
    return (isinstance(p, str) and (p if p in box['label'] else p.encode('utf-8', 'surrogatepass').decode('utf-8', 'replace')) in box['label'] and isinstance(old, str) and old == box['label'].get(p) and new_label_ok(new, allow)
            and isinstance(s, (int, float)) and not isinstance(s, bool) and 0 <= s <= 1)

def check_copy(box, dst, rows, allow):
    "The copy holds what it should, and nothing else."
    m, src = read_manifest(dst), snapshot(box['src'])
    for r in m.changes.to_dict('records'):
        assert r['item'] in box['label'] and r['given_label'] == box['label'][r['item']]
        assert r['new_label'] is None or new_label_ok(r['new_label'], allow)
    if rows is not None:
        said = set(m.refused.row.dropna().astype(int))
        for i, r in enumerate(rows):
            if not could_be(box, r, allow): assert i in said, r
        changed = set(m.changes['item']) if len(m.changes) else set()
        assert changed <= {meant(box, r[0], r[1]) for r in rows if could_be(box, r, allow)}
        assert not any(o.startswith('far') for o in changed) and 'far' not in set(m.changes.new_label if len(m.changes) else ())      # a link to a folder
    now = {p: v for p, v in snapshot(dst).items() if not p.startswith('.fastclean' + os.sep)}
    moved = {r['from']: r['to'] for r in m.changes.to_dict('records')}
    files = lambda t: sorted((v[0], v[1], v[2]) for p, v in t.items() if not stat.S_ISDIR(v[0]) and not stat.S_ISLNK(v[0]))
    if not any('pruned' in o for o in moved.values()): assert files(now) == files(src)      # the same files, under the same or another name
    links = lambda t: sorted(v[1] for v in t.values() if stat.S_ISLNK(v[0]))
    assert set(links(now)) <= set(links(src))
    undo(dst)
    times = lambda t: {p: (v[0], v[1]) if stat.S_ISDIR(v[0]) or stat.S_ISLNK(v[0]) else v for p, v in t.items()}
    assert times(snapshot(dst)) == times(src)

count = iter(range(10**9))

@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=False)
@given(file=st.one_of(json_file(), json_file(), json_file(), csv_file(), issues_file()), allow=st.booleans(), action=st.sampled_from(['relabel', 'relabel', 'prune']), link=st.sampled_from(['copy', 'hard']))
def test_hostile_corrections(box, file, allow, action, link):
    from fastclean.correct import plan_corrections
    n = next(count)
    f, dst = put(box, file, 'f'), box['base']/'out'/str(n)
    try:
        src = read_source(box['src'])
        plan = plan_corrections(read_corrections(f), action, data=src.frame, vocab=src.vocab, allow_new_labels=allow)
        correct_copy(box['src'], dst, plan, link=link)
    except ValueError as e:
        assert file[2] is None, e        # a file whose entries can be told is never refused as a whole
        assert not dst.exists()
    else: check_copy(box, dst, file[2], allow)
    shutil.rmtree(dst, ignore_errors=True)
    left = os.listdir(box['base']/'out')
    assert left in ([], [f'.{n}.fastclean-part'])
    for o in left: shutil.rmtree(box['base']/'out'/o)
    assert snapshot(box['base'], [box['base']/'in', box['base']/'out']) == box['before']

@settings(max_examples=max(30, EXAMPLES//100), deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=False)
@given(file=st.one_of(json_file(), json_file(), csv_file(), issues_file()), allow=st.booleans(), dry=st.booleans())
def test_hostile_corrections_through_the_command_line(box, file, allow, dry):
    f, dst = put(box, file, 'g'), box['base']/'out'/'c'
    out, err = io.StringIO(), io.StringIO()
    option = {'json': '--issues', 'csv': '--decisions', 'issues': '--issues'}[file[0]]
    with redirect_stdout(out), redirect_stderr(err): code = main(['correct', str(box['src']), str(dst), option, str(f), *['--allow-new-labels']*allow, *['--dry-run']*dry])
    assert code in (0, 2) and 'Traceback' not in out.getvalue() + err.getvalue()
    assert len([o for o in err.getvalue().splitlines() if o.startswith('fastclean: ')]) == (code == 2)
    out.getvalue().encode(); err.getvalue().encode()
    if code == 0 and not dry: check_copy(box, dst, file[2], allow)
    else: assert not dst.exists()
    shutil.rmtree(dst, ignore_errors=True); shutil.rmtree(box['base']/'out'/'.c.fastclean-part', ignore_errors=True)
    assert os.listdir(box['base']/'out') == [] and snapshot(box['base'], [box['base']/'in', box['base']/'out']) == box['before']

@pytest.mark.parametrize('raw', [as_json([('../../outside/secret.txt', 'cat', 'dog', 1), ('cat/0.png', 'cat', '../../outside', 1), ('cat/1.png', 'cat', 'dog', .9)]).encode(), b'['*100_000, b'\xff\xfe\0'])
def test_as_a_process(box, tmp_path, raw):
    (tmp_path/'c.json').write_bytes(raw)
    r = subprocess.run([sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))', 'correct', box['src'], tmp_path/'dst', '--issues', tmp_path/'c.json'],
                       capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    assert r.returncode == (0 if raw[:1] == b'{' else 2) and 'Traceback' not in r.stderr
    if r.returncode == 0: assert '1 relabelled' in r.stdout and '2 refused' in r.stdout and 'leads out of the folder' in r.stdout and 'is a path' in r.stdout
    assert snapshot(box['base'], [box['base']/'in', box['base']/'out']) == box['before']

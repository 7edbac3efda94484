"The notebook widget: its buttons clicked, what it shows, its file, and the way from there to new DataLoaders; in plain Python and in a running notebook."
import html, json, re, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastai.tabular.all import Normalize, TabularDataLoaders
from fastai.vision.all import ImageDataLoaders, get_image_files
from PIL import Image

from fastclean.clean import dls_frame
from fastclean.cleaner import SuspectCleaner, _style
from fastclean.cli import main
from fastclean.core import Predictions
from fastclean.data import digits_sample
from fastclean.interpretation import CleanlabInterpretation
from fastclean.issues import find_label_issues
from fastclean.review import Review

ROOT = Path(__file__).resolve().parent.parent

def predictions(true, given, vocab, items, split='train', seed=0):
    "Predictions that are nearly sure of the truth."
    p = .96*np.eye(len(vocab))[true] + .04*np.random.default_rng(seed).dirichlet(np.ones(len(vocab)), len(true))
    return Predictions.from_arrays(given, p.astype(np.float32), vocab, items, split)

@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    "A folder of three digits in which every tenth file lies in the next class; the truth by name."
    src, at, true = digits_sample(tmp_path_factory.mktemp('all')/'digits'), tmp_path_factory.mktemp('some'), {}
    for i, f in enumerate(sorted(f for f in get_image_files(src) if f.parent.name in '357')[::4]):
        given = {'3': '5', '5': '7', '7': '3'}[f.parent.name] if i % 10 == 0 else f.parent.name
        to = at/given/f.name; to.parent.mkdir(exist_ok=True); to.write_bytes(f.read_bytes())
        true[f'{given}/{f.name}'] = f.parent.name
    return at, true

@pytest.fixture(scope='module')
def interp(digits):
    path, true = digits
    dls = ImageDataLoaders.from_folder(path, valid_pct=.25, seed=1, bs=16, num_workers=0)
    d = dls_frame(dls)
    y, t = ([list(dls.vocab).index(o) for o in v] for v in (d.given_label, d['item'].map(true)))
    pixels = np.stack([np.asarray(Image.open(path/o).convert('L').resize((8, 8)), dtype=np.float32).ravel() for o in d['item']])
    return CleanlabInterpretation.from_predictions(predictions(np.array(t), np.array(y), list(dls.vocab), d['item'], d['split']), dls, features=pixels)

@pytest.fixture
def cleaner(interp, tmp_path): return SuspectCleaner(interp, tmp_path/'decisions.csv')

def table(n=60, K=3, vocab=None, items=None):
    "A table of issues: every tenth of n items is labelled as the next class."
    true = np.arange(n) % K
    given = np.where(np.arange(n) % 10 == 0, (true + 1) % K, true)
    return find_label_issues(predictions(true, given, vocab or [f'class {k}' for k in range(K)], items or [f'{i:02}.png' for i in range(n)]))

def shown(c): return c.head.value + c.body.value + c.note.value
def text(c): return re.sub(r'\s+', ' ', html.unescape(re.sub('<[^>]*>', ' ', shown(c)))).strip()
def lines(path): return path.read_text().splitlines()[1:]

# Deciding

def test_each_click_is_on_disk_and_the_next_suspect_shown(cleaner, interp, tmp_path):
    first, second, third, fourth = cleaner.queue[:4]
    a, b = (cleaner.review.row(o) for o in (first, second))
    assert cleaner.item == first and len(cleaner.queue) == interp.issues.is_label_issue.sum() > 9
    assert (cleaner.keep.description, cleaner.relabel.description) == (f'Keep “{a.given_label}”', f'Relabel to “{a.suggested_label}”')
    cleaner.relabel.click()
    assert lines(tmp_path/'decisions.csv') == [f'{first},{a.suggested_label},relabel'] and cleaner.item == second
    cleaner.keep.click(); cleaner.drop.click()
    assert lines(tmp_path/'decisions.csv')[1:] == [f'{second},{b.given_label},keep', f'{third},,drop'] and cleaner.item == fourth
    n = len(cleaner.queue)
    assert text(cleaner).startswith(f'Suspect 4 of {n} {n - 3} open 1 kept 1 relabelled 1 dropped')
    assert list(cleaner.decisions.action) == ['relabel', 'keep', 'drop'] and repr(cleaner) == f'SuspectCleaner: Review of {n} suspects in decisions.csv: {n - 3} open, 1 kept, 1 relabelled, 1 dropped'

def test_another_class(cleaner):
    r = cleaner.review.row(cleaner.item)
    other, = {'3', '5', '7'} - {r.given_label, r.suggested_label}
    assert cleaner.other.disabled
    cleaner.other.click(); assert len(cleaner.decisions) == 0 and cleaner.item == r.item
    cleaner.classes.value = r.given_label; assert cleaner.other.description == f'Keep “{r.given_label}”'
    cleaner.classes.value = other; assert cleaner.other.description == f'Relabel to “{other}”' and not cleaner.other.disabled
    cleaner.other.click()
    assert cleaner.review[r.item] == ('relabel', other) and cleaner.classes.value == '' and cleaner.other.disabled

def test_a_thousand_classes_are_found_by_typing(tmp_path):
    vocab = [f'kind {k:03}' for k in range(1000)] + ['a kind', 'a kind of it']
    c = SuspectCleaner(table(), tmp_path/'d.csv', vocab=[f'class {k}' for k in range(3)] + vocab)
    assert type(c.classes).__name__ == 'Combobox' and len(c.classes.options) == 1005 and [o[0] for o in c.given.options] == ['all', 'class 0 (2)', 'class 1 (2)', 'class 2 (2)']
    first = c.item
    for typed, says in (('kind 99', '10 classes have “kind 99”'), ('zebra', 'No class has “zebra”')):
        c.classes.value = typed
        c.other.click()
        assert c.other.disabled and says in text(c) and c.item == first
    c.classes.value = 'Kind 997'; assert c.other.description == 'Relabel to “kind 997”'
    c.other.click(); c.classes.value = 'a kind'; c.other.click()   # a whole name counts more than a part of others
    assert [c.review[o] for o in c.queue[:2]] == [('relabel', 'kind 997'), ('relabel', 'a kind')]

def test_back_skip_undo_and_from_the_start(cleaner, tmp_path):
    a, b, c, d = cleaner.queue[:4]
    assert cleaner.back.disabled and cleaner.undo.disabled
    cleaner.keep.click(); cleaner.skip.click(); cleaner.drop.click()
    assert cleaner.item == d and b not in cleaner.review
    cleaner.back.click(); assert cleaner.item == c and re.search(r'class="mine">dropped<', shown(cleaner))
    cleaner.back.click(); assert cleaner.item == b and 'class="mine none">open<' in shown(cleaner)
    cleaner.back.click(); assert cleaner.item == a and f'kept as {cleaner.review.row(a).given_label}' in text(cleaner)
    cleaner.relabel.click(); assert cleaner.review[a][0] == 'relabel' and len(lines(tmp_path/'decisions.csv')) == 2 and cleaner.item == b
    cleaner.undo.click(); assert cleaner.item == a and a not in cleaner.review and f'The decision on {a} is taken back' in text(cleaner)
    cleaner.again.click(); assert cleaner.queue[:3] == [a, b, d]
    cleaner.undo.click(); assert cleaner.item == c and len(cleaner.decisions) == 0   # it was not in this queue
    cleaner.undo.click(); assert 'nothing to take back' in text(cleaner) and cleaner.undo.disabled

def test_nothing_is_lost_by_a_filter_or_by_running_the_cell_again(interp, tmp_path):
    c = SuspectCleaner(interp, tmp_path/'d.csv')
    c.relabel.click(); c.drop.click()
    said, d = c.decisions, interp.issues[interp.issues.is_label_issue]
    for f, column in ((c.given, 'given_label'), (c.suggested, 'suggested_label'), (c.split, 'split')):
        for name, value in f.options[1:]:
            f.value = value
            assert c.queue == list(d['item'][(d[column] == name.split()[0]) & ~d['item'].isin(said['item'])]) and c.decisions.equals(said)
        f.value = f.options[0][1]
    c.state.value = 'decided'; assert c.queue == list(said['item'])
    c.state.value = 'all'; assert c.queue == list(d['item'])
    again = SuspectCleaner(interp, tmp_path/'d.csv')
    assert again.decisions.equals(said) and again.queue == [o for o in c.queue if o not in set(said['item'])] and '1 relabelled 1 dropped' in text(again)
    again.keep.click()
    c.skip.click(); assert '1 kept 1 relabelled 1 dropped' in text(c) and len(c.decisions) == 3   # two widgets on one file

def test_a_filter_without_a_choice_is_hidden(tmp_path):
    c = SuspectCleaner(table(), tmp_path/'d.csv')
    assert [o.layout.display for o in (c.state, c.given, c.suggested, c.split)] == [None, None, None, 'none']

# What is shown

def test_a_picture_its_labels_and_its_neighbours(interp, tmp_path):
    c = SuspectCleaner(interp, tmp_path/'d.csv')
    near = interp.evidence()
    for _ in range(4):
        r, body = c.review.row(c.item), c.body.value
        assert f'<span class="was"><bdi>{r.given_label}</bdi></span>' in body and f'<span class="now"><bdi>{r.suggested_label}</bdi></span>' in body and body.count('<img') == 1 + (near['item'] == r.item).sum() == 7
        assert f'{r.split} · {r.certainty} {r.item}' in text(c) and re.search(rf'{r.given_label} → {r.suggested_label} (> )?\d\d %', text(c))
        c.skip.click()
    given = SuspectCleaner(interp.issues, tmp_path/'d.csv', root=interp.dls.path, evidence=near)
    assert given.queue == c.queue and given.body.value.count('<img') == 7
    alone = SuspectCleaner(interp.issues, tmp_path/'d.csv', root=interp.dls.path)
    assert alone.body.value.count('<img') == 1 and 'labelled' not in alone.body.value

def test_texts_and_rows(tmp_path):
    c = SuspectCleaner(table(), tmp_path/'d.csv', load=lambda o: f'First line of {o}\n\n\tsecond <b>line</b>')
    assert f'First line of {c.item}<br><br>    second &lt;b&gt;line&lt;/b&gt;' in c.body.value and f'row {c.item}' in text(c)
    c = SuspectCleaner(table(), tmp_path/'d.csv', load=lambda o: dict(length=o[:2], **{'<i>': 'x'}))
    assert f'this row length {c.item[:2]} <i> x' in text(c) and '<i>' not in c.body.value

def test_rows_of_dataloaders(tmp_path):
    df = pd.DataFrame(dict(a=np.arange(60.) % 2 + np.random.default_rng(0).normal(0, .1, 60), b=np.arange(60.), y=np.where(np.arange(60) % 2, 'yes', 'no')))
    df.loc[[7, 20], 'y'] = ['no', 'yes']
    dls = TabularDataLoaders.from_df(df, procs=[Normalize], cont_names=['a', 'b'], y_names='y', valid_idx=list(range(48, 60)), bs=8)
    d = dls_frame(dls); y = (d.given_label == 'yes').astype(int).to_numpy()
    preds = predictions(np.array([int(i) % 2 for i in d['item']]), y, ['no', 'yes'], d['item'], d['split'])
    c = SuspectCleaner(CleanlabInterpretation.from_predictions(preds, dls, features=df[['a']].to_numpy()[d['item'].astype(int)]), tmp_path/'d.csv')
    r = c.review.row(c.item)
    assert set(c.queue) == {'7', '20'} and f'this row {r.suggested_label} {r.given_label} a {df.a[int(c.item)]:.4g}' in text(c) and '<img' not in c.body.value
    c.relabel.click(); c.drop.click()
    new = dls.clean(decisions=tmp_path/'d.csv')
    assert len(new.train_ds) == 47 and new.corrections.counts() == dict(relabel=1, prune=1)

def test_what_cannot_be_read_says_so(interp, tmp_path):
    def broken(o): raise RuntimeError('no')
    for kw in (dict(root=tmp_path), dict(load=broken), dict(load=lambda o: None)):
        c = SuspectCleaner(interp.issues, tmp_path/'d.csv', **kw)
        assert 'cannot be read' in text(c) and '<img' not in c.body.value
        c.skip.click()
    alone = CleanlabInterpretation.from_predictions(interp.record)   # without DataLoaders files are looked for
    assert 'cannot be read' in text(SuspectCleaner(alone, tmp_path/'d.csv')) and '<img' in SuspectCleaner(alone, tmp_path/'d.csv', root=interp.dls.path).body.value

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(2)>', '**bold** `code` $x$ [a](b)', 'a\u202egnp.exe\nb\x00\x1b[31m', 'a\u202egnp.exe\nb\x01\x1b[31m', 'x'*5000, '', '  ', '&lt;b&gt;', '\udc80']

class Tags(HTMLParser):
    "Which elements and attributes a page has."
    def __init__(self, page): super().__init__(); self.seen = set(); self.feed(page)
    def handle_starttag(self, tag, attrs): self.seen |= {tag, *(f'{tag}.{k}' for k, _ in attrs)}

def test_names_that_mean_harm(tmp_path):
    items = [f'{v}/<img src=x onerror=alert({i})>\u2028{i}.png' for i in range(100) for v in [HOSTILE[i % 10]]]
    c = SuspectCleaner(table(100, 10, HOSTILE, items), tmp_path/'<b>d & e.csv', vocab=HOSTILE)
    assert len(c.queue) == 10 and len(set(c.classes.options)) == 11 and max(map(len, c.classes.options)) <= 64
    unseen = re.compile('[\x00-\x08\x0e-\x1f\u2028\u202e\ud800-\udfff]')
    while True:
        assert Tags(c.head.value + c.body.value).seen <= {'div', 'div.class', 'div.style', 'i', 'i.style', 'p', 'p.class', 'b', 'span', 'span.class', 'bdi', 'bdi.class', 'bdi.title', 'br', 'pre'}
        assert not unseen.search(c.body.value + c.keep.description + c.relabel.description + ''.join(c.classes.options)) and max(len(b.description) for b in (c.keep, c.relabel)) < 50
        if c.item is None: break
        c.relabel.click()
        assert 'class="note bad"' not in c.note.value
    assert [c.review[o] for o in c.queue] == [('relabel', c.review.row(o).suggested_label) for o in c.queue] and Review(c.review.issues, c.review.path).counts()['relabel'] == 10
    c.back.click(); c.classes.value = c.classes.options[5]; c.other.click()
    assert c.review[c.queue[-1]][1] == HOSTILE[4]

# To the end, and on

def test_after_the_last_one_it_says_what_to_do_and_that_works(interp, digits, tmp_path, monkeypatch, capsys):
    path, true = digits
    monkeypatch.chdir(tmp_path)
    c = SuspectCleaner(interp)
    n = len(c.queue)
    gone = c.item; c.drop.click(); c.skip.click()
    while c.item: c.classes.value = true[c.item]; c.other.click()
    assert f'No more suspects here 1 open' in text(c) and '1 of them passed over here: From the start shows them again' in text(c)
    assert all(b.disabled for b in (c.keep, c.relabel, c.drop, c.other, c.skip))
    c.again.click(); c.classes.value = true[c.item]; c.other.click()
    assert f'All {n} suspects are decided' in text(c)
    both, alone, command = (html.unescape(o) for o in re.findall('<pre>(.*?)</pre>', c.body.value))
    assert (both, alone, command) == ("dls.clean(issues, decisions='decisions.csv')", "dls.clean(decisions='decisions.csv')", 'fastclean correct SRC DST --decisions decisions.csv')
    for code in (both, alone):
        now = dls_frame(eval(code, dict(dls=interp.dls, issues=interp.issues))).set_index('item').given_label
        assert gone not in now and len(now) == len(true) - 1 and (now == pd.Series(true)[now.index]).all()
    assert main(command.replace('SRC', str(path)).replace('DST', 'dst').split()[1:]) == 0 and '1 pruned' in capsys.readouterr().out
    assert {f'{o.parent.name}/{o.name}' for o in get_image_files('dst') if '.fastclean' not in o.parts} == {f'{v}/{Path(k).name}' for k, v in true.items() if k != gone}

def test_no_suspects(tmp_path):
    d = table(); d['is_label_issue'] = False
    c = SuspectCleaner(d, tmp_path/'d.csv')
    assert c.item is None and 'No label is marked as wrong' in text(c) and '<pre>' not in c.body.value and c.keep.disabled
    for b in (c.keep, c.relabel, c.drop, c.other, c.back, c.skip, c.undo, c.again): b.click()
    assert len(c.decisions) == 0

def test_a_suspect_without_a_better_label(tmp_path):
    d = table(); d.loc[0, 'suggested_label'] = d.given_label[0]; d.loc[1, 'suggested_label'] = None
    c = SuspectCleaner(d, tmp_path/'d.csv')
    for _ in range(2):
        assert 'no better label is suggested' in text(c) and c.relabel.disabled and c.relabel.description == 'Relabel' and not c.keep.disabled
        c.keep.click()
    assert not c.relabel.disabled

def test_a_file_that_cannot_be_written_or_read_is_told(tmp_path):
    (tmp_path/'of').mkdir()
    c = SuspectCleaner(table(), tmp_path/'of'/'d.csv')
    c.keep.click(); first, second = c.queue[:2]
    (tmp_path/'of'/'d.csv').write_text('nonsense\n1\n')
    c.drop.click()
    assert c.item == second and 'class="note bad"' in c.note.value and "no column 'item'" in text(c)
    c.undo.click(); c.state.value = 'all'; assert "no column 'item'" in text(c) and c.item == first
    (tmp_path/'of'/'d.csv').write_text(f'item,label,action\n{second},,keep\n')
    c.skip.click(); assert not c.note.value and c.item == second and 'kept as' in text(c)
    for f in (tmp_path/'of').iterdir(): f.unlink()
    (tmp_path/'of').rmdir(); (tmp_path/'of').write_text('in the way')
    c.drop.click(); assert c.item == second and 'class="note bad"' in c.note.value
    with pytest.raises(ValueError, match="no column 'item'"): (tmp_path/'n.csv').write_text('nonsense\n1\n'); SuspectCleaner(table(), tmp_path/'n.csv')

def test_several_labels_are_refused(tmp_path):
    y = np.tile([[1, 0], [1, 1]], (20, 1))
    preds = Predictions.from_arrays(y, np.clip(y, .1, .9).astype(np.float32), ['a', 'b'])
    with pytest.raises(ValueError, match='one label for each item'): SuspectCleaner(CleanlabInterpretation.from_predictions(preds), tmp_path/'d.csv')

# Where it is shown

def test_it_shows_itself(cleaner):
    from IPython.core.formatters import DisplayFormatter
    data, _ = DisplayFormatter().format(cleaner)
    assert data['application/vnd.jupyter.widget-view+json']['model_id'] == cleaner.box.model_id and data['text/plain'] == repr(cleaner)
    assert data['text/html'] == cleaner._repr_html_() and _style() in data['text/html'] and cleaner.body.value in data['text/html']   # for pages without widgets

@pytest.mark.slow
def test_only_the_widget_needs_ipywidgets():
    code = '''import sys; sys.modules['ipywidgets'] = None
from fastclean.all import SuspectCleaner, Review, find_label_issues, Predictions
import numpy as np
try: SuspectCleaner(find_label_issues(np.arange(20) % 2, np.full((20, 2), .5)))
except ImportError as e: print(e)'''
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.strip() == "ipywidgets is needed here and is not installed. Install it with: pip install 'fastclean[app]'", r.stderr[-2000:]

@pytest.mark.slow
def test_in_a_running_notebook(tmp_path, monkeypatch):
    "Cells as a user would write them; the kernel ends in between."
    import nbformat
    from nbclient import NotebookClient
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    make = '''from fastclean.all import *
dls = ImageDataLoaders.from_folder(digits_sample('digits'), valid_pct=.2, seed=1, bs=32, num_workers=0).with_noise(SymmetricNoise(.05), seed=1, on='all')
f = dls.noise.frame
number = {v: k for k, v in enumerate(dls.vocab)}
p = np.where(np.eye(10)[f.true_label.map(number)], .91, .01)
preds = Predictions.from_arrays(f.given_label.map(number), p, list(dls.vocab), f['item'], f['split'])
cleaner = SuspectCleaner(CleanlabInterpretation.from_predictions(preds, dls)); cleaner'''
    def run(*cells):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
        NotebookClient(nb, timeout=300, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path)))).execute()
        return nb
    first = run(make, 'cleaner.relabel.click(); cleaner.keep.click(); cleaner.given.value = 3\ncleaner.drop.click()', 'print(*cleaner.decisions.item)')
    bundle = next(o.data for o in first.cells[0].outputs if 'application/vnd.jupyter.widget-view+json' in o.get('data', {}))
    state = first.metadata['widgets']['application/vnd.jupyter.widget-state+json']['state']
    assert bundle['application/vnd.jupyter.widget-view+json']['model_id'] in state and 'Suspect 1 of' in bundle['text/html']
    buttons = [o['state']['description'] for o in state.values() if o['model_name'] == 'ButtonModel']
    assert len(buttons) == 8 and {'Drop', 'Back', 'Skip', 'Undo', 'From the start'} < set(buttons)   # the kernel sent what a browser draws
    said = [line.split(',') for line in lines(tmp_path/'decisions.csv')]
    assert [o[2] for o in said] == ['relabel', 'keep', 'drop'] and first.cells[2].outputs[0].text.split() == [o[0] for o in said]
    second = run(make, "cleaner.undo.click(); cleaner.relabel.click()\nwhile cleaner.item: cleaner.relabel.click()", "new = dls.clean(decisions='decisions.csv'); print(new.corrections.counts(), cleaner)")
    n = len(lines(tmp_path/'decisions.csv'))
    assert f"{{'relabel': {n - 1}}}" in second.cells[2].outputs[0].text and f'0 open, 1 kept, {n - 1} relabelled, 0 dropped' in second.cells[2].outputs[0].text

def test_the_stored_notebook_holds_no_state():
    nb = json.loads((ROOT/'nbs/13c_cleaner.ipynb').read_text(encoding='utf-8'))
    assert 'widgets' not in nb['metadata'] and not any('widget-view' in k for c in nb['cells'] for o in c.get('outputs', []) for k in o.get('data', {}))

"The report: whole, self-contained, small enough, and safe with any name; in a real browser where there is one."
import base64, hashlib, html, html.parser, io, json, os, re, shlex
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser import Browser, needs_browser
from fastclean import report
from fastclean.core import Predictions
from fastclean.health import summarise
from fastclean.issues import find_label_issues
from fastclean.report import write_report

EVIL = ['</script><script>window.hacked=1</script>', '"><img src=x onerror="window.hacked=1">', "' onmouseover='window.hacked=1", '<!--', '{{data}}', '\u202egnp.exe', 'two\nlines', 'NA', '$x$ & co',
        'a'*300, '猫 кот قط', 'http://example.com/x.js', r'caf\xe9', r'\u003c', ']]>', 'javascript:window.hacked=1', 1, '1', True, '']

def softmax(truth, K, rng):
    z = rng.normal(0, 1, (len(truth), K)); z[np.arange(len(truth)), truth] += rng.gamma(6, 1, len(truth))
    e = np.exp(z)
    return e/e.sum(1, keepdims=True)

def record(n=400, vocab=('cat', 'dog', 'fox'), noise=.2, seed=0, items=None, **kw):
    "Plausible predictions of items some of whose labels were flipped."
    rng, K = np.random.default_rng(seed), len(vocab)
    y = rng.integers(0, K, n)
    given = np.where(rng.random(n) < noise, (y + 1) % K, y)
    split = np.where(np.arange(n) % 4 == 0, 'valid', 'train')
    return Predictions.from_arrays(given, softmax(y, K, rng), list(vocab), items or [f'{vocab[y[i]]}/{i}.png' for i in range(n)], **{'split': split, **kw})

def picture(item): return Image.new('RGB', (30, 20), 'teal')

def write(folder, preds, sharpen=None, **kw):
    issues = find_label_issues(preds, sharpen=sharpen)
    return write_report(preds, issues, folder/'report.html', **{'load': picture, **kw}), issues

def data_of(path): return json.loads(re.search('id="data">(.*?)</script>', path.read_text(encoding='utf-8'))[1])

class Page(html.parser.HTMLParser):
    "Tags, attributes and text as a browser's parser sees them."
    def __init__(self, path):
        super().__init__(); self.tags, self.words = [], []
        self.feed(Path(path).read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_data(self, data): self.words.append(data)
    def all(self, tag): return [a for t, a in self.tags if t == tag]
    def text(self): return ' '.join(''.join(self.words).split())

# What is in it

def test_the_page_holds_what_was_found(tmp_path):
    preds = record()
    path, issues = write(tmp_path, preds, title='My pets')
    page, marked, s = Page(path), issues[issues.is_label_issue], summarise(preds, issues)
    text = page.text()
    assert '<title>My pets</title>' in path.read_text() and f"Marked as suspect{len(marked):,}" in text.replace(' ', '').replace('Markedassuspect', 'Marked as suspect')
    assert s['verdict'].split(' The data')[0].split(' But')[0] in text
    data = data_of(path)
    assert data['item'] == marked['item'].tolist()
    assert [data['names'][k] for k in data['given']] == marked.given_label.tolist() and [data['names'][k] for k in data['sugg']] == marked.suggested_label.tolist()
    assert [data['splits'][k] for k in data['split']] == marked['split'].tolist() and [data['certs'][k] for k in data['cert']] == marked.certainty.tolist()
    assert np.abs(np.array(data['prob'])/1000 - marked.suggested_prob.to_numpy()).max() <= .001
    by = s['noise_rate']['by_split']['valid']
    assert f"valid100{s['issues']['by_split']['valid']}{report._pct(by['rate'])}({report._pct(by['low'])}to".replace(' ', '') in text.replace(' ', '')
    assert len(page.all('img')) == len(marked) == sum(a.get('class') == 'card' for a in page.all('li'))

def test_doubts_are_said_once_and_colour_the_verdict(tmp_path):
    rng = np.random.default_rng(0)
    lost = Predictions.from_arrays(rng.integers(0, 3, 300), softmax(rng.integers(0, 3, 300), 3, rng), ['a', 'b', 'c'])
    path, issues = write(tmp_path, lost)
    doubts = summarise(lost, issues)['doubts']
    page = Page(path)
    assert doubts and all(page.text().count(d) == 1 for d in doubts) and any(a.get('class') == 'verdict no' for a in page.all('div'))
    assert any(a.get('class') == 'verdict yes' for a in Page(write(tmp_path, record(2000))[0]).all('div'))

def test_nothing_is_marked(tmp_path):
    y = np.arange(90) % 3
    path, _ = write(tmp_path, Predictions.from_arrays(y, np.eye(3)[y]*.97 + .01))
    page = Page(path)
    assert 'No label is marked as wrong.' in page.text() and 'Nothing is to be corrected' in page.text() and not page.all('img') and data_of(path)['item'] == []

def test_unlabelled_verified_and_a_summary_of_ones_own(tmp_path):
    preds = record()
    preds.given_label[:5] = -1; preds.split[:5] = 'unlabelled'; preds.verified[5:9] = True
    issues = find_label_issues(preds)
    s = dict(summarise(preds, issues, settings={'source': '/data/pets', 'unset': None, 'deep': {'a': [1, .123456]}}), seconds=61.7)
    text = Page(write_report(preds, issues, tmp_path/'r.html', s, load=picture)).text()
    assert '5 unlabelled' in text and '4 verified' in text and 'Labels of pets' in text and 'unset' not in text and 'deep · a' in text and '1, 0.1235' in text and 'seconds62' in text.replace(' ', '')

def test_what_could_not_be_read_is_named(tmp_path):
    preds = record(); issues = find_label_issues(preds); s = summarise(preds, issues)
    text = lambda bad: Page(write_report(preds, issues, tmp_path/'r.html', s | dict(unreadable=bad), load=picture)).text()
    assert '1 item could not be read and was set aside: <b>.png.' in text(['<b>.png'])
    assert '7 items could not be read and were set aside: 0.png, 1.png, 2.png, 3.png, 4.png and 2 more.' in text([f'{i}.png' for i in range(7)])
    assert 'could not be read' not in text([])

def test_the_steps_run_as_they_are_written(tmp_path, monkeypatch):
    from fastclean.cli import main
    from fastclean.issues import read_issues
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y, x = np.arange(120) % 2, rng.normal(0, 1, (120, 3))
    d = pd.DataFrame(x, columns=['a', 'b', 'c']).assign(a=x[:, 0] + 9*y, my_label=np.where(np.where(np.arange(120) % 17 == 0, 1 - y, y), 'NA', '01'))
    d.to_csv('my table.csv', index=False)
    assert main(['find', 'my table.csv', '--label-col', 'my_label', '--out', 'found']) == 0
    issues = read_issues('found/issues.csv')
    page = html.unescape(Path('found/report.html').read_text(encoding='utf-8'))
    steps = re.findall('<pre><code>(.*?)</code></pre>', page, re.S)
    assert [o.split()[1] for o in steps if o.startswith('fastclean')] == ['review', 'audit', 'correct', 'find', 'undo']
    for o in steps:
        if o.startswith('fastclean review'): assert Path(shlex.split(o)[2], 'issues.csv').is_file()      # it serves a page, see test_app
        elif o.startswith('fastclean'): assert main(shlex.split(o)[1:]) == 0, o
        else: exec(o, seen := {})
    assert len(seen['obvious']) == (issues.certainty == 'obvious').sum() > 2
    assert Path('my table-corrected/my table.csv').read_bytes() == Path('my table.csv').read_bytes() and Path('again/report.html').is_file() and Path('found/audit/audit.html').is_file()

@pytest.mark.parametrize('settings,correct,find', [
    (dict(source='/data/my pets'), "'/data/my pets' 'my pets-corrected'", "'my pets-corrected'"), (dict(source='labels.csv', label_col='x y', label_delim=' '), 'labels.csv labels-corrected', "labels-corrected/labels.csv --label-col 'x y' --label-delim ' '"),
    (dict(source='a.tsv', text_col='t', valid_col='is_valid'), 'a.tsv a-corrected', 'a-corrected/a.tsv --text-col t'), ({}, 'SRC SRC-corrected', 'SRC-corrected'), (dict(source='$(rm -rf .)/x.y'), "'$(rm -rf .)/x.y' x.y-corrected", 'x.y-corrected')])
def test_the_steps_name_the_source_as_a_shell_wants_it(settings, correct, find):
    code = [c for _, c in report.next_steps(settings, 'found')]
    code = [o for o in code if 'review' not in o]
    assert code[2].startswith(f'fastclean correct {correct} --issues found') and code[3] == f'fastclean find {find} --out again'

def test_what_is_said_of_obvious_and_possible_ones_was_measured():
    d = pd.read_csv(Path(__file__).parents[1]/'benchmarks/cutoff.csv')
    d = d[(d.rule == 'posterior') & (d.noise != 'clean')].sum(numeric_only=True)
    assert report._wrong == dict(obvious=round(100*d.obvious_hit/d.obvious), possible=round(100*(d.hit - d.obvious_hit)/(d.flagged - d.obvious)))

def test_what_is_typed_is_code(tmp_path):
    text = write(tmp_path, record(2000))[0].read_text(encoding='utf-8')
    for o in ('--dry-run', '--threshold .95', 'pip install &#x27;fastclean[app]&#x27;'): assert f'<code>{o}</code>' in text, o
    assert '<code>&lt;b&gt;</code>' in write(tmp_path, record(), steps=[('Type `<b>`', '')])[0].read_text(encoding='utf-8')

def test_steps_of_ones_own(tmp_path):
    lost = record(); lost.pred_probs[:] = np.random.default_rng(0).permutation(lost.pred_probs)
    assert 'Correct nothing from this list' in Page(write(tmp_path, lost)[0]).text() and 'read_issues' in Page(write(tmp_path, record(2000))[0]).text()
    text = Page(write(tmp_path, record(), steps=[('Do <this>', 'run <b> & "see"')])[0]).text()
    assert 'Do <this>' in text and 'run <b> & "see"' in text

def test_it_is_the_same_each_time(tmp_path):
    a, b = (write(tmp_path, record())[0].read_bytes() for _ in range(2))
    assert a == b

def test_a_failure_leaves_the_old_page(tmp_path):
    preds = record()
    path, issues = write(tmp_path, preds)
    before = path.read_bytes()
    os.link(path, tmp_path/'kept')
    write(tmp_path, preds, title='another')
    assert (tmp_path/'kept').read_bytes() == before != path.read_bytes()
    os.replace(tmp_path/'kept', path)
    with pytest.raises(KeyError): write_report(preds, issues, path, {'n': 3})
    assert path.read_bytes() == before and [o.name for o in tmp_path.iterdir()] == ['report.html']

def test_files_that_cannot_be_read_get_a_card_all_the_same(tmp_path):
    path, issues = write(tmp_path, record(), load=None, root=tmp_path)
    page = Page(path)
    assert not page.all('img') and page.text().count('cannot be read') == issues.is_label_issue.sum()
    first = tmp_path/issues['item'][0]
    first.parent.mkdir(); Image.new('RGB', (9, 9)).save(first)
    assert len(Page(write(tmp_path, record(), load=None, root=tmp_path)[0]).all('img')) == 1

# Safe

def test_hostile_names_stay_text(tmp_path):
    preds = record(800, EVIL, items=[f'{EVIL[i % len(EVIL)]}/{i}' for i in range(800)], meta=dict(source=EVIL[0], notes=EVIL, deep={EVIL[1]: {EVIL[2]: EVIL[3]}}))
    path, issues = write(tmp_path, preds, sharpen=2., title=EVIL[0])
    page, text = Page(path), path.read_text(encoding='utf-8')
    assert len(page.all('script')) == 2 and text.count('<script') == 2 and text.count('</script>') == 2 and '<!--' not in text
    assert not [a for _, a in page.tags if any(k.startswith('on') for k in a)]
    assert {a['src'].split(';')[0] for a in page.all('img')} == {'data:image/webp'}
    assert all(a.get('href', '#').startswith('#') for _, a in page.tags) and {t for t, _ in page.tags} <= set('html head meta title style body a header p h1 h2 h3 nav main section div dl dt dd i b s span table thead tbody tr th td bdi button label input select option ul ol li img pre code noscript script'.split())
    assert data_of(path)['item'] == [report.shown_name(o) for o in issues['item'][issues.is_label_issue]]
    assert '(no name)' in page.text() and '\u202e' not in text and r'\u202e' not in text

def test_classes_that_read_alike_stay_apart(tmp_path):
    path, issues = write(tmp_path, record(600, [1, '1', True, 'x']))
    data, marked = data_of(path), issues[issues.is_label_issue]
    for v in (1, '1', True): assert len({k for k, o in zip(data['given'], marked.given_label) if type(o) is type(v) and o == v}) == 1
    assert len(data['names']) == 4

def test_the_policy_allows_this_script_and_no_other(tmp_path):
    path, _ = write(tmp_path, record())
    policy = next(a['content'] for a in Page(path).all('meta') if a.get('http-equiv') == 'Content-Security-Policy')
    script = re.findall('<script>(.*?)</script>', path.read_text(encoding='utf-8'), re.S)[0]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy and "default-src 'none'" in policy

# Small enough

@pytest.mark.slow
def test_a_hundred_thousand_issues_fit_in_20_mb(tmp_path):
    n = 130_000
    preds = record(n, [f'class {k}' for k in range(20)], noise=.85, items=[f'train/some/deep/folder/image_{i:08d}_of_the_set.jpeg' for i in range(n)])
    issues = find_label_issues(preds, sharpen=2., T=np.full((20, 20), .04) + np.eye(20)*.2)
    assert issues.is_label_issue.sum() > 100_000
    noise = np.random.default_rng(0).integers(0, 255, (8, 256, 256, 3), dtype=np.uint8)
    path = write_report(preds, issues, tmp_path/'r.html', summarise(preds[:2000], find_label_issues(preds[:2000])), load=lambda item: noise[len(item) % 8])
    data, page = data_of(path), Page(path)
    kept = len(data['item'])
    assert path.stat().st_size < 20e6 and 60_000 < kept < issues.is_label_issue.sum() and 200 < len(page.all('img')) <= 500
    assert f'The table holds the first {kept:,} of {issues.is_label_issue.sum():,} suspects' in page.text()

def test_names_as_long_as_a_path_can_be(tmp_path):
    preds = record(9000, noise=.9, items=['d'*4000 + str(i) for i in range(9000)])
    issues = find_label_issues(preds, T=np.full((3, 3), 1/3))
    path = write_report(preds, issues, tmp_path/'r.html', summarise(preds, issues), load=picture)
    assert path.stat().st_size < 20e6 and 1000 < len(data_of(path)['item']) < issues.is_label_issue.sum()

def test_only_the_first_500_have_a_picture(tmp_path):
    path, issues = write(tmp_path, record(4000))
    assert issues.is_label_issue.sum() > 600 and len(Page(path).all('img')) == 500
    assert len(Page(write(tmp_path, record(400), n_cards=7)[0]).all('img')) == 7

def test_many_classes(tmp_path):
    n, K = 3000, 1200
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, n); p = np.full((n, K), .2/(K - 1), dtype=np.float32); p[np.arange(n), y] = .8
    preds = Predictions.from_arrays(np.where(rng.random(n) < .1, (y + 1) % K, y), p, [f'class {k}' for k in range(K)])
    issues = find_label_issues(preds)
    s = summarise(preds[:500], find_label_issues(preds[:500]))
    path = write_report(preds, issues, tmp_path/'r.html', s, load=picture)
    assert path.stat().st_size < 3e6 and 'the 300 classes with the worst labels, of 1,200' in Page(path).text()

def test_the_page_s_parts_are_in_the_package():
    for o in ('html', 'css', 'js'): assert files('fastclean').joinpath(f'report.{o}').read_text(encoding='utf-8')

# In a browser

@pytest.fixture(scope='module')
def browser():
    with Browser() as b: yield b

@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    "A report with pictures and rows enough, hostile names, and its table."
    preds = record(3000, EVIL, items=[f'{EVIL[i % len(EVIL)]}/{i}' for i in range(3000)], meta=dict(source=EVIL[0], notes=EVIL))
    path, issues = write(tmp_path_factory.mktemp('report'), preds, sharpen=2., title=EVIL[0])
    return path, issues[issues.is_label_issue].reset_index(drop=True)

def visible(b): return b.js("[...document.querySelectorAll('.card')].filter(c => c.offsetParent).length")
def found(b): return b.js("document.getElementById('found').textContent")
def pick(b, id, value): b.js(f"(e => {{ e.value = {json.dumps(str(value))}; e.dispatchEvent(new Event('change')) }})(document.getElementById('{id}'))")
def rows(b): return b.js("[...document.querySelectorAll('#rows tr')].map(r => r.cells[0].textContent)")

@needs_browser
def test_nothing_hostile_runs_and_nothing_is_fetched(browser, shown):
    browser.size(1280); browser.open(shown[0])
    assert browser.problems() == [] and browser.js('window.hacked') is None
    assert browser.js('document.scripts.length') == 2 and browser.js('document.images.length') == 500
    assert browser.js('document.title') == EVIL[0]
    browser.js("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 2'}))")
    assert browser.js('window.hacked') is None

@needs_browser
@pytest.mark.parametrize('width', [320, 390, 600, 768, 1024, 1280])
@pytest.mark.parametrize('scripts', [True, False])
def test_no_scrolling_sideways(browser, shown, width, scripts):
    browser.size(width, scripts=scripts); browser.open(shown[0])
    assert browser.js('document.documentElement.scrollWidth') <= width

@needs_browser
def test_filters_give_what_the_table_gives(browser, shown):
    path, t = shown
    browser.size(1280); browser.open(path)
    n = len(t)
    assert found(browser) == f'{n:,} suspects, worst first' and visible(browser) == 24 and len(rows(browser)) == 25
    data = data_of(path)
    code = data['given'][0]; want = t[[k == code for k in data['given']]]
    pick(browser, 'f-given', code)
    assert found(browser) == f'{len(want)} of {n:,} suspects match' and rows(browser)[:25] == [f'{i + 1:,}' for i in want.index[:25]]
    assert visible(browser) == min(24, (want.index < 500).sum())
    pick(browser, 'f-split', data['splits'].index('valid'))
    both = want[want['split'] == 'valid']
    assert found(browser).startswith(f'{len(both)} of')
    browser.js("document.getElementById('clear').click()")
    assert found(browser) == f'{n:,} suspects, worst first'
    pick(browser, 'f-cert', data['certs'].index('possible'))
    assert found(browser).startswith(f"{(t.certainty == 'possible').sum()} of")
    browser.js("document.getElementById('clear').click()")
    browser.js("(async () => { const q = document.getElementById('f-q'); q.value = 'WINDOW.HACKED'; q.dispatchEvent(new Event('input')); await new Promise(r => setTimeout(r, 300)) })()")
    hit = [any('window.hacked' in str(o).lower() for o in r) for r in zip(t['item'], t.given_label, t.suggested_label)]
    assert found(browser).startswith(f'{sum(hit)} of')

@needs_browser
def test_pages_sorting_and_more_pictures(browser, shown):
    path, t = shown
    browser.size(1280); browser.open(path)
    browser.js("document.getElementById('next-page').click()")
    assert browser.js("document.querySelector('.rows td:nth-child(2)').offsetWidth") > 250
    assert rows(browser)[0] == '26' and browser.js("document.getElementById('page').textContent") == f'Page 2 of {-(-len(t)//25)}'
    for _ in range(2): browser.js("document.getElementById('prev').click()")
    assert rows(browser)[0] == '1' and browser.js("document.getElementById('prev').disabled")
    browser.js("document.querySelector('[data-sort=prob]').click()")
    top = [int(o.replace(',', '')) - 1 for o in rows(browser)]
    p = np.array(data_of(path)['prob'])
    assert (p[top] == np.sort(p)[::-1][:25]).all() and browser.js("document.querySelector('[data-sort=prob]').parentElement.getAttribute('aria-sort')") == 'descending'
    browser.js("document.querySelector('[data-sort=prob]').click()")
    assert (p[[int(o.replace(',', '')) - 1 for o in rows(browser)]] == np.sort(p)[:25]).all()
    browser.js("document.getElementById('more').click()")
    assert visible(browser) == 72

@needs_browser
def test_a_class_and_a_mix_up_lead_to_their_suspects(browser, shown):
    path, t = shown
    browser.size(1280); browser.open(path)
    data = data_of(path)
    show = json.loads(browser.js("(b => { b.click(); return b.dataset.show })(document.querySelector('.classes button'))"))
    assert found(browser).startswith(f"{data['given'].count(show['given'])} of")
    show = json.loads(browser.js("(b => { b.click(); return b.dataset.show })(document.querySelector('.pairs button'))"))
    pair = browser.js("[...document.querySelectorAll('.pairs button')].map(b => b.textContent)[0]")
    assert pair == f"{data['names'][show['given']]} → {data['names'][show['sugg']]}"
    assert found(browser).startswith(f"{sum(g == show['given'] and s == show['sugg'] for g, s in zip(data['given'], data['sugg']))} of")

@needs_browser
def test_it_works_by_keyboard(browser, shown):
    browser.size(1280); browser.open(shown[0])
    def key(k, code, text=''):
        for t in ('keyDown', 'keyUp'): browser.call('Input.dispatchKeyEvent', type=t, key=k, code=k, windowsVirtualKeyCode=code, **({'text': text} if text and t == 'keyDown' else {}))
    focus = lambda: browser.js("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
    seen = []
    for _ in range(14):
        key('Tab', 9); seen.append(focus())
        if len(seen) == 1: assert browser.js("document.activeElement.getBoundingClientRect().left") >= 0
    assert seen[0] == 'skip' and {'f-q', 'f-given', 'f-sugg', 'f-split', 'f-cert', 'more'} <= set(seen)
    browser.js("document.getElementById('more').focus()")
    key('Enter', 13, '\r')
    assert visible(browser) == 72 and focus() == 'card'
    outline = browser.js("(e => { e.focus({focusVisible: true}); return getComputedStyle(e).outlineStyle })(document.getElementById('clear').hidden ? document.getElementById('next-page') : document.getElementById('clear'))")
    assert outline != 'none'

@needs_browser
def test_without_scripts_it_shows_the_first_pictures(browser, shown):
    browser.size(1280, scripts=False); browser.open(shown[0])
    assert visible(browser) == 48 and browser.js("[...document.querySelectorAll('.js, .js-table')].every(e => !e.offsetParent)")
    browser.size(1280)

CONTRAST = '''(() => {
  const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
  const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c } return 'rgb(255,255,255)' };
  const out = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.offsetParent || e.closest('.heat, :disabled') || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const a = lum(getComputedStyle(e).color), b = lum(back(e)), r = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (r < 4.5) out.push(e.tagName + '.' + e.className + ' ' + r.toFixed(2));
  }
  return [...new Set(out)];
})()'''

@needs_browser
@pytest.mark.parametrize('dark', [False, True])
def test_text_stands_out_in_both_schemes(browser, shown, dark):
    browser.size(1280, dark=dark); browser.open(shown[0])
    assert browser.js(CONTRAST) == []
    assert (browser.js("getComputedStyle(document.body).backgroundColor") == 'rgb(20, 23, 27)') == dark

@needs_browser
def test_it_prints_in_light_colours_and_without_controls(browser, shown):
    browser.size(1280, dark=True, media='print'); browser.open(shown[0])
    assert browser.js("getComputedStyle(document.body).backgroundColor") == 'rgb(255, 255, 255)' and browser.js(CONTRAST) == []
    assert browser.js("[...document.querySelectorAll('nav, .filters, #more, .pager')].every(e => !e.offsetParent)") and visible(browser) == 24
    browser.size(1280)

@needs_browser
def test_a_few_classes_have_a_matrix(browser, tmp_path):
    path, issues = write(tmp_path, record(2000, [f'class {k}' for k in range(10)]))
    for width in (390, 1280):
        browser.size(width); browser.open(path)
        assert browser.js("document.querySelectorAll('.heat td').length") == 100 and browser.js('document.documentElement.scrollWidth') <= width
    show = json.loads(browser.js("(b => { b.click(); return b.dataset.show })(document.querySelector('.heat button'))"))
    data = data_of(path)
    n = sum(g == show['given'] and s == show['sugg'] for g, s in zip(data['given'], data['sugg']))
    assert n and found(browser).startswith(f'{n} of')

# Evidence

def evidence_of(preds, issues, k=3, seed=0):
    from fastclean.evidence import label_evidence
    return label_evidence(issues, preds, np.random.default_rng(seed).normal(size=(len(preds), 6)), k)

def test_a_card_shows_the_neighbours_under_either_label(tmp_path):
    preds = record(); issues = find_label_issues(preds); e = evidence_of(preds, issues)
    colours = {o: tuple(int(v) for v in np.random.default_rng(i).integers(0, 255, 3)) for i, o in enumerate(preds.items)}
    path = write_report(preds, issues, tmp_path/'r.html', load=lambda item: Image.new('RGB', (9, 9), colours[item]), evidence=e)
    cards = re.findall('<li class="card ev">(.*?)</li>', path.read_text(encoding='utf-8'), re.S)
    worst = issues.iloc[0]
    assert len(cards) == issues.is_label_issue.sum() and Page(path).text().count('most like it under either label') == 1
    for side, cls, label in (('suggested', 'for', worst.suggested_label), ('given', 'against', worst.given_label)):
        part = re.search(f'<div class="side {cls}">(.*?)</div></div>', cards[0])[1]
        assert f'labelled <b><bdi>{label}</bdi></b>' in part
        seen = [Image.open(io.BytesIO(base64.b64decode(o))).convert('RGB').getpixel((4, 4)) for o in re.findall('base64,([^"]*)"', part)]
        want = [colours[o] for o in e[(e['item'] == worst['item']) & (e.side == side)].neighbour]
        assert len(seen) == 3 and np.abs(np.array(seen) - np.array(want)).max() < 12

def test_evidence_of_texts_and_rows(tmp_path):
    preds = record(); issues = find_label_issues(preds); e = evidence_of(preds, issues, 2)
    text = Page(write_report(preds, issues, tmp_path/'t.html', load=lambda item: f'The text of {item}. ' + 'so on '*200, evidence=e)).text()
    assert f"The text of {e.neighbour[0]}." in text and text.count('The text of') >= 4*issues.is_label_issue.sum()
    path = write_report(preds, issues, tmp_path/'d.html', load=lambda item: {'a <b>': f'{item} v', 'c': '1'}, evidence=e)
    first = e[(e['item'] == issues['item'][0]) & (e['rank'] == 1)].set_index('side').neighbour
    assert f"a <b>{issues['item'][0]} v{first.suggested} v{first.given} v" in ''.join(Page(path).words).replace('\n', '')

@pytest.mark.slow
def test_evidence_leaves_room_for_the_pictures(tmp_path):
    preds = record(4000); issues = find_label_issues(preds); e = evidence_of(preds, issues)
    noise = np.random.default_rng(0).integers(0, 255, (64, 256, 256, 3), dtype=np.uint8)
    path = write_report(preds, issues, tmp_path/'r.html', load=lambda item: noise[hash(item) % 64], evidence=e)
    text = path.read_text(encoding='utf-8')
    assert len(text.encode()) < 20e6 and 50 < text.count('class="card ev"') < text.count('class="card') and text.count('class="card') > 300

def test_hostile_names_in_the_evidence(tmp_path):
    preds = record(800, EVIL, items=[f'{EVIL[i % len(EVIL)]}/{i}' for i in range(800)])
    issues = find_label_issues(preds, sharpen=2.)
    for load in (picture, lambda item: EVIL[0] + item, lambda item: {EVIL[1] + item[:3]: EVIL[0], EVIL[3]: item}):
        path = write_report(preds, issues, tmp_path/'r.html', load=load, evidence=evidence_of(preds, issues))
        page, text = Page(path), path.read_text(encoding='utf-8')
        assert text.count('<script') == 2 and not [a for _, a in page.tags if any(k.startswith('on') for k in a)] and {t for t, _ in page.tags} <= set(
            'html head meta title style body a header p h1 h2 h3 nav main section div dl dt dd i b s span table thead tbody tr th td bdi button label input select option ul ol li img pre code noscript script'.split())

@needs_browser
@pytest.mark.parametrize('what', ['images', 'texts', 'rows'])
def test_evidence_at_every_width(browser, tmp_path, what):
    preds = record(600, EVIL); issues = find_label_issues(preds, sharpen=2.)
    load = dict(images=picture, texts=lambda item: 'W'*90 + ' and so on'*80, rows=lambda item: {f'a_column_with_a_long_name_{i}': '123456.789' for i in range(8)})[what]
    path = write_report(preds, issues, tmp_path/'r.html', load=load, evidence=evidence_of(preds, issues))
    for width in (320, 390, 768, 1280):
        browser.size(width); browser.open(path)
        assert browser.problems() == [] and browser.js('document.documentElement.scrollWidth') <= width
        assert browser.js('''[...document.querySelectorAll('.card.ev')].slice(0, 20).every(c => [...c.querySelectorAll('.side, table, .self')].every(e => e.getBoundingClientRect().right <= c.getBoundingClientRect().right + 1))''')
    assert browser.js(CONTRAST) == []
    browser.size(1280)

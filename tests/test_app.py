"The review in a browser: what Streamlit's own tool can click, and what only Chromium shows."
import json, os, re, signal, socket, subprocess, sys, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from browser import Browser, needs_browser
from fastclean.audit import read_audit
from fastclean.cli import main
from fastclean.core import Predictions
from fastclean.data import read_source
from fastclean.issues import find_label_issues, read_issues, write_issues
from fastclean.review import Review

def write_result(out, source, preds, kind='image', root=None, **read):
    "What `fastclean find` would leave."
    issues = find_label_issues(preds)
    preds.save(out/'predictions'); write_issues(issues, out/'issues.csv')
    (out/'summary.json').write_text(json.dumps(dict(settings=dict(root=str(root or source), read=read))))
    (out/'source.json').write_text(json.dumps(dict(settings=dict(source=str(source), kind=kind))))
    return out

def record(items, true, given, vocab, **kw):
    K = len(vocab)
    p = np.full((len(true), K), .04/max(K - 1, 1), np.float32); p[np.arange(len(true)), true] = .96
    return Predictions.from_arrays(given, p, vocab, items, **kw)

@pytest.fixture
def pets(tmp_path):
    "Ninety coloured squares in three folders; every tenth is in the next one's."
    rng, vocab, names = np.random.default_rng(0), ['ant', 'bee', 'cow'], []
    true = np.arange(90) % 3
    given = np.where(np.arange(90) % 10 == 0, (true + 1) % 3, true)
    for i, (t, g) in enumerate(zip(true, given)):
        names.append(f'{vocab[g]}/{i:02}.png'); (tmp_path/'src'/vocab[g]).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40, 30), tuple(int(v) for v in np.roll([220, 60, 20], t) + rng.integers(0, 30, 3))).save(tmp_path/'src'/names[-1])
    return write_result(tmp_path/'found', tmp_path/'src', record(names, true, given, vocab))

@pytest.fixture
def named(tmp_path):
    "A result whose classes have given names; every tenth item has the next one's."
    def _make(vocab, n=120):
        true = np.arange(n) % len(vocab)
        given = np.where(np.arange(n) % 10 == 0, (true + 1) % len(vocab), true)
        pd.DataFrame(dict(text=[f'text {i}' for i in range(n)], y=[vocab[k] for k in given])).to_csv(tmp_path/'t.csv', index=False)
        return write_result(tmp_path/'found', tmp_path/'t.csv', record([str(i) for i in range(n)], true, given, vocab), 'text', tmp_path, text_col='text', label_col='y')
    return _make

def page(folder, decisions):
    from fastclean.app import show_review
    show_review(folder, decisions)

def opened(folder, decisions=None):
    at = AppTest.from_function(page, args=(str(folder), decisions and str(decisions)), default_timeout=60).run()
    assert not at.exception
    return at

def clicked(at, *keys):
    for k in keys: at.button(key=k).click().run(); assert not at.exception
    return at

def bodies(at): return ' '.join(o.proto.body for o in at.get('html'))

# ---- suspects
def test_decisions_are_on_disk_and_outlive_everything(pets):
    at = clicked(opened(pets), 'relabel', 'keep', 'drop')
    items = at.session_state.queue
    at.selectbox(key='filter-given_label').set_value('ant').run(); clicked(at, 'relabel')      # fastai's own cleaner loses edits here
    fresh = opened(pets)
    assert [r.split(',')[2] for r in (pets/'decisions.csv').read_text().split()[1:]] == ['relabel', 'keep', 'drop', 'relabel']
    assert not set(items[:3]) & set(fresh.session_state.queue) and '4 of 9 suspects decided: 1 kept, 2 relabelled, 1 dropped' in fresh.get('progress')[0].proto.text

def test_back_skip_and_undo(pets):
    at = clicked(opened(pets), 'relabel', 'skip', 'back', 'back')
    assert 'You said: relabelled to' in bodies(at) and at.session_state.at == 0
    clicked(at, 'skip', 'drop', 'undo')
    assert at.session_state.at == 1 and len(Review(read_issues(pets/'issues.csv'), pets/'decisions.csv')) == 1

def test_another_class(pets):
    at = opened(pets); item = at.session_state.queue[0]
    vocab, r = ['ant', 'bee', 'cow'], Review(read_issues(pets/'issues.csv'), pets/'decisions.csv').row(at.session_state.queue[0])
    other, = set(vocab) - {r.given_label, r.suggested_label}
    clicked(at, 'other-1')
    assert (pets/'decisions.csv').read_text().split()[1] == f'{item},{other},relabel'

def test_to_the_end_of_the_list(pets):
    at = opened(pets)
    for _ in at.session_state.queue: clicked(at, 'relabel')
    assert 'last of 9' in at.success[0].value and clicked(at, 'back').session_state.at == 8

def test_two_people(pets):
    one, two = opened(pets), opened(pets)
    clicked(one, 'keep'); clicked(two, 'skip', 'drop')
    assert (pets/'decisions.csv').read_text().count('\n') == 3

def test_a_disk_that_cannot_be_written(pets, monkeypatch):
    at = opened(pets)
    def full(*_, **__): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr('fastclean.review.atomic_path', full); clicked(at, 'keep')
    assert 'No space left' in at.error[0].value and at.session_state.at == 0
    clicked(at, 'keep'); assert at.session_state.at == 1 and not at.error

def test_hostile_names_are_only_names(tmp_path):
    vocab = ['<script>alert(1)</script>', '[here](javascript:alert(1))', ':red[loud] **bold** $x$', 'x'*300]
    true = np.arange(80) % 4
    given = np.where(np.arange(80) % 10 == 0, (true + 1) % 4, true)
    d = pd.DataFrame(dict(text=[f'<img src=x onerror=alert({i})> _it_' for i in range(80)], y=[vocab[k] for k in given]))
    d.to_csv(tmp_path/'t.csv', index=False)
    found = write_result(tmp_path/'found', tmp_path/'t.csv', record([str(i) for i in range(80)], true, given, vocab), 'text', tmp_path, text_col='text', label_col='y')
    at = opened(found); html = bodies(at)
    assert '<script>alert' not in html and '<img src=x' not in html and '&lt;img src=x onerror' in html
    labels = [b.label.replace('Keep **', '').replace('Relabel **', '').removesuffix('**') for b in at.button if b.key != 'drop']
    assert len(labels) > 5 and not any(re.search(r'(?<!\\)[<>\[\]:*$_]', o) for o in labels), labels    # every sign of Markdown is escaped
    clicked(at, 'relabel', 'keep'); at.radio(key='page').set_value('Audit').run(); assert not at.exception
    assert set(Review(read_issues(found/'issues.csv', vocab), found/'decisions.csv', vocab).frame.new_label) <= set(vocab)

def test_rows_of_a_table_and_a_thousand_classes(tmp_path):
    rng, K = np.random.default_rng(0), 1000
    true = np.arange(4000) % K; given = true.copy(); given[::40] = (given[::40] + 1) % K
    vocab = [f'class {k:03}' for k in range(K)]
    pd.DataFrame(dict(a=rng.normal(size=4000), b=true, y=[vocab[k] for k in given])).to_csv(tmp_path/'t.csv', index=False)
    found = write_result(tmp_path/'found', tmp_path/'t.csv', record([str(i) for i in range(4000)], true, given, vocab), 'table', tmp_path, label_col='y', cont=['a', 'b'])
    at = opened(found)
    assert '<dl class="words">' in bodies(at)
    item = at.session_state.queue[0]
    at.selectbox(key=f'class-{item}').set_value('class 777').run()
    assert (found/'decisions.csv').read_text().split('\n')[1] == f'{item},class 777,relabel' and at.session_state.at == 1

def test_what_has_gone_is_said(pets, tmp_path):
    (tmp_path/'src').rename(tmp_path/'elsewhere')
    at = opened(pets)
    assert 'cannot be read' in bodies(at)
    clicked(at, 'keep'); at.radio(key='page').set_value('Export').run(); clicked(at, 'write')
    assert 'is not there' in at.error[0].value
    assert 'not a result' in opened(tmp_path/'elsewhere').error[0].value

# ---- audit, export, model
def test_an_audit(pets):
    at = opened(pets); at.radio(key='page').set_value('Audit').run()
    at.number_input(key='audit-n').set_value(10).run(); clicked(at, 'draw')
    issues, right = read_issues(pets/'issues.csv'), lambda item: ['ant', 'bee', 'cow'][int(Path(item).stem) % 3]
    clicked(at, 'unsure', 'audit-undo')
    for _ in range(10):
        sheet = read_audit(pets/'audit'/'audit.csv', issues, ['ant', 'bee', 'cow'])
        i = int(np.flatnonzero(sheet.label.isna())[0])
        assert str(sheet['item'][i]).split('/')[1] not in bodies(at)                # a folder would tell the given label
        clicked(at, f"is-{['ant', 'bee', 'cow'].index(right(sheet['item'][i]))}")
    assert 'suspects, wrong' in at.metric[0].label and at.metric[0].value == '100%'
    clicked(at, 'take')
    assert len(Review(issues, pets/'decisions.csv')) == 10 and (pets/'audit'/'result.json').exists() and main(['audit', str(pets)]) == 0

def shortcuts(at): return {b.key: b.proto.shortcut for b in at.button if b.key}

def test_a_digit_is_its_own_key(named):
    at = opened(named(vocab := [str(k) for k in range(10)]))
    for b in at.button:
        if b.key.startswith('other-'): assert b.proto.shortcut == b.label.split()[0], (b.key, b.label)
    at.radio(key='page').set_value('Audit').run(); clicked(at, 'draw')
    keys = shortcuts(at)
    assert [keys[f'is-{k}'] for k in range(10)] == vocab and keys['unsure'] not in vocab

def test_a_letter_that_is_a_class_means_nothing_else(named):
    at = opened(named(list('KLDUCR')))
    keys = shortcuts(at)
    assert not any(keys[k] for k in ('keep', 'relabel', 'drop', 'undo')) and not {'c', 'r'} & set(keys.values())       # those two are Streamlit's own
    assert all(keys[b.key] == b.label[0].lower() for b in at.button if b.key.startswith('other-') and b.label[0] in 'KLDU')
    at.radio(key='page').set_value('Audit').run(); clicked(at, 'draw')
    keys = shortcuts(at)
    assert [keys[f'is-{k}'] for k in range(6)] == ['k', 'l', 'd', 'u', '1', '2'] and not keys['audit-undo']

def test_an_audit_of_twelve_classes(named):
    at = opened(named([f'class {k}' for k in range(12)])); at.radio(key='page').set_value('Audit').run()
    keys = shortcuts(clicked(at, 'draw'))
    assert len({keys[f'is-{k}'] for k in range(12)} - {''}) == 12

def test_a_corrected_copy(pets, tmp_path):
    at = clicked(opened(pets), 'relabel', 'keep', 'drop')
    at.radio(key='page').set_value('Export').run()
    at.text_input(key='dst').set_value(str(tmp_path/'a')).run(); clicked(at, 'write')
    assert '1 relabelled, 1 left out; 0 refused' in at.success[0].value and len(read_source(tmp_path/'a')) == 89
    at.toggle(key='also').set_value(True).run(); at.text_input(key='dst').set_value(str(tmp_path/'b')).run(); clicked(at, 'write')
    assert '7 relabelled, 1 left out' in at.success[0].value
    command = at.code[0].value.split()
    assert command[:2] == ['fastclean', 'correct'] and main([*command[1:3], str(tmp_path/'c'), *command[4:]]) == 0
    same = lambda o: sorted(p.relative_to(tmp_path/o).as_posix() for p in (tmp_path/o).rglob('*.png') if '.fastclean' not in p.parts)
    assert same('b') == same('c')

def test_decisions_that_are_left_out_are_named(pets, tmp_path, capsys):
    how = ['correct', str(tmp_path/'src'), str(tmp_path/'dst'), '--issues', str(pets), '--dry-run']
    said = lambda *more: main([*how, *more]) == 0 and '--decisions' in capsys.readouterr().out
    assert not said()
    clicked(opened(pets), 'keep')
    assert said() and not said('--decisions', str(pets/'decisions.csv'))

def test_without_a_model(pets):
    at = opened(pets); at.radio(key='page').set_value('Try it').run()
    assert 'no model' in at.info[0].value

def test_several_labels_are_refused(tmp_path, capsys):
    p = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    preds = Predictions.from_arrays((p > .5).astype(int), p, ['a', 'b', 'c'], [str(i) for i in range(20)])
    found = write_result(tmp_path/'found', tmp_path/'t.csv', preds)
    assert 'one label for each item' in opened(found).error[0].value
    assert main(['review', str(found), '--no-browser']) == 2 and 'one label for each item' in capsys.readouterr().err

# ---- the command
def started(found, *args):
    "The command in a process of its own, once the page answers; its address."
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    proc = subprocess.Popen([sys.executable, '-c', 'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from fastclean.cli import main; sys.exit(main())', 'review', str(found), '--no-browser', *args],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True)
    said = []
    for line in proc.stdout:
        said.append(line)
        if 'Review:' in line: return proc, line.split()[-1]
    raise AssertionError(''.join(said))

def listens(url):
    with socket.socket() as s: return s.connect_ex(('127.0.0.1', int(url.rsplit(':', 1)[1]))) == 0

@pytest.mark.parametrize('sig, code', [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_command_ends_with_its_page(pets, sig, code):
    proc, url = started(pets)
    assert listens(url)
    proc.send_signal(sig); rest = proc.communicate(timeout=30)[0]
    assert proc.returncode == code and not listens(url) and ('fastclean correct' in rest) == (sig == signal.SIGINT)

def test_a_port_that_is_taken(pets, capsys):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        assert main(['review', str(pets), '--port', str(s.getsockname()[1])]) == 2
    err = capsys.readouterr().err
    assert 'is taken' in err and err.count('\n') == 1

DRAWN = """(() => {    // the script has ended, and the page has stood still for a while: a key that comes while buttons are being put in place finds no listener
    if (!window.still) { window.still = {at: performance.now()}; new MutationObserver(() => window.still.at = performance.now()).observe(document, {subtree: true, childList: true, attributes: true, characterData: true}) }
    return document.querySelector('[data-testid=stApp]').dataset.testScriptState == 'notRunning' && document.body.innerText.includes('the worst first') && performance.now() - window.still.at > 500
})()"""

@needs_browser
def test_in_a_browser(pets, tmp_path):
    "Keys, a kill -9 of the page, and the phone."
    proc, url = started(pets)
    try:
        with Browser() as b:
            b.size(1280, 900); b.open(url); b.until("document.body.innerText.includes('0 of 9 suspects decided')")
            for n, k in enumerate('lkd', 1): b.until(DRAWN); b.key(k); b.until(f"document.body.innerText.includes('{n} of 9 suspects decided')")
            b.open(url); b.until("document.body.innerText.includes('3 of 9 suspects decided: 1 kept, 1 relabelled, 1 dropped')")
            b.until("document.querySelector('.look img')?.naturalWidth > 0")
            b.size(390, 844); b.until('document.documentElement.scrollWidth <= 390')
            b.shot(tmp_path/'phone.png', full=False)
            top = lambda key: b.js(f"document.querySelector('{key}').getBoundingClientRect().top")
            assert top('[data-testid=stProgress]') >= 60 and top('.st-key-keep button') == top('.st-key-relabel button') and top('.st-key-back button') == top('.st-key-skip button')      # below Streamlit's bar; side by side
            assert b.js("[...document.querySelectorAll('.stMain kbd')].every(o => !o.offsetParent)")
            assert not [o for o in b.problems() if isinstance(o, dict) or not o.startswith((url, url.replace('http', 'ws'), 'data:'))]      # nothing from elsewhere, no error
        os.killpg(os.getpgid(int(subprocess.run(['pgrep', '-P', str(proc.pid)], capture_output=True, text=True).stdout.split()[0])), signal.SIGKILL)
        assert proc.wait(30) == 2 and (pets/'decisions.csv').read_text().count('\n') == 4
    finally: proc.kill()

"The audit: drawn at random, answered in a file or on a page, and estimated with intervals that hold."
import json, time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from browser import Browser, needs_browser
from fastclean.audit import UNSURE, audit, audit_coverage, audit_result, confirm, read_audit, write_audit, wrong_interval
from fastclean.auditpage import answer_keys, write_audit_page
from fastclean.core import Predictions
from fastclean.issues import find_label_issues

def make(n=2000, K=4, noise=.1, sharp=3.5, seed=0, vocab=None):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K, n)
    given = np.where(rng.random(n) < noise, rng.integers(0, K, n), true)
    z = rng.normal(size=(n, K)) + sharp*np.eye(K)[true]
    return Predictions.from_arrays(given, np.exp(z)/np.exp(z).sum(1, keepdims=True), vocab or [f'c{k}' for k in range(K)]), true

def answer(preds, true, sheet):
    return sheet.assign(label=pd.Series([preds.vocab[true[int(o)]] for o in sheet['item']], dtype=object))

@pytest.fixture(scope='module')
def data():
    preds, true = make()
    return preds, true, find_label_issues(preds)

# ---- drawing
def test_both_groups_are_drawn_without_repeats_and_mixed(data):
    _, _, issues = data
    d = audit(issues, 100)
    assert len(d) == 100 and d['item'].is_unique and d.flagged.sum() == 50 and d.label.isna().all()
    assert 10 < d.flagged[:50].sum() < 40   # in random order
    assert audit(issues, 100, seed=1)['item'].tolist() != d['item'].tolist()

@pytest.mark.parametrize('share, n, flagged', [(0, 10, 0), (1, 10, 10), (.3, 10, 3), (0, 10_000, None), (1, 10_000, None)])
def test_share_and_size(data, share, n, flagged):
    issues = data[2]
    d = audit(issues, n, share)
    assert len(d) == min(n, len(issues)) and (flagged is None or d.flagged.sum() == flagged)

def test_confirmed_and_unlabelled_items_are_not_asked_about(data):
    preds, _, _ = data
    p = Predictions.from_arrays(np.where(np.arange(len(preds)) < 100, -1, preds.given_label), preds.pred_probs, preds.vocab, verified=(np.arange(len(preds)) >= 1900))
    d = audit(find_label_issues(p), 10_000)['item'].astype(int)
    assert d.min() == 100 and d.max() == 1899 and len(d) == 1800

@pytest.mark.parametrize('kw, message', [(dict(n=0), 'n must be'), (dict(share=1.5), 'share must be')])
def test_wrong_arguments(data, kw, message):
    with pytest.raises(ValueError, match=message): audit(data[2], **kw)

def test_nothing_to_draw(data):
    with pytest.raises(ValueError, match='nothing to check'): audit(data[2].assign(verified=True))

# ---- intervals
def test_interval_is_all_that_the_tails_allow():
    for N, n in product((7, 20), (0, 3, 7)):
        for x in range(n + 1):
            fits = [M for M in range(x, N - n + x + 1) if hypergeom.sf(x - 1, N, M, n) >= .025 and hypergeom.cdf(x, N, M, n) >= .025]
            assert wrong_interval(N, n, x) == (fits[0], fits[-1])

@pytest.mark.parametrize('N, M, n', [(396, 388, 25), (4604, 18, 25), (4604, 500, 25), (100, 50, 50), (60, 3, 50), (10_000, 0, 100)])
def test_interval_holds_in_simulations(N, M, n):
    seen = np.random.default_rng(0).hypergeometric(M, N - M, n, 1000)
    ends = {x: wrong_interval(N, n, int(x)) for x in np.unique(seen)}
    assert np.mean([ends[x][0] <= M <= ends[x][1] for x in seen]) >= .93

@pytest.mark.parametrize('bad', [(10, 11, 0), (10, 5, 6), (10, 5, -1)])
def test_impossible_counts(bad):
    with pytest.raises(ValueError): wrong_interval(*bad)

@pytest.mark.parametrize('noise, sharp, n', [(.1, 3.5, 50), (.4, 2, 50), (.03, 1.5, 30), (.1, 3.5, 400)])
@pytest.mark.slow
def test_audits_hold_the_truth(noise, sharp, n):
    preds, true = make(noise=noise, sharp=sharp)
    issues = find_label_issues(preds)
    held = audit_coverage(issues, [preds.vocab[true[int(o)]] for o in issues['item']], n, times=100)
    assert (held >= .93).all(), held

# ---- results
def test_counts_by_hand():
    t = pd.DataFrame(dict(item=list('abcdefgh'), split='train', given_label=['x']*8, predicted_label='x', suggested_label=['y']*4 + ['x']*4, is_label_issue=[True]*4 + [False]*4, verified=False))
    sheet = t[['item', 'split', 'given_label', 'suggested_label']].assign(flagged=t.is_label_issue, label=['y', 'y', 'z', 'x', 'x', 'x', 'x', 'y'])
    r = audit_result(t, sheet)
    assert r.counts == dict(flagged=dict(all=4, seen=4, wrong=3, unsure=0, suggested=2), others=dict(all=4, seen=4, wrong=1, unsure=0, suggested=3))
    for k, v in dict(precision=.75, suggestion_right=.5, found=3, missed=1, recall=.75, noise_rate=.5).items(): assert r.table.loc[k].tolist() == [v]*3   # all were seen: points
    assert '75% (75% to 75%) are wrong' in repr(r)

def test_what_cannot_be_told_widens(data):
    preds, true, issues = data
    sheet = answer(preds, true, audit(issues, 60))
    sure, unsure = audit_result(issues, sheet), audit_result(issues, sheet.assign(label=[UNSURE if i < 10 else o for i, o in enumerate(sheet.label)]))
    assert unsure.table.low.precision < sure.table.low.precision and unsure.table.high.missed > sure.table.high.missed
    assert unsure.counts['flagged']['unsure'] + unsure.counts['others']['unsure'] == 10 and 'cannot be told' in repr(unsure)

def test_one_group_alone(data):
    preds, true, issues = data
    r = audit_result(issues, answer(preds, true, audit(issues, 40, share=1)))
    assert r.table.low.precision > .5 and np.isnan(r.table.estimate.missed) and 'Missed' not in repr(r)

def test_refusals(data):
    preds, true, issues = data
    sheet = audit(issues, 20)
    with pytest.raises(ValueError, match='no answers yet'): audit_result(issues, sheet)
    with pytest.raises(ValueError, match='another table'): audit_result(find_label_issues(preds, filter_by='predicted_neq_given').assign(is_label_issue=False), answer(preds, true, sheet))

# ---- files
@pytest.mark.parametrize('vocab', [['cat', 'dog', 'a,b "c"', '?x'], [0, 1, 2, 3], ['0', '01', '1', 'NA'], [True, False, 'True?', 'x'], ['?', 'a', 'b', 'c'], ['ü', ' a', 'b ', 'None']])
def test_answers_survive_a_file(tmp_path, vocab):
    preds, true = make(300, vocab=vocab)
    issues = find_label_issues(preds)
    sheet = answer(preds, true, audit(issues, 60))
    sheet.loc[3, 'label'] = None
    write_audit(sheet, tmp_path/'a.csv')
    again = read_audit(tmp_path/'a.csv', issues, vocab)
    assert [(type(o), o) for o in again.label] == [(type(o), o) for o in sheet.label] and again.flagged.tolist() == sheet.flagged.tolist()
    assert str(audit_result(issues, again)) == str(audit_result(issues, sheet))

def test_a_spreadsheet_may_save_it(tmp_path, data):
    preds, true, issues = data
    sheet = answer(preds, true, audit(issues, 20))
    (tmp_path/'a.csv').write_bytes(sheet.to_csv(sep=';', index=False).replace('\n', '\r\n').encode('utf-8-sig'))
    assert read_audit(tmp_path/'a.csv', issues).label.tolist() == sheet.label.tolist()

@pytest.mark.parametrize('change, message', [(lambda d: d.drop(columns='label'), 'no column label'), (lambda d: d.assign(label='fox'), "'fox' is not one of the classes"),
                                             (lambda d: d.assign(item='nowhere'), 'is not in the table'), (lambda d: pd.concat([d, d]), 'is there twice')])
def test_sheets_that_cannot_be_used(tmp_path, data, change, message):
    preds, true, issues = data
    write_audit(change(answer(preds, true, audit(issues, 20))), tmp_path/'a.csv')
    with pytest.raises(ValueError, match=message): read_audit(tmp_path/'a.csv', issues)

def test_classes_that_read_the_same(tmp_path):
    preds, true = make(300, vocab=[1, '1', 'a', 'b'])
    issues = find_label_issues(preds)
    write_audit(answer(preds, true, audit(issues, 60)), tmp_path/'a.csv')
    with pytest.raises(ValueError, match='could be any of'): read_audit(tmp_path/'a.csv', issues)
    with pytest.raises(ValueError, match='read the same'): write_audit_page(audit(issues, 5), tmp_path/'a.html', preds.vocab)

def test_several_labels(tmp_path):
    rng = np.random.default_rng(0)
    true = (rng.random((300, 3)) < .3).astype(int)
    given = np.where(rng.random(true.shape) < .05, 1 - true, true)
    issues = find_label_issues(given, np.clip(.1 + .8*true + .02*rng.normal(size=true.shape), .01, .99))
    sheet = audit(issues, 40)
    sheet['label'] = pd.Series([bool(true[int(i), int(c)]) for i, c in zip(sheet['item'], sheet['class'])], dtype=object)
    write_audit(sheet, tmp_path/'a.csv')
    r = audit_result(issues, read_audit(tmp_path/'a.csv', issues))
    assert r.table.estimate.precision > .9 and r.counts['flagged']['seen'] == 20

# ---- back into the record
def test_confirmed_answers_go_in(data):
    preds, true, issues = data
    sheet = answer(preds, true, audit(issues, 80))
    sheet.loc[:4, 'label'] = [None, UNSURE, None, UNSURE, np.nan]
    new = confirm(preds, sheet)
    at = sheet['item'][5:].astype(int)
    assert new.verified.sum() == 75 and new.verified[at].all() and (new.given_label[at] == true[at]).all() and (new.extra.original_label == preds.given_label).all()
    assert preds.verified.sum() == 0 and not find_label_issues(new).query('verified').is_label_issue.any()
    twice = confirm(new, sheet)
    assert (twice.extra.original_label == preds.given_label).all()

@pytest.mark.parametrize('row, message', [(dict(item='x', label='c0'), 'not among the items'), (dict(item='3', label='fox'), 'not one of the classes')])
def test_answers_that_do_not_fit(data, row, message):
    with pytest.raises(ValueError, match=message): confirm(data[0], pd.DataFrame([row]))

# ---- the page, in a browser
EVIL = ['<img src=x onerror=window.hacked=1>', '"><script>window.hacked=1</script>', "a'b\"c,d", 'plain']

@pytest.fixture(scope='module')
def browser():
    with Browser() as b: yield b

def page(tmp_path, browser, vocab, n=6, width=1000):
    preds, true = make(300, vocab=vocab, K=len(vocab))
    issues = find_label_issues(preds)
    sheet = audit(issues, n)
    write_audit_page(sheet, tmp_path/'a.html', preds.vocab, load=lambda i: f'the text of {i}')
    browser.size(width); browser.open(tmp_path/'a.html')
    browser.js('localStorage.clear()'); browser.open(tmp_path/'a.html')
    browser.call('Page.setDownloadBehavior', behavior='allow', downloadPath=str(tmp_path/'dl'))
    return preds, true, issues, sheet

def saved(tmp_path, browser):
    browser.js("document.getElementById('save').click()")
    for _ in range(100):
        if (f := tmp_path/'dl'/'audit.csv').is_file() and f.stat().st_size: return f
        time.sleep(.05)
    raise AssertionError('nothing was saved')

def press(browser, value):
    browser.js(f"[...document.querySelectorAll('.q:not([hidden]) [data-a]')].find(b => b.dataset.a === {json.dumps(value)}).click()")
    time.sleep(.2)

@needs_browser
@pytest.mark.parametrize('width', [1000, 360])
def test_a_page_is_answered_and_saved(tmp_path, browser, width):
    preds, true, issues, sheet = page(tmp_path, browser, EVIL, width=width)
    assert browser.problems() == [] and browser.js('document.documentElement.scrollWidth') <= width
    truth = [preds.vocab[true[int(o)]] for o in sheet['item']]
    for o in truth[:4]: press(browser, o)
    press(browser, UNSURE)
    assert '5 of 6' in browser.js("document.getElementById('count').textContent") and browser.js("document.querySelectorAll('.q:not([hidden])').length") == 1
    again = read_audit(saved(tmp_path, browser), issues)
    assert again.label.tolist() == [*truth[:4], UNSURE, None] and again['item'].tolist() == sheet['item'].tolist()
    assert browser.js('window.hacked') is None and browser.problems() == []

def key(browser, k): browser.js(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{k}', bubbles: true}}))"); time.sleep(.2)

@needs_browser
def test_keys_answer_and_go_back(tmp_path, browser):
    preds, _, issues, _ = page(tmp_path, browser, ['ant', 'bee', 'cow', 'dog'])
    for k in ('1', '2', 'ArrowLeft', '3', '?'): key(browser, k)
    assert read_audit(saved(tmp_path, browser), issues).label.tolist()[:3] == ['ant', 'cow', UNSURE]

@needs_browser
@pytest.mark.parametrize('vocab, keys', [([str(k) for k in range(10)], '0197?'), (list('ABCDEFGHIJKL'), 'ABCl?'), (['1', '2', 'none', 'many'], '123?4')])
def test_a_name_of_one_character_is_its_own_key(tmp_path, browser, vocab, keys):
    preds, _, issues, _ = page(tmp_path, browser, vocab)
    for k in keys: key(browser, k)
    want = {k: v for k, v in zip('34', ['none', 'many'])} | {v: v for v in vocab} | {'l': 'L', '?': UNSURE}
    assert read_audit(saved(tmp_path, browser), issues, preds.vocab).label.tolist()[:5] == [want[k] for k in keys]

def test_no_key_has_two_meanings():
    digits, names = [str(k) for k in range(10)], lambda n: [f'c{k}' for k in range(n)]
    assert answer_keys(digits, digits) == digits and answer_keys(digits[3:6], digits) == ['3', '4', '5']
    assert answer_keys(names(12), names(12)) == list('123456789abd') and answer_keys(names(3), [*names(3), '2', 'A']) == ['1', '3', '4']
    assert answer_keys(['a', 'A', 'b'], ['a', 'A', 'b']) == ['1', '2', 'b']          # a keyboard does not tell them apart
    assert answer_keys(['c', '?', '+', 'x'], ['c', '?', '+', 'x'], 'c') == ['1', '2', '3', 'x'] and answer_keys(names(40), names(40))[-1] == ''

@needs_browser
def test_answers_are_kept_until_they_are_saved(tmp_path, browser):
    preds, _, issues, sheet = page(tmp_path, browser, list('wxyz'))
    press(browser, 'x'); browser.open(tmp_path/'a.html')
    assert '1 of 6' in browser.js("document.getElementById('count').textContent")
    write_audit_page(sheet, tmp_path/'a.html', list('wxyv'), load=lambda i: 'other'); browser.open(tmp_path/'a.html')   # another audit of the same items
    assert '0 of 6' in browser.js("document.getElementById('count').textContent")

@needs_browser
def test_another_class_is_typed(tmp_path, browser):
    preds, _, issues, _ = page(tmp_path, browser, [f'breed {k}' for k in range(40)])
    def typed(o): browser.js(f"(() => {{ const i = document.querySelector('.q:not([hidden]) input'); i.value = '{o}'; i.dispatchEvent(new Event('change')); }})()"); time.sleep(.2)
    typed('no breed'); typed('breed 39')
    assert browser.js("document.getElementById('classes').options.length") == 40
    assert read_audit(saved(tmp_path, browser), issues, preds.vocab).label.tolist()[:2] == ['breed 39', None]

def test_the_page_does_not_tell_the_suspects(tmp_path, data):
    preds, _, issues = data
    sheet = audit(issues, 20)
    text = write_audit_page(sheet, tmp_path/'a.html', preds.vocab, load=lambda i: 'text').read_text()
    cards = text[text.index('<ol'):text.index('</ol>')].split('<li class="q"')[1:]
    blank = {c.replace(f'<bdi class="small item">{i}<', '').replace(f'{k + 1} of 20', '').removeprefix(' hidden').strip() for k, (c, i) in enumerate(zip(cards, sheet['item']))}
    assert len(blank) == 1   # all questions are the same but for the item

# ---- in a terminal
@pytest.fixture
def found(tmp_path):
    from fastclean.issues import write_issues
    preds, true = make(300, vocab=['ant', 'b,"ee', 'cat', '7'])
    issues, out = find_label_issues(preds), tmp_path/'found'
    preds.save(out/'predictions'); write_issues(issues, out/'issues.csv')
    pd.DataFrame(dict(text=[f'the text of {k}' for k in range(300)], y=preds.label_names(preds.given_label))).to_csv(tmp_path/'t.csv', index=False)
    (out/'summary.json').write_text(json.dumps(dict(settings=dict(kind='text', read=dict(text_col='text', label_col='y')))))
    (out/'source.json').write_text(json.dumps(dict(settings=dict(source=str(tmp_path/'t.csv')))))
    return out, preds, true, issues

def run(capsys, *args):
    from fastclean.cli import main
    code = main(['audit', *map(str, args)])
    return code, *capsys.readouterr()

def test_command_draws_keeps_and_estimates(found, capsys):
    out, preds, true, issues = found
    code, said, _ = run(capsys, out, '--n', 30)
    assert code == 0 and 'audit.html' in said and 'the text of' in (out/'audit'/'audit.html').read_text()
    sheet = (out/'audit'/'audit.csv').read_bytes()
    assert run(capsys, out, '--n', 30)[0] == 0 and (out/'audit'/'audit.csv').read_bytes() == sheet
    code, _, err = run(capsys, out, '--n', 31)
    assert code == 2 and '--force' in err and err.count('\n') == 1
    assert run(capsys, out, '--n', 31, '--force')[0] == 0
    d = answer(preds, true, read_audit(out/'audit'/'audit.csv', issues, preds.vocab)); d.loc[3, 'label'] = UNSURE; d.loc[4, 'label'] = None
    write_audit(d, out.parent/'mine.csv')
    code, said, _ = run(capsys, out, '--answers', out.parent/'mine.csv')
    assert code == 0 and said.startswith(str(audit_result(issues, d))) and '1 of 31 have no answer' in said
    made = json.loads((out/'audit'/'result.json').read_text())
    assert made['precision']['low'] == audit_result(issues, d).table.low.precision
    decided = pd.read_csv(out/'audit'/'decisions.csv', dtype=str)
    assert len(decided) == 29 and decided.label.tolist() == [o for k, o in enumerate(d.label) if k not in (3, 4)]
    code, said, _ = run(capsys, out)   # the answers are in place now
    assert code == 0 and 'Of the marked labels' in said

@pytest.mark.parametrize('args', [['--n', 0], ['--share', 2], ['--seed', -1], ['--answers', 'nowhere.csv']])
def test_command_refuses_in_one_line(found, capsys, args):
    code, _, err = run(capsys, found[0], *args)
    assert code == 2 and err.count('\n') == 1 and 'Traceback' not in err

@pytest.mark.parametrize('damage', ['summary.json', 'issues.csv', 'all'])
def test_command_on_what_is_no_result(found, capsys, damage):
    out = found[0]
    if damage == 'all': out = out.parent
    else: (out/damage).unlink()
    code, _, err = run(capsys, out)
    assert code == 2 and 'not a result' in err

def test_command_without_the_source(found, capsys):
    (found[0].parent/'t.csv').unlink()
    assert run(capsys, found[0])[0] == 0 and 'cannot be read' in (found[0]/'audit'/'audit.html').read_text()

def test_answers_of_other_types_are_the_same_answers():
    preds, true = make(300, vocab=[0, 1, 2, 3])
    issues = find_label_issues(preds)
    sheet = answer(preds, true, audit(issues, 60))
    expect = str(audit_result(issues, sheet))
    for label in (sheet.label.astype(np.int64), sheet.label.astype(float), pd.Series(list(np.array(sheet.label, dtype=np.int8)), dtype=object)):
        assert str(audit_result(issues, sheet.assign(label=label))) == expect and (confirm(preds, sheet.assign(label=label)).given_label == confirm(preds, sheet).given_label).all()
    gaps = sheet.label.astype(float); gaps[0] = np.nan
    assert confirm(preds, sheet.assign(label=gaps)).verified.sum() == 59

"The table of issues: parity with cleanlab, odd data, the file format, bad input."
import csv, dataclasses, subprocess, sys, warnings

import numpy as np
import pandas as pd
import pytest

from fastclean.core import FastcleanWarning, InSampleWarning, Predictions
from fastclean.issues import COLUMNS, FILTERS, SCORES, average_predictions, find_label_issues, given_posterior, plausible_sharpening, read_issues, write_issues
from fastclean.transition import label_posterior

CLEANLAB = FILTERS[1:]

def make(n=600, K=5, noise=.15, sharp=3., seed=0, absent=()):
    "A model that is good but not perfect, and class-conditional noise. Returns predictions and truth."
    rng = np.random.default_rng(seed)
    true = rng.choice([k for k in range(K) if k not in absent], n)
    given = np.where(rng.random(n) < noise, rng.choice([k for k in range(K) if k not in absent], n), true)
    z = rng.standard_normal((n, K)); z[np.arange(n), true] += sharp
    p = np.exp(1.5*z); p /= p.sum(1, keepdims=True)
    return Predictions.from_arrays(given, p), true

def flagged(d): return np.sort(d['item'][d.is_label_issue].astype(int).to_numpy())

def by_row(d, column): return d.set_index(d['item'].astype(int)).sort_index()[column].to_numpy()

# suggestions

def test_an_issue_never_suggests_its_own_label():
    preds, _ = make(sharp=.8, noise=.4)
    post, d = given_posterior(preds), find_label_issues(preds)
    w = label_posterior(preds)
    unclear = (post.given < .5) & (w.argmax(1) == preds.given_label)
    assert unclear.any() and (d.given_label != d.suggested_label)[d.is_label_issue].all()
    i = int(np.flatnonzero(unclear)[0])
    assert post.prob[i] == np.sort(w[i])[-2] and (d.given_label == d.suggested_label)[~d.is_label_issue].any()

# cleanlab

@pytest.mark.parametrize('absent', [(), (1, 4)], ids=['all classes', 'absent classes'])
@pytest.mark.parametrize('filter_by', CLEANLAB)
def test_filters_mark_what_cleanlab_marks(filter_by, absent):
    from cleanlab.filter import find_label_issues as reference
    preds, _ = make(absent=absent, sharp=1.5)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        mask = reference(preds.given_label, preds.pred_probs, filter_by=filter_by, n_jobs=1)
    assert 10 < mask.sum() < 300
    assert flagged(find_label_issues(preds, filter_by=filter_by)).tolist() == np.flatnonzero(mask).tolist()

@pytest.mark.parametrize('score', SCORES[1:])
def test_scores_are_cleanlabs(score):
    from cleanlab.rank import get_label_quality_scores
    preds, _ = make()
    d = find_label_issues(preds, score=score)
    assert np.array_equal(by_row(d, 'label_score'), get_label_quality_scores(preds.given_label, preds.pred_probs, method=score).astype(np.float32))

@pytest.mark.parametrize('filter_by, score', [('low_normalized_margin', 'normalized_margin'), ('both', 'self_confidence'), ('posterior', 'posterior')])
def test_default_score_is_that_of_the_filter(filter_by, score):
    preds, _ = make()
    pd.testing.assert_frame_equal(find_label_issues(preds, filter_by=filter_by), find_label_issues(preds, filter_by=filter_by, score=score))

def test_ranking_is_cleanlabs():
    from cleanlab.filter import find_label_issues as reference
    preds, _ = make()
    d = find_label_issues(preds, filter_by='prune_by_noise_rate')
    assert d['item'][d.is_label_issue].astype(int).tolist() == reference(preds.given_label, preds.pred_probs, return_indices_ranked_by='self_confidence', n_jobs=1).tolist()

def test_arguments_reach_cleanlab():
    from cleanlab.filter import find_label_issues as reference
    preds, _ = make(sharp=1.5)
    mask = reference(preds.given_label, preds.pred_probs, frac_noise=.4, n_jobs=1)
    assert flagged(find_label_issues(preds, filter_by='prune_by_noise_rate', frac_noise=.4)).tolist() == np.flatnonzero(mask).tolist()
    assert mask.sum() < find_label_issues(preds, filter_by='prune_by_noise_rate').is_label_issue.sum()

def test_unlabelled_rows_do_not_reach_cleanlab():
    from cleanlab.filter import find_label_issues as reference
    preds, _ = make(sharp=1.5)
    preds.given_label[::3] = -1
    has = preds.given_label >= 0
    mask = reference(preds.given_label[has], preds.pred_probs[has], n_jobs=1)
    assert flagged(find_label_issues(preds, filter_by='prune_by_noise_rate')).tolist() == np.flatnonzero(has)[mask].tolist()

def test_one_warning_for_rare_classes():
    preds, _ = make(n=200, K=40)
    preds.given_label[preds.given_label > 30] = 0
    preds.given_label[preds.given_label == 20] = 0   # absent
    preds.given_label[:3] = 31, 32, 33
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        find_label_issues(preds, filter_by='both')
    n = (np.bincount(preds.given_label) == 1).sum()
    assert n >= 3 and [o.category for o in w] == [FastcleanWarning] and str(w[0].message).startswith(f'{n} classes have too few')

def test_many_classes():
    rng = np.random.default_rng(0)
    n, K = 3000, 2000
    true = rng.integers(0, K, n)
    p = np.full((n, K), .1/(K - 1)); p[np.arange(n), true] = .9
    given = true.copy(); given[:30] = (true[:30] + 1) % K
    d = find_label_issues(given, p)
    assert len(d) == n and flagged(d).tolist() == list(range(30))
    assert d.suggested_label[:30].tolist() == true[d['item'][:30].astype(int)].tolist()

# the posterior and the table

@pytest.mark.parametrize('noise', [.05, .2, .4])
def test_posterior_finds_the_wrong_labels(noise):
    preds, true = make(n=2000, noise=noise, sharp=4.)
    bad, d = preds.given_label != true, find_label_issues(preds)
    found = np.zeros(len(bad), bool); found[flagged(d)] = True
    assert 2*(found & bad).sum()/(found.sum() + bad.sum()) > .9
    assert (true[d['item'].astype(int)] == d.suggested_label).mean() > .95

def test_obvious_issues_are_wrong_more_often():
    obvious, possible = [], []
    for seed in range(5):
        preds, true = make(n=1500, sharp=2., seed=seed)
        d = find_label_issues(preds)
        bad = (preds.given_label != true)[d['item'].astype(int)]
        obvious.append(bad[d.certainty == 'obvious'].mean()); possible.append(bad[d.certainty == 'possible'].mean())
    assert np.mean(obvious) > .75 and np.mean(obvious) > np.mean(possible) + .2

def test_certainty_belongs_to_issues_alone():
    preds, _ = make(sharp=1.5)
    for f in ('posterior', 'predicted_neq_given'):
        d = find_label_issues(preds, filter_by=f)
        assert set(d.certainty[d.is_label_issue]) == {'obvious', 'possible'} and set(d.certainty[~d.is_label_issue]) == {''}

def test_columns_and_types():
    preds, _ = make()
    for d in (find_label_issues(preds), find_label_issues(preds, filter_by='both')):
        assert list(d.columns) == list(COLUMNS)
        assert d.dtypes.astype(str).to_dict() == dict(
            item='str', split='str', given_label='object', predicted_label='object', is_label_issue='bool', label_score='float32', suggested_label='object',
            suggested_prob='float32', certainty='str', fold='int64', verified='bool', twin='object', outlier_score='float32')
        assert d['item'].is_unique and len(d) == len(preds)

def test_order_is_worst_first_and_ties_keep_the_items_order():
    p = np.array([[.9, .1], [.1, .9], [.1, .9], [.9, .1], [.1, .9]])
    d = find_label_issues([0, 0, 0, 0, 0], p, T=np.array([[.5, .5], [.5, .5]]))
    assert d['item'].tolist() == ['1', '2', '4', '0', '3']
    preds, _ = make()
    d = find_label_issues(preds, filter_by='prune_by_class')
    m = d.is_label_issue.to_numpy()
    assert m[:m.sum()].all() and d.label_score[m].is_monotonic_increasing and d.label_score[~m].is_monotonic_increasing

def test_order_of_the_items_changes_nothing():
    preds, _ = make()
    a, b = find_label_issues(preds), find_label_issues(preds[np.random.default_rng(0).permutation(len(preds))])
    a, b = (o.set_index('item').sort_index() for o in (a, b))
    pd.testing.assert_frame_equal(a, b, rtol=1e-3, atol=1e-4)

def test_what_it_was_given_stays_as_it_was():
    preds, _ = make()
    p, y = preds.pred_probs.copy(), preds.given_label.copy()
    for f in FILTERS: find_label_issues(preds, filter_by=f)
    assert np.array_equal(p, preds.pred_probs) and np.array_equal(y, preds.given_label)

def test_labels_and_probabilities_do_as_well():
    preds, _ = make()
    for y in (preds.given_label, preds.given_label.tolist(), pd.Series(preds.given_label, index=range(5, 605))):
        pd.testing.assert_frame_equal(find_label_issues(y, preds.pred_probs), find_label_issues(preds))

def test_mapped_probabilities(tmp_path):
    preds, _ = make()
    preds.save(tmp_path/'p')
    for f in ('posterior', 'both'):
        pd.testing.assert_frame_equal(find_label_issues(Predictions.load(tmp_path/'p', mmap=True), filter_by=f), find_label_issues(preds, filter_by=f))

@pytest.mark.parametrize('filter_by', ['posterior', 'predicted_neq_given'])
def test_verified_items_are_never_marked(filter_by):
    preds, _ = make()
    before = find_label_issues(preds, filter_by=filter_by)
    worst = before['item'][:2]
    preds.verified[worst.astype(int)] = True
    d = find_label_issues(preds, filter_by=filter_by).set_index('item')
    assert not d.is_label_issue[worst].any() and (d.certainty[worst] == '').all() and d.verified[worst].all()
    assert d.is_label_issue.sum() > 10

@pytest.mark.parametrize('filter_by', ['posterior', 'low_self_confidence'])
def test_unlabelled_items_get_a_suggestion(filter_by):
    preds, true = make(n=1500, sharp=4.)
    preds.given_label[:100] = -1; preds.split[:100] = 'unlabelled'
    d = find_label_issues(preds, filter_by=filter_by).set_index('item')
    none = d.loc[[str(i) for i in range(100)]]
    assert not none.is_label_issue.any() and none.label_score.isna().all() and none.given_label.isna().all() and (none.certainty == '').all()
    assert (none.suggested_label == true[:100]).mean() > .9 and none.suggested_prob.between(.2, 1).all()
    assert (none.split == 'unlabelled').all()

def test_twin_and_outlier_score_come_from_extra():
    preds, _ = make(n=50)
    preds.extra['twin'] = pd.Series([None, '3'] + [np.nan]*48, dtype=object)
    preds.extra['outlier_score'] = np.linspace(0, 1, 50)
    d = find_label_issues(preds).set_index('item')
    assert d.twin['1'] == '3' and d.twin['0'] is None and d.twin['7'] is None
    assert d.outlier_score['49'] == 1 and d.outlier_score['0'] == 0

def test_sharpening_is_chosen_or_given():
    preds, _ = make(sharp=1.5)
    s = plausible_sharpening(preds)
    pd.testing.assert_frame_equal(find_label_issues(preds), find_label_issues(preds, sharpen=s))
    n = [find_label_issues(preds, sharpen=t).is_label_issue.sum() for t in (s.low, s.best, s.high)]
    assert s.low <= s.best < s.high and n[0] < n[1] < n[2]

def test_range_opens_where_the_model_explains_the_labels():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(5, .3), 5000)
    y = (p.cumsum(1) > rng.random((5000, 1))).argmax(1).clip(0, 4)
    s = plausible_sharpening(Predictions.from_arrays(y, p))
    assert s.low <= 1 < s.best
    post = given_posterior(Predictions.from_arrays(y, p))
    assert (post.timid < .5).sum() < (post.given < .5).sum()/2 < (post.bold < .5).sum()

def test_what_a_person_knows_moves_the_cut_off():
    from fastclean.transition import label_posterior
    def f1(preds, true, rest):
        flag, wrong = by_row(find_label_issues(preds), 'is_label_issue')[rest], (preds.given_label != true)[rest]
        return 2*(flag & wrong).sum()/(flag.sum() + wrong.sum())
    preds, true = make(n=4000, sharp=1.5, noise=0.)       # all labels are right, the model is weak
    some = np.random.default_rng(1).choice(4000, 300, replace=False)
    before = find_label_issues(preds).is_label_issue.sum()
    preds.verified[some] = True
    assert before > 100 and find_label_issues(preds).is_label_issue.sum() < before/3
    preds, true = make(n=4000, sharp=1.5, noise=.3)       # corrected labels tell what they were before
    preds.extra['original_label'] = preds.given_label.copy()
    rest = np.ones(4000, bool); rest[some] = False
    before = f1(preds, true, rest)
    preds.given_label[some] = true[some]; preds.verified[some] = True
    assert f1(preds, true, rest) > before - .01
    assert (label_posterior(preds)[some, true[some]] == 1).all()

def test_in_sample_predictions_warn():
    preds, _ = make()
    preds.meta['in_sample'] = True
    with pytest.warns(InSampleWarning, match='KFoldLearner'): find_label_issues(preds)

def test_two_classes_and_two_items():
    d = find_label_issues([0, 1], [[.9, .1], [.2, .8]])
    assert len(d) == 2 and not d.is_label_issue.any()

def test_import_is_light():
    code = 'import sys; import fastclean.issues, fastclean.health; print([m for m in ("torch", "fastai", "cleanlab", "sklearn", "matplotlib") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

# the file

HOSTILE = ['NA', 'None', '', '01', '1', 1, True, 'True', 'nan', 'a\nb', 'a\r\nb', '\r', '"', '""', 'a"b', ',', ';', ' x ', '=1+1', "'", '-1', '1e5', 0.5, 1.0, -3, 'ż', '\t', '#', 10**20, 'false', False]

def hostile():
    K = len(HOSTILE)
    given = np.r_[np.arange(K), -1, np.roll(np.arange(K), 1)]
    p = np.eye(K)[np.r_[np.arange(K), 0, np.arange(K)]]
    items = [f'{o}|{i}' for i, o in enumerate(HOSTILE)] + ['', *[f'"{i},\n' for i in range(K)]]
    preds = Predictions.from_arrays(given, p, vocab=HOSTILE, items=items, split=['train']*K + ['unlabelled'] + ['valid']*K)
    preds.extra['twin'] = [items[1]] + [None]*2*K
    preds.extra['outlier_score'] = np.linspace(0, 1, 2*K + 1)
    return find_label_issues(preds)

def same(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    for c in ('given_label', 'predicted_label', 'suggested_label', 'twin'): assert [repr(o) for o in a[c]] == [repr(o) for o in b[c]]

def test_hostile_names_survive(tmp_path):
    d = hostile()
    same(read_issues(write_issues(d, tmp_path/'i.csv')), d)
    same(read_issues(tmp_path/'i.csv', vocab=HOSTILE), d)

def test_plain_tables_survive(tmp_path):
    preds, _ = make()
    for d in (find_label_issues(preds), find_label_issues(preds)[:0], find_label_issues(preds)[5:9].reset_index(drop=True)):
        same(read_issues(write_issues(d, tmp_path/'i.csv')), d)

def test_more_rows_than_a_block(tmp_path):
    preds, _ = make(n=200)
    d = pd.concat([find_label_issues(preds)]*1100, ignore_index=True)
    assert len(d) > 200_000
    same(read_issues(write_issues(d, tmp_path/'i.csv')), d)

def test_own_columns_survive(tmp_path):
    preds, _ = make(n=20)
    d = find_label_issues(preds).assign(note=['1', 1, 'x,"y"', None]*5)
    back = read_issues(write_issues(d, tmp_path/'i.csv'))
    assert back.note.tolist() == d.note.tolist() and list(back.columns) == [*COLUMNS, 'note']

def test_own_numbers_survive(tmp_path):
    preds, _ = make(n=20)
    d = find_label_issues(preds).assign(aum=np.r_[np.linspace(-3, 2e-9, 19), np.nan], forgetting=[0., 1., np.inf, np.nan, -np.inf]*4, epochs=np.arange(20), learnt=['01', '1']*10)
    back = read_issues(write_issues(d, tmp_path/'i.csv'))
    for c in ('aum', 'forgetting', 'epochs'): np.testing.assert_array_equal(back[c], d[c]); assert back[c].dtype == d[c].dtype
    assert back.learnt.tolist() == d.learnt.tolist()

def test_own_numbers_that_a_block_of_rows_leaves_empty(tmp_path):
    preds, _ = make(n=200)
    d = pd.concat([find_label_issues(preds)]*501, ignore_index=True)
    last = np.arange(len(d)) >= 100_100
    d = d.assign(aum=np.where(last, 1.5, np.nan), seen=np.where(last, 3., np.nan), note=np.where(last, None, 'x'))
    back = read_issues(write_issues(d, tmp_path/'i.csv'))
    for c in ('aum', 'seen'): np.testing.assert_array_equal(back[c], d[c]); assert back[c].dtype == float
    assert back.note.tolist() == ['x']*100_100 + [None]*100

def test_other_csv_readers_see_clean_names(tmp_path):
    preds, _ = make(n=20, K=3)
    preds.vocab = ['1', 'NA', 'tench']
    d = find_label_issues(preds)
    write_issues(d, tmp_path/'i.csv')
    with open(tmp_path/'i.csv', newline='', encoding='utf-8') as f: rows = list(csv.DictReader(f))
    assert [r['given_label'] for r in rows] == d.given_label.tolist() and [r['item'] for r in rows] == d['item'].tolist()
    assert pd.read_csv(tmp_path/'i.csv', keep_default_na=False, dtype=str).suggested_label.tolist() == d.suggested_label.tolist()
    assert pd.read_csv(tmp_path/'i.csv').is_label_issue.dtype == bool

def test_spreadsheet_saves_it_again(tmp_path):
    preds, _ = make(n=60, K=4)
    preds.vocab = ['0', '1', 'NA', 'tench, fish']
    d = find_label_issues(preds)
    write_issues(d, tmp_path/'i.csv')
    with open(tmp_path/'i.csv', newline='', encoding='utf-8') as f: rows = list(csv.reader(f))
    with open(tmp_path/'again.csv', 'w', newline='', encoding='utf-8-sig') as f: csv.writer(f).writerows([[o.upper() if o in ('True', 'False') else o for o in r] for r in rows])
    same(read_issues(tmp_path/'again.csv', vocab=preds.vocab), d)
    assert 1 in set(read_issues(tmp_path/'again.csv').given_label)
    with pytest.raises(ValueError, match='is not one of the classes'): read_issues(tmp_path/'again.csv', vocab=['0', '1', 'NA', 'salmon'])
    write_issues(d.assign(given_label=[True]*60), tmp_path/'i.csv')
    with pytest.raises(ValueError, match=r"could be any of \['true', 'True'\]"): read_issues(tmp_path/'i.csv', vocab=[*preds.vocab, 'true', 'True'])

def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    preds, _ = make(n=20)
    d = find_label_issues(preds)
    write_issues(d, tmp_path/'i.csv')
    before = (tmp_path/'i.csv').read_bytes()
    bad = d.copy(); bad.loc[15, 'given_label'] = complex(1)
    with pytest.raises(ValueError, match='a class must be named by text'): write_issues(bad, tmp_path/'i.csv')
    assert (tmp_path/'i.csv').read_bytes() == before and [o.name for o in tmp_path.iterdir()] == ['i.csv']
    with pytest.raises(ValueError, match='no column given_label'): write_issues(d.drop(columns='given_label'), tmp_path/'j.csv')
    assert not (tmp_path/'j.csv').exists()

def good_text(tmp_path):
    preds, _ = make(n=20)
    return write_issues(find_label_issues(preds), tmp_path/'good.csv').read_text()

BROKEN = dict(
    empty=lambda t: '', zeros=lambda t: '\0'*100, other=lambda t: 'a,b\n1,2\n', semicolons=lambda t: t.replace(',', ';'), no_header=lambda t: t.partition('\n')[2],
    no_column=lambda t: t.replace('"twin"', '"fold"'), twice=lambda t: '\n'.join(o + (',"fold"', ',0')[i > 0] for i, o in enumerate(t.splitlines())), short_row=lambda t: t + '"x","train"\n', long_row=lambda t: t.replace('\n', ',1\n', 2).replace(',1\n', '\n', 1),
    open_quote=lambda t: t + '"x,train', stray_quote=lambda t: t.replace('"train"', '"tr"ain', 1), split=lambda t: t.replace('"train"', '"trian"', 1),
    certainty=lambda t: t.replace('"",-1', '"sure",-1', 1), flag=lambda t: t.replace('False', 'maybe', 1), fold=lambda t: t.replace(',-1,', ',one,', 1),
    real_fold=lambda t: t.replace(',-1,', ',-1.5,', 1), huge_fold=lambda t: t.replace(',-1,', ',99999999999999999999,', 1), prob=lambda t: t.replace(',0.9', ',7.9', 1),
    text_prob=lambda t: t.replace(',0.9', ',high0.9', 1), quotes=lambda t: t + '"'*100_001)

@pytest.mark.parametrize('how', BROKEN)
def test_broken_files_are_a_value_error(how, tmp_path):
    text = BROKEN[how](good_text(tmp_path))
    (tmp_path/'bad.csv').write_text(text)
    with pytest.raises(ValueError, match='is not a table of issues'): read_issues(tmp_path/'bad.csv')

@pytest.mark.parametrize('data', [b'\xff\xfe"item"\n', b'\x89PNG\r\n\x1a\n\0\0', b'PK\x03\x04\x80'], ids=['utf-16', 'png', 'zip'])
def test_binary_files_are_a_value_error(data, tmp_path):
    (tmp_path/'bad.csv').write_bytes(data)
    with pytest.raises(ValueError, match='is not a table of issues'): read_issues(tmp_path/'bad.csv')

def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError): read_issues(tmp_path/'none.csv')

def test_random_damage_never_ends_otherwise(tmp_path):
    rng, text = np.random.default_rng(0), good_text(tmp_path)
    for _ in range(300):
        t, i = text, int(rng.integers(0, len(text)))
        t = t[:i] + rng.choice(['"', ',', '\n', '\r', 'x', '""', '', '9'*30, '-', '\0']) + t[i + int(rng.integers(0, 3)):]
        (tmp_path/'bad.csv').write_text(t, newline='')
        try: d = read_issues(tmp_path/'bad.csv')
        except ValueError: continue
        assert list(d.columns[:1]) == ['item'] and d.is_label_issue.dtype == bool

# bad input

P = np.array([[.9, .1], [.2, .8], [.6, .4]])

@pytest.mark.parametrize('args, match', [
    (([0, 1, 0],), 'without pred_probs'), ((P,), 'without pred_probs'), (([0, 1], P), 'exactly once'), (([0, 1, 2], P), 'between -1 and 1'),
    (([0, 1, np.nan], P), 'class numbers'), ((['a', 'b', 'a'], P), 'class numbers'), (([-1, -1, -1], P), 'none of the items has a label'),
    (([[1, 0], [0, 2], [1, 1]], P), 'between 0 and 1'), (([0, 0, 0], np.ones((3, 1))), 'two classes or more'), (([0, 1, 0], P[:, 0]), 'two dimensions'),
    (([0, 1, 0], P*np.nan), 'NaN'), (([0, 1, 0], P - .5), 'between 0 and 1'), (([0, 1, 0], P*1.1), 'sum to 1'), (([], np.empty((0, 2))), 'none of the items')])
def test_bad_input(args, match):
    with pytest.raises(ValueError, match=match): find_label_issues(*args)

@pytest.mark.parametrize('kwargs, match', [
    (dict(filter_by='prune'), 'filter_by must be one of'), (dict(filter_by=None), 'filter_by must be one of'), (dict(score='margin'), 'score must be one of'),
    (dict(sharpen=-1), 'positive number'), (dict(sharpen=np.inf), 'positive number'), (dict(frac_noise=.5), 'takes no frac_noise'),
    (dict(filter_by='both', return_indices_ranked_by='self_confidence'), 'takes no return_indices'), (dict(filter_by='both', multi_label=True), 'takes no multi_label')])
def test_bad_settings(kwargs, match):
    with pytest.raises(ValueError, match=match): find_label_issues([0, 1, 0], P, **kwargs)

def test_both_kinds_of_probabilities():
    preds, _ = make()
    with pytest.raises(ValueError, match='brings its own pred_probs'): find_label_issues(preds, preds.pred_probs)

def test_multi_label_record():
    multi = Predictions.from_arrays([[1, 0], [1, 1]], [[.9, .2], [.4, .8]])
    assert len(find_label_issues(multi)) == 4
    with pytest.raises(ValueError, match='T is for data with one label'): find_label_issues(multi, T=np.eye(2))

def test_class_named_none():
    preds = dataclasses.replace(make(n=20, K=2)[0], vocab=['a', None])
    with pytest.raises(ValueError, match='names a class None'): find_label_issues(preds)

@pytest.mark.parametrize('filter_by', CLEANLAB)
def test_one_class_among_the_labels(filter_by):
    with pytest.raises(ValueError, match='needs labels of two classes'): find_label_issues([0, 0, 0], P, filter_by=filter_by)
    with pytest.raises(ValueError, match='needs labels of two classes'): find_label_issues([1, 1, -1], P, filter_by=filter_by)

# several models, a budget

def test_the_average_is_by_item_not_by_row():
    a, true = make(n=1000, sharp=2., seed=1)
    rng = np.random.default_rng(0); at = rng.permutation(1000)
    z = rng.standard_normal((1000, 5)); z[np.arange(1000), true] += 2
    b = Predictions.from_arrays(a.given_label, np.exp(z)/np.exp(z).sum(1, keepdims=True))
    both = average_predictions(a, b[at])
    g = np.sqrt(a.pred_probs*b.pred_probs)
    assert np.allclose(both.pred_probs, g/g.sum(1, keepdims=True), atol=1e-5) and (both.items == a.items).all()
    acc = [(o.predicted_label == true).mean() for o in (a, b, both)]
    assert acc[2] > max(acc[:2])
    assert average_predictions(a) is a

@pytest.mark.parametrize('change, message', [(lambda p: p[:500], 'predicted other items'), (lambda p: dataclasses.replace(p, vocab=list('abcde')), 'other classes'),
                                             (lambda p: dataclasses.replace(p, given_label=(p.given_label + 1) % 5), 'other labels')])
def test_models_of_other_items_are_not_averaged(change, message):
    a, _ = make()
    with pytest.raises(ValueError, match=message): average_predictions(a, change(a))

def test_a_budget_changes_the_order_only():
    preds, true = make(n=3000, sharp=1.5)
    preds.verified[:50] = True; preds.given_label[50:60] = -1
    plain, d = find_label_issues(preds, sharpen=2.), find_label_issues(preds, sharpen=2., budget=200)
    assert set(d['item'][d.is_label_issue]) == set(plain['item'][plain.is_label_issue]) and sorted(d['item']) == sorted(plain['item'])
    first = d['item'][:200].astype(int)
    assert not preds.verified[first].any() and (preds.given_label[first] >= 0).all()
    post = (given_posterior(preds, 2.)[['given', 'timid', 'bold']]**.5).mean(axis=1)
    assert post[first].is_monotonic_increasing and post[first].max() <= post.drop(first)[60:].min() + 1e-6

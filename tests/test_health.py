"Noise rate, health of the classes, and the summary: against the truth, against cleanlab, and where the data cannot tell."
import json

import numpy as np
import pytest

from fastclean.core import Predictions, to_jsonable
from fastclean.health import CLEAR, agreement, health_summary, joint_transition, label_joint, noise_interval, overlapping_classes, summarise, wilson
from fastclean.issues import COLUMNS, find_label_issues

def make(n=2000, K=5, noise=.15, sharp=4., seed=0, T=None):
    "A good model, and labels drawn from a noise matrix. Returns predictions and truth."
    rng = np.random.default_rng(seed)
    T = np.full((K, K), noise/(K - 1)) + np.eye(K)*(1 - noise - noise/(K - 1)) if T is None else T
    true = rng.integers(0, K, n)
    given = (T[true].cumsum(1) > rng.random((n, 1))).argmax(1)
    z = rng.standard_normal((n, K)); z[np.arange(n), true] += sharp
    p = np.exp(1.5*z); p /= p.sum(1, keepdims=True)
    return Predictions.from_arrays(given, p), true

PAIR = np.eye(5); PAIR[3] = [0, .3, 0, .7, 0]

def true_joint(preds, true):
    J = np.zeros((len(preds.vocab),)*2)
    np.add.at(J, (true, preds.given_label), 1/len(true))
    return J

# the joint

def test_joint_is_near_the_truth():
    preds, true = make(n=5000, T=PAIR)
    J = label_joint(preds)
    assert np.abs(J - true_joint(preds, true)).max() < .01
    assert J.sum() == pytest.approx(1, abs=1e-5) and J[3, 1] > .04 and J[1, 3] < .005

def test_joint_leaves_out_the_unlabelled_and_trusts_the_verified():
    preds, true = make()
    preds.given_label[:500] = -1
    n = np.bincount(preds.given_label[500:])
    assert np.allclose(label_joint(preds).sum(0), n/1500, atol=1e-5)
    assert np.allclose(label_joint(preds, 'confident_learning').sum(0), n/1500)
    preds.verified[:] = True
    assert np.allclose(label_joint(preds), np.diag(n/1500))

def test_joint_of_confident_learning_is_cleanlabs():
    from cleanlab.count import estimate_joint
    preds, _ = make(sharp=2.)
    assert np.array_equal(label_joint(preds, 'confident_learning').T, estimate_joint(preds.given_label, preds.pred_probs))

def test_absent_classes_have_empty_columns():
    preds, true = make()
    preds.given_label[preds.given_label == 2] = 1
    J = label_joint(preds)
    assert J[:, 2].sum() == 0 and J[2, 1] > .1
    h = health_summary(preds).set_index('class')
    assert h.n[2] == 0 and np.isnan(h.label_noise[2]) and np.isnan(h.label_quality[2]) and h.index[-1] == 2

# parity with cleanlab's dataset health

def test_health_is_cleanlabs():
    from cleanlab.dataset import rank_classes_by_label_quality
    preds, _ = make(sharp=2., T=PAIR*.8 + .04)
    ours = health_summary(preds, method='confident_learning').set_index('class').sort_index()
    ref = rank_classes_by_label_quality(preds.given_label, preds.pred_probs).set_index('Class Index').sort_index()
    for a, b in dict(label_noise='Label Noise', inverse_noise='Inverse Label Noise', label_quality='Label Quality Score').items(): assert np.allclose(ours[a], ref[b])

def test_overlap_is_cleanlabs():
    from cleanlab.dataset import find_overlapping_classes
    preds, _ = make(sharp=2., T=PAIR*.8 + .04)
    ours = overlapping_classes(preds, method='confident_learning', top=None)
    ref = find_overlapping_classes(preds.given_label, preds.pred_probs).set_index(['Class Index A', 'Class Index B'])['Joint Probability']
    assert len(ours) == len(ref) == 10
    assert np.allclose(ours.joint_probability, [ref[a, b] for a, b in zip(ours.class_a, ours.class_b)])
    assert ours.joint_probability.is_monotonic_decreasing
    directed = find_overlapping_classes(preds.given_label, preds.pred_probs, asymmetric=True).set_index(['Class Index A', 'Class Index B'])['Joint Probability']
    assert np.allclose(ours.a_labelled_b, [directed[b, a]*len(preds) for a, b in zip(ours.class_a, ours.class_b)])   # cleanlab: given A, true B

# the noise rate

@pytest.mark.parametrize('noise', [.02, .1, .3, .5])
def test_interval_holds_the_noise_rate(noise):
    hits, widths = 0, []
    for seed in range(10):
        preds, true = make(noise=noise, seed=seed)
        r = noise_interval(preds)
        hits += r['low'] <= (preds.given_label != true).mean() <= r['high']
        widths.append(r['high'] - r['low'])
        assert r['low'] <= r['rate'] <= r['high']
    assert hits >= 9 and np.mean(widths) < .15

def test_verified_labels_count_as_right():
    preds, true = make(noise=.2)
    before = noise_interval(preds, sharpen=2.)['rate']
    preds.verified[:1000] = True
    assert .4*before < noise_interval(preds, sharpen=2.)['rate'] < .6*before

@pytest.mark.parametrize('rate, n, low, high', [(0, 10, 0, .2775), (.5, 100, .4038, .5962), (1, 10, .7225, 1), (.1, 50, .0435, .2136)])
def test_wilson(rate, n, low, high):
    assert wilson(rate, n) == pytest.approx((low, high), abs=1e-4)   # R: prop.test(x, n, correct=FALSE)

def test_wilson_of_nothing(): assert wilson(0, 0) == (0, 1)

def test_kappa_is_scikit_learns():
    from sklearn.metrics import cohen_kappa_score
    preds, _ = make(sharp=2.)
    a = agreement(preds)
    assert a['kappa'] == pytest.approx(cohen_kappa_score(preds.given_label, preds.predicted_label))
    assert a['kappa_low'] < a['kappa'] and not a['by_chance']

# tables

def test_issues_are_counted_by_class():
    preds, _ = make()
    preds.vocab = ['1', 1, True, 'NA', '']
    d = find_label_issues(preds)
    h = health_summary(preds, d)
    for o in h.itertuples(): assert o.label_issues == sum(repr(g) == repr(o[1]) for g in d.given_label[d.is_label_issue])
    assert sorted(map(repr, h['class'])) == sorted(map(repr, preds.vocab))
    assert health_summary(preds).label_issues.isna().all()

def test_health_orders_by_quality():
    preds, _ = make(T=PAIR)
    h = health_summary(preds)
    assert h['class'][0] == 1 and h.label_quality.is_monotonic_increasing and h.sort_values('inverse_noise')['class'].iloc[-1] == 3

def test_issues_of_another_vocabulary():
    preds, _ = make()
    d = find_label_issues(preds)
    preds.vocab = list('abcde')
    with pytest.raises(ValueError, match='name a class'): health_summary(preds, d)

@pytest.mark.parametrize('top', [1, 3, 10, 11, None])
def test_top_pairs(top):
    preds, _ = make(T=PAIR)
    d = overlapping_classes(preds, top=top)
    assert len(d) == min(top or 10, 10) and (d.class_a[0], d.class_b[0]) == (1, 3)
    assert d.b_labelled_a[0] > 10*d.a_labelled_b[0]
    assert d.set_index(['class_a', 'class_b']).index.is_unique

# the summary

def test_summary_has_what_the_file_promises():
    preds, true = make(T=PAIR)
    preds.split[1500:] = 'valid'; preds.vocab = ['NA', '1', 1, 'x', 'y']; preds.meta['learner'] = 'net'
    d = find_label_issues(preds)
    s = summarise(preds, d, settings=dict(seed=3))
    assert json.loads(json.dumps(s)) == to_jsonable(s)
    assert (s['n'], s['K'], s['labelled'], s['items']) == (2000, 5, 2000, dict(train=1500, valid=500))
    assert s['issues']['total'] == d.is_label_issue.sum() == s['issues']['obvious'] + s['issues']['possible'] == sum(s['issues']['by_split'].values())
    assert set(s['noise_rate']['by_split']) == {'train', 'valid'}
    top = s['noise_matrix'][0]
    assert (top['true'], top['given']) == ('x', '1') and top['probability'] == pytest.approx(.3, abs=.05) and top['items'] == pytest.approx(((true == 3) & (preds.given_label == 1)).sum(), rel=.2)
    assert len(s['noise_matrix']) <= 20 and all(e['true'] != e['given'] or type(e['true']) != type(e['given']) for e in s['noise_matrix'])
    assert s['settings']['learner'] == 'net' and s['settings']['seed'] == 3 and 'numpy' in s['versions']

def test_hundred_largest_entries():
    preds, _ = make(n=4000, K=20)
    e = [o['probability'] for o in summarise(preds, find_label_issues(preds))['noise_matrix']]
    assert len(e) == 100 and e == sorted(e, reverse=True)

def test_good_data_are_sure():
    preds, _ = make(noise=.1)
    s = summarise(preds, find_label_issues(preds))
    assert s['sure'] == 'yes' and not s['doubts'] and 'speak clearly' in s['verdict']

def test_a_total_that_is_uncertain_is_not_called_clear():
    T = np.full((5, 5), .01) + .95*np.eye(5)
    preds, _ = make(n=150, sharp=3, T=T)
    s = summarise(preds, find_label_issues(preds))
    assert s['sure'] == 'yes' and s['noise_rate']['low'] < s['noise_rate']['rate']/2 and CLEAR[False] in s['verdict'] and CLEAR[True] not in s['verdict']

def test_the_noise_matrix_of_a_joint():
    preds, true = make(T=PAIR)
    T = joint_transition(label_joint(preds))
    assert np.allclose(T.sum(1), 1) and np.abs(T - PAIR).max() < .05
    right = preds.given_label == true
    preds.given_label[~right] = true[~right]; preds.verified[:] = True
    s = summarise(preds, find_label_issues(preds))
    assert np.array_equal(joint_transition(label_joint(preds)), np.eye(5)) and not s['noise_matrix']     # what a person has confirmed is right
    assert np.array_equal(joint_transition(np.diag([.5, .5, 0])), np.eye(3))

def test_chance_says_so():
    preds, _ = make()
    preds.pred_probs[:] = np.random.default_rng(0).permutation(preds.pred_probs)
    s = summarise(preds, find_label_issues(preds))
    assert s['sure'] == 'no' and s['verdict'].startswith('The data cannot tell') and 'chance alone' in s['verdict'] and 'of the 2,000 labels are wrong' not in s['verdict']
    assert (s['noise_rate']['low'], s['noise_rate']['high']) == (0, 1)

def test_a_constant_model_says_so():
    s = summarise(*(lambda p: (p, find_label_issues(p)))(Predictions.from_arrays([0, 1]*100, np.tile([.6, .4], (200, 1)))))
    assert s['sure'] == 'no'

def test_few_items_per_class_say_so():
    preds, _ = make(n=60, K=20)
    s = summarise(preds, find_label_issues(preds))
    assert s['sure'] == 'no' and any('fewer than ten' in o for o in s['doubts'])
    preds, _ = make(n=2000)
    rare = np.flatnonzero(preds.given_label == 4)[5:]
    keep = np.setdiff1d(np.arange(2000), rare)
    s = summarise(preds[keep], find_label_issues(preds[keep]))
    assert s['sure'] == 'partly' and '1 of 5 classes have fewer than ten labelled items (4)' in s['verdict']

def test_clean_labels_and_a_weak_model_say_so():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(5, .2), 5000)
    y = (p.cumsum(1) > rng.random((5000, 1))).argmax(1)
    preds = Predictions.from_arrays(y, p)
    s = summarise(preds, find_label_issues(preds))
    assert s['sure'] == 'partly' and 'depends on how far the model is trusted' in s['verdict'] and s['issues']['range'][0] < s['issues']['total'] < s['issues']['range'][1]

def test_a_class_that_is_mostly_another_says_so():
    T = np.eye(5); T[1] = [.8, .2, 0, 0, 0]; T[0] = [.2, .8, 0, 0, 0]
    preds, _ = make(n=4000, T=T)
    s = summarise(preds, find_label_issues(preds))
    assert s['sure'] == 'partly' and 'Most items labelled 0, 1 seem to be 1, 0' in s['verdict']

def test_in_sample_says_so():
    preds, _ = make()
    preds.meta['in_sample'] = True
    with pytest.warns(match='KFoldLearner'): d = find_label_issues(preds)
    s = summarise(preds, d)
    assert s['sure'] == 'no' and 'KFoldLearner' in s['verdict']

def test_no_issues():
    p = np.full((200, 2), .001); y = np.arange(200) % 2; p[np.arange(200), y] = .999
    s = summarise(*(lambda o: (o, find_label_issues(o)))(Predictions.from_arrays(y, p)))
    assert s['issues']['total'] == 0 and 'None is marked' in s['verdict'] and s['sure'] == 'yes' and s['noise_rate']['low'] == 0

def test_two_items():
    preds = Predictions.from_arrays([0, 1, -1], [[.9, .1], [.2, .8], [.5, .5]])
    s = summarise(preds, find_label_issues(preds))
    assert s['labelled'] == 2 and s['n'] == 3 and s['sure'] == 'no'

# bad input

def test_bad_input():
    preds, _ = make(n=100)
    d = find_label_issues(preds)
    with pytest.raises(ValueError, match='give the whole table'): summarise(preds, d[d.is_label_issue])
    with pytest.raises(ValueError, match='method must be one of'): label_joint(preds, 'cleanlab')
    with pytest.raises(ValueError, match='joint must be'): health_summary(preds, joint=np.eye(4)/4)
    with pytest.raises(ValueError, match='joint must be'): overlapping_classes(preds, joint=np.eye(4)/4)
    for f in (label_joint, noise_interval, health_summary, overlapping_classes):
        if f is not health_summary:
            with pytest.raises(ValueError, match='multi-label'): f(Predictions.from_arrays([[1, 0], [1, 1]], [[.9, .2], [.4, .8]]))
        with pytest.raises(ValueError, match='none of the items'): f(Predictions.from_arrays([-1, -1], np.eye(2)))

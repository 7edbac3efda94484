"A temperature fitted through wrong labels is that of the truth; calibration changes no prediction; uncertainty is by item, whatever the order."
import numpy as np
import pandas as pd
import pytest

from fastclean.calibration import calibrate, fit_temperature, noise_corrected, score_uncertainty, temperature_table
from fastclean.core import InSampleWarning, Predictions
from fastclean.issues import average_predictions, find_label_issues, read_issues, write_issues
from fastclean.transition import sharpen_probs

def simulate(n=3000, K=5, rate=.2, temperature=2., seed=0, pair=False):
    rng = np.random.default_rng(seed)
    p = np.exp(rng.normal(size=(n, K))*2); p /= p.sum(1, keepdims=True)
    true = (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, K - 1)
    given = np.where(rng.random(n) < rate, (true + (1 if pair else rng.integers(1, K, n)))%K, true)
    return Predictions.from_arrays(given, sharpen_probs(p, temperature)), true

def test_by_hand():
    # two classes, logit difference d = log 4, right 2 times in 3: the best probability is 2/3, whose logit is log 2 = d/2, so the temperature is 2
    preds = Predictions.from_arrays([0, 0, 1]*50, np.tile([.8, .2], (150, 1)))
    assert abs(fit_temperature(preds, 'given') - 2) < .01
    assert np.allclose(calibrate(preds, 2.).pred_probs, [[2/3, 1/3]], atol=1e-6)

@pytest.mark.parametrize('rate, pair', [(0, False), (.2, False), (.4, False), (.2, True)])
@pytest.mark.parametrize('temperature', [.7, 2.])
def test_through_the_noise(rate, pair, temperature):
    preds, true = simulate(rate=rate, pair=pair, temperature=temperature)
    truth = fit_temperature(preds, true)
    assert abs(np.log(fit_temperature(preds)/truth)) < .15
    if rate: assert fit_temperature(preds, 'given')/truth > 1.3

def test_soft_targets_are_labels_with_weight():
    preds, true = simulate(300)
    assert abs(fit_temperature(preds, np.eye(5)[true]) - fit_temperature(preds, true)) < 1e-3

def test_items_without_label_have_no_part():
    preds, true = simulate(900)
    y = preds.given_label.copy(); y[::3] = -1
    some = Predictions.from_arrays(y, preds.pred_probs)
    rest = preds[np.flatnonzero(y >= 0)]
    for how in ('given', 'noise'): assert abs(fit_temperature(some, how) - fit_temperature(rest, how)) < 1e-3
    true[::3] = -1
    assert fit_temperature(some, true) == fit_temperature(rest, true[y >= 0])
    assert np.isnan(noise_corrected(some)[::3]).all()
    with pytest.raises(ValueError, match='label to fit'): fit_temperature(Predictions.from_arrays([-1, -1], [[.5, .5]]*2))

def test_confirmed_labels_are_seen_without_noise():
    preds, true = simulate(1500, rate=.4)
    sure = Predictions.from_arrays(true, preds.pred_probs, verified=np.ones(1500, bool))
    assert abs(fit_temperature(sure) - fit_temperature(sure, 'given')) < .01
    assert set(noise_corrected(sure)) <= {0., 1.}

def test_calibrate():
    preds, _ = simulate(200)
    got = calibrate(preds, 3.)
    assert (got.predicted_label == preds.predicted_label).all() and np.allclose(got.pred_probs.sum(1), 1, atol=1e-5)
    assert (got.pred_probs.max(1) < preds.pred_probs.max(1)).all() and list(got.items) == list(preds.items)
    assert calibrate(got, 2.).meta['temperature'] == 6 and 'temperature' not in preds.meta
    for bad in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match='positive'): calibrate(preds, bad)

def test_several_labels_for_an_item():
    rng = np.random.default_rng(0)
    p = rng.random((2000, 3)); y = (rng.random((2000, 3)) < p).astype(int)
    z = np.log(p/(1 - p))
    preds = Predictions.from_arrays(y, 1/(1 + np.exp(-2*z)))
    T = fit_temperature(preds, 'given')
    assert abs(T - 2) < .1 and np.abs(calibrate(preds, T).pred_probs - p).max() < .03
    with pytest.raises(ValueError, match="against='given'"): fit_temperature(preds)

def test_noise_corrected_is_right_on_average():
    preds, true = simulate(20_000, rate=.3)
    right = noise_corrected(preds, 2.)
    assert abs(right.mean() - (preds.predicted_label == true).mean()) < .02
    assert abs((preds.predicted_label == preds.given_label).mean() - (preds.predicted_label == true).mean()) > .1

def test_table():
    preds, true = simulate(5000)
    t = temperature_table(preds, true)
    assert list(t.index) == ['given', 'noise', 'truth'] and t.temperature['noise'] == fit_temperature(preds)
    assert t.after['truth'] < .04 < t.before['truth'] and abs(t.before['noise'] - t.before['truth']) < .03 < t.before['given'] - t.before['truth']
    assert list(temperature_table(preds).index) == ['given', 'noise']

def test_complaints():
    preds, true = simulate(100)
    with pytest.raises(ValueError, match='against'): fit_temperature(preds, 'hope')
    with pytest.raises(ValueError, match='99 rows'): fit_temperature(preds, true[:99])
    inside = Predictions.from_arrays(preds.given_label, preds.pred_probs, meta=dict(in_sample=True))
    with pytest.warns(InSampleWarning): fit_temperature(inside)

def test_uncertainty_by_hand():
    runs = [simulate(200, temperature=t)[0] for t in (1., 2., 4.)]
    u = score_uncertainty(runs)
    tables = [find_label_issues(r).set_index('item').loc[runs[0].items.astype(str)] for r in runs]
    s = np.array([t.label_score for t in tables], dtype=float)
    assert list(u['item']) == list(runs[0].items)
    assert np.allclose(u.score_mean, s.mean(0)) and np.allclose(u.score_sd, np.sqrt(((s - s.mean(0))**2).sum(0)/2))
    assert np.allclose(u.issue_share, np.mean([t.is_label_issue for t in tables], axis=0)) and (u.n_runs == 3).all()
    order = np.random.default_rng(0).permutation(200)
    assert score_uncertainty([runs[0], *[r[order] for r in runs[1:]]]).round(5).equals(u.round(5))
    joined = find_label_issues(runs[0]).merge(u, on='item', how='left')
    assert len(joined) == 200 and joined.score_mean.notna().all()

def test_uncertainty_beside_the_issues(tmp_path):
    runs = [simulate(200, temperature=t)[0] for t in (1., 2., 4.)]
    d = find_label_issues(average_predictions(*runs))
    both, u = score_uncertainty(runs, issues=d), score_uncertainty(runs).set_index('item')
    assert both['item'].equals(d['item']) and list(both.columns) == [*d.columns, 'score_mean', 'score_sd', 'issue_share', 'n_runs']
    assert np.allclose(both.score_sd, u.score_sd[both['item']]) and list(score_uncertainty(runs, issues=both).columns) == list(both.columns)
    assert np.allclose(read_issues(write_issues(both, tmp_path/'i.csv')).score_mean, both.score_mean)

def test_uncertainty_of_several_labels():
    rng = np.random.default_rng(0)
    y = (rng.random((60, 3)) < .4).astype(int)
    runs = [Predictions.from_arrays(y, np.clip(.8*y + .1 + rng.normal(0, .1, y.shape), .01, .99)) for _ in range(2)]
    u = score_uncertainty(runs)
    assert len(u) == 180 and {'item', 'class', 'score_sd'} <= set(u.columns)
    assert find_label_issues(runs[0]).merge(u, on=['item', 'class']).score_mean.notna().all()

def test_uncertainty_refusals():
    a, _ = simulate(50); b, _ = simulate(50, seed=1)
    with pytest.raises(ValueError, match='two or more'): score_uncertainty([a])
    with pytest.raises(ValueError, match='other given labels'): score_uncertainty([a, b])
    with pytest.raises(ValueError, match='other items'): score_uncertainty([a, a[:40]])

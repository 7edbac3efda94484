"Evidence: the nearest believed neighbours under either label, exact, whatever the blocks; and how it is drawn."
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastclean.core import Predictions
from fastclean.evidence import by_suspect, evidence_features, label_evidence, plot_evidence, table_space
from fastclean.issues import find_label_issues
from fastclean.plots import calibration, calibration_error, plot_calibration, plot_confident_joint

def record(n=300, K=4, d=6, seed=0, vocab=None, group=None, noise=.15):
    "Predictions with features that tell the classes apart, and some replaced labels."
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n); g = np.where(rng.random(n) < noise, (y + 1) % K, y)
    p = np.full((n, K), .05/(K - 1)); p[np.arange(n), y] = .95
    preds = Predictions.from_arrays(g, p, vocab or [f'class {k}' for k in range(K)], [f'{i}.png' for i in range(n)], extra=None if group is None else pd.DataFrame(dict(group=group)))
    return preds, rng.normal(size=(n, d)) + 2*np.eye(K, d)[y] + 5, y

def naive(issues, preds, x, k):
    "The same by loops, one suspect at a time."
    x = np.asarray(x, dtype=np.float64) - np.nanmean(np.asarray(x, dtype=np.float64), 0); x = x/np.linalg.norm(x, axis=1, keepdims=True)
    at, ok = {o: i for i, o in enumerate(preds.items)}, dict(zip(issues['item'], ~issues.is_label_issue & issues.given_label.notna()))
    group = preds.extra['group'].to_numpy() if 'group' in preds.extra else np.arange(len(preds))
    for r in issues[issues.is_label_issue].itertuples():
        i = at[r.item]
        for side, label in (('suggested', r.suggested_label), ('given', r.given_label)):
            seen, n = {group[i]}, 0
            sim = x@x[i]
            for j in np.argsort(-sim, kind='stable'):
                if not ok[preds.items[j]] or preds.vocab[preds.given_label[j]] != label or group[j] in seen: continue
                seen.add(group[j]); n += 1
                yield r.item, side, n, preds.items[j], label
                if n == k: break

def rows(e): return list(e[['item', 'side', 'rank', 'neighbour', 'neighbour_label']].itertuples(index=False, name=None))

@pytest.mark.parametrize('k', [1, 3, 40])
@pytest.mark.parametrize('twins', [False, True])
def test_it_is_what_loops_give_whatever_the_blocks(k, twins):
    group = np.random.default_rng(1).integers(0, 60, 300) if twins else None   # five of each: they take many places
    preds, x, _ = record(group=group)
    issues = find_label_issues(preds)
    want = list(naive(issues, preds, x, k))
    for block in (7, 100, 20_000): assert rows(label_evidence(issues, preds, x, k, block=block)) == want
    assert len(want) > 20

def test_only_who_is_believed_speaks():
    preds, x, _ = record()
    preds.given_label[:9] = -1; preds.split[:9] = 'unlabelled'
    issues = find_label_issues(preds)
    e = label_evidence(issues, preds, x)
    by = issues.set_index('item')
    assert not by.is_label_issue[e.neighbour].any() and (by.given_label[e.neighbour].to_numpy() == e.neighbour_label.to_numpy()).all() and not set(e.neighbour) & set(preds.items[:9])
    assert set(e['item']) == set(issues['item'][issues.is_label_issue])

def test_a_class_that_nobody_is_believed_in_has_no_witnesses():
    preds, x, _ = record(60, noise=0)
    preds.given_label[preds.given_label == 2] = 1; preds.given_label[:3] = 2; preds.pred_probs[:3] = [.02, .02, .02, .94]
    issues = find_label_issues(preds, filter_by='predicted_neq_given')
    e = label_evidence(issues, preds, x)
    mine = e[e['item'].isin(preds.items[:3])]
    assert set(mine.side) == {'suggested'} and by_suspect(mine)['0.png']['given'] == []
    assert any('none that is believed' in t.get_text() for t in plot_evidence(issues[issues['item'] == '0.png'], e, load=lambda o: Image.new('RGB', (9, 9))).texts)

def test_some_suspects_and_items_without_features():
    preds, x, _ = record()
    issues = find_label_issues(preds)
    some = issues[issues.is_label_issue][2:5]
    e = label_evidence(issues, preds, x, suspects=some)
    assert list(dict.fromkeys(e['item'])) == some['item'].tolist() and rows(e) == [r for r in naive(issues, preds, x, 3) if r[0] in set(some['item'])]
    lost = x.copy(); lost[::3] = np.nan
    e, gone = label_evidence(issues, preds, lost), set(preds.items[::3])
    assert not (set(e['item']) | set(e.neighbour)) & gone and len(e)

def test_nothing_is_marked():
    preds, x, _ = record(noise=0)
    e = label_evidence(find_label_issues(preds), preds, x)
    assert len(e) == 0 and list(e.columns) == ['item', 'side', 'rank', 'neighbour', 'neighbour_label', 'similarity'] and by_suspect(e) == {}
    assert 'No suspects' in [t.get_text() for t in plot_evidence(find_label_issues(preds), e).texts]

def test_names_that_read_alike():
    preds, x, _ = record(vocab=[1, '1', True, 'x'])
    issues = find_label_issues(preds)
    e, given = label_evidence(issues, preds, x), dict(zip(preds.items, preds.label_names(preds.given_label)))
    assert all(type(a) is type(given[n]) and a == given[n] for n, a in zip(e.neighbour, e.neighbour_label))

def test_memory_is_bounded_by_the_blocks(tmp_path):
    n, d = 60_000, 200
    preds, _, y = record(n, d=4)
    rng = np.random.default_rng(0)
    x = np.lib.format.open_memmap(tmp_path/'x.npy', 'w+', np.float16, (n, d))
    for s in range(0, n, 10_000): x[s:s + 10_000] = rng.normal(size=(len(x[s:s + 10_000]), d)) + np.eye(4, d)[y[s:s + 10_000]]
    issues = find_label_issues(preds)
    few = issues[issues.is_label_issue][:50]
    tracemalloc.start()
    label_evidence(issues, preds, np.load(tmp_path/'x.npy', mmap_mode='r'), suspects=few, block=1000)
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < n*d   # bytes: half of the features as they are on disk, an eighth as they are compared

@pytest.mark.parametrize('bad,said', [(np.zeros((5, 2)), 'a row for each of the 300 items'), (np.zeros(300), 'a row for each')])
def test_features_that_do_not_fit(bad, said):
    preds, _, _ = record()
    with pytest.raises(ValueError, match=said): evidence_features(bad, preds)

def test_what_does_not_belong_together():
    preds, x, _ = record()
    issues = find_label_issues(preds)
    with pytest.raises(ValueError, match='k must be'): label_evidence(issues, preds, x, k=0)
    other = Predictions.from_arrays(preds.given_label, preds.pred_probs, preds.vocab)
    with pytest.raises(ValueError, match='the record has no item'): label_evidence(issues, other, x)
    with pytest.raises(ValueError, match='name a class'): label_evidence(issues, Predictions.from_arrays(preds.given_label, preds.pred_probs, list('abcd'), preds.items), x)

class Folds:
    "As much of FeatureFolds as evidence looks at."
    def __init__(self, items, x, fitted=True): self.items, self.ok, self.map, self.features, self._reduced = items, np.ones(len(items), bool), True, x if fitted else None, x

def test_folds_are_matched_by_name():
    preds, x, _ = record()
    order = np.random.default_rng(0).permutation(300)
    assert np.allclose(evidence_features(Folds(preds.items[order], x[order]), preds), x)
    part = evidence_features(Folds(preds.items[:100], x[:100]), preds)
    assert np.isnan(part[100:]).all() and np.allclose(part[:100], x[:100])
    with pytest.raises(ValueError, match='other items'): evidence_features(Folds(np.array(['x'], dtype=object), x[:1]), preds)
    with pytest.raises(ValueError, match='not fitted'): evidence_features(Folds(preds.items, x, False), preds)

def test_several_labels_for_an_item():
    rng = np.random.default_rng(0)
    y = rng.random((200, 3)) < .4; given = np.where(rng.random(y.shape) < .05, ~y, y)
    preds = Predictions.from_arrays(given.astype(int), np.where(y, .95, .05), ['a', 'b', 'c'])
    x = np.where(y, 3, 0) + rng.normal(size=(200, 3))
    issues = find_label_issues(preds)
    e = label_evidence(issues, preds, x, 2)
    flagged, at = set(zip(issues['item'][issues.is_label_issue], issues['class'][issues.is_label_issue])), {o: i for i, o in enumerate(preds.items)}
    assert not any((n, c) in flagged for n, c in zip(e.neighbour, e['class'])) and all(given[at[n], 'abc'.index(c)] == v for n, c, v in zip(e.neighbour, e['class'], e.neighbour_label))
    assert set(zip(e['item'], e['class'])) == flagged
    said = {t.get_text() for t in plot_evidence(issues, e, load=lambda o: Image.new('RGB', (9, 9)), k=20).texts}
    assert any(o.startswith('labelled no ') for o in said) and any(o in said for o in ('labelled a', 'labelled b', 'labelled c'))

def test_columns_that_tell_weigh_more_and_gaps_do_no_harm():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = np.stack([y + rng.normal(0, .2, 300), rng.normal(size=300), y.astype(float), rng.integers(0, 5, 300), np.full(300, 7.)], 1)
    x[::11, 0] = np.nan; x[::13, 2] = np.nan
    z = table_space(x, np.array([False, False, True, True, False]), np.where(np.arange(300) % 10 == 0, -1, y))
    assert np.isfinite(z).all() and z.std(0)[0] > 5*z.std(0)[2] and z.std(0)[-1] == 0
    multi = table_space(x, np.zeros(5, bool), np.eye(3, dtype=int)[y])
    assert np.isfinite(multi).all()

# Pictures

ODD = ['$x^2$', r'\frac', 'W'*60, '\u202egnp', '猫']

@pytest.mark.parametrize('load', [lambda o: Image.new('RGB', (30, 20), 'teal'), lambda o: 'A text of $some$ words ' * 30, lambda o: {f'column {i} $x$': o*9 for i in range(20)}, lambda o: None, lambda o: 1/0])
def test_it_is_drawn_whatever_there_is_to_see(load):
    preds, x, _ = record(vocab=ODD[:4])
    issues = find_label_issues(preds)
    fig = plot_evidence(issues, label_evidence(issues, preds, x), load=load, k=3, title='$' + 'T'*300)
    fig.canvas.draw()
    W = fig.get_size_inches()[0]*fig.dpi
    assert all(t.get_window_extent().x1 <= W + 1 for t in fig.texts) and len(fig.axes) == 3*(1 + 6)
    assert plot_evidence(issues, label_evidence(issues, preds, x)[:0], load=load, k=1).axes

def test_neighbours_are_shown_in_the_columns_of_the_suspect():
    preds, x, _ = record()
    issues = find_label_issues(preds)
    first = issues['item'][0]
    load = lambda o: {'tells': o} if o == first else {'other': 'hidden', 'tells': o}
    fig = plot_evidence(issues[:1], label_evidence(issues, preds, x), load=load, k=1)
    assert 'hidden' not in {t.get_text() for a in fig.axes for t in a.texts}

# The confident joint and calibration

def test_the_confident_joint_in_numbers():
    C = np.array([[900., 12345, 3], [.2, 10, 0], [7, 2.5e6, 1]])
    said = {t.get_text() for t in plot_confident_joint(C, ['a', 'b', 'c']).axes[0].texts}
    assert {'900', '12k', '3', '10', '7', '2M', '1', ''} == said
    with pytest.raises(ValueError, match='C must be a square'): plot_confident_joint(C[:2])

def test_calibration_by_hand():
    preds = Predictions.from_arrays([0, 0, 1, -1, 1], [[.9, .1], [.85, .15], [.8, .2], [.9, .1], [.3, .7]])
    d = calibration(preds, n_bins=10)
    assert d.n.tolist() == [1, 2, 1] or d.n.sum() == 4
    assert calibration_error(d) == pytest.approx(sum(abs(n*(c - a)) for n, c, a in zip(d.n, d.confidence, d.accuracy))/4)
    one = calibration(preds, n_bins=1)
    assert one.n[0] == 4 and one.confidence[0] == pytest.approx((.9 + .85 + .8 + .7)/4) and one.accuracy[0] == .75
    assert calibration_error(calibration(preds, [1, 1, 1, np.nan, 1], 1)) == pytest.approx(1 - (.9 + .85 + .8 + .7)/4)
    with pytest.raises(ValueError, match='right must have shape'): calibration(preds, [1, 0])

def test_calibration_of_what_is_drawn_from_the_probabilities():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([.3]*4, 40_000)
    y = (p.cumsum(1) < rng.random((len(p), 1))).sum(1).clip(max=3)
    preds = Predictions.from_arrays(y, p)
    assert calibration_error(calibration(preds)) < .01
    many = Predictions.from_arrays((rng.random(p.shape) < p).astype(int), p)
    assert calibration_error(calibration(many)) < .01
    for o in (preds, many):
        fig = plot_calibration(o, o.pred_probs)
        fig.canvas.draw()
        assert any('against the believed labels' in t.get_text() for t in fig.texts)
    with pytest.raises(ValueError, match='none of the items'): plot_calibration(Predictions.from_arrays([-1, -1], [[.5, .5]]*2))
    with pytest.raises(ValueError, match='posterior must have shape'): plot_calibration(preds, p[:9])

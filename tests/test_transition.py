"The noise matrix and the posterior against plain forms and known truth."
import numpy as np
import pytest

from fastclean import transition
from fastclean.core import Predictions
from fastclean.transition import (anchor_transition, confident_joint, estimate_transition, label_likelihood, label_posterior, plausible_sharpening, posterior, posterior_blocks,
                                  sharpen_probs, split_transitions)

def population(n=4000, K=4, rate=.25, seed=0, strength=2.):
    rng = np.random.default_rng(seed)
    T = np.full((K, K), rate/(K - 1)); np.fill_diagonal(T, 1 - rate)
    true = rng.integers(K, size=n)
    given = np.array([rng.choice(K, p=T[k]) for k in true])
    z = strength*(strength*np.eye(K)[true] + rng.normal(size=(n, K)))
    p = np.exp(z - z.max(1, keepdims=True))
    return T, true, given, p/p.sum(1, keepdims=True)

def test_grouped_step_is_the_plain_one():
    _, _, y, p = population(500)
    q, K = sharpen_probs(p, 2.).astype(np.float64), 4
    T, prior = np.full((K, K), .1/3), np.eye(K) + 1/K
    np.fill_diagonal(T, .9)
    for i in range(300):
        w = q*T[:, y].T; w /= w.sum(1, keepdims=True)
        T = prior + np.array([w[y == j].sum(0) for j in range(K)]).T
        T /= T.sum(1, keepdims=True)
        if i < 2: assert np.allclose(estimate_transition(y, p, 2., max_iter=i + 1, tol=0), T, atol=1e-5)
    assert np.allclose(estimate_transition(y, p, 2., tol=1e-6), T, atol=1e-4)

def uneven(n=2000):
    "Classes of very different sizes, of which a few labels, the last among them, are known to be right or wrong."
    _, true, y, p = population(n, K=4, rate=.3)
    keep = np.random.default_rng(1).random(n) < np.array([1, .5, .1, .03])[y]
    true, y, p = true[keep], y[keep], p[keep]
    known = np.where(np.random.default_rng(2).random(len(y)) < .1, true, -1)
    known[-1] = true[-1]
    return y, p, known

def plain_step(T, y, q, known, prior):
    "One step of expectation–maximisation, item by item."
    w = q*T[:, y].T
    w /= w.sum(1, keepdims=True)
    w[known >= 0] = np.eye(len(T))[known[known >= 0]]
    T = prior + np.array([w[y == j].sum(0) for j in range(len(T))]).T
    return T/T.sum(1, keepdims=True)

def test_items_that_are_known_and_classes_of_all_sizes():
    y, p, known = uneven()
    assert (np.unique(y, return_counts=True)[1] > 3).all() and np.bincount(y).max() > 9*np.bincount(y).min()
    q, T = sharpen_probs(p, 2.).astype(np.float64), np.full((4, 4), .1/3)
    np.fill_diagonal(T, .9)
    for i in range(2):
        T = plain_step(T, y, q, known, np.eye(4) + 1/4)
        assert np.allclose(estimate_transition(y, p, 2., max_iter=i + 1, tol=0, known=known), T, atol=1e-5)

def test_a_split_has_its_own_matrix_drawn_to_the_common_one():
    y, p, _ = uneven(6000)
    split = np.where(np.random.default_rng(0).random(len(y)) < .3, 'valid', 'train')
    rec, q, known = Predictions.from_arrays(y, p, split=split), sharpen_probs(p, 2.), np.full(len(y), -1)
    common = estimate_transition(y, p, 2.)
    Ts = split_transitions(rec, sharpen=2., strength=5)
    for s, T in Ts.items(): assert np.allclose(T, plain_step(T, y[split == s], q[split == s], known[split == s], 5*common), atol=1e-3)
    assert not np.allclose(Ts['train'], Ts['valid'], atol=1e-2)

def test_what_both_voices_say_is_the_plain_sum():
    y, p, known = uneven()
    lik, count, answers = transition._voices(y, p, known)
    T, i = None, np.arange(len(y))
    for k, t in enumerate(transition.GRID):
        T = estimate_transition(y, p, t, max_iter=40, known=known, start=None if k == len(lik)//2 else T)   # each half of the grid starts anew
        w = sharpen_probs(p, t)*T[:, y].T
        total, sure = w.sum(1), known >= 0
        assert np.isclose(lik[k], np.log(total).sum(), rtol=1e-4)
        assert np.isclose(answers[k], np.log(np.maximum(w[i, known]/total, .1))[sure].sum(), rtol=1e-4)
        assert k and count[k] >= count[k - 1] or count[k] == (w[i, y]/total < .5).sum()

def test_leaps_end_where_single_steps_do():
    _, _, y, p = population(3000, K=6, rate=.4, strength=1.3)   # a weak model: single steps are slow
    taken = []
    def count(step): return lambda A: taken.append(1) or step(A)
    def one_by_one(step, A, most, tol):
        for _ in range(1000): A = step(A)
        return A
    with pytest.MonkeyPatch.context() as m:
        real = transition._fixed_point
        m.setattr(transition, '_fixed_point', lambda step, *args: real(count(step), *args))
        T = estimate_transition(y, p, 1., tol=1e-5, max_iter=1000)
        m.setattr(transition, '_fixed_point', one_by_one)
        assert np.allclose(T, estimate_transition(y, p, 1.), atol=2e-3)
    assert len(taken) < 200

def test_threads_change_nothing(monkeypatch):
    _, _, y, p = population(n=3000, rate=.2)
    rec = Predictions.from_arrays(y, p)
    def found(threads):
        monkeypatch.setattr(transition, 'threads_for', lambda size: threads)
        return plausible_sharpening(rec), label_posterior(rec), np.concatenate([w for _, w in posterior_blocks(rec, size=100)])
    (one, whole, blocks), (several, *others) = found(1), found(3)
    assert one == several and all(np.array_equal(whole, o) for o in (blocks, *others))

@pytest.mark.parametrize('power', [.5, 2., 4., 6., 20.])
def test_the_posterior_of_impossible_labels_sums_to_one(power):
    "A model that is certain, and a T that says it cannot be so."
    p = np.full((3, 1000), 1e-12); p[0, 3] = p[1, 3] = 1; p[2] = 1/1000
    T = np.full((1000, 1000), 1e-9, np.float32); T[3, 4] = 0; np.fill_diagonal(T, 1)
    w = posterior([4, 3, 7], p, T, power)
    assert np.allclose(w.sum(1), 1, atol=1e-4) and (w >= 0).all()
    assert w.argmax(1).tolist() == [4, 3, 7]

@pytest.mark.parametrize('rate', [.05, .25, .5])
def test_recovers_the_matrix(rate):
    T, _, y, p = population(rate=rate, strength=2.5)
    assert np.abs(estimate_transition(y, p, 1.) - T).max() < .05

def test_posterior_is_bayes():
    w = posterior([1], [[.6, .4]], [[.8, .2], [.3, .7]], sharpen=1)
    assert np.allclose(w, [[.6*.2/(.6*.2 + .4*.7), .4*.7/(.6*.2 + .4*.7)]])

def test_finds_the_wrong_labels_and_their_rate():
    _, true, y, p = population(rate=.2, strength=3.)
    w = label_posterior(y, p, sharpen=1)
    flagged, wrong = w[np.arange(len(y)), y] < .5, y != true
    assert 2*(flagged & wrong).sum()/(flagged.sum() + wrong.sum()) > .9
    assert (w.argmax(1) == true)[flagged & wrong].mean() > .9
    assert abs(1 - w[np.arange(len(y)), y].mean() - wrong.mean()) < .03

def test_order_changes_nothing():
    _, _, y, p = population(800)
    at = np.random.default_rng(1).permutation(800)
    assert np.allclose(label_posterior(y, p)[at], label_posterior(y[at], p[at]), atol=1e-4)

def test_a_split_without_labels_and_classes_without_items():
    _, _, y, p = population(300)
    y = np.where(y == 3, 0, y)
    split = np.where(np.arange(300) < 250, 'train', 'unlabelled')
    y[250:] = -1
    rec = Predictions.from_arrays(y, p, split=split)
    w = label_posterior(rec)
    assert np.isfinite(w).all() and np.allclose(w.sum(1), 1, atol=1e-5)
    assert set(split_transitions(rec)) == {'train', 'unlabelled'}

def test_probabilities_of_zero_and_one():
    w = label_posterior([0, 1, 1, 0], np.array([[1, 0], [0, 1], [1, 0], [1, 0]], float))
    assert np.isfinite(w).all()

def test_two_thousand_classes():
    K = 2_000
    rng = np.random.default_rng(0)
    y = rng.integers(K, size=300)
    p = np.full((300, K), .5/K, np.float32); p[np.arange(300), y] += .5
    w = label_posterior(y, p)
    assert (w.argmax(1) == y).all()

def test_anchors():
    T, true, _, _ = population()
    assert np.allclose(anchor_transition(np.eye(4)[true]@T), T)

# how far to sharpen

def test_blocks_are_the_posterior():
    _, _, y, p = population(1000)
    whole, T = label_posterior(y, p, sharpen=1.5), split_transitions(y, p, 1.5)['train']
    assert np.allclose(whole, posterior(y, p, T, 1.5), atol=1e-6)
    parts = list(posterior_blocks(y, p, sharpen=1.5, size=300))
    assert [at.start for at, _ in parts] == [0, 300, 600, 900] and np.allclose(np.concatenate([w for _, w in parts]), whole)

def test_blocks_with_splits_and_known_labels():
    _, true, y, p = population(1000)
    split = np.where(np.arange(1000) % 3, 'train', 'valid')
    rec = Predictions.from_arrays(y, p, split=split, verified=np.arange(1000) < 10)
    Ts = split_transitions(rec, sharpen=2.)
    w = np.concatenate([b for _, b in posterior_blocks(rec, sharpen=2., size=128)])
    for s in ('train', 'valid'):
        m = (split == s) & (np.arange(1000) >= 10)
        assert np.allclose(w[m], posterior(y[m], p[m], Ts[s], 2.), atol=1e-6)
    assert (w[np.arange(10), y[:10]] == 1).all()

def test_known_labels_are_counted_as_they_are():
    _, true, y, p = population(600, rate=.3)
    T = estimate_transition(y, np.full_like(p, .25), 1., known=true)   # the model knows nothing, a person everything
    realised = np.array([[((true == i) & (y == j)).sum()/(true == i).sum() for j in range(4)] for i in range(4)])
    assert np.abs(T - realised).max() < .02

@pytest.mark.parametrize('power', [.5, 1., 2.])
def test_the_power_undoes_what_was_done(power):
    _, _, y, p = population(rate=.2, strength=2.)
    q = p**(1/power); q /= q.sum(1, keepdims=True)
    s = plausible_sharpening(y, q)
    assert .6*power < s.low < 1.6*power and s.low <= s.best < s.high

def test_the_confident_joint_is_cleanlabs():
    from cleanlab.count import compute_confident_joint
    _, _, y, p = population(1500)
    assert np.abs(confident_joint(y, p) - compute_confident_joint(y, p, calibrate=True).T).max() <= 2   # cleanlab's are whole numbers

def test_the_better_model_explains_the_labels_better():
    _, _, y, p = population(rate=.3)
    worse = .5*p + .5*np.random.default_rng(0).dirichlet(np.ones(4), len(p))
    assert label_likelihood(y, p) > label_likelihood(y, worse) + .02

def test_few_items_get_the_usual_power():
    _, _, y, p = population(15)
    assert plausible_sharpening(y, p) == (1., 2., 3.)
    with pytest.raises(ValueError, match='positive number'): plausible_sharpening(y, p, sharpen=0.)

def test_a_person_who_finds_the_labels_right_makes_it_timid():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(4, .5), 3000)
    y = (p.cumsum(1) > rng.random((3000, 1))).argmax(1).clip(0, 3)
    before = plausible_sharpening(y, p).best
    rec = Predictions.from_arrays(y, p, verified=np.arange(3000) < 200)
    assert plausible_sharpening(rec).best < before/1.5

"What is the same is described alike, in every process; what differs, differently."
import functools, os, subprocess, sys
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from fastclean.losses import ForwardCorrection, MAELoss
from fastclean.identity import as_array, describe, differences, digest

K = 3
def plus(x, k=1): return x + k
def uses_global(x): return x * K
class Scale:
    "The user's own transform."
    power = 1
    def __init__(self, by): self.by, self.seen = by, 0
    def __call__(self, x): self.seen += 1; return x * self.by
class Doubles(Scale):
    def __call__(self, x): return 2 * super().__call__(x)

def make(n):
    def inner(x): return x + n
    return inner

@pytest.mark.parametrize('a, b', [(1, 2), (1, 1.), (1, True), (1, '1'), ([1, 2], [2, 1]), ((1,), [2]), ({'a': 1}, {'a': 2}), (slice(1, 2), slice(1, 3)), (None, 0),
    (np.arange(3), np.arange(3.)), (np.arange(4), np.arange(4).reshape(2, 2)), (np.zeros(2), np.ones(2)), ({1, 2}, {1, 3}), (b'a', 'a'),
    (plus, uses_global), (make(1), make(2)), (functools.partial(plus, k=1), functools.partial(plus, k=2)), (lambda x: x.f(1), lambda x: x.f(2)), (lambda x: x.f(), lambda x: x.g()),
    (Scale(1), Scale(2)), (Scale(1), Doubles(1)), (Scale, Doubles), (Scale(1).__call__, Scale(2).__call__), (len, sum), (pd.DataFrame({'a': [1]}), pd.DataFrame({'a': [2]})),
    (pd.DataFrame({'a': [[1]]}), pd.DataFrame({'a': [[2]]})), (lambda x: x in {'a', 'b'}, lambda x: x in {'a', 'c'}), (lambda x=1: x, lambda x=2: x),
    (ForwardCorrection(np.eye(3)), ForwardCorrection(np.full((3, 3), 1/3))), (MAELoss(), MAELoss(weight=[1, 2])), (MAELoss(weight=[1, 1]), MAELoss(weight=[1, 2])),
    (torch.nn.CrossEntropyLoss(torch.tensor([1., 1])), torch.nn.CrossEntropyLoss(torch.tensor([1., 2])))])
def test_different(a, b): assert describe(a) != describe(b)

@pytest.mark.parametrize('f', [lambda: make(1), lambda: Scale(2), lambda: {'b': 1, 'a': {3, 1, 'x'}}, lambda: functools.partial(plus, k=np.arange(3)), lambda: Scale(2).__call__,
    lambda: pd.DataFrame({'a': [[1], 'b']}), lambda: object(), lambda: os.getcwd, lambda: [Scale(1), (1, 'a')], lambda: np.random.default_rng, lambda: np.array(['a', None], dtype=object)])
def test_same(f): assert describe(f()) == describe(f())

def test_state_is_not_a_setting():
    s = Scale(2); before = describe(s)
    s(1); s(1)
    assert s.seen == 2 and describe(s) == before

def test_a_global_counts():
    global K
    before = describe(uses_global)
    K = 4
    try: assert describe(uses_global) != before
    finally: K = 3

def test_class_values_count():
    before = describe(Scale(1))
    Scale.power = 2
    try: assert describe(Scale(1)) != before
    finally: Scale.power = 1

def test_a_dict_that_grows_when_asked():
    d = defaultdict(int, a=1); before = describe(d); d['b']
    assert describe(d) == before

def test_it_ends():
    loop = []; loop.append(loop)
    a, b = Scale(1), Scale(1); a.by, b.by = b, a
    deep = functools.reduce(lambda d, _: [d], range(500), 1)
    for o in (loop, a, deep): assert len(describe(o)) < 300

def test_long_texts_are_cut_but_differ():
    a, b = describe(list(range(1000))), describe([*range(999), 0])
    assert len(a) < 250 and a != b

def test_same_text_in_another_process():
    code = ("from fastclean.identity import describe\n"
            "def f(x, k={1, 'a', None}): return x in {'p', 'q', 'r', 's'}\n"
            "print(describe([f, {'z', 'y', 'x'}, {'b': 1.5}, len, lambda x: x.fit(3)]))")
    outs = {subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONHASHSEED': str(s)}, capture_output=True, text=True, check=True).stdout for s in range(3)}
    assert len(outs) == 1 and len(outs.pop()) > 50

def test_digest():
    assert digest('a', 'b') != digest('ab') and digest(np.arange(3)) != digest(np.arange(3, dtype=np.int32)) and digest(np.zeros((2, 3)).T) == digest(np.zeros((3, 2)))
    assert digest('\udce9') == digest('\udce9') and len(digest()) == 32 and digest(np.array(1.)) == digest(np.ones(()))

def test_as_array():
    torch = pytest.importorskip('torch')
    assert as_array(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32 and as_array([1, 2]).tolist() == [1, 2]
    assert describe(torch.arange(3)) == describe(np.arange(3)) and describe(torch.Tensor) == 'torch.Tensor'

def test_differences():
    assert differences({'a': 1}, {'a': 1}) == ''
    assert differences({'a': {'b': 1, 'c': 2}}, {'a': {'b': 1}}) == '  a.c: here 2, there (nothing)'
    many = differences({str(i): i for i in range(20)}, {})
    assert many.count('\n') == 6 and many.endswith('and 14 more')
    assert len(differences({'a': 'x' * 5000}, {'a': 'y' * 5000})) < 300

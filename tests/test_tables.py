"Tables of features: how they are written, which columns count, and what they say about wrong labels."
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import average_precision_score

from fastclean.cli import main
from fastclean.core import Predictions
from fastclean.data import read_source
from fastclean.featurefolds import FeatureFolds
from fastclean.heads import table_head
from fastclean.issues import find_label_issues, read_issues
from fastclean.rows import table_dls
from fastclean.tables import as_number, feature_table, find_encoding, read_table, row_evidence, show_rows

def flowers(rate=.1, seed=0, **more):
    "150 flowers, and which of their labels are wrong."
    x, y = load_iris(return_X_y=True)
    rng, names = np.random.default_rng(seed), np.array(['setosa', 'versicolor', 'virginica'])
    wrong = rng.random(len(y)) < rate
    given = np.where(wrong, (y + rng.integers(1, 3, len(y))) % 3, y)
    return pd.DataFrame(x, columns=list('abcd')).assign(species=names[given], **more), wrong

def write(d, path, **kw):
    d.to_csv(path, index=False, **kw)
    return path

def fails(contains, *args, **kw):
    with pytest.raises(ValueError) as e: read_source(*args, **kw)
    assert contains in str(e.value) and '\n' not in str(e.value), str(e.value)

# Reading

@pytest.mark.parametrize('sep', [',', ';', '\t', '|'])
@pytest.mark.parametrize('encoding,found', [('utf-8', 'utf-8'), ('utf-8-sig', 'utf-8'), ('utf-16', 'utf-16'), ('latin-1', 'cp1252')])
def test_encodings_and_separators(tmp_path, sep, encoding, found):
    d, _ = flowers(town=['Köln', 'São "Paulo"', 'two\nlines, one cell', 'Ulm;x', 'a|b']*30)
    f = write(d, tmp_path/'t.csv', sep=sep, encoding=encoding)
    src = read_source(f, label_col='species')
    assert find_encoding(f) == found and src.kind == 'table' and src.cat == ['town'] and list(src.rows) == ['a', 'b', 'c', 'd', 'town']
    assert src.rows.town.tolist() == d.town.tolist() and np.allclose(src.rows.a, d.a)
    assert any('not UTF-8' in o for o in src.settings['notes']) == (found != 'utf-8')

def test_an_encoding_can_be_forced(tmp_path):
    d, _ = flowers(town=['Łódź', 'Ulm', 'Bonn']*50)
    f = write(d, tmp_path/'t.csv', encoding='cp1250')
    assert read_source(f, label_col='species', encoding='cp1250').rows.town.iloc[0] == 'Łódź'
    fails('unknown encoding', f, label_col='species', encoding='klingon')
    fails('cannot be read as a table', f, label_col='species', encoding='utf-8')

def test_bare_quotation_marks_between_tabs(tmp_path):
    (tmp_path/'t.tsv').write_text('text\tlabel\n"so it begins\ta\nthe end" they said\tb\nplain\ta\n')
    assert len(read_table(tmp_path/'t.tsv')) == 3
    (tmp_path/'q.tsv').write_text('text\tlabel\n"two\nlines"\ta\nplain\tb\n')
    assert read_table(tmp_path/'q.tsv').text[0] == 'two\nlines'

@pytest.mark.parametrize('cells,numbers', [('1,5 2 3,25', [1.5, 2, 3.25]), ('1 ? 3', None), ('1e3 -2 inf', [1000, -2, np.nan]), ('2020-01-01 2020-01-02 2020-01-03', [0, 86400, 172800]), ('1 x y', None)])
def test_numbers(cells, numbers):
    x = as_number(pd.Series(cells.split()))
    assert (x is None) == (numbers is None) and (x is None or np.allclose(x - (x[0] if '-01-' in cells else 0), numbers, equal_nan=True))

def test_types_of_a_parquet_file(tmp_path):
    d, _ = flowers(when=pd.date_range('2020-01-01', periods=150, freq='h', tz='UTC'), flag=[True, False]*75, kind=pd.Categorical(list('xyz')*50), whole=pd.array([1, None, 3]*50, dtype='Int64'))
    d.to_parquet(tmp_path/'t.parquet')
    src = read_source(tmp_path/'t.parquet', label_col='species')
    assert src.cat == ['flag', 'kind'] and src.rows.when.dtype == src.rows.whole.dtype == float and src.rows.whole.isna().sum() == 50

# Columns

def test_what_is_left_out_is_said_and_can_be_kept(tmp_path):
    d, _ = flowers(one='x', gone=None, id=range(7, 157), name=[f'n{i}' for i in range(150)], copy=lambda d: d.species, code=lambda d: d.species.map(dict(setosa=5, versicolor=7, virginica=8)))
    f = write(d, tmp_path/'t.csv')
    src = read_source(f, label_col='species')
    assert src.settings['left_out'] == dict(one='constant', gone='constant', id='an identifier', name='nearly every value is different', copy='repeats the label', code='repeats the label')
    assert list(src.rows) == list('abcd')
    assert any("'id' (an identifier)" in o for o in src.settings['notes'])
    kept = read_source(f, label_col='species', cont=['id'], cat=['one'], ignore=['a', 'b'])
    assert {'id', 'one'} <= set(kept.rows) and not {'a', 'b'} & set(kept.rows) and kept.cat == ['one']

def test_another_column_of_class_names_is_a_label(tmp_path):
    d, _ = flowers(.2)
    t = feature_table(d.assign(truth=flowers(0)[0].species)[['a', 'truth']], d.species)
    assert t.left_out == dict(truth='holds the names of the classes')

def test_a_binary_feature_is_no_label():
    t = feature_table(pd.DataFrame(dict(sex=[0, 1]*20, smoker=['no', 'yes', 'no', 'no']*10)), ['ill', 'well', 'ill', 'ill', 'well']*8)
    assert (t.cont, t.cat, t.left_out) == (['sex'], ['smoker'], {})

def test_column_errors(tmp_path):
    d, _ = flowers()
    f = write(d, tmp_path/'t.csv')
    kw = dict(label_col='species')
    fails("there is no column 'x' to take (cat)", f, cat=['x'], **kw)
    fails("is in cat and in cont", f, cat=['a'], cont=['a'], **kw)
    fails('no column is left', f, ignore=list('abcd'), **kw)
    fails('(cont) holds no numbers', write(d.assign(t='x y'.split()*75), tmp_path/'u.csv'), cont=['t'], **kw)
    fails('give label_col', f)
    fails("has no text_col", f, kind='table', text_col='a', **kw)
    fails('give item_col', f, kind='image', **kw)
    fails('every class in column', write(d[:3].assign(species=list('xyz')), tmp_path/'v.csv'), **kw)
    fails('these are no classes', write(d.assign(species=[str(i % 100) for i in range(150)]), tmp_path/'x.csv'), **kw)
    (tmp_path/'y.csv').write_text('a,b,y\n1,2,u\n1,2,3,v\n'); fails('cannot be read as a table', tmp_path/'y.csv')
    (tmp_path/'z.csv').write_text('a,b,y\n1,2,3,u\n1,2,3,v\n'); fails('more cells than the 3 columns', tmp_path/'z.csv')

def test_rows_that_are_one(tmp_path):
    d, _ = flowers()
    twice = write(pd.concat([d, d[:5]]), tmp_path/'t.csv')
    src = read_source(twice, label_col='species')
    assert (src.frame.group[:5].to_numpy() == src.frame.group[150:].to_numpy()).all() and list(src.frame['item']) == [str(i) for i in range(155)]
    few = read_source(write(pd.DataFrame(dict(p=list('xy')*20, q=list('uuvv')*10, y=list('abb')*13 + ['a'])), tmp_path/'u.csv'), label_col='y')
    assert few.frame.group.nunique() == 40     # categories alone are alike by chance

# Finding

def ap(p, wrong):
    i = find_label_issues(p)
    return average_precision_score(wrong[i['item'].astype(int)], -i.label_score)

@pytest.mark.parametrize('head', ['trees', 'boosting', None])
def test_wrong_labels_are_found(tmp_path, head):
    d, wrong = flowers(e=list('xyz')*50)
    d.loc[::9, ['b', 'e']] = None
    d.insert(0, 'split', np.resize(['train']*4 + ['valid'], 150)); d.loc[::25, 'split'] = 'unlabelled'
    src = read_source(write(d, tmp_path/'t.csv'), label_col='species')
    p = FeatureFolds(table_dls(src), head=head).predictions()
    assert len(p) == 150 and set(p.items) == {str(i) for i in range(150)} and list(np.unique(p.split)) == ['train', 'unlabelled', 'valid']
    at = p.items.astype(int)
    assert all((p.vocab[y] if y >= 0 else None) == (d.species[i] if d.split[i] != 'unlabelled' else None) for i, y in zip(at, p.given_label))
    assert ap(p[p.given_label >= 0], wrong) > (.7 if head == 'boosting' else .9)

@pytest.mark.slow
def test_no_row_sees_its_own_label(tmp_path):
    d, _ = flowers()
    f = lambda d: FeatureFolds(table_dls(read_source(write(d, tmp_path/'t.csv'), label_col='species')), rounds=2)
    kf = f(d).fit()
    held = np.flatnonzero(kf.fold == 0)
    before = kf._fold(0)['held']
    kf.y[held] = (kf.y[held] + 1) % 3
    kf._prepare()
    assert np.array_equal(kf._fit_fold(0)['1/held'], before if kf.used_rounds == 1 else kf._fold(0, 1)['held'])

def test_table_head():
    assert type(table_head([True, False], 100)).__name__ == 'ExtraTreesClassifier' and type(table_head([True], 10**6)).__name__ == 'HistGradientBoostingClassifier'
    with pytest.raises(ValueError, match="'trees', 'boosting' or"): table_head([True], 5, 'forest')

def test_more_categories_than_boosting_can_take(tmp_path):
    d, wrong = flowers(seed=1)
    d = pd.concat([d]*4, ignore_index=True).assign(town=[f't{i % 400}' for i in range(600)])
    p = FeatureFolds(table_dls(read_source(write(d, tmp_path/'t.csv'), label_col='species', cat=['town'])), head='boosting').predictions()
    assert len(p) == 600

def test_rows_are_shown_by_what_speaks_for_the_suggestion():
    x, y = load_iris(return_X_y=True, as_frame=True)
    e = row_evidence(x, y, [0], [1], [0], 3)[0]
    assert e.argmax() in (2, 3) and e.min() < e.max()
    issues = pd.DataFrame(dict(item=['0', '1'], is_label_issue=[True, False], given_label='b', suggested_label='a'))
    shown = show_rows(x.set_axis(map(str, x.index)), y, issues, ['a', 'b', 'c'], columns=2)
    assert list(shown) == ['0'] and len(shown['0']) == 2 and next(iter(shown['0'])).startswith('petal')

# The command line

def test_find_in_a_table(tmp_path, capsys):
    d, wrong = flowers(id=range(150))
    before = write(d, tmp_path/'t.csv').read_bytes()
    args = ['find', str(tmp_path/'t.csv'), '--label-col', 'species', '--out', str(tmp_path/'out')]
    assert main([*args, '--ignore', 'a, b', '--cat', 'd']) == 0
    said = capsys.readouterr().out
    assert 'read as a table of features' in said and '1 number (c) and 1 category (d)' in said and "left out: 'id' (an identifier)" in said
    issues, report = read_issues(tmp_path/'out'/'issues.csv'), (tmp_path/'out'/'report.html').read_text()
    assert len(issues) == 150 and issues.is_label_issue.any() and '<table class="compared">' in report and '--label-col species' in report and (tmp_path/'out'/'suspects.png').exists()
    assert (tmp_path/'t.csv').read_bytes() == before and 'done already' not in said
    d.loc[3, 'c'] = 9.9; write(d, tmp_path/'t.csv')
    assert main([*args, '--ignore', 'a, b', '--cat', 'd']) == 2 and 'other settings (items)' in capsys.readouterr().err   # another value is another table
    for more, words in ((['--size', '32'], '--size is for images'), (['--head', 'forest'], "'trees', 'boosting'"), (['--cat', 'zz'], '--cat'), (['--kind', 'sound'], "'image', 'text' or 'table'")):
        assert main(['find', str(tmp_path/'t.csv'), '--label-col', 'species', '--out', str(tmp_path/'x'), *more]) == 2
        err = capsys.readouterr().err.strip().splitlines()[-1]
        assert words in err, err

@pytest.mark.slow
def test_finetune_a_table(tmp_path):
    d, wrong = flowers(e=list('xyz')*50)
    d.loc[::9, 'b'] = None
    write(d, tmp_path/'t.csv')
    assert main(['find', str(tmp_path/'t.csv'), '--label-col', 'species', '--out', str(tmp_path/'out'), '--mode', 'finetune', '--n-splits', '3']) == 0
    p = Predictions.load(tmp_path/'out'/'predictions')
    assert set(p.fold) == {0, 1, 2} and ap(p, wrong) > .5 and 'tabular' in p.meta['learner'].lower()

def test_find_label_issues_of_tabular_dataloaders():
    from fastai.tabular.all import Categorify, FillMissing, Normalize, TabularDataLoaders
    import fastclean.find
    d, wrong = flowers(e=list('xyz')*50)
    d.loc[::9, 'b'] = None; d.index = [f'flower {i}' for i in range(150)]
    dls = TabularDataLoaders.from_df(d, procs=[FillMissing, Categorify, Normalize], cat_names=['e'], cont_names=list('abcd'), y_names='species', bs=16)
    issues = dls.find_label_issues()
    assert set(issues['item']) == set(d.index) and set(issues['split']) == {'train', 'valid'}
    assert average_precision_score(wrong[[int(o.split()[1]) for o in issues['item']]], -issues.label_score) > .9

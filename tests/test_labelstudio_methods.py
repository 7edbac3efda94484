"""How the Label Studio backend trains: every method on a small project, going on after a kill, and what cannot be."""
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fastprogress import fastprogress
from PIL import Image

from fastclean.data import Source
from fastclean.labelstudio.backend import Trainer
from fastclean.labelstudio.how import How, NotYet, WAYS, check_enough
from fastclean.labelstudio.methods import _with_probs, finished, judge, predict_project
from fastclean.labelstudio.server import status_page
from fastclean.labelstudio.state import State
from fastclean.labelstudio.work import ProjectData, train_project

SMALL = dict(folds=How(), recipe=How('recipe', 2, 'small_net'), dividemix=How('dividemix', 4), instancegm=How('instancegm', 4))

@pytest.fixture(autouse=True)
def no_bars(monkeypatch): monkeypatch.setattr(fastprogress, 'NO_BAR', True)

@pytest.fixture
def project(tmp_path):
    "Pictures of sand and sea: 50 labels, 5 of them wrong, 6 more pictures without a label."
    rng, n = np.random.default_rng(0), 56
    true = np.array(['sand', 'sea'], dtype=object)[np.arange(n) % 2]
    given = true.copy()
    given[:5], given[50:] = np.where(true[:5] == 'sea', 'sand', 'sea'), None
    (tmp_path/'files').mkdir()
    for i, o in enumerate(true): Image.fromarray((rng.integers(0, 100, (32, 32, 3)) + dict(sand=(120, 90, 0), sea=(0, 60, 130))[o]).astype(np.uint8)).save(tmp_path/'files'/f'{i}.png')
    items = [str(i) for i in range(n)]
    frame = pd.DataFrame(dict(item=items, path=[f'{i}.png' for i in items], split=['train']*50 + ['unlabelled']*6, given_label=pd.Series(given, dtype=object), group=range(n)))
    said = pd.DataFrame({'1': given}, index=items, dtype=object)
    data = ProjectData(Source(tmp_path/'files', frame, ['sand', 'sea'], 'image', {}, None), dict(zip(items, frame.path)), {i: f'{i}.png' for i in items}, [], {}, said)
    return data, true

def train(data, folder, how, stop=None):
    "Issues, and what was said; it is interrupted where something is said that ends with `stop`."
    stages = []
    def at(stage, done):
        stages.append(stage)
        assert 0 <= done <= 1
        if stop and stage.endswith(stop): raise KeyboardInterrupt
    return *train_project(data, folder, how, at)[:2], stages

@pytest.mark.parametrize('method', WAYS)
@pytest.mark.slow
def test_every_method_predicts_everything(method, project, tmp_path):
    data, true = project
    preds, issues, stages = train(data, tmp_path, SMALL[method])
    assert sorted(issues['item']) == sorted(data.names) and issues.suggested_prob.between(0, 1).all() and issues.label_score.isna().sum() == 6
    assert set(issues['item'][issues.given_label.isna()]) == {str(i) for i in range(50, 56)} and not issues.is_label_issue[issues.given_label.isna()].any()
    of = dict(zip(issues['item'].astype(int), issues.suggested_label))
    assert sum(of[i] == true[i] for i in range(50, 56)) >= 5
    right = issues[issues['item'].astype(int).between(5, 49) & issues.label_score.notna()]
    assert right.is_label_issue.mean() < .3
    told = [o for o in stages if 'epoch' in o]
    assert told == dict(folds=[], recipe=[f'fold {k} of 5, epoch {e} of 2' for k in range(1, 6) for e in (1, 2)]).get(method, [f'training, epoch {e} of 4' for e in range(1, 5)])

def test_the_division_says_how_probable_a_label_is(project, tmp_path):
    data, true = project
    preds, division = predict_project(data, tmp_path, SMALL['dividemix'])
    assert len(division) == 40 and set(division['split']) == {'train'} and division.label_score.between(0, 1).all()   # a fifth is held out
    assert preds.meta['temperature'] >= 1   # ten held-out labels cannot say that the networks are too timid
    p = dict(zip(preds.items.astype(str), preds.pred_probs))
    for d in (division, _with_probs(division.assign(suggested_prob=1.), preds)): assert all(abs(p[r.item][preds.vocab.index(r.suggested_label)] - r.suggested_prob) < 1e-6 for r in d.itertuples())
    issues = judge(preds, division).set_index('item')
    same = division.set_index('item').label_score
    assert np.allclose(issues.label_score[same.index].astype(float), same.astype(float)) and len(issues) == 56

@pytest.mark.slow
def test_what_people_agree_on_is_judged_by_itself(project, tmp_path):
    data, _ = project
    preds, division = predict_project(data, tmp_path, SMALL['dividemix'])
    item = division['item'][0]
    i = list(preds.items.astype(str)).index(item)
    preds.given_label[i] = 1 - preds.given_label[i]
    row = judge(preds, division).set_index('item').loc[item]
    assert row.given_label == preds.vocab[preds.given_label[i]] and row.label_score != division.label_score[0]

def test_confirmed_labels_are_no_issues(project, tmp_path):
    data = replace(project[0], confirmed=[str(i) for i in range(50)])
    for method in ('recipe', 'dividemix'): assert not train(data, tmp_path, SMALL[method])[1].is_label_issue.any()

@pytest.mark.slow
def test_two_networks_go_on_with_the_next_epoch(project, tmp_path):
    data, _ = project
    whole = train(data, tmp_path/'a', SMALL['dividemix'])[1]
    with pytest.raises(KeyboardInterrupt): train(data, tmp_path/'b', SMALL['dividemix'], 'epoch 2 of 4')
    _, issues, stages = train(data, tmp_path/'b', SMALL['dividemix'])
    pd.testing.assert_frame_equal(issues, whole)
    file, = (tmp_path/'b'/'unfinished').rglob('training.pth')
    stamp = file.stat().st_mtime_ns
    train(data, tmp_path/'b', SMALL['dividemix'])       # Label Studio was away at the end: nothing is trained again
    assert file.stat().st_mtime_ns == stamp
    finished(tmp_path/'b'); assert not file.exists()

@pytest.mark.slow
def test_folds_go_on_with_the_next_epoch(project, tmp_path):
    data, _ = project
    whole = train(data, tmp_path/'a', SMALL['recipe'])[1]
    with pytest.raises(KeyboardInterrupt): train(data, tmp_path/'b', SMALL['recipe'], 'fold 2 of 5, epoch 1 of 2')
    _, issues, stages = train(data, tmp_path/'b', SMALL['recipe'])
    assert not any('fold 1 of 5, epoch' in o for o in stages)
    pd.testing.assert_frame_equal(issues, whole)

@pytest.mark.slow
def test_other_labels_begin_anew(project, tmp_path):
    data, _ = project
    with pytest.raises(KeyboardInterrupt): train(data, tmp_path, SMALL['dividemix'], 'epoch 2 of 4')
    first, = (tmp_path/'unfinished').iterdir()
    data.src.frame.loc[9, 'given_label'] = 'sand'
    train(data, tmp_path, SMALL['dividemix'])
    assert not first.exists() and len(list((tmp_path/'unfinished').iterdir())) == 1

@pytest.mark.parametrize('method', WAYS)
@pytest.mark.slow
def test_images_that_cannot_be_read_are_left_out(method, project, tmp_path):
    data, _ = project
    for i, content in ((7, b''), (8, b'no image'), (51, b'\x89PNG\r\n\x1a\n')): (tmp_path/'files'/f'{i}.png').write_bytes(content)
    preds, issues, _ = train(data, tmp_path, replace(SMALL[method], epochs=SMALL[method].epochs and 2))
    assert sorted(preds.meta['unreadable']) == ['51', '7', '8'] and len(issues) == 53

def test_what_cannot_be_trained(project):
    src = project[0].src
    few = replace(src, frame=src.frame.assign(given_label=src.frame.given_label.where(src.frame.index < 30)))
    check_enough(few, How())
    with pytest.raises(NotYet, match='30 of 2 classes are there, 40 of two classes are needed, 10 of each, for --method recipe'): check_enough(few, SMALL['recipe'])
    with pytest.raises(ValueError, match='about texts: serve it with --method folds'): check_enough(replace(src, kind='text'), SMALL['dividemix'])

def test_another_method_trains_anew_and_is_named(tmp_path):
    state = State(tmp_path)
    state.publish(1, [(1, 'a', 'a', 'b', .9, True)], dict(issues=1, labelled=1, method='folds'))
    state.publish(2, [(1, 'a', 'a', 'b', .9, True)], dict(issues=1, labelled=1, method='dividemix'))
    assert 'fastclean-1 by folds' in status_page(state) and 'fastclean-1 by dividemix' in status_page(state)
    t = Trainer(state, how=How('dividemix'))
    t._stop.set()   # nothing is begun
    t.start()
    assert [o['requested'] for o in state.projects()] == [1, 0]

"`fastclean train`, as a user types it."
import json, os, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastai.learner import load_learner
from PIL import Image

from fastclean.cli import main
from fastclean.data import digits_sample, read_source
from fastclean.inject import noisy_copy
from fastclean.issues import COLUMNS, read_issues
from fastclean.methods import METHODS
from fastclean.noise import SymmetricNoise
from fastclean.trainrun import hold_out, plot_history, true_labels

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')

@pytest.fixture(scope='module')
def noisy(tmp_path_factory):
    "360 digits, a folder per class, a third of the labels wrong."
    src, some = digits_sample(tmp_path_factory.mktemp('all')/'digits'), tmp_path_factory.mktemp('some')
    for f in sorted(src.rglob('*.png'))[::5]:
        (some/f.parent.name).mkdir(exist_ok=True)
        (some/f.parent.name/f.name).write_bytes(f.read_bytes())
    dst = tmp_path_factory.mktemp('noisy')/'digits'
    noisy_copy(some, dst, SymmetricNoise(.33), seed=1)
    return dst

@pytest.fixture(scope='module')
def cache(tmp_path_factory): return tmp_path_factory.mktemp('features')

def train(src, out, *args): return main(['train', str(src), '--out', str(out), *map(str, args)])
def fails(capsys, *args):
    capsys.readouterr()
    assert main(['train', *map(str, args)]) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith('fastclean: ') and '\n' not in err, err
    return err
def summary(out): return json.loads((out/'summary.json').read_text())
FAST = ['--size', '32', '--epochs', '3']

def test_it_leaves_what_it_promises(noisy, cache, tmp_path, capsys):
    out = tmp_path/'out'
    assert train(noisy, out, '--cache', cache, *FAST) == 0
    said = capsys.readouterr().out
    assert 'epoch 3 of 3' in said and 'load_learner' in said and 'by their true labels' in said
    s, h = summary(out), pd.read_csv(out/'history.csv')
    assert s['method'] == 'clean-retrain' and s['valid_labels'] == 'true' and s['held_out'] and s['n'] + s['n_valid'] == 360 and s['K'] == 10
    assert len(h) == 3 and h.accuracy.iloc[-1] == pytest.approx(s['accuracy'], abs=1e-4) and s['low'] <= s['accuracy'] <= s['high']
    assert Image.open(out/'history.png').size[0] > 600
    assert not list((out/'.work').glob('training*'))
    before = {f: f.read_bytes() for f in out.iterdir() if f.is_file()}
    assert train(noisy, out, '--cache', cache, *FAST) == 0 and 'done already' in capsys.readouterr().out
    assert before == {f: f.read_bytes() for f in out.iterdir() if f.is_file()}
    assert 'other settings (epochs)' in fails(capsys, noisy, '--out', out, '--size', 32, '--epochs', 4)
    assert train(noisy, out, '--cache', cache, '--size', 32, '--epochs', 4, '--force') == 0 and len(pd.read_csv(out/'history.csv')) == 4

@pytest.mark.slow
def test_the_exported_learner_predicts_files_as_the_training_saw_them(noisy, cache, tmp_path):
    src = hold_out(read_source(noisy))
    for mode, epochs in dict(features=12, finetune=12).items():
        assert train(noisy, tmp_path/mode, '--mode', mode, '--method', 'gce', '--cache', cache, '--size', 32, '--epochs', epochs) == 0
        learn, s = load_learner(tmp_path/mode/'export.pkl'), summary(tmp_path/mode)
        valid = src.frame[src.frame.split == 'valid']
        files = [noisy/o for o in valid.path]
        with learn.no_bar(), learn.no_logging(): p = learn.get_preds(dl=learn.dls.test_dl(files))[0].numpy()
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-4)
        true = true_labels(src, noisy).reindex(valid['item']).to_numpy()
        assert abs((np.array(learn.dls.vocab, dtype=object)[p.argmax(1)] == true).mean() - s['accuracy']) < .03
        with learn.no_bar(), learn.no_logging(): label, k, probs = learn.predict(str(files[0]))
        assert label == learn.dls.vocab[int(k)] and np.allclose(probs.numpy(), p[0], atol=1e-3)

def test_no_item_is_trained_on_and_judged_by(noisy):
    src = read_source(noisy)
    for o in (hold_out(src), hold_out(src, .5), hold_out(src, .1, seed=3)):
        f = o.frame
        assert set(f['item'][f.split == 'valid']).isdisjoint(f['item'][f.split == 'train']) and len(f) == len(src)
    assert (src.frame.split == 'train').all()                               # the source stays as it is
    assert (hold_out(src, .5).frame.split == 'valid').sum() == pytest.approx(180, abs=12)
    groups = np.arange(360)//4
    f = hold_out(src, .25, groups=groups).frame
    assert all(len(set(f.split[groups == g])) == 1 for g in set(groups))
    with pytest.raises(ValueError, match='valid_pct'): hold_out(src, .9)

def test_copies_of_a_file_are_held_out_together(noisy, cache, tmp_path):
    import shutil
    shutil.copytree(noisy, tmp_path/'twice')
    for f in list((tmp_path/'twice').glob('*/*.png')): shutil.copy(f, f.with_name('copy_' + f.name))
    (tmp_path/'twice'/'noise.json').unlink()
    from fastclean.cli import _copies
    src = read_source(tmp_path/'twice')
    f = hold_out(src, .2, _copies(src, src.frame, 5)).frame
    name = f.path.str.replace('copy_', '')
    assert (f.groupby(name).split.nunique() == 1).all() and (f.split == 'valid').any()

def test_validation_items_of_the_source_are_used(noisy, cache, tmp_path, capsys):
    src = read_source(noisy)
    d = pd.DataFrame(dict(path=src.frame.path, label=src.frame.given_label, is_valid=np.arange(360) % 4 == 0))
    (tmp_path/'t').mkdir(); d.to_csv(tmp_path/'t'/'labels.csv', index=False)
    assert train(tmp_path/'t'/'labels.csv', tmp_path/'out', '--root', noisy, '--label-col', 'label', '--cache', cache, *FAST) == 0
    s = summary(tmp_path/'out')
    assert (s['n_valid'], s['valid_labels'], s['held_out']) == (90, 'given', False) and 'held out' not in capsys.readouterr().out

@pytest.mark.parametrize('method', METHODS)
@pytest.mark.slow
def test_every_method(noisy, cache, tmp_path, method):
    two = METHODS[method].course == 'two'
    assert train(noisy, tmp_path/'out', '--method', method, '--mode', 'finetune' if two else 'features', '--cache', cache, '--size', 32, '--epochs', 2) == 0
    if two:
        issues = read_issues(tmp_path/'out'/'issues.csv')
        assert list(issues.columns) == list(COLUMNS) and len(issues) == 288 and Image.open(tmp_path/'out'/'division.png').size[0] > 600
    s = summary(tmp_path/'out')
    assert s['method'] == method and s['about'] == METHODS[method].about and 0 <= s['accuracy'] <= 1 and len(pd.read_csv(tmp_path/'out'/'history.csv')) == 2
    assert type(load_learner(tmp_path/'out'/'export.pkl').loss_func).__name__ == 'CrossEntropyLossFlat'

@pytest.mark.slow
def test_predictions_of_an_earlier_search(noisy, cache, tmp_path, capsys):
    assert main(['find', str(noisy), '--out', str(tmp_path/'found'), '--size', '32', '--rounds', '1', '--cache', str(cache)]) == 0
    assert train(noisy, tmp_path/'a', '--found', tmp_path/'found', '--mode', 'finetune', '--method', 'soft', '--size', 16, '--epochs', 2) == 0
    assert not (tmp_path/'a'/'.work'/'folds').exists()                      # nothing was predicted again
    assert 'not a result' in fails(capsys, noisy, '--found', tmp_path, '--out', tmp_path/'b')
    other = digits_sample(tmp_path/'other')
    assert 'another source' in fails(capsys, other, '--found', tmp_path/'found', '--out', tmp_path/'b')

def test_bad_input(noisy, tmp_path, capsys):
    o = ['--out', tmp_path/'o']
    assert 'SRC is missing' in fails(capsys)
    assert 'is not there' in fails(capsys, tmp_path/'none', *o)
    assert '--method must be one of plain' in fails(capsys, noisy, '--method', 'x', *o)
    assert '--mode' in fails(capsys, noisy, '--mode', 'x', *o)
    assert '--epochs must be 1 or more' in fails(capsys, noisy, '--epochs', 0, *o)
    assert '--lr' in fails(capsys, noisy, '--lr', -1, *o)
    assert '--valid-pct' in fails(capsys, noisy, '--valid-pct', .9, *o)
    assert '--track' in fails(capsys, noisy, '--track', 'x', *o)
    assert '--augment' in fails(capsys, noisy, '--augment', *o)
    assert 'no file' in fails(capsys, noisy, '--weights', tmp_path/'w.pth', *o)
    assert 'is for images' in fails(capsys, noisy, '--method', 'dividemix', '--mode', 'features', *o)
    assert 'two steps' in fails(capsys, noisy, '--method', 'joint', '--epochs', 1, '--mode', 'finetune', *o)
    assert 'two steps' in fails(capsys, noisy, '--method', 'joint', '--epochs', 1, *o) and not (tmp_path/'o').exists()
    (tmp_path/'full').mkdir(); (tmp_path/'full'/'x').write_text('mine')
    assert 'not empty' in fails(capsys, noisy, '--out', tmp_path/'full')
    assert (tmp_path/'full'/'x').read_text() == 'mine'

def test_list(capsys):
    assert main(['train', '--method', 'list']) == 0
    said = capsys.readouterr().out
    assert all(k in said and m.about in said for k, m in METHODS.items())

def test_images_that_cannot_be_read_are_left_out(noisy, cache, tmp_path, capsys):
    import shutil
    shutil.copytree(noisy, tmp_path/'broken')
    for f in sorted((tmp_path/'broken').glob('*/*.png'))[::40]: f.write_bytes(f.read_bytes()[:60])
    for mode in ('features', 'finetune'):
        assert train(tmp_path/'broken', tmp_path/mode, '--mode', mode, '--method', 'plain', *FAST) == 0
        s = summary(tmp_path/mode)
        assert len(s['unreadable']) == 9 and s['n'] + s['n_valid'] == 351 and '9 items could not be read' in capsys.readouterr().out

@pytest.mark.slow
def test_texts_and_tables(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = rng.choice(['good', 'bad'], 240)
    d = pd.DataFrame(dict(review=[f'the film was {rng.choice(["great", "lovely", "fine"]) if o == "good" else rng.choice(["awful", "dull", "poor"])}, take {i}' for i, o in enumerate(y)], label=y))
    d.to_csv(tmp_path/'reviews.csv', index=False)
    assert train(tmp_path/'reviews.csv', tmp_path/'texts', '--text-col', 'review', '--label-col', 'label', '--method', 'plain') == 0
    learn = load_learner(tmp_path/'texts'/'export.pkl')
    with learn.no_bar(), learn.no_logging(): assert learn.predict('what a lovely and great film')[0] == 'good' and learn.predict('an awful, dull film')[0] == 'bad'
    assert (tmp_path/'texts'/'export.pkl').stat().st_size < 1e6             # the model of sentences stays where it is
    assert summary(tmp_path/'texts')['accuracy'] > .8
    t = pd.DataFrame(dict(age=rng.normal(50, 9, 240).round(1), dose=np.where(y == 'good', 1., 2.) + rng.normal(0, .3, 240), sex=rng.choice(['m', 'f'], 240), label=y))
    t.to_csv(tmp_path/'table.csv', index=False)
    assert train(tmp_path/'table.csv', tmp_path/'table', '--label-col', 'label', '--method', 'soft', '--epochs', 10) == 0
    learn = load_learner(tmp_path/'table'/'export.pkl')
    with learn.no_bar(), learn.no_logging(): row, k, p = learn.predict(t.iloc[0])
    assert p.shape == (2,) and summary(tmp_path/'table')['accuracy'] > .8
    assert 'a network is trained' in fails(capsys, tmp_path/'table.csv', '--label-col', 'label', '--mode', 'features', '--out', tmp_path/'x')
    assert 'is for images' in fails(capsys, tmp_path/'table.csv', '--label-col', 'label', '--size', 32, '--out', tmp_path/'x')

@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_end(noisy, cache, tmp_path):
    args = ['--mode', 'finetune', '--method', 'elr', '--size', '24', '--epochs', '6']
    assert train(noisy, tmp_path/'whole', *args) == 0
    code = 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))'
    run = lambda: subprocess.Popen([sys.executable, '-c', code, 'train', str(noisy), '--out', str(tmp_path/'killed'), *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept, kills = tmp_path/'killed'/'.work'/'training.pth', 0
    for epochs in (1, 4):
        p = run()
        while p.poll() is None and not (kept.exists() and (tmp_path/'killed'/'history.csv').exists() and len(pd.read_csv(tmp_path/'killed'/'history.csv')) >= epochs): time.sleep(.02)
        if p.poll() is None: os.kill(p.pid, signal.SIGKILL); kills += 1
        p.wait()
    assert kills and run().wait() == 0
    a, b = (pd.read_csv(tmp_path/o/'history.csv') for o in ('whole', 'killed'))
    pd.testing.assert_frame_equal(a, b)
    x, y = (load_learner(tmp_path/o/'export.pkl').model.state_dict() for o in ('whole', 'killed'))
    assert all((x[k] == y[k]).all() for k in x)

@pytest.mark.slow
def test_a_tracker_that_is_not_logged_in(noisy, cache, tmp_path):
    "In a process of its own: wandb remembers who it was asked to be."
    pytest.importorskip('wandb')
    env = {k: v for k, v in os.environ.items() if not k.startswith('WANDB')} | dict(HOME=str(tmp_path), WANDB_SILENT='true', WANDB_CONFIG_DIR=str(tmp_path))
    args = ['train', noisy, '--track', 'wandb', '--method', 'plain', '--cache', cache, '--out', tmp_path/'o']
    r = subprocess.run([sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))', *map(str, args)], capture_output=True, text=True, env=env)
    assert r.returncode == 2 and r.stderr.strip().splitlines()[-1].startswith('fastclean: --track wandb') and 'Traceback' not in r.stderr

@pytest.mark.slow
def test_followed_by_tensorboard_and_wandb(noisy, cache, tmp_path, monkeypatch):
    pytest.importorskip('tensorboard'); pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline'); monkeypatch.setenv('WANDB_SILENT', 'true')
    monkeypatch.setenv('WANDB_API_KEY', 'f'*40)
    for track, found in dict(tensorboard='tensorboard/events*', wandb='wandb/offline*/*.wandb').items():
        assert train(noisy, tmp_path/track, '--track', track, '--method', 'plain', '--cache', cache, *FAST) == 0
        assert list((tmp_path/track).glob(found))
        assert not any(b'f'*40 in f.read_bytes() for f in (tmp_path/track).rglob('*') if f.is_file())

def test_the_plot(tmp_path):
    h = pd.DataFrame(dict(train_loss=[1, .5, .2], valid_loss=[1.1, .9, 1.], accuracy=[.5, .7, .65]))
    fig = plot_history(h, 'on 10 items')
    fig.savefig(tmp_path/'x.png')
    assert [len(ax.lines) for ax in fig.axes] == [1, 2] and list(fig.axes[0].lines[0].get_ydata()) == [.5, .7, .65]

"The command line, as a user types it."
import json, os, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastclean.cli import main
from fastclean.core import Predictions
from fastclean.data import digits_sample
from fastclean.issues import COLUMNS, read_issues

FAST = ['--size', '32', '--rounds', '1']

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "200 digits, a folder per class; every tenth lies in the folder of another class."
    src, dst = digits_sample(tmp_path_factory.mktemp('all')/'digits'), tmp_path_factory.mktemp('some')
    for i, f in enumerate(sorted(src.rglob('*.png'))[::9]):
        c = str((int(f.parent.name) + 1) % 10) if i % 10 == 0 else f.parent.name
        (dst/c).mkdir(exist_ok=True)
        (dst/c/f.name).write_bytes(f.read_bytes())
    return dst

def one_line(capsys):
    err = capsys.readouterr().err.strip()
    assert err.startswith('fastclean: ') and '\n' not in err and 'Traceback' not in err, err
    return err

def fails(capsys, *args):
    assert main(list(map(str, args))) == 2
    return one_line(capsys)

def tree(folder): return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob('*') if f.is_file()}

def test_find_leaves_what_it_promises(folder, tmp_path, capsys):
    before, out = tree(folder), tmp_path/'out'
    assert main(['find', str(folder), '--out', str(out), *FAST]) == 0
    said = capsys.readouterr().out
    assert 'The worst:' in said and 'report.html' in said
    issues, summary, preds = read_issues(out/'issues.csv'), json.loads((out/'summary.json').read_text()), Predictions.load(out/'predictions')
    assert list(issues.columns) == list(COLUMNS) and len(issues) == len(preds) == summary['n'] == 200
    assert {'n', 'K', 'seconds', 'noise_rate', 'noise_matrix', 'issues', 'settings', 'versions', 'verdict', 'unreadable'} <= set(summary)
    assert np.load(out/'predictions'/'posterior.npy').shape == (200, 10) and np.load(out/'predictions'/'noise_matrix.npy').shape == (10, 10)
    assert (out/'model'/'heads.safetensors').stat().st_size > 1000
    assert Image.open(out/'suspects.png').size[0] > 300 and '<html' in (out/'report.html').read_text()
    assert tree(folder) == before
    assert main(['find', str(folder), '--out', str(out), *FAST]) == 0 and 'done already' in capsys.readouterr().out
    assert 'other settings (seed)' in fails(capsys, 'find', folder, '--out', out, '--seed', 7, *FAST)
    assert json.loads((out/'summary.json').read_text()) == summary
    assert main(['find', str(folder), '--out', str(out), '--seed', '7', '--force', *FAST]) == 0

def test_a_cleanlab_filter_and_finetune(folder, tmp_path):
    assert main(['find', str(folder), '--out', str(tmp_path/'a'), '--filter-by', 'prune_by_noise_rate', *FAST]) == 0
    assert main(['find', str(folder), '--out', str(tmp_path/'b'), '--mode', 'finetune', '--epochs', '1', '--size', '16', '--n-splits', '2']) == 0
    assert set(Predictions.load(tmp_path/'b'/'predictions').fold) == {0, 1}

def test_rounds_of_finetune(folder, tmp_path, capsys):
    what = ['find', str(folder), '--out', str(tmp_path/'o'), '--mode', 'finetune', '--epochs', '1', '--size', '16', '--rounds', '2']
    assert '3 or more' in fails(capsys, *what, '--n-splits', '2')
    decided = sorted(folder.rglob('*.png'))[3]
    pd.DataFrame(dict(item=[decided.relative_to(folder).as_posix()], label=[decided.parent.name])).to_csv(tmp_path/'d.csv', index=False)
    assert main([*what, '--n-splits', '3', '--force', '--decisions', str(tmp_path/'d.csv')]) == 0
    preds = Predictions.load(tmp_path/'o'/'predictions')
    assert (preds.meta['max_rounds'], preds.meta['strict']) == (2, True) and len(list((tmp_path/'o').rglob('round2_fold_*.safetensors'))) == 3
    assert list(preds.items[preds.verified]) == [decided.relative_to(folder).as_posix()]

def test_copies_share_a_fold_of_finetune(folder, tmp_path):
    files = sorted(folder.rglob('*.png'))[::4]
    rows = [(f, f.parent.name) for f in files]
    for i, f in enumerate(files[:20]):
        copy = tmp_path/f'copy {i}.png'; copy.write_bytes(f.read_bytes())
        rows.append((copy, f.parent.name))
    pd.DataFrame(rows, columns=['path', 'label']).to_csv(tmp_path/'t.csv', index=False)
    assert main(['find', str(tmp_path/'t.csv'), '--out', str(tmp_path/'o'), '--mode', 'finetune', '--epochs', '1', '--size', '16', '--n-splits', '3']) == 0
    preds = Predictions.load(tmp_path/'o'/'predictions')
    fold = dict(zip((Path(o).name for o in preds.items), preds.fold))
    assert len(fold) == 70 and set(preds.fold) == {0, 1, 2} and all(fold[f'copy {i}.png'] == fold[f.name] for i, f in enumerate(files[:20]))

def test_tables_and_odd_names(folder, tmp_path, capsys):
    files = sorted(folder.rglob('*.png'))
    odd = tmp_path/os.fsdecode(b'caf\xe9 \xff.png'); odd.write_bytes(files[0].read_bytes())
    long = tmp_path/('x'*200 + '.png'); long.write_bytes(files[1].read_bytes())
    link = tmp_path/'link.png'; link.symlink_to(files[2])
    rows = [(os.fsencode(f), f.parent.name.encode()) for f in [*files, odd, long, link, files[3], files[3]]]
    (tmp_path/'t.csv').write_bytes(b'image,label\n' + b''.join(b'"' + f + b'",' + c + b'\n' for f, c in [(f, c if c != b'.' else b'3') for f, c in rows if c.isdigit()] + [(os.fsencode(odd), b'3'), (os.fsencode(long), b'4'), (os.fsencode(link), b'5')]))
    assert main(['find', str(tmp_path/'t.csv'), '--out', str(tmp_path/'out'), *FAST]) == 0, capsys.readouterr().err
    items = set(read_issues(tmp_path/'out'/'issues.csv').item)
    assert r'caf\xe9 \xff.png' in ' '.join(items) and any(i.endswith('#2') for i in items) and any(i.endswith('#3') for i in items)

def test_unreadable_images_are_listed(folder, tmp_path, capsys):
    src = tmp_path/'src'
    for f in folder.rglob('*.png'):
        (src/f.parent.name).mkdir(parents=True, exist_ok=True); (src/f.parent.name/f.name).write_bytes(f.read_bytes())
    for nm in ('a.png', 'b.jpg'): (src/'1'/nm).write_bytes(b'no picture')
    assert main(['find', str(src), '--out', str(tmp_path/'out'), *FAST]) == 0
    assert 'warning: 2 of 202 items cannot be read' in capsys.readouterr().err
    assert set(json.loads((tmp_path/'out'/'summary.json').read_text())['unreadable']) == {'1/a.png', '1/b.jpg'}

def test_bad_input_ends_in_one_line(folder, tmp_path, capsys):
    out = tmp_path/'out'
    (tmp_path/'one'/'cat').mkdir(parents=True); (tmp_path/'one'/'cat'/'a.png').write_bytes(next(folder.rglob('*.png')).read_bytes())
    (tmp_path/'empty').mkdir()
    files = sorted(folder.rglob('*.png'))
    pd.DataFrame(dict(path=files, label=[f.parent.name for f in files])).to_csv(tmp_path/'t.csv', index=False)
    pd.DataFrame(dict(path=files, label=[None] + [f.parent.name for f in files[1:]])).to_csv(tmp_path/'missing.csv', index=False)
    (tmp_path/'notes.pdf').write_text('x')
    cases = {('no-such-folder',): 'not there', ('empty',): '', ('one',): 'only one class', ('t.csv', '--label-col', 'breed'): 'breed', ('missing.csv',): '--drop-unlabelled', ('notes.pdf',): 'neither a folder',
             ('t.csv', '--mode', 'magic'): '--mode', ('t.csv', '--filter-by', 'magic'): '--filter-by', ('t.csv', '--n-splits', '1'): '--n-splits', ('t.csv', '--weights', 'none.pth'): 'no file',
             ('t.csv', '--arch', 'resnet99'): 'timm knows no model', ('t.csv', '--sed', '1'): '', ('t.csv', '--seed', 'x'): ''}
    for (src, *more), words in cases.items():
        err = fails(capsys, 'find', tmp_path/src, '--out', out, *more)
        assert words.lstrip('-') in err, err
        assert not (out/'summary.json').exists() and not (out/'issues.csv').exists()
        if (out/'source.json').exists(): (out/'source.json').unlink()

def test_a_folder_that_is_not_ours_is_left_alone(folder, tmp_path, capsys):
    (tmp_path/'thesis.txt').write_text('precious')
    assert 'not a result of fastclean' in fails(capsys, 'find', folder, '--out', tmp_path, '--force')
    assert tree(tmp_path) == {'thesis.txt': b'precious'}

def test_noise_makes_a_copy_with_the_truth(folder, tmp_path, capsys):
    before = tree(folder)
    assert main(['noise', str(folder), str(tmp_path/'n'), '--rate', '.2', '--seed', '3']) == 0
    d = pd.read_csv(tmp_path/'n'/'noise.csv', dtype=str)
    assert len(d) == 200 and .1 < (d.true_label != d.given_label).mean() < .3 and tree(folder) == before
    assert main(['noise', str(folder), str(tmp_path/'m'), '--model', 'margin', '--rate', '.2']) == 0
    assert 'rate' in fails(capsys, 'noise', folder, tmp_path/'x', '--rate', '1.5')
    assert 'no noise model' in fails(capsys, 'noise', folder, tmp_path/'x', '--model', 'loud')
    assert not (tmp_path/'x').exists()

def test_a_full_disk(folder, tmp_path, capsys, monkeypatch):
    def full(*a, **k): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('fastclean.issues.write_issues', full)
    assert 'No space left' in fails(capsys, 'find', folder, '--out', tmp_path/'out', *FAST)
    assert not (tmp_path/'out'/'issues.csv').exists() and not (tmp_path/'out'/'summary.json').exists()
    monkeypatch.undo()
    assert main(['find', str(folder), '--out', str(tmp_path/'out'), *FAST]) == 0

def test_help_is_quick_and_has_examples():
    code = 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]) or ("torch" in sys.modules))'
    for c in ('find', 'noise', 'demo'):
        r = subprocess.run([sys.executable, '-c', code, c, '--help'], capture_output=True, text=True)
        assert r.returncode == 0 and 'xample' in r.stdout and '--seed' in r.stdout, r

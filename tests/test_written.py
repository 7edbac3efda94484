"What is written into a user's folders: what stands there, what is in the way, what comes in between, and where a run was killed."
import errno, json, os, re, shutil, socket, subprocess, sys, warnings, zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.tabular.all import Categorify, TabularDataLoaders
from fastai.vision.all import CategoryBlock, DataBlock, ItemGetter, MultiCategoryBlock, TransformBlock, torch

from fastclean.cli import claim_output, main
from fastclean.copies import correct_copy, read_journal, read_manifest, read_state
from fastclean.core import FastcleanWarning, Predictions, atomic_path, sweep_killed
from fastclean.correct import clean_frame, plan_corrections, soft_targets
from fastclean.corrections import _array_corrections, check_corrections, issue_corrections, read_corrections
from fastclean.data import digits_sample, read_source
from fastclean.inject import noisy_copy, read_noise
from fastclean.issues import find_label_issues
from fastclean.layout import folder_layout
from fastclean.noise import SymmetricNoise
from fastclean.review import Review
from fastclean.rewrite import rewrite_table
from fastclean.undo import undo
from test_app import clicked, named, opened, pets, write_result    # noqa: F401: fixtures
from test_correct import snapshot

CLASSES = ['ant', 'bee', 'cow']

def put(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file

def said(file, *rows): return put(file, 'item,label\n' + ''.join(f'{i},{c}\n' for i, c in rows))

@pytest.fixture
def src(tmp_path):
    "Four files in each of three class folders, that nobody opens as images."
    for c in CLASSES:
        for i in range(4): put(tmp_path/'src'/c/f'{c}{i}.png', f'{c} {i}')
    return tmp_path/'src'

@pytest.fixture
def one(tmp_path): return said(tmp_path/'one.csv', ('ant/ant0.png', 'bee'))

def table():
    "Twelve labels of three classes, of which every fifth is wrong."
    y = np.arange(12) % 3
    p = np.full((12, 3), .01, np.float32); p[np.arange(12), (y + (np.arange(12) % 5 == 0)) % 3] = .98
    return find_label_issues(Predictions.from_arrays(y, p, CLASSES, [f'{i}.png' for i in range(12)]))

def frame(): return pd.DataFrame(dict(item=[f'{i}.png' for i in range(12)], y=[CLASSES[i % 3] for i in range(12)]))

class Killed(BaseException): "As if the process had ended here."

def killed(monkeypatch, module, name, when=lambda *args: True):
    "From now on a function of `os` or `shutil` ends the run, where `when` says so of what it is given."
    real = getattr(module, name)
    def _end(*args, **kwargs):
        if when(*args): raise Killed
        return real(*args, **kwargs)
    monkeypatch.setattr(module, name, _end)

# ---- copies: where they stand

def test_a_copy_needs_a_name(src, one, tmp_path, monkeypatch):
    (tmp_path/'here').mkdir(); monkeypatch.chdir(tmp_path/'here')
    for dst in ('.', './', 'x/..'):
        with pytest.raises(ValueError, match='cannot be the copy'): correct_copy(src, dst, one)
    with pytest.raises(ValueError, match='or around it'): correct_copy(src, '/', one)
    assert os.listdir('.') == []

def test_a_way_of_linking_that_there_is_not(src, one, tmp_path):
    with pytest.raises(ValueError, match="link must be one of copy, hard, reflink; got 'soft'"): correct_copy(src, tmp_path/'dst', one, link='soft')

@pytest.mark.parametrize('make', [lambda p: p.write_text('mine'), lambda p: p.symlink_to('nowhere'), lambda p: p.symlink_to('src')])
def test_the_place_of_the_part_is_taken(src, one, tmp_path, make):
    make(part := tmp_path/'.dst.fastclean-part')
    was = snapshot(tmp_path)
    with pytest.raises(ValueError, match='is in the way: remove it'): correct_copy(src, tmp_path/'dst', one)
    assert snapshot(tmp_path) == was and os.path.lexists(part)

def test_an_empty_folder_is_filled(src, one, tmp_path, monkeypatch):
    "Also where a folder cannot take the place of another, as on Windows."
    rename = os.rename
    def strict(a, b):
        if os.path.lexists(b): raise FileExistsError(errno.EEXIST, 'exists', b)
        rename(a, b)
    monkeypatch.setattr(os, 'rename', strict)
    (tmp_path/'dst').mkdir()
    assert repr(m := correct_copy(src, tmp_path/'dst', one)) == 'Corrected copy: 1 relabel, 0 refused' and m.counts() == dict(relabel=1)
    assert undo(tmp_path/'dst') == 1 and snapshot(tmp_path/'dst') == snapshot(src)

def test_a_plan_of_nothing_is_a_copy(src, tmp_path):
    m = correct_copy(src, tmp_path/'dst', said(tmp_path/'none.csv', ('ant/ant0.png', 'ant')))
    assert repr(m) == 'Corrected copy: no changes, 0 refused' and repr(read_manifest(tmp_path/'dst')) == repr(m) and undo(tmp_path/'dst') == 0 and snapshot(tmp_path/'dst') == snapshot(src)

# ---- copies: what comes in between

def stopped(src, dst, plan, n, **kw):
    "A run that ends after n files; its part."
    def some(files):
        for i, f in enumerate(files):
            if i == n: raise Killed
            yield f
    with pytest.raises(Killed): correct_copy(src, dst, plan, progress=some, **kw)
    return dst.parent/f'.{dst.name}.fastclean-part'

def test_a_part_that_lost_files_is_made_whole(src, one, tmp_path):
    "One has gone, one is shorter, one a link, one said to be one, and the last line of the journal is cut off; the others are not copied again."
    dst, before = tmp_path/'dst', snapshot(src)
    part = stopped(src, dst, one, 9)
    a, b, c, d, *rest, last = read_journal(part)
    made = {o: (part/o).stat().st_ino for o in rest}
    (part/a).unlink(); (part/b).write_text('?'); (part/c).unlink(); (part/c).symlink_to(src/'ant'/'ant3.png')
    journal = part/'.fastclean'/'files.jsonl'
    journal.write_text(''.join(json.dumps(dict(path=d, link='x')) + '\n' if d in o else o for o in journal.read_text().splitlines(True))[:-20])
    assert list(read_journal(part)) == [a, b, c, d, *rest]
    correct_copy(src, dst, one)
    assert len(read_journal(dst)) == 12 and {o: (dst/o).stat().st_ino for o in rest} == made and last in read_journal(dst)
    assert undo(dst) == 1 and snapshot(dst) == snapshot(src) == before

def test_a_file_that_grows_while_it_is_copied(src, one, tmp_path):
    def growing(files):
        for p, st in files:
            if p == 'cow/cow0.png': (src/p).write_text('much more than there was')
            yield p, st
    with pytest.raises(ValueError, match='cow/cow0.png was changed while it was copied'): correct_copy(src, tmp_path/'dst', one, progress=growing)
    assert not (tmp_path/'dst').exists()
    correct_copy(src, tmp_path/'dst', one)
    assert (tmp_path/'dst'/'cow'/'cow0.png').read_text() == 'much more than there was' and undo(tmp_path/'dst') == 1 and snapshot(tmp_path/'dst') == snapshot(src)

def test_a_copy_that_could_not_be_read_again(src, tmp_path):
    "A person may empty classes; where one is left, it is no data set."
    gone = said(tmp_path/'gone.csv')
    gone.write_text('item,label,action\n' + ''.join(f'{c}/{c}{i}.png,,drop\n' for c in CLASSES[1:] for i in range(4)))
    with pytest.raises(ValueError, match='could not be read again: the copy: there is only one class') as e, pytest.warns(FastcleanWarning, match='no training item is left'): correct_copy(src, tmp_path/'dst', gone)
    assert 'fastclean-part' not in str(e.value) and not (tmp_path/'dst').exists()

def test_what_a_copy_cannot_hold_is_said(src, tmp_path):
    os.mkfifo(src/'pipe'); (src/'ant'/'near.png').symlink_to('ant1.png'); (src/'ant'/'nowhere.txt').symlink_to('nowhere')
    before = snapshot(src)
    with pytest.warns(FastcleanWarning) as w: correct_copy(src, tmp_path/'dst', said(tmp_path/'c.csv', ('ant/near.png', 'bee')))
    assert [re.sub(',.*', '', str(o.message)) for o in w] == ['1 links lead nowhere in the copy', '1 pipes'] and not (tmp_path/'dst'/'pipe').exists()
    undo(tmp_path/'dst'); del before['pipe']
    assert snapshot(tmp_path/'dst') == before

def test_hard_links_that_cannot_be_made_are_copies(src, one, tmp_path, monkeypatch):
    def other_disk(*_): raise OSError(errno.EXDEV, 'Invalid cross-device link')
    monkeypatch.setattr(os, 'link', other_disk)
    with pytest.warns(FastcleanWarning, match="12 files were copied: this file system cannot do link='hard' here"): correct_copy(src, tmp_path/'dst', one, link='hard')
    assert not any(os.path.samefile(src/'cow'/f.name, f) for f in (tmp_path/'dst'/'cow').iterdir())
    undo(tmp_path/'dst'); assert snapshot(tmp_path/'dst') == snapshot(src)

def test_copies_that_share_their_data(src, one, tmp_path, monkeypatch):
    "As a file system does that can: no byte goes through this process."
    fcntl = pytest.importorskip('fcntl')
    def clone(new, request, old):
        assert request == 0x40049409
        os.write(new, os.pread(old, 1000, 0))
    monkeypatch.setattr(fcntl, 'ioctl', clone)
    monkeypatch.setattr('fastclean.copies._copy_bytes', None)
    with warnings.catch_warnings(): warnings.simplefilter('error'); correct_copy(src, tmp_path/'dst', one, link='reflink')
    assert {o['hash'] for o in read_journal(tmp_path/'dst').values()} == {None}
    (tmp_path/'dst'/'cow'/'cow0.png').write_text('cow X')                            # as long as it was, but at another time
    with pytest.raises(ValueError, match="'cow/cow0.png' was changed"): undo(tmp_path/'dst')
    shutil.copy2(src/'cow'/'cow0.png', tmp_path/'dst'/'cow'/'cow0.png')
    undo(tmp_path/'dst'); assert snapshot(tmp_path/'dst') == snapshot(src)

# ---- the way back

def test_what_is_no_copy_is_not_taken_back(src, one, tmp_path):
    with pytest.raises(ValueError, match='is not a folder'): undo(one)
    with pytest.raises(ValueError, match='is not a folder'): undo(tmp_path/'nowhere')
    correct_copy(src, dst := tmp_path/'dst', one)
    was = snapshot(dst)
    (tmp_path/'way').symlink_to(dst)
    with pytest.raises(ValueError, match='a link in place of a folder'): undo(tmp_path/'way')
    (dst/'.fastclean.undo').symlink_to(tmp_path)
    with pytest.raises(ValueError, match='a link in place of a folder'): undo(dst)
    (dst/'.fastclean.undo').unlink()
    os.rename(dst/'.fastclean', tmp_path/'elsewhere'); (dst/'.fastclean').symlink_to(tmp_path/'elsewhere')
    with pytest.raises(ValueError, match='a link in place of a folder'): undo(dst)
    (dst/'.fastclean').unlink(); os.rename(tmp_path/'elsewhere', dst/'.fastclean')
    assert snapshot(dst) == was

def test_a_journal_without_a_file_that_moved(src, one, tmp_path):
    correct_copy(src, dst := tmp_path/'dst', one)
    journal = dst/'.fastclean'/'files.jsonl'
    journal.write_text(''.join(o for o in journal.read_text().splitlines(True) if 'bee/ant0.png' not in o))
    was = snapshot(dst)
    with pytest.raises(ValueError, match="its journal does not know 'bee/ant0.png': nothing was undone"): undo(dst)
    assert {k: v for k, v in snapshot(dst).items() if not k.endswith('lock')} == {k: v for k, v in was.items() if not k.endswith('lock')}

@pytest.mark.parametrize('kept', [False, True])
def test_a_class_that_the_source_has_not(src, tmp_path, kept):
    "Its folder goes again, unless there is something of the user's in it."
    dst, plan = tmp_path/'dst', plan_corrections(read_corrections(said(tmp_path/'c.csv', ('ant/ant0.png', 'dog'))), data=read_source(src).frame, allow_new_labels=True)
    assert correct_copy(src, dst, plan).made == ['dog'] and (dst/'dog'/'ant0.png').read_text() == 'ant 0'
    if kept: put(dst/'dog'/'mine.txt', 'mine')
    assert undo(dst) == 1
    assert {k: v for k, v in snapshot(dst).items() if not k.startswith('dog')} == snapshot(src) and sorted(o.name for o in (dst/'dog').glob('*')) == ['mine.txt']*kept and (dst/'dog').is_dir() == kept

STOPS = dict(back=(os, 'replace', lambda a, b: 'ant/ant0.png' in str(b)), home=(os, 'rename', lambda a, b: str(b).endswith('.undo')), files=(os, 'unlink', lambda p, **_: 'files.jsonl' in str(p)),
             last=(os, 'unlink', lambda p, **_: str(p).endswith('correct.json')), empty=(os, 'rmdir', lambda p, **_: str(p).endswith('.undo')))

@pytest.mark.parametrize('stop', STOPS)
def test_taking_back_is_killed_and_goes_on(src, one, tmp_path, monkeypatch, capsys, stop):
    dst = tmp_path/'dst'
    correct_copy(src, dst, one)
    with monkeypatch.context() as m, pytest.raises(Killed): killed(m, *STOPS[stop]); undo(dst)
    assert snapshot(dst) != snapshot(src)
    if stop in ('back', 'home'):
        assert read_state(dst)['state'] == 'undoing'
        with pytest.raises(ValueError, match='is being taken back: run undo on it again'): correct_copy(src, dst, one)
    assert main(['undo', str(dst)]) == 0 and 'is what its source was' in capsys.readouterr().out and snapshot(dst) == snapshot(src)

def test_a_copy_that_was_half_taken_back_is_replaced(src, one, tmp_path, monkeypatch):
    dst = tmp_path/'dst'
    correct_copy(src, dst, one)
    with monkeypatch.context() as m, pytest.raises(Killed): killed(m, *STOPS['home']); undo(dst)
    assert correct_copy(src, dst, one, force=True).counts() == dict(relabel=1) and read_state(dst)['state'] == 'done'
    undo(dst); assert snapshot(dst) == snapshot(src)

def test_a_table_whose_way_back_was_killed(tmp_path, monkeypatch):
    "The old table is back under its name, where the journal knows the new one."
    t = put(tmp_path/'in'/'t.csv', 'text,label\n' + ''.join(f'words number {i},{"xy"[i % 2]}\n' for i in range(8)))
    correct_copy(t, dst := tmp_path/'dst', said(tmp_path/'c.csv', ('3', 'x')), text_col='text', label_col='label')
    with monkeypatch.context() as m, pytest.raises(Killed): killed(m, *STOPS['home']); undo(dst)
    assert undo(dst) == 1 and snapshot(dst) == snapshot(tmp_path/'in')

def test_what_the_source_has_under_our_name(src, one, tmp_path, monkeypatch):
    "Put aside in the copy, and back under its name at last; also where that was killed, and nothing of the user's is overwritten."
    put(src/'.fastclean'/'correct.json', 'not ours'); put(src/'.fastclean-notes'/'a.txt', 'a'); put(src/'.fastclean.txt', 'b')
    dst = tmp_path/'dst'
    correct_copy(src, dst, one)
    assert sorted(os.listdir(dst/'.fastclean'/'aside')) == ['.fastclean', '.fastclean-notes', '.fastclean.txt']
    put(dst/'.fastclean.txt', 'mine')
    with monkeypatch.context() as m, pytest.raises(Killed): killed(m, os, 'rename', lambda a, b: str(b).endswith('-notes')); undo(dst)
    assert (dst/'.fastclean'/'correct.json').read_text() == 'not ours'
    undo(dst)
    assert (dst/'.fastclean.txt').read_text() == 'mine'
    put(dst/'.fastclean.txt', 'b'); os.utime(dst/'.fastclean.txt', ns=((src/'.fastclean.txt').stat().st_mtime_ns,)*2)
    assert snapshot(dst) == snapshot(src)

# ---- where things stand

def moved(src, dst, rows, tmp_path, **kw):
    "From where to where a copy has brought files; and it can be taken back."
    new = kw.pop('new', False)
    plan = plan_corrections(read_corrections(said(tmp_path/'m.csv', *rows)), data=read_source(src, **kw).frame, allow_new_labels=new)
    m = correct_copy(src, dst, plan, **kw)
    out = dict(zip(m.changes['from'], m.changes['to'])) if len(m.changes) else {}, list(m.refused.reason)
    undo(dst); assert snapshot(dst) == snapshot(src)
    return out

def test_classes_above_other_folders(tmp_path):
    "The class is the first name below the split; what lies below it stays, and an item without a label goes to where the class is."
    for c in CLASSES:
        for s in ('train', 'valid'):
            for part in ('day', 'night'): put(tmp_path/'src'/s/c/part/f'{c}{part}.png', f'{s} {c} {part}')
    put(tmp_path/'src'/'unlabelled'/'u.png', 'u')
    got, refused = moved(tmp_path/'src', tmp_path/'dst', [('train/ant/day/antday.png', 'bee'), ('valid/cow/night/cownight.png', 'ant'), ('unlabelled/u.png', 'cow')], tmp_path, label_from='first')
    assert got == {'train/ant/day/antday.png': 'train/bee/day/antday.png', 'valid/cow/night/cownight.png': 'valid/ant/night/cownight.png', 'unlabelled/u.png': 'train/cow/u.png'} and refused == []

def test_where_no_file_can_go(src, tmp_path):
    put(src/'dog', 'a file'); put(tmp_path/'far'/'f.png', 'f'); (src/'far').symlink_to(tmp_path/'far')
    got, refused = moved(src, tmp_path/'dst', [('ant/ant0.png', 'dog'), ('far/f.png', 'cow'), ('bee/bee0.png', 'cow')], tmp_path, new=True)
    assert got == {'bee/bee0.png': 'cow/bee0.png'} and refused == ["'dog', where it belongs, is no folder but a file", 'it lies behind a link to a folder']

def test_a_plan_by_hand_does_not_lead_out(src):
    source = read_source(src)
    plan = plan_corrections(_array_corrections(dict(corrected_paths=['ant/ant0.png'], original_labels=['ant'], corrected_labels=['bee'], corrected_scores=[1])), data=source.frame)
    for bad in ('..', '.', '', 'a/../b', '/bee'):
        with pytest.raises(ValueError, match='cannot be the name of a folder'): folder_layout(source, replace(plan, frame=plan.frame.assign(new_label=bad)))

def test_rows_without_a_label_in_a_table_of_images(tmp_path):
    "Items are numbered without them, rows with them."
    files = [f'{i}.png' for i in range(8)]
    for f in files: put(tmp_path/'in'/f, f)
    label = ['', 'ant', 'bee', ' ', '', 'ant', 'bee', 'ant']
    t = put(tmp_path/'in'/'t.csv', 'path,label,kind\n' + ''.join(f'{f},{c},{"unlabelled" if i == 4 else "train"}\n' for i, (f, c) in enumerate(zip(files, label))))
    how = dict(item_col='path', label_col='label', split_col='kind', drop_unlabelled=True)
    c = put(tmp_path/'c.csv', 'item,label,action\n2.png,ant,\n5.png,,drop\n4.png,bee,\n')
    m = correct_copy(t, dst := tmp_path/'dst', c, **how)
    assert list(m.changes.row) == [2, 5] and list(m.refused.reason) == ['its row says that it is unlabelled: change that first, or use clean_frame']
    assert (dst/'t.csv').read_text() == t.read_text().replace('2.png,bee', '2.png,ant').replace('5.png,ant,train\n', '')
    undo(dst); assert snapshot(dst).items() <= snapshot(tmp_path/'in').items() and (dst/'t.csv').is_file()

@pytest.mark.parametrize('name', ['.fastclean/x.png', 't.csv'])
def test_files_that_would_stand_in_our_place(tmp_path, name):
    put(tmp_path/'in'/'.fastclean'/'x.png', 'x'); put(tmp_path/'in'/'a.png', 'a')
    t = put(tmp_path/'in'/'t.csv', f'path,label\n{name},ant\na.png,bee\na.png,ant\n')
    with pytest.raises(ValueError, match=f"the table names the file '{re.escape(name)}', which cannot stand in a copy"): correct_copy(t, tmp_path/'dst', said(tmp_path/'c.csv', ('a.png', 'bee')), item_col='path')
    assert not (tmp_path/'dst').exists()

# ---- tables

def test_a_row_that_ends_before_its_label(tmp_path):
    t = put(tmp_path/'t.csv', 'text,label\na,x\nb\nc,y\n')
    with pytest.raises(ValueError, match='row 1 of the table ends before its label'): rewrite_table(t, tmp_path/'new.csv', 'label', {1: 'x'})
    rewrite_table(t, tmp_path/'new.csv', 'label', {0: 'y'}, drop=[1])
    assert (tmp_path/'new.csv').read_text() == 'text,label\na,y\nc,y\n'

def test_a_label_that_the_encoding_has_not(tmp_path):
    t = tmp_path/'in'/'t.csv'; t.parent.mkdir()
    t.write_bytes('text,label\n'.encode() + ''.join(f'some words, für immer {i},{"xy"[i % 2]}\n'.replace(', f', ' f') for i in range(8)).encode('latin-1'))
    how = dict(text_col='text', label_col='label', encoding='latin-1')
    plan = plan_corrections(read_corrections(said(tmp_path/'c.csv', ('3', '犬'))), data=read_source(t, **how).frame, allow_new_labels=True)
    with pytest.raises(ValueError, match="is written in latin-1, which has no '犬': convert the table to UTF-8 first"): correct_copy(t, tmp_path/'dst', plan, **how)
    assert not (tmp_path/'dst').exists()
    correct_copy(t, tmp_path/'dst', said(tmp_path/'c.csv', ('3', 'x')), **how)
    assert (tmp_path/'dst'/'t.csv').read_bytes() == t.read_bytes().replace(b'immer 3,y', b'immer 3,x')

@pytest.mark.parametrize('codec', ['snappy', 'gzip', 'brotli', 'zstd', 'lz4', None])
def test_a_parquet_stays_packed_as_it_was(tmp_path, codec):
    pq = pytest.importorskip('pyarrow.parquet')
    pd.DataFrame(dict(t=list('abcdef'), y=list('xyxyxy'))).to_parquet(tmp_path/'t.parquet', compression=codec)
    rewrite_table(tmp_path/'t.parquet', tmp_path/'n.parquet', 'y', {0: 'y'}, [2])
    assert ''.join(pd.read_parquet(tmp_path/'n.parquet').y) == 'yyyxy' and len({pq.ParquetFile(tmp_path/f).metadata.row_group(0).column(0).compression for f in ('t.parquet', 'n.parquet')}) == 1

# ---- plans and DataFrames

def test_what_a_plan_cannot_be_made_of():
    t = table()
    with pytest.raises(ValueError, match='names an item twice'): plan_corrections(pd.concat([t, t.head(1)], ignore_index=True))
    with pytest.raises(ValueError, match='give the data that are to be corrected'): plan_corrections(issue_corrections(t))
    with pytest.raises(ValueError, match='data name an item twice'): plan_corrections(t, data=t[['item', 'split', 'given_label']].assign(item='0.png'))

def test_what_a_plan_does_not_fit():
    df, plan = frame(), plan_corrections(table())
    assert list(clean_frame(df, plan, 'y', 'item').y[:1]) == ['bee']
    with pytest.raises(ValueError, match="no column 'z'; the columns are item, y"): clean_frame(df, plan, 'z')
    with pytest.raises(ValueError, match="no column 'name'; the columns are item, y"): clean_frame(df, plan, 'y', 'name')
    with pytest.raises(ValueError, match=r"none of the 3 items of the plan is in the DataFrame, the first is '0.png': say which"): clean_frame(df, plan, 'y')
    with pytest.raises(ValueError, match="row 0 has the label 'cow', where the plan found 'ant'"): clean_frame(df.assign(y=['cow', *df.y[1:]]), plan, 'y', 'item')
    with pytest.warns(FastcleanWarning, match='1 of 3 items of the plan are not in the DataFrame'): assert len(clean_frame(df[1:], plan, 'y', 'item')) == 11
    assert df.equals(frame())

def test_a_class_of_another_type_in_a_column():
    "The column holds both then, and keeps its type where it can."
    df = pd.DataFrame(dict(y=[0, 1, 0, 1, 0, 1]))
    data = df.assign(item=list('012345'), split='train').rename(columns=dict(y='given_label')).astype(dict(given_label=object))
    plan = lambda new: plan_corrections(_array_corrections(dict(corrected_paths=['2'], original_labels=[0], corrected_labels=[new], corrected_scores=[1])), data=data, allow_new_labels=True)
    assert list(clean_frame(df, plan('two'), 'y').y) == [0, 1, 'two', 1, 0, 1] and clean_frame(df, plan(1), 'y').y.dtype == df.y.dtype == int
    some = df.astype('category')
    assert list(clean_frame(some, plan('two'), 'y').y.cat.categories) == [0, 1, 'two'] and list(some.y.cat.categories) == [0, 1]

def test_soft_targets_are_for_soft_plans():
    t = table()
    with pytest.raises(ValueError, match="only a plan with action='soft'"): soft_targets(plan_corrections(t), ['0.png'])
    p = Predictions.from_arrays([0, 1], [[.9, .1], [.6, .4]], ['ant', 'bee'], ['a', 'b'])
    soft = plan_corrections(find_label_issues(p), 'soft', preds=p)
    with pytest.raises(ValueError, match="1 items have no prediction, the first is 'c'"): soft_targets(soft, ['a', 'c'])
    assert soft_targets(soft, ['b'], ['bee', 'cow', 'ant']).shape == (1, 3) and not soft_targets(soft, ['b'], ['bee', 'cow', 'ant'])[0, 1]

# ---- DataLoaders

def loaders(n=12, block=CategoryBlock, y=lambda i: CLASSES[i % 3]):
    items = [(torch.tensor([float(i)]), y(i)) for i in range(n)]
    return DataBlock((TransformBlock, block(vocab=CLASSES)), getters=[ItemGetter(0), ItemGetter(1)], splitter=lambda o: (list(range(9)), list(range(9, n)))).dataloaders(items, bs=3, num_workers=0)

def numbered():
    "The table of issues of their training items."
    t = table()
    return t[[int(o[:-4]) < 9 for o in t['item']]].assign(item=lambda d: d['item'].str[:-4]).reset_index(drop=True)

def test_what_loaders_cannot_be_cleaned_by():
    dls, t = loaders(), numbered()
    plan, d = plan_corrections(t), pd.DataFrame(dict(item=['0'], label=['bee']))
    assert dls.clean(plan).corrections is plan and len(plan) == 2
    with pytest.raises(ValueError, match='the table of issues is empty'): dls.clean(t[:0])
    with pytest.raises(ValueError, match='a Plan is made already'): dls.clean(plan, decisions=d)
    with pytest.raises(ValueError, match='labels of unlabelled items go into'): dls.clean(replace(plan, frame=plan.frame.assign(action='pseudo')))
    with pytest.raises(ValueError, match='1 of 2 items of the plan are not in the DataLoaders, the first is'): dls.clean(replace(plan, frame=plan.frame.assign(item=['0', 'x'])))
    with pytest.raises(ValueError, match='2 items of the plan have another label in the DataLoaders, the first is'): dls.clean(replace(plan, frame=plan.frame.assign(given_label='zebra')))
    with pytest.raises(ValueError, match='pruning would leave no item in the valid set'): dls.clean(decisions=pd.DataFrame(dict(item=['valid/0', 'valid/1', 'valid/2'], label=None, action='drop')))
    with pytest.raises(ValueError, match='decisions are for data with one label'): loaders(block=MultiCategoryBlock, y=lambda i: [CLASSES[i % 3]]).clean(decisions=d)

def test_weights_that_leave_nothing(tmp_path):
    put(tmp_path/'c.json', json.dumps(dict(corrected_paths=[str(i) for i in range(9)], original_labels=[CLASSES[i % 3] for i in range(9)], corrected_labels=[CLASSES[(i + 1) % 3] for i in range(9)], corrected_scores=[1]*9)))
    with pytest.raises(ValueError, match='every training item has weight 0'): loaders().clean(tmp_path/'c.json', 'reweight')

def test_loaders_that_are_not_fastais_own():
    dls = loaders()
    plain = DataLoaders(*(DataLoader(o.dataset, bs=3) for o in dls.loaders))
    with pytest.raises(ValueError, match="weighted sampling needs fastai's loaders; got DataLoader"): plain.clean(numbered(), 'reweight')
    assert list(dls.clean(numbered(), 'reweight').weights < .1) == [i % 5 == 0 for i in range(9)]

def test_sets_of_classes_for_a_table_of_features():
    df = pd.DataFrame(dict(b=list('uv')*6, y=['no', 'yes']*6))
    dls = TabularDataLoaders.from_df(df, procs=[Categorify], cat_names=['b'], y_names='y', valid_idx=[10, 11], bs=4)
    plan = plan_corrections(_array_corrections(dict(corrected_paths=['0'], original_labels=['no'], corrected_labels=['yes'], corrected_scores=[1])), data=df.assign(item=df.index.map(str), split='train').rename(columns=dict(y='given_label')))
    assert len(plan) == 1
    several = replace(plan, frame=plan.frame.assign(new_label=pd.Series([('no', 'yes')], dtype=object)))
    with pytest.raises(ValueError, match='correct the DataFrame with clean_frame'): dls.clean(several)

# ---- corrections

def entry(label, item='0.png', old='ant'): return _array_corrections(dict(corrected_paths=[item], original_labels=[old], corrected_labels=[label], corrected_scores=[1]))

DATA = pd.DataFrame(dict(item=[f'{i}.png' for i in range(6)], split='train', given_label=CLASSES*2))

@pytest.mark.parametrize('label, says', [('valid', "its label 'valid' would be taken for a split"), ('unlabelled', 'would be taken for a split'), (10**40, 'a huge number is not one of the classes'), ('Bee', 'only in how it is written')])
def test_labels_that_become_no_class(label, says):
    c = check_corrections(entry(label), DATA, CLASSES, True)
    assert len(c.frame) == 0 and says in c.refused.reason[0]

def test_labels_that_are_no_text():
    "A class may be a number; what is none, as no file says it, is refused, too."
    c = check_corrections(entry('2'), DATA.assign(given_label=[1, 2]*3), [1, 2])
    assert len(c.frame) == 0 and 'not \'ant\'' in c.refused.reason[0]
    c = check_corrections(entry('2', old=1), DATA.assign(given_label=[1, 2]*3), [1, 2])
    assert list(c.frame.new_label) == [2] and repr(c) == 'Corrections of 1 labels (scored), 0 refused'
    endless = entry('bee'); endless.frame['new_label'] = pd.Series([float('inf')], dtype=object)
    assert list(check_corrections(endless, DATA, [*CLASSES, 'inf'], True).refused.reason) == ['inf is not one of the classes']
    assert list(check_corrections(entry('1', old='2'), DATA.assign(given_label='2'), ['2', 1, '1.0', True]).frame.new_label) == [1]

def test_files_that_hold_no_corrections(tmp_path):
    with pytest.raises(ValueError, match="kind must be 'issues' or 'decided'; got 'mine'"): read_corrections(tmp_path/'x', 'mine')
    with pytest.raises(ValueError, match='an object names something twice'): read_corrections(put(tmp_path/'twice.json', '{"corrected_paths": [], "corrected_paths": ["a"]}'))
    with open(huge := put(tmp_path/'huge.json', '{'), 'r+b') as f: f.truncate((1 << 28) + 1)          # a hole: it takes no place
    with pytest.raises(ValueError, match='it has 268,435,457 bytes, more than 268,435,456'): read_corrections(huge)

def test_nothing_to_correct_by(src, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['correct', 'src', 'dst']) == 2 and 'give --issues' in capsys.readouterr().err and not Path('dst').exists()

# ---- decisions

def test_what_cannot_be_decided(tmp_path):
    t, d = table(), tmp_path/'d.csv'
    r = Review(t, d)
    r.decide('0.png', 'relabel')
    was = d.read_bytes()
    for call, says in ((lambda: r.decide('x.png', 'keep'), "'x.png' is not in the table"), (lambda: r.row('x.png'), 'not in the table'), (lambda: r.decide('0.png', 'burn'), 'action must be one of keep, relabel, drop'),
                       (lambda: r.decide('0.png', 'relabel', 'dog'), "'dog' is not one of the classes"), (lambda: r.queue('shut'), "state must be 'open', 'decided' or 'all'")):
        with pytest.raises(ValueError, match=says): call()
    none = t.assign(given_label=pd.Series([None]*12, dtype=object))
    with pytest.raises(ValueError, match="'1.png' has no label to keep"): Review(none, d).decide('1.png', 'keep')
    with pytest.raises(ValueError, match='two classes read the same'): Review(t, d, [1, '1'])
    assert d.read_bytes() == was

def test_a_decision_is_taken_back_on_disk(tmp_path):
    t, d = table(), tmp_path/'deep'/'d.csv'
    r = Review(t, d)
    r.decide('0.png', 'relabel'); r.decide('1.png', 'drop')
    r.forget('0.png'); r.forget('never.png')
    assert d.read_text() == 'item,label,action\n1.png,,drop\n' and list(Review(t, d).frame['item']) == ['1.png']

def test_a_file_that_somebody_spoils_between_two_clicks(pets):
    "It is left as it is, and said."
    at = clicked(opened(pets), 'keep')
    put(pets/'decisions.csv', spoilt := 'item,label\na,ant\na,bee\n')
    assert 'two decisions on' in clicked(at, 'undo').error[0].value and (pets/'decisions.csv').read_text() == spoilt

def test_an_audit_whose_folder_becomes_a_file(pets):
    at = opened(pets); at.radio(key='page').set_value('Audit').run()
    at.number_input(key='audit-n').set_value(10).run(); clicked(at, 'draw')
    shutil.rmtree(pets/'audit'); (pets/'audit').write_text('mine')
    clicked(at, 'is-0')
    assert at.error[0].value and (pets/'audit').read_text() == 'mine'

def test_an_answer_among_many_classes(named):
    found = named([f'class {k:02}' for k in range(14)], 280)
    at = opened(found); at.radio(key='page').set_value('Audit').run()
    at.number_input(key='audit-n').set_value(10).run(); clicked(at, 'draw')
    at.selectbox(key='is-0').set_value('class 13').run()
    sheet = pd.read_csv(found/'audit'/'audit.csv', dtype=str)
    assert sheet.label[0] == 'class 13' and sheet.label[1:].isna().all()

def test_answers_that_cannot_be_put_among_the_decisions(pets):
    at = opened(pets); at.radio(key='page').set_value('Audit').run()
    at.number_input(key='audit-n').set_value(10).run(); clicked(at, 'draw')
    for _ in range(10): clicked(at, 'is-0')
    put(pets/'decisions.csv', spoilt := 'item,label\na,ant\na,bee\n')
    assert 'two decisions on' in clicked(at, 'take').error[0].value and (pets/'decisions.csv').read_text() == spoilt

def test_a_sheet_without_answers_is_not_taken(pets, capsys):
    assert main(['audit', str(pets), '--n', '10']) == 0
    was = snapshot(pets)
    assert main(['audit', str(pets), '--answers', str(pets/'audit'/'audit.csv')]) == 2 and 'has no answers yet' in capsys.readouterr().err and snapshot(pets) == was

def test_answers_on_several_labels_are_no_decisions(tmp_path, capsys):
    p = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    for i in range(20): put(tmp_path/'in'/f'{i}.png', 'no image')
    t = put(tmp_path/'in'/'t.csv', 'path,label\n' + ''.join(f'{i}.png,ant bee\n' for i in range(20)))
    found = write_result(tmp_path/'found', t, Predictions.from_arrays((p > .6).astype(int), p, CLASSES, [f'{i}.png' for i in range(20)]), root=tmp_path/'in', item_col='path', label_col='label', label_delim=' ')
    assert main(['audit', str(found), '--n', '10']) == 0
    sheet = pd.read_csv(found/'audit'/'audit.csv')
    sheet.assign(label=sheet.given_label).to_csv(tmp_path/'mine.csv', index=False)
    assert main(['audit', str(found), '--answers', str(tmp_path/'mine.csv')]) == 0 and '--decisions' not in capsys.readouterr().out
    assert sorted(os.listdir(found/'audit')) == ['audit.csv', 'audit.html', 'audit.json', 'result.json']

# ---- noisy copies

def test_names_that_are_taken_in_a_noisy_copy(tmp_path):
    "All become of one class: the second and the third of a name get a number."
    for c in CLASSES: put(tmp_path/'src'/c/'1.png', c)
    put(tmp_path/'src'/'ant'/'1-2.png', 'two')
    t = noisy_copy(tmp_path/'src', tmp_path/'dst', lambda labels, *_: np.zeros_like(labels))
    assert {p.relative_to(tmp_path/'dst').as_posix(): p.read_text() for p in (tmp_path/'dst').rglob('*.png')} == {'ant/1.png': 'ant', 'ant/1-2.png': 'two', 'ant/1-3.png': 'bee', 'ant/1-4.png': 'cow'}
    assert dict(zip(t.frame['item'], t.frame.true_label)) == {'ant/1.png': 'ant', 'ant/1-2.png': 'ant', 'ant/1-3.png': 'bee', 'ant/1-4.png': 'cow'}

def test_files_that_go_before_they_are_copied(src, tmp_path):
    source = read_source(src)
    for f in src.rglob('*.png'): f.unlink()
    with pytest.raises(ValueError, match='none of the 12 files can be read, the first is ant/ant0.png'): noisy_copy(source, tmp_path/'dst', SymmetricNoise(.2))
    assert sorted(os.listdir(tmp_path)) == ['src']

def test_a_noisy_copy_without_links(tmp_path, monkeypatch):
    "Rows of one file are copies of it where links cannot be made."
    put(tmp_path/'in'/'a.png', 'a'); put(tmp_path/'in'/'b.png', 'b')
    t = put(tmp_path/'in'/'t.csv', 'path,label\na.png,ant\na.png,bee\nb.png,bee\n')
    def other_disk(*_): raise OSError(errno.EPERM, 'Operation not permitted')
    monkeypatch.setattr(os, 'link', other_disk)
    noisy_copy(t, tmp_path/'dst', SymmetricNoise(.01))
    assert sorted(p.read_text() for p in (tmp_path/'dst').rglob('*.png')) == ['a', 'a', 'b']

@pytest.mark.parametrize('name, text', [('noise.json', '{'), ('noise.json', '['*100_000), ('noise.json', '{}'), ('noise.json', '[]'), ('noise.csv', ''), ('noise.csv', 'a,b\n1,2\n')])
def test_a_truth_that_is_damaged(src, tmp_path, name, text):
    noisy_copy(src, tmp_path/'dst', SymmetricNoise(.3))
    (tmp_path/'dst'/name).write_text(text)
    with pytest.raises(ValueError, match='is no noisy copy that can be read'): read_noise(tmp_path/'dst')
    (tmp_path/'dst'/'noise.json').unlink()
    with pytest.raises(ValueError, match='it has no noise.json'): read_noise(tmp_path/'dst')

def test_noise_by_features_of_what_cannot_be_read(src, tmp_path, capsys):
    assert main(['noise', str(src), str(tmp_path/'dst'), '--model', 'margin']) == 2 and 'none of the items can be read as an image' in capsys.readouterr().err and not (tmp_path/'dst').exists()

def test_the_demo(tmp_path, capsys, monkeypatch):
    "With ninety of its digits: the truth is kept, what is there is not made again, and no one else's folder is taken."
    monkeypatch.setattr('fastclean.data.digits_sample', partial(digits_sample, n=90))
    out = tmp_path/'out'
    assert main(['demo', '--out', str(out)]) == 0 and 'Against the truth: precision' in (first := capsys.readouterr().out)
    was = {k: v for k, v in snapshot(out).items() if not k.startswith('.work')}
    assert main(['demo', '--out', str(out)]) == 0 and first.splitlines()[-4] == capsys.readouterr().out.splitlines()[-4]
    assert {k: v for k, v in snapshot(out).items() if not k.startswith('.work')} == was and len(read_noise(out/'digits')) == 90
    assert main(['demo', '--out', str(out), '--rate', '.3']) == 2 and 'other settings (rate)' in capsys.readouterr().err
    assert main(['demo', '--out', str(tmp_path)]) == 2 and 'not a result of fastclean' in capsys.readouterr().err

# ---- files and folders that are whole or not there

def begun(folder, pid, name='x', host=None):
    "What a process has begun to write."
    tmp = folder/f'.{name}-{zlib.crc32((host or socket.gethostname()).encode()):08x}.{pid}-abc_12.tmp'
    return put(tmp/'new', 'half')

def gone():
    "The number of a process that has ended."
    p = subprocess.Popen([sys.executable, '-c', '']); p.wait()
    return p.pid

def test_only_what_is_of_killed_processes_goes(tmp_path, monkeypatch):
    dead = [begun(tmp_path/'a', gone(), n) for n in ('x', 'x y\nz', 'other')] + [begun(tmp_path, 10**30)]
    stays = [begun(tmp_path, os.getpid()), begun(tmp_path, gone(), host='another machine'), put(tmp_path/'.mine.tmp'/'new', 'mine'), put(tmp_path/'.x-1234.tmp', 'mine'), put(tmp_path/'a'/'x.tmp', 'mine')]
    sweep_killed(tmp_path)
    assert not any(o.exists() for o in dead) and all(o.exists() for o in stays)
    strange, kill = begun(tmp_path, gone()), os.kill
    def denied(pid, sig): raise PermissionError(errno.EPERM, 'Operation not permitted')     # of another user: it is there
    monkeypatch.setattr(os, 'kill', denied); sweep_killed(tmp_path); assert strange.exists()
    monkeypatch.setattr(os, 'kill', kill); sweep_killed(tmp_path); assert not strange.exists()

def test_by_name_only_what_would_have_had_it(tmp_path):
    mine, longer, other, deep = begun(tmp_path, pid := gone(), 'out'), begun(tmp_path, pid, 'o'*40), begun(tmp_path, pid, 'in'), begun(tmp_path/'sub', pid, 'out')
    sweep_killed(tmp_path, 'out'); assert [o.exists() for o in (mine, longer, other, deep)] == [False, True, True, True]
    sweep_killed(tmp_path, 'o'*50); assert not longer.exists() and other.exists()

@pytest.mark.parametrize('replaced', [False, True])
def test_killed_between_two_renames(tmp_path, replaced):
    "The old folder goes back where nothing took its place; where the new one is there, it goes, and so does what never stood beside it."
    tmp = begun(tmp_path, gone(), 'out').parent
    put(tmp/'old'/'out'/'a.txt', 'old'); put(tmp/'old'/'another'/'a.txt', 'not ours')
    if replaced: (tmp_path/'out').mkdir()   # nothing keeps a rename from an empty one
    sweep_killed(tmp_path, 'out')
    assert below(tmp_path) == ({} if replaced else {'out/a.txt': b'old'})

@pytest.mark.parametrize('folder', [False, True])
def test_whole_or_not_at_all(tmp_path, folder):
    at = tmp_path/'deep'/'x'
    write = (lambda f, text: put(f/'a.txt', text)) if folder else (lambda f, text: f.write_text(text))
    read = lambda: (at/'a.txt' if folder else at).read_text()
    with pytest.raises(Killed):
        with atomic_path(at, folder) as f: write(f, 'first'); raise Killed
    assert os.listdir(at.parent) == []
    for text in ('one', 'two'):
        with atomic_path(at, folder) as f: write(f, text)
        assert read() == text and os.listdir(at.parent) == ['x']
    if folder: begun(at.parent, gone())
    with pytest.raises(Killed):
        with atomic_path(at, folder) as f: write(f, 'three'); raise Killed
    assert read() == 'two' and os.listdir(at.parent) == ['x']

# ---- output folders

def test_an_output_folder(tmp_path):
    out = tmp_path/'deep'/'out'
    assert not claim_output(out, dict(a=1, b=Path('x'))) and json.loads((out/'source.json').read_text()) == dict(settings=dict(a=1, b='x'))
    killed_one = begun(out, gone())
    for o in ('summary.json', 'issues.csv', 'mine.txt', 'predictions/a.npy', '.work/features/f.npy', '.work/fold/0', '.work/x'): put(out/o, o)
    was = snapshot(out)
    assert claim_output(out, dict(b='x', a=1)) and not killed_one.exists() and {k: v for k, v in was.items() if '.tmp' not in k} == snapshot(out)
    with pytest.raises(ValueError, match=r'a result of other settings \(a, b, c\): choose another folder'): claim_output(out, dict(a=2, c=0))
    assert {k: v for k, v in was.items() if '.tmp' not in k} == snapshot(out)
    assert not claim_output(out, dict(a=2, c=0), force=True)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob('*') if p.is_file()) == ['.work/features/f.npy', 'mine.txt', 'source.json'] and claim_output(out, dict(a=2, c=0)) is False

@pytest.mark.parametrize('force', [False, True])
def test_what_is_no_output_folder(tmp_path, force):
    with pytest.raises(ValueError, match='x.txt is a file'): claim_output(put(tmp_path/'x.txt', 'mine'), {}, force)
    for name, text in (('a.txt', 'mine'), ('source.json', '{'), ('source.json', '[]'), ('source.json', '{"a": 1}'), ('source.json', '\udcff'.encode('utf-8', 'surrogateescape').decode('latin-1'))):
        put(tmp_path/'out'/name, text); was = snapshot(tmp_path/'out')
        with pytest.raises(ValueError, match='not empty and not a result of fastclean'): claim_output(tmp_path/'out', {}, force)
        assert snapshot(tmp_path/'out') == was
        shutil.rmtree(tmp_path/'out')

# What was lost once.

def below(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}

def test_files_that_come_while_a_copy_is_replaced(src, one, tmp_path):
    dst = tmp_path/'dst'
    correct_copy(src, dst, one)
    def late(files): put(dst/'results.txt', 'hours of work'); yield from files
    try: correct_copy(src, dst, said(tmp_path/'two.csv', ('ant/ant0.png', 'cow')), force=True, progress=late)
    except ValueError: pass
    assert b'hours of work' in below(tmp_path).values()

def test_a_folder_of_somebody_else_that_comes_while_a_copy_is_made(src, one, tmp_path):
    dst = tmp_path/'dst'
    def late(files): put(dst/'thesis.txt', 'mine'); yield from files
    try: correct_copy(src, dst, one, progress=late)
    except ValueError: pass
    assert b'mine' in below(tmp_path).values()
    try: correct_copy(src, dst, said(tmp_path/'two.csv', ('ant/ant0.png', 'cow')), force=True)
    except ValueError: pass
    assert b'mine' in below(tmp_path).values()

def test_the_first_line_of_a_journal_is_cut_off(src, tmp_path):
    "As on a full disk."
    dst, plan = tmp_path/'dst', said(tmp_path/'c.csv', ('cow/cow0.png', 'bee'))
    journal = stopped(src, dst, plan, 1)/'.fastclean'/'files.jsonl'
    journal.write_bytes(journal.read_bytes()[:5])
    correct_copy(src, dst, plan)
    assert len(read_journal(dst)) == 12 and undo(dst) == 1

def test_an_old_folder_is_not_lost_with_the_new_one(tmp_path, monkeypatch):
    put(tmp_path/'out'/'old.txt', 'old')
    real = os.replace
    def full(a, b):
        if Path(b) == tmp_path/'out' and Path(a).name == 'new': raise OSError(errno.ENOSPC, 'No space left on device')
        real(a, b)
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError):
        with atomic_path(tmp_path/'out', folder=True) as f: put(f/'new.txt', 'new')
    assert below(tmp_path) == {'out/old.txt': b'old'}

def test_an_old_folder_is_not_swept_away(tmp_path):
    "Killed between the two renames: the next run puts it back."
    put(tmp_path/'out'/'old.txt', 'old')
    if not (pid := os.fork()):
        real = os.replace
        def end(a, b):
            if Path(a).name == 'new': os._exit(0)
            real(a, b)
        os.replace = end
        with atomic_path(tmp_path/'out', folder=True) as f: put(f/'new.txt', 'new')
        os._exit(1)
    os.waitpid(pid, 0)
    sweep_killed(tmp_path, 'out')
    assert b'old' in below(tmp_path).values()

def test_files_that_somebody_put_into_a_noisy_copy(src, tmp_path):
    noisy_copy(src, dst := tmp_path/'dst', SymmetricNoise(.3))
    put(dst/'results.txt', 'hours of work')
    with pytest.raises(ValueError): noisy_copy(src, dst, SymmetricNoise(.2), force=True)
    assert (dst/'results.txt').exists()

def test_a_review_does_not_write_over_a_table_of_issues(tmp_path):
    from fastclean.issues import write_issues
    write_issues(t := table(), f := tmp_path/'issues.csv'); was = f.read_bytes()
    with pytest.raises(ValueError): Review(t, f).decide('0.png', 'drop')
    assert f.read_bytes() == was

@pytest.mark.parametrize('name', ['d.tsv', 'd.parquet', 'd.csv.gz'])
def test_decisions_are_read_as_they_were_written(tmp_path, name):
    try: Review(table(), tmp_path/name).decide('0.png', 'drop')
    except ValueError: return
    assert len(Review(table(), tmp_path/name)) == 1

def test_other_columns_of_decisions_stay(tmp_path):
    put(d := tmp_path/'d.csv', 'item,label,who\n1.png,ant,ann\n')
    Review(table(), d).decide('0.png', 'drop')
    assert 'ann' in d.read_text()

@pytest.mark.parametrize('text', ['['*100_000, '{"settings": "x"}', '{"settings": [1]}', '{"settings": [{}]}', '{"settings": null}'])
def test_a_damaged_source_json(tmp_path, text):
    put(tmp_path/'out'/'source.json', text)
    with pytest.raises(ValueError, match='not a result of fastclean'): claim_output(tmp_path/'out', dict(a=1))

def test_a_damaged_noise_json(src, tmp_path, capsys):
    noisy_copy(src, dst := tmp_path/'dst', SymmetricNoise(.3))
    put(dst/'noise.json', '['*100_000)
    assert main(['noise', str(src), str(dst)]) == 2

@pytest.mark.parametrize('line', [{}, dict(size=5), dict(size=5, mtime=1)])
def test_a_journal_that_lacks_something(src, one, tmp_path, line):
    "A file of which nothing is known stays where it is; one that was moved cannot go back."
    dst = tmp_path/'dst'
    correct_copy(src, dst, one)
    j = dst/'.fastclean'/'files.jsonl'
    def lack(name): j.write_text(''.join(json.dumps(dict(path=json.loads(o)['path'], **line)) + '\n' if name in o else o for o in j.read_text().splitlines(True)))
    lack('cow/cow0.png'); whole = j.read_text()
    lack('ant0'); moved = j.read_text()
    with pytest.raises(ValueError, match='journal does not know'): undo(dst)
    j.write_text(whole)
    assert moved != whole and undo(dst) == 1 and below(dst) == below(src)

def test_a_source_that_has_our_last_name(src, one, tmp_path):
    put(src/'.fastclean.undo'/'x', 'x')
    with pytest.raises(ValueError, match='run undo on it again, or rename it'): correct_copy(src, tmp_path/'dst', one)
    assert not (tmp_path/'dst').exists()

def test_files_of_rows_without_a_label(tmp_path):
    for i in range(6): put(tmp_path/'in'/f'{i}.png', str(i))
    t = put(tmp_path/'in'/'t.csv', 'path,label\n0.png,\n' + ''.join(f'{i}.png,{"xy"[i % 2]}\n' for i in range(1, 6)))
    correct_copy(t, tmp_path/'dst', said(tmp_path/'c.csv', ('1.png', 'x')), drop_unlabelled=True)
    assert all((tmp_path/'dst'/f'{i}.png').is_file() for i in range(6))

def test_a_json_of_that_name_makes_no_noisy_copy(src, tmp_path):
    put(tmp_path/'mine'/'precious.txt', 'mine'); put(tmp_path/'mine'/'noise.json', '{"level": 3}')
    with pytest.raises(ValueError, match='is not a noisy copy'): noisy_copy(src, tmp_path/'mine', SymmetricNoise(.3), force=True)
    assert (tmp_path/'mine'/'precious.txt').exists()

def test_a_link_that_somebody_put_into_a_noisy_copy(src, tmp_path):
    noisy_copy(src, dst := tmp_path/'dst', SymmetricNoise(.3))
    (dst/'mine').symlink_to(src)
    with pytest.raises(ValueError, match="'mine'"): noisy_copy(src, dst, SymmetricNoise(.2), force=True)
    assert (dst/'mine').is_symlink()

def test_files_without_a_label_are_the_noisy_copys_own(src, tmp_path):
    put(src/'unlabelled'/'u.png', 'u')
    noisy_copy(src, dst := tmp_path/'dst', SymmetricNoise(.3))
    for f in dst.rglob('*.png'): f.chmod(0o600)
    os.utime(dst/'noise.json')
    noisy_copy(src, dst, SymmetricNoise(.2), force=True)
    assert [o for o in below(dst) if o.endswith('u.png')]
    put(dst/'notes.txt', 'mine'); os.utime(dst/'noise.json')
    with pytest.raises(ValueError, match="'notes.txt'"): noisy_copy(src, dst, SymmetricNoise(.1), force=True)

def test_a_file_where_an_item_was(src, one, tmp_path):
    dst, moved = tmp_path/'dst', read_corrections(one).frame['item'].iloc[0]
    correct_copy(src, dst, one)
    put(dst/moved, 'mine')
    with pytest.raises(ValueError, match='not of the copy'): correct_copy(src, dst, said(tmp_path/'two.csv', ('cow/cow1.png', 'ant')), force=True)
    assert (dst/moved).read_bytes() == b'mine'

def test_another_copy_that_comes_while_one_is_made(src, one, tmp_path):
    correct_copy(src, tmp_path/'other', said(tmp_path/'two.csv', ('cow/cow1.png', 'ant')))
    was = below(tmp_path/'other')
    def late(files): os.rename(tmp_path/'other', tmp_path/'dst'); yield from files
    with pytest.raises(ValueError, match='of other data or settings'): correct_copy(src, tmp_path/'dst', one, progress=late)
    assert below(tmp_path/'dst') == was

def test_a_folder_that_was_replaced_does_not_come_back(tmp_path):
    "Killed while the old one is removed, and then the new one is removed, too."
    put(tmp_path/'out'/'old.txt', 'old')
    if not (pid := os.fork()):
        shutil.rmtree = lambda *args, **kwargs: os._exit(0)
        with atomic_path(tmp_path/'out', folder=True) as f: put(f/'new.txt', 'new')
        os._exit(1)
    os.waitpid(pid, 0)
    (tmp_path/'out'/'new.txt').unlink(); (tmp_path/'out').rmdir()
    sweep_killed(tmp_path, 'out')
    assert below(tmp_path) == {}

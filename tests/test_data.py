"Sources: every layout that people have, and every input that must stop or must not."
import os, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fastclean.core import encode_name
from fastclean.data import digits_sample, item_path, read_source, read_table, split_of

data = Path.home()/'.fastai'/'data'

def touch(root, *paths):
    for p in paths:
        (Path(root)/p).parent.mkdir(parents=True, exist_ok=True)
        (Path(root)/p).touch()

def table(folder, text, name='t.csv'):
    (f := folder/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return f

def rows(src): return {r.item: (r.split, r.given_label) for r in src.frame.itertuples()}

def fails(contains, *args, **kw):
    with pytest.raises(ValueError) as e: read_source(*args, **kw)
    msg = str(e.value)
    assert contains in msg, msg
    assert '\n' not in msg
    msg.encode()

# Folders

@pytest.mark.parametrize('names', [('train', 'valid', 'test'), ('training', 'validation', 'testing'), ('Training_Set', 'val', 'test_set'), ('train-images', 'dev', 'Test')])
def test_splits_are_known_by_their_usual_names(tmp_path, names):
    for s in names: touch(tmp_path, f'{s}/cat/1.png', f'{s}/dog/1.png')
    src = read_source(tmp_path)
    assert src.vocab == ['cat', 'dog']
    assert rows(src) == {f'{n}/{c}/1.png': (s, c) for n, s in zip(names, ('train', 'valid', 'test')) for c in ('cat', 'dog')}

@pytest.mark.parametrize('only,split', [('train', 'train'), ('test', 'test')])
def test_one_split_folder_alone(tmp_path, only, split):
    touch(tmp_path, f'{only}/cat/1.png', f'{only}/dog/1.png')
    assert set(read_source(tmp_path).frame.split) == {split}

def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, 'train/1.png', 'plane/1.png', 'ship/1.png')
    src = read_source(tmp_path)
    assert src.vocab == ['plane', 'ship', 'train'] and set(src.frame.split) == {'train'}
    touch(tmp_path, 'valid/1.png')
    assert read_source(tmp_path).vocab == ['plane', 'ship', 'train', 'valid']

def test_folders_beside_the_splits_are_counted(tmp_path):
    touch(tmp_path, 'train/cat/1.png', 'train/dog/1.png', 'valid/cat/2.png', 'figures/a.png')
    src = read_source(tmp_path)
    assert len(src) == 3 and src.settings['passed_over'] == {'folders beside the splits': 1}
    touch(tmp_path/'b', 'train/cat/1.png', 'train/dog/1.png', 'figures/a.png')
    assert read_source(tmp_path/'b').vocab == ['cat', 'dog']

def test_a_wrapping_folder_is_passed_through(tmp_path):
    touch(tmp_path, 'archive/set/train/cat/1.png', 'archive/set/train/dog/1.png', 'archive/set/valid/dog/2.png')
    assert rows(read_source(tmp_path))['archive/set/valid/dog/2.png'] == ('valid', 'dog')

def test_unlabelled_folders(tmp_path):
    touch(tmp_path, 'cat/1.png', 'dog/1.png', 'unlabelled/a.png', 'unlabelled/deep/b.png')
    src = read_source(tmp_path)
    assert src.vocab == ['cat', 'dog'] and list(src.given) == [0, 1, -1, -1]
    assert list(src.frame.split) == ['train', 'train', 'unlabelled', 'unlabelled']
    assert src.frame.given_label[2] is None

def test_unlabelled_beside_and_inside_splits_and_a_flat_test_folder(tmp_path):
    touch(tmp_path, 'train/cat/1.png', 'train/dog/1.png', 'train/unlabeled/u.png', 'unsup/v.png', 'test/w.png')
    got = rows(read_source(tmp_path))
    assert {k for k, v in got.items() if v == ('unlabelled', None)} == {'train/unlabeled/u.png', 'unsup/v.png', 'test/w.png'}

def test_subfolders_of_a_class_belong_to_it(tmp_path):
    touch(tmp_path, *(f'{c}/{i}.png' for c in ('cat', 'cat/extra', 'dog') for i in range(9)))
    assert rows(read_source(tmp_path))['cat/extra/2.png'] == ('train', 'cat')

def test_taxonomies_take_the_last_folder_as_fastai_does(tmp_path):
    touch(tmp_path, *(f'{s}/{c}/{i}.png' for s in ('train', 'valid') for c in ('animal/cat', 'animal/dog', 'vehicle/car') for i in range(3)))
    src = read_source(tmp_path)
    assert src.vocab == ['car', 'cat', 'dog'] and any('the last name' in o for o in src.settings['notes'])
    assert read_source(tmp_path, label_from='first').vocab == ['animal', 'vehicle']
    assert read_source(tmp_path, label_from='path').vocab == ['animal/cat', 'animal/dog', 'vehicle/car']

def test_nested_folders_that_could_mean_two_things_are_asked_about(tmp_path):
    touch(tmp_path, *(f'{c}/{s}/{i}.png' for c in ('cat', 'dog') for s in ('s1', 's2') for i in range(4)))
    fails("label_from='first', 'last' or 'path'", tmp_path)
    assert read_source(tmp_path, label_from='first').vocab == ['cat', 'dog']
    fails('must be', tmp_path, label_from='middle')

def test_a_folder_for_each_item_is_no_class(tmp_path):
    touch(tmp_path, *(f'{c}/item{c}{i}/img.png' for c in ('cat', 'dog') for i in range(5)))
    assert read_source(tmp_path).vocab == ['cat', 'dog']

def test_what_is_no_image_is_counted_and_hidden_files_are_not_there(tmp_path):
    touch(tmp_path, 'cat/1.PNG', 'cat/a.txt', 'cat/noext', 'cat/.hidden.png', '.git/x.png', 'dog/1.jpeg', 'dog/Thumbs.db', 'empty/.keep')
    src = read_source(tmp_path)
    assert len(src) == 2 and src.vocab == ['cat', 'dog'] and src.settings['passed_over'] == {'files that are not images': 3}

def test_odd_and_long_names(tmp_path):
    odd = ['a b', 'ż', "'\"<&>", '$x^2$', '猫', 'x'*255, os.fsdecode(b'\xff\xfe'), '-rf', '%s', 'cat..', 'a\nb', r'a\x41']
    touch(tmp_path, *(f'{c}/{c[:200]}.png' for c in odd))
    src = read_source(tmp_path)
    assert src.vocab == sorted(map(encode_name, odd)) and all(f.is_file() for f in src.files())
    assert all(item_path(i, src.root).is_file() for i in src.frame['item'])
    src.frame.drop(columns='path').to_parquet(tmp_path/'t.parquet')

def test_ten_thousand_classes(tmp_path):
    for i in range(10_000): os.mkdir(tmp_path/f'{i:04d}'); (tmp_path/f'{i:04d}'/'a.png').touch()
    src = read_source(tmp_path)
    assert len(src.vocab) == 10_000 and (src.given == np.arange(10_000)).all()

# Links

def test_links_share_a_group_with_what_they_lead_to(tmp_path):
    touch(tmp_path, 'cat/1.png', 'cat/2.png', 'dog/3.png')
    os.symlink(tmp_path/'cat'/'1.png', tmp_path/'dog'/'link.png')
    os.link(tmp_path/'cat'/'2.png', tmp_path/'dog'/'hard.png')
    os.symlink('../dog', tmp_path/'cat'/'dogs')
    g = read_source(tmp_path).frame.set_index('item').group
    assert g['cat/1.png'] == g['dog/link.png'] == g['cat/dogs/link.png'] and g['cat/2.png'] == g['dog/hard.png'] and g['dog/3.png'] == g['cat/dogs/3.png']
    assert g['cat/1.png'] != g['cat/2.png'] != g['dog/3.png']

def test_links_in_a_circle_come_to_an_end(tmp_path):
    folders = [f'c{i:02d}' for i in range(20)]
    touch(tmp_path, *(f'{c}/1.png' for c in folders))
    for a in folders:
        for b in folders: os.symlink(tmp_path/b, tmp_path/a/f'to_{b}')
        os.symlink(tmp_path, tmp_path/a/'up')
    os.symlink('.', tmp_path/'self')
    src = read_source(tmp_path)
    assert len(src) == 400 and src.frame.group.nunique() == 20 and src.vocab == folders

def test_broken_links_and_pipes_are_passed_over(tmp_path):
    touch(tmp_path, 'cat/1.png', 'dog/1.png')
    os.symlink('nowhere.png', tmp_path/'cat'/'2.png'); os.symlink('3.png', tmp_path/'cat'/'3.png')
    os.mkfifo(tmp_path/'dog'/'pipe.png')
    src = read_source(tmp_path)
    assert len(src) == 2 and src.settings['passed_over'] == {'broken links': 2, 'files that are not images': 1}

def test_a_linked_class_folder(tmp_path):
    touch(tmp_path, 'elsewhere/1.png', 'set/dog/1.png')
    os.symlink(tmp_path/'elsewhere', tmp_path/'set'/'cat')
    assert read_source(tmp_path/'set').vocab == ['cat', 'dog']

# Folders that cannot be meant

def test_folder_errors(tmp_path):
    fails('is not there', tmp_path/'nowhere')
    fails('no image found (a folder per class', tmp_path)
    touch(tmp_path, 'a.txt')
    fails('no image found, but 1 other files; read a table with its path: a.txt', tmp_path)
    touch(tmp_path, 'cat/1.png')
    fails("only one class, 'cat'", tmp_path)
    touch(tmp_path, 'dog/1.png')
    fails('belong to tables', tmp_path, label_col='label')
    fails('kind must be', tmp_path, kind='sound')
    fails('belongs to tables', tmp_path, kind='text')
    touch(tmp_path, 'stray.png')
    fails("1 images lie in no class folder ('stray.png' is the first)", tmp_path)
    src = read_source(tmp_path, drop_unlabelled=True)
    assert len(src) == 2 and src.settings['dropped'] == 1
    touch(tmp_path/'flat', 'a.png', 'b.png')
    fails('lie in no class folder', tmp_path/'flat', drop_unlabelled=True)
    fails('neither a folder nor', tmp_path/'cat'/'1.png')

# Tables

def test_labels_stay_as_they_are_written(tmp_path):
    odd = ['NA', 'None', '01', '1', '1.0', 'nan', 'NULL', 'True', '-', '1e5', 'ż', '"q"', 'a,b', 'two\nlines', ' lead', '#N/A', 'inf']
    touch(tmp_path, *(f'{i}.png' for i in range(len(odd))))
    pd.DataFrame(dict(path=[f'{i}.png' for i in range(len(odd))], label=odd)).to_csv(tmp_path/'t.csv', index=False)
    src = read_source(tmp_path/'t.csv')
    assert src.vocab == sorted(odd) and list(src.frame.given_label) == odd
    pd.DataFrame(dict(path=[f'{i}.png' for i in range(len(odd))], label=odd)).to_parquet(tmp_path/'t.parquet')
    assert list(read_source(tmp_path/'t.parquet').frame.given_label) == odd

@pytest.mark.parametrize('values,names', [([1, 0, 10], ['1', '0', '10']), ([1., 0., None], ['1', '0', None]), ([True, False, True], ['True', 'False', 'True']),
                                          (pd.Categorical(['b', 'a', None]), ['b', 'a', None])])
def test_parquet_labels_of_any_type(tmp_path, values, names):
    touch(tmp_path, 'a.png', 'b.png', 'c.png')
    pd.DataFrame(dict(label=values), index=pd.Index(['a.png', 'b.png', 'c.png'], name='path')).to_parquet(tmp_path/'t.parquet')
    assert list(read_source(tmp_path/'t.parquet', drop_unlabelled=True).frame.given_label) == [n for n in names if n]

def test_missing_labels(tmp_path):
    touch(tmp_path, 'a.png', 'b.png', 'c.png', 'd.png')
    f = table(tmp_path, 'path,label\na.png,NA\nb.png,\nc.png,"  "\nd.png,x\n')
    fails("2 of 4 rows have no label in column 'label', the first is row 1", f)
    src = read_source(f, drop_unlabelled=True)
    assert list(src.frame['item']) == ['a.png', 'd.png'] and src.settings['dropped'] == 2
    f = table(tmp_path, 'path,label,split\na.png,y,train\nb.png,,unlabelled\nc.png,ignored,unlabelled\nd.png,x,val\n')
    assert rows(read_source(f)) == {'a.png': ('train', 'y'), 'b.png': ('unlabelled', None), 'c.png': ('unlabelled', None), 'd.png': ('valid', 'x')}
    fails('no row has a label', table(tmp_path, 'path,label\na.png,\n'), drop_unlabelled=True)

@pytest.mark.parametrize('text,name', [('path;label\na.png;x\nb.png;y\n', 't.csv'), ('path\tlabel\na.png\tx\nb.png\ty\n', 't.tsv'), ('\ufeffpath,label\r\na.png,x\r\nb.png,y\r\n', 't.csv'),
                                       ('path\tlabel\na.png\tx\nb.png\ty', 't.txt'), ('label , path\nx,./a.png\ny,b.png\n', 'T.CSV'), ('path,label\n"a.png",x\n\nb.png,y\n', 't.csv')])
def test_ways_to_write_a_table(tmp_path, text, name):
    touch(tmp_path, 'a.png', 'b.png')
    src = read_source(table(tmp_path, text, name))
    assert rows(src) == {'a.png': ('train', 'x'), 'b.png': ('train', 'y')} and src.settings['item_col'] == 'path'

def test_paths_in_a_table(tmp_path):
    root, out = tmp_path/'root', tmp_path/'out'
    odd = os.fsdecode(b'caf\xe9.png')
    touch(root, 'a/1.png', odd, 'w/2.png', r'a\x41.png', 'x#2.png'); touch(out, 'o.png')
    f = table(root, b'file,class\n%s,p\ncaf\xe9.png,q\ncaf\\xe9.png,q\nw\\2.png,p\na\\x41.png,q\n../out/o.png,p\n%s,q\nx#2.png,p\n' % (os.fsencode(root/'a/1.png'), os.fsencode(out/'o.png')))
    src = read_source(f)
    assert list(src.frame['item']) == ['a/1.png', r'caf\xe9.png', r'caf\xe9.png#2', 'w/2.png', r'a\x5cx41.png', '../out/o.png', (out/'o.png').as_posix(), 'x#2.png']
    assert src.frame.group.tolist() == [0, 1, 1, 2, 3, 4, 4, 5] and src.settings['repeated'] == 2 and src.settings['outside'] == 2
    assert all(o.is_file() for o in src.files()) and all(item_path(o, root).is_file() for o in src.frame['item'])

def test_root_of_a_table(tmp_path):
    touch(tmp_path, 'img/a.png', 'img/b.png')
    (tmp_path/'lists').mkdir()
    f = table(tmp_path/'lists', 'path,label\na.png,x\nb.png,y\n')
    fails("none of the 2 files is there, the first is 'a.png'", f)
    assert all(o.is_file() for o in read_source(f, root=tmp_path/'img').files())

def test_missing_files_stay_as_rows(tmp_path):
    touch(tmp_path, 'a.png', 'd/e.png')
    src = read_source(table(tmp_path, 'path,label\ngone.png,x\na.png,y\nd,x\n' + 'n'*5000 + ',x\n'))
    assert len(src) == 4 and src.settings['missing'] == 3

def test_a_pipe_in_a_table_is_refused(tmp_path):
    touch(tmp_path, 'a.png'); os.mkfifo(tmp_path/'p.png')
    fails('not a file but a pipe', table(tmp_path, 'path,label\na.png,x\np.png,y\n'))

def test_repeated_paths_are_told_apart(tmp_path):
    touch(tmp_path, 'a.png', 'b.png')
    src = read_source(table(tmp_path, 'path,label\na.png,x\na.png,y\n./a.png,x\nb.png,x\n'))
    assert list(src.frame['item']) == ['a.png', 'a.png#2', 'a.png#3', 'b.png'] and src.frame.group.tolist() == [0, 0, 0, 1]
    src.frame.drop(columns=['path', 'group']).to_csv(tmp_path/'again.csv', index=False)
    again = read_source(tmp_path/'again.csv')
    assert again.frame.equals(src.frame) and again.settings['missing'] == 0

@pytest.mark.parametrize('header,item,label', [('path,label', 'path', 'label'), ('image_id,breed', 'image_id', 'breed'), ('Filename,Class', 'Filename', 'Class'), ('n,item,y', 'item', 'y'),
                                               ('path,true_label,given_label', 'path', 'given_label'), ('item,split,given_label,predicted_label', 'item', 'given_label')])
def test_columns_are_found(tmp_path, header, item, label):
    cols = header.split(',')
    touch(tmp_path, 'a.png', 'b.png')
    line = lambda f, y: ','.join({item: f, label: y}.get(c, 'train') for c in cols)
    src = read_source(table(tmp_path, f"{header}\n{line('a.png', 'u')}\n{line('b.png', 'v')}\n"))
    assert (src.settings['item_col'], src.settings['label_col']) == (item, label) and src.vocab == ['u', 'v']

def test_column_errors(tmp_path):
    touch(tmp_path, 'a.png', 'b.png')
    f = table(tmp_path, 'path,label,class\na.png,x,y\nb.png,y,x\n')
    fails("could be 'label' or 'class': give label_col; the columns are path, label, class", f)
    fails("there is no column 'lable' (label_col)", f, label_col='lable')
    fails("there is no column 'file' (item_col)", f, item_col='file')
    fails("there is no column 'part'", f, label_col='label', split_col='part')
    fails("there is no column 'part'", f, label_col='label', valid_col='part')
    fails('was not found: give label_col', table(tmp_path, 'path,a,b\na.png,x,y\nb.png,y,x\n'))
    fails(r'the columns are path, caf\xe9, b', table(tmp_path, b'path,caf\xe9,b\na.png,x,y\nb.png,y,x\n'))
    fails("could be 'image' or 'mask'", table(tmp_path, 'image,mask,label\na.png,b.png,y\n'))
    fails('has a column twice', table(tmp_path, 'path, path,label\na.png,b.png,y\n'))
    fails('have no path', table(tmp_path, 'path,label\n,x\na.png,y\n'))
    fails('no rows', table(tmp_path, 'path,label\n'))
    fails('only one class', table(tmp_path, 'path,label\na.png,x\nb.png,x\n'))

@pytest.mark.parametrize('text', ['', '\n', 'a,b\n1,2,3\n', b'\xff\xfe\x00p\x00a', b'\x00'*50, 'path,label\n"a.png,x\n'])
def test_tables_that_are_none(tmp_path, text): fails('', table(tmp_path, text))

def test_a_parquet_file_that_is_none(tmp_path): fails('cannot be read as a table', table(tmp_path, 'no', 't.parquet'))

def test_splits_of_a_table(tmp_path):
    touch(tmp_path, *'abcd')
    lines = lambda col, vals: f'path,label,{col}\n' + ''.join(f'{f},{y},{v}\n' for f, y, v in zip('abcd', 'xyxy', vals))
    split = lambda *a, **k: list(read_source(table(tmp_path, lines(*a)), **k).frame.split)
    assert split('is_valid', ['False', 'True', '0', '1']) == ['train', 'valid', 'train', 'valid']
    assert split('is_valid', ['no', 'YES', '', 't']) == ['train', 'valid', 'train', 'valid']
    assert split('split', ['training', 'val', 'Test', 'train']) == ['train', 'valid', 'test', 'train']
    assert split('part', ['train', 'dev', 'test', 'train'], split_col='part', label_col='label') == ['train', 'valid', 'test', 'train']
    assert split('held', ['1', '0', '0', '0'], valid_col='held', label_col='label') == ['valid', 'train', 'train', 'train']
    assert split('split', ['1', '2', '3', '4'], label_col='label') == ['train']*4
    assert split('is_valid', ['1', '0', '0', '0'], valid_col=None, label_col='label') == ['train']*4
    fails("'is_valid' must hold True or False; got 'maybe'", table(tmp_path, lines('is_valid', ['maybe', '0', '0', '0'])))
    fails("'part' must hold train, valid", table(tmp_path, lines('part', ['1', '2', '3', '4'])), split_col='part', label_col='label')

def test_a_table_and_a_folder_say_the_same(tmp_path):
    touch(tmp_path, *(f'{s}/{c}/{i}.png' for s in ('train', 'valid') for c in ('NA', 'ż', '01') for i in range(5)))
    src = read_source(tmp_path)
    src.frame[['item', 'split', 'given_label']].sample(frac=1, random_state=0).to_csv(tmp_path/'t.csv', index=False)
    back = read_source(tmp_path/'t.csv')
    assert rows(back) == rows(src) and back.vocab == src.vocab

def test_read_table_leaves_empty_cells_empty(tmp_path):
    assert read_table(table(tmp_path, 'a,b\n,NA\n')).to_dict('records') == [{'a': '', 'b': 'NA'}]

# The sample

def test_the_sample_is_the_same_each_time_and_takes_no_foreign_folder(tmp_path):
    a, b = digits_sample(tmp_path/'a'), digits_sample(tmp_path/'b')
    src = read_source(a)
    assert src.vocab == list('0123456789') and len(src) == 1797
    assert all((a/i).read_bytes() == (b/i).read_bytes() for i in src.frame['item'])
    assert sum(f.stat().st_size for f in src.files()) < 2e6
    before = (a/'0'/'0000.png').stat().st_mtime_ns
    assert digits_sample(a) == a and (a/'0'/'0000.png').stat().st_mtime_ns == before
    touch(tmp_path, 'mine/thesis.doc')
    with pytest.raises(ValueError, match='not the sample'): digits_sample(tmp_path/'mine')
    assert (tmp_path/'mine'/'thesis.doc').exists()

def test_the_module_is_light():
    code = "import sys, fastclean.data; print([m for m in ('torch', 'fastai', 'sklearn', 'PIL', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

def test_split_of(): assert [split_of(o) for o in ('TRAIN', 'valid_images', 'x', '', 'data', None)] == ['train', 'valid', None, None, None, None]

# Real data

@pytest.mark.skipif(not data.exists(), reason='data sets are not here')
@pytest.mark.parametrize('path,kw,n,k,splits', [('imagenette2-160/noisy_imagenette.csv', dict(label_col='noisy_labels_5'), 13394, 10, ['train', 'valid']), ('imagenette2-160', {}, 13394, 10, ['train', 'valid']),
                                               ('cifar10/human_labels.csv', dict(label_col='human_label'), 50000, 10, ['train']), ('mnist_png', {}, 70000, 10, ['test', 'train']),
                                               ('cats_dogs', {}, 4000, 2, ['test', 'train'])])
def test_real_sources(path, kw, n, k, splits):
    if not (data/path).exists(): pytest.skip(f'{path} is not here')
    src = read_source(data/path, **kw)
    assert (len(src), len(src.vocab), sorted(set(src.frame.split)), src.settings['missing']) == (n, k, splits, 0)
    assert src.files()[-1].is_file() and (src.given >= 0).all()
    if 'csv' in path: fails('give label_col', data/path)

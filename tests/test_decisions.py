"What a person has decided: reading it, and what it does to a run of the command line."
import json

import pandas as pd
import pytest

from fastclean.cli import main
from fastclean.data import digits_sample, read_source
from fastclean.decisions import apply_decisions, read_decisions
from fastclean.issues import read_issues

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "200 digits, of which every tenth lies in the wrong folder."
    src, dst = digits_sample(tmp_path_factory.mktemp('all')/'digits'), tmp_path_factory.mktemp('some')
    for i, f in enumerate(sorted(src.rglob('*.png'))[::9]):
        to = dst/(str((int(f.parent.name) + 1) % 10) if i % 10 == 0 else f.parent.name)
        to.mkdir(exist_ok=True); (to/f.name).write_bytes(f.read_bytes())
    return dst

def write(path, text): path.write_text(text); return path

@pytest.mark.parametrize('text, message', [('a,b\n1,2\n', "no column 'item'"), ('item,other\nx,1\n', "no column 'label'"), ('item,label\nnowhere.png,1\n', 'not in the data'),
                                           ('item,label\n{0},1\n{0},2\n', 'two decisions'), ('item,label\n{0},zebra\n', 'not one of the classes')])
def test_what_cannot_be_used(folder, tmp_path, text, message):
    src = read_source(folder)
    with pytest.raises(ValueError, match=message): read_decisions(write(tmp_path/'d.csv', text.format(src.frame['item'][0])), src)

def test_an_issues_table_will_do(folder, tmp_path):
    src = read_source(folder); a, b, c = src.frame['item'][:3]
    d = read_decisions(write(tmp_path/'d.csv', f'item,given_label,verified\n{a},3,True\n{b},4,FALSE\n{c},5,true\n'), src)
    assert d.to_dict('list') == dict(item=[a, c], label=['3', '5'], drop=[False, False])
    new = apply_decisions(src, d)
    assert list(new.frame.given_label[:3]) == ['3', src.frame.given_label[1], '5'] and new.frame.verified.sum() == 2

def test_what_is_dropped_is_left_out(tmp_path):
    "Rows and labels stay in step where a row between them goes."
    src = read_source(write(tmp_path/'t.csv', 'text,label\n' + ''.join(f'words of {i},{"ab"[i % 2]}\n' for i in range(6))), text_col='text', label_col='label')
    new = apply_decisions(src, read_decisions(write(tmp_path/'d.csv', 'item,label,action\n1,,drop\n3,a,relabel\n4,b, DROP \n0,,keep\n'), src))
    assert list(new.frame['item']) == ['0', '2', '3', '5'] and list(new.frame.given_label) == ['a', 'a', 'a', 'b'] and list(new.frame.verified) == [True, False, True, False]
    assert list(new.rows.text) == [f'words of {i}' for i in (0, 2, 3, 5)] and list(new.rows.index) == list(new.frame['item']) and len(src) == len(src.rows) == 6

def test_decisions_reach_the_result(folder, tmp_path, capsys):
    src = read_source(folder); fast = ['--size', '32', '--seed', '1']
    assert main(['find', str(folder), '--out', str(tmp_path/'a'), *fast]) == 0
    worst = read_issues(tmp_path/'a'/'issues.csv').head(6)
    rows = [f'{r.item},{r.suggested_label}' for r in worst.head(3).itertuples()] + [f'{r.item},' for r in worst[3:].itertuples()]
    decided = write(tmp_path/'d.csv', '\n'.join(['item,label', *rows, '']))
    assert main(['find', str(folder), '--out', str(tmp_path/'b'), '--decisions', str(decided), *fast]) == 0
    d = read_issues(tmp_path/'b'/'issues.csv').set_index('item').loc[list(worst['item'])]
    assert d.verified.all() and not d.is_label_issue.any()
    assert list(d.given_label[:3]) == list(worst.suggested_label[:3]) and list(d.given_label[3:]) == list(worst.given_label[3:])
    assert json.loads((tmp_path/'b'/'summary.json').read_text())['verified'] == 6
    capsys.readouterr()
    assert main(['find', str(folder), '--out', str(tmp_path/'b'), *fast]) == 2
    assert 'other settings' in capsys.readouterr().err

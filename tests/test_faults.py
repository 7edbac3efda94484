"Commands that are disturbed end in one line, and the next run gives what an undisturbed one does: benchmarks/faults.py, once for each."
import os, re, subprocess, sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parents[1]/'benchmarks'/'faults.py'

@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='processes are forked and get signals')
def test_nothing_is_lost(tmp_path):
    faults = ['kill', 'interrupt', 'full', 'denied', 'together']
    r = subprocess.run([sys.executable, FAULTS, '--only', *faults, 'corrupt', '--commands', 'find', 'train', '--times', '1', '--images', '200', '--out', tmp_path/'faults.csv', '--work', tmp_path],
                       capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
    struck = {(m[1], m[2]) for m in re.finditer(r'command (\w+) · fault (\w+) · struck True', r.stdout)}
    assert struck >= {('find', o) for o in [*faults, 'corrupt']} | {(c, o) for c in ('train',) for o in ('kill', 'interrupt', 'full', 'denied')}

def test_an_interrupt_while_a_command_is_imported_says_so(monkeypatch, capsys):
    from fastclean import cli
    def interrupted(args): raise KeyboardInterrupt
    monkeypatch.setattr(cli, '_run', interrupted)
    assert cli.main(['find']) == 130 and capsys.readouterr().err.strip() == 'stopped; the same command goes on from here'

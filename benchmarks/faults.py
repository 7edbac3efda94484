"""Break fastclean's commands on purpose, and see what was lost.

    python benchmarks/faults.py                                   # all faults, five each, and a hundred `kill -9`
    python benchmarks/faults.py --only kill --times 100 --commands find correct train
    python benchmarks/faults.py --only corrupt --images 10000

Every command works on images of digits. It is disturbed, and then given again undisturbed: that run must end well and leave what a run leaves that nothing ever disturbed, and the source must be as it was, byte for byte. The
disturbed run itself must have ended with an exit code and one line, not with a traceback. Faults:

- kill, interrupt: SIGKILL and SIGINT at a random moment;
- full: a file system that has no more room, somewhere between its first byte and its last (as root: a small tmpfs; else a limit to the size of each file);
- denied: output that may not be written to;
- damaged: of a finished or a killed run a file is cut, emptied, or a byte of it changed; what the user was to read is taken away, so that the command has to make it again;
- together: three runs at once with one output folder, and three with one cache of features;
- corrupt: one image in twenty cannot be read, in a dozen ways (only `find`).

A row of faults.csv for each; exits with 1 where something was lost.
"""
import os
for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ.setdefault(k, '1')   # processes are forked
os.environ.setdefault('MPLBACKEND', 'Agg')
import argparse, contextlib, json, random, re, resource, shutil, signal, subprocess, sys, tempfile, time, traceback
from pathlib import Path

import numpy as np
import pandas as pd

import fastclean.all   # noqa: F401: what each process would import
from fastclean.cli import main as command_line
from kill_correct import snapshot

OUT = Path(__file__).with_name('faults.csv')

# The commands, what each leaves, and what of it must be the same again.

def tree(folder):
    "Permissions and content of everything below a folder; fastclean's own record has dates in it."
    return {name: o for name, o in snapshot(folder, times=False).items() if not name.startswith('.fastclean')}

def table_of(path): return pd.read_csv(path).drop(columns='time', errors='ignore').round(5).to_csv()

def found(out): return (out/'issues.csv').read_text(), np.load(out/'predictions'/'pred_probs.npy').round(4).tolist(), (out/'evidence.csv').exists(), (out/'report.html').stat().st_size > 10_000

def trained(out): return table_of(out/'history.csv'), (out/'export.pkl').stat().st_size > 10_000

COMMANDS = {
    'find': (lambda w: ['find', w/'src', '--out', w/'new'/'find', '--size', '32'], found),
    'find finetune': (lambda w: ['find', w/'src', '--out', w/'new'/'find finetune', '--mode', 'finetune', '--epochs', '4', '--n-splits', '3'], lambda o: ((o/'issues.csv').read_text(), (o/'report.html').exists())),
    'correct': (lambda w: ['correct', w/'src', w/'new'/'correct', '--issues', w/'found'], tree),
    'noise': (lambda w: ['noise', w/'src', w/'new'/'noise', '--rate', '.2'], tree),
    'train': (lambda w: ['train', w/'src', '--out', w/'new'/'train', '--method', 'elr', '--mode', 'finetune', '--epochs', '6', '--size', '32'], trained),
    'train clean-retrain': (lambda w: ['train', w/'src', '--out', w/'new'/'train clean-retrain', '--epochs', '4', '--size', '32'], trained),
}

def make_source(folder, n, seed=0):
    "Digits as images, a folder for each class, one label in twelve wrong."
    from PIL import Image
    from sklearn.datasets import load_digits
    digits, rng = load_digits(), random.Random(seed)
    for i in range(n):
        k = digits.target[i % 1797]
        f = folder/str(k if rng.random() > 1/12 else (k + rng.randrange(1, 10)) % 10)/f'{i:05d}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i % 1797]*15).astype(np.uint8)).resize((28, 28)).save(f)

# Processes: forked, since importing takes longer than what is to be disturbed.

def start(args, log, first=None):
    "A process that runs a command line; `first` is called in it before."
    sys.stdout.flush()
    if pid := os.fork(): return pid
    code = 70
    signal.signal(signal.SIGINT, lambda *o: os._exit(0))   # an interrupt before the command begins does not strike; a job in the background has it ignored
    try:
        with open(log, 'w') as f: os.dup2(f.fileno(), 1); os.dup2(f.fileno(), 2)
        if first: first()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = command_line([os.fspath(o) for o in args])
        signal.signal(signal.SIGINT, signal.SIG_IGN)   # nor does one after its end
    except BaseException: traceback.print_exc()
    finally: sys.stdout.flush(); sys.stderr.flush(); os._exit(code)

def ended(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def complete(args, log):
    "Seconds that an undisturbed command takes; it must end well."
    begun = time.monotonic()
    if code := ended(start(args, log)): raise RuntimeError(f'{" ".join(map(str, args))} ended with {code}:\n{Path(log).read_text()}')
    return time.monotonic() - begun

def signalled(args, log, after, what):
    "Exit code of a command that gets a signal after some seconds, and whether it was still running."
    pid, until = start(args, log), time.monotonic() + after
    while time.monotonic() < until:
        if (got := os.waitpid(pid, os.WNOHANG))[0]: return os.waitstatus_to_exitcode(got[1]), False
        time.sleep(.001)
    os.kill(pid, what)
    return (code := ended(pid)), code != 0   # it may just have ended

# Faults: each gives the exit code and whether it struck.

def kill(t): return signalled(t.args, t.log, t.rng.random()*t.seconds, signal.SIGKILL)

def interrupt(t): return signalled(t.args, t.log, t.rng.random()*t.seconds, signal.SIGINT)

@contextlib.contextmanager
def small_disk(folder, size):
    "A file system of so many bytes at a folder; gives False where this user may not have one."
    there = os.getuid() == 0 and subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], stderr=subprocess.DEVNULL).returncode == 0
    try: yield there
    finally: there and subprocess.run(['umount', folder], check=True)

def small_files(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

def full(t):
    used = sum(f.stat().st_blocks*512 for f in (t.work/'whole').rglob('*') if f.is_file())
    size, new = int(used*t.rng.random()) + 4096, t.work/'new'
    with small_disk(new, size) as there:
        code = ended(start(t.args, t.log, None if there else lambda: small_files(size//4)))
        shutil.copytree(new, t.work/'kept', symlinks=True)
    shutil.rmtree(new); shutil.move(t.work/'kept', new)   # the disk has room again
    return code, code != 0

def as_anybody():
    "Let permissions count for root, too (capget(2))."
    if os.getuid(): return
    import ctypes
    libc, head, caps = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32*2)(0x20080522, 0), (ctypes.c_uint32*6)()
    libc.capget(head, caps)
    for i in (0, 1): caps[i] &= ~0b110   # effective, permitted: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    if libc.capset(head, caps): raise OSError(ctypes.get_errno(), 'capset')

def denied(t):
    new = t.work/'new'
    if t.rng.random() < .5: signalled(t.args, t.log, t.rng.random()*t.seconds, signal.SIGKILL)   # what was begun may not be gone on with
    folders = [o for o in (new, *new.rglob('*')) if o.is_dir()]
    for o in folders: o.chmod(0o555)
    code = ended(start(t.args, t.log, as_anybody))
    for o in folders: o.chmod(0o755)
    return code, code != 0

def spoil(file, rng):
    data, i = file.read_bytes(), rng.randrange(max(file.stat().st_size, 1))
    file.write_bytes(rng.choice([data[:i], b'', data[:i] + bytes([data[i] ^ 255]) + data[i + 1:] if data else b'x']))

def damaged(t):
    "No exit code: the run that follows has to get on with it."
    new = t.work/'new'
    if t.rng.random() < .5: signalled(t.args, t.log, t.rng.random()*t.seconds, signal.SIGKILL)
    else: complete(t.args, t.log)
    files = [f for f in new.rglob('*') if f.is_file() and ('.work' in f.parts or '.fastclean' in f.parts or f.parts[-1].startswith('.'))]
    for o in ('summary.json', 'issues.csv', 'history.csv'):
        for f in new.glob(f'*/{o}'): f.unlink()
    if not files or t.name in ('correct', 'noise') and (new/t.name).exists(): return None, False   # a finished copy is the user's: nothing in it is made again
    spoil(t.rng.choice(files), t.rng)
    return None, True

def together(t):
    "Three at once; the code is that of the last that was refused."
    apart = t.name == 'find' and t.rng.random() < .5
    args = [[*t.args[:3], t.work/'new'/f'{t.name} {i}' if i else t.args[3], *t.args[4:], '--cache', t.work/'new'/'cache'] if apart else t.args for i in range(3)]
    pids = [start(a, t.work/f'log {i}') for i, a in enumerate(args)]
    codes = [ended(p) for p in pids]
    logs = [(t.work/f'log {i}').read_text() for i in range(3)]
    bad = [i for i, c in enumerate(codes) if c]
    t.log.write_text(logs[bad[-1]] if bad else logs[0])
    if bad and not any(w in t.log.read_text() for w in ('another run', 'exists')): return 70, True
    return (codes[bad[-1]] if bad else 0), True

FAULTS = dict(kill=kill, interrupt=interrupt, full=full, denied=denied, damaged=damaged, together=together)
EXPECTED = dict(kill=(-9,), interrupt=(130,), full=(2,), denied=(2,), damaged=(None,), together=(0, 2))

class Trial:
    "A command in a folder of its own."
    def __init__(self, name, work, rng):
        self.name, self.work, self.rng, (args, self.left) = name, work, rng, COMMANDS[name]
        self.args, self.out, self.log, self.new = args(work), work/'new'/name, work/'log', work/'new'
        self.empty()
        self.seconds = complete(self.args, self.log)
        self.before, self.whole = tree(work/'src'), self.left(self.out)
        shutil.rmtree(work/'whole', ignore_errors=True); shutil.copytree(self.new, work/'whole', symlinks=True)
    def empty(self):
        shutil.rmtree(self.new, ignore_errors=True); self.new.mkdir()
    def again(self, row):
        "Seconds of the run that follows. It removes no folder that it does not know as its own, but says so: then the user does."
        try: return complete(self.args, self.log)
        except RuntimeError as e:
            if row['fault'] != 'damaged' or not (m := re.search(r'fastclean: (\S+) is in the way and not ours: remove it', str(e))): raise
            row['said'] = 'is in the way and not ours: remove it'
            shutil.rmtree(m[1])
            return complete(self.args, self.log)
    def disturb(self, fault):
        "A row: what came of one fault."
        self.empty()
        code, struck = FAULTS[fault](self)
        said = self.log.read_text().strip().splitlines()
        word = next((o for o in said if o.startswith(('stopped', 'fastclean:'))), '')
        def _short(text): return text.replace(f'{self.work}{os.sep}', '')
        row = dict(command=self.name, fault=fault, struck=struck, code=code, said=_short(word)[:150] if struck else '', wrong='')
        if struck and code not in EXPECTED[fault]: row['wrong'] += f'exit code {code}; '
        if struck and code in (2, 130) and not word: row['wrong'] += 'no word of it; '
        if any('Traceback' in o for o in said): row['wrong'] += 'traceback; '
        try: row['again'] = round(self.again(row)/self.seconds, 2)
        except RuntimeError as e:
            row['wrong'] += f'the next run failed: {_short(self.log.read_text().strip().splitlines()[-1])[:200]}; '
        else:
            if self.left(self.out) != self.whole: row['wrong'] += 'other results; '
        if tree(self.work/'src') != self.before: row['wrong'] += 'the source was changed; '
        if rest := [f.name for f in self.new.rglob('.*.tmp')]: row['wrong'] += f'left over: {rest[0]}; '
        return row

# One image in twenty that cannot be read.

def unreadable(file, rng):
    data, i = file.read_bytes(), rng.randrange(8, 60)
    def _link(): file.unlink(); os.symlink('nowhere.png', file)
    rng.choice([lambda: file.write_bytes(b''), lambda: file.write_bytes(data[:i]), lambda: file.write_bytes(b'GIF89a'), lambda: file.write_text('<html>not found</html>'), lambda: file.write_bytes(rng.randbytes(500)),
                lambda: file.write_bytes(data[:16] + b'\xff'*8 + data[24:]), lambda: file.write_bytes(b'\0'*len(data)), lambda: file.write_bytes(data[:8]), lambda: file.write_bytes(b'P4 9999999 9999999\n'), _link])()

def corrupt(work, n, rng):
    "`find` among so many images, of which one in twenty is corrupt: all of those are set aside, and no other."
    src, out, log = work/'many', work/'many found', work/'log'
    make_source(src, n)
    files = sorted(src.rglob('*.png'))
    bad = rng.sample(files, n//20)
    for f in bad: unreadable(f, rng)
    seconds = complete(['find', src, '--out', out, '--size', '32'], log)
    summary = json.loads((out/'summary.json').read_text())
    aside = {o if isinstance(o, str) else o.get('item', o) for o in summary['unreadable']}
    names, links = {f.relative_to(src).as_posix() for f in bad if not f.is_symlink()}, sum(f.is_symlink() for f in bad)
    wrong = '' if aside == names else f'{len(names - aside)} that cannot be read were not set aside, and {len(aside - names)} others were; '
    if summary['settings']['passed_over'].get('broken links') != links: wrong += 'broken links were not counted; '
    if len(pd.read_csv(out/'issues.csv')) != n - len(bad): wrong += 'other rows; '
    return dict(command='find', fault='corrupt', struck=True, code=0, said=f'{len(aside):,} of {n:,} images set aside, {links} broken links counted, {seconds:.0f} s', wrong=wrong, again=None)

def run(a):
    rng, rows = random.Random(a.seed), []
    def _note(row):
        rows.append(row)
        print(' · '.join(f'{k} {v}' for k, v in row.items() if v not in ('', None)), flush=True)
    with tempfile.TemporaryDirectory(dir=a.work) as tmp:
        work = Path(tmp); work.chmod(0o755)
        make_source(work/'src', 150)
        complete(['find', work/'src', '--out', work/'found', '--size', '32'], work/'log')
        for name in a.commands:
            t = Trial(name, work, rng)
            for fault in (o for o in a.only if o in FAULTS):
                times = a.times or (34 if fault == 'kill' and name in ('find', 'correct', 'train') else 5)
                for _ in range(4*times):
                    if sum(r['struck'] for r in rows if (r['command'], r['fault']) == (name, fault)) >= times: break
                    _note(t.disturb(fault))
        if 'corrupt' in a.only: _note(corrupt(work, a.images, rng))
    d = pd.DataFrame(rows)
    if a.out:   # rows of other faults stay
        old = pd.read_csv(a.out, keep_default_na=False) if a.out.exists() else d[:0]
        new = set(zip(d.command, d.fault))
        pd.concat([old[[o not in new for o in zip(old.command, old.fault)]], d]).to_csv(a.out, index=False)
    table(d)
    return int((d.wrong != '').any())

def table(d):
    d = d.assign(struck=d.struck.astype(int), lost=(d.wrong != '').astype(int))
    print('\n' + d.groupby(['command', 'fault'], sort=False).agg(tried=('struck', 'size'), struck=('struck', 'sum'), lost=('lost', 'sum'), again=('again', 'median')).to_string())
    for r in d[d.wrong != ''].itertuples(): print(f'{r.command}, {r.fault}: {r.wrong} {r.said}')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='*', default=[*FAULTS, 'corrupt'], choices=[*FAULTS, 'corrupt'])
    p.add_argument('--commands', nargs='*', default=list(COMMANDS), choices=list(COMMANDS))
    p.add_argument('--times', type=int, help='how often each fault strikes')
    p.add_argument('--images', type=int, default=10_000)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', type=Path, default=OUT)
    p.add_argument('--work', type=Path, help='folder for the data; default that of temporary files')
    sys.exit(run(p.parse_args()))

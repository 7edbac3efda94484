"""`kill -9` at random moments of `fastclean correct` and of `fastclean undo`: the source is untouched, the next run completes, and undo after it gives every byte back.

    python benchmarks/kill_correct.py            # fifty times each
    python benchmarks/kill_correct.py --times 10 --files 500
"""
import argparse, hashlib, json, os, random, shutil, signal, stat, subprocess, sys, tempfile, time
from pathlib import Path

FC = [sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))']

def snapshot(folder, times=True):
    "Name, permissions, content and time of everything below a folder."
    out = {}
    for p in sorted(Path(folder).rglob('*')):
        s = p.lstat()
        what = os.readlink(p) if p.is_symlink() else hashlib.blake2b(p.read_bytes()).hexdigest() if stat.S_ISREG(s.st_mode) else 'dir'
        out[os.fspath(p.relative_to(folder))] = (s.st_mode, what, s.st_mtime_ns if times and stat.S_ISREG(s.st_mode) else None)
    return out

def make_source(folder, files, classes=10):
    "A folder per class of small files, and things that are no items."
    rng = random.Random(0)
    for i in range(files):
        f = folder/f'c{i % classes}'/f'{i // 2}.png'
        f.parent.mkdir(parents=True, exist_ok=True); f.write_bytes(rng.randbytes(rng.choice([200, 5_000, 60_000])))
    (folder/'README.md').write_text('notes'); (folder/'empty').mkdir(); os.symlink('README.md', folder/'link.md')

def corrections(source, path, share=.5):
    "Half of the files are to move to the next class, or to go."
    rng, names = random.Random(1), sorted(o.relative_to(source).as_posix() for o in source.rglob('*.png'))
    names = [o for o in names if rng.random() < share]
    old = [o.split('/')[0] for o in names]
    path.write_text(json.dumps(dict(corrected_paths=names, original_labels=old, corrected_labels=[f'c{(int(o[1:]) + 1) % 10}' for o in old], corrected_scores=[.9]*len(old))))

def killed(args, after, mark=None):
    "Start a command and kill it some time after it has begun to write; whether it was still running."
    p = subprocess.Popen(FC + [os.fspath(o) for o in args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while mark is not None and p.poll() is None and not mark(): time.sleep(.001)
    try: p.wait(after)
    except subprocess.TimeoutExpired: p.send_signal(signal.SIGKILL); p.wait(); return True
    return False

def complete(args): subprocess.run(FC + [os.fspath(o) for o in args], check=True, stdout=subprocess.DEVNULL)

def correct_once(work, src, before, rng, action, link, span):
    "One `correct` that is killed, perhaps again and again, and then run to its end; and its undo."
    dst = work/'dst'
    args = ['correct', src, dst, '--corrections', work/'c.json', '--action', action, '--link', link]
    hit = 0
    while killed(args, rng.random()*span, lambda: (work/'.dst.fastclean-part').exists() or dst.exists()) and hit < 3:
        hit += 1
        assert snapshot(src) == before, 'the source was changed'
        assert not dst.exists() or (dst/'.fastclean'/'manifest.jsonl').is_file(), 'half a copy at its place'
    complete(args)
    assert snapshot(src) == before, 'the source was changed'
    assert [o.name for o in work.iterdir() if o.name.startswith('.')] == [], 'something was left beside the copy'
    return hit

def undo_once(work, src, before, rng, span):
    "One `undo` that is killed and then run to its end."
    dst, hit = work/'dst', 0
    now = lambda: (dst/'.fastclean.undo').exists() or '"undoing"' in ((dst/'.fastclean'/'correct.json').read_text() if (dst/'.fastclean'/'correct.json').exists() else '"undoing"')
    while killed(['undo', dst], rng.random()*span, now) and hit < 3: hit += 1
    if (dst/'.fastclean').exists() or (dst/'.fastclean.undo').exists(): complete(['undo', dst])
    assert snapshot(dst) == before, 'undo gave back something else'
    assert snapshot(src) == before, 'the source was changed'
    shutil.rmtree(dst)
    return hit

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--times', type=int, default=50, help='how often each command is killed')
    ap.add_argument('--files', type=int, default=3000)
    ap.add_argument('--seed', type=int, default=0)
    a = ap.parse_args()
    rng, stats, start = random.Random(a.seed), dict(correct=0, undo=0), time.time()
    with tempfile.TemporaryDirectory() as tmp:
        work = Path(tmp); src = work/'src'
        make_source(src, a.files); corrections(src, work/'c.json')
        before, i = snapshot(src), 0
        while min(stats.values()) < a.times:
            action, link = rng.choice(['relabel', 'prune']), rng.choice(['copy', 'copy', 'hard'])
            stats['correct'] += correct_once(work, src, before, rng, action, link, 1.5)
            stats['undo'] += undo_once(work, src, before, rng, .4)
            i += 1
            print(f"{i} copies; killed while correcting {stats['correct']} times, while undoing {stats['undo']} times", flush=True)
    print(f"the source was untouched, every next run completed, and every undo gave back every byte: {stats['correct']} kills of correct, {stats['undo']} of undo, {a.files} files, {time.time() - start:.0f} s")

if __name__ == '__main__': main()

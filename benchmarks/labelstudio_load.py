"""Fifty annotators at once: how the Label Studio backend answers while it trains.

    python tests/label_studio.py label-studio python benchmarks/labelstudio_load.py --minutes 5

The first part starts a Label Studio of its own. In it this script makes a project of scikit-learn's digits, a tenth of them with a wrong label, starts `fastclean labelstudio serve` with a new state folder, and waits for the first
version. Then 50 clients ask for health and predictions and send webhooks, with half a second between two calls of each; the webhooks lead to one training after the other in the worker's process. At the end it prints the times of each
call in seconds, the memory of the server, and whether every annotation that was accepted was counted. It fails where a call did, where the 99th percentile of health is a second or more, or where an annotation was lost."""
import argparse, asyncio, os, random, subprocess, sys, tempfile, time
from pathlib import Path

import httpx

from fastclean.data import digits_sample
from fastclean.inject import noisy_copy
from fastclean.labelstudio.state import State
from fastclean.noise import SymmetricNoise

SERVE = [sys.executable, '-W', 'ignore', '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))', 'labelstudio']
CALLS = 'health', 'predict', 'webhook'

def memory(pid): return int(next(o for o in open(f'/proc/{pid}/status') if o.startswith('VmRSS')).split()[1])/1024

def wait(true, seconds):
    end = time.monotonic() + seconds
    while not (got := true()):
        if time.monotonic() > end: sys.exit(f'not within {seconds} s')
        time.sleep(.5)
    return got

def start(tmp, port, every):
    "A project with a backend that has trained once: the process, the state, the project's number, its tasks."
    src = Path(os.environ['LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT'])/'digits'
    noisy_copy(digits_sample(tmp/'digits'), src, SymmetricNoise(.1), seed=1, on='all')
    (src/'noise.csv').rename(tmp/'noise.csv')
    server = subprocess.Popen([*SERVE, 'serve', '--port', str(port), '--state', str(tmp/'state'), '--every', str(every)])
    state, url = State(tmp/'state'), f'http://127.0.0.1:{port}'
    def up():
        try: return httpx.get(url + '/health').is_success
        except httpx.TransportError: return False
    wait(up, 60)
    subprocess.run([*SERVE, 'import', str(src), '--title', f'Load {port}', '--backend', url], check=True)
    wait(lambda: any(o['version'] and not o['running'] and o['started'] == o['requested'] for o in state.projects()), 600)
    project = state.projects()[0]
    return server, state, project['id'], sorted(o['task'] for o in state._all('SELECT task FROM prediction WHERE project = ?', project['id']))

async def annotator(i, http, project, tasks, end, times, wrong):
    r = random.Random(i)
    while time.monotonic() < end:
        call, at = r.choice(CALLS), time.monotonic()
        try:
            if call == 'health': a = await http.get('/health')
            elif call == 'predict': a = await http.post('/predict', json=dict(project=f'{project}.1', tasks=[dict(id=o, data=dict(image='x'*100)) for o in r.sample(tasks, 20)]))
            else: a = await http.post('/webhook', json=dict(action='ANNOTATION_CREATED', project=dict(id=project), annotation=dict(id=1), task=dict(id=1)))
            if a.status_code != 200 or call == 'predict' and not all(o['result'] for o in a.json()['results']): wrong.append((call, a.status_code, a.text[:100]))
        except httpx.HTTPError as e: wrong.append((call, type(e).__name__, str(e)[:80]))
        times[call].append(time.monotonic() - at)
        await asyncio.sleep(r.uniform(.2, .8))

async def load(url, clients, seconds, server, state, project, tasks):
    "Times by call, what went wrong, the server's memory every five seconds, how often a training was running."
    times, wrong, used, busy, end = {o: [] for o in CALLS}, [], [memory(server.pid)], [], time.monotonic() + seconds
    async def watch():
        while time.monotonic() < end:
            await asyncio.sleep(5)
            if server.poll() is not None: sys.exit(f'the server has ended with status {server.returncode}')
            used.append(memory(server.pid)); busy.append(state.projects()[0]['running'])
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=clients)) as http:
        await asyncio.gather(watch(), *[annotator(i, http, project, tasks, end, times, wrong) for i in range(clients)])
    return times, wrong, used, busy

def main(clients, minutes, every, port):
    with tempfile.TemporaryDirectory() as tmp:
        server, state, project, tasks = start(Path(tmp), port, every)
        try:
            before, versions = state.projects()[0], len(state.versions())
            print(f'{clients} clients for {minutes:g} minutes, {len(tasks):,} tasks', flush=True)
            times, wrong, used, busy = asyncio.run(load(f'http://127.0.0.1:{port}', clients, 60*minutes, server, state, project, tasks))
            after = state.projects()[0]
        finally: server.terminate(); server.wait()
    for call, t in times.items():
        t.sort()
        print(f'{call:8} {len(t):6,} calls: median {t[len(t)//2]:.3f}, 99 % {t[int(len(t)*.99)]:.3f}, at most {t[-1]:.3f} s')
    counted = every*(after['requested'] - before['requested']) + after['annotations'] - before['annotations']
    sent = len(times['webhook']) - sum(o[0] == 'webhook' for o in wrong)
    print(f"{len(wrong)} calls went wrong {wrong[:3]}; {counted:,} of {sent:,} annotations are counted; memory {used[0]:.0f} MB, after a third {used[len(used)//3]:.0f}, at the end {used[-1]:.0f}; "
          f"a training ran in {sum(busy)/max(len(busy), 1):.0%} of the time, {after['version'] - before['version']} versions were made")
    return bool(wrong) or counted != sent or times['health'][int(len(times['health'])*.99)] >= 1

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value, what in (('clients', 50, 'how many at once'), ('minutes', 5., 'for how long'), ('every', 20, 'annotations between two trainings'), ('port', 9177, 'of the backend')):
        p.add_argument(f'--{name}', type=type(value), default=value, help=f'{what} (default {value})')
    sys.exit(main(**vars(p.parse_args())))

"""Label Studio: the client against servers that misbehave, the backend by itself, and both against a real Label Studio.
`make test-labelstudio` installs and starts one; the tests that need it run where LABEL_STUDIO_HOST names it."""
import contextlib, html, http.server, json, os, re, secrets, shutil, signal, sqlite3, subprocess, sys, threading, time
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from fastclean.cli import main
from fastclean.data import digits_sample, read_source
from fastclean.inject import noisy_copy
from fastclean.labelstudio import backend as backend_module
from fastclean.labelstudio.backend import Trainer, corrections, predict, setup, webhook
from fastclean.labelstudio.client import LabelStudio, LabelStudioError, Projects, Unreachable, read_labelling, write_labelling
from fastclean.labelstudio.importing import find_project, import_source, make_task, serve_from, source_tasks
from fastclean.labelstudio.server import make_app, status_page
from fastclean.labelstudio.state import State
from fastclean.labelstudio.work import given_label, item_of, read_project, run, send_predictions, votes
from fastclean.noise import SymmetricNoise
from browser import CHROMIUM, Browser
from label_studio import free_port

KEY = 'a-secret-key'
CONFIG = write_labelling(['cat', 'dog'])
ASKED = read_labelling(CONFIG)

# ---- labelling configurations
@pytest.mark.parametrize('labels', [['cat', 'dog'], ['<&>"\'', 'a  b', 'ż'], [str(i) for i in range(3000)]])
@pytest.mark.parametrize('kind', ['image', 'text'])
def test_labelling_comes_back(labels, kind):
    asked = read_labelling(write_labelling(labels, kind))
    assert asked.labels == labels and asked.kind == kind and asked.key == kind

@pytest.mark.parametrize('config, message', [('', 'no XML'), ('<View>', 'no XML'), ('<View><Image name="i" value="$i"/></View>', 'no <Choices>'),
    ('<View><Image name="i" value="$i"/><Choices name="c" toName="x"><Choice value="a"/></Choices></View>', 'no <Choices>'),
    ('<View><Image name="i" value="$i"/><Choices name="c" toName="i" choice="multiple"><Choice value="a"/></Choices></View>', 'no <Choices>'),
    ('<!DOCTYPE v [<!ENTITY a "aaaa">]><View>&a;</View>', 'entities'), ('<View><!-- -- ><!DOCTYPE x> -->', 'no XML')])
def test_labelling_that_cannot_be_used(config, message):
    with pytest.raises(ValueError, match=message): read_labelling(config)

def test_unknown_control():
    with pytest.raises(ValueError, match="no choices named 'mood'.*'label'"): read_labelling(CONFIG, 'mood')

# ---- tasks
def test_the_newest_that_was_not_skipped_counts():
    say = lambda label, at, by=1, **kw: dict(id=1, result=ASKED.result(label), created_at=at, updated_at=at, completed_by=by, **kw)
    assert given_label(dict(annotations=[]), ASKED) == (None, False)
    assert given_label(dict(annotations=[say('cat', '1'), say('dog', '2', was_cancelled=True)]), ASKED) == ('cat', False)
    assert given_label(dict(annotations=[say('cat', '1'), say('dog', '2', 2)]), ASKED) == ('dog', False)
    assert given_label(dict(annotations=[say('cat', '1', ground_truth=True), say('dog', '2', 2)]), ASKED) == ('cat', True)
    assert list(votes(dict(annotations=[say('cat', '1', 1), say('dog', '2', 2), say('dog', '3', dict(id=1))]), ASKED)) == [2, 1]
    assert given_label(dict(annotations=[dict(result=[dict(from_name='label', value=dict(choices=['cat', 'dog']))]), dict(result='x'), {}]), ASKED) == (None, False)

@pytest.mark.parametrize('data, item', [(dict(item='cat/1.jpg', image='x'), 'cat/1.jpg'), (dict(image='/data/local-files/?d=a/b%20c.jpg'), 'a/b c.jpg'), (dict(image='/data/upload/1/1a2b-x.jpg'), '1a2b-x.jpg'), ({}, '3')])
def test_item_of_a_task(data, item): assert item_of(dict(id=3, data=data), ASKED) == item

def test_names_that_cannot_be_served_are_left_out(tmp_path):
    src = read_source(digits_sample(tmp_path/'digits'))
    src.frame.loc[0, 'path'] = '0/\udcff.png'; src.frame.loc[1, 'path'] = '../0/1.png'
    tasks, left = source_tasks(src, read_labelling(write_labelling(src.vocab)), serve_from(tmp_path/'digits', tmp_path))
    assert len(tasks) == 1795 and len(left) == 2 and not any(a['ground_truth'] for t in tasks for a in t['annotations'])

# ---- a server that misbehaves
class Misbehaves(http.server.BaseHTTPRequestHandler):
    answers = {}
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get('Authorization')))
        if self.headers.get('Content-Length'): self.rfile.read(int(self.headers['Content-Length']))
        time.sleep(self.server.slow)
        status, body, headers = self.server.answers[min(len(self.server.asked), len(self.server.answers)) - 1]
        self.send_response(status)
        for k, v in headers.items(): self.send_header(k, v)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_PATCH = do_GET
    def log_message(self, *args): pass

@pytest.fixture
def server():
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Misbehaves)
    s.asked, s.slow, s.url = [], 0, f'http://127.0.0.1:{s.server_port}'
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.shutdown(); s.server_close()

def client(server, *answers, patience=.6, cls=Projects):
    server.answers = [(*a, {})[:3] if len(a) < 3 else a for a in answers]
    return cls(server.url, KEY, timeout=1, patience=patience)

@pytest.mark.parametrize('answer, message', [((401, b'{}'), 'refuses the key'), ((403, b'{}'), 'refuses the key'), ((500, b'<html>'), 'status 500: no reason'), ((200, b'<html>a page'), 'something else than data'),
    ((302, b'', {'Location': 'http://127.0.0.1:1/'}), 'sends elsewhere'), ((400, b'{"validation_errors": {"title": ["too long"]}}'), 'too long'), ((404, b'{"detail": "Not found."}'), 'Not found')])
def test_answers_that_cannot_be_used(server, answer, message):
    with pytest.raises(LabelStudioError, match=message) as e: client(server, answer).project(1)
    assert KEY not in str(e.value)

def test_patience_until_the_server_is_back(server):
    assert client(server, (503, b''), (500, b''), (200, b'{"id": 1}'), patience=20).project(1) == dict(id=1)
    assert len(server.asked) == 3

def test_what_is_not_harmless_is_asked_once(server):
    with pytest.raises(LabelStudioError): client(server, (500, b''), patience=20).json('POST', '/api/projects', json={})
    assert len(server.asked) == 1

def test_personal_tokens_are_exchanged_and_renewed(server):
    c = client(server, (200, b'{"access": "first"}'), (401, b''), (200, b'{"access": "second"}'), (200, b'{"id": 1}'))
    c._key = 'a.b.c'
    assert c.project(1) == dict(id=1)
    assert [a for _, a in server.asked] == [None, 'Bearer first', None, 'Bearer second']

def test_files_come_from_label_studio_only(server):
    c = client(server, (200, b'picture'), (302, b'', {'Location': 'http://169.254.169.254/'}))
    assert c.fetch('/data/x.png') == b'picture'
    with pytest.raises(LabelStudioError, match='status 302'): c.fetch('/data/x.png')
    for url in ('http://169.254.169.254/x', '//evil.example/x', f'http://127.0.0.1:{server.server_port}@evil.example/', 'file:///etc/passwd', 'http://[::1', server.url.replace('127.0.0.1', 'localhost')):
        with pytest.raises(LabelStudioError, match='does not lie on'): c.fetch(url)
    assert len(server.asked) == 2

def test_files_that_are_too_large(server):
    with pytest.raises(LabelStudioError, match='larger than 5'): client(server, (200, b'picture')).fetch('/x', max_bytes=5)

@pytest.mark.parametrize('host', ['', 'ftp://x', 'http://', 'http://a:b@c', 'x'])
def test_addresses(host, monkeypatch):
    monkeypatch.setenv('LABEL_STUDIO_HOST', host or 'nonsense')
    with pytest.raises(LabelStudioError, match='LABEL_STUDIO_HOST'): LabelStudio(key=KEY)

@pytest.mark.parametrize('key', ['', 'a\nb', 'ż'])
def test_keys(key, monkeypatch):
    monkeypatch.delenv('LABEL_STUDIO_API_KEY', raising=False)
    with pytest.raises(LabelStudioError, match='set LABEL_STUDIO_API_KEY'): LabelStudio('http://127.0.0.1:1', key)

# ---- the state
ROWS = [(1, 'cat/1.jpg', 'cat', 'dog', .99, True), (2, 'cat/2.jpg', 'cat', 'cat', .8, False), (3, 'x.jpg', None, 'dog', .6, False)]

@pytest.fixture
def state(tmp_path): return State(tmp_path/'state')

def test_a_training_that_was_cut_off_goes_on(state):
    state.request(1); state.request(2)
    assert {state.begin(), state.begin()} == {1, 2} and state.begin() is None
    again = State(state.folder)
    assert again.recover() == 2 and {again.begin(), again.begin()} == {1, 2}
    again.end(1, 'stopped', again=True); assert again.begin() == 1

def test_what_is_asked_during_a_training_leads_to_one_more(state):
    state.request(1); state.begin()
    for _ in range(1000): state.request(1)
    assert state.begin() is None
    state.end(1, 'done'); assert state.begin() == 1
    state.end(1, 'done'); assert state.begin() is None

def test_requests_that_wait(state):
    state.request(1, after=60); assert state.begin() is None

def test_a_folder_that_can_only_be_read(state):
    state.folder.chmod(0o500)
    with pytest.raises(ValueError, match='nothing can be kept'): State('/proc/deeper' if os.geteuid() == 0 else state.folder/'deeper')   # root may write everywhere else

@pytest.mark.parametrize('status', [429, 500, 503])
def test_when_label_studio_is_away_it_is_told_apart(server, state, status):
    state.request(1)
    with pytest.raises(Unreachable): run(state, state.begin(), client(server, (status, b'')))
    state.end(1, 'waits for Label Studio', again=True, after=60)
    assert state.begin() is None and state.projects()[0]['requested'] > state.projects()[0]['started']

def test_a_label_studio_that_is_slow(server, state):
    server.slow = 3
    c = client(server, (200, b'{}'))
    state.request(1)
    with pytest.raises(Unreachable, match='ReadTimeout'): run(state, state.begin(), c)

def test_predictions_of_tasks_that_were_deleted_are_left_out(server):
    left = json.dumps(dict(tasks=[dict(id=1), dict(id=3)], total=2)).encode()
    c, body = client(server, (400, b'{"detail": "invalid task"}'), (200, left), (201, b'{}'), (200, b'{}')), []
    send_predictions(c, 1, ASKED, [(i, '', None, 'cat', .5, False, '') for i in (1, 2, 3)], 'v1')
    assert [path.split('?')[0] for path, _ in server.asked] == ['/api/projects/1/import/predictions', '/api/tasks', '/api/projects/1/import/predictions', '/api/projects/1']
    with pytest.raises(LabelStudioError, match='invalid task'):   # all are there: something else is wrong
        server.asked.clear(); send_predictions(client(server, (400, b'{"detail": "invalid task"}'), (200, left)), 1, ASKED, [(1, '', None, 'cat', .5, False, '')], 'v1')

def worker_ends(state, monkeypatch, status):
    "What the trainer makes of a worker that ends with a status."
    monkeypatch.setattr(backend_module, '_start', f'import os; os.kill(os.getpid(), {-status})' if status < 0 else f'import sys; sys.exit({status})')
    state.request(1)
    t = Trainer(state); t.start()
    try: until(lambda: state.errors(), 20, .1); time.sleep(1)
    finally: t.stop()
    return state.projects()[0], state.errors()[0]['text']

@pytest.mark.parametrize('status, message', [(1, 'ended with status 1.*worker.log'), (-9, 'signal 9.*memory.*Start Training')])
def test_a_worker_that_dies(state, monkeypatch, caplog, status, message):
    p, text = worker_ends(state, monkeypatch, status)
    assert re.search(message, text) and re.search(message, caplog.text) and p['stage'].startswith('failed') and not p['running'] and p['requested'] == p['started']

def test_a_worker_that_cannot_write_is_started_again(state, monkeypatch):
    p, text = worker_ends(state, monkeypatch, 5)
    assert 'Is there room in the state folder?' in text and p['running']   # the note itself may not fit: it is written later
    t = Trainer(state); t.start()
    try: until(lambda: state.projects()[0]['started'] == state.projects()[0]['requested'], 20, .1)
    finally: t.stop()

def test_a_training_that_is_over_is_not_done_again(state, monkeypatch):
    "The server is stopped between the end of a training and that of its process; before, it is cut off."
    for say, stage, again in (('.end(int(sys.argv[2]), "over")', 'over', False), ('.at(int(sys.argv[2]), "half")', 'half', True)):
        monkeypatch.setattr(backend_module, '_start', f'import sys, time; from fastclean.labelstudio.state import State; State(sys.argv[1]){say}; time.sleep(60)')
        state.request(1)
        t = Trainer(state); t.start()
        try: until(lambda: state.projects()[0]['stage'] == stage, 60, .1)
        finally: t.stop()
        p, = state.projects()
        assert (p['started'] < p['requested'], p['stage'], p['running']) == (again, 'cut off, goes on' if again else 'over', 0)

def test_a_training_that_cannot_be_started_is_not_lost(state, monkeypatch):
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(subprocess, 'Popen', full)
    state.request(1)
    t = Trainer(state); t.start()
    try: until(lambda: 'could not be started' in state.projects()[0]['stage'], 20)
    finally: t.stop()
    p, = state.projects()
    assert 'No space left' in state.errors()[0]['text'] and p['requested'] > p['started'] and not p['running'] and p['due'] > time.time()

# ---- the backend
@pytest.fixture
def app(state):
    setup(state, dict(project='4.17', schema=CONFIG))
    state.publish(4, ROWS, dict(tasks=3, labelled=2, issues=1))
    with TestClient(make_app(state, every=3)) as http: yield http

def test_predictions_in_order_one_for_each_task(app):
    tasks = [dict(id=i) for i in (3, 99, 1)]
    got = app.post('/predict', json=dict(project='4.17', tasks=tasks, label_config=CONFIG)).json()['results']
    assert [(o['result'][0]['value']['choices'][0] if o['result'] else None, o['score'], o['model_version']) for o in got] == [('dog', .6, 'fastclean-1'), (None, 0, 'fastclean-1'), ('dog', .99, 'fastclean-1')]

def test_a_class_that_is_gone_is_not_predicted(state, app):
    got = predict(state, dict(project=4, tasks=[dict(id=1)], label_config=write_labelling(['cat', 'pig'])))['results']
    assert got[0]['result'] == []

@pytest.mark.parametrize('path', ['/predict', '/webhook', '/setup'])
@pytest.mark.parametrize('body', [b'', b'[', b'[]', b'null', b'{"project": {}}', b'{"project": [1], "tasks": [1]}', b'[' * 100_000, b'\xff'])
def test_bodies_that_are_none(app, path, body):
    r = app.post(path, content=body)
    assert r.status_code == 400 and r.json()['detail']

@pytest.mark.parametrize('tasks', [None, {}, [1], [dict(id='1')], [dict()]])
def test_tasks_that_are_none(app, tasks): assert app.post('/predict', json=dict(project=4, label_config=CONFIG, tasks=tasks)).status_code == 400

def test_large_bodies(app):
    assert app.post('/predict', json=dict(project=4, label_config=CONFIG, tasks=[dict(id=i, data=dict(image='x'*20_000)) for i in range(2500)])).status_code == 200   # 50 MB
    assert app.post('/predict', content=b' ' * 65_000_000).status_code == 400

def test_a_storm_of_webhooks(app, state):
    start = time.time()
    for _ in range(1000): assert app.post('/webhook', json=dict(action='ANNOTATION_CREATED', project=dict(id=4))).status_code == 200
    assert time.time() - start < 60
    p, = state.projects()
    assert p['requested'] == 1 + 333 and p['annotations'] == 1

@pytest.mark.parametrize('action, follows', [('START_TRAINING', 'training'), ('TASKS_CREATED', 'training'), ('ANNOTATION_UPDATED', 'noted'), ('PROJECT_UPDATED', 'ignored'), (None, 'ignored')])
def test_webhooks(state, action, follows): assert webhook(state, dict(action=action, project=dict(id=1))) == follows

def test_setup_trains_a_new_project_once(state):
    for _ in range(3): assert setup(state, dict(project='9.1', schema=CONFIG, access_token=KEY)) == 'fastclean-0'
    assert state.projects()[0]['requested'] == 1
    assert not any(KEY.encode() in f.read_bytes() for f in state.folder.iterdir())

def test_nothing_without_the_password(state):
    with TestClient(make_app(state, password='right')) as http:
        for path in ('/', '/health', '/versions', '/corrections.json', '/issues.csv', '/picture/1/1'): assert http.get(path).status_code == 401
        for path in ('/setup', '/predict', '/webhook'): assert http.post(path, json={}).status_code == 401
        for header in ('', 'Basic', 'Basic !', 'Bearer cmlnaHQ=', 'Basic Zm9vOmJhcg=='): assert http.get('/health', headers=dict(Authorization=header)).status_code == 401
        assert http.get('/health', auth=('fastclean', 'right')).status_code == 200
        for _ in range(3): http.post('/webhook', json={})
    assert [o['text'].count('labelstudio connect') for o in state.errors()] == [1]   # said once

def test_several_projects_are_asked_about(app, state):
    assert app.get('/corrections.json').json()['corrected_paths'] == ['cat/1.jpg']
    state.publish(5, ROWS[1:], {})
    assert app.get('/corrections.json').status_code == 400 and app.get('/corrections.json?project=5').json()['corrected_paths'] == []
    assert app.get('/corrections.json?project=6').status_code == 404

def test_before_the_first_training(state):
    with TestClient(make_app(state)) as http: assert http.get('/corrections.json').status_code == 404 and http.get('/issues.csv').status_code == 404

def test_the_page_shows_what_goes_wrong_and_runs_nothing(app, state):
    state.fail(4, '<script>alert(1)</script>'); state.know(4, title='<b>')
    page = app.get('/').text
    assert '<script>' not in page and '<b>' not in page and 'cat → dog (99%)' in page

def test_a_full_disk_is_no_acceptance(app, state, monkeypatch):
    def full(*args): raise sqlite3.OperationalError('database or disk is full')
    monkeypatch.setattr(State, 'annotated', full)
    assert app.post('/webhook', json=dict(action='ANNOTATION_CREATED', project=4)).status_code == 503
    assert app.get('/health').status_code == 200

def test_a_state_folder_that_is_full(state):
    "No more pages are given, which SQLite reports as it does a full disk."
    with TestClient(make_app(state, every=3)) as http:
        http.post('/webhook', json=dict(action='ANNOTATION_CREATED', project=4))
        State._connect, connect = (lambda self: connect(self).execute(f"PRAGMA max_page_count = {connect(self).execute('PRAGMA page_count').fetchone()[0]}").connection), State._connect
        try:
            state.know(4, config='x'*100)
            with pytest.raises(sqlite3.OperationalError, match='full'): state.publish(4, [(i, 'x'*1000, 'cat', 'dog', .9, True) for i in range(100)], {})
            assert http.post('/setup', json=dict(project=4, schema='x'*100_000)).status_code == 503
            assert http.get('/health').status_code == 200 and 'room in the state folder' in http.get('/').text
            for _ in range(2): state.fail(4, 'y'*50_000)     # which does not fit: it is kept in memory, once
            assert [o['id'] for o in state.errors() if o['text'][0] == 'y'] == [0] and 'yyy' in http.get('/').text
        finally:
            State._connect = connect
            del state._local.db
        assert http.get('/').status_code == 200 and state.predictions(4, [1]) == {} and state.projects()[0]['annotations'] == 1

def test_what_fails_half_way_leaves_nothing(state):
    state.publish(1, ROWS, {})
    with pytest.raises(sqlite3.IntegrityError): state.publish(1, [*ROWS, (4, 'x', None, None, .1, False)], {})
    state.request(1)
    assert state.begin() == 1 and state.versions(1) == ['fastclean-1'] and len(state.predictions(1, range(9))) == 3

def test_thousands_of_labels(state):
    labels = [f'class {i}' for i in range(5000)]
    config = write_labelling(labels)
    with TestClient(make_app(state)) as http:
        assert http.post('/setup', json=dict(project='4.1', schema=config)).status_code == 200
        state.publish(4, [(i, f'{i}.jpg', labels[i], labels[-i], .9, True) for i in range(1, 2501)], dict(issues=2500, labelled=2500))
        start = time.time()
        got = http.post('/predict', json=dict(project='4.1', tasks=[dict(id=i) for i in range(1, 2501)], label_config=config)).json()['results']
        assert time.time() - start < 3 and [o['result'][0]['value']['choices'] for o in got[:2]] == [['class 4999'], ['class 4998']]
        assert http.get('/').text.count('<figure>') == 12

def test_corrections_are_what_correct_reads(tmp_path, app):
    for c, names in dict(cat=['1.jpg', '2.jpg'], dog=['1.jpg', '3.jpg']).items():
        (tmp_path/'pets'/c).mkdir(parents=True)
        for n in names: (tmp_path/'pets'/c/n).write_bytes(c.encode())
    (tmp_path/'c.json').write_bytes(app.get('/corrections.json').content)
    assert main(['correct', str(tmp_path/'pets'), str(tmp_path/'right'), '--issues', str(tmp_path/'c.json'), '--threshold', '.95']) == 0
    assert len(list((tmp_path/'right'/'dog').iterdir())) == 3 and len(list((tmp_path/'right'/'cat').iterdir())) == 1

@pytest.mark.parametrize('args, message', [(['serve', '--host', '0.0.0.0'], 'FASTCLEAN_PASSWORD'), (['serve', '--every', '0'], '--every must be 1'), (['serve', '--method', 'magic'], '--method must be one of folds'),
    (['serve', '--epochs', '3'], '--epochs is for --method recipe'), (['serve', '--method', 'dividemix', '--epochs', '0'], '--epochs must be 1'), (['serve', '--arch', 'small_net'], 'needs a pretrained network'), (['import', 'nowhere', '--title', 'abc'], 'is not there')])
def test_wrong_usage(args, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path); monkeypatch.delenv('FASTCLEAN_PASSWORD', raising=False); monkeypatch.setenv('LABEL_STUDIO_API_KEY', KEY)
    assert main(['labelstudio', *args]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count('\n') == 1 and KEY not in err

# ---- against a real Label Studio
real = pytest.mark.skipif(not {'LABEL_STUDIO_HOST', 'LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT'} <= set(os.environ), reason='needs a Label Studio: make test-labelstudio')
ROOT = Path(__file__).resolve().parent.parent
PETS = Path.home()/'.fastai/data/cats_dogs/training_set'

class Backend:
    "`fastclean labelstudio serve` in a process of its own."
    def __init__(self, folder, *args, every=20, password=None, **env):
        self.folder, self.port, self.args = folder, free_port(), ['--every', str(every), *args]
        self.url, self.auth = f'http://127.0.0.1:{self.port}', ('fastclean', password) if password else None
        self.env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', **({'FASTCLEAN_PASSWORD': password} if password else {}), **env)
        self.start()
    def start(self):
        with open(f'{self.folder}.log', 'ab') as out:
            self.proc = subprocess.Popen([sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))', 'labelstudio', 'serve', '--state', str(self.folder),
                                          '--port', str(self.port), *self.args], env=self.env, stdout=out, stderr=out)
        until(lambda: self.get('/health').status_code == 200, 60)
    def get(self, path):
        try: return httpx.get(self.url + path, auth=self.auth, timeout=10)
        except httpx.TransportError: return httpx.Response(599)
    def stop(self, sig=signal.SIGTERM):
        self.proc.send_signal(sig)
        self.proc.wait(30)
    @property
    def log(self): return Path(f'{self.folder}.log').read_text()
    def project(self, id): return next((o for o in State(self.folder).projects() if o['id'] == id), {})

def until(true, seconds, step=.5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (got := true()): return got
        time.sleep(step)
    raise AssertionError(f'not within {seconds} s')

@pytest.fixture
def backend(tmp_path):
    made = []
    def make(*args, **kwargs):
        made.append(Backend(tmp_path/f'state{len(made)}', *args, **kwargs))
        return made[-1]
    yield make
    for b in made:
        if b.proc.poll() is None: b.stop()

@pytest.fixture
def served(request):
    "A folder that Label Studio serves files from."
    d = Path(os.environ['LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT'])/request.node.name.replace('[', '-').rstrip(']')
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir()
    return d

def two_classes(folder, n):
    "Photographs of cats and dogs where they are at hand, else digits; n of each class."
    if PETS.is_dir(): classes = {c: sorted((PETS/c).glob('*.jpg'))[:n] for c in ('cats', 'dogs')}
    else:
        all = digits_sample(folder.parent/'all-digits')
        classes = {c: sorted((all/c).glob('*.png'))[:n] for c in ('3', '8')}
    for c, files in classes.items():
        (folder/c).mkdir(parents=True)
        for f in files: shutil.copy(f, folder/c/f.name)
    return folder

def title(name): return f'{name} {secrets.token_hex(3)}'

def project_of(name): return next(o for o in Projects().projects() if o['title'] == name)

def snapshot(folder): return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob('*') if f.is_file() and '.fastclean' not in f.parts}

@real
def test_an_import_adds_nothing_twice_and_goes_on(served, tmp_path, capsys):
    src = two_classes(served/'pets', 40)
    name = title('Twice')
    args = ['labelstudio', 'import', str(src), '--title', name]
    assert main(args) == 0 and '80 tasks added' in capsys.readouterr().out
    assert main(args) == 0 and '0 tasks added' in capsys.readouterr().out
    c = Projects()
    p = project_of(name)
    tasks = list(c.tasks(p['id']))
    for t in tasks[:30]: c.request('DELETE', f"/api/tasks/{t['id']}")
    assert main(args) == 0 and '30 tasks added to project' in capsys.readouterr().out
    tasks = list(c.tasks(p['id']))
    given = {t['data']['item']: t['annotations'][0] for t in tasks}
    assert len(tasks) == len(given) == 80 and not any(a['ground_truth'] for a in given.values())
    assert all(a['result'][0]['value']['choices'] == [item.split('/')[0]] for item, a in given.items())
    assert c.fetch(tasks[0]['data']['image']) == (src/tasks[0]['data']['item']).read_bytes()

@real
def test_texts_and_strange_names(served, tmp_path, capsys):
    name = title('Moods')
    pd.DataFrame(dict(tweet=[f'{"what a lovely" if i % 2 else "this is an awful"} day, number {i} & <co>' for i in range(40)], mood=['good' if i % 2 else 'b"a<d' for i in range(40)])).to_csv(tmp_path/'t.csv', index=False)
    for _ in range(2): assert main(['labelstudio', 'import', str(tmp_path/'t.csv'), '--text-col', 'tweet', '--label-col', 'mood', '--title', name]) == 0
    c = Projects()
    p = project_of(name)
    tasks = list(c.tasks(p['id']))
    asked = read_labelling(c.project(p['id'])['label_config'])
    assert len(tasks) == 40 and {given_label(t, asked)[0] for t in tasks} == {'good', 'b"a<d'} and '& <co>' in tasks[0]['data']['text']
    assert main(['labelstudio', 'import', str(two_classes(served/'pets', 3)), '--title', name]) == 2
    assert 'about something else' in capsys.readouterr().err

@real
def test_from_a_noisy_folder_to_a_corrected_one(served, backend, tmp_path):
    from fastai.vision.all import ImageDataLoaders, Resize
    noisy = served/'noisy'
    truth = noisy_copy(two_classes(tmp_path/'pets', 200), noisy, SymmetricNoise(.1), seed=1, on='all')
    (noisy/'noise.csv').rename(tmp_path/'noise.csv')
    b, name = backend(password='pass'), title('Noisy')
    os.environ['FASTCLEAN_PASSWORD'] = 'pass'
    try: assert main(['labelstudio', 'import', str(noisy), '--title', name, '--backend', b.url]) == 0
    finally: del os.environ['FASTCLEAN_PASSWORD']
    c = Projects()
    p = project_of(name)
    until(lambda: b.project(p['id']).get('stage', '').startswith('fastclean-1'), 400)
    got = b.get('/corrections.json').json()
    wrong = {o for o, w in zip(truth.frame['item'], truth.frame.is_flipped) if w}
    found, hit = set(got['corrected_paths']), set(got['corrected_paths']) & wrong
    f1 = 2*len(hit)/(len(found) + len(wrong))
    print(f'{len(wrong)} wrong of {len(truth.frame)}, {len(found)} corrections, {len(hit)} right, F1 {f1:.3f}')
    assert f1 > .85
    tasks = list(c.tasks(p['id']))
    assert all(len(t['predictions']) == 1 and t['predictions'][0]['model_version'] == 'fastclean-1' and 0 <= t['predictions'][0]['score'] <= 1 for t in tasks)
    assert b.get('/issues.csv').text.count('\n') == len(tasks) + 1 and b.get('/').text.count('<figure>') == min(12, len(found))
    assert b.get(f"/picture/{p['id']}/{tasks[0]['id']}").content == (noisy/tasks[0]['data']['item']).read_bytes()
    (tmp_path/'c.json').write_bytes(b.get('/corrections.json').content)
    before, right = snapshot(noisy), tmp_path/'right'
    assert main(['correct', str(noisy), str(right), '--issues', str(tmp_path/'c.json')]) == 0
    of = {(noisy/o).read_bytes(): t for o, t in zip(truth.frame['item'], truth.frame.true_label)}
    share = {d: np.mean([of[f.read_bytes()] == f.parent.name for f in d.glob('*/*.*') if '.fastclean' not in f.parts]) for d in (noisy, right)}
    print(f'{share[noisy]:.1%} of the labels were right, {share[right]:.1%} are in the corrected folder')
    assert share[noisy] == pytest.approx(1 - len(wrong)/len(tasks)) and share[right] > .97
    assert len(ImageDataLoaders.from_folder(right, valid_pct=.2, item_tfms=Resize(32), num_workers=0).vocab) == 2
    assert main(['undo', str(right)]) == 0 and snapshot(right) == before == snapshot(noisy)
    assert os.environ['LABEL_STUDIO_API_KEY'] not in b.log and not any(os.environ['LABEL_STUDIO_API_KEY'].encode() in f.read_bytes() for f in b.folder.rglob('*') if f.is_file())

@real
def test_labelling_along(served, backend, tmp_path):
    src, c = two_classes(served/'pets', 60), Projects()
    for f in sorted(src.rglob('*.*'))[::2]: f.rename(f.with_name('first-' + f.name))
    b = backend(every=20)
    p, _ = find_project(c, title('Along'), ['cats', 'dogs'] if PETS.is_dir() else ['3', '8'], 'image')
    asked, id = read_labelling(p['label_config']), p['id']
    from fastclean.labelstudio.commands import connect
    from fastclean.labelstudio.importing import send_tasks, serve_files
    where = serve_from(src)
    serve_files(c, id, where)
    send_tasks(c, id, [make_task(f.relative_to(src).as_posix(), f.relative_to(src).as_posix(), None, asked, where) for f in sorted(src.rglob('*.*'), key=lambda f: f.name)])
    assert connect(c, id, b.url) and not connect(c, id, b.url)
    tasks = list(c.tasks(id))
    until(lambda: 'waits for labels' in b.project(id).get('stage', ''), 120)
    annotate({t['id']: asked.result(t['data']['item'].split('/')[0]) for t in tasks[:60]})
    until(lambda: b.project(id)['version'] and not b.project(id)['running'] and b.project(id)['started'] == b.project(id)['requested'], 400)
    v = b.project(id)['version']
    t = {o['id']: o for o in c.tasks(id)}
    rest = [[q for q in t[o['id']]['predictions'] if q['model_version'] == f'fastclean-{v}'] for o in tasks[60:]]
    assert all(len(q) == 1 for q in rest)
    right = sum(q['result'][0]['value']['choices'] == [o['data']['item'].split('/')[0]] for (q,), o in zip(rest, tasks[60:]))
    print(f'version {v}: {right} of {len(rest)} tasks are pre-filled rightly')
    assert right > .85*len(rest)
    assert b.project(id)['version'] >= 1 and 'waits' not in b.project(id)['stage']
    nxt = c.json('GET', f'/api/projects/{id}/next')
    score = {o['id']: q['score'] for (q,), o in zip(rest, tasks[60:])}
    assert nxt['predictions'][0]['model_version'] == f'fastclean-{v}' and score[nxt['id']] == min(score.values())   # the least certain first
    assert CHROMIUM, 'an annotator looks at it in a browser: install Chromium'
    task, ticked = shown_in_browser(id, tmp_path/'stream.png')
    assert ticked == dict(zip((o['id'] for o in tasks[60:]), (q['result'][0]['value']['choices'] for q, in rest)))[task]

def annotate(results):
    "Annotate tasks through Label Studio's own SDK, which lives in its environment."
    said = "import json, os, sys; from label_studio_sdk import LabelStudio; ls = LabelStudio(base_url=os.environ['LABEL_STUDIO_HOST'], api_key=os.environ['LABEL_STUDIO_API_KEY']); " \
           "[ls.annotations.create(id=int(t), result=r, lead_time=2) for t, r in json.load(sys.stdin).items()]"
    subprocess.run([os.environ['LABEL_STUDIO_PYTHON'], '-c', said], input=json.dumps(results), text=True, check=True)

@real
def test_a_backend_added_by_hand(served, backend, capsys, monkeypatch):
    src, c = two_classes(served/'pets', 10), Projects()
    name, b = title('By hand'), backend(password='pass')
    assert main(['labelstudio', 'import', str(src), '--title', name]) == 0
    id = project_of(name)['id']
    c.json('POST', '/api/ml', json=dict(project=id, url=b.url, title='mine', auth_method='BASIC_AUTH', basic_auth_user='fastclean', basic_auth_pass='pass'))
    asked, tasks = read_labelling(c.project(id)['label_config']), list(c.tasks(id))
    said = lambda t: {t['id']: asked.result(t['data']['item'].split('/')[0])}
    annotate(said(tasks[0]))
    until(lambda: 'labelstudio connect' in b.get('/').text, 60)   # Label Studio's webhook has no password
    until(lambda: not b.project(id)['running'], 120)
    before = b.project(id)['annotations']
    monkeypatch.setenv('FASTCLEAN_PASSWORD', 'pass')
    assert main(['labelstudio', 'connect', str(id), b.url]) == 0 and 'was connected to project' in capsys.readouterr().out
    assert len(c.json('GET', '/api/ml', params=dict(project=id))) == 1
    annotate(said(tasks[1]))
    until(lambda: b.project(id)['annotations'] == before + 1, 60)
    assert 'pass' not in b.log.replace('password', '').replace('FASTCLEAN_PASSWORD', '')

def shown_in_browser(project, shot):
    "The task that an annotator sees who opens the label stream, and which choices are ticked."
    host, env = os.environ['LABEL_STUDIO_HOST'], os.environ
    with Browser() as b:
        def when(js):
            def _true():
                try: return b.js(js)
                except RuntimeError: return False   # between two pages
            return until(_true, 90)
        b.size(1300, 900)
        b.call('Page.navigate', url=f'{host}/user/login/')
        when("!!document.querySelector('input[name=password]')")
        b.js(f"document.querySelector('input[name=email]').value = {json.dumps(env['LABEL_STUDIO_USERNAME'])}; document.querySelector('input[name=password]').value = {json.dumps(env['LABEL_STUDIO_PASSWORD'])}; document.querySelector('form').submit()")
        when("!location.pathname.startsWith('/user/login') && document.readyState == 'complete'")
        b.call('Page.navigate', url=f'{host}/projects/{project}/data?labeling=1')
        when("document.querySelectorAll('.ant-checkbox-input').length > 1")
        time.sleep(3)
        b.shot(shot, full=False)
        return b.js("[Number(document.body.innerText.match(/(\\d+)\\s+\\d+ of \\d+/)[1]), [...document.querySelectorAll('.ant-checkbox-input')].filter(o => o.checked).map(o => o.name)]")

@real
def test_killed_in_the_middle_it_goes_on(served, backend):
    src = two_classes(served/'pets', 60)
    b, name = backend(), title('Killed')
    assert main(['labelstudio', 'import', str(src), '--title', name, '--backend', b.url]) == 0
    id = project_of(name)['id']
    for sig in (signal.SIGKILL, signal.SIGTERM):
        until(lambda: b.project(id).get('stage', '') in ('fetching images', 'computing features'), 120, .1)
        b.stop(sig)
        b.start()
    until(lambda: b.project(id).get('stage', '').startswith('fastclean-1'), 400)
    assert State(b.folder).versions(id) == ['fastclean-1'] and b.get('/corrections.json').status_code == 200

@pytest.mark.parametrize('answer, slow, message', [((401, b'{}'), 0, 'refuses the key .*set LABEL_STUDIO_API_KEY'), ((200, b'<html>'), 0, 'is this the address of Label Studio'), ((500, b'oops'), 0, 'status 500.* It is tried again'),
    ((200, b'{"id": 1, "title": "x", "label_config": "<View/>"}'), 0, 'no .*Choices.*classification')])
@pytest.mark.slow
def test_a_backend_beside_a_label_studio_that_misbehaves(server, backend, answer, slow, message):
    client(server, answer)
    b = backend(LABEL_STUDIO_HOST=server.url, LABEL_STUDIO_API_KEY=KEY)
    assert httpx.post(b.url + '/webhook', json=dict(action='START_TRAINING', project=dict(id=1))).status_code == 200
    until(lambda: State(b.folder).errors() and not b.project(1)['running'], 300)
    until(lambda: re.search(message, b.log), 20)
    page = b.get('/').text
    assert re.search(message, html.unescape(page)) and b.get('/health').status_code == 200
    assert KEY not in page + b.log and not any(KEY.encode() in f.read_bytes() for f in b.folder.rglob('*') if f.is_file())

@pytest.fixture
def small_disk(tmp_path):
    "A file system of two megabytes."
    d = tmp_path/'disk'
    d.mkdir()
    if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', d]).returncode: pytest.skip('only root can mount a small disk')
    yield d
    subprocess.run(['umount', '-l', d])

@pytest.mark.slow
def test_a_disk_that_is_full(small_disk, server):
    client(server, (401, b'{}'))
    b = Backend(small_disk/'state', every=2, LABEL_STUDIO_HOST=server.url, LABEL_STUDIO_API_KEY=KEY)
    say = lambda: httpx.post(b.url + '/webhook', json=dict(action='ANNOTATION_CREATED', project=dict(id=1)), timeout=30).status_code
    try:
        assert say() == 200
        with (small_disk/'ballast').open('wb', buffering=0) as f, contextlib.suppress(OSError):
            while f.write(b'x'*4096): pass
        accepted = 1
        while (status := say()) == 200: accepted += 1        # what fits into the pages that are there
        assert status == 503 and b.get('/health').status_code == 200
        assert 'Is there room in the state folder?' in b.get('/').text and re.search('/webhook.*full|could not be', b.log)
        (small_disk/'ballast').unlink()
        def counted(): p = b.project(1); return 2*p['requested'] + p['annotations']
        assert counted() == accepted
        for _ in range(2): assert say() == 200
        assert counted() == accepted + 2
        until(lambda: 'refuses the key' in b.get('/').text, 120)     # and the training that was asked for comes
    finally: b.stop()

# ---- more against a real Label Studio
def connected(c, b, name, config, tasks):
    "A project with tasks that is connected to a backend."
    from fastclean.labelstudio.commands import connect
    p = c.json('POST', '/api/projects', json=dict(title=title(name), label_config=config))
    c.json('POST', f"/api/projects/{p['id']}/import", json=tasks)
    connect(c, p['id'], b.url)
    return p['id']

MOODS = dict(good='what a lovely day', bad='this is an awful mess')
def said(asked, n, key='text'): return [dict(data={key: f'{MOODS[m]}, number {i}'}, annotations=[dict(result=asked.result(m), ground_truth=False)] if i < n - 4 else []) for i, m in enumerate(['good', 'bad']*(n//2))]

@real
def test_configurations_of_all_kinds(backend):
    config = '''<View><Text name="t" value="$words"/><Choices name="topic" toName="t" choice="multiple"><Choice value="x"/><Choice value="y"/></Choices>
        <Choices name="size" toName="t"><Choice value="big"/><Choice value="small"/></Choices><Choices name="mood" toName="t"><Choice value="good"/><Choice value="bad"/></Choices></View>'''
    b, c, asked = backend('--control', 'mood'), Projects(), read_labelling(config, 'mood')
    with_three = connected(c, b, 'Three', config, said(asked, 30, 'words'))
    without = connected(c, b, 'None', '<View><Image name="i" value="$image"/><RectangleLabels name="l" toName="i"><Label value="cat"/></RectangleLabels></View>', [dict(data=dict(image='/x.png'))])
    other = connected(c, b, 'Other', write_labelling(list(MOODS), 'text'), said(read_labelling(write_labelling(list(MOODS), 'text')), 30))
    until(lambda: b.project(with_three).get('version') and all(b.project(o).get('stage', '').startswith('failed') for o in (without, other)), 200)
    got = [t['predictions'][0]['result'][0] for t in c.tasks(with_three)]
    assert {o['from_name'] for o in got} == {'mood'} and {o['value']['choices'][0] for o in got} == {'good', 'bad'}
    page = html.unescape(b.get('/').text)
    assert "there are no choices named 'mood' for an image or a text; there are: none" in page and "there are: 'label'" in page

@real
def test_two_projects_at_once(backend):
    b, c, config = backend(), Projects(), write_labelling(list(MOODS), 'text')
    ids = [connected(c, b, name, config, said(read_labelling(config), n)) for name, n in (('One', 40), ('Two', 60))]
    running = []
    def done():
        running.append(sum(o['running'] for o in State(b.folder).projects()))
        return all(b.project(i).get('stage', '').startswith('fastclean-1') for i in ids)
    until(done, 200, .2)
    assert max(running) == 1
    assert [len(b.get(f'/corrections.json?project={i}').json()) for i in ids] == [4, 4] and b.get('/corrections.json').status_code == 400
    for i, n in zip(ids, (40, 60)): assert len([p for t in c.tasks(i) for p in t['predictions']]) == n

@real
def test_images_that_cannot_be_read_and_tasks_that_go(served, backend, tmp_path):
    src, c = two_classes(served/'pets', 30), Projects()
    files = sorted(src.rglob('*.*'))
    files[3].write_bytes(b''); files[40].write_bytes(b'no image')
    b, name = backend(), title('Broken')
    assert main(['labelstudio', 'import', str(src), '--title', name]) == 0
    files[50].unlink()
    p = project_of(name)
    from fastclean.labelstudio.commands import connect
    connect(c, p['id'], b.url)
    until(lambda: b.project(p['id']).get('version'), 200)
    page, tasks = html.unescape(b.get('/').text), {t['data']['item']: t for t in c.tasks(p['id'])}
    for what in ('1 of 60 tasks are left out; the first is', '2 of 59 images cannot be read and are left out; the first is'): assert what in page and until(lambda: what in b.log, 20)
    assert [len(t['predictions']) for f, t in tasks.items() if f not in {files[i].relative_to(src).as_posix() for i in (3, 40, 50)}] == [1]*57
    some = [t['id'] for t in tasks.values()][:5]
    for i in some: c.request('DELETE', f'/api/tasks/{i}')
    send_predictions(c, p['id'], read_labelling(p['label_config']), [(t['id'], '', None, 'cats' if PETS.is_dir() else '3', .5, False, '') for t in tasks.values()], 'later')
    assert sum(q['model_version'] == 'later' for t in c.tasks(p['id']) for q in t['predictions']) == 55

@real
def test_two_networks_go_on_after_a_kill(served, backend):
    src = two_classes(served/'pets', 40)
    b, name = backend('--method', 'dividemix', '--epochs', '8'), title('Two networks')
    assert main(['labelstudio', 'import', str(src), '--title', name, '--backend', b.url]) == 0
    id, seen = project_of(name)['id'], []
    for sig in (signal.SIGTERM, signal.SIGKILL):
        until(lambda: 'epoch' in b.project(id).get('stage', '') and int(b.project(id)['stage'].split()[-3]) > max(seen, default=1), 200, .1)
        seen.append(int(b.project(id)['stage'].split()[-3]))
        b.stop(sig)
        b.start()
        stage = until(lambda: 'epoch' in b.project(id)['stage'] and b.project(id)['stage'], 200, .05)
    until(lambda: b.project(id).get('stage', '').startswith('fastclean-1'), 200)
    assert len([t for t in Projects().tasks(id) if len(t['predictions']) == 1]) == 80
    assert 'fastclean-1 by dividemix' in b.get('/').text and not (State(b.folder).home(id)/'unfinished').exists()

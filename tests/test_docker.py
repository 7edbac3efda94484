"""The Docker files, as far as they can be checked without Docker: what they name is there, fits together, and is what the other tests run.
`LABELSTUDIO=BIN/label-studio pytest tests/test_docker.py` starts both commands with the environment that compose gives them, and lets them work together."""
import fnmatch, ipaddress, json, os, re, secrets, shlex, shutil, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest
import yaml

from label_studio import SUBNETS, free_port

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT/'docker'
if not HERE.is_dir(): pytest.skip('the Docker files are not part of an installation', allow_module_level=True)
COMPOSE = yaml.safe_load((HERE/'compose.yaml').read_text())
SERVICES = COMPOSE['services']
STUDIO, BACKEND = SERVICES['label-studio'], SERVICES['backend']
DOTENV = dict(o.split('=', 1) for o in (HERE/'.env.example').read_text().splitlines() if o and o[0] != '#')
VARIABLE = re.compile(r'\$\{(\w+)(?::([?-])([^}]*))?\}')

def stages():
    "The instructions of the Dockerfile: by stage, pairs of instruction and arguments, those of the stages it is made from first."
    out, current = {}, None
    for line in re.sub(r'\\\n', ' ', (HERE/'Dockerfile').read_text()).splitlines():
        if not line.strip() or line[0] == '#': continue
        word, _, rest = line.partition(' ')
        if word == 'FROM':
            base, name = re.fullmatch(r'(\S+) AS (\S+)', rest).groups()
            current = out[name] = list(out.get(base, [('FROM', base)]))
        else: current.append((word, rest.strip()))
    return out

STAGES = stages()

def last(stage, word): return [a for w, a in STAGES[stage] if w == word][-1]
def command(stage): return json.loads(last(stage, 'CMD'))
def flag(cmd, name): return cmd[cmd.index(name) + 1]

def parsed(args):
    "A line of our command line, read by it and not run: the parameters of its command."
    import typer
    from fastclean import actions, auditing, noising, training   # noqa: F401: their commands join the others
    from fastclean.cli import app
    from fastclean.labelstudio import commands                   # noqa: F401
    cmd = typer.main.get_command(app)
    ctx = cmd.make_context('fastclean', list(args))
    while hasattr(cmd, 'commands'):
        name, cmd, rest = cmd.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        ctx = cmd.make_context(name, rest, parent=ctx)
    return ctx.params

# ---- the Dockerfile

@pytest.mark.parametrize('stage', STAGES)
def test_only_what_docker_knows(stage):
    known = {'FROM', 'ENV', 'RUN', 'USER', 'WORKDIR', 'COPY', 'EXPOSE', 'HEALTHCHECK', 'CMD'}
    assert {w for w, _ in STAGES[stage]} <= known and STAGES[stage][0] == ('FROM', 'python:3.11-slim')
    for w, a in STAGES[stage]:
        if w == 'RUN': assert subprocess.run(['sh', '-n', '-c', a]).returncode == 0
        if w == 'HEALTHCHECK': compile(json.loads(a[a.index('CMD ') + 4:])[2], 'healthcheck', 'exec')

def test_what_is_copied_is_there_and_not_left_out():
    rules = (HERE/'Dockerfile.dockerignore').read_text().split()
    assert rules[0] == '*'
    for w, a in STAGES['backend']:
        if w != 'COPY': continue
        *sources, _ = a.split()
        for o in sources: assert (ROOT/o).exists() and f'!{o}' in rules, o
    assert not any(fnmatch.fnmatch(n, r[1:]) for r in rules if r[0] == '!' for n in ('.git', '.env', 'docker', 'nbs', '.venv'))

def test_what_is_copied_is_enough_to_install(tmp_path):
    "`pip install` looks at these files alone."
    for w, a in STAGES['backend']:
        if w != 'COPY': continue
        *sources, to = a.split()
        for o in sources: shutil.copytree(ROOT/o, tmp_path/to) if (ROOT/o).is_dir() else shutil.copy(ROOT/o, tmp_path/to)
    r = subprocess.run([sys.executable, 'setup.py', '-q', 'egg_info'], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    files = (tmp_path/'fastclean.egg-info'/'SOURCES.txt').read_text()
    assert 'fastclean/labelstudio/commands.py' in files and 'fastclean = fastclean.cli:main' in (tmp_path/'fastclean.egg-info'/'entry_points.txt').read_text()
    wanted = re.search(r"'\.\[([\w,]+)\]'", last('backend', 'RUN'))[1].split(',')
    have = re.findall(r'^Provides-Extra: (\w+)', (tmp_path/'fastclean.egg-info'/'PKG-INFO').read_text(), re.M)
    assert 'labelstudio' in wanted and set(wanted) <= set(have)

def test_nobody_is_root():
    for stage in ('label-studio', 'backend'): assert last(stage, 'USER') == 'user'

def test_the_label_studio_that_is_tested():
    version = re.search(r"label-studio==([\d.]+)", last('label-studio', 'RUN'))[1]
    assert f'label-studio=={version}' in (ROOT/'Makefile').read_text()
    tested = (ROOT/'tests'/'label_studio.py').read_text()
    cmd = command('label-studio')
    assert cmd[:2] == ['label-studio', 'start'] and all(f"'{o}'" in tested for o in cmd if o.startswith('--'))

def test_the_backend_is_a_command_of_ours():
    p = parsed(command('backend')[1:])
    assert command('backend')[0] == 'fastclean' and (p['host'], p['port'], p['state'], p['labelstudio_key']) == ('0.0.0.0', 9090, Path('/state'), None)
    with pytest.raises(Exception, match='[Nn]o such option'): parsed(['labelstudio', 'serve', '--colour', 'blue'])

def test_ports_and_folders_are_those_of_the_commands():
    for stage, service in (('label-studio', STUDIO), ('backend', BACKEND)):
        port = flag(command(stage), '--port')
        assert last(stage, 'EXPOSE') == port and all(o.split(':')[-1] == port for o in service['ports']) and f"127.0.0.1{':' if stage == 'label-studio' else chr(39) + ', '}{port}" in last(stage, 'HEALTHCHECK')
    made = re.search(r'mkdir (.*) &&', last('base', 'RUN'))[1].split()
    assert set(made) == {flag(command('backend'), '--state'), STUDIO['environment']['LABEL_STUDIO_BASE_DATA_DIR']}

# ---- compose

def test_parts_refer_to_each_other():
    named = set()
    for s in SERVICES.values():
        assert (HERE/s['build']['context']).resolve() == ROOT and (ROOT/s['build']['dockerfile']).is_file() and s['build']['target'] in STAGES
        assert set(s['networks']) <= COMPOSE['networks'].keys() and set(s.get('depends_on', ())) <= SERVICES.keys()
        named |= {o.split(':')[0] for o in s['volumes'] if o[0] not in '$./'}
    assert named == COMPOSE['volumes'].keys()

def test_others_reach_neither():
    assert all(o.startswith('127.0.0.1:') for s in SERVICES.values() for o in s['ports'])
    assert not {'network_mode', 'privileged', 'cap_add', 'extra_hosts'} & {k for s in SERVICES.values() for k in s}

def test_both_see_the_same_files_and_write_none():
    root = {s['environment']['LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT'] for s in SERVICES.values()}
    assert root == {'/files'}
    for s in SERVICES.values(): assert [VARIABLE.sub('F', o) for o in s['volumes'] if o[0] == '$'] == ['F:/files:ro']

def test_variables_are_those_of_the_example():
    text = (HERE/'compose.yaml').read_text()
    used = {m[1]: m[2] for m in VARIABLE.finditer(text)}
    assert used.keys() == DOTENV.keys() and text.count('${') == len(VARIABLE.findall(text))
    secret = used.keys() - {'FILES'}
    assert all(used[k] == '?' and DOTENV[k] == '' for k in secret) and DOTENV['FILES'].startswith('./')      # compose refuses to start while one is empty
    ignored = (ROOT/'.gitignore').read_text().split()
    assert '/docker/.env' in ignored and '/docker/files/' in ignored

def test_no_secret_inside():
    for f in HERE.iterdir(): assert not re.search(r'[0-9a-f]{20}', f.read_text()), f
    for s in SERVICES.values():
        for k, v in s['environment'].items():
            if re.search('PASSWORD|TOKEN|KEY', k): assert VARIABLE.fullmatch(v), k

def test_environment_is_read():
    "The backend's by our code, Label Studio's by the one that is tested."
    ours = ''.join(f.read_text() for f in (ROOT/'fastclean').rglob('*.py'))
    for k in BACKEND['environment']: assert f"'{k}'" in ours, k
    tested = (ROOT/'tests'/'label_studio.py').read_text()
    for k in STUDIO['environment']: assert f'{k}=' in tested, k

def test_they_find_each_other():
    assert BACKEND['environment']['LABEL_STUDIO_HOST'] == 'http://label-studio:' + flag(command('label-studio'), '--port')
    assert BACKEND['environment']['LABEL_STUDIO_API_KEY'] == STUDIO['environment']['LABEL_STUDIO_USER_TOKEN']

def test_label_studio_may_call_the_backend_and_nothing_else_inside():
    banned = [ipaddress.ip_network(o) for o in STUDIO['environment']['USER_ADDITIONAL_BANNED_SUBNETS'].split(',')]
    may = lambda a: not any(ipaddress.ip_address(a) in n for n in banned)
    net, = COMPOSE['networks']['inside']['ipam']['config']
    hosts = list(map(str, ipaddress.ip_network(net['subnet']).hosts()))
    assert net['gateway'] in hosts and not may(net['gateway']) and all(may(o) for o in hosts if o != net['gateway'])
    for a in ('127.0.0.1', '10.1.2.3', '172.17.0.1', '192.168.1.1', '169.254.169.254', '100.64.0.1', '0.0.0.0', '::1', 'fe80::1', 'fd00::1', '::ffff:127.0.0.1'): assert not may(a), a
    assert {ipaddress.ip_network(o) for o in SUBNETS.split(',')} - set(banned) == {ipaddress.ip_network('198.18.0.0/15')} and may('8.8.8.8')

def test_commands_in_the_comments(tmp_path):
    lines = [o[1:].strip() for o in (HERE/'compose.yaml').read_text().splitlines() if o[:1] == '#']
    inside, = [o for o in lines if ' exec backend fastclean ' in o]
    p = parsed(shlex.split(inside)[5:])
    assert p['backend'] == 'http://backend:' + flag(command('backend'), '--port') and p['src'] == Path('/files/pets')
    from fastapi.testclient import TestClient
    from fastclean.labelstudio.server import make_app
    from fastclean.labelstudio.state import State
    curl, = [shlex.split(o, comments=True) for o in lines if o.startswith('curl')]
    with TestClient(make_app(State(tmp_path/'state'), password='right')) as http: assert http.get('/health', auth=(flag(curl, '--user'), 'right')).status_code == 200
    assert curl[-1] == f"http://{BACKEND['ports'][0].rsplit(':', 1)[0]}/corrections.json"

def test_without_a_password_it_does_not_listen(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != 'FASTCLEAN_PASSWORD'} | dict(LABEL_STUDIO_API_KEY='a', PYTHONPATH=str(ROOT))
    cmd = [str(tmp_path/'state') if o == '/state' else o for o in command('backend')]
    r = subprocess.run([sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))', *cmd[1:]], env=env, capture_output=True, text=True, timeout=120)
    assert r.returncode == 2 and 'FASTCLEAN_PASSWORD' in r.stderr

# ---- both together, without Docker

@pytest.mark.skipif(not os.environ.get('LABELSTUDIO'), reason='LABELSTUDIO names no Label Studio')
def test_what_compose_starts_works_together(tmp_path):
    from fastclean.data import digits_sample
    values = dict(LABEL_STUDIO_USERNAME='a@b.co', LABEL_STUDIO_PASSWORD=secrets.token_urlsafe(12), LABEL_STUDIO_USER_TOKEN=secrets.token_hex(20), FASTCLEAN_PASSWORD=secrets.token_hex(20), FILES='')
    ports = {'8080': str(free_port()), '9090': str(free_port())}
    folders = {o: str(tmp_path/o) for o in ('data', 'state', 'files')}
    def here(text):
        "What stands for a container on this machine: its ports, its folders, its addresses."
        text = VARIABLE.sub(lambda m: values[m[1]], text).replace('http://label-studio:8080', f'http://127.0.0.1:{ports["8080"]}')
        return {'0.0.0.0': '127.0.0.1', **{f'/{k}': v for k, v in folders.items()}, **ports}.get(text, text)
    digits_sample(tmp_path/'all')
    for c in '38': shutil.copytree(tmp_path/'all'/c, tmp_path/'files'/'digits'/c, ignore=lambda d, names: sorted(names)[30:])
    for d in ('data', 'state'): Path(folders[d]).mkdir()
    plain = {k: v for k, v in os.environ.items() if not k.startswith(('LABEL_STUDIO', 'FASTCLEAN'))}
    env = {n: plain | {k: here(v) for k, v in s['environment'].items()} | dict(PYTHONPATH=str(ROOT) if n == 'backend' else '') for n, s in SERVICES.items()}
    env['label-studio']['USER_ADDITIONAL_BANNED_SUBNETS'] = SUBNETS      # loopback in place of compose's network
    ours = [sys.executable, '-c', 'import sys; from fastclean.cli import main; sys.exit(main(sys.argv[1:]))']
    run = {'label-studio': [os.environ['LABELSTUDIO'], *map(here, command('label-studio')[1:])], 'backend': [*ours, *map(here, command('backend')[1:])]}
    procs = {}
    def get(url, **headers):
        try: return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5).read()
        except OSError: return b''
    def until(true, seconds):
        end = time.monotonic() + seconds
        while not (got := true()):
            assert time.monotonic() < end, [(n, (tmp_path/f'{n}.log').read_text()[-1500:]) for n in procs]
            time.sleep(1)
        return got
    import base64
    auth = dict(Authorization='Basic ' + base64.b64encode(f'fastclean:{values["FASTCLEAN_PASSWORD"]}'.encode()).decode())
    try:
        for n, cmd in run.items():
            with (tmp_path/f'{n}.log').open('wb') as out: procs[n] = subprocess.Popen(cmd, env=env[n], stdout=out, stderr=out, start_new_session=True)
        until(lambda: get(f'http://127.0.0.1:{ports["8080"]}/health'), 300)
        until(lambda: get(f'http://127.0.0.1:{ports["9090"]}/health', **auth), 60)
        assert not get(f'http://127.0.0.1:{ports["9090"]}/health')
        r = subprocess.run([*ours, 'labelstudio', 'import', str(tmp_path/'files'/'digits'), '--title', 'Digits', '--backend', f'http://127.0.0.1:{ports["9090"]}'], env=env['backend'], capture_output=True, text=True)
        assert r.returncode == 0 and '60 tasks added' in r.stdout and 'The backend is connected' in r.stdout, r.stdout + r.stderr
        assert json.loads(until(lambda: get(f'http://127.0.0.1:{ports["9090"]}/corrections.json', **auth), 300)).keys() == {'corrected_paths', 'original_labels', 'corrected_labels', 'corrected_scores'}
        logs = ''.join((tmp_path/f'{n}.log').read_text() for n in procs)
        assert values['FASTCLEAN_PASSWORD'] not in logs and values['LABEL_STUDIO_USER_TOKEN'] not in (tmp_path/'backend.log').read_text()
    finally:
        for p in procs.values(): os.killpg(p.pid, 9); p.wait()

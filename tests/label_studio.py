"""Run a command beside a Label Studio of its own: `python label_studio.py BIN/label-studio COMMAND...` starts one on loopback with fresh data in a temporary folder,
waits until it answers, runs the command with its address and key in the environment, and stops it."""
import os, secrets, signal, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

# Label Studio refuses a backend on a loopback address by default; this list is its own without 127.0.0.0/8.
SUBNETS = '0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,169.254.0.0/16,172.16.0.0/12,192.0.0.0/24,192.168.0.0/16,198.18.0.0/15,224.0.0.0/4,240.0.0.0/4,::/128,fc00::/7,fe80::/10,ff00::/8,::ffff:0:0/96'

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def environment(folder, port):
    "What Label Studio and those who speak to it find in the environment."
    key, files = secrets.token_hex(20), Path(folder)/'files'
    files.mkdir(parents=True)
    return dict(os.environ, LABEL_STUDIO_BASE_DATA_DIR=f'{folder}/data', LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED='true', LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=str(files),
                COLLECT_ANALYTICS='false', LATEST_VERSION_CHECK='false', SENTRY_DSN='', FRONTEND_SENTRY_DSN='', USE_DEFAULT_BANNED_SUBNETS='false', USER_ADDITIONAL_BANNED_SUBNETS=SUBNETS,
                LABEL_STUDIO_USERNAME='a@b.co', LABEL_STUDIO_PASSWORD=secrets.token_urlsafe(12), LABEL_STUDIO_USER_TOKEN=key, LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN='true',
                LABEL_STUDIO_HOST=f'http://127.0.0.1:{port}', LABEL_STUDIO_API_KEY=key)

def wait(url, proc, log, seconds=300):
    for _ in range(seconds):
        if proc.poll() is not None: break
        try: return urllib.request.urlopen(url, timeout=2).read()
        except OSError: time.sleep(1)
    sys.exit('Label Studio does not start; its log ends:\n' + log.read_text(errors='replace')[-3000:])

def main(program, *command):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # Label Studio is stopped then, too
    with tempfile.TemporaryDirectory(prefix='label-studio-', ignore_cleanup_errors=True) as tmp:
        port, log = free_port(), Path(tmp)/'log'
        env = environment(tmp, port)
        with log.open('wb') as out:
            server = {k: v for k, v in env.items() if k != 'LABEL_STUDIO_HOST'}   # which it would take for the address of its pages
            proc = subprocess.Popen([program, 'start', '--no-browser', '--internal-host', '127.0.0.1', '--port', str(port), '--username', env['LABEL_STUDIO_USERNAME'], '--enable-legacy-api-token'],
                                    env=server, stdout=out, stderr=out, start_new_session=True)
        try:
            wait(f'http://127.0.0.1:{port}/health', proc, log)
            return subprocess.run(command, env=dict(env, LABEL_STUDIO_LOG=str(log), LABEL_STUDIO_PYTHON=str(Path(program).absolute().with_name('python')))).returncode   # not resolved: it is a link out of the environment
        finally:
            os.killpg(proc.pid, signal.SIGKILL)
            proc.wait()

if __name__ == '__main__': sys.exit(main(*sys.argv[1:]))

"A headless Chromium for tests, spoken to through a pipe (Chrome DevTools Protocol): nothing but the standard library and the browser."
import base64, json, os, shutil, subprocess, tempfile, time
from pathlib import Path

CHROMIUM = next((p for n in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(n))), None)
FLAGS = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars'

def needs_browser(test):
    "Mark a test: `make test-browser` runs it, `make pytest` does not."
    import pytest
    return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium here')(test))

class Browser:
    "One page of one browser with a profile of its own: `with Browser() as b: b.open(path)`."
    def __enter__(self):
        self.profile = tempfile.mkdtemp()
        hold = [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]   # 3 and 4 are taken, so that Popen's own pipe is neither
        to_r, self.to = os.pipe(); self.back, back_w = os.pipe()
        def fds(): os.dup2(to_r, 3); os.dup2(back_w, 4)
        keep = {to_r, back_w, 3, 4}
        self.proc = subprocess.Popen([CHROMIUM, *FLAGS.split(), f'--user-data-dir={self.profile}', '--remote-debugging-pipe', 'about:blank'],
                                     preexec_fn=fds, pass_fds=tuple(keep), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for o in (to_r, back_w, *hold): os.close(o)
        self.n, self.buf, self.events, self.session = 0, b'', [], None
        target = next(t for t in self.call('Target.getTargets')['targetInfos'] if t['type'] == 'page')
        self.session = self.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)['sessionId']
        for d in ('Page', 'Runtime', 'Network', 'Log'): self.call(f'{d}.enable')
        return self

    def __exit__(self, *_):
        self.proc.kill(); self.proc.wait()
        os.close(self.to); os.close(self.back)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _message(self):
        while b'\0' not in self.buf:
            got = os.read(self.back, 1 << 20)
            if not got: raise RuntimeError('the browser has gone')
            self.buf += got
        msg, _, self.buf = self.buf.partition(b'\0')
        return json.loads(msg)

    def call(self, method, **params):
        "Send a command and wait for its result; events on the way are kept."
        self.n += 1
        msg = dict(id=self.n, method=method, params=params, **({'sessionId': self.session} if self.session else {}))
        data = json.dumps(msg).encode() + b'\0'
        while data: data = data[os.write(self.to, data):]
        while True:
            m = self._message()
            if m.get('id') == self.n:
                if 'error' in m: raise RuntimeError(f"{method}: {m['error']}")
                return m['result']
            self.events.append(m)

    def js(self, code):
        "Value of an expression in the page; promises are awaited."
        r = self.call('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in r: raise RuntimeError(json.dumps(r['exceptionDetails'])[:2000])
        return r['result'].get('value')

    def until(self, code, seconds=30):
        "Wait until an expression is true."
        end = time.monotonic() + seconds
        while not self.js(code):
            if time.monotonic() > end: raise TimeoutError(f'{code} has not come true; the page says: {self.js("document.body.innerText")[:500]}')
            time.sleep(.1)

    def key(self, key, code=None):
        "Press a key."
        for t in ('keyDown', 'keyUp'): self.call('Input.dispatchKeyEvent', type=t, key=key, code=code or f'Key{key.upper()}', windowsVirtualKeyCode=ord(key.upper()) if len(key) == 1 else dict(ArrowLeft=37, ArrowRight=39)[key], **(dict(text=key) if t == 'keyDown' and len(key) == 1 else {}))

    def size(self, width, height=900, dark=False, media='', scripts=True):
        "Set the window, the colour scheme, the medium, and whether scripts run."
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call('Emulation.setEmulatedMedia', media=media, features=[dict(name='prefers-color-scheme', value='dark' if dark else 'light')])
        self.call('Emulation.setScriptExecutionDisabled', value=not scripts)

    def open(self, path):
        "Load a file, or an address, and wait until it is there."
        self.events = []
        self.call('Page.navigate', url=path if str(path).startswith('http') else Path(path).resolve().as_uri())
        while not any(e.get('method') == 'Page.loadEventFired' for e in self.events): self.events.append(self._message())

    def problems(self):
        "What the page complained about: exceptions, console errors, violations of its policy; and requests that are no file and no data."
        bad = [e['params'] for e in self.events if e.get('method') in ('Runtime.exceptionThrown', 'Log.entryAdded')]
        return bad + [u for e in self.events if e.get('method') == 'Network.requestWillBeSent' and not (u := e['params']['request']['url']).startswith(('file:', 'data:'))]

    def shot(self, path, full=True, clip=None):
        "Write a screenshot."
        if full and not clip:
            s = self.call('Page.getLayoutMetrics')['cssContentSize']
            clip = dict(x=0, y=0, width=s['width'], height=min(s['height'], 12000), scale=1)
        r = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=bool(full or clip), **({'clip': clip} if clip else {}))
        Path(path).write_bytes(base64.b64decode(r['data']))

    def pdf(self, path):
        "Print."
        Path(path).write_bytes(base64.b64decode(self.call('Page.printToPDF', printBackground=True)['data']))

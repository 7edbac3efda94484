(() => {
  'use strict';
  const D = JSON.parse(document.getElementById('data').textContent);
  const $ = id => document.getElementById(id), all = (e, s) => [...e.querySelectorAll(s)];
  const cards = all($('questions'), '.q'), N = cards.length, key = 'fastclean-audit-' + D.id;
  const answers = D.rows.map(r => r[r.length - 1]);
  let at = 0;

  try { const kept = JSON.parse(localStorage.getItem(key) || 'null'); if (kept && kept.length === N) kept.forEach((o, i) => { answers[i] = o; }); } catch (e) { /* a page opened from a file may keep nothing */ }
  const keep = () => { try { localStorage.setItem(key, JSON.stringify(answers)); } catch (e) { /* the same */ } };
  const answered = () => answers.filter(o => o !== '').length;

  function draw(focus) {
    cards.forEach((c, i) => { c.hidden = i !== at; });
    if (at < N) {
      for (const b of all(cards[at], '[data-a]')) b.setAttribute('aria-pressed', String(b.dataset.a === answers[at]));
      const other = cards[at].querySelector('.other');
      if (other) {
        const shown = all(cards[at], '[data-a]').some(b => b.dataset.a === answers[at]), input = other.querySelector('input');
        input.value = shown ? '' : answers[at]; other.classList.toggle('set', input.value !== '');
      }
    }
    const n = answered();
    $('bar').value = n; $('count').textContent = n + ' of ' + N + ' answered';
    $('back').disabled = at === 0; $('skip').hidden = at >= N; $('skip').textContent = at < N && answers[at] !== '' ? 'Next →' : 'Skip →';
    $('done').hidden = at < N; $('save').disabled = n === 0; $('save').classList.toggle('ready', n === N);
    $('left').textContent = n === N ? 'All ' + N + ' are answered.' : n + ' of ' + N + ' are answered; the others do not count.';
    if (focus) (at < N ? cards[at].querySelector('h2') : $('done-h')).focus({preventScroll: false});
  }

  function go(to, focus) { at = Math.max(0, Math.min(N, to)); draw(focus); }
  function answer(value) {
    answers[at] = value; keep(); draw();
    setTimeout(() => go(at + 1, true), 130);
  }

  const cell = s => /[",\r\n]/.test(s) ? '"' + s.replace(/"/g, '""') + '"' : s;
  function save() {
    const lines = [D.columns, ...D.rows.map((r, i) => [...r.slice(0, -1), answers[i]])].map(r => r.map(cell).join(',') + '\n');
    const a = document.createElement('a');
    a.href = URL.createObjectURL(new Blob(lines, {type: 'text/csv;charset=utf-8'})); a.download = 'audit.csv';
    document.body.append(a); a.click(); a.remove();
    setTimeout(() => URL.revokeObjectURL(a.href), 1000);
  }

  cards.forEach((c, i) => {
    for (const b of all(c, '[data-a]')) b.addEventListener('click', () => answer(b.dataset.a));
    const input = c.querySelector('.other input');
    if (input) input.addEventListener('change', () => { const o = input.value.trim(); if (D.classes.includes(o)) answer(o); else { input.value = ''; draw(); } });
  });
  const list = $('classes');
  if (list) list.append(...D.classes.map(o => { const e = document.createElement('option'); e.value = o; return e; }));
  $('back').addEventListener('click', () => go(at - 1, true));
  $('skip').addEventListener('click', () => go(at + 1, true));
  $('save').addEventListener('click', save);
  document.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
    if (e.key === 'ArrowLeft') go(at - 1, true);
    else if (e.key === 'ArrowRight') go(at + 1, true);
    else if (at < N) { const b = all(cards[at], '[data-a]').find(o => o.dataset.key === e.key.toLowerCase()); if (b) { e.preventDefault(); b.click(); } }
  });
  for (const e of all(document, '.js')) e.hidden = false;
  const first = answers.indexOf('');
  go(first < 0 ? N : first);
})();

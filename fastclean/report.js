(() => {
  'use strict';
  const D = JSON.parse(document.getElementById('data').textContent);
  const $ = id => document.getElementById(id), N = D.item.length, PAGE = 25, STEP = 24;
  const root = $('suspects');
  root.classList.remove('nojs');
  if (!N) return;
  const state = {q: '', split: '', given: '', sugg: '', cert: '', sort: '', dir: 1, page: 0, shown: STEP};
  const name = i => D.names[i], cards = [...root.querySelectorAll('.card')];
  let text = null, found = [];

  const haystack = () => text || (text = D.item.map((o, i) => (o + '\n' + name(D.given[i]) + '\n' + name(D.sugg[i])).toLowerCase()));
  const percent = p => p < 0 ? '' : p >= 995 ? '> 99 %' : Math.round(p / 10) + ' %';
  const el = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
  const bdi = s => el('bdi', s);

  function options(id, values, label) {
    const count = new Map();
    for (const v of values) count.set(v, (count.get(v) || 0) + 1);
    const sel = $(id);
    if (count.size < 2) sel.parentElement.hidden = true;
    for (const [v, n] of [...count].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 500)) {
      const o = el('option', label(v) + ' (' + n.toLocaleString('en') + ')'); o.value = v; sel.append(o);
    }
    sel.addEventListener('change', () => set({[sel.dataset.key]: sel.value}));
  }

  function filter() {
    const q = state.q.trim().toLowerCase(), hay = q ? haystack() : null, is = (col, v) => v === '' ? () => true : i => D[col][i] === +v;
    const tests = [is('split', state.split), is('given', state.given), is('sugg', state.sugg), is('cert', state.cert)];
    found = [];
    for (let i = 0; i < N; i++) if ((!hay || hay[i].includes(q)) && tests.every(t => t(i))) found.push(i);
    if (state.sort) {
      const col = D[state.sort], key = state.sort === 'given' || state.sort === 'sugg' ? i => name(col[i]) : i => col[i];
      found.sort((a, b) => { const x = key(a), y = key(b); return (x < y ? -1 : x > y ? 1 : 0) * state.dir; });
    }
  }

  function drawCards() {
    const match = new Set(found);
    let n = 0;
    cards.forEach((c, i) => { const ok = match.has(i); c.hidden = !ok || n >= state.shown; n += ok; });
    const shown = Math.min(n, state.shown);
    $('more').hidden = n <= state.shown;
    $('shown').textContent = cards.length ? (n ? shown.toLocaleString('en') + ' of ' + n.toLocaleString('en') + (n === 1 ? ' card' : ' cards') : 'No card matches') + (N > cards.length ? '; there are cards of the first ' + cards.length.toLocaleString('en') + ' suspects' : '') : '';
  }

  function drawRows() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const body = $('rows'), start = state.page * PAGE;
    body.replaceChildren(...found.slice(start, start + PAGE).map(i => {
      const tr = el('tr'), td = (content, cls) => { const c = el('td', undefined, cls); c.append(content); tr.append(c); };
      const item = bdi(D.item[i]); item.className = 'item';
      td((i + 1).toLocaleString('en'), 'num'); td(item); td(bdi(name(D.given[i])), 'was');
      td(bdi(name(D.sugg[i]) + (D.prob[i] >= 0 && D.prob[i] < 500 ? '?' : '')), 'now'); td(percent(D.prob[i]), 'num'); td(D.splits[D.split[i]], 'tag'); td(D.certs[D.cert[i]], 'tag');
      return tr;
    }));
    $('page').textContent = 'Page ' + (state.page + 1).toLocaleString('en') + ' of ' + pages.toLocaleString('en');
    $('prev').disabled = state.page === 0; $('next-page').disabled = state.page >= pages - 1;
    $('found').textContent = found.length === N ? N.toLocaleString('en') + (N === 1 ? ' suspect' : ' suspects') + ', worst first' : found.length.toLocaleString('en') + ' of ' + N.toLocaleString('en') + ' suspects match';
    $('clear').hidden = !(state.q || state.split || state.given || state.sugg || state.cert);
  }

  function set(change) {
    Object.assign(state, {page: 0, shown: STEP}, change);
    filter(); drawCards(); drawRows();
  }

  function show(values) {
    for (const [id, key] of [['f-split', 'split'], ['f-given', 'given'], ['f-sugg', 'sugg'], ['f-cert', 'cert']]) {
      const v = values[key] === undefined ? '' : String(values[key]), sel = $(id);
      if (v !== '' && ![...sel.options].some(o => o.value === v)) { const o = el('option', name(+v)); o.value = v; sel.append(o); }
      if (v !== '') sel.parentElement.hidden = false;
      sel.value = v;
    }
    $('f-q').value = '';
    set({q: '', split: '', given: '', sugg: '', cert: '', ...Object.fromEntries(Object.entries(values).map(([k, v]) => [k, String(v)]))});
  }

  options('f-split', D.split, v => D.splits[v]);
  options('f-given', D.given, name);
  options('f-sugg', D.sugg, name);
  options('f-cert', D.cert, v => D.certs[v]);
  let timer = 0;
  $('f-q').addEventListener('input', e => { clearTimeout(timer); timer = setTimeout(() => set({q: e.target.value}), 120); });
  $('clear').addEventListener('click', () => { show({}); $('f-q').focus(); });
  $('more').addEventListener('click', () => {
    const before = cards.filter(c => !c.hidden).length;
    state.shown += 2 * STEP; drawCards();
    const next = cards.filter(c => !c.hidden)[before];
    if (next) { next.tabIndex = -1; next.focus({preventScroll: true}); }
  });
  const turn = by => { state.page += by; drawRows(); $('table').scrollIntoView({block: 'start'}); };
  $('prev').addEventListener('click', () => turn(-1));
  $('next-page').addEventListener('click', () => turn(1));
  for (const b of root.querySelectorAll('[data-sort]')) b.addEventListener('click', () => {
    const key = b.dataset.sort, same = state.sort === key;
    state.dir = same ? -state.dir : key === 'prob' ? -1 : 1; state.sort = key;
    for (const th of root.querySelectorAll('th[aria-sort]')) th.removeAttribute('aria-sort');
    b.parentElement.setAttribute('aria-sort', state.dir > 0 ? 'ascending' : 'descending');
    state.page = 0; filter(); drawRows();
  });
  for (const b of document.querySelectorAll('[data-show]')) {
    b.disabled = false;
    b.addEventListener('click', () => { show(JSON.parse(b.dataset.show)); root.scrollIntoView({block: 'start'}); $('suspects-h').focus({preventScroll: true}); });
  }
  root.querySelector('.js').hidden = false;
  root.querySelector('.js-table').hidden = false;
  filter(); drawCards(); drawRows();
})();

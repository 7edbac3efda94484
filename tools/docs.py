#!/usr/bin/env python3
"""The documentation site: `docs.py` turns notebooks into pages that Sphinx reads, `docs.py --build` makes the site, too.

A notebook that exports a module becomes its page: exported cells give way to what they define, with signature, every parameter and the source; hidden cells go, examples
stay with the outputs that are saved in the notebook. Nothing is executed but imports. Names in backticks and links between notebooks become references, so that Sphinx,
which takes warnings for errors, fails on a broken one. Pages are written to _docs/pages, the site to _docs/html, which fetches nothing from elsewhere."""
import argparse, ast, importlib, inspect, re, shutil, subprocess, sys
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path

import nbformat
from fastcore.docments import docments
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {'Data and noise': '0[0-6]', 'Out-of-fold predictions': '0[7-9]', 'Label issues': '1[01]', 'Seeing and correcting': '1[23]', 'Command line': '14', 'Training past wrong labels': '1[5-8]',
         'Two networks, and all methods': '19', 'Label Studio': '23'}
HOWTO = ('which_labels', 'how_many', 'right_label', 'kinds_of_data', 'annotators', 'memory', 'several_gpus', 'no_network', 'label_studio')   # in the order of the questions

def directives(cell): return set(re.findall(r'(?m)^#\|\s*(\w+)', cell.source)) if cell.cell_type == 'code' else set()

def module_of(nb):
    "Name of the module that a notebook exports, below fastclean; None where it is a page of prose."
    return next((m[1] for c in nb.cells if (m := re.search(r'(?m)^#\|\s*default_exp\s+(\S+)', c.source))), None)

def title_of(nb):
    "Title of a notebook, and the sentence that says what it is about."
    text = next((c.source for c in nb.cells if c.cell_type == 'markdown'), '')
    return [m[1] if (m := re.search(o, text)) else '' for o in (r'(?m)^# +(.+)', r'(?m)^> *(.+)')]

# what a module defines

def defined(source):
    "Public names that a cell defines, in order: of functions, of classes, and of methods that are patched into classes."
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'): continue
        patched = any(getattr(d, 'id', getattr(getattr(d, 'func', None), 'id', '')).startswith('patch') for d in node.decorator_list)
        of = ast.unparse(node.args.args[0].annotation) if patched else ''
        yield f"{of.strip('()').split(',')[0]}.{node.name}" if patched else node.name

def methods_of(source, name):
    "Public methods in the body of a class."
    body = next((o.body for o in ast.parse(source).body if isinstance(o, ast.ClassDef) and o.name == name), [])
    return list(dict.fromkeys(o.name for o in body if isinstance(o, ast.FunctionDef) and o.name[0] != '_'))   # a setter has the name of its property

def look_up(module, name):
    "What a name stands for: of a patched method its class may come from elsewhere."
    part, *rest = name.split('.')
    o = getattr(module, part)
    for r in rest: o = inspect.getattr_static(o, r)
    return o.fget if isinstance(o, property) else getattr(o, '__func__', o)

def short(v):
    "A default or a type as it is written."
    if inspect.isclass(v) or inspect.isfunction(v): return v.__name__
    s = re.sub(r' at 0x[0-9a-f]+|<class \'([\w.]+)\'>', r'\1', str(v) if not isinstance(v, str) else repr(v))
    return re.sub(r'\b(?:[a-z_]+\.)+(?=[A-Z])', '', s)

def cell_text(s): return re.sub(r'\s+', ' ', str(s or '')).replace('|', '\\|').strip()

def parameters(fn, say):
    "A table of the parameters, and what comes back."
    try: docs = docments(fn, full=True, eval_str=False)
    except (ValueError, TypeError, OSError): return ''
    said = getattr(fn, '__annotations__', {})   # and not what the default is made of
    code = lambda o: f'`{t}`' if (t := cell_text(o if isinstance(o, str) else short(o))) else ''
    def row(k, d):
        back = k == 'return'
        cells = ['*Returns*' if back else f'`{k}`', code(d.anno) if k in said else '', '' if back or d.default is inspect.Parameter.empty else code(short(d.default)), say(cell_text(d.docment))]
        return f"| {' | '.join(cells)} |"
    rows = [row(k, d) for k, d in docs.items() if k != 'self' and (d.docment or k not in ('return', 'args', 'kwargs'))]
    return '\n'.join([':::{container} parameters', '| Parameter | Type | Default | |', '|---|---|---|---|', *rows, ':::']) if rows else ''

def signature(name, o):
    "As it is called, a line per parameter where it is long."
    try: ps = [p for p in inspect.signature(o).parameters.values() if p.name != 'self']
    except (ValueError, TypeError): return name
    said = [{p.VAR_POSITIONAL: '*', p.VAR_KEYWORD: '**'}.get(p.kind, '') + p.name + (f'={short(p.default)}' if p.default is not p.empty else '') for p in ps]
    flat = f"{name}({', '.join(said)})"
    return flat if len(flat) < 90 else f'{name}(\n    ' + ',\n    '.join(said) + ')'

def entry(module, name, level, source, say):
    "The documentation of a name and of its methods, as MyST; `say` makes references in what is prose."
    o = look_up(importlib.import_module(f'fastclean.{module}'), name)
    fn = o.__init__ if inspect.isclass(o) and '__init__' in vars(o) and not is_dataclass(o) else o
    parts = [f'```{{index}} {name} ({module})\n```', f'({module}.{name})=', f"{'#'*level} `{name}`", f'```python\n{signature(name, o)}\n```', say(inspect.cleandoc(o.__doc__ or '')), parameters(fn, say)]
    parts += [entry(module, f'{name}.{k}', level + 1, source, say) for k in methods_of(source, name)]
    return '\n\n'.join(p for p in parts if p)

def code_below(source): return '````{admonition} Source\n:class: dropdown\n```python\n' + re.sub(r'(?m)^#\|.*\n', '', source).strip() + '\n```\n````'

# pages

class Names:
    "Where each documented name is explained, and which page a notebook becomes."
    def __init__(self, books):
        self.pages, self.at, self.about = {}, {}, {}
        self.rooms = {'Tutorials': [], 'Questions': [f'howto/{o}' for o in HOWTO], 'Guides': [], **{room: [] for room in ROOMS}}
        for f, nb in books.items():
            module = module_of(nb)
            lesson = f.parent.name == 'tutorials'
            self.pages[f.name] = f'api/{module}' if module else 'index' if f.stem == 'index' else f'{"tutorials" if lesson else "guides"}/{f.stem}'
            room = next((k for k, v in ROOMS.items() if re.match(v, f.name)), 'Guides') if module else 'Tutorials' if lesson else 'Guides'
            if f.stem != 'index': self.rooms[room].append(self.pages[f.name]); self.about[self.pages[f.name]] = title_of(nb)
            for c in nb.cells:
                if module and 'export' in directives(c):
                    for name in defined(c.source): self.at.setdefault(name, []).append(f'{module}.{name}')
        self.rooms['Guides'] = sorted(self.rooms['Guides'], key=lambda o: 'how_it_works' not in o) + ['experiments', 'comparison']

    def file(self, page): return page + ('.ipynb' if page in self.about else '.md')

    def link(self, m, module):
        "A reference to a name in backticks, where it is one of ours and it is clear which."
        name = m[1].removesuffix('()')
        to = [o for o in self.at.get(name, []) if o.rpartition(f'.{name}')[0] == module] or self.at.get(name, [])
        return f'[{m[0]}](#{to[0]})' if len(to) == 1 else m[0]

    def address(self, m, here):
        "A link to another notebook, or to a module's page, as a reference."
        text, url = m[1], m[2]
        if re.match(r'\w+:|#', url): return m[0]
        page = self.pages.get(url.rpartition('/')[2]) or (f'api/{url.removesuffix(".html")}' if url.endswith('.html') else None)
        return f"[{text}]({'../'*here.count('/')}{page}.ipynb)" if page else m[0]

def prose(text, names, here, module):
    "Markdown with its references; code and headings stay as they are."
    def part(p):
        if p.startswith(('```', '#', '!')): return p
        if p.startswith('['): return re.sub(r'\[([^\[\]]*)\]\(([^)\s]*)\)', lambda m: names.address(m, here), p)
        return re.sub(r'`([\w.]+(?:\(\))?)`', lambda m: names.link(m, module), p)
    return ''.join(map(part, re.split(r'(?ms)(^```.*?^```$|^#+ .*?$|!?\[[^\[\]]*\]\([^)\s]*\))', text)))

def shown_code(c, have):
    "A cell of code, without what its directives hide."
    tags = [tag for name, tag in dict(echo='remove-input', output='remove-output').items() if name in have]
    return new_code_cell(re.sub(r'(?m)^#\|.*\n', '', c.source), outputs=c.outputs, metadata=dict(tags=tags))

def page(nb, names, here):
    "A notebook as a reader of the site sees it."
    module, cells, level, first = module_of(nb), [], 1, next(c for c in nb.cells if c.cell_type == 'markdown')
    say = partial(prose, names=names, here=here, module=module)
    for c in nb.cells:
        have = directives(c)
        if c.cell_type == 'markdown':
            if m := re.findall(r'(?m)^(#+) ', re.sub(r'(?ms)^```.*?^```$', '', c.source)): level = len(m[-1])
            cells.append(new_markdown_cell(say(re.sub(r'(?m)^> *', '', c.source) if c is first else c.source)))   # the sentence that says what a page is about
        elif 'export' in have:
            new = [entry(module, name, max(2, level + 1), c.source, say) for name in defined(c.source)]
            if new: cells.append(new_markdown_cell('\n\n'.join([*new, code_below(c.source)])))
        elif c.cell_type == 'code' and c.source.strip() and not have & {'hide', 'default_exp', 'exporti'}: cells.append(shown_code(c, have))
    if here == 'index': cells.append(new_markdown_cell(contents(names)))
    return new_notebook(cells=cells, metadata=dict(language_info=dict(name='python')))

def tree(pages, caption=''): return '```{toctree}\n:hidden:\n' + (f':caption: {caption}\n' if caption else '') + '\n' + '\n'.join(pages) + '\n```'

def contents(names):
    "End of the first page: where to read on, and what stands beside every page."
    def line(page):
        title, about = names.about.get(page, ('', ''))   # without words, a link has the title of its page
        return f'- [{title}]({names.file(page)})' + (f': {about}' if about else '')
    rooms = [(room, names.rooms[room]) for room in ('Tutorials', 'Questions', 'Guides')]
    lists = [f'### {room}\n\n' + '\n'.join(map(line, pages)) for room, pages in rooms if pages]
    lists += ['### Reference\n\n- [All modules](api/index.md), a line for each, with every function, parameter and source\n- {ref}`All names <genindex>`']
    return '\n\n'.join(['## Read on', *lists, *(tree(pages, room) for room, pages in rooms if pages), tree(['api/index'], 'Reference')])

def reference(names):
    "Pages that lead to the modules: one of all, and one for each room."
    short = lambda page: page.removeprefix('api/')
    def row(page): return f'| [`{short(page)}`]({short(names.file(page))}) | {cell_text(prose(names.about[page][1], names, page, short(page)))} |'
    table = lambda pages: '\n'.join(['| Module | |', '|---|---|', *map(row, pages)])
    rooms = {f'api/{re.sub(r"[^a-z]+", "-", room.lower())}': (room, pages) for room in ROOMS if (pages := names.rooms[room])}
    whole = '\n\n'.join(f'## [{room}]({short(here)}.md)\n\n{table(pages)}' for here, (room, pages) in rooms.items())
    intro = 'What `from fastclean.all import *` brings, and what it is made of: a module uses those above it. {ref}`All names <genindex>`, from A to Z, lead to the same places.'
    return {'api/index': f'# Modules\n\n{intro}\n\n{whole}\n\n{tree(map(short, rooms))}\n', **{here: f'# {room}\n\n{table(pages)}\n\n{tree(map(short, pages))}\n' for here, (room, pages) in rooms.items()}}

def fetched(html):
    "What a page would fetch from elsewhere: scripts, styles, pictures."
    return re.findall(r'<(?:script|link|img|iframe|source|video)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]*)', html)

def write_pages(
    root, # The project
    out,  # Folder of the pages, made anew
):
    "Everything that Sphinx reads."
    books = {f: nbformat.read(f, 4) for f in sorted([*(root/'nbs').glob('*.ipynb'), *(root/'nbs/tutorials').glob('*.ipynb')])}
    names = Names(books)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root/'docs', out)
    for f, nb in books.items():
        here = names.pages[f.name]
        to = out/f'{here}.ipynb'
        to.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(page(nb, names, here), to)
    for here, text in reference(names).items(): (out/f'{here}.md').write_text(text, encoding='utf-8')

def build(
    out, # Folder of the pages, and of the site
    *options, # For Sphinx
)->int: # 0 where all is well
    "The site; a warning is an error, and so is a page that would fetch something from elsewhere."
    code = subprocess.run([sys.executable, '-m', 'sphinx', '-W', *options, '-q', '-b', 'html', str(out/'pages'), str(out/'html')]).returncode
    for f in (out/'html').rglob('*.html'):
        for o in fetched(f.read_text(encoding='utf-8')): code = 1; print(f'{f.relative_to(out)} fetches {o}', file=sys.stderr)
    return code

def main():
    "Write the pages, and build."
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('--build', action='store_true', help='make the site, too; a warning is an error')
    p.add_argument('--keep-going', action='store_true', help='show all warnings')
    a = p.parse_args()
    out = ROOT/'_docs'
    write_pages(ROOT, out/'pages')
    return build(out, *(['--keep-going'] if a.keep_going else [])) if a.build else 0

if __name__ == '__main__': sys.exit(main())

#!/usr/bin/env python3
"""README.md from nbs/index.ipynb: `readme.py` writes it, `readme.py --check` exits 1 when it is behind.

nbdev processes the notebook (directives, hidden cells, links), nbconvert turns it into markdown. Nothing is executed: the outputs are those saved
in the notebook. Pictures go to README_files/. Links to documented names are absolute, or plain where there is no address; Quarto's callouts become
GitHub's. The check compares text, code and pictures, and not the addresses of other libraries' names, which move with their versions."""
import argparse, re, shutil, sys
from pathlib import Path

from nbconvert import MarkdownExporter
from nbdev.processors import FilterDefaults, add_show_docs, exec_show_docs
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor
from nbformat import from_dict

ROOT = Path(__file__).resolve().parent.parent
KINDS = dict(note='NOTE', tip='TIP', important='IMPORTANT', warning='WARNING', caution='CAUTION')

class _Filter(FilterDefaults):
    "nbdev's processors for documentation, without those that execute cells or move the title into Quarto's front matter."
    def base_procs(self): return [p for p in super().base_procs() if p not in (add_show_docs, exec_show_docs, FrontmatterProc)]

def _off(cell, name): return (getattr(cell, 'directives_', None) or {}).get(name, '').strip().lower() == 'false'

def _visible(cell):
    "A cell as `#| echo`, `#| output` and `#| include` want it; None where nothing is left."
    if cell.cell_type != 'code': return cell
    if _off(cell, 'include'): return
    if _off(cell, 'output'): cell['outputs'] = []
    if _off(cell, 'echo'): cell['source'] = ''
    cell['outputs'] = [o for o in cell.get('outputs', []) if o.get('name') != 'stderr']
    return cell if cell.source.strip() or cell['outputs'] else None

def processed(
    path, # A notebook
): # The notebook as a reader of the documentation sees it (nbformat)
    "A notebook without what is hidden or only for nbdev, its documented names linked."
    proc = NBProcessor(path, procs=_Filter().procs())
    proc.process()
    proc.nb.cells = [c for c in proc.nb.cells if _visible(c) is not None]
    proc.nb.metadata['language_info'] = {'name': proc.lang}   # what nbconvert writes beside a fence
    plain = lambda d: {k: v for k, v in d.items() if not k.endswith('_')}
    return from_dict(plain(proc.nb) | {'cells': [plain(c) for c in proc.nb.cells]})

def _quoted(m):
    title = re.match(r'\s*#+ +(.+)\n', m['body'])
    title, body = (title[1], m['body'][title.end():]) if title else (m['title'], m['body'])
    lines = [f"[!{KINDS[m['kind']]}]", *([f'**{title}**', ''] if title else []), *body.strip().splitlines()]
    return '\n'.join(f'> {l}'.rstrip() for l in lines)

def callouts(
    md, # Markdown with Quarto's `:::{.callout-tip}`
)->str: # Markdown with GitHub's `> [!TIP]`
    "Callouts in GitHub's form."
    kinds = '|'.join(KINDS)
    return re.sub(rf'(?ms)^:::+ *\{{\.callout-(?P<kind>{kinds})(?:[^}}\n]*?title="(?P<title>[^"]*)")?[^}}\n]*\}} *\n(?P<body>.*?)^:::+ *$', _quoted, md)

def links(
    md,  # Markdown
    nbs, # Folder of its notebook: links to files beside the notebook, or in docs/, are made to start at the project's root
)->str: # Markdown
    "Links that work outside the documentation: absolute, to a file of the project, or none; and to the pages at its root that are named."
    def fix(m):
        bang, text, url = m.groups()
        if re.match(r'\w+:|#|README_files/', url): return m[0]
        name, anchor, part = url.partition('#')
        file = next((f for o in (nbs, nbs.parent/'docs') if (f := (o/name).resolve()).is_file()), nbs)
        if file.is_relative_to(nbs.parent) and file != nbs: return f'{bang}[{text}]({file.relative_to(nbs.parent).as_posix()}{anchor}{part})'
        return text if text.startswith('`') else m[0]
    md = re.sub(r'(!?)\[([^\]\n]*)\]\(([^)\s]*)\)', fix, md)
    return re.sub(r'(?<![\[`])`(\w+\.md)`(?![\]`])', lambda m: f'[{m[0]}]({m[1]})' if (nbs.parent/m[1]).is_file() else m[0], md)

def outside_code(
    f,  # Function of a text
    md, # Markdown
)->str: # Markdown
    "Apply `f` to everything but the fenced blocks."
    return ''.join(p if p.startswith('```') else f(p) for p in re.split(r'(?ms)(^```.*?^```$)', md))

def render(
    path, # The index notebook
)->tuple: # Text of the README, and {name in README_files: bytes}
    "A README and its pictures."
    path = Path(path).resolve()
    md, res = MarkdownExporter().from_notebook_node(processed(path), resources={'output_files_dir': 'README_files', 'unique_key': 'README'})
    md = re.sub(r'(?s)<style\b.*?</style>\n?', '', md)                 # pandas' tables bring a style sheet that GitHub would not apply
    md = re.sub(r'(?m)^```\w*\n\s*^```$', '', md)                      # what `#| echo: false` leaves
    md = outside_code(lambda s: re.sub(r'(?:[ \t]*\n){3,}', '\n\n', links(callouts(s), path.parent)), md).strip() + '\n'
    return md, {Path(k).name: v for k, v in (res.get('outputs') or {}).items()}

def without_addresses(
    md, # Markdown
)->str: # Markdown
    "The text without the addresses of documented names."
    return re.sub(r'\[(`[^`\n]+`)\]\([^)\s]*\)', r'\1', md)

def behind(
    root, # The project
)->list: # Names of files that a new README would change
    "What is out of step with the index notebook."
    md, pictures = render(root/'nbs/index.ipynb')
    have = root/'README.md'
    old = {f.name: f.read_bytes() for f in (root/'README_files').glob('*')}
    bad = [] if have.is_file() and without_addresses(have.read_text(encoding='utf-8')) == without_addresses(md) else ['README.md']
    return bad + [f'README_files/{n}' for n in sorted(old.keys() | pictures) if old.get(n) != pictures.get(n)]

def write(
    root, # The project
):
    "Write README.md and README_files/."
    md, pictures = render(root/'nbs/index.ipynb')
    folder = root/'README_files'
    shutil.rmtree(folder, ignore_errors=True)
    if pictures: folder.mkdir()
    for name, data in pictures.items(): (folder/name).write_bytes(data)
    (root/'README.md').write_text(md, encoding='utf-8')

def main():
    "Write or check; exit code 1 when the check fails."
    p = argparse.ArgumentParser(description='Render nbs/index.ipynb to README.md.')
    p.add_argument('--check', action='store_true', help='write nothing; exit 1 when README.md is behind')
    p.add_argument('root', nargs='?', type=Path, default=ROOT, help='the project (default: the one this file is in)')
    a = p.parse_args()
    if not (a.root/'nbs/index.ipynb').is_file(): print('nbs/index.ipynb: missing', file=sys.stderr); return 1
    if not a.check: write(a.root); print('README.md written.'); return 0
    bad = behind(a.root)
    for name in bad: print(f'{name}: nbs/index.ipynb says something else', file=sys.stderr)
    if bad: print('Run `make readme`.', file=sys.stderr)
    else: print('README.md is in step with nbs/index.ipynb.')
    return bool(bad)

if __name__ == '__main__': sys.exit(main())

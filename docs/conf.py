"Sphinx's settings; `make docs` copies this folder beside the pages that come from the notebooks."
import os
from importlib.metadata import metadata

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

about = metadata('fastclean')
project, author, release = 'fastclean', about['Author'] or 'The fastclean developers', about['Version']
copyright = author
extensions = ['myst_nb', 'sphinx_copybutton', 'sphinx_togglebutton']
exclude_patterns = ['_build']
nb_execution_mode, nb_output_stderr, nb_merge_streams = 'off', 'remove', True
myst_enable_extensions = ['colon_fence', 'dollarmath', 'attrs_inline']
myst_heading_anchors = 4
html_theme, html_title = 'furo', 'fastclean'
html_static_path, html_css_files = ['_static'], ['custom.css']
html_js_files = ['here.js']
html_show_sourcelink = html_copy_source = False
html_math_renderer = 'mathml'
copybutton_exclude = '.linenos, .gp, .go'
togglebutton_hint = ''

if 'GITHUB_REPOSITORY' in os.environ:   # where a fork's own workflow builds the site, it leads to the fork
    html_theme_options = dict(footer_icons=[dict(name='Repository', url=f"https://github.com/{os.environ['GITHUB_REPOSITORY']}", html='Repository', **{'class': ''})])

def mathml(display):
    "Write a formula as MathML, which browsers show by themselves."
    def visit(self, node):
        math = convert(node.astext(), display=display)
        self.body.append(f'<div class="math">{math}</div>' if display == 'block' else math)
        raise SkipNode
    return visit, None

def setup(app): app.add_html_math_renderer('mathml', mathml('inline'), mathml('block'))

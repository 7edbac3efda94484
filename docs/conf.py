"Sphinx's settings; `make docs` copies this folder beside the pages that come from the notebooks."
from importlib.metadata import metadata

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
html_show_sourcelink = html_copy_source = False
copybutton_exclude = '.linenos, .gp, .go'
togglebutton_hint = ''

"""Settings of the documentation site; `bash docs/build` builds it."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

project = "hxtrain"
author = "hxtrain developers"
project_copyright = f"2026, {author}"
release = metadata.version("hxtrain")
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_copybutton",
    "_site",
]
exclude_patterns = ["_build", "_generated/parts", "**.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext"}
highlight_language = "none"
default_role = "literal"
maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 4

nb_execution_mode = os.environ.get("HXTRAIN_DOCS_EXECUTION", "cache")
nb_execution_cache_path = str(FOLDER / "_build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_code_prompt_show = "Solution"  # hidden cells of the chapters are solutions of exercises
nb_code_prompt_hide = "Hide the solution"
suppress_warnings = ["myst-nb.lexer"] if nb_execution_mode == "off" else []  # known from the kernel that runs a chapter

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = f"hxtrain {release}"
html_static_path = ["_static"]
html_css_files = ["hxtrain.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {name: [] for name in ("start", "rule-index", "glossary", "troubleshooting")}
html_theme_options = {
    "logo": {"text": "hxtrain"},
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "show_toc_level": 2,
    "back_to_top_button": False,
    "pygments_light_style": "default",
    "pygments_dark_style": "github-dark",
}
copybutton_selector = "div:not(.output) > div.highlight pre"

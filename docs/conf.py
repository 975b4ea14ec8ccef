"""Sphinx: Furo, MyST, and a reference derived from docstrings and settings. The build needs no network."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from app.config import settings_table  # noqa: E402 - the path comes first

project = "sqlalchemy-tenancy"
copyright = "2026, the authors"  # noqa: A001 - Sphinx's name for it
version = release = installed_version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write `name` for code

myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {"settings": settings_table()}

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = f"tenancy {version}"
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["page.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e63", "color-brand-content": "#0b6e63"},
    "dark_css_variables": {"color-brand-primary": "#5fc7ba", "color-brand-content": "#5fc7ba"},
}

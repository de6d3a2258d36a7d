"""How Sphinx makes the site: ``make docs``.

The pages are the Markdown files where they stand, read from the project's top: a link that leads to a file on the disk
leads there on the site, and one that leads nowhere fails the build. What section a page stands in says
``navigation.py``. Nothing here is fetched, neither by the build nor by what it writes.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import ClassVar

import mermaidx
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))

import gallery
import navigation

project = "migpool"
version = release = version_of("migpool")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = navigation.FIRST
include_patterns = ["*.md", "benchmarks/README.md", "docs/**"]
exclude_patterns = ["docs/site", ".*", "build", "tests", "migpool", "migpool_plugins", "**/__pycache__"]

highlight_language = "none"  # where a block does not say what it is
myst_heading_anchors = 6
myst_fence_as_directive = ["mermaid"]
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"

html_theme = "furo"
html_title = "migpool"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["top"]
html_copy_source = False
html_use_index = html_domain_indices = False  # no page would lead there; the search knows every name
html_show_sphinx = False
html_show_copyright = False
html_show_search_summary = False  # it reads the pages that it found, which a browser forbids a page off the disk
html_last_updated_fmt = None


class Drawing(SphinxDirective):
    """A drawing in Mermaid's language, as the SVG that it means: no script draws it in the reader's browser."""

    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        number = self.env.new_serialno("drawing")
        drawn = mermaidx.render("\n".join(self.content)).svg().replace("my-svg", f"drawing-{number}")
        # Its words are to be read, as what they are; the roles that it comes with are known to no reader.
        drawn = re.sub(r' (role|aria-roledescription)="[^"]*"', "", drawn, count=2)
        wide = " wide" if "flowchart LR" in self.content[0] else ""
        frame = f'<div class="drawing{wide}" role="group" aria-label="drawing" tabindex="0">'
        return [nodes.raw("", f"{frame}{drawn}</div>", format="html")]


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Put under the first page what there is, and under a page with others below it what these are."""
    names = navigation.pages(Path(app.srcdir))
    if name == root_doc:
        trees = [toctree(found, section) for section, found in navigation.sections(names).items()]
        source[0] += "".join(trees)
    elif found := navigation.below(name, names):
        source[0] += toctree(found)


def say_levels(_app: Sphinx, _name: str, _template: str, context: dict[str, object], _tree: object) -> None:
    """Sphinx calls a section's name a heading and does not say of which level, which a reader of screens needs."""
    for key in ("body", "furo_navigation_tree"):
        context[key] = str(context.get(key, "")).replace(' role="heading">', ' role="heading" aria-level="2">')


def add_gallery(app: Sphinx, error: Exception | None) -> None:
    """Pages of explained downtimes, beside the one that leads to them."""
    if error is None and (Path(app.srcdir) / "docs" / "gallery").is_dir():
        gallery.make(Path(app.srcdir), Path(app.outdir) / "docs" / "gallery")


def toctree(names: list[str], caption: str = "") -> str:
    option = f"caption: {caption}" if caption else "hidden:"
    lines = "".join(f"/{name}\n" for name in names)
    return f"\n\n```{{toctree}}\n:maxdepth: 1\n:{option}\n\n{lines}```\n"


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Drawing)
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_gallery)
    app.connect("html-page-context", say_levels, priority=900)

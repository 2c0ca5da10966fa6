"""The HTML of pages: every text in a template is escaped, and shows what is invisible."""

import re
from typing import Any

import jinja2
from markupsafe import Markup

from trainables.core.quoting import printable


def html_template(package: str, name: str) -> jinja2.Template:
    """A file of the package's folder `templates`; a value that it needs and does not get raises."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    return environment.get_template(name)


def _visible(value: Any) -> Any:
    """Text of others with control characters and changes of direction as escapes, line by line."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"[^\n\t]+", lambda part: printable(part[0]), value)

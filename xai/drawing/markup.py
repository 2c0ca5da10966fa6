"""The HTML of pages: every text that is put into a template is escaped."""

import jinja2


def html_template(package: str, name: str) -> jinja2.Template:
    """A file of the package's folder `templates`; a value that it needs and does not get raises."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)

"""What goes back to the browser: pages from templates, data, files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from pccd_workflows import __version__
from pccd_workflows.core.errors import PccdError
from pccd_workflows.report.render import asset, environment, own_file, script


class NotFoundError(PccdError):
    """Nothing lies at an address."""


@dataclass(frozen=True)
class Answer:
    """What goes back to the browser.

    filename: of a download.
    """

    body: str | bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    filename: str | None = None


def page(template: str, *, status: int = 200, **values: Any) -> Answer:
    """Return a page made from a template of this package."""
    return Answer(render(template, **values), status=status)


def data(content: Mapping[str, Any], status: int = 200) -> Answer:
    """Return JSON."""
    return Answer(json.dumps(content, default=str), "application/json", status)


def render(template: str, **values: Any) -> str:
    """Return a page with its style sheets and scripts; all values are escaped."""
    return (
        _environment()
        .get_template(template)
        .render(style=_style(), script=_script(), version=__version__, **values)
    )


def _style() -> Markup:
    return asset("style.css") + own_file(__package__, "explorer.css")


def _script() -> Markup:
    return script() + own_file(__package__, "explorer.js")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    own, shared = PackageLoader("pccd_workflows.explorer"), PackageLoader("pccd_workflows.report")
    return environment().overlay(loader=ChoiceLoader([own, shared]))

"""Sources of crystals by name: those of this project, installed ones, and anybody's class."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Annotated, Any

from pydantic import (
    Field,
    PlainValidator,
    SerializationInfo,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.validation import with_options
from pccd_workflows.generators.protocol import Generator
from pccd_workflows.generators.request import CHOICES_OF_ELEMENTS, AskedElements, SourceOptions

GROUP = "pccd_workflows.generators"
"""Entry points of other packages' generators."""
DEFAULT = "pccd"
OWN = {
    "pccd": "pccd_workflows.generators.pccd.generator:PccdGenerator",
    "files": "pccd_workflows.generators.files:FilesGenerator",
    "substitution": "pccd_workflows.generators.substitution:SubstitutionGenerator",
}


def source_names() -> list[str]:
    """Return the names that a campaign file can use; ``module:attribute`` works besides them."""
    return [*OWN, *sorted(point.name for point in entry_points(group=GROUP))]


def generator_type(source: str) -> type[Generator]:
    """Return the class of a source.

    Parameters
    ----------
    source
        One of `source_names`, or ``module:attribute``.

    Raises
    ------
    InputError
        There is none, or what is found is no generator.
    """
    # looking through all that is installed takes 10 ms, and every job that is read does this
    target = OWN.get(source) or _installed().get(source, source)
    module, colon, attribute = target.partition(":")
    if not colon:
        raise InputError(
            f"There is no source {source!r}; use one of {', '.join(source_names())}, or "
            "module:attribute."
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"Source {source!r} cannot be loaded ({error}): install its module, or put its folder "
            "on PYTHONPATH, here and where the workers run; the current folder does not count."
        ) from None
    lacks = [n for n in ("options_type", "info", "check", "generate") if not hasattr(found, n)]
    if lacks:
        raise InputError(f"Source {source!r} is no generator: it lacks {', '.join(lacks)}.")
    kind: type[Generator] = found
    return kind


def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}


def open_generator(options: SourceOptions) -> Generator:
    """Return the generator that options are for."""
    return generator_type(options.source)(options)


def read_sources(value: Any, info: ValidationInfo) -> tuple[SourceOptions, ...]:
    """Return the sources of a campaign file: one mapping, or a list of them.

    A source that names no elements takes those of the one before it.
    """
    if isinstance(value, Mapping | SourceOptions):
        return (_read_source(value, info),)
    items = _SOURCES.validate_python(_inherited(value), context=info.context)
    return tuple(items)


def write_sources(sources: tuple[SourceOptions, ...], info: SerializationInfo) -> Any:
    """Return sources as a campaign file has them: one as a mapping."""
    written = [source.model_dump(mode=info.mode, by_alias=info.by_alias) for source in sources]
    return written[0] if len(written) == 1 else written


def _read_source(value: Any, info: ValidationInfo) -> SourceOptions:
    if isinstance(value, SourceOptions):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("a source of crystals is a mapping of 'key: value' pairs")
    options = generator_type(str(value.get("source", DEFAULT))).options_type
    try:
        return options.model_validate(dict(value), context=info.context)
    except ValidationError as error:
        raise with_options(error, options) from None


_SOURCES = TypeAdapter(
    Annotated[list[Annotated[Any, PlainValidator(_read_source)]], Field(min_length=1)]
)


def _inherited(value: Any) -> Any:
    """Return a list of sources in which those without elements have the ones before them."""
    if not isinstance(value, list | tuple):
        return value
    last: dict[str, Any] = {}
    items = []
    for item in value:
        if isinstance(item, Mapping) and _asks_for_elements(item):
            given = {key: item[key] for key in CHOICES_OF_ELEMENTS if item.get(key) is not None}
            last = given or last
            items.append({**item, **last})
        else:
            items.append(item)
    return items


def _asks_for_elements(item: Mapping[str, Any]) -> bool:
    try:
        kind = generator_type(str(item.get("source", DEFAULT)))
    except InputError:  # said where the source itself is read
        return False
    return issubclass(kind.options_type, AskedElements)

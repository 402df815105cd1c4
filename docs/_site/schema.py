"""The page of the database: every field of every document, from the models that write them."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pccd_workflows import stages
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.execution.mongo import INDEXED
from pccd_workflows.generators import Generate

ROOTS: dict[str, type[BaseModel]] = {
    "candidates": CandidateDoc,
    "references": ReferenceSet,
    "campaigns": Campaign,
}
"""Model of the documents of a collection; of `campaigns`, of their field `campaign`."""

INTRODUCTION = """\
# Database schema

Field by field, from the models that check what is written. [Where each collection comes
from](architecture.md#storage-and-crystals-by-reference), [queries to copy](query.md).

A `candidate` is one document per generated crystal, with the record of each stage in it; units are
those of the descriptions. A structure is pymatgen's own dictionary (`Structure.from_dict`).

"""


def page() -> str:
    """Return the page in Markdown."""
    parts = [INTRODUCTION]
    shown: set[type[BaseModel]] = set()
    for collection, model in ROOTS.items():
        parts.append(f"## {collection}\n\n{_indexes(collection)}")
        parts += [_table(found) for found in _below(model, shown)]
    parts.append("## Records of stages\n\nThe field of each is named in `candidates`.\n")
    for stage in stages.STAGES:
        parts += [_table(found) for found in _below(stage.record, shown)]
    parts.append("## Sources of crystals\n")
    parts += [_table(found) for found in _below(Generate, shown)]
    return "\n".join(parts)


def _below(model: type[BaseModel], shown: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """Yield a model and those in its fields, each once."""
    if model in shown:
        return
    shown.add(model)
    yield model
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            yield from _below(inner, shown)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _table(model: type[BaseModel]) -> str:
    first = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    lines = [f"### {model.__name__}", "", _escaped(first), ""]
    lines += ["| field | type | meaning | if left out |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        about, kind = _escaped(field.description or ""), _escaped(_type(field.annotation))
        lines.append(f"| `{field.alias or name}` | {kind} | {about} | {_default(field)} |")
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _type(a) for a in arguments)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"map of {_type(arguments[1])}"
    if origin is not None:  # the type that is annotated, or that of a list's items
        inner = [a for a in arguments if a is not Ellipsis]
        many = "" if origin is Annotated else "list of "
        return many + _type(inner[0])
    name = str(getattr(annotation, "__name__", annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{name}](#{name.lower()})"
    return name


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel) or value in ("", [], {}, ()):
        return ""
    return "null" if value is None else f"`{value}`"


def _indexes(collection: str) -> str:
    keys = [f"`{', '.join(key)}`" for key in INDEXED.get(collection, {})]
    return f"Indexed by {'; '.join(keys)}.\n" if keys else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("``", "`")

"""Documents of the database: the version they carry, and what one stage says about one crystal."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pymatgen.core import Structure

from pccd_workflows.core.plain_structures import Unreadable, attempt, plain_structure

SCHEMA_VERSION = 2
"""Version of every document in the database; a higher one is refused, a lower one is read as it is.

2: rows of stages (`stage_records`, `structures`) instead of job outputs; candidates say which steps
of the funnel they reached. `pccd db migrate` makes campaigns of version 1 go on.
"""


AS_STORED = {"structures": "as stored"}
"""Context of a validation that leaves structures the dictionaries that they are stored as: reading
thousands of records to count, sort or copy them needs none of their crystals. Whether there is one
can be asked of such a record, and nothing else of the crystal."""


def _as_structure(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Return the crystal of a dictionary; pymatgen's own reading makes any class named in it."""
    if not isinstance(value, dict):
        return handler(value)
    if info.context is AS_STORED:
        return value
    found = attempt(lambda: plain_structure(value), lambda structure: structure)
    if isinstance(found, Unreadable):
        raise ValueError(f"it is no structure: {found.reason}")
    return handler(found)


def _as_document(structure: Any) -> Any:
    return structure if isinstance(structure, dict) else structure.as_dict()


StoredStructure = Annotated[
    Structure,
    WrapValidator(_as_structure),
    PlainSerializer(_as_document, return_type=dict, when_used="json"),
]
"""A pymatgen structure that is dumped to JSON as its own dictionary."""


EnergyConvention = Literal["uncorrected", "mp2020", "as_computed"]
"""``uncorrected``: raw PBE(+U) totals, MaterialsProject2020Compatibility still to be applied.
``mp2020``: energies that already contain these corrections (MP's own entries, CHGNet 0.3.0).
``as_computed``: totals that no correction belongs to (r2SCAN, engines other than VASP)."""


class Record(BaseModel):
    """What one stage found out about one crystal. Immutable, strict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

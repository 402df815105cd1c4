"""Documents of the database: the version they carry, and what one stage says about one crystal."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pymatgen.core import Structure

SCHEMA_VERSION = 1
"""Version of every document in the database; a higher one is refused, a lower one migrated."""


StoredStructure = Annotated[
    Structure,
    PlainSerializer(lambda structure: structure.as_dict(), return_type=dict, when_used="json"),
]
"""A pymatgen structure that is dumped to JSON as its own dictionary."""


EnergyConvention = Literal["uncorrected", "mp2020", "as_computed"]
"""``uncorrected``: raw PBE(+U) totals, MaterialsProject2020Compatibility still to be applied.
``mp2020``: energies that already contain these corrections (MP's own entries, CHGNet 0.3.0).
``as_computed``: totals that no correction belongs to (r2SCAN, engines other than VASP)."""


class Record(BaseModel):
    """What one stage found out about one crystal. Immutable, strict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

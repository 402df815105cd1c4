"""What every stage job shares: how it is stored, and where its database is."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from jobflow import JobConfig, OnMissing, job

from pccd_workflows.candidate import StageOutput
from pccd_workflows.settings import get_settings

if TYPE_CHECKING:
    from pymongo.database import Database

stage_job: Callable[..., Any] = partial(
    job,
    data=["records", "survivors"],  # to the additional store: a stage may exceed 16 MB
    output_schema=StageOutput,
)
"""Decorator for functions that return a StageOutput (or a Response that ends in one)."""

TOLERATE_LOST_PARENTS = JobConfig(on_missing_references=OnMissing.NONE)
"""For jobs that gather many others: one lost job must not hold back its siblings' results."""


def stage_database() -> "Database[dict[str, Any]]":
    """Return the campaign database of the machine this job runs on."""
    from pccd_workflows.external.mongo import database

    return database(get_settings())

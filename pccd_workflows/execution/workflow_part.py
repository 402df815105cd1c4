"""The part of a workflow that one job concerns: itself, its parents, its children and theirs.

FireWorks keeps the links and states of all jobs of a workflow in one document, and reads and writes
the whole of it whenever a job starts or ends: n jobs would cost n² in all. What follows from a
job's start or end is decided by FireWorks here, too, but it is shown no more than this part.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pccd_workflows.core.optional import optional_imports

with optional_imports("A campaign on MongoDB"):
    from fireworks.core.firework import Workflow
    from fireworks.core.launchpad import LazyFirework

if TYPE_CHECKING:
    from pccd_workflows.execution.atomic_launchpad import AtomicLaunchPad

Document = dict[str, Any]
ENDED = ("COMPLETED", "FIZZLED")
NOT_STARTED = ("READY", "RESERVED")
"""States of a workflow none of whose jobs runs or has run."""


def refresh_part(opened: "AtomicLaunchPad", fw_id: int) -> bool:
    """Bring a job, and what follows from its state, up to date; False if all has to be looked at.

    That is so if the state of the workflow may be another: a job failed, or the last one of a
    branch is done. Called inside a transaction.
    """
    whole = _fields(opened, {"nodes": fw_id}, [f"links.{fw_id}", f"parent_links.{fw_id}"])
    if whole is None or whole.get("locked"):
        return False
    children = whole["links"].get(str(fw_id), [])
    part = _part(opened, whole, fw_id, children)
    updated = part.refresh(fw_id)
    state = part.fw_states[fw_id]
    if state == "FIZZLED" or (state == "COMPLETED" and not children):
        return False
    if any(part.fw_states[child] in ENDED for child in children):
        return False
    before = set(part.id_fw)
    part._reassign_ids(opened._upsert_fws([part.id_fw[number] for number in updated]))
    new = sorted(set(part.id_fw) - before)
    _write(opened, whole, part, [fw_id, *children], new)
    return True


def _fields(opened: "AtomicLaunchPad", query: Document, names: list[str]) -> Document | None:
    always = ("name", "metadata", "created_on", "updated_on", "state", "locked")
    found: Document | None = opened.workflows.find_one(query, dict.fromkeys([*always, *names], 1))
    return found


def _part(opened: "AtomicLaunchPad", whole: Document, fw_id: int, children: list[int]) -> Any:
    """Return a part of a workflow as a workflow of its own.

    whole: the document of the workflow, with the links of `fw_id`.
    """
    this = {"_id": whole["_id"]}
    found = _fields(opened, this, [f"parent_links.{child}" for child in children]) or {}
    links: dict[int, list[int]] = defaultdict(list)
    parents = {**found.get("parent_links", {}), **whole.get("parent_links", {})}
    for child, its_parents in parents.items():
        for parent in its_parents:
            links[parent].append(int(child))
    ids = sorted({fw_id, *children, *links})
    states = (_fields(opened, this, [f"fw_states.{number}" for number in ids]) or {})["fw_states"]
    return Workflow(
        [
            LazyFirework(number, opened.fireworks, opened.launches, opened.gridfs_fallback)
            for number in ids
        ],
        dict(links),
        whole["name"],
        whole["metadata"],
        whole["created_on"],
        whole["updated_on"],
        {int(number): state for number, state in states.items()},
    )


def _write(
    opened: "AtomicLaunchPad", whole: Document, part: Any, known: list[int], new: list[int]
) -> None:
    """Write what may have changed of a workflow: states of `known` and `new` jobs, links."""
    changes: Document = {f"fw_states.{number}": part.fw_states[number] for number in [*known, *new]}
    changes["updated_on"] = part.updated_on
    if whole["state"] in NOT_STARTED:
        changes["state"] = "RUNNING"
    update: Document = {"$set": changes}
    if new:
        parents = part.links.parent_links
        changes |= {f"links.{number}": part.links[number] for number in [known[0], *new]}
        changes |= {f"parent_links.{number}": parents[number] for number in [*known[1:], *new]}
        update["$push"] = {"nodes": {"$each": new}}
    opened.workflows.update_one({"_id": whole["_id"]}, update)

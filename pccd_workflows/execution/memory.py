"""Storage that lives as long as the process, and storage whose results outlive it in a folder."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pymatgen.core import Structure

from pccd_workflows.core.files import write_whole
from pccd_workflows.core.progress import tell
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.storage import ALL, Document, Share, StageRow


class MemoryStorage:
    """Everything in dictionaries: a notebook needs no server."""

    database = None

    def __init__(self) -> None:
        self._results: dict[str, Document] = {}
        self._structures: dict[str, Structure] = {}
        self._rows: dict[tuple[str, str], dict[str, StageRow]] = {}
        self._references: dict[str, ReferenceSet] = {}
        self._settled: dict[tuple[str, str], dict[str, str]] = {}
        self._costs: list[Document] = []
        self._checkpoints: dict[str, Document] = {}

    def expect_results(self, keys: Sequence[str]) -> None:
        """Do nothing: all are at hand."""

    def get_result(self, key: str) -> Document | None:
        """Return the result stored under `key`."""
        return self._results.get(key)

    def put_result(self, key: str, kind: str, result: Document) -> None:  # noqa: ARG002
        """Store a result under its key; the first one stays."""
        self._results.setdefault(key, result)

    def drop_results(self, keys: Sequence[str]) -> None:
        """Forget results."""
        for key in keys:
            self._results.pop(key, None)

    def put_structures(self, structures: Mapping[str, Structure]) -> None:
        """Store structures under their keys."""
        self._structures.update(structures)

    def get_structures(self, keys: Iterable[str]) -> dict[str, Structure]:
        """Return copies of stored structures by key."""
        return {key: self._structures[key].copy() for key in keys if key in self._structures}

    def structure_documents(self, keys: Iterable[str]) -> dict[str, Document]:
        """Return the same as dictionaries."""
        return {key: found.as_dict() for key, found in self.get_structures(keys).items()}

    def put_rows(self, rows: Sequence[StageRow]) -> None:
        """Store what a stage says about candidates."""
        for row in rows:
            self._rows.setdefault((row.campaign_id, row.stage), {})[row.candidate_id] = row

    def rows(
        self,
        campaign_id: str,
        stage: str,
        *,
        goes_on: bool | None = None,
        indices: tuple[int, int] | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Iterator[StageRow]:
        """Yield what a stage said, by rank and index."""
        wanted = None if ids is None else set(ids)
        found = [
            row
            for row in self._rows.get((campaign_id, stage), {}).values()
            if goes_on in (None, row.goes_on)
            and (indices is None or indices[0] <= row.index < indices[1])
            and (wanted is None or row.candidate_id in wanted)
        ]
        yield from sorted(found, key=lambda row: (row.rank, row.index))[:limit]

    def going_on(self, campaign_id: str, stage: str, share: Share = ALL) -> Iterator[StageRow]:
        """Yield what goes on after a stage, by rank and index, without records."""
        found = [
            row for row in self.rows(campaign_id, stage, goes_on=True) if share.holds(row.formula)
        ]
        for row in found[slice(*(share.places or (None,)))]:
            yield replace(row, record={})

    def located(
        self,
        campaign_id: str,  # noqa: ARG002
        stage: str,  # noqa: ARG002
        shares: Sequence[Share],
        whole: Share = ALL,  # noqa: ARG002
    ) -> list[Share]:
        """Return them as they are: counting costs nothing here."""
        return list(shares)

    def formulas(self, campaign_id: str, stage: str, share: Share = ALL) -> list[tuple[str, int]]:
        """Return the reduced formulas of what goes on after a stage, with their numbers."""
        found = Counter(
            row.formula or ""
            for row in self.rows(campaign_id, stage, goes_on=True)
            if share.holds(row.formula)
        )
        return sorted(found.items())

    def changed(
        self, campaign_id: str, since: datetime | None
    ) -> tuple[list[str], datetime | None]:
        """Return the candidates with rows written at or after `since`, and the latest time."""
        found = [
            row
            for (campaign, _), rows in self._rows.items()
            if campaign == campaign_id
            for row in rows.values()
            if since is None or row.at >= since
        ]
        latest = max((row.at for row in found), default=None)
        return sorted({row.candidate_id for row in found}), latest

    def rows_of(self, campaign_id: str, ids: Sequence[str]) -> Iterator[StageRow]:
        """Yield what every stage said about these candidates."""
        for (campaign, _), rows in self._rows.items():
            if campaign == campaign_id:
                yield from (rows[i] for i in ids if i in rows)

    def find_references(
        self, source: str, chemsys: str, level: str, version: str | None = None
    ) -> ReferenceSet | None:
        """Return the latest stored set of this source, system and level."""
        wanted = (source, chemsys, level)
        found = [
            one
            for one in self._references.values()
            if (one.source, one.chemsys, one.level) == wanted
            and version in (None, one.source_version)
        ]
        return found[-1] if found else None

    def settle_references(self, campaign_id: str, references: ReferenceSet) -> None:
        """Note that a campaign uses a stored set; the first one of its system and level stays."""
        of_level = self._settled.setdefault((campaign_id, references.level), {})
        of_level.setdefault(references.chemsys, references.reference_id)

    def settled_references(self, campaign_id: str, level: str) -> dict[str, str]:
        """Return the ids of the sets that a campaign uses at a level, by chemical system."""
        return dict(self._settled.get((campaign_id, level), {}))

    def get_references(self, reference_id: str) -> ReferenceSet | None:
        """Return the stored set with this id."""
        return self._references.get(reference_id)

    def put_references(self, references: ReferenceSet) -> str:
        """Store a set; return its id."""
        name = references.reference_id
        self._references.pop(name, None)
        self._references[name] = references
        return name

    def history(
        self,
        campaign_id: str,  # noqa: ARG002
        formulas: Sequence[str],  # noqa: ARG002
    ) -> Iterator[tuple[str, Structure]]:
        """Yield nothing: other campaigns are in other storages."""
        yield from ()

    def note_cost(self, row: Document) -> None:
        """Add one run to the costs."""
        self._costs.append(row)

    def spent(self, campaign_id: str, level: str) -> float:
        """Return the core-hours that a campaign has spent at a level."""
        rows = (r for r in self._costs if (r["campaign_id"], r["level"]) == (campaign_id, level))
        return float(sum(row["core_hours"] for row in rows))

    def budget(self, campaign_id: str, level: str) -> float | None:  # noqa: ARG002
        """Return None: no budget is changed while a process runs its campaign."""
        return None

    def note_skipped(self, campaign_id: str | None, level: str, job: str) -> None:
        """Do nothing: there is no job to run again."""

    def note_progress(
        self,
        campaign_id: str,  # noqa: ARG002
        what: str,
        done: int,
        total: int,
    ) -> None:
        """Tell whoever watches this process (see `core.progress.watched`)."""
        tell(what, done, total)

    def get_checkpoint(self, key: str) -> Document | None:
        """Return what the latest unfinished attempt left."""
        return self._checkpoints.get(key)

    def put_checkpoint(self, key: str, document: Document) -> None:
        """Note an attempt, or what became of it."""
        self._checkpoints[key] = document

    def drop_checkpoint(self, key: str) -> None:
        """Forget the attempts of a run that is done."""
        self._checkpoints.pop(key, None)


class FolderStorage(MemoryStorage):
    """Memory, but for results: those lie in a folder, one small file each, written whole.

    A kill costs the crystal in flight; the next process with the same folder finds the rest.

    Parameters
    ----------
    folder
        Made when the first result is stored.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def get_result(self, key: str) -> Document | None:
        """Return the result stored under `key`; None if there is none, or a damaged one."""
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def put_result(self, key: str, kind: str, result: Document) -> None:  # noqa: ARG002
        """Store a result in a file of its own."""
        write_whole(self._path(key), json.dumps(result))

    def drop_results(self, keys: Sequence[str]) -> None:
        """Remove the files of results."""
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

"""What the crystals that a campaign kept are to the known ones: counts, and how sure they are."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.intervals import Share, show_share, wilson_share
from pccd_workflows.known.novelty import Kind

NAMES: dict[Kind, tuple[str, str]] = {
    "substitution": ("substitution", "substitutions"),
    "new_structure_type": ("new structure type", "new structure types"),
}
"""Kinds of new crystals, one and several of them."""


@dataclass(frozen=True)
class KindCounts:
    """How many crystals were kept, and of which kind.

    Attributes
    ----------
    kept
        All that the last rung kept near its hull.
    new
        Those that no set knows.
    of_kind
        New ones by kind; those of which it was not asked are in none.
    """

    kept: int
    new: int
    of_kind: Mapping[Kind, int]

    @property
    def known(self) -> int:
        """Those that a set knows, before or after they were relaxed."""
        return self.kept - self.new

    def shares(self) -> list[tuple[str, Share]]:
        """Return each kind in words with its share of what was kept."""
        kinds = [(several, self.of_kind.get(kind, 0)) for kind, (_, several) in NAMES.items()]
        rows = [("new", self.new), *kinds, ("known", self.known)]
        return [(name, wilson_share(count, self.kept)) for name, count in rows]

    def sentence(self) -> str:
        """Return the shares in a line: new 12 of 27 (44 %, 28-63 %): 9 substitutions, ..."""
        if not self.kept:
            return "No crystal was kept near the hull."
        kinds = [
            f"{count} {one if count == 1 else several}"
            for kind, (one, several) in NAMES.items()
            if (count := self.of_kind.get(kind, 0))
        ]
        detail = f": {', '.join(kinds)}" if kinds else ""
        return f"new {show_share(wilson_share(self.new, self.kept))}{detail}; {self.known} known"


def count_kinds(rows: Iterable[tuple[bool | None, Kind | None]]) -> KindCounts:
    """Return the counts of kept crystals, each given by its verdict: new or not, and its kind."""
    pairs = list(rows)
    new = [kind for novel, kind in pairs if novel]
    return KindCounts(len(pairs), len(new), Counter(kind for kind in new if kind is not None))


def kept_step(campaign: Campaign) -> str:
    """Return the key of the funnel's step that kept crystals reached."""
    return f"within:{campaign.rungs[-1].level}"


def kinds_of(campaign: Campaign, documents: Iterable[CandidateDoc]) -> KindCounts:
    """Return the counts of a campaign's candidates."""
    step = kept_step(campaign)
    return count_kinds((doc.novel, doc.kind_of_new) for doc in documents if step in doc.reached)


def stored_kinds(collection: Any, campaign: Campaign) -> KindCounts:
    """Return the counts of a campaign's candidates in the database.

    collection: a pymongo collection of candidates.
    """
    query = {"campaign_id": campaign.campaign_id, "reached": kept_step(campaign)}
    found = collection.find(query, {"novel": 1, "kind_of_new": 1})
    return count_kinds((row.get("novel"), row.get("kind_of_new")) for row in found)

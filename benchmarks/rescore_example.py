"""What a more complete snapshot does to verdicts: an example of `pccd campaign rescore`.

    python benchmarks/rescore_example.py [--without MgMn2O4 Mn2O3]

The phases of the shipped Mg-Mn-O set stand for the relaxed crystals of a campaign. They are judged
against the set without the named compositions, as if those were not known yet, and again against
the whole set. What flips is printed, with the reason, as the command does.
"""

import argparse
from pathlib import Path

from command import run

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli.rescoring import print_rescored
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.reference_files import read_reference_set
from pccd_workflows.rescore import Rescored, rejudge
from pccd_workflows.stages.hull import Stability

SHIPPED = Path(__file__).parents[1] / "flows" / "references" / "mg-mn-o.chgnet.json.gz"
THRESHOLD = 0.08
"""eV/atom above the hull that a candidate may lie."""


def main() -> None:
    """Judge twice and print the flips."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=Path, default=SHIPPED)
    parser.add_argument("--without", nargs="*", default=["MgMn2O4", "Mn2O3"], metavar="FORMULA")
    args = parser.parse_args()
    whole = read_reference_set(args.references)
    kept = [e for e in whole.entries if e.composition.reduced_formula not in args.without]
    partial = whole.model_copy(update={"entries": kept})
    entries = [entry for entry in whole.entries if entry.structure is not None]
    unjudged = [candidate(n, entry, whole, partial) for n, entry in enumerate(entries)]
    judged = [
        document.model_copy(update={"stabilities": [first.after]})
        for document, first in zip(unjudged, rejudge(unjudged, partial, partial), strict=True)
    ]
    print_rescored(Rescored(whole.reference_id, rejudge(judged, partial, whole), 0), stored=False)


def candidate(
    number: int, entry: ReferenceEntry, whole: ReferenceSet, judged_by: ReferenceSet
) -> CandidateDoc:
    """Return a phase as a relaxed crystal that waits for its verdict."""
    elements = sorted(element.symbol for element in entry.composition)
    return CandidateDoc(
        candidate_id=entry.entry_id,
        campaign_id="example",
        campaign="example",
        index=number,
        formula_pretty=entry.composition.reduced_formula,
        elements=elements,
        generation=Generation(
            model="none", weights_sha256="", seed=0, index=number, elements=elements
        ),
        relaxations=[
            Relaxation(
                level=whole.level,
                key=entry.entry_id,
                verdict="converged",
                structure=entry.structure,
                energy=entry.energy_per_atom * len(entry.structure or ()),
                convention=whole.convention,
            )
        ],
        stabilities=[
            Stability(
                level=whole.level,
                passed=True,
                references=judged_by.reference_id,
                threshold=THRESHOLD,
            )
        ],
    )


if __name__ == "__main__":
    run(main)

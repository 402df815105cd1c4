"""`pccd candidate`: list, show and export the crystals that were found."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pccd_workflows.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.collection import Collection

    from pccd_workflows.candidate import CandidateDoc
    from pccd_workflows.rescore import Rescore

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="List, show and export crystals."
)

TABLE_ROWS = 50
"""Rows of a table where no limit is asked for; JSON and exports take all."""

Campaign = Annotated[str | None, typer.Option(help="Name or id of a campaign")]
Chemsys = Annotated[str | None, typer.Option(help="Exactly these elements, e.g. Mg-Mn-O")]
Formula = Annotated[str | None, typer.Option(help="Formula, in any order or multiple")]
ElementList = Annotated[
    list[str] | None, typer.Option("--element", help="Contains this element; may be repeated")
]
MaxEhull = Annotated[
    float | None, typer.Option(help="Largest energy above hull, eV/atom (0.08 = 80 meV/atom)")
]
Novel = Annotated[bool | None, typer.Option("--novel/--known", help="New or known crystals only")]
KindOfNew = Annotated[
    str | None,
    typer.Option("--kind", help="duplicate (of a known one), substitution or new_structure_type"),
]
Phonons = Annotated[
    str | None, typer.Option(help="Phonon verdict: stable, unstable, ambiguous or error")
]
Status = Annotated[str | None, typer.Option(help="pending, rejected, failed or passed")]
Stage = Annotated[str | None, typer.Option(help="Last stage with a record, e.g. hull:chgnet")]
Reason = Annotated[str | None, typer.Option(help="Class of the rejection, e.g. too_close")]
Limit = Annotated[int | None, typer.Option(help="At most so many, after sorting")]
Sort = Annotated[str, typer.Option(help="Field to sort by, '-' before it turns the order round")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]


@app.command("list")
def list_candidates(
    *,
    campaign: Campaign = None,
    chemsys: Chemsys = None,
    formula: Formula = None,
    element: ElementList = None,
    max_ehull: MaxEhull = None,
    novel: Novel = None,
    kind: KindOfNew = None,
    phonons: Phonons = None,
    status: Status = None,
    stage: Stage = None,
    reason: Reason = None,
    limit: Limit = None,
    sort: Sort = "energy_above_hull",
    as_json: AsJson = False,
) -> None:
    """List crystals, the lowest above the hull first."""
    from pccd_workflows import query
    from pccd_workflows.cli.tables import print_candidates
    from pccd_workflows.columns import row_fields, row_records, summary

    which = query.CandidateFilter(
        campaign=campaign,
        chemsys=chemsys,
        formula=formula,
        elements=tuple(element or ()),
        max_ehull=max_ehull,
        novel=novel,
        kind=kind,
        phonons=phonons,
        status=status,
        stage=stage,
        reason_class=reason,
        limit=limit,
        sort=sort,
    )
    collection = _candidates()
    _check_campaign(collection, campaign)
    shown = limit if limit is not None or as_json else TABLE_ROWS
    fields = [*query.SUMMARY_FIELDS, *row_fields()]
    found = query.find_documents(collection, which, fields=fields, limit=shown)
    rows = [(row, row_records(row)) for row in found]
    if which.doubt:
        typer.echo(which.doubt, err=True)
    if as_json:
        summaries = [summary(row, records) for row, records in rows]
        typer.echo(json.dumps(summaries, default=str, indent=2))
        return
    if not rows:
        typer.echo(_nothing_found(which.describe()))
        return
    print_candidates(rows, query.campaign_ids(collection))
    total = query.count_documents(collection, which)
    if total > len(rows):
        typer.echo(f"{len(rows)} of {total}; --limit shows more.")


@app.command()
def show(
    candidate_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Id as listed, its unique beginning, or the number in the latest campaign",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole document")] = False,
) -> None:
    """Show everything that is known about one crystal: stages, verdicts, jobs, cell."""
    from pccd_workflows.query import find_candidate

    doc = find_candidate(_candidates(), candidate_id)
    if as_json:
        typer.echo(doc.model_dump_json(indent=2))
    else:
        from pccd_workflows.rescore import find_rescores

        found = find_rescores(_candidates().database, candidate_id=doc.candidate_id)
        _print_candidate(doc, found.get(doc.candidate_id, []))


@app.command()
def export(
    form: Annotated[
        str, typer.Option("--format", help="cif (symmetrised), cif-p1, poscar, extxyz, csv or json")
    ],
    out: Annotated[Path, typer.Option(help="Folder, or a file with the format's suffix")],
    candidate_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One crystal; else use the filters")
    ] = None,
    *,
    campaign: Campaign = None,
    chemsys: Chemsys = None,
    formula: Formula = None,
    element: ElementList = None,
    max_ehull: MaxEhull = None,
    novel: Novel = None,
    kind: KindOfNew = None,
    phonons: Phonons = None,
    status: Status = None,
    stage: Stage = None,
    reason: Reason = None,
    limit: Limit = None,
    sort: Sort = "energy_above_hull",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist")] = False,
    as_json: AsJson = False,
) -> None:
    """Write relaxed structures (of the highest rung) or tables to files."""
    from pccd_workflows import query
    from pccd_workflows.export import AS_STORED, FORMATS, export_candidates

    if form not in FORMATS:
        raise InputError(f"Unknown format {form!r}; use one of {', '.join(FORMATS)}.")
    which = query.CandidateFilter(
        campaign=campaign,
        chemsys=chemsys,
        formula=formula,
        elements=tuple(element or ()),
        max_ehull=max_ehull,
        novel=novel,
        kind=kind,
        phonons=phonons,
        status=status,
        stage=stage,
        reason_class=reason,
        limit=limit,
        sort=sort,
    )
    collection = _candidates()
    _check_campaign(collection, campaign)
    if candidate_id is not None:
        if which != query.CandidateFilter():
            raise InputError("Give an id or filters, not both.")
        found = iter([query.find_candidate(collection, candidate_id)])
    else:
        rows, as_stored = query.find_documents(collection, which), form in AS_STORED
        found = (query.to_candidate(row, as_stored=as_stored) for row in rows)
    result = export_candidates(found, out, form, force=force)
    if as_json:
        files = [str(path) for path in result.files]
        typer.echo(json.dumps({"files": files, "left_out": result.left_out}, indent=2))
        return
    typer.echo(f"Wrote {result.n_written} crystals to {_where(result.files, out)}.")
    if result.left_out:
        typer.echo(f"{len(result.left_out)} had no relaxed structure and were left out.")


def _candidates() -> "Collection[dict[str, Any]]":
    from pccd_workflows.execution import mongo
    from pccd_workflows.settings import get_settings

    return mongo.database(get_settings())["candidates"]


def _check_campaign(collection: "Collection[dict[str, Any]]", name: str | None) -> None:
    """Refuse the name of a campaign that is not there."""
    of_it = {"$or": [{"campaign": name}, {"campaign_id": name}]}
    if name is not None and collection.find_one(of_it, {"_id": 1}) is None:
        from pccd_workflows.operations import campaign_document
        from pccd_workflows.settings import get_settings

        campaign_document(name, get_settings())


def _where(files: list[Path], out: Path) -> str:
    return str(files[0]) if len(files) == 1 else f"{len(files)} files in {out}"


def _nothing_found(filters: str) -> str:
    if not filters:
        return "There are no candidates yet; `pccd campaign run flows/quickstart.yaml` makes some."
    return (
        f"No candidate matches {filters}. Drop or widen a filter; "
        "`pccd campaign list` shows the campaigns."
    )


def _print_candidate(doc: "CandidateDoc", rescores: "Sequence[Rescore]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pccd_workflows.report.stages import cell_lines, outcome, stage_lines

    console = Console(soft_wrap=False)
    head = ", ".join(filter(None, [doc.formula_pretty, doc.spacegroup, doc.candidate_id]))
    console.print(Text(head, style="bold"))
    console.print(Text(outcome(doc)))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    for name in ("Stage", "Verdict", "What it rests on, and the job"):
        table.add_column(name)
    colours = {"good": "green", "bad": "red", "open": "yellow"}
    for line in stage_lines(doc, rescores):
        facts = "\n".join([*line.facts, f"job {line.job or 'not recorded'}"])
        verdict = Text(line.verdict, style=colours[line.tone])
        table.add_row(Text(line.stage), verdict, Text(facts))
    console.print(table)
    for text in cell_lines(doc):
        console.print(Text(text))

"""Pages beside the list: ranges, scatter, comparison, downloads, campaigns, diagrams."""

import csv
import io
import json
import re
import zipfile
from html import unescape

import explorer_demo as demo
import ledger_factory as factory
import pytest
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.execution import mongo
from pccd_workflows.execution.job_graph import failed_jobs, job_kinds, kind_of_job
from pccd_workflows.explorer.pages import answer
from pccd_workflows.explorer.state import parse_state
from pccd_workflows.query import Range
from pccd_workflows.report.statistics import summarize

CAMPAIGN = demo.CAMPAIGN.campaign_id
ID = demo.CAMPAIGN.candidate_id


@pytest.fixture
def database(settings):
    found = mongo.database(settings)
    demo.fill(found)
    return found


def body(database, path, query="", status=200):
    reply = answer(database, path, query)
    assert reply.status == status, reply.body
    return reply.body


def rows(database, query):
    return json.loads(body(database, "/api/candidates", query))["candidates"]


def test_ranges_filter_numbers_of_every_stage(database):
    found = rows(database, "from.formation_energy_ev_per_atom=-2.5&to.nsites=5")
    assert found
    for row in found:
        assert row["formation_energy_ev_per_atom"] >= -2.5
        assert row["nsites"] <= 5
    page = unescape(body(database, "/", "from.nsites=9&to.nsites=2&novel=new", status=400))
    assert "Atoms: 9 is larger than 2." in page
    assert 'name="from.nsites" value="9"' in page
    assert "<option selected>new</option>" in page
    assert body(database, "/", "to.nsites=many", status=400)


def test_an_energy_range_in_the_wrong_unit_is_asked_about(database):
    page = unescape(body(database, "/", "to.energy_above_hull=25"))
    assert "Did you mean 25 meV/atom, that is 0.025?" in page
    assert 'href="/?to.energy_above_hull=0.025"' in page
    with pytest.raises(InputError, match="Unknown quantity"):
        Range("hardness")


def test_every_column_sorts_and_values_come_first(database):
    page = body(database, "/", "")
    heads = re.findall(r"<th[^>]*>(.*?)</th>", page)
    assert [head for head in heads if "sort=" not in head and "checkbox" not in head] == [
        "Campaign"
    ]
    found = rows(database, "sort=-values.formation_energy_ev_per_atom")
    energies = [row["formation_energy_ev_per_atom"] for row in found]
    held = [energy for energy in energies if energy is not None]
    assert held == sorted(held, reverse=True)
    assert energies == held + [None] * (len(energies) - len(held))
    last = rows(database, "sort=values.phonon_verdict&page=3")
    assert all(row["phonon_verdict"] is None for row in last)
    assert body(database, "/", "sort=values.nothing", status=400)


def test_a_sort_by_a_stages_column_comes_from_an_index(database):
    query, order = parse_state("sort=values.formation_energy_ev_per_atom").which.segments()[0]
    plan = database["candidates"].find(query).sort(order).explain()["queryPlanner"]["winningPlan"]
    assert "'SORT'" not in str(plan)


def test_scatter_draws_what_has_both_values(database):
    page = body(database, "/scatter", f"campaign={CAMPAIGN}&colour=phonon_verdict")
    drawn = set(re.findall(r'href="/candidate/([^"]+)"', page))
    both = {
        row["_id"]
        for row in database["candidates"].find({"energy_above_hull": {"$ne": None}})
        if row["nsites"] is not None
    }
    assert drawn == both
    names = re.findall(r'<span class="name">(.*?)</span></label>', page)
    assert set(names) == {"not judged", "stable", "unstable", "ambiguous"}
    assert "E above hull 0.021 eV/atom" in page
    assert body(database, "/scatter", "x=price", status=400)
    assert "Choose other quantities" in body(database, "/scatter", "x=band_gap_ev")


def test_crystals_stand_side_by_side(database):
    page = body(database, "/compare", f"id={ID(160)}&id={ID(162)}")
    assert page.count("<title>Structure of") == 2
    assert "<tr class=differs><td>spacegroup</td><td>R-3m</td><td>Pm-3m</td></tr>" in page
    assert body(database, "/compare", f"id={ID(160)}", status=400)
    assert body(database, "/compare", "&".join(f"id={ID(i)}" for i in range(90, 95)), status=400)
    assert body(database, "/compare", f"id={ID(160)}&id=nobody", status=404)


def test_chosen_crystals_are_files(database):
    chosen = f"id={ID(160)}&id={ID(162)}"
    reply = answer(database, "/export", f"{chosen}&format=cif")
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        names = archive.namelist()
        read = Structure.from_str(archive.read(names[0]).decode(), fmt="cif")
    assert names == [f"{ID(160)}_MgMnO2.cif", f"{ID(162)}_MgMnO3.cif"]
    assert read.matches(factory.crystal("MgMnO2")[0])
    table = answer(database, "/export", f"{chosen}&format=csv")
    text = table.body.decode()
    assert [row["candidate_id"] for row in csv.DictReader(io.StringIO(text))] == [ID(160), ID(162)]
    assert answer(database, "/export", f"{chosen}&format=extxyz").body.count(b"Lattice=") == 2


def test_all_that_a_filter_passes_is_a_file(database, monkeypatch):
    reply = answer(database, "/export", "phonons=stable&format=csv")
    assert reply.body.count(b"\n") == 3
    assert body(database, "/export", "phonons=stable&format=docx", status=400)
    assert body(database, "/export", "chemsys=Qq&format=csv", status=400)
    monkeypatch.setattr("pccd_workflows.explorer.selection.MOST", 5)
    refused = unescape(body(database, "/export", f"campaign={CAMPAIGN}&format=csv", status=400))
    assert "pccd candidate export" in refused


def test_other_cells_can_be_drawn(database):
    found = json.loads(body(database, f"/api/scene/{ID(160)}", "cell=primitive"))
    assert found["caption"].startswith("primitive cell, 4 atoms")
    assert body(database, f"/api/scene/{ID(160)}", "cell=magic", status=400)
    assert "_atom_site" in body(database, f"/cif/{ID(160)}", "p1=1")


def test_a_campaign_shows_progress_funnel_failures_and_flow(database):
    page = unescape(body(database, f"/campaign/{CAMPAIGN}"))
    assert "6 of 12 jobs done" in page
    assert "MemoryError: 12 GB are not enough" in page
    assert f"pccd job failures --campaign {CAMPAIGN}" in page
    assert page.count('class="box"') == 8
    data = json.loads(body(database, f"/api/campaign/{CAMPAIGN}"))
    assert (data["done"], data["total"], data["running"], data["failed"]) == (6, 12, True, 1)
    counts = {step["label"]: step["count"] for step in data["funnel"]}
    steps = summarize(factory.demo(n_judged=30), demo.CAMPAIGN).steps
    in_report = {step.label: step.count for step in steps}
    assert counts == in_report
    listed = body(database, "/campaigns")
    assert f'href="/campaign/{CAMPAIGN}"' in listed
    assert body(database, "/campaign/nobody", status=404)


def test_jobs_of_a_kind_are_one_box():
    levels = {"chgnet", "sevennet-l3i5", "vasp/mp-gga"}
    for name, kind in (
        ("relax chgnet 3/12", "relax chgnet"),
        ("static vasp/mp-gga mg-mn-o-0123456789-000003", "static vasp/mp-gga"),
        ("forces 1/12 sevennet-l3i5 x-0123456789-000003", "forces sevennet-l3i5"),
        ("references Mg-Mn-O chgnet", "references chgnet"),
        ("relax chgnet a-0123456789-000001 and 3 more", "relax chgnet"),
    ):
        assert kind_of_job(name, levels) == kind


def test_the_flow_follows_the_links(database):
    kinds = {kind.name: kind for kind in job_kinds(database, CAMPAIGN, {"chgnet"})}
    assert kinds["generate"].states == {"COMPLETED": 2}
    assert kinds["relax chgnet"].states == {"COMPLETED": 1, "FIZZLED": 1}
    assert kinds["hull chgnet"].after == {"relax chgnet", "references chgnet"}
    assert kinds["generate"].depth == 0
    assert kinds["hull chgnet"].depth == kinds["relax chgnet"].depth + 1
    assert [job["fw_id"] for job in failed_jobs(database, CAMPAIGN)] == [5]


def test_two_campaigns_stand_side_by_side(database):
    other = factory.campaign(name="other", phonons=None)
    database["campaigns"].insert_one(factory.campaign_document(other))
    page = unescape(body(database, "/compare-campaigns", f"a={CAMPAIGN}&b={other.campaign_id}"))
    assert '<td>phonon-stable</td><td class="n">2</td>' in page
    assert "no such step" in page
    assert '<td class="mono">name</td><td>mg-mn-o</td><td>other</td>' in page
    assert ">description<" not in page
    assert body(database, "/compare-campaigns", f"a={CAMPAIGN}", status=400)


def test_a_campaigns_diagrams_link_to_its_crystals(database):
    page = body(database, f"/diagrams/{CAMPAIGN}")
    assert "<title>Phase diagram of Mg-Mn-O</title>" in page
    assert f'href="/candidate/{ID(161)}"' in page
    other = factory.campaign(name="other")
    database["campaigns"].insert_one(factory.campaign_document(other))
    assert "there is none to draw" in body(database, f"/diagrams/{other.campaign_id}")


def test_nothing_is_written(database):
    def content():
        return {
            name: database[name].count_documents({}) for name in database.list_collection_names()
        }

    before = content()
    for path in ("/", "/scatter", "/campaigns", f"/campaign/{CAMPAIGN}", f"/diagrams/{CAMPAIGN}"):
        body(database, path)
    assert content() == before

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
from pccd_workflows.core.failure_notes import NOTES
from pccd_workflows.core.failures import BY_NAME
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
    assert heads
    assert [head for head in heads if "sort=" not in head and "checkbox" not in head] == []
    found = rows(database, "sort=-values.formation_energy_ev_per_atom")
    energies = [row["formation_energy_ev_per_atom"] for row in found]
    held = [energy for energy in energies if energy is not None]
    assert held == sorted(held, reverse=True)
    assert energies == held + [None] * (len(energies) - len(held))
    last = rows(database, "sort=values.phonon_verdict&page=3")
    assert all(row["phonon_verdict"] is None for row in last)
    assert body(database, "/", "sort=values.nothing", status=400)


def test_a_list_names_campaigns_where_there_are_several(database):
    assert "<th>Campaign</th>" not in body(database, "/")
    assert f'all of <a href="/campaign/{CAMPAIGN}">' in body(database, "/")
    row = database["candidates"].find_one({"energy_above_hull": {"$ne": None}})
    other = {"_id": "b-1", "candidate_id": "b-1", "campaign_id": "b-0123456789"}
    database["candidates"].insert_one(row | other)
    assert "<th>Campaign</th>" in body(database, "/", "formula=" + row["formula_pretty"])


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


def test_a_failed_job_has_a_page_with_its_cure(database):
    page = unescape(body(database, f"/job/{demo.FAILED}"))
    assert "<h1>relax chgnet 2/2</h1>" in page
    assert NOTES["memory"] in page
    assert BY_NAME["memory"].cure in page
    assert f"pccd job rerun --job {demo.FAILED} --set INCAR.NCORE=4" in page
    assert re.findall(r"<h3>(\d of \d: .*?)</h3>", page) == [
        "2 of 2: failed (memory)",
        "1 of 2: put back, its worker died",
    ]
    assert page.count("<dd>2.5 min</dd>") == 2
    assert page.count("node3:4711:9c1f-88231") == 2
    assert "in relax_batch" in page.partition("<summary>Traceback</summary>")[2]
    assert f'href="/candidate/{ID(160)}"' in page
    assert 'href="/job/3">start rung chgnet' in page  # it waits for that
    assert 'href="/job/7">hull chgnet' in page


def test_jobs_that_did_not_fail_have_pages(database):
    assert "runs it since 2026-11-22 15:56:37" in body(database, "/job/7")
    waiting = body(database, "/job/9")
    assert "No worker has started it yet." in waiting
    assert "pccd job rerun" not in waiting
    for nothing in ("/job/4711", "/job/x", "/job/", f"/job/{10**30}"):
        body(database, nothing, status=404)


def test_a_class_of_failure_without_a_traceback_is_said(database):
    database["launches"].update_one({"launch_id": 105}, {"$set": {"action": None}})
    assert "no message" in body(database, f"/job/{demo.FAILED}")
    assert failed_jobs(database, CAMPAIGN)[0]["error_class"] == "python"


def test_a_job_that_failed_too_often_is_rerun_on_request(database):
    failed = {"failure": {"error_class": "scf", "evidence": "edddav"}, "state": "ARCHIVED"}
    database["launches"].insert_many(failed | {"launch_id": n} for n in range(1, 5))
    job = {"fw_id": demo.FAILED}
    database["fireworks"].update_one(job, {"$set": {"archived_launches": [4, 2, 1, 3]}})
    page = unescape(body(database, f"/job/{demo.FAILED}"))
    assert "--max-attempts 6" in page
    assert "5 of 5: failed (memory)" in page


def test_jobs_of_a_kind_are_listed(database):
    page = unescape(body(database, f"/jobs/{CAMPAIGN}", "kind=phonons+chgnet"))
    assert re.findall(r'href="/job/(\d+)">phonons', page) == ["9", "10", "11"]
    failed = body(database, f"/jobs/{CAMPAIGN}", "state=FIZZLED")
    assert 'href="/job/5">relax chgnet 2/2' in failed
    assert "1 job<" in failed
    assert "No job of this campaign" in body(database, f"/jobs/{CAMPAIGN}", "state=PAUSED")
    body(database, f"/jobs/{CAMPAIGN}", "state=LOST", status=400)
    body(database, "/jobs/nobody", status=404)


def test_the_flow_and_the_failures_lead_to_jobs(database):
    page = unescape(body(database, f"/campaign/{CAMPAIGN}"))
    flow = page.partition("<h2>Flow</h2>")[2]
    assert 'href="/job/2"' in flow  # the only one of its kind
    assert f'href="/jobs/{CAMPAIGN}?kind=phonons+chgnet"' in flow
    assert 'href="/job/5"' in page.partition("<h2>Failures</h2>")[2].partition("<h2>Flow</h2>")[0]

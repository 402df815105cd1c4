"""The explorer over a real database and a real socket: filters, pages, refusals, escaping."""

import http.client
import json
import re
import threading
from html import unescape

import ledger_factory as factory
import pytest
from typer.testing import CliRunner

from pccd_workflows.cli.explore import app
from pccd_workflows.core.errors import DatabaseError, InputError
from pccd_workflows.execution import mongo
from pccd_workflows.explorer.pages import answer
from pccd_workflows.explorer.server import Explorer, is_loopback
from pccd_workflows.explorer.state import PER_PAGE, parse_state

EVIL = "<script>alert(1)</script>\"'"
ID = factory.campaign().candidate_id


@pytest.fixture
def database(settings):
    found = mongo.database(settings)
    mongo.ensure_indexes(found)
    return found


def store(database, docs):
    rows = [doc.model_dump(mode="json") | {"_id": doc.candidate_id} for doc in docs]
    database["candidates"].insert_many(rows)


@pytest.fixture
def few(database):
    store(
        database,
        [
            factory.judged(0, "MgMn2O4", above=0.05, kind="substitution", phonons="stable"),
            factory.judged(1, "MgO", above=0.0, novel=False, kind="duplicate"),
            factory.rejected(2, "too_close"),
        ],
    )
    return database


def ids(database, query=""):
    reply = answer(database, "/api/candidates", query)
    assert reply.status == 200, reply.body
    return [row["index"] for row in json.loads(reply.body)["candidates"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 0, 2]),
        ("sort=-energy_above_hull", [0, 1, 2]),
        ("chemsys=O-Mn-Mg", [0]),
        ("elements=Mg,+O", [1, 0]),
        ("formula=OMg&status=&campaign=", [1, 2]),
        ("max_ehull=0.01", [1]),
        ("novel=new", [0]),
        ("kind=substitution", [0]),
        ("kind=duplicate&novel=known", [1]),
        ("phonons=stable", [0]),
        ("reason_class=too_close", [2]),
        ("campaign=mg-mn-o&status=passed", [1, 0]),
        ("campaign=nothing", []),
    ],
)
def test_an_address_says_which_crystals(few, query, expected):
    assert ids(few, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "campaign=$where",
        "status[$ne]=x",
        "status=%7B%22$gt%22:%22%22%7D",
        "novel=maybe",
        "kind=maybe",
        "max_ehull=low",
        "max_ehull=nan",
        "chemsys=Mg-Qq",
        "sort=structure",
        "page=0",
        "page=-1",
        "page=1e3",
        "page=99999999999999999999",
        "status=passed&status=failed",
        "limit=100000000",
        "&".join(f"x{i}=1" for i in range(100)),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/candidates"])
def test_wrong_addresses_are_refused_in_one_sentence(few, path, query):
    reply = answer(few, path, query)
    assert reply.status == 400
    if path == "/":
        sentence = re.search(r'<p class="notice"[^>]*>(.*?)</p>', reply.body)[1]
    else:
        sentence = json.loads(reply.body)["error"]
    assert sentence
    assert "\n" not in sentence


def test_a_wrong_filter_keeps_the_others(few):
    reply = answer(few, "/", "chemsys=Mg-Qq&novel=new&status=passed")
    assert reply.status == 400
    assert "&#39;Qq&#39; is not a chemical element." in reply.body
    assert 'name="chemsys" value="Mg-Qq"' in reply.body
    assert "<option selected>passed</option>" in reply.body
    assert re.findall(r'<a href="/candidate/([^"]+)"', reply.body) == [ID(0)]


def test_an_energy_that_was_hardly_meant_is_asked_about(few):
    page = unescape(answer(few, "/", "max_ehull=5&novel=known&page=1").body)
    assert "Did you mean 5 meV/atom, that is 0.005?" in page
    assert 'href="/?max_ehull=0.005&novel=known"' in page
    assert "Did you mean" not in answer(few, "/", "max_ehull=0.5").body


def test_an_ambiguous_verdict_is_shown_and_can_be_asked_for(few):
    store(few, [factory.judged(7, "MgMnO3", above=0.03, phonons="ambiguous")])
    assert '<span class="badge open">ambiguous</span>' in answer(few, "/", "").body
    assert ids(few, "phonons=ambiguous") == [7]


def test_short_ids_open_a_page(few):
    page = answer(few, "/", "").body
    name = f"{factory.campaign().hash[:4]}-0"
    assert f">{name}</a>" in page
    assert answer(few, f"/candidate/{name}", "").status == 200


def test_addresses_keep_filters_and_drop_the_page(few):
    state = parse_state("chemsys=Mg-Mn-O&novel=new&page=3")
    assert state.url(page=4) == "/?chemsys=Mg-Mn-O&novel=new&page=4"
    assert state.sorted_by("nsites") == "/?chemsys=Mg-Mn-O&novel=new&sort=nsites"
    turned = parse_state("sort=nsites").sorted_by("nsites")
    assert turned == "/?sort=-nsites"


def test_pages_walk_through_every_crystal_once(database):
    template = factory.judged(0).model_dump(mode="json")
    n = 2 * PER_PAGE + 7
    rows = [
        {
            **template,
            "_id": ID(i),
            "candidate_id": ID(i),
            "index": i,
            "energy_above_hull": None if i % 3 else (i * 37 % n) / 1000,
        }
        for i in range(n)
    ]
    database["candidates"].insert_many(rows)
    pages = [ids(database, f"page={page}") for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [PER_PAGE, PER_PAGE, 7]
    assert sorted(index for page in pages for index in page) == list(range(n))
    assert ids(database, "page=4") == []
    page = answer(database, "/", "page=9").body
    assert "107 crystals, none of them on page 9" in page
    assert "This list ends on page 3" in page


def test_sorted_pages_come_from_an_index(database):
    """A page deep in the list is read along an index, not sorted in memory."""
    store(database, [factory.judged(i) for i in range(3)])
    for key in ("energy_above_hull", "formula_pretty", "nsites", "spacegroup", "updated_at"):
        query, order = parse_state(f"sort={key}").which.segments()[0]
        plan = database["candidates"].find(query).sort(order).skip(1).limit(1).explain()
        assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"]), key


def test_the_table_links_rows_and_repeats_itself_in_a_terminal(few):
    page = answer(few, "/", "novel=new&sort=-energy_above_hull").body
    assert f'href="/candidate/{ID(0)}"' in page
    assert "MgMn₂O₄" in page
    assert "pccd candidate list --novel --sort=-energy_above_hull" in unescape(page)
    assert "<option selected>new</option>" in page
    assert 'aria-sort="descending"' in page


def test_an_empty_list_says_what_to_try(few, settings):
    assert "Drop or widen a filter" in answer(few, "/", "formula=LiF").body
    few["candidates"].delete_many({})
    assert "pccd campaign run" in answer(few, "/", "").body


def test_a_crystal_has_a_page_data_and_a_cif(few):
    page = answer(few, f"/candidate/{ID(0)}", "").body
    for text in ("<title>MgMn₂O₄", "Phonons (chgnet)", f"pccd candidate show {ID(0)}", "viewer"):
        assert text in page
    data = json.loads(answer(few, f"/api/candidate/{ID(0)}", "").body)
    assert data["candidate_id"] == ID(0)
    cif = answer(few, f"/cif/{ID(0)}", "")
    assert cif.filename == f"{ID(0)}_MgMn2O4.cif"
    assert "_cell_length_a" in cif.body


@pytest.mark.parametrize(
    "path", ["/nothing", "/candidate/nobody", "/candidate/%24ne", "/cif/" + ID(2), "/candidate/"]
)
def test_what_is_not_there_is_404(few, path):
    assert answer(few, path, "").status == 404


def test_text_from_documents_is_never_markup(database):
    doc = factory.judged(0).model_copy(
        update={"formula_pretty": EVIL, "spacegroup": EVIL, "reason": EVIL, "campaign": EVIL}
    )
    store(database, [doc])
    database["campaigns"].insert_one({"_id": EVIL})
    for path in ("/", f"/candidate/{ID(0)}"):
        page = answer(database, path, "").body
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page
    assert EVIL not in answer(database, "/", "campaign=%3Cscript%3Ealert(1)").body


def test_a_newer_document_is_a_sentence(few):
    few["candidates"].update_many({}, {"$set": {"schema_version": 99}})
    reply = answer(few, f"/candidate/{ID(0)}", "")
    assert reply.status == 503
    assert "newer version" in reply.body


@pytest.fixture
def server(few):
    with Explorer("127.0.0.1", 0, lambda: few) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server, path, *, method="GET", host=None, cookie=None):
    """Ask as a browser that knows the token does, unless a cookie is given."""
    cookie = f"{server.cookie}={server.token}" if cookie is None else cookie
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers={"Cookie": cookie} | ({"Host": host} if host else {}))
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply, body


def test_the_server_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    reply, body = ask(server, "/?novel=new")
    assert reply.status == 200
    assert ID(0) in body
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "http" not in re.sub(r"<script>.*?</script>", "", body, flags=re.DOTALL)


def test_nobody_reads_without_the_token(server):
    for path in ("/", f"/candidate/{ID(0)}", "/api/candidates", "/?token=", "/?token=wrong"):
        for cookie in ("", f"{server.cookie}=wrong", "=;;=\\"):
            reply, body = ask(server, path, cookie=cookie)
            assert reply.status == 403
            assert ID(0) not in body
            assert reply.headers["Set-Cookie"] is None
    address = server.url.partition("//")[2].partition("/")[2]
    reply, body = ask(server, f"/{address}&novel=new", cookie="")
    assert reply.status == 200
    assert ID(0) in body
    assert server.token not in body
    given = reply.headers["Set-Cookie"]
    assert "HttpOnly" in given
    assert ask(server, "/", cookie=given.partition(";")[0])[0].status == 200


def test_foreign_names_for_this_machine_are_refused(server):
    assert ask(server, "/", host="evil.example")[0].status == 421
    assert ask(server, "/", host="localhost:1")[0].status == 200


def test_nothing_can_be_changed(server):
    assert ask(server, "/", method="HEAD")[0].status == 200
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/api/candidates", method=method)[0].status == 501
    assert ask(server, "/?campaign=" + "a" * 5000)[0].status == 414


def test_a_database_that_went_away_is_a_sentence(server):
    def gone():
        raise DatabaseError("MongoDB does not answer.")

    server.connect = gone
    reply, body = ask(server, "/")
    assert (reply.status, body) == (503, "MongoDB does not answer.\n")


def test_a_port_in_use_is_one_sentence(server, settings):
    port = server.server_address[1]
    with pytest.raises(InputError, match=f"Cannot listen on 127.0.0.1 port {port}"):
        Explorer("127.0.0.1", port, lambda: None)
    result = CliRunner().invoke(app, ["--port", str(port)])
    assert isinstance(result.exception, InputError)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("x", False)],  # noqa: S104
)
def test_loopback_is_recognised(host, local):
    assert is_loopback(host) is local

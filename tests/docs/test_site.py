"""The site's made pages, and what the repository says twice on purpose."""

import contextlib
import io
import re
import signal
import sys
import tomllib

import jinja2
import pytest
import yaml
from document import CLONE, DOCS

sys.path.insert(0, str(DOCS / "_site"))  # the site's modules import each other by plain names

import commands
import failures
import links
import offline
import outputs
import schema
import stage

import pccd_workflows
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli import NOUNS, main
from pccd_workflows.core.errors import InputError, Interrupted, PccdError
from pccd_workflows.core.failures import BY_NAME

JOB_FAILED = (DOCS / "job-failed.md").read_text(encoding="utf-8")


def test_every_class_of_failure_has_one_entry():
    named = list(failures.named(JOB_FAILED))
    assert sorted(named) == sorted(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_command_of_an_entry_is_accepted(settings, name):
    made = failures.example(name)
    assert name in made.output
    assert max(map(len, made.output.splitlines())) <= failures.WIDTH
    out, err = io.StringIO(), io.StringIO()
    caught = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with caught[0], caught[1], pytest.raises(SystemExit) as ended:
        main(made.command.split()[1:])
    if "<" in made.command:  # a number is to be chosen
        assert ended.value.code == 2
        assert "INCAR.NBANDS" in err.getvalue()
    else:
        assert not ended.value.code, err.getvalue()
        assert "No failed job is of that kind" in out.getvalue()


def test_an_example_of_another_class_is_refused(monkeypatch):
    monkeypatch.setitem(failures.LEFT_BEHIND, "scf", failures.LEFT_BEHIND["disk"])
    with pytest.raises(ValueError, match="diagnosed as 'disk'"):
        failures.example("scf")


def test_every_command_is_described_with_its_options():
    page = commands.page()
    names = [name for noun in NOUNS for name, _ in commands.commands(noun)]
    assert {"pccd campaign run", "pccd worker", "pccd completion", "pccd quickstart"} <= {*names}
    for name in names:
        assert f"### {name} {{" in page
    assert "`--dry-run`" in page
    assert "parent" not in page  # hidden


def test_every_field_of_a_candidate_is_described():
    page = schema.page()
    for name in CandidateDoc.model_fields:
        assert f"| `{name}` |" in page
    for link in re.findall(r"\]\(#(\w+)\)", page):
        assert re.search(rf"^### {link}$", page, re.MULTILINE | re.IGNORECASE), link


def test_a_link_that_leads_nowhere_is_an_error():
    names = {"index.md", "install.md", "tutorials/gpaw.md"}
    turned = stage.turned("[a](docs/tutorials/gpaw.md#x)", "index.md", names)
    assert turned == "[a](tutorials/gpaw.md#x)"
    assert stage.turned("[a](../install.md)", "tutorials/gpaw.md", names) == "[a](../install.md)"
    assert stage.turned("![A crystal](images/no.png)", "report.md", names) == "*A crystal*"
    assert stage.turned("in [images](images/)", "report.md", names) == "in images"
    with pytest.raises(stage.NowhereError, match=r"README\.md.*nothing\.md"):
        stage.turned("[a](docs/nothing.md)", "index.md", names)


@pytest.mark.parametrize(
    ("html", "refused"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css">', True),
        ('<link href="https://a.example/x.css" rel="stylesheet">', True),
        ('<script src="assets/x.js"></script><a href="https://doi.org/1">1</a>', False),
    ],
)
def test_what_a_page_would_load_is_found(tmp_path, html, refused):
    (tmp_path / "index.html").write_text(html)
    assert bool(list(offline.loaded(tmp_path))) is refused


def test_the_table_of_the_readme_is_the_one_that_was_printed():
    text = (CLONE / "README.md").read_text(encoding="utf-8")
    ((name, shown),) = re.findall(r"<!-- output: ([\w.-]+) -->\n```text\n(.*?)```", text, re.DOTALL)
    printed = (outputs.FOLDER / name).read_text(encoding="utf-8")
    assert shown == printed
    assert max(map(len, printed.splitlines())) <= 80
    assert len(text.splitlines()) < 120


def test_the_conda_recipe_has_the_dependencies_of_the_package():
    recipe, project = conda_recipe(), pyproject()["project"]
    wanted = recipe["requirements"]["run"]
    expected = {text.replace(" ", "").lower() for text in project["dependencies"]}
    expected = {re.sub(r"^torch\b", "pytorch", text) for text in expected}
    python = f"python{project['requires-python']}"
    assert {text.replace(" ", "") for text in wanted} - {python} == expected
    assert len(set(wanted)) == len(wanted)


def test_the_conda_recipe_says_of_the_package_what_it_is():
    recipe, project = conda_recipe(), pyproject()["project"]
    assert list(recipe) == ["package", "source", "build", "requirements", "test", "about"]
    assert recipe["package"] == {"name": project["name"], "version": pccd_workflows.__version__}
    (script,) = project["scripts"].items()
    assert recipe["build"]["entry_points"] == [" = ".join(script)]
    assert recipe["build"]["noarch"] == "python"
    host = {text.replace(" ", "") for text in recipe["requirements"]["host"]}
    assert {*pyproject()["build-system"]["requires"], f"python{project['requires-python']}"} <= host
    about = recipe["about"]
    assert (about["license"], [about["license_file"]]) == (
        project["license"],
        project["license-files"],
    )
    assert (CLONE / about["license_file"]).is_file()
    assert about["home"] in project["urls"].values()
    assert recipe["test"]["imports"] == ["pccd_workflows"]
    for command in recipe["test"]["commands"]:
        assert command.split()[0] == script[0]


def conda_recipe():
    """Return the recipe as conda-build renders it."""
    text = (CLONE / "conda" / "meta.yaml").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    return yaml.safe_load(environment.from_string(text).render(PYTHON="python"))


def pyproject():
    return tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))


def test_links_that_lead_out_have_the_form_of_their_kind():
    found = links.external()
    assert "docs/cite.md" in found["https://doi.org/10.1016/j.isci.2024.111659"]
    assert list(links.problems(found)) == []


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://pytorch.org/a", "is not https"),
        ("https://doi.org/10.1103/PhysRevLet.77.3865", "is no DOI of 10.1103"),
        ("https://doi.org/10.1038/s41586-025-0862-5", "is no DOI of 10.1038"),
        ("https://dx.doi.org/10.1103/PhysRevLett.77.3865", "is not of the form"),
        ("https://doi.org/10.9999/x", "publisher unknown here"),
    ],
)
def test_a_link_of_another_form_is_told(address, sentence):
    (problem,) = links.problems({address: []})
    assert sentence in problem


def test_an_address_ends_where_its_sentence_goes_on():
    text = "[a](https://a.net/b_(c)). See https://a.net/B/, http://127.0.0.1:8000/ (https://b.net)."
    assert list(links.addresses(text)) == [
        "https://a.net/b_(c)",
        "https://a.net/B/",
        "https://b.net",
    ]
    spellings = {"https://www.a.net/b/": [], "https://a.net/B": []}
    assert "two spellings" in "".join(links.problems(spellings))


def test_exit_codes_are_described():
    page = commands.page()
    for code in (0, InputError.exit_code, PccdError.exit_code):
        assert f"| {code} |" in page
    for signum in (signal.SIGINT, signal.SIGTERM):
        assert f"| {Interrupted('', signum).exit_code} |" in page

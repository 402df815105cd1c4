"""The site's made pages, and what the repository says twice on purpose."""

import contextlib
import io
import re
import sys
import tomllib

import pytest
import yaml
from document import CLONE, DOCS

sys.path.insert(0, str(DOCS / "_site"))  # the site's modules import each other by plain names

import commands
import failures
import offline
import outputs
import schema
import stage

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli import NOUNS, main
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
        assert "0 of 0 failed jobs" in out.getvalue()


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
    recipe = (CLONE / "conda" / "meta.yaml").read_text(encoding="utf-8")
    plain = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "", recipe)
    wanted = yaml.safe_load(plain)["requirements"]["run"]
    project = tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    expected = {text.replace(" ", "").lower() for text in project["dependencies"]}
    expected = {re.sub(r"^torch\b", "pytorch", text) for text in expected}
    assert {text.replace(" ", "") for text in wanted} - {"python>=3.11"} == expected

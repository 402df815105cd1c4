"""What comes with the project is found in a clone and in an installed wheel alike."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pccd_workflows
from pccd_workflows.campaign import load_campaign
from pccd_workflows.cli import main
from pccd_workflows.core.errors import InputError, MissingDependencyError
from pccd_workflows.core.resources import campaign_file, resource, shipped_campaigns

SOURCE = Path(pccd_workflows.__file__).parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Folder of a package as a wheel holds it, with one model."""
    package = tmp_path / "pccd_workflows"
    shutil.copytree(SOURCE / "core", package / "core")
    (package / "__init__.py").touch()
    (package / "resources" / "model" / "other").mkdir(parents=True)
    return tmp_path


def test_in_a_clone_it_is_the_folder_beside_the_package():
    assert resource("flows", "quickstart.yaml").samefile(SOURCE.parent / "flows/quickstart.yaml")


def test_in_a_wheel_it_is_below_the_package(installed):
    (installed / "model" / "other").mkdir(parents=True)  # somebody else's top-level package
    code = "from pccd_workflows.core.resources import resource; print(resource('model', 'other'))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert Path(found) == installed / "pccd_workflows" / "resources" / "model" / "other"


def test_what_is_missing_is_named():
    with pytest.raises(MissingDependencyError, match=r"model.nothing is missing"):
        resource("model", "nothing")


def test_a_bare_name_means_the_shipped_campaign_unless_there_is_such_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert campaign_file("quickstart.yaml") == resource("flows", "quickstart.yaml")
    assert campaign_file("./quickstart.yaml").samefile(resource("flows", "quickstart.yaml"))
    assert campaign_file("elsewhere/quickstart.yaml") == Path("elsewhere/quickstart.yaml")
    assert campaign_file(tmp_path / "quickstart.yaml") == tmp_path / "quickstart.yaml"
    assert campaign_file("../flows/quickstart.yaml") == Path("../flows/quickstart.yaml")
    Path("quickstart.yaml").write_text("name: mine")
    assert campaign_file("quickstart.yaml") == Path("quickstart.yaml")


def test_a_campaign_that_is_nowhere_is_refused_with_those_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_campaign("quickstart.yaml").name == "quickstart"
    with pytest.raises(InputError, match=r"no campaign file quickstart.yml; .* quickstart.yaml"):
        load_campaign("quickstart.yml")


def test_quickstart_is_the_shipped_campaign_from_anywhere(tmp_path, monkeypatch, capsys):
    assert "quickstart.yaml" in shipped_campaigns()
    monkeypatch.chdir(tmp_path)
    for command in (["quickstart"], ["campaign", "run", "quickstart.yaml"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--dry-run"])
        assert ended.value.code == 0
        assert load_campaign("quickstart.yaml").campaign_id in capsys.readouterr().out

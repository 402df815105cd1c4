"""The core without FireWorks, atomate2, custodian and mp-api: what works, what is refused."""

import json
import subprocess
import sys
from typing import Any

import pytest

from pccd_workflows.core.errors import MissingDependencyError
from pccd_workflows.core.optional import EXTRAS, optional_imports

BLOCK = f"""
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
PIPELINE = """
import json
from pccd_workflows.analysis import Hull, HullQuery, correct_references, screen
from pccd_workflows.analysis.screening import Screen
from pccd_workflows.engines import relax
from pccd_workflows.generators import Conditions
from pccd_workflows.generators.pccd import SampleRequest, find_model, load_model, sample_clouds
from pccd_workflows.generators.pccd import Sampler
from pccd_workflows.generators.pccd.pointcloud import DecodeError
from pccd_workflows.generators.pccd.pointcloud.decode import decode
from pccd_workflows.known import shipped_reference_set
from pccd_workflows.matching import group
from pccd_workflows.settings import get_settings

model = load_model(find_model("pccd-default", get_settings()), "cpu")
requests = [SampleRequest(i, ("Mg", "O"), Conditions()) for i in range(8)]
crystals = []
for cloud in sample_clouds(model, requests, seed=1, sampler=Sampler(steps=10)):
    try:
        crystals.append(decode(cloud))
    except DecodeError:
        pass
screened = [c for c in crystals if screen(c, elements=["Mg", "O"], settings=Screen()).passed]
unique = [screened[members[0]] for members in group(screened)]
relaxed = [relax(c, "chgnet", fmax=0.1, steps=30) for c in unique[:2]]
hull = Hull(correct_references(shipped_reference_set("Mg-O", "chgnet")))
placed = hull.place(
    [
        HullQuery(
            id=str(i),
            composition=r.structure.composition,
            energy=r.energy,
            convention=r.convention,
            level="chgnet",
        )
        for i, r in enumerate(relaxed)
    ]
)
print(json.dumps([len(crystals), len(unique), [p.energy_above_hull for p in placed]]))
"""
EVERY_MODULE = """
import importlib, json, pkgutil
import pccd_workflows
from pccd_workflows.core.errors import MissingDependencyError

refused = {}
for module in pkgutil.walk_packages(pccd_workflows.__path__, "pccd_workflows."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except MissingDependencyError as error:
            refused[module.name.removeprefix("pccd_workflows.")] = str(error)
print(json.dumps(refused))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` where no optional package is installed."""
    command = [sys.executable, "-W", "ignore", "-c", BLOCK + code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def printed(code: str) -> Any:
    """Return the JSON of the last line that `code` prints."""
    return json.loads(run(code).stdout.splitlines()[-1])


def test_it_samples_screens_matches_relaxes_and_places_on_a_hull():
    crystals, unique, above = printed(PIPELINE)
    assert 8 >= crystals >= unique >= len(above) >= 1
    assert all(-0.5 < value < 2 for value in above)


def test_only_what_needs_fireworks_is_refused_and_says_what_to_install():
    refused = printed(EVERY_MODULE)
    assert {name for name in refused if not name.startswith("execution.")} == {
        *("cli.live", "migrate", "operations")
    }
    assert {"execution.launchpad", "execution.worker"} <= set(refused)
    for sentence in refused.values():
        assert sentence == (
            "A campaign on MongoDB needs fireworks, which is not installed: "
            "pip install 'pccd-workflows[workflow]'."
        )


CALLS = {
    "vasp": "from pccd_workflows.engines.vasp.inputs import maker_of as f; "
    "from pccd_workflows.engines import get_level as g; f(g('vasp/mp-gga'), 'static')",
    "mp": "from pccd_workflows.known.mp_client import Client; Client()",
    "workflow": "from pccd_workflows.cli import main; main(['campaign', 'list'])",
}


@pytest.mark.parametrize("extra", CALLS)
def test_what_is_missing_is_named_where_it_is_used(extra):
    code = f"""
from pccd_workflows.core.errors import MissingDependencyError
try:
    {CALLS[extra]}
except (MissingDependencyError, SystemExit) as error:
    assert not getattr(error, "code", 1) == 0
    print(error)
"""
    done = run(code)
    assert f"pccd-workflows[{extra}]" in done.stdout + done.stderr


def test_an_import_that_fails_for_another_reason_is_not_explained_away():
    with pytest.raises(ModuleNotFoundError), optional_imports("This"):
        import no_such_package  # noqa: F401
    named = pytest.raises(MissingDependencyError, match=r"This needs gpaw.*\[gpaw\]")
    with named, optional_imports("This"):
        raise ModuleNotFoundError("No module named 'gpaw.mpi'", name="gpaw.mpi")

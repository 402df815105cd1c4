"""Faults planted in science code, one at a time: does the test that should notice it fail?

    OMP_NUM_THREADS=1 python benchmarks/mutants.py --json [--only NAME]

Works on a copy of the package and its tests; each mutant runs only the tests named for it, which
must pass without it. Exits with 1 if a mutant survives.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from command import run

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("pccd_workflows", "tests", "pyproject.toml")
LINKED = ("model", "flows", "db_config", "docs")


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes
    ----------
    path
        Below the package.
    before, after
        Text that occurs once, and what takes its place.
    test
        Below the tests: what ought to fail.
    """

    name: str
    path: str
    before: str
    after: str
    test: str


SHARES = "evaluation/test_shares.py"
YARDSTICK = "evaluation/test_yardstick.py"
RUNG = "test_rung_novelty.py"
DECODE = "generators/pccd/pointcloud/test_decode.py::test_likelihoods_tell_sites_apart_that_"
MEANS = "generators/pccd/test_denoiser.py::test_the_noise_of_means_is_that_of_their_copies"
KEPT = "test_collect.py::test_known_before_or_after_relaxation_is_known"
MUTANTS = (
    Mutant(
        "stol of the literature's matcher 0.5 -> 0.8",
        "evaluation/crystals.py",
        '"stol": 0.5',
        '"stol": 0.8',
        YARDSTICK,
    ),
    Mutant(
        "stol of campaigns 0.3 -> 0.5",
        "matching/settings.py",
        "Field(0.3, gt=0, le=2",
        "Field(0.5, gt=0, le=2",
        YARDSTICK,
    ),
    Mutant(
        "the higher twin kept",
        "stages/hull.py",
        "key=lambda name: (records[name].energy_above_hull or 0.0, name),",
        "key=lambda name: (-(records[name].energy_above_hull or 0.0), name),",
        RUNG,
    ),
    Mutant(
        "the higher twin kept in evaluations",
        "evaluation/samples.py",
        "(one.energy_above_hull or 0.0, i)",
        "(-(one.energy_above_hull or 0.0), i)",
        SHARES,
    ),
    Mutant(
        "training crystals counted in S.U.N.",
        "evaluation/samples.py",
        '    look_ups["training"] = ',
        "    _ = ",
        YARDSTICK,
    ),
    Mutant(
        "any set's crystals counted in S.U.N.",
        "evaluation/samples.py",
        "found.duplicate_of is None and found.novel",
        "found.duplicate_of is None",
        SHARES,
    ),
    Mutant(
        "known before relaxing counted in S.U.N.",
        "evaluation/samples.py",
        "novelty.after(one.novelty)",
        "novelty",
        SHARES,
    ),
    Mutant(
        "S.U.N. limit 0 -> 0.05",
        "evaluation/thresholds.py",
        'SUN_LIMIT = THRESHOLDS["stable_0"]\n',
        "SUN_LIMIT = 0.05\n",
        SHARES,
    ),
    Mutant(
        "element likelihoods ignored in clusters of points",
        "generators/pccd/pointcloud/sites.py",
        "_clusterings(distances + different_elements(likelihoods), most)",
        "_clusterings(distances, most)",
        DECODE + "coordinates_do_not",
    ),
    Mutant(
        "element likelihoods ignored in the description's length",
        "generators/pccd/pointcloud/sites.py",
        " + _nats(misfits, _typical_width(misfits))",
        "",
        DECODE + "coordinates_do_not",
    ),
    Mutant(
        "element likelihoods ignored by DBSCAN",
        "generators/pccd/pointcloud/sites.py",
        "periodic_distances(coordinates) + different_elements(likelihoods)",
        "periodic_distances(coordinates)",
        DECODE + "coordinates_do_not",
    ),
    Mutant(
        "noise of site means as of one point",
        "generators/pccd/denoiser.py",
        "return inverse_copies * variance[:, None, None], ",
        "return torch.ones_like(inverse_copies) * variance[:, None, None], ",
        MEANS,
    ),
    Mutant(
        "noise of site means drawn as of one point",
        "generators/pccd/means.py",
        "drawn[:, :-2] * self.widths[0]",
        "drawn[:, :-2]",
        MEANS,
    ),
    Mutant(
        "known before relaxing, new after",
        "known/novelty.py",
        "**earlier.sets, **self.sets, **known",
        "**earlier.sets, **self.sets",
        KEPT,
    ),
    Mutant(
        "the rung forgets what was known before",
        "stages/hull.py",
        "whole = novelty.after(earlier.get(name))",
        "whole = novelty",
        RUNG,
    ),
    Mutant(
        "the library is not looked up",
        "stages/novelty.py",
        "    if section.library:\n",
        "    if not section.library:\n",
        RUNG,
    ),
    Mutant(
        "Wyckoff positions ignored",
        "known/identify.py",
        "        if framework is None:\n",
        "        if False:\n",
        "known/test_identify.py",
    ),
    Mutant(
        "triclinic crystals all of one structure type",
        "known/identify.py",
        "LAST_TRICLINIC = 2",
        "LAST_TRICLINIC = 0",
        "known/test_identify.py",
    ),
    Mutant(
        "what was not kept counts among the kinds",
        "report/statistics.py",
        "        if kept_step(campaign) in reached:\n",
        "        if True:\n",
        "report/test_statistics.py",
    ),
)


def main() -> int:
    """Plant the mutants; say which survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="a part of the names of the mutants to plant")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if args.only is None or args.only in mutant.name]
    with TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        verdicts = {mutant.name: plant(tree, mutant) for mutant in chosen}
    survivors = [name for name, verdict in verdicts.items() if verdict != "killed"]
    result = {"killed": len(verdicts) - len(survivors), "of": len(verdicts), "mutants": verdicts}
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join(f"{verdict:10} {name}" for name, verdict in verdicts.items()))
        print(f"{result['killed']} of {result['of']} killed")
    return 1 if survivors else 0


def copied(tree: Path) -> Path:
    """Return a folder with what the tests need."""
    for name in COPIED:
        source, target = ROOT / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name in LINKED:
        (tree / name).symlink_to(ROOT / name)
    return tree


def plant(tree: Path, mutant: Mutant) -> str:
    """Return "killed", "survived", or why it says nothing."""
    path = tree / "pccd_workflows" / mutant.path
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        return "not planted: its text does not occur once"
    try:
        path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
        code = tested(tree, mutant.test)
    finally:
        path.write_text(text, encoding="utf-8")
    print(f"{mutant.name}: {code}", file=sys.stderr, flush=True)
    return {0: "survived", 1: "killed"}.get(code, f"no verdict: pytest ended with {code}")


def tested(tree: Path, test: str) -> int:
    """Return pytest's exit code: 0 passed, 1 a test failed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        f"tests/{test}",
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, check=False
    ).returncode


if __name__ == "__main__":
    run(main)

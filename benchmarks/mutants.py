"""Which small changes of the science no test notices: the share of mutants that are killed.

    python benchmarks/mutants.py --planted               # faults that once went unnoticed
    python benchmarks/mutants.py --minutes 30 [--module known/competing.py] [--ledger F] [--json]

A mutant is the package with one change: a comparison, an operator, a constant, a condition, an
argument, or a statement left out. It is killed if one of the tests that are named for its module
fails, or takes five times as long as without it. Mutants come in a random order that `--seed`
fixes, so that a part of them is a sample; results are kept in a ledger, and the same call goes on
where the last one ended. The tests run in a scratch copy of the package.
"""

import argparse
import ast
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from command import run

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import wilson_share

CLONE = Path(__file__).resolve().parent.parent
PACKAGE = "pccd_workflows"
LINKED = ("tests", "model", "flows", "db_config", "docs", "benchmarks", "pyproject.toml")
POINTCLOUD = "generators/pccd/pointcloud"
TESTS: dict[str, tuple[str, ...]] = {
    "analysis/dynamics.py": ("analysis/test_dynamics.py", "engines/test_phonons.py"),
    "analysis/hull.py": ("analysis/test_hull.py", "analysis/test_hull_linear_programme.py"),
    "analysis/magnetism.py": ("analysis/test_magnetism.py",),
    "analysis/validity.py": ("analysis/test_validity.py",),
    "engines/levels.py": ("engines/test_levels.py", "engines/test_potential.py"),
    "engines/phonons.py": ("engines/test_phonons.py", "engines/test_keys.py"),
    "engines/potential.py": ("engines/test_potential.py", "engines/test_keys.py"),
    "engines/qpoints.py": ("engines/test_qpoints.py", "engines/test_phonons.py"),
    "engines/supercells.py": ("engines/test_phonons.py", "engines/test_keys.py"),
    "engines/vasp/inputs.py": ("engines/test_vasp.py",),
    "generators/pccd/means.py": (
        "generators/pccd/test_means.py",
        "generators/pccd/test_sampling.py",
    ),
    f"{POINTCLOUD}/decode.py": (f"{POINTCLOUD}/test_decode.py",),
    f"{POINTCLOUD}/encode.py": (f"{POINTCLOUD}/test_encode.py", f"{POINTCLOUD}/test_decode.py"),
    f"{POINTCLOUD}/sites.py": (f"{POINTCLOUD}/test_decode.py",),
    "known/competing.py": ("known/test_competing.py",),
    "known/relaxed_hull.py": ("known/test_relaxed_hull.py", "known/test_competing.py"),
    "known/identify.py": ("known/test_identify.py",),
    "matching/cells.py": ("matching/test_fitting.py", "matching/test_groups.py"),
    "matching/fitting.py": ("matching/test_fitting.py", "matching/test_groups.py"),
    "matching/groups.py": ("matching/test_groups.py",),
    "matching/known_crystals.py": ("matching/test_known_crystals.py",),
    "matching/lattices.py": ("matching/test_fitting.py",),
    "stages/hull.py": ("test_judgement.py", "test_rungs.py", "test_rung_novelty.py"),
    "stages/level_difference.py": ("test_level_difference.py",),
    "stages/novelty.py": ("test_known_source.py", "test_rungs.py", "test_rung_novelty.py"),
    "stages/phonons.py": ("test_rungs.py", "test_columns.py"),
}
"""The science, and the tests that answer for each of its modules."""
PRELOADED = (
    *("torch", "pytest", "hypothesis", "scipy.optimize", "scipy.spatial", "ase.calculators.emt"),
    *("pymatgen.core", "pymatgen.analysis.structure_matcher", "pymatgen.symmetry.analyzer"),
    *("pymatgen.entries.compatibility", "jobflow", "pydantic", "phonopy"),
)
"""What tests import beside the package: loaded once, before the forks."""
FASTEST = 30.0
"""Seconds that any mutant's tests may take."""
SLOWER = 5.0
"""So many times the time of the unchanged package is too slow."""


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    where: path below the package. start, end: the characters that are replaced by `new`.
    own_tests: instead of those of its module.
    """

    where: str
    line: int
    start: int
    end: int
    old: str
    new: str
    name: str = ""
    own_tests: tuple[str, ...] = ()

    @property
    def tests(self) -> list[str]:
        """Those that should notice it."""
        return [f"tests/{name}" for name in self.own_tests or TESTS[self.where]]

    @property
    def key(self) -> str:
        """Stands for the change, not for its place: an unchanged line keeps its result."""
        text = f"{self.where}\0{self.old}\0{self.new}\0{self.name}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        old, new = (" ".join(text.split())[:60] for text in (self.old, self.new))
        return f"{self.where}:{self.line}: {self.name or f'{old} -> {new}'}"


PLANTED = (
    # name, module, what is there, what is put in its place, the tests that should notice
    (
        "the hull without MP2020",
        "stages/hull.py",
        "correct_mp2020(structure, energy, convention=convention)",
        "energy",
        "test_judgement.py",
    ),
    (
        "references without MP2020",
        "stages/hull.py",
        "Hull(correct_references(sets[system]))",
        'Hull(sets[system].model_copy(update={"convention": "mp2020"}))',
        "test_judgement.py",
    ),
    (
        "7net-0 declared mp2020",
        "engines/levels.py",
        '"7net-0",\n            "potential",\n            "uncorrected"',
        '"7net-0",\n            "potential",\n            "mp2020"',
        "engines/test_potential.py::test_rows_of_levels_say_of_their_models_what_is_so",
    ),
    (
        "7net-l3i5 declared mp2020",
        "engines/levels.py",
        '"7net-l3i5",\n            "potential",\n            "uncorrected"',
        '"7net-l3i5",\n            "potential",\n            "mp2020"',
        "engines/test_potential.py::test_rows_of_levels_say_of_their_models_what_is_so",
    ),
    (
        "phonopy's supercell transposed",
        "engines/supercells.py",
        "matrix.T, primitive_matrix",
        "matrix, primitive_matrix",
        "engines/test_phonons.py::test_displaced_cells_are_those_of_the_matrix",
    ),
    (
        "MAGMOM lost on a restart",
        "engines/vasp/run.py",
        'found.add_site_property("magmom", like.site_properties["magmom"])',
        "pass",
        "engines/test_vasp.py::test_a_contcar_that_makes_no_sense_is_not_used",
    ),
    (
        "MAGMOM dropped",
        "engines/vasp/inputs.py",
        'structure.copy(site_properties={"magmom": starting_moments(structure, ordering)})',
        "structure",
        "engines/test_vasp.py",
    ),
    (
        "noise of site means",
        "generators/pccd/means.py",
        "self.ties.tie(drawn[:, :-2] * self.widths[0])",
        "self.ties.tie(drawn[:, :-2])",
        "generators/pccd/test_means.py",
    ),
    (
        "element likelihoods ignored in the description",
        f"{POINTCLOUD}/sites.py",
        "_nats(offsets, widths) + _nats(misfits, _typical_width(misfits))",
        "_nats(offsets, widths)",
        f"{POINTCLOUD}/test_decode.py",
    ),
    (
        "element likelihoods ignored in the clusters",
        f"{POINTCLOUD}/sites.py",
        "_clusterings(distances + different_elements(likelihoods), most)",
        "_clusterings(distances, most)",
        f"{POINTCLOUD}/test_decode.py",
    ),
    (
        "S.U.N. limit 0.05",
        "evaluation/thresholds.py",
        'THRESHOLDS["stable_0"]',
        "0.05",
        "evaluation/test_shares.py",
    ),
    ("matcher stol 0.8", "evaluation/crystals.py", '"stol": 0.5', '"stol": 0.8', "evaluation"),
    (
        "the higher twin kept",
        "stages/hull.py",
        "(records[name].energy_above_hull or 0.0, name)",
        "(-(records[name].energy_above_hull or 0.0), name)",
        "test_rung_novelty.py",
    ),
    (
        "the higher twin kept in evaluations",
        "evaluation/samples.py",
        "(one.energy_above_hull or 0.0, i)",
        "(-(one.energy_above_hull or 0.0), i)",
        "evaluation/test_shares.py",
    ),
    (
        "training crystals counted in S.U.N.",
        "evaluation/samples.py",
        '    look_ups["training"] = ',
        "    _ = ",
        "evaluation/test_yardstick.py",
    ),
    (
        "known crystals counted in S.U.N.",
        "evaluation/samples.py",
        "found.duplicate_of is None and found.novel",
        "found.duplicate_of is None",
        "evaluation/test_shares.py",
    ),
    (
        "known before relaxing counted in S.U.N.",
        "evaluation/samples.py",
        "novelty.after(one.novelty)",
        "novelty",
        "evaluation/test_shares.py",
    ),
    (
        "matcher stol of campaigns 0.5",
        "matching/settings.py",
        "Field(0.3, gt=0",
        "Field(0.5, gt=0",
        "evaluation/test_yardstick.py",
    ),
    (
        "element likelihoods ignored by DBSCAN",
        f"{POINTCLOUD}/sites.py",
        "periodic_distances(coordinates) + different_elements(likelihoods)",
        "periodic_distances(coordinates)",
        f"{POINTCLOUD}/test_decode.py",
    ),
    (
        "noise of site means as of one point",
        "generators/pccd/denoiser.py",
        "return inverse_copies * variance[:, None, None], ",
        "return torch.ones_like(inverse_copies) * variance[:, None, None], ",
        "generators/pccd/test_denoiser.py",
    ),
    (
        "known before relaxing, new after",
        "known/novelty.py",
        "**earlier.sets, **self.sets, **known",
        "**earlier.sets, **self.sets",
        "test_collect.py",
    ),
    (
        "a rung forgets what was known before",
        "stages/hull.py",
        "whole = novelty.after(earlier.get(name))",
        "whole = novelty",
        "test_rung_novelty.py",
    ),
    (
        "the library is not looked up",
        "stages/novelty.py",
        "    if section.library:\n",
        "    if not section.library:\n",
        "test_known_source.py",
    ),
    (
        "Wyckoff positions ignored",
        "known/identify.py",
        "        if framework is None:\n",
        "        if False:\n",
        "known/test_identify.py",
    ),
    (
        "triclinic crystals all of one structure type",
        "known/identify.py",
        "LAST_TRICLINIC = 2",
        "LAST_TRICLINIC = 0",
        "known/test_identify.py",
    ),
    (
        "what was not kept counts among the kinds",
        "report/statistics.py",
        "        if kept_step(campaign) in reached:\n",
        "        if True:\n",
        "report/test_statistics.py",
    ),
)
"""Faults that no test saw when they were first planted."""


def planted() -> list[Mutant]:
    """Return the planted mutants; InputError if one's place is gone."""
    found = []
    for name, where, old, new, test in PLANTED:
        source = (CLONE / PACKAGE / where).read_text(encoding="utf-8")
        start = source.find(old)
        if start < 0:
            raise InputError(f"The place of the mutant {name!r} is not in {where} any more.")
        line = source.count("\n", 0, start) + 1
        found.append(Mutant(where, line, start, start + len(old), old, new, name, (test,)))
    return found


# --- making mutants ------------------------------------------------------------------------------

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any", "argmin": "argmax"}
FACTOR = 1.6
"""A constant's change: enough to matter, and as much as stol 0.5 to 0.8."""


def mutants_of(where: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    source = (CLONE / PACKAGE / where).read_text(encoding="utf-8")
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    found: dict[tuple[int, int, str], Mutant] = {}
    for node in _mutable(ast.parse(source)):
        for new in _changes(node):
            start = _offset(source, starts, node.lineno, node.col_offset)
            end = _offset(source, starts, node.end_lineno or 0, node.end_col_offset or 0)
            one = Mutant(where, node.lineno, start, end, source[start:end], new)
            found[start, end, new] = one
    return sorted(found.values(), key=lambda one: (one.start, one.end, one.new))


def _offset(source: str, starts: Sequence[int], line: int, column: int) -> int:
    """Return the place of a node's end in characters; ast counts bytes of UTF-8."""
    text = source[starts[line - 1] : starts[line]]
    return starts[line - 1] + len(text.encode()[:column].decode())


def _mutable(tree: ast.AST) -> Iterator[Any]:
    """Yield the nodes that are worth a change: no annotations, texts, or names of things."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr, ast.Assert)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            # neither decorators nor defaults' annotations
            yield from _mutable(ast.Module([*child.body], []))
            continue
        if _is_text(child):
            continue
        if isinstance(child, ast.AnnAssign):
            if child.value is not None and _is_plain(child):
                yield child.value
                yield from _mutable(child.value)
            continue
        yield child
        yield from _mutable(child)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_plain(node: ast.AnnAssign) -> bool:
    """Return whether an annotated value is one of ours, not a field with a description."""
    return not (isinstance(node.value, ast.Call) and "Field" in ast.unparse(node.value.func))


def _comparison(node: ast.Compare) -> Iterator[str]:
    if len(node.ops) == 1:
        other = COMPARISONS[type(node.ops[0])]()
        yield ast.unparse(ast.Compare(node.left, [other], node.comparators))


def _operation(node: ast.BinOp) -> Iterator[str]:
    if type(node.op) in OPERATORS:
        yield f"({ast.unparse(ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right))})"


def _sign(node: ast.UnaryOp) -> Iterator[str]:
    if isinstance(node.op, (ast.Not, ast.USub)):
        yield ast.unparse(node.operand)


def _junction(node: ast.BoolOp) -> Iterator[str]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield f"({ast.unparse(ast.BoolOp(other, node.values))})"


def _constant(node: ast.Constant) -> Iterator[str]:
    match node.value:
        case bool() as value:
            yield str(not value)
        case int() as value:
            yield str(value + 1)
        case float() as value:
            yield repr(value * FACTOR if value else 0.05)


def _call(node: ast.Call) -> Iterator[str]:
    text = ast.unparse(node.func)
    name = text.rpartition(".")[2]
    if name in OPPOSITES:
        new = text.removesuffix(name) + OPPOSITES[name]
        yield ast.unparse(node).replace(text, new, 1)


def _condition(node: ast.If) -> Iterator[str]:
    # other tests are nodes that are changed themselves
    if not isinstance(node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
        negated = ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        yield _indented(ast.unparse(negated), node.col_offset)


def _choice(node: ast.IfExp) -> Iterator[str]:
    yield f"({ast.unparse(ast.IfExp(node.test, node.orelse, node.body))})"


def _statement(_node: ast.stmt) -> Iterator[str]:
    yield "pass"


CHANGES: dict[type[ast.AST], Callable[[Any], Iterator[str]]] = {
    ast.Compare: _comparison,
    ast.BinOp: _operation,
    ast.UnaryOp: _sign,
    ast.BoolOp: _junction,
    ast.Constant: _constant,
    ast.Call: _call,
    ast.If: _condition,
    ast.IfExp: _choice,
    ast.Expr: _statement,
    ast.AugAssign: _statement,
}
"""What nodes of each kind are replaced by."""


def _changes(node: ast.AST) -> Iterator[str]:
    """Yield what a node is replaced by."""
    of_kind = CHANGES.get(type(node))
    return iter(()) if of_kind is None else of_kind(node)


def _indented(text: str, columns: int) -> str:
    first, *rest = text.splitlines()
    return "\n".join([first, *(" " * columns + line for line in rest)])


# --- trying them ---------------------------------------------------------------------------------


@contextmanager
def scratch_copy() -> Iterator[Path]:
    """Give a folder with a copy of the package's sources beside links to what they read."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        for linked in LINKED:
            (folder / linked).symlink_to(CLONE / linked)
        for path in sorted((CLONE / PACKAGE).rglob("*")):
            place = folder / path.relative_to(CLONE)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() or path.suffix == ".pyc":
                continue
            if path.suffix == ".py":
                shutil.copyfile(path, place)
            else:
                place.symlink_to(path)
        yield folder


def _tests_pass(folder: str, tests: Sequence[str]) -> None:
    """Run tests on the package in a folder, in this process; exit with 0 if they pass."""
    import pytest

    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] in (PACKAGE, "command")]:
        del sys.modules[name]
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not cluster"]
    os._exit(int(pytest.main([*arguments, *tests])))


def try_tests(folder: Path, tests: Sequence[str], limit: float) -> tuple[str, float]:
    """Return ``passed``, ``failed`` or ``slow``, and the seconds that tests took."""
    # a fork has torch and pymatgen loaded already
    process = multiprocessing.get_context("fork").Process(
        target=_tests_pass, args=(str(folder), tests)
    )
    began = time.monotonic()
    process.start()
    process.join(limit)
    seconds = time.monotonic() - began
    if process.is_alive():
        process.kill()
        process.join()
        return "slow", seconds
    return ("passed" if process.exitcode == 0 else "failed"), seconds


@dataclass(frozen=True)
class Result:
    """What became of a mutant."""

    mutant: Mutant
    verdict: str
    seconds: float


class Ledger:
    """Results, one line each. Of a module or tests that changed they are not taken again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored: dict[str, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.stored[row["key"]] = row

    def find(self, mutant: Mutant) -> Result | None:
        """Return what is known of a mutant: a killed one stays killed, another is tried again."""
        row = self.stored.get(mutant.key)
        if row is None or (row["verdict"] == "survived" and row["tests"] != state(mutant)):
            return None
        return Result(mutant, row["verdict"], row["seconds"])

    def add(self, result: Result) -> None:
        """Store a result."""
        mutant = result.mutant
        row = {"key": mutant.key, "mutant": str(mutant), "tests": state(mutant)}
        row |= {"verdict": result.verdict, "seconds": round(result.seconds, 1)}
        self.stored[mutant.key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def state(mutant: Mutant) -> str:
    """Return what stands for the tests that should notice a mutant."""
    files = (CLONE / name.partition("::")[0] for name in mutant.tests)
    content = b"".join(path.read_bytes() for path in files if path.is_file())
    return hashlib.sha256(content).hexdigest()[:16]


def try_mutants(mutants: Sequence[Mutant], ledger: Ledger, end: float) -> list[Result]:
    """Return the results of mutants, those known already among them, until time is up."""
    for name in PRELOADED:
        importlib.import_module(name)
    found, usual = [], dict[tuple[str, ...], float]()
    with scratch_copy() as folder:
        for mutant in mutants:
            if (known := ledger.find(mutant)) is not None:
                found.append(known)
                continue
            if time.monotonic() > end:
                continue
            tests = tuple(mutant.tests)
            if tests not in usual:
                usual[tests] = _unchanged(folder, tests)
            result = _try(folder, mutant, max(FASTEST, SLOWER * usual[tests]))
            ledger.add(result)
            found.append(result)
            print(
                f"{result.verdict:9}{result.seconds:5.0f} s  {mutant}", file=sys.stderr, flush=True
            )
    return found


def _unchanged(folder: Path, tests: Sequence[str]) -> float:
    verdict, seconds = try_tests(folder, tests, 3600)
    if verdict != "passed":
        raise InputError(f"These tests fail without any change: {' '.join(tests)}.")
    return seconds


def _try(folder: Path, mutant: Mutant, limit: float) -> Result:
    place = folder / PACKAGE / mutant.where
    source = place.read_text(encoding="utf-8")
    place.write_text(source[: mutant.start] + mutant.new + source[mutant.end :], encoding="utf-8")
    try:
        verdict, seconds = try_tests(folder, mutant.tests, limit)
    finally:
        place.write_text(source, encoding="utf-8")
    return Result(mutant, "survived" if verdict == "passed" else "killed", seconds)


# --- what is said of them ------------------------------------------------------------------------


def summary(results: Sequence[Result], total: int) -> dict[str, Any]:
    """Return the share killed, of all and of each module, and the survivors."""
    modules = sorted({one.mutant.where for one in results})
    return {
        "mutants": total,
        "tried": len(results),
        "killed": asdict(_share(results)),
        "modules": {
            m: asdict(_share([r for r in results if r.mutant.where == m])) for m in modules
        },
        "survivors": sorted(str(one.mutant) for one in results if one.verdict == "survived"),
    }


def _share(results: Sequence[Result]) -> Any:
    return wilson_share(sum(one.verdict == "killed" for one in results), len(results))


def main() -> None:
    """Print the share killed and the survivors, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planted", action="store_true", help="Only those of the table")
    parser.add_argument("--module", nargs="+", choices=sorted(TESTS), default=sorted(TESTS))
    parser.add_argument("--minutes", type=float, default=30.0, help="None is started later")
    parser.add_argument("--seed", type=int, default=0, help="Fixes their order")
    parser.add_argument("--ledger", type=Path, default=CLONE / "scratch" / "mutants.jsonl")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    mutants = planted() if asked.planted else [m for w in asked.module for m in mutants_of(w)]
    if not asked.planted:
        random.Random(asked.seed).shuffle(mutants)  # noqa: S311
    asked.ledger.parent.mkdir(parents=True, exist_ok=True)
    results = try_mutants(mutants, Ledger(asked.ledger), time.monotonic() + 60 * asked.minutes)
    found = summary(results, len(mutants))
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for module, share in [*found["modules"].items(), ("all", found["killed"])]:
        if share["total"]:
            print(
                f"{module}: {share['count']} of {share['total']} killed "
                f"({share['low']:.0%}-{share['high']:.0%})"
            )
    print(f"{found['tried']} of {found['mutants']} mutants tried; survivors:")
    print("\n".join(found["survivors"]))


if __name__ == "__main__":
    run(main)

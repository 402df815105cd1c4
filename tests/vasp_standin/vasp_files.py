"""VASP's files: the inputs read, the outputs written as far as parsers look at them."""

import itertools
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

VERSION = "6.4.2"
EV_PER_A3_TO_KBAR = 1602.1766208
# type and default of what vasprun.xml repeats under <parameters>
PARAMETERS = {
    "PREC": ("string", "accura"), "ENMAX": ("float", 520.0), "EDIFF": ("float", 1e-4),
    "NBANDS": ("int", 8), "NELECT": ("float", 8.0), "ISMEAR": ("int", 1), "SIGMA": ("float", 0.2),
    "ISPIN": ("int", 1), "NELM": ("int", 60), "NELMIN": ("int", 2), "NSW": ("int", 0),
    "IBRION": ("int", -1), "ISIF": ("int", 2), "EDIFFG": ("float", 1e-3), "POTIM": ("float", 0.5),
    "LREAL": ("logical", False), "LDAU": ("logical", False), "METAGGA": ("string", "--"),
    "GGA": ("string", "--"), "LNONCOLLINEAR": ("logical", False), "IALGO": ("int", 38),
    "LORBIT": ("int", 0), "LHFCALC": ("logical", False), "IVDW": ("int", 0),
    "LUSE_VDW": ("logical", False), "ISTART": ("int", 0), "ICHARG": ("int", 2),
}  # fmt: skip
BANDS = {"gap": 8.5, "cbm": [0.0, 0.0, 0.0]}
"""What VASP_STANDIN_BANDS may change: gap (eV) from the valence band at Γ to the conduction band
at the k-point `cbm`; with a negative one they overlap."""
MAX_DIVISIONS = 4
"""k-points along an axis of a mesh; enough for a test."""
LISTS = {"MAGMOM", "LDAUU", "LDAUJ", "LDAUL", "DIPOL"}


@dataclass
class Inputs:
    """lattice: (3, 3), rows are vectors, Å. frac: (n, 3). symbols: element of each atom."""

    lattice: np.ndarray
    frac: np.ndarray
    symbols: list[str]
    incar: dict
    titels: dict[str, str]
    zval: dict[str, float]
    kpoints: "Kpoints"

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Elements in POSCAR order with their numbers of atoms."""
        found: list[list] = []
        for symbol in self.symbols:
            if found and found[-1][0] == symbol:
                found[-1][1] += 1
            else:
                found.append([symbol, 1])
        return [(symbol, number) for symbol, number in found]


@dataclass
class Kpoints:
    """points: (n, 3), reduced. weights: (n,). generation: how, as vasprun.xml has it."""

    points: np.ndarray
    weights: np.ndarray
    generation: str = ""


@dataclass
class Step:
    """One ionic step."""

    lattice: np.ndarray
    frac: np.ndarray
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    electronic: list[float] = field(default_factory=list)


def read_inputs(folder: Path) -> Inputs:
    """Read POSCAR, INCAR, KPOINTS and POTCAR; SystemExit if one is missing or does not fit."""
    for name in ("INCAR", "POSCAR", "POTCAR"):
        if not (folder / name).exists():
            raise SystemExit(f"ERROR: there is no {name} file")
    lines = (folder / "POSCAR").read_text().splitlines()
    scale = float(lines[1])
    lattice = scale * np.array([[float(x) for x in line.split()[:3]] for line in lines[2:5]])
    numbers = [int(n) for n in lines[6].split()]
    symbols = [s for s, n in zip(lines[5].split(), numbers, strict=True) for _ in range(n)]
    start = 8 if lines[7].strip().lower()[0] in "dc" else 9
    rows = [[float(x) for x in line.split()[:3]] for line in lines[start : start + len(symbols)]]
    frac = np.array(rows)
    if lines[start - 1].strip().lower().startswith("c"):
        frac = frac @ np.linalg.inv(lattice)
    potcar = (folder / "POTCAR").read_text()
    titels = re.findall(r"TITEL\s*=\s*(.+)", potcar)
    zvals = re.findall(r"ZVAL\s*=\s*([\d.]+)", potcar)
    elements = [re.split(r"[_\s]", titel.split()[1])[0] for titel in titels]
    inputs = Inputs(
        lattice,
        frac,
        symbols,
        read_incar((folder / "INCAR").read_text()),
        dict(zip(elements, [titel.strip() for titel in titels], strict=True)),
        dict(zip(elements, map(float, zvals), strict=True)),
        Kpoints(np.zeros((1, 3)), np.ones(1)),
    )
    inputs.kpoints = read_kpoints(folder, fixed=fixed_density(inputs.incar))
    if [symbol for symbol, _ in inputs.groups] != elements:
        raise SystemExit(f"ERROR: POTCAR has {elements}, POSCAR has {inputs.groups}")
    return inputs


def read_incar(text: str) -> dict:
    """Return the tags of an INCAR."""
    tags: dict = {}
    for line in text.splitlines():
        key, equals, value = line.partition("#")[0].partition("=")
        if equals:
            tags[key.strip().upper()] = _value(key.strip().upper(), value.strip())
    return tags


def _value(key: str, text: str):
    if key in LISTS:
        numbers: list[float] = []
        for item in text.split():
            count, star, value = item.rpartition("*")
            numbers += [float(value)] * (int(count) if star else 1)
        return numbers
    lowered = text.lower().strip(".")
    if lowered in ("true", "false", "t", "f"):
        return lowered[0] == "t"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Writer:
    """Writes the output files step by step."""

    def __init__(self, folder: Path, inputs: Inputs, fault: str | None = None) -> None:
        self.fault = fault
        self.folder = folder
        self.inputs = inputs
        self.steps: list[Step] = []
        self.n_electrons = sum(inputs.zval[s] for s in inputs.symbols)
        default_bands = int(self.n_electrons / 2 + len(inputs.symbols) / 2) + 2
        self.n_bands = int(inputs.incar.get("NBANDS", default_bands))
        for name in ("CHG", "DOSCAR", "EIGENVAL", "IBZKPT", "PCDAT", "WAVECAR"):
            (folder / name).write_text("")
        self.bands = BANDS | json.loads(os.environ.get("VASP_STANDIN_BANDS", "{}"))
        self.filled = round(self.n_electrons / 2)
        self.top = -5 + 0.5 * (self.filled - 1)
        self.efermi = self.top + self.bands["gap"] / 2
        if not fixed_density(inputs.incar):
            (folder / "CHGCAR").write_text("")
        elif not (folder / "CHGCAR").exists() or (folder / "CHGCAR").read_text() != self.density():
            raise SystemExit("ERROR: charge density could not be read from file CHGCAR")
        self._head()

    def density(self) -> str:
        """Return the content of CHGCAR, which is of one geometry."""
        inputs = self.inputs
        rows = [*_rows(inputs.lattice, 4), *inputs.symbols, *_rows(np.mod(inputs.frac, 1), 4)]
        return "\n".join(["stand-in", *rows]) + "\n"

    def _head(self) -> None:
        incar = self.inputs.incar
        spin = int(incar.get("ISPIN", 1))
        lines = [
            f" vasp.{VERSION} 20Jul23 (build stand-in) complex",
            " running on    1 total cores",
            *(f"   TITEL  = {titel}" for titel in self.inputs.titels.values()),
            self._counts(),
            f"   ISPIN  = {spin:6d}    spin polarized calculation?",
            "   LNONCOLLINEAR =      F non collinear calculations",
            f"   NELECT = {self.n_electrons:12.4f}    total number of electrons",
            f"   IBRION = {int(incar.get('IBRION', -1)):6d}    ionic relax: 0-MD 1-quasi-New 2-CG",
            f"   NSW    = {int(incar.get('NSW', 0)):6d}    number of steps for IOM",
            "   LEPSILON=     F",
            " total plane-waves  NPLWV =       1000",
            "",
        ]
        (self.folder / "OUTCAR").write_text("\n".join(lines))
        (self.folder / "OSZICAR").write_text("")
        self._xdatcar_head()

    def _counts(self) -> str:
        points = f"   k-points           NKPTS = {len(self.inputs.kpoints.points):6d}"
        return f"{points}   number of bands    NBANDS={self.n_bands:7d}"

    def _xdatcar_head(self) -> None:
        rows = ["stand-in", "1.0", *_rows(self.inputs.lattice)]
        rows += [" ".join(s for s, _ in self.inputs.groups)]
        rows += [" ".join(str(n) for _, n in self.inputs.groups)]
        (self.folder / "XDATCAR").write_text("\n".join(rows) + "\n")

    def add(self, step: Step) -> None:
        """Append an ionic step to OUTCAR, OSZICAR and XDATCAR and write CONTCAR anew."""
        self.steps.append(step)
        number = len(self.steps)
        moment = sum(self.moments())
        out = []
        entropy = -0.01 * len(self.inputs.symbols) if self.fault == "large_sigma" else 0.0
        for i, energy in enumerate(step.electronic, start=1):
            out += [
                f"--------- Iteration {number:6d}({i:4d})  ---------",
                f"  entropy T*S    EENTRO = {entropy:18.8f}",
                f"  free energy    TOTEN  = {energy:18.8f} eV",
            ]
        out += ["------------------------ aborting loop because EDIFF is reached ----------------"]
        kbar = -step.stress * EV_PER_A3_TO_KBAR
        pressure = float(np.trace(kbar)) / 3
        out += [
            f" E-fermi : {self.efermi:8.4f}     XC(G=0):  -8.0000     alpha+bet : -5.0000",
            f" number of electron {self.n_electrons:15.7f} magnetization {moment:15.7f}",
            *self._moment_table(),
            f"  external pressure = {pressure:12.2f} kB  Pullay stress =        0.00 kB",
            f"  volume of cell : {abs(np.linalg.det(step.lattice)):12.2f}",
            " POSITION                                       TOTAL-FORCE (eV/Angst)",
            " " + "-" * 83,
            *(
                "".join(f"{x:13.5f}" for x in [*position, *force])
                for position, force in zip(step.frac @ step.lattice, step.forces, strict=True)
            ),
            " " + "-" * 83,
            "    total drift:                                0.000000      0.000000      0.000000",
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
            f"  free  energy   TOTEN  = {step.energy:18.8f} eV",
            f"  energy  without entropy= {step.energy:18.8f}",
            f"  energy(sigma->0) = {step.energy:18.8f}",
            "",
        ]
        self._append("OUTCAR", out)
        previous = self.steps[-2].energy if number > 1 else 0.0
        rows = ["       N       E                     dE             d eps       ncg     rms"]
        last = 0.0
        for i, energy in enumerate(step.electronic, start=1):
            rows.append(
                f"DAV: {i:3d}    {energy:+.12E}   {energy - last:+.5E}"
                f"   {-1e-3:+.5E}   100   0.1E-02"
            )
            last = energy
        tail = f"  mag= {moment:9.4f}" if int(self.inputs.incar.get("ISPIN", 1)) == 2 else ""
        rows.append(
            f"{number:4d} F= {step.energy:.8E} E0= {step.energy:.8E}  "
            f"d E ={step.energy - previous:.6E}{tail}"
        )
        self._append("OSZICAR", rows)
        self._append("XDATCAR", [f"Direct configuration={number:6d}", *_rows(step.frac)])
        self.write_contcar(step)

    def _append(self, name: str, lines: list[str]) -> None:
        with (self.folder / name).open("a") as stream:
            stream.write("\n".join(lines) + "\n")

    def moments(self) -> list[float]:
        """Return the final moment of each atom, μB: those it started from, a little smaller."""
        if int(self.inputs.incar.get("ISPIN", 1)) != 2:
            return []
        start = self.inputs.incar.get("MAGMOM") or [1.0] * len(self.inputs.symbols)
        return [0.9 * m if abs(m) > 1 else 0.0 for m in start]

    def _moment_table(self) -> list[str]:
        moments = self.moments()
        if not moments:
            return []
        rows = ["", " magnetization (x)", "", "# of ion       s       p       d       tot"]
        rows += ["------------------------------------------"]
        rows += [
            f"{i:5d}        0.000   0.000  {m:6.3f}  {m:6.3f}" for i, m in enumerate(moments, 1)
        ]
        rows += ["------------------------------------------"]
        total = sum(moments)
        return [*rows, f"tot          0.000   0.000  {total:6.3f}  {total:6.3f}", ""]

    def write_contcar(self, step: Step) -> None:
        """Write CONTCAR."""
        groups = self.inputs.groups
        rows = ["stand-in", "1.0", *_rows(step.lattice, 16)]
        rows += [" ".join(s for s, _ in groups), " ".join(str(n) for _, n in groups), "Direct"]
        (self.folder / "CONTCAR").write_text("\n".join([*rows, *_rows(step.frac, 16)]) + "\n")

    def finish(self, *, stopped: bool = False) -> None:
        """Write the timing block of OUTCAR and vasprun.xml."""
        lines = [" soft stop encountered!  aborting job ..."] if stopped else []
        lines += [
            " reached required accuracy - stopping structural energy minimisation",
            "",
            " General timing and accounting informations for this job:",
            " ========================================================",
            "",
            "                  Total CPU time used (sec):        1.000",
            "                            User time (sec):        1.000",
            "                          System time (sec):        0.100",
            "                         Elapsed time (sec):        1.200",
            "",
            "                   Maximum memory used (kb):      100000.",
            "                   Average memory used (kb):           0.",
        ]
        self._append("OUTCAR", lines)
        if self.inputs.incar.get("LCHARG", True):
            (self.folder / "CHGCAR").write_text(self.density())
        (self.folder / "vasprun.xml").write_text(self.vasprun())

    def vasprun(self) -> str:
        """Return the content of vasprun.xml."""
        incar = self.inputs.incar
        symbols, groups = self.inputs.symbols, self.inputs.groups
        parameters = {name: incar.get(name, default) for name, (_, default) in PARAMETERS.items()}
        parameters |= {
            "NBANDS": self.n_bands,
            "NELECT": self.n_electrons,
            "ENMAX": incar.get("ENCUT", 520.0),
        }
        if "EDIFFG" not in incar:
            parameters["EDIFFG"] = 10 * float(parameters["EDIFF"])
        first, last = self.steps[0], self.steps[-1]
        kpoints = self.inputs.kpoints
        parts = [
            '<?xml version="1.0" encoding="ISO-8859-1"?>',
            "<modeling>",
            "<generator>",
            '<i name="program" type="string">vasp</i>',
            f'<i name="version" type="string">{VERSION}</i>',
            '<i name="subversion" type="string">stand-in</i>',
            '<i name="platform" type="string">LinuxIFC</i>',
            '<i name="date" type="string">2000 01 01</i>',
            '<i name="time" type="string">00:00:00</i>',
            "</generator>",
            "<incar>",
            *(_tag(name, value) for name, value in incar.items()),
            "</incar>",
            f"<kpoints>{kpoints.generation}",
            f'<varray name="kpointlist">{_xml_rows(kpoints.points)}</varray>',
            f'<varray name="weights">{_xml_rows(kpoints.weights[:, None])}</varray></kpoints>',
            "<parameters>",
            *(_tag(name, value, PARAMETERS[name][0]) for name, value in parameters.items()),
            "</parameters>",
            f"<atominfo><atoms>{len(symbols)}</atoms><types>{len(groups)}</types>",
            '<array name="atoms"><dimension dim="1">ion</dimension>',
            '<field type="string">element</field><field type="int">atomtype</field><set>',
            *(
                f"<rc><c>{symbol:2s}</c><c>{number}</c></rc>"
                for number, (symbol, count) in enumerate(groups, 1)
                for _ in range(count)
            ),
            '</set></array><array name="atomtypes"><dimension dim="1">type</dimension><set>',
            *(
                f"<rc><c>{count}</c><c>{symbol:2s}</c><c>1.0</c>"
                f"<c>{self.inputs.zval[symbol]}</c><c>{self.inputs.titels[symbol]}</c></rc>"
                for symbol, count in groups
            ),
            "</set></array></atominfo>",
            _structure(first, "initialpos"),
            *(self._calculation(step, last=step is last) for step in self.steps),
            _structure(last, "finalpos"),
            "</modeling>",
        ]
        return "\n".join(parts) + "\n"

    def _calculation(self, step: Step, *, last: bool) -> str:
        def energies(value: float) -> str:
            names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
            return (
                "<energy>" + "".join(f'<i name="{n}">{value:.8f}</i>' for n in names) + "</energy>"
            )

        kbar = step.stress * EV_PER_A3_TO_KBAR
        parts = [
            "<calculation>",
            *(f"<scstep>{energies(energy)}</scstep>" for energy in step.electronic),
            _structure(step),
            '<varray name="forces">' + _xml_rows(step.forces) + "</varray>",
            '<varray name="stress">' + _xml_rows(kbar) + "</varray>",
            energies(step.energy),
        ]
        if last:
            parts.append(self._bands())
        return "\n".join([*parts, "</calculation>"])

    def _bands(self) -> str:
        spins = range(1, int(self.inputs.incar.get("ISPIN", 1)) + 1)
        points = "".join(
            f'<set comment="kpoint {i}">{self._eigenvalues(k)}</set>'
            for i, k in enumerate(self.inputs.kpoints.points, 1)
        )
        eigen = "".join(f'<set comment="spin {s}">{points}</set>' for s in spins)
        dos_rows = "".join(
            f"<r>{e:.4f} 1.0 {i}.0</r>" for i, e in enumerate(np.linspace(-10, 10, 5))
        )
        dos = "".join(f'<set comment="spin {s}">{dos_rows}</set>' for s in spins)
        return (
            f"<eigenvalues><array><set>{eigen}</set></array></eigenvalues>"
            f'<dos><i name="efermi">{self.efermi:.4f}</i>'
            f"<total><array><set>{dos}</set></array></total></dos>"
        )

    def _eigenvalues(self, point: np.ndarray) -> str:
        """Return energy and occupation of each band: parabolas of a kind around Γ and `cbm`."""
        away = 0.5 * float((np.sin(np.pi * point) ** 2).sum())
        far = 0.5 * float((np.sin(np.pi * (point - self.bands["cbm"])) ** 2).sum())
        bottom = self.top + self.bands["gap"] + far - 0.5 * self.filled
        energies = [
            0.5 * b + (bottom if b >= self.filled else -5 - away) for b in range(self.n_bands)
        ]
        full = [b < self.filled for b in range(self.n_bands)]
        if self.bands["gap"] < 0:
            full = [e < self.efermi for e in energies]
        if self.fault == "metal":
            energies[self.filled] = -5.0  # an empty band below full ones
        rows = zip(energies, full, strict=True)
        return "".join(f"<r>{e:.4f} {1.0 if f else 0.0}</r>" for e, f in rows)


def fixed_density(incar: dict) -> bool:
    """Return whether a run takes the density of another one as it is."""
    return int(incar.get("ICHARG", 2)) >= 10


def read_kpoints(folder: Path, *, fixed: bool) -> Kpoints:
    """Read KPOINTS: a mesh, lines or a list; Γ alone if there is none.

    fixed: a run in a fixed density, which has a mesh's points (few of them); otherwise Γ stands
    for it.
    """
    path = folder / "KPOINTS"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [line.split() for line in lines[3:] if line.split()]
    kind = lines[2].strip().lower()[:1] if len(lines) > 2 else "g"
    if kind == "r":
        table = np.array([[float(x) for x in row[:4]] for row in rows[: int(lines[1])]])
        return Kpoints(table[:, :3], table[:, 3])
    if kind == "l":
        ends = np.array([[float(x) for x in row[:3]] for row in rows[1:]]).reshape(-1, 2, 3)
        steps = np.linspace(0, 1, int(lines[1]))[:, None]
        points = np.concatenate([start + steps * (end - start) for start, end in ends])
        listed = f'<i name="divisions" type="int">{int(lines[1])}</i>'
        listed += _xml_rows(ends.reshape(-1, 3))
        generation = f'<generation param="listgenerated">{listed}</generation>'
        return Kpoints(points, np.full(len(points), 1 / len(points)), generation)
    numbers = rows[0][:3] if rows else []
    whole = len(numbers) == 3 and all(n.isdigit() for n in numbers)
    divisions = [int(n) for n in numbers] if whole else [1, 1, 1]
    generation = (
        f'<generation param="Gamma"><v type="int" name="divisions">{" ".join(map(str, divisions))}'
        '</v><v name="usershift">0.0 0.0 0.0</v></generation>'
    )
    axes = [np.arange(min(n, MAX_DIVISIONS) if fixed else 1) for n in divisions]
    mesh = [[i / len(a) for i, a in zip(p, axes, strict=True)] for p in itertools.product(*axes)]
    return Kpoints(np.array(mesh), np.full(len(mesh), 1 / len(mesh)), generation)


def _tag(name: str, value: object, kind: str | None = None) -> str:
    if isinstance(value, list):
        return f'<v name="{name}">{" ".join(f"{v:.4f}" for v in value)}</v>'
    if kind == "logical" or (kind is None and isinstance(value, bool)):
        text = "T" if value in (True, "T") else "F"
        return f'<i type="logical" name="{name}">{text}</i>'
    if kind == "int" or (kind is None and isinstance(value, int)):
        return f'<i type="int" name="{name}">{int(value)}</i>'  # type: ignore[call-overload]
    if kind == "float" or (kind is None and isinstance(value, float)):
        return f'<i name="{name}">{float(value):.8g}</i>'  # type: ignore[arg-type]
    return f'<i type="string" name="{name}">{value}</i>'


def _rows(array: np.ndarray, digits: int = 8) -> list[str]:
    return ["  ".join(f"{x:.{digits}f}" for x in row) for row in array]


def _xml_rows(array: np.ndarray) -> str:
    return "".join(f"<v>{row}</v>" for row in _rows(array))


def _structure(step: Step, name: str = "") -> str:
    attribute = f' name="{name}"' if name else ""
    reciprocal = np.linalg.inv(step.lattice).T
    return (
        f"<structure{attribute}><crystal>"
        f'<varray name="basis">{_xml_rows(step.lattice)}</varray>'
        f'<i name="volume">{abs(np.linalg.det(step.lattice)):.8f}</i>'
        f'<varray name="rec_basis">{_xml_rows(reciprocal)}</varray></crystal>'
        f'<varray name="positions">{_xml_rows(step.frac)}</varray></structure>'
    )

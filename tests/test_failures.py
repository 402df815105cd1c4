"""Failures by their traces: what VASP, custodian, the queue and Python leave behind."""

import pytest

from pccd_workflows.errors import InputError
from pccd_workflows.failures import BY_NAME, diagnose, parse_overrides


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("WalltimeReached: VASP was stopped at the walltime after 3 ionic steps", "walltime"),
        ("slurmstepd: error: *** JOB 7 CANCELLED DUE TO TIME LIMIT ***", "walltime"),
        ("[std_err.txt] *** STEP CANCELLED DUE TO NODE FAILURE ***\nVaspFailed: x", "node"),
        ("WorkerDied: 5 workers died while they ran this job", "worker"),
        ("[std_err.txt] forrtl: No space left on device\nVaspFailed: ValidationError", "disk"),
        ("[std_err.txt] forrtl: severe (41): insufficient virtual memory", "memory"),
        ("MemoryError", "memory"),
        ("FileNotFoundError: You do not have the right POTCAR with functional='PBE'", "potcar"),
        (
            "MissingDependencyError: VASP command 'vasp_std': vasp_std is not on PATH",
            "missing_program",
        ),
        ("[custodian.json] custodian saw: Frozen job\nVaspFailed: x", "frozen"),
        ("[custodian.json] custodian saw: zbrent, zbrent\nVaspFailed: x", "ionic"),
        ("[custodian.json] custodian saw: edddav\nVaspFailed: NonRecoverableError", "scf"),
        ("[vasp.out]  WARNING: Sub-Space-Matrix is not hermitian in DAV", "scf"),
        ("[custodian.json] custodian saw: posmap\nVaspFailed: x", "symmetry"),
        ("[custodian.json] custodian saw: rspher\nVaspFailed: x", "vasp"),
        ("VaspFailed: ValidationError: Validation failed: VasprunXMLValidator", "parse"),
        ("[std_err.txt] The program was ended by SIGSEGV\nVaspFailed: ValidationError", "crash"),
        ("[std_err.txt] The program was ended by SIGKILL\nVaspFailed: ValidationError", "memory"),
        ("[std_err.txt] The program was ended by SIGTERM\nVaspFailed: x", "walltime"),
        ("[custodian.json] custodian saw: out_of_memory\nVaspFailed: x", "memory"),
        ('raise ValueError("Empty POSCAR")\nValueError: Empty POSCAR', "parse"),
        ("DatabaseError: MongoDB at h:1 does not answer", "database"),
        ('  File "x.py", line 1\nKeyError: 7', "python"),
        ("", "python"),
    ],
)
def test_a_trace_tells_the_class(trace, expected):
    assert diagnose(trace).error_class == expected


def test_the_evidence_is_the_line_that_told():
    trace = 'Traceback\n  File "a"\n[std_err.txt] forrtl: No space left on device\nVaspFailed: x'
    found = diagnose(trace)
    assert found.evidence == "[std_err.txt] forrtl: No space left on device"
    assert found.cure == BY_NAME["disk"].cure
    assert (
        diagnose("Traceback\nValueError: no such crystal").evidence == "ValueError: no such crystal"
    )


def test_incar_tags_keep_their_kind():
    found = parse_overrides(
        ["INCAR.ALGO=All", "INCAR.NELM=200", "INCAR.LREAL=.FALSE.", "INCAR.POTIM=0.2"]
    )
    assert found == {"ALGO": "All", "NELM": 200, "LREAL": False, "POTIM": 0.2}


@pytest.mark.parametrize(
    "text", ["ALGO=All", "INCAR.algo=All", "INCAR.ALGO", "INCAR.$x=1", "KPOINTS.A=1"]
)
def test_other_overrides_are_refused(text):
    with pytest.raises(InputError, match=r"INCAR\.ALGO=All"):
        parse_overrides([text])

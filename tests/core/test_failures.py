"""Failures by their traces: what VASP, custodian, the queue and Python leave behind."""

from itertools import pairwise

import pytest

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.failures import BY_NAME, diagnose, parse_overrides


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
        ("[custodian.json] custodian saw: pricelv\nVaspFailed: x", "symmetry"),
        ("[custodian.json] custodian saw: kpoints_trans\nVaspFailed: x", "symmetry"),
        ("[custodian.json] custodian saw: tet, tetirr\nVaspFailed: x", "smearing"),
        ("[custodian.json] custodian saw: rspher\nVaspFailed: x", "projectors"),
        ("[custodian.json] custodian saw: too_few_bands\nVaspFailed: x", "bands"),
        ("[custodian.json] custodian saw: Positive energy\nVaspFailed: x", "step"),
        ("[custodian.json] custodian saw: pdsyevx\nVaspFailed: x", "parallel"),
        ("[custodian.json] custodian saw: coef\nVaspFailed: x", "wavecar"),
        ("[custodian.json] custodian saw: amin\nVaspFailed: x", "long_cell"),
        ("[custodian.json] custodian saw: read_error\nVaspFailed: x", "input"),
        ("[custodian.json] custodian saw: set_core_wf\nVaspFailed: x", "potcar"),
        ("[custodian.json] custodian saw: something_new\nVaspFailed: x", "vasp"),
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
    assert diagnose("a.VaspFailed: [vasp.out] BRMIX: very").evidence == "[vasp.out] BRMIX: very"
    assert (
        diagnose("Traceback\nValueError: no such crystal").evidence == "ValueError: no such crystal"
    )


@pytest.mark.parametrize("known", BY_NAME.values(), ids=BY_NAME)
def test_what_is_suggested_is_understood(known):
    """`pccd job rerun` takes the options as printed, except what is to be chosen by hand."""
    words = known.options.replace("<number>", "32").split()
    tags = [tag for option, tag in pairwise(words) if option == "--set"]
    assert parse_overrides(tags) == {
        tag: 32 if value == "<number>" else value for tag, value in known.incar.items()
    }
    assert known.from_contcar == ("--from-contcar" in words)


def test_every_error_of_custodian_has_a_class_of_its_own():
    """The catch-all class, which knows no cure, is for errors that custodian does not know."""
    from custodian.vasp.handlers import StdErrHandler, VaspErrorHandler

    messages = VaspErrorHandler.error_msgs | StdErrHandler.error_msgs
    del messages["auto_nbands"]  # only a warning, for custodian and for VASP
    traces = {
        name: f"[custodian.json] custodian saw: {name}\n[vasp.out] {texts[0]}\nVaspFailed: x"
        for name, texts in messages.items()
    }
    unknown = [name for name, trace in traces.items() if diagnose(trace).error_class == "vasp"]
    assert unknown == []


def test_incar_tags_keep_their_kind():
    found = parse_overrides(
        ["INCAR.ALGO=All", "INCAR.NELM=200", "INCAR.LREAL=.FALSE.", "INCAR.POTIM=0.2"]
    )
    assert found == {"ALGO": "All", "NELM": 200, "LREAL": False, "POTIM": 0.2}


@pytest.mark.parametrize(
    "text",
    [
        "ALGO=All",
        "INCAR.algo=All",
        "INCAR.ALGO",
        "INCAR.$x=1",
        "KPOINTS.A=1",
        "INCAR.NBANDS=<number>",
    ],
)
def test_other_overrides_are_refused(text):
    with pytest.raises(InputError, match=r"INCAR\.ALGO=All"):
        parse_overrides([text])

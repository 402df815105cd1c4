"""What each class of failure means, in a sentence or three: for the explorer and the site.

Names and commands stand between backticks.
"""

NOTES = {
    "walltime": (
        "The queue's time was up before VASP was done. Up to five continuations are made by "
        "themselves (`PCCD_VASP_CONTINUATIONS`); this job needed more, or could not be stopped in "
        "time."
    ),
    "node": "The node, its network or its file system failed. Nothing is wrong with the crystal.",
    "worker": (
        "The worker died in this job five times, without a word. Mostly the kernel ended it for "
        "want of memory: look at `dmesg` on the node."
    ),
    "disk": (
        "A disk or a quota is full: that of the run folders (`PCCD_DATA_DIR`) or of the node's "
        "scratch."
    ),
    "memory": (
        "The program asked for more memory than there is, or was killed for it. Potentials halve "
        "their batches by themselves before that; VASP needs fewer cores per node or a larger one."
    ),
    "device": (
        "A GPU answered with an error. Everything the process held there is suspect, so the worker "
        "ends with the job."
    ),
    "lost_input": "A job before this one failed, and this one cannot do without what it leaves.",
    "database": (
        "MongoDB was away for longer than a worker waits (10 minutes), or refused a write."
    ),
    "potcar": (
        "A POTCAR is missing or unfit. `pccd campaign submit` asks for all of them beforehand: so "
        "the worker's machine has other ones."
    ),
    "missing_program": (
        "VASP, or a Python package, is not there on the worker's machine. `pccd doctor`, run "
        "there, says what."
    ),
    "input": "VASP refuses what it was given.",
    "scf": "The electrons found no self-consistency, although custodian tried its ways.",
    "ionic": "The forces did not become small, or the line search broke down.",
    "step": (
        "Atoms came so close that the overlap matrix broke down, or the energy is above zero. It "
        "is worth a look: `pccd candidate show` prints the cell."
    ),
    "frozen": "VASP wrote nothing for `PCCD_VASP_FROZEN_SECONDS`.",
    "symmetry": "VASP disagrees with itself about the symmetry of cell and k-points.",
    "smearing": "The smearing does not suit the k-points or the gap.",
    "projectors": "Projectors in real space do not suit this cell.",
    "bands": (
        "There are too few bands for the electrons. Put a number in place of `<number>`; the "
        "brackets are refused."
    ),
    "parallel": "The way the work is shared out does not suit the run.",
    "wavecar": "The WAVECAR of the run before does not fit.",
    "long_cell": "One axis is so long that the charge sloshes along it.",
    "crash": (
        "The program ended by a signal. If it recurs, the stack is too small or the build is "
        "broken."
    ),
    "parse": "The program ended, but its output is no whole output.",
    "vasp": "Custodian gave up on an error that has no class of its own here.",
    "python": "An error in a program: of this project, a library, or a part of your own.",
}

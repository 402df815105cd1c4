"""What jobs say of themselves, for whoever looks at a campaign; needs no workflow library."""

GPU = "gpu"
"""Category of jobs that a GPU speeds up: sampling, ML potentials."""
CPU = "cpu"
"""Category of jobs for CPU nodes: DFT. Jobs without category run on any worker."""

OPTIONAL = "optional"
"""Name in the metadata of jobs whose loss holds no candidate back."""
SHARE = "share"
"""Name in the metadata of jobs that take a share of a stage's crystals."""
CANDIDATES = "candidates"
"""Name in the metadata of jobs: ids of the candidates that they work for."""
SAMPLES = "samples"
"""The same of jobs that generate: first and last-but-one sample."""
WRITES = "writes"
"""Name in the metadata of jobs: the stage whose rows they write last. Their loss holds back only
candidates without such a row."""
RUNS_ANYWAY = "_allow_fizzled_parents"
"""FireWorks' name, in the metadata of jobs that are to run, and to fail for want of their input,
where a job before them was lost: nobody waits for them in vain."""

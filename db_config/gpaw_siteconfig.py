"""How GPAW is built (GPAW_CONFIG=db_config/gpaw_siteconfig.py): serial, libxc and OpenBLAS."""

compiler = "gcc"
mpi = False
scalapack = False
fftw = False
libraries = ["xc", "openblas"]

"""Levels of theory and the codes that compute them: potentials, VASP, GPAW, phonons."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

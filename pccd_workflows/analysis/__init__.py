"""What a crystal's geometry and energies say: validity, hull, phonon and magnetic verdicts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

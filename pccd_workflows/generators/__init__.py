"""Sources of crystals: the project's model, files of other generators, substitution, your own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Pictures for people: one self-contained HTML file per campaign."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

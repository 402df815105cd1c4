"""From chosen elements to new crystals: generated, relaxed, judged, traceable.

`__init__.pyi` is the table of contents, one line per name; a module is imported when the first of
its names is asked for (scientific-python.org/specs/spec-0001), so that importing this package loads
neither torch nor pymatgen.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

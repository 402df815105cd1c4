"""From chosen elements to new crystals: generated, relaxed, judged, traceable.

Importing this package loads neither torch nor pymatgen; import the module you need.
"""

__version__ = "0.1.0"

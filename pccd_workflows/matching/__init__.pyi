from .cells import ReductionError as ReductionError
from .cells import reduce_structure as reduce_structure
from .groups import group as group
from .groups import match as match
from .known_crystals import KnownCrystals as KnownCrystals
from .settings import MatcherSettings as MatcherSettings

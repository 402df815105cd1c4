from .api import is_known as is_known
from .api import place_on_hull as place_on_hull
from .api import read_campaign as read_campaign
from .api import references as references
from .api import relax as relax
from .campaign import Campaign as Campaign
from .campaign import load_campaign as load_campaign
from .candidate import CandidateDoc as CandidateDoc
from .core.errors import InputError as InputError
from .core.errors import MissingDependencyError as MissingDependencyError
from .core.errors import PccdError as PccdError
from .discovery import Candidates as Candidates
from .discovery import LostJobs as LostJobs
from .discovery import discover as discover
from .engines.levels import LEVELS as LEVELS
from .engines.levels import Level as Level
from .engines.levels import get_level as get_level
from .export import export_candidates as export_candidates
from .generators import sample as sample
from .pipeline import DiscoveryMaker as DiscoveryMaker
from .query import CandidateFilter as CandidateFilter
from .settings import Settings as Settings
from .settings import get_settings as get_settings

__version__: str

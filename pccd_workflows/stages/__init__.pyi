from .hull import Stability as Stability
from .phonons import PhononsSection as PhononsSection
from .rung import Budget as Budget
from .rung import Keep as Keep
from .rung import Rung as Rung

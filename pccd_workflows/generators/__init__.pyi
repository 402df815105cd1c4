from .request import Conditions as Conditions
from .request import Draw as Draw
from .request import Generate as Generate
from .request import Generation as Generation

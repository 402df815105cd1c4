from .writing import Written as Written
from .writing import write_figures as write_figures

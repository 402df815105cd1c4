from .diagram_view import draw_diagram as draw_diagram
from .evaluation import write_evaluation as write_evaluation
from .phase_diagram import make_diagram as make_diagram
from .render import write_report as write_report

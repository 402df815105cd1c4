"""Pictures for people: one self-contained HTML file per campaign."""

from pccd_workflows.report.render import write_report

__all__ = ["write_report"]

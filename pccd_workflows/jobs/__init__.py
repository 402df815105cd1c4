"""Thin jobs: read the database, call a pure function, return a StageOutput. They decide nothing."""

__all__: list[str] = []

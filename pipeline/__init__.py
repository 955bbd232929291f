"""Command line, session layout, configuration and runner of the markerless pipeline."""

__version__ = "0.1.0"

"""The version, for whoever stands below the public face."""

__version__ = "0.1.0"

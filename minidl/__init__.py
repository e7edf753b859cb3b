"""minidl: a small deep-learning framework whose every kernel can be read, run and checked."""

from pathlib import Path as _Path

_here = _Path(__file__).parent
if not (_here / "kernels").is_dir():  # a checkout: kernels/ lies beside minidl/, not inside it
    __path__.append(str(_here.parent))

__version__ = "0.1.0"

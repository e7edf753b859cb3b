"""Kernels: arrays in, arrays out. Installed as `minidl.kernels`; knows nothing of tensors.

`reference/` is the definition (plain NumPy), `cpu/` and `cuda/` are the fast versions under the
same file and function names. `cases.py` and `testing.py` check any of them against the definition.
"""

if __name__ != "minidl.kernels":
    raise ImportError(
        f"this folder is the package minidl.kernels, not {__name__!r}: write "
        "`import minidl.kernels`. A top-level `kernels` belongs to another package, and a second "
        "import under that name would load every kernel twice"
    )


def __getattr__(name: str) -> object:
    """sanitize, which is loaded with numba-cuda when it is first asked for."""
    if name == "sanitize":
        from .cuda.sanitizer import sanitize

        return sanitize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

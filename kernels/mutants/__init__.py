"""Plants faults in a kernel, one at a time, and sees whether somebody's tests notice.

`source.py` reads a file and changes one piece of it. `threads.py` and `arithmetic.py` know which
mistakes people make in kernels, with what `scope.py` reads of a function; `faults.py` collects
them, and says what kind of test would notice. `trial.py` runs the tests against a changed source,
in a process of their own: files stay as they are. The command is `minidl mutants`.
"""

from .faults import HINTS, faults
from .source import Fault, Source

__all__ = ["HINTS", "Fault", "Source", "faults"]

"""fastsig among the libraries that threadpoolctl knows, so that `threadpool_limits` reaches it.

    import fastsig.interop.threadpoolctl
    with threadpool_limits(limits=1):
        fastsig.sigmoid(x, out=y)

Importing this module is all there is to do; fastsig does it itself at its first call, where threadpoolctl is imported by then
(scikit-learn and joblib import it). The limit counts for all threads of the process, as that of `fastsig.set_num_threads`, and
what that had set comes back afterwards. Without this module `threadpool_limits` reaches fastsig as far as fastsig follows its
OpenMP runtime: with no number set by itself or by FASTSIG_NUM_THREADS, and in the calling thread alone.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding  # noqa: F401  # its library, which is loaded by now, stands for fastsig

import fastsig
from fastsig import parallel

try:
    from threadpoolctl import LibController, register
except ModuleNotFoundError as missing:
    raise ImportError("fastsig.interop.threadpoolctl needs threadpoolctl: pip install 'fastsig[threadpoolctl]'") from missing

__all__ = ["Controller"]


class Number(int):
    """A number of threads that remembers the setting it came from, 0 for none: threadpoolctl gives back what it was given."""

    setting: int


class Controller(LibController):
    """What threadpoolctl asks and tells fastsig.

    threadpoolctl makes one when it looks for libraries, which it finds by their files. fastsig has none, but never computes
    without llvmlite's.

    Parameters
    ----------
    filepath, prefix : str
        Of llvmlite's library.
    parent : threadpoolctl.ThreadpoolController
        Who found it.

    Examples
    --------
    >>> import fastsig.interop.threadpoolctl
    >>> from threadpoolctl import threadpool_info, threadpool_limits
    >>> [library["user_api"] for library in threadpool_info() if library["internal_api"] == "fastsig"]
    ['openmp']
    >>> with threadpool_limits(limits=1):
    ...     fastsig.get_num_threads()
    1
    """

    user_api = "openmp"
    internal_api = "fastsig"
    filename_prefixes = ("libllvmlite", "llvmlite")

    def get_num_threads(self) -> Number:
        """Tell how many threads a large call uses."""
        number = Number(fastsig.get_num_threads())
        number.setting = int(parallel.WORDS[parallel.LIMIT])
        return number

    def set_num_threads(self, num_threads: int) -> None:
        """Set that number, or give a setting back."""
        if isinstance(num_threads, Number):
            parallel.WORDS[parallel.LIMIT] = num_threads.setting
        else:
            fastsig.set_num_threads(max(1, num_threads))

    def get_version(self) -> str:
        """Tell fastsig's version."""
        return fastsig.__version__

    def set_additional_attributes(self) -> None:
        """Note which OpenMP runtime has the threads."""
        found: Any = parallel.runtime()
        self.runtime = found[0] if found else None


register(Controller)

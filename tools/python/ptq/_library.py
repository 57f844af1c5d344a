"""The library as cffi sees it: errors, progress, memory, names."""

import contextlib
import os
import warnings
from typing import Callable, Iterator, List, Optional

from ptq._native import ffi, lib

Progress = Callable[[int, int], Optional[bool]]


class Error(Exception):
    """A failure of the library.

    The text is the library's sentence, which names the thing and says what to do. `status` is the
    name of its code, such as "PTQ_BAD_FILE".
    """

    def __init__(self, status: str, text: str):
        super().__init__(text)
        self.status = status

    def __reduce__(self):
        return Error, (self.status, str(self))


def text_of(pointer) -> str:
    return ffi.string(pointer).decode("utf-8", "replace") if pointer else ""


def call(function, *arguments) -> None:
    """Calls a function whose last parameter is the error, and raises that."""
    err = ffi.new("ptq_error *")
    status = function(*arguments, err)
    if status:
        raise Error(text_of(lib.ptq_name(lib.PTQ_NAMES_STATUS, status)), text_of(err.text))


def make(kind: str, release, function, *arguments, after: tuple = ()):
    """The object that a function returns by a pointer, with parameters `after` it; Python frees it.

    Objects may be freed in any order: see CONVENTIONS in ptq.h."""
    out = ffi.new(kind + " **")
    call(function, *arguments, out, *after)
    return ffi.gc(out[0], release)


def write_text(function, *arguments) -> str:
    """What a function writes in the manner of snprintf."""
    size = function(*arguments, ffi.NULL, 0) + 1
    text = ffi.new("char[]", size)
    function(*arguments, text, size)
    return text_of(text)


def names(which: int) -> List[str]:
    found: List[str] = []
    while lib.ptq_name(which, len(found)):
        found.append(text_of(lib.ptq_name(which, len(found))))
    return found


def path_bytes(path) -> bytes:
    return os.fsencode(path)


def count_threads(threads: Optional[int]) -> int:
    """As given; else all processors that this process may use."""
    if threads is not None:
        if threads < 1:
            raise ValueError("threads must be at least 1, not %d" % threads)
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Watcher:
    """What long work calls now and then: the user's function, and Python, which sees Ctrl-C."""

    def __init__(self, progress: Optional[Progress]):
        self.progress = progress
        self.failure: Optional[BaseException] = None

    def failed(self, kind, value, traceback):
        self.failure = value
        return 1  # stops the work


def _watcher_failed(kind, value, traceback):
    handle = traceback.tb_frame.f_locals.get("user")
    return ffi.from_handle(handle).failed(kind, value, traceback) if handle else 1


@ffi.def_extern(error=1, onerror=_watcher_failed)
def show_progress(user, done, total):
    watcher = ffi.from_handle(user)
    return bool(watcher.progress and watcher.progress(done, total))


@contextlib.contextmanager
def watched(work, threads: Optional[int], progress: Optional[Progress]) -> Iterator[None]:
    """Fills a ptq_work for the time of one call. What `progress` raised is raised here again."""
    watcher = _Watcher(progress)
    handle = ffi.new_handle(watcher)
    work.threads = count_threads(threads)
    work.progress, work.user = lib.show_progress, handle
    try:
        yield
    except Error:
        if watcher.failure is not None:
            raise watcher.failure from None
        raise


def warn_lines(text: str, level: int) -> None:
    for line in text.splitlines():
        warnings.warn(line, stacklevel=level + 1)

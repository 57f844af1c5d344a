"""Builds the package: ptq.h, compiled once, and Python around it.

What is C stands elsewhere in the project. It is copied into the package, from which wheel and
source distribution take it: neither needs the project any more, and a C program finds the very header
that Python runs (ptq.get_include()).
"""

import os
import re
import shutil

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.join(HERE, "..", "..")
COPY = os.path.join(HERE, "ptq", "c")
SOURCES = {"ptq.h": "ptq.h"}
SOURCES.update(
    ("tools/ptq/measure/" + name, "measure/" + name)
    for name in ("arithmetic.c", "arithmetic.h", "explain.c", "explain.h")
)


def copy_sources():
    """In a source distribution they are there already, and the project is not."""
    for source, name in SOURCES.items():
        source, copy = os.path.join(PROJECT, source), os.path.join(COPY, name)
        if os.path.exists(source):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copyfile(source, copy)
        elif not os.path.exists(copy):
            raise SystemExit("%s is missing: tools/python is built inside the project" % source)


def version():
    with open(os.path.join(COPY, "ptq.h"), encoding="utf-8") as header:
        return re.search(r'^#define PTQ_VERSION "(.+)"$', header.read(), re.MULTILINE).group(1)


os.chdir(HERE)
copy_sources()
setup(
    version=version(),
    cffi_modules=["native.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp39"}},
)

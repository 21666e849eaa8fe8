"""Compile wire/, core/ and what runs for each batch at installation, where a C compiler is there.

One source, two speeds: mypyc compiles the same files that run uncompiled otherwise. System calls for many
frames are written in C besides (ports/_batch.c), as Python has none. COLO_COMPARE_COMPILE says what is
wanted: ``auto`` (the default), ``never``, or ``require``, which fails where it cannot be had. An editable
installation stays plain: machine code beside an edited source would be run in its place.
"""

import os
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

WANTED = os.environ.get("COLO_COMPARE_COMPILE", "auto")
if WANTED not in ("auto", "never", "require"):
    sys.exit(f"COLO_COMPARE_COMPILE is {WANTED!r}: set it to auto, never or require")


def has_compiler() -> bool:
    """Whether a C file that includes Python.h compiles here."""
    if WANTED == "never":
        return False
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "trial.c")
        source.write_text("#include <Python.h>\n")
        trial = build_ext(Distribution({"ext_modules": [Extension("trial", [str(source)])]}))
        trial.build_temp = trial.build_lib = directory
        try:
            trial.ensure_finalized()
            trial.run()
        except (BaseError, CCompilerError, OSError) as error:
            give_up(error)
            return False
    return True


def give_up(why: BaseException) -> None:
    """Go on without compiling, with a notice; end where it is required."""
    if WANTED == "require":
        sys.exit(f"wire/ and core/ cannot be compiled, and COLO_COMPARE_COMPILE requires it: {why}")
    print(f"notice: wire/ and core/ stay plain Python, which is several times slower: {why}", file=sys.stderr)


# CPython defers deep deallocations by a link in the header that the garbage collector's objects have before
# them. mypyc 2.4 asks for that in every class, also in one that is `acyclic` and has no such header: then the
# link is written into whatever lies there. With no deallocator to compare, nothing is deferred.
TRASHCAN = """
#include <Python.h>
#if __has_include("CPy.h")  // not for the stubs that only load the library
#include "CPy.h"
#undef CPy_TRASHCAN_BEGIN
#define CPy_TRASHCAN_BEGIN(op, dealloc) \\
    Py_TRASHCAN_BEGIN(op, (PyType_IS_GC(Py_TYPE(op)) ? (destructor)(dealloc) : (destructor)NULL))
#endif
"""

BATCH = Extension("colo_compare.ports._batch", ["colo_compare/ports/_batch.c"])


class BuildCompiled(build_ext):
    """Runs mypyc, then the C compiler."""

    def run(self) -> None:
        """Build everything or nothing: the modules share one library, and need it."""
        if self.editable_mode:
            self.extensions = []
            return
        from mypyc.build import mypycify  # takes a second, and most commands do not get here

        sources = [
            path for part in ("wire", "core") for path in sorted(Path("colo_compare", part).glob("*.py"))
        ]
        # A package's __init__ holds nothing to compile. The group's name is that of the shared library.
        paths = [str(path) for path in sources if path.stem != "__init__"]
        more = (
            "filter_link",
            "link",
            "ports/counting",
            "ports/packet_batch",
            "ports/stream_batch",
            "reading_on",
            "traffic",
        )
        paths += [f"colo_compare/{name}.py" for name in more]
        # In pip's isolated environment there is nothing but what is asked for below: no trio to look into.
        # Other modules' errors, which follow from that, are for the tests to find.
        options = ["--ignore-missing-imports", "--follow-imports=silent"]
        try:
            extensions = mypycify([*options, *paths], group_name="colo_compare")
            header = Path(self.build_temp, "trashcan.h").resolve()
            header.parent.mkdir(parents=True, exist_ok=True)
            header.write_text(TRASHCAN)
            for extension in extensions:
                # What other libraries cannot replace may be inlined: a tenth of the core's time.
                flags = ["-fvisibility=hidden", "-include", str(header)]
                extension.extra_compile_args = [*extension.extra_compile_args, *flags]
            self.distribution.ext_modules = [*extensions, BATCH]
            self.reinitialize_command(self)
            self.ensure_finalized()
            super().run()
        except (BaseError, CCompilerError, OSError, SystemExit) as error:
            give_up(error)
            for built in Path(self.build_lib).rglob("*.so"):
                built.unlink()
            self.extensions = []


class Built(Distribution):
    """A distribution that knows whether its wheel will hold machine code before mypyc has run."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel is of one platform only."""
        return COMPILES


COMPILES = has_compiler()

setup(
    distclass=Built,
    cmdclass={"build_ext": BuildCompiled},
    # Asked for by the back end of pyproject.toml; not listed there, as who has no compiler needs no mypyc.
    setup_requires=["mypy>=2.4", "mypy_extensions>=1.0", "librt>=0.17"] if COMPILES else [],
    ext_modules=[BATCH] if COMPILES else [],  # and what mypyc makes, which is known when it has run
)

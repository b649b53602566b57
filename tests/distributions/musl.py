"""A system with musl and busybox, as Alpine's is, and a Python compiled for it from the sources
that Debian has, with the compiler of this system; for x86-64."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.distributions.archive import Archive, PlaceError, run, unpack

PACKAGES = ("musl", "musl-dev", "musl-tools", "linux-libc-dev", "busybox-static")
SOURCES = ("python3.13", "libffi", "zlib")
LINKER = "lib/ld-musl-x86_64.so.1"
APPLETS = ("sh", "env", "taskset", "sleep", "printf", "id", "cat", "ls", "true", "echo")
# What libffi's own configure, which Debian's sources have to be given by autotools, would find out.
FFI_VALUES = {
    "@VERSION@": "3.4.8", "@FFI_VERSION_STRING@": "3.4.8", "@FFI_VERSION_NUMBER@": "30408",
    "@TARGET@": "X86_64", "@HAVE_LONG_DOUBLE@": "1", "@HAVE_LONG_DOUBLE_VARIANT@": "0",
    "@FFI_EXEC_TRAMPOLINE_TABLE@": "0",
}  # fmt: skip
FFI_CONFIG = """
#define HAVE_ALLOCA_H 1
#define HAVE_LONG_DOUBLE 1
#define HAVE_MEMCPY 1
#define HAVE_HIDDEN_VISIBILITY_ATTRIBUTE 1
#define HAVE_AS_X86_PCREL 1
#define EH_FRAME_FLAGS "a"
#define STDC_HEADERS 1
#define SIZEOF_DOUBLE 8
#define SIZEOF_LONG_DOUBLE 16
#define SIZEOF_SIZE_T 8
#ifdef LIBFFI_ASM
#define FFI_HIDDEN(name) .hidden name
#else
#define FFI_HIDDEN __attribute__ ((visibility ("hidden")))
#endif
"""
FFI_FILES = ("prep_cif.c", "types.c", "raw_api.c", "java_raw_api.c", "closures.c", "tramp.c",
             "x86/ffi64.c", "x86/ffiw64.c", "x86/unix64.S", "x86/win64.S")  # fmt: skip


def make_musl_root(archive: Archive, folder: Path) -> None:
    """Make `folder`/root from packages and sources of a suite. Raises PlaceError."""
    root, work = folder / "root", folder / "work"
    musl, deps = work / "musl", work / "deps"
    for directory in (musl, deps / "include", deps / "lib", root / "usr/bin", root / "lib"):
        directory.mkdir(parents=True)
    for package in archive.fetch(*PACKAGES):
        unpack(package, musl)
    for source in archive.fetch_sources(*SOURCES):
        run("tar", "-xf", str(source), "-C", str(work))
    (root / "bin").symlink_to("usr/bin")
    for name in ("proc", "sys", "dev", "tmp", "mnt", "etc"):
        (root / name).mkdir()
    (root / "etc/passwd").write_text("user:x:1000:1000::/mnt/home:/bin/sh\n")
    shutil.copy(musl / "usr/lib/x86_64-linux-musl/libc.so", root / LINKER)
    shutil.copy(next(musl.glob("**/bin/busybox")), root / "usr/bin")
    for name in APPLETS:
        (root / "usr/bin" / name).symlink_to("busybox")
    compiler = make_compiler(musl, root)
    make_ffi(next(work.glob("libffi-*")), deps, compiler)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTHON"))}
    env |= {"CC": str(compiler), "CFLAGS": "-O1 -fPIC"}
    zlib = next(work.glob("zlib-*"))
    run("./configure", "--static", f"--prefix={deps}", cwd=zlib, env=env)
    run("make", "-s", "libz.a", cwd=zlib, env=env)
    shutil.copy(zlib / "libz.a", deps / "lib")
    for name in ("zlib.h", "zconf.h"):
        shutil.copy(zlib / name, deps / "include")
    make_python(next(work.glob("Python-*")), deps, root, env)
    shutil.rmtree(work)


def make_compiler(musl: Path, root: Path) -> Path:
    """Make a gcc for musl below `musl`, as package musl-tools has it; return its path. Programs are
    linked for `root`, but named so that they run here, too, until the root is complete."""
    libraries = musl / "usr/lib/x86_64-linux-musl"
    headers = musl / "usr/include/x86_64-linux-musl"
    for name, target in (("linux", "../linux"), ("asm-generic", "../asm-generic"),
                         ("asm", "../x86_64-linux-gnu/asm")):  # fmt: skip
        (headers / name).symlink_to(target)
    text = (libraries / "musl-gcc.specs").read_text()
    text = text.replace("/usr/include/x86_64-linux-musl", str(headers))
    text = text.replace("/usr/lib/x86_64-linux-musl", str(libraries))
    text = text.replace(f"/{LINKER}", str(root / LINKER))
    specs, compiler = musl / "gcc.specs", musl / "musl-gcc"
    specs.write_text(text)
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --print-multiarch ] && echo x86_64-linux-musl && exit\n'
        f'exec gcc "$@" -specs "{specs}"\n'
    )
    compiler.chmod(0o755)
    return compiler


def make_ffi(source: Path, deps: Path, compiler: Path) -> None:
    text = (source / "include/ffi.h.in").read_text()
    for name, value in FFI_VALUES.items():
        text = text.replace(name, value)
    (deps / "include/ffi.h").write_text(text)
    (deps / "fficonfig.h").write_text(FFI_CONFIG)
    shutil.copy(source / "src/x86/ffitarget.h", deps / "include")
    places = [f"-I{p}" for p in (deps, deps / "include", source / "include", source / "src")]
    objects = []
    for name in FFI_FILES:
        made = deps / f"{Path(name).name}.o"
        flags = ["-O1", "-fPIC", "-w", "-DHAVE_CONFIG_H"]
        flags += ["-DLIBFFI_ASM"] if name.endswith(".S") else []
        run(str(compiler), *flags, *places, "-c", str(source / "src" / name), "-o", str(made))
        objects.append(str(made))
    run("ar", "rcs", str(deps / "lib/libffi.a"), *objects)


def make_python(source: Path, deps: Path, root: Path, env: dict[str, str]) -> None:
    env |= {
        "CPPFLAGS": f"-I{deps}/include",
        "LDFLAGS": f"-L{deps}/lib",
        "PKG_CONFIG_LIBDIR": str(deps),
        "LIBFFI_CFLAGS": f"-I{deps}/include",
        "LIBFFI_LIBS": f"-L{deps}/lib -lffi",
    }
    run(
        "./configure",
        "-q",
        "--prefix=/usr",
        "--disable-test-modules",
        "OPT=-O1",
        cwd=source,
        env=env,
    )
    jobs = f"-j{os.cpu_count() or 1}"
    run("make", "-s", jobs, cwd=source, env=env)
    run("make", "-s", "install", f"DESTDIR={root}", "ENSUREPIP=no", cwd=source, env=env)
    program = root / "usr/bin/python3.13"
    if run(str(program), "-c", "import ctypes, zlib") != "":
        raise PlaceError("the Python for musl prints")
    program.write_bytes(relink(program.read_bytes(), os.fsencode(root / LINKER)))


def relink(program: bytes, linker: bytes) -> bytes:
    """Return a program with `/` and LINKER in the place of its linker's path, which is longer."""
    wanted = b"/" + os.fsencode(LINKER)
    if program.count(linker + b"\0") != 1:
        raise PlaceError("the Python for musl does not name its linker once")
    return program.replace(linker + b"\0", wanted + bytes(len(linker) - len(wanted) + 1))

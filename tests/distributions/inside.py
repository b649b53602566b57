"""Commands in a place: as an ordinary user, with that place's files and this machine's processes.

A user namespace needs no rights: `unshare` mounts what is needed and becomes a user without any
capability. Everything but /tmp, /dev/shm and, where the caller says so, the user's home is
read-only there; pids are this machine's, so that what runs inside can be judged from outside.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests.distributions.places import Place

HOME = "/mnt/home"
TIMEOUT = 120  # seconds; a busy machine takes long
# Locales: what each sets. The second is C without Python's own remedies for it, in which text is
# ASCII; the third is not UTF-8; the last does not exist.
LOCALES = {
    "utf8": {"LC_ALL": "C.UTF-8"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin": {"LC_ALL": "en_US.ISO-8859-1"},
    "missing": {"LANG": "de_DE.UTF-8"},
}
ENTER = """
set -e
root=$1 home=$2 files=$3 mode=$4
shift 4
if [ "$root" != / ]; then
    mount --bind "$root" "$root"
    for folder in proc sys dev; do mount --rbind "/$folder" "$root/$folder"; done
    mount -t tmpfs tmpfs "$root/tmp"
    mount -o remount,bind,ro "$root"
fi
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/mnt"
mkdir "$root/mnt/home" "$root/mnt/files"
mount --bind "$home" "$root/mnt/home"
mount -o "remount,bind,$mode" "$root/mnt/home"
mount --bind "$files" "$root/mnt/files"
exec unshare --user --map-user=1000 --map-group=1000 --root="$root" --wd=/ "$@"
"""


class Inside(NamedTuple):
    """A place with a home of its own. `files` is read-only to the user, as `/mnt/files`."""

    place: Place
    home: Path
    files: Path

    def command(
        self,
        *words: str,
        locale: str = "utf8",
        env: Mapping[str, str] = MappingProxyType({}),
        write: bool = False,
    ) -> list[str]:
        """Return the command that runs `words` inside; `write`: its home can be written to."""
        variables = {"PATH": f"{HOME}/venv/bin:/usr/bin:/bin", "HOME": HOME}
        variables |= {"OMPBIND_NEIGHBOURS": "no", **LOCALES[locale], **env}
        enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ENTER, "enter"]
        places = [str(self.place.root), str(self.home), str(self.files), "rw" if write else "ro"]
        settings = [f"{name}={value}" for name, value in variables.items()]
        return [*enter, *places, "/usr/bin/env", "-i", *settings, *words]

    def run(
        self,
        *words: str,
        locale: str = "utf8",
        env: Mapping[str, str] = MappingProxyType({}),
        write: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        done = subprocess.run(
            self.command(*words, locale=locale, env=env, write=write),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        out, err = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

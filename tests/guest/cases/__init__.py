"""The machines to boot with their cases, a module for each architecture."""

from __future__ import annotations

import os

from tests.guest.architectures import ARCHITECTURES, TESTED
from tests.guest.cases import amd64, arm64, ppc64el, riscv64, s390x

VARIABLE = "OMPBIND_TEST_GUEST"  # the architecture whose guests alone are booted
ALL = {
    **arm64.BOOTS,
    **amd64.BOOTS,
    **ppc64el.BOOTS,
    **s390x.BOOTS,
    **riscv64.BOOTS,
}
CHOSEN = (ARCHITECTURES[os.environ[VARIABLE]].name,) if os.environ.get(VARIABLE) else TESTED
BOOTS = {name: boot for name, boot in ALL.items() if boot.architecture in CHOSEN}

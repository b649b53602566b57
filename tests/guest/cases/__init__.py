"""The machines to boot with their cases, a module for each architecture."""

from __future__ import annotations

import os

from tests.guest.architectures import TESTED
from tests.guest.cases import amd64, arm64

VARIABLE = "OMPBIND_TEST_GUEST"  # the architecture whose guests alone are booted
ALL = {**arm64.BOOTS, **amd64.BOOTS}
CHOSEN = (os.environ[VARIABLE],) if os.environ.get(VARIABLE) else TESTED
BOOTS = {name: boot for name, boot in ALL.items() if boot.architecture in CHOSEN}

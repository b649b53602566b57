"""What tests of real engines share: a cluster of Slurm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.slurm import Slurm, running_slurm


@pytest.fixture(scope="package")
def slurm() -> Iterator[Slurm]:
    """A cluster of four nodes, each of which is this machine; one for each process of the tests."""
    with running_slurm(4) as cluster:
        yield cluster

"""The judge's tests need g++ and bubblewrap, and say so where they are skipped."""

import pytest

from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.code.toolbox import SandboxUnavailable


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sandbox that was proved; its tools are shared by the workers of a run. The cache folder."""
    cache = str(tmp_path_factory.getbasetemp().parent / "judge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLORA_CACHE", cache)
        try:
            mechanism_for(unsafe_no_sandbox=False)
        except SandboxUnavailable as reason:
            if "does not hold" in str(reason):
                raise
            pytest.skip(f"PROGRAMS ARE NOT JUDGED HERE: {reason}")
    return cache

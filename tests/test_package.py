"""What importing costs, and the public names."""

import subprocess
import sys

import tinylora


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh Python holds after a statement."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not loaded_after("import tinylora") & {"torch", "transformers", "pydantic", "numpy"}


def test_the_settings_need_no_torch() -> None:
    names = "AdapterConfig, TrainConfig, RequestError, Verdict"
    assert not loaded_after(f"from tinylora import {names}") & {"torch", "transformers"}


def test_tasks_need_no_torch() -> None:
    statement = "import tinylora.tasks.rows, tinylora.tasks.own, tinylora.tasks.functions"
    assert not loaded_after(statement) & {"torch", "transformers"}


def test_every_public_name_is_there() -> None:
    assert [name for name in tinylora.__all__ if not hasattr(tinylora, name)] == []


def test_train_is_a_function_and_a_room() -> None:
    """`tinylora.train(...)` works before and after somebody imports `tinylora.algorithms.grpo`."""
    import tinylora.algorithms.losses

    assert callable(tinylora.train)
    assert tinylora.algorithms.losses.__name__ == "tinylora.algorithms.losses"

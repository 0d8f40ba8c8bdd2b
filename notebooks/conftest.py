"""Keep what `pytest --nbmake` executes, so that building the book need not execute it again."""

from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbmake.nb_run import NotebookRun

CACHE = Path(__file__).parent.parent / "_build" / ".jupyter_cache"
execute = NotebookRun.execute


def execute_and_keep(run):
    result = execute(run)
    if result.error is None:
        for cell in result.nb.cells:
            cell.metadata.pop("execution", None)  # times, which the cache would take for the source
        bundle = CacheBundleIn(result.nb, str(run.filename))
        get_cache(CACHE).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return result


NotebookRun.execute = execute_and_keep


def pytest_collection_modifyitems(items):
    """The chapters that take longest first, so that workers side by side end together."""
    items.sort(key=lambda item: not item.path.name.startswith(("03", "04", "05", "08", "10")))

"""Drawing of the test images' figures, in other processes while the next category is computed."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

import cv2

from datasets.reading_ahead import map_ahead
from utils.pipeline.image_figures import ImageFigures
from utils.progress import show_progress
from utils.result_folder import ResultFolder

# Drawing fewer images takes less time than starting a process.
FEW_IMAGES = 40
# More processes would wait for the disk, and each needs about 300 MB.
MAX_PROCESSES = 8
# The lowest priority of a POSIX system, since computing comes first.
NICENESS = 19
# Seconds between two updates of the progress bar.
BAR_PERIOD = 0.1

log = logging.getLogger(__name__)


class Drawing:
    """Draws test images: the first few in this process, then by processes in the background.

    These processes have the lowest priority, so that the cores are free for the computation that is
    measured at the same time. A thread of this process sends them one image at a time, to limit the
    memory. If a process ends unexpectedly, its images are drawn in this process.

    On leaving the context, all figures are drawn first, unless the user interrupts.

    Args:
        folder: The folder of the figures.
        num_workers: The largest number of threads or processes; 0 draws everything in the caller's
            thread.
    """

    def __init__(self, folder: ResultFolder, num_workers: int):
        self._folder = folder
        self._num_workers = num_workers
        self._num_processes = min(num_workers, MAX_PROCESSES)
        self._pool: ProcessPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        # Processes of the caller's, which are not ended with the pool.
        self._others: frozenset[BaseProcess] = frozenset()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._pending: list[Future[None]] = []
        self._num_images = 0  # of the run so far
        self._num_in_background = 0
        self._num_drawn = 0  # in the background
        self._is_stopped = False

    def __enter__(self) -> "Drawing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
            elif issubclass(kind, Exception):
                # Errors of drawing must not replace the error that ends the run.
                with contextlib.suppress(Exception):
                    self.wait()
        finally:
            self._is_stopped = True
            if kind is not None and not issubclass(kind, Exception):
                # A process may be importing for seconds, which is too long for the user to wait.
                for worker in self._workers():
                    worker.terminate()
            self._background.shutdown(cancel_futures=True)
            if self._pool is not None:
                self._pool.shutdown()

    def draw(self, make: Callable[[int], ImageFigures], count: int, category: str) -> None:
        """Draw all test images of a category, now or in the background.

        Args:
            make: Returns the figures of an image by its index; called just before they are drawn.
            count: The number of images.
            category: The name of the category, for the progress bar.

        Raises:
            UsageError: a file cannot be written.
        """
        self._num_images += count
        if self._num_workers > 0 and self._num_images >= FEW_IMAGES:
            log.debug("%s: %d images are drawn by other processes", category, count)
            self._start_pool()
            self._num_in_background += count
            self._pending.append(self._background.submit(self._draw_in_background, make, count))
            return
        log.debug("%s: %d images are drawn by this process", category, count)
        drawn = map_ahead(
            lambda index: make(index).draw(self._folder),
            range(count),
            num_workers=self._num_workers,
            ahead=2 * self._num_workers,
        )
        with show_progress(count, f"{category}: draw", "image") as bar:
            for _ in drawn:
                bar.update()

    def then(self, function: Callable[[], object]) -> None:
        """Call a function once all figures so far are drawn: now, or later by another thread.

        It is not called if a figure cannot be drawn or the drawing is stopped.
        """
        before = tuple(self._pending)
        if not before:
            function()
            return

        def call() -> None:  # after the others: there is one thread
            if not self._is_stopped and all(future.exception() is None for future in before):
                function()

        self._pending.append(self._background.submit(call))

    def wait(self) -> None:
        """Wait until all figures are drawn.

        Raises:
            UsageError: a file cannot be written.
        """
        pending, self._pending = self._pending, []
        start = self._num_drawn
        with show_progress(self._num_in_background - start, "draw", "image") as bar:
            for future in pending:
                while wait([future], BAR_PERIOD).not_done:
                    bar.update(self._num_drawn - start - bar.n)
                future.result()

    def _draw_in_background(self, make: Callable[[int], ImageFigures], count: int) -> None:
        drawn = map_ahead(
            lambda index: self._draw_by_pool(make(index)),
            range(count),
            # Two threads for each process, so that none has to wait for its next image.
            num_workers=2 * self._num_processes,
            ahead=2 * self._num_processes,
        )
        for _ in drawn:
            self._num_drawn += 1
            if self._is_stopped:
                break

    def _draw_by_pool(self, figures: ImageFigures) -> None:
        pool = self._pool
        if pool is not None:
            try:
                return pool.submit(figures.draw, self._folder).result()
            except BrokenProcessPool:
                if self._is_stopped:
                    return None
                self._report_dead_workers(pool)
        return figures.draw(self._folder)

    def _start_pool(self) -> None:
        """Start the processes and wait for them, since their imports use all cores for seconds.

        No time is measured during this wait.
        """
        if self._pool is not None or not self._num_processes:
            return
        self._others = frozenset(multiprocessing.active_children())
        try:
            with _interrupts_blocked():
                self._pool = pool = ProcessPoolExecutor(
                    self._num_processes,
                    # Spawned: a fork of a process that has threads or uses a GPU may hang.
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_set_up_worker,
                )
                started = [pool.submit(os.getpid) for _ in range(self._num_processes)]
            for future in started:
                future.result()
        except BrokenProcessPool:
            self._report_dead_workers(pool)
        except OSError as error:  # such as a full /dev/shm, or too many processes or open files
            self._pool = None
            self._num_processes = 0
            log.warning(
                "processes that draw figures cannot start (%s): the main process draws them "
                "(--num_workers 0 uses no other processes)",
                error.strerror or error,
            )

    def _workers(self) -> list[BaseProcess]:
        """Return the running processes of the pool."""
        return [child for child in multiprocessing.active_children() if child not in self._others]

    def _report_dead_workers(self, pool: ProcessPoolExecutor) -> None:
        """Warn once about a broken pool; the next category starts a new one."""
        with self._pool_lock:
            if self._pool is not pool:
                return
            self._pool = None
        log.warning(
            "a process that draws figures ended unexpectedly, possibly because it ran out of "
            "memory: its images are drawn by the main process (--num_workers 0 uses no other "
            "processes)"
        )


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT and SIGHUP in this thread, and in the processes that it starts in the block.

    A terminal sends them to all processes. They would print a traceback if they got SIGINT during
    their imports, before `_set_up_worker`, and Python's tracker of resources would end with SIGHUP.
    Here they arrive after the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_up_worker() -> None:
    """Set up a process of the pool: lowest priority, one thread, no reaction to Ctrl-C."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the pool
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process as soon as the main process has ended, even if it was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)

"""Running a model's three steps side by side, so that it need not wait for images.

A model of `models.backends` prepares images, infers, and reads what came out. While one batch is
inferred, the next is decoded and prepared in another thread, and the last one is read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

from models.backends import Detector, PoseEstimator
from models.people import Detections, Image, Poses

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Outputs = TypeVar("Outputs")
Result = TypeVar("Result")

WAIT_S = 0.05
"""How often a thread that cannot hand on its work looks whether anybody still wants it."""


def overlapped(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    infer: Callable[[Prepared], Outputs],
    read: Callable[[Prepared, Outputs], Result],
) -> Iterator[Result]:
    """Yield `read(prepared, infer(prepared))` of each item, in the items' order.

    Items are made and prepared in one thread, inferred in a second, and read in the caller's. Each
    thread is one piece of work ahead of the next, and no more: at most five items are alive. What
    a step raises is raised here, after the results before it; the threads end then, and when the
    caller stops early and closes the iterator.
    """
    prepared = ahead(_each(prepare, items))
    inferred = ahead(_each(lambda each: (each, infer(each)), prepared))
    try:
        yield from _each(lambda pair: read(*pair), inferred)
    finally:
        inferred.close()
        prepared.close()


def _each(step: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Like `map`, but a StopIteration in the step is an error and no end.

    Nothing is kept alive that is no longer needed: an item may be a second of video.
    """
    for item in items:
        made = step(item)
        del item
        yield made
        del made


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, each made in a thread of its own while the one before it is used.

    One item waits, and the thread is at work on another. What making them raises is raised here.
    """
    waiting: Queue = Queue(maxsize=1)
    stop = Event()
    thread = Thread(target=_fill, args=(waiting, items, stop), daemon=True)
    thread.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
            del item  # not alive while the next one is waited for
    finally:
        stop.set()
        thread.join()


def _fill(waiting: Queue, items: Iterable, stop: Event) -> None:
    try:
        for item in items:
            if not _put(waiting, ("item", item), stop):
                return
            del item
        _put(waiting, ("end", None), stop)
    except BaseException as error:  # the thread that uses the items raises it
        _put(waiting, ("error", error), stop)


def _put(waiting: Queue, what: tuple, stop: Event) -> bool:
    while not stop.is_set():
        try:
            waiting.put(what, timeout=WAIT_S)
            return True
        except Full:
            continue
    return False


def detect(detector: Detector, images: Sequence[Image]) -> list[Detections]:
    """Return the persons of each BGR image, best first."""
    prepared = detector.prepare(images)
    return detector.read(prepared, detector.infer(prepared))


def estimate(
    estimator: PoseEstimator,
    images: Sequence[Image],
    persons: Sequence[Detections],
    with_maps: bool = False,
) -> list[Poses]:
    """Return the keypoints of each BGR image's persons, in the persons' order."""
    prepared = estimator.prepare(images, persons, with_maps)
    return estimator.read(prepared, estimator.infer(prepared))

"""Threading models that each break one promise of the contract."""

from __future__ import annotations

import os
import threading
import time
from queue import LifoQueue, SimpleQueue

from migpool.errors import UsageError
from migpool.schedulers import Job, Scheduler, Setup


class OneThread(Scheduler):
    """Keeps them all."""

    def setup(self, setup: Setup) -> None:
        super().setup(setup)
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.spawn("one", self.work)

    def submit(self, job: Job) -> None:
        if self.accept(job):
            self.jobs.put(job)

    def release(self) -> None:
        self.jobs.put(None)

    def work(self) -> None:
        while (job := self.jobs.get()) is not None:
            self.perform(job)

    def perform(self, job: Job) -> None:
        self.run(job)


class Drops(Scheduler):
    def submit(self, job: Job) -> None:
        self.accept(job)


class DropsOne(OneThread):
    dropped = False

    def perform(self, job: Job) -> None:
        if job.slot is not None and job.slot.number == 2:
            return
        super().perform(job)


class ForgetsAccept(OneThread):
    def submit(self, job: Job) -> None:
        self.jobs.put(job)


class ForgetsSuper(Scheduler):
    def setup(self, setup: Setup) -> None:
        self.mine = setup

    def submit(self, job: Job) -> None:
        if self.accept(job):
            self.run(job)


class Raises(OneThread):
    def submit(self, job: Job) -> None:
        del job
        raise ValueError("oops")


class RaisesInSetup(OneThread):
    def setup(self, setup: Setup) -> None:
        super().setup(setup)
        raise KeyError("nothing")


class NewestFirst(OneThread):
    def setup(self, setup: Setup) -> None:
        self.gathered = threading.Event()
        super().setup(setup)
        self.jobs = LifoQueue()  # type: ignore[assignment]

    def submit(self, job: Job) -> None:
        super().submit(job)
        if job.slot is not None and job.slot.number in (2, 5):
            self.gathered.set()

    def work(self) -> None:
        self.gathered.wait(1)
        super().work()


class RunsTwice(OneThread):
    def perform(self, job: Job) -> None:
        self.run(job)
        self.run(job)


class TwoThreads(Scheduler):
    def submit(self, job: Job) -> None:
        if self.accept(job):
            self.spawn("first", lambda: self.run(job))
            self.spawn("second", lambda: self.join_in(job))

    def join_in(self, job: Job) -> None:
        while job.effect is None:
            time.sleep(0.001)
        self.interpreter.run(job)


class Swallows(OneThread):
    def perform(self, job: Job) -> None:
        try:
            self.interpreter.run(job)
        except Exception:  # noqa: BLE001 -- that is what is wrong with it
            pass
        self.ended(job, None)


class NeverSaysEnded(OneThread):
    def perform(self, job: Job) -> None:
        self.interpreter.run(job)


class LeavesAThread(OneThread):
    def release(self) -> None:
        super().release()
        threading.Thread(target=time.sleep, args=(1000,), name="left over").start()


class UncountedThreads(Scheduler):
    def submit(self, job: Job) -> None:
        if self.accept(job):
            threading.Thread(target=self.run, args=(job,)).start()


class ForgetsRelease(OneThread):
    def release(self) -> None:
        return


class BlocksInClose(OneThread):
    def release(self) -> None:
        threading.Event().wait()


class EndlessDrain(OneThread):
    def drain(self) -> None:
        while True:
            time.sleep(0.1)


class EarlyDrain(OneThread):
    def drain(self) -> None:
        return


class RunsAfterClose(OneThread):
    def submit(self, job: Job) -> None:
        try:
            super().submit(job)
        except UsageError:
            self.interpreter.run(job)


class IgnoresCancel(OneThread):
    def cancel(self) -> None:
        return


class WaitsForItself(Scheduler):
    """A job that submits a job waits until that has run, on the one thread that there is."""

    def setup(self, setup: Setup) -> None:
        super().setup(setup)
        self.workers = self.pool(1, "worker")

    def submit(self, job: Job) -> None:
        if self.accept(job):
            done = self.workers.submit(self.run, job)
            if threading.current_thread().name.startswith("worker"):
                done.result()


class ExitsTheProcess(OneThread):
    def perform(self, job: Job) -> None:
        del job
        os._exit(3)


class NotAModel:
    pass

"""The parts of :class:`migpool.workers.pool.WorkerPool`, where its guarantees stand. Nothing here is for other users.

From the ground up: ``lock``, ``future``, ``thread``, ``worker``, ``crew``, ``submitter``, ``exitandfork``,
``dispatcher``; and ``boundedmap``, which uses nothing but the pool.
"""

"""A few requests at once, a few in a queue, the rest refused: counted by a model of what happens."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tfdml_serving.api.admission import Admission
from tfdml_serving.errors import DeadlineExceeded, Overloaded


def test_places_queue_and_refusals():
    async def run():
        admission = Admission(places=2, queue=1, weight=100)
        end = asyncio.get_running_loop().time() + 10
        await admission.enter(0, end)
        await admission.enter(0, end)
        third = asyncio.create_task(admission.enter(0, end))
        await asyncio.sleep(0)
        assert (admission.active, admission.waiting) == (2, 1)
        with pytest.raises(Overloaded) as refused:
            await admission.enter(0, end)
        assert refused.value.retry_after >= 1
        admission.leave(0, 0.2)
        await third
        assert (admission.active, admission.waiting) == (2, 0)

    asyncio.run(run())


def test_who_waits_too_long_is_told_so_and_makes_room():
    async def run():
        admission = Admission(1, 5, 100)
        now = asyncio.get_running_loop().time()
        await admission.enter(0, now + 10)
        with pytest.raises(DeadlineExceeded):
            await admission.enter(0, now + 0.02)
        assert (admission.active, admission.waiting) == (1, 0)
        waiter = asyncio.create_task(admission.enter(0, now + 10))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert (admission.active, admission.waiting) == (1, 0)
        # Cancelled in the very moment in which its turn came: the place is given back.
        waiter = asyncio.create_task(admission.enter(0, now + 10))
        await asyncio.sleep(0)
        admission.leave(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert (admission.active, admission.waiting) == (0, 0)

    asyncio.run(run())


def test_heavy_requests_are_not_worked_on_together_and_none_is_passed_over():
    async def run():
        admission = Admission(10, 10, 100)
        end = asyncio.get_running_loop().time() + 10
        await admission.enter(60, end)
        heavy = asyncio.create_task(admission.enter(60, end))
        light = asyncio.create_task(admission.enter(1, end))
        await asyncio.sleep(0.01)
        assert not heavy.done()
        assert not light.done()  # first come, first served: a stream of light ones must not keep a heavy one out
        admission.leave(60)
        await asyncio.gather(heavy, light)
        admission.leave(60)
        admission.leave(1)
        await admission.enter(5000, end)  # alone, whatever it weighs

    asyncio.run(run())


def test_whatever_happens_the_counts_are_those_of_a_model():
    async def run(seed):
        rng = np.random.default_rng(seed)
        admission = Admission(3, 4, 50)
        loop = asyncio.get_running_loop()
        inside, most, most_weight = {}, 0, 0

        async def one(number):
            nonlocal most, most_weight
            weight = int(rng.integers(0, 40))
            await admission.enter(weight, loop.time() + rng.choice([0.001, 10]))
            inside[number] = weight
            most, most_weight = max(most, len(inside)), max(most_weight, sum(inside.values()))
            try:
                await asyncio.sleep(rng.choice([0, 0.001]))
            finally:
                del inside[number]
                admission.leave(weight, 0.001)

        tasks = []
        for number in range(200):
            tasks.append(asyncio.create_task(one(number)))
            if rng.random() < 0.2:
                tasks[rng.integers(len(tasks))].cancel()
            await asyncio.sleep(rng.choice([0, 0, 0.0005]))
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, (type(None), Overloaded, DeadlineExceeded, asyncio.CancelledError)) for end in ended)
        assert sum(end is None for end in ended) > 50
        assert most == 3
        assert most_weight <= 50
        assert (admission.active, admission.waiting, admission._weight) == (0, 0, 0)

    for seed in range(3):
        asyncio.run(run(seed))

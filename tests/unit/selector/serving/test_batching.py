"""Who is classified with whom, and what becomes of a batch whose process dies."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from pipeline.errors import DriverError
from selector.serving import batching
from selector.serving.batching import Batcher
from selector.serving.limits import Limits
from selector.serving.metrics import Metrics
from selector.serving.process import ModelLostError


class Model:
    """Answers a number by ten times it; `fails` says of a batch, by how many came before, how."""

    def __init__(self, fails=lambda batch, before: None):
        self.fails, self.batches, self.num_revived = fails, [], 0

    def submit(self, videos):
        future: Future = Future()
        error = self.fails(videos, len(self.batches))
        self.batches.append(list(videos))
        if error is None:
            future.set_result([10 * video for video in videos])
        else:
            future.set_exception(error)
        return future

    def revive(self):
        self.num_revived += 1
        future: Future = Future()
        future.set_result(None)
        return future


def ask(model, *videos, **limits):
    """What each video gets, an answer or an exception, asked for at once."""

    async def main():
        batcher = Batcher(model, Limits(**limits), Metrics())
        running = asyncio.create_task(batcher.run())
        answers = [batcher.classify(video) for video in videos]
        found = await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 10)
        running.cancel()
        return found

    return asyncio.run(main())


def test_what_waits_is_classified_together_up_to_a_limit_and_each_gets_its_own():
    model = Model()
    assert ask(model, 1, 2, 3, 4, 5, max_batch=2) == [10, 20, 30, 40, 50]
    assert model.batches == [[1, 2], [3, 4], [5]]


def test_a_window_waits_for_more_and_without_one_nobody_does():
    async def main(window_s):
        model = Model()
        batcher = Batcher(model, Limits(window_s=window_s), Metrics())
        running = asyncio.create_task(batcher.run())

        async def later(video):
            await asyncio.sleep(0.05)
            return await batcher.classify(video)

        assert await asyncio.gather(batcher.classify(1), later(2)) == [10, 20]
        running.cancel()
        return model.batches

    assert asyncio.run(main(0.5)) == [[1, 2]]
    assert asyncio.run(main(0.0)) == [[1], [2]]


def test_after_a_death_each_is_tried_once_more_alone():
    model = Model(lambda batch, before: ModelLostError("killed") if before == 0 else None)
    assert ask(model, 1, 2, 3) == [10, 20, 30]
    assert model.batches == [[1, 2, 3], [1], [2], [3]]


def test_who_kills_the_model_takes_no_other_with_it():
    model = Model(lambda batch, before: ModelLostError("crashed") if 2 in batch else None)
    first, second, third = ask(model, 1, 2, 3)
    assert (first, third) == (10, 30)
    assert isinstance(second, ModelLostError)
    assert model.batches.count([2]) == 1


def test_another_error_is_everybodys_and_the_next_are_answered():
    model = Model(lambda batch, before: DriverError("gone") if before == 0 else None)
    first, second, third = ask(model, 1, 2, 3, max_batch=2)
    assert isinstance(first, DriverError)
    assert isinstance(second, DriverError)
    assert third == 30


def test_a_request_that_gave_up_is_not_classified():
    async def main():
        model = Model()
        batcher = Batcher(model, Limits(window_s=0.1), Metrics())
        running = asyncio.create_task(batcher.run())
        given_up = asyncio.create_task(batcher.classify(1))
        await asyncio.sleep(0.01)
        given_up.cancel()
        assert await batcher.classify(2) == 20
        running.cancel()
        return model.batches

    assert asyncio.run(main()) == [[2]]


def test_an_idle_models_process_is_looked_after(monkeypatch):
    monkeypatch.setattr(batching, "_LOOK_EVERY_S", 0.01)

    async def main():
        model = Model()
        running = asyncio.create_task(Batcher(model, Limits(), Metrics()).run())
        await asyncio.sleep(0.2)
        running.cancel()
        return model

    assert asyncio.run(main()).num_revived > 2

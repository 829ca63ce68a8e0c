"""Which failures a client repeats, and how long it waits: the rules, without a socket or a clock."""

from __future__ import annotations

import datetime
import json

import httpx
import pytest
from tfdml_serving.client import (
    BadRequest,
    ClientError,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    ProblemError,
    Retry,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from tfdml_serving.client.calls import Answer, Attempt, Call, Limits, Pause, Repeat, exchange, retry_after

REQUEST = httpx.Request("GET", "http://nowhere/")
CUT = httpx.ReadError("cut", request=REQUEST)
SLOW = httpx.ReadTimeout("slow", request=REQUEST)
NO_CONNECTION = httpx.ConnectError("refused", request=REQUEST)
FINE = Answer(200, {}, b"fine")


class Run:
    """Plays an exchange against a list of outcomes. Time passes only by waiting, and by attempts that time out."""

    def __init__(self, *outcomes, draw: float = 1.0, **options) -> None:
        self.now, self.pauses, self.attempts = 100.0, [], []
        limits = {"timeout": 10.0, "deadline": 30.0, "retry": Retry()}
        given = {name: options.pop(name) for name in tuple(options) if name in limits}
        call = Call("POST", "/", lambda answer: answer.body, **options)
        steps = exchange(call, Limits(**{**limits, **given}), lambda: self.now, lambda: draw)
        self.result = self.error = None
        left = list(outcomes)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = steps.send(None)
                    continue
                assert isinstance(step, Attempt)
                self.attempts.append(step.seconds)
                outcome = left.pop(0)
                if isinstance(outcome, httpx.TimeoutException):
                    self.now += step.seconds
                step = steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
        except StopIteration as end:
            self.result = end.value
        except ClientError as error:
            self.error = error
        assert not left, "not all outcomes were asked for"


def refusal(status: int, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"{}")


@pytest.mark.parametrize("passing", [refusal(status) for status in (429, 502, 503, 504)] + [CUT, SLOW, NO_CONNECTION])
def test_what_may_pass_is_repeated(passing):
    run = Run(passing, passing, FINE)
    assert run.result == b"fine"
    assert run.pauses == [0.1, 0.2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 501])
def test_what_stays_wrong_is_not_repeated(status):
    assert Run(refusal(status)).error.status == status


def test_a_call_that_is_not_safe_to_repeat_is_repeated_only_if_it_was_certainly_not_done():
    for safe in (refusal(429), refusal(503), NO_CONNECTION, httpx.PoolTimeout("busy", request=REQUEST)):
        assert Run(safe, FINE, repeat=Repeat.IF_REFUSED).result == b"fine"
    late = Answer(503, {}, b'{"type": "urn:tfdml:problem:deadline", "title": "Out of time"}')
    for unsafe in (refusal(502), refusal(504), late, CUT, SLOW):
        run = Run(unsafe, repeat=Repeat.IF_REFUSED)
        assert isinstance(run.error, (Unavailable, ConnectionFailed))


def test_the_waits_are_drawn_up_to_a_bound_that_doubles():
    retry = Retry(attempts=7, first=0.5, longest=3.0)
    assert Run(*[CUT] * 6, FINE, retry=retry, draw=1.0).pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert Run(*[CUT] * 6, FINE, retry=retry, draw=0.25).pauses == [0.125, 0.25, 0.5, 0.75, 0.75, 0.75]
    assert Retry(longest=5.0).wait(10**6, lambda: 1.0) == 5.0  # no overflow


def test_attempts_end():
    run = Run(CUT, CUT, CUT, retry=Retry(attempts=3))
    assert isinstance(run.error, ConnectionFailed)
    assert run.error.__cause__ is CUT
    assert Run(CUT, retry=Retry(attempts=1)).pauses == []


def test_retry_after_is_waited_for_in_full_with_jitter_on_top():
    assert Run(refusal(503, retry_after="7"), FINE, draw=0.5).pauses == [7.05]
    assert Run(refusal(429, retry_after="2"), FINE, draw=0.0).pauses == [2.0]


def test_a_wait_that_ends_after_the_deadline_is_not_begun():
    run = Run(refusal(503, retry_after="31"))
    assert run.pauses == []
    assert isinstance(run.error, Unavailable)
    assert run.error.retry_after == 31.0


def test_attempts_get_what_is_left_of_the_deadline():
    run = Run(SLOW, SLOW, SLOW, timeout=10.0, deadline=25.0, retry=Retry(first=1.0, longest=1.0))
    assert run.attempts == [10.0, 10.0, pytest.approx(3.0)]
    assert isinstance(run.error, DeadlineExceeded)
    assert isinstance(run.error, TimeoutError)
    assert "25 s" in str(run.error)


def test_what_was_to_be_deleted_and_is_gone_after_a_lost_answer_was_deleted():
    assert Run(CUT, refusal(404), missing_is_done=True).result == b"{}"
    assert Run(refusal(502), refusal(404), missing_is_done=True).result == b"{}"
    assert isinstance(Run(refusal(404), missing_is_done=True).error, NotFound)
    for not_done in (NO_CONNECTION, refusal(503)):
        assert isinstance(Run(not_done, refusal(404), missing_is_done=True).error, NotFound)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, BadRequest),
        (429, TooManyRequests),
        (500, ProblemError),
        (503, Unavailable),
    ],
)
def test_the_problem_is_kept(status, kind):
    document = {
        "type": "urn:tfdml:problem:filter",
        "title": "Odd",
        "status": status,
        "detail": "at 3",
        "request_id": "7f3a",
        "position": 3,
    }
    error = Run(Answer(status, {}, json.dumps(document).encode()), retry=Retry(attempts=1)).error
    assert type(error) is kind
    problem = error.problem
    assert (problem.type, problem.title, problem.detail, problem.request_id) == (
        "urn:tfdml:problem:filter",
        "Odd",
        "at 3",
        "7f3a",
    )
    assert problem.more == {"position": 3}
    assert str(error) == f"{status} Odd: at 3 (request 7f3a)"


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b"[1]", b'{"status": "x", "title": 5}', b"\xff\xfe", b"null"]
)
def test_a_failure_that_is_no_problem_document_is_told_as_it_is(body):
    error = Run(Answer(502, {"x-request-id": "abc"}, body), retry=Retry(attempts=1)).error
    assert isinstance(error, Unavailable)
    assert error.status == 502
    assert error.problem.request_id == "abc"


def test_a_redirect_is_not_followed():
    error = Run(Answer(307, {"location": "https://elsewhere/"}, b"")).error
    assert isinstance(error, UnexpectedAnswer)
    assert "https://elsewhere/" in str(error)


def test_retry_after_as_a_date_and_as_nonsense():
    noon = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.timezone.utc)
    assert retry_after("Wed, 25 Nov 2026 12:00:30 GMT", noon) == 30.0
    assert retry_after("Wed, 25 Nov 2026 12:00:30 -0000", noon) == 30.0
    assert retry_after("Wed, 25 Nov 2026 11:00:00 GMT", noon) == 0.0
    for nothing in (None, "", "-5", "1.5e3", "later", "³"):
        assert retry_after(nothing, noon) is None


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"attempts": 1.5}, {"attempts": True}, {"first": -1}, {"longest": float("nan")}]
)
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retry(**wrong)

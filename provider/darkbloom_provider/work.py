"""All attempts of one lane: bodies put together, opened, checked, handed to the engine.

The first failing check answers with a typed error and the request is gone; nothing waits in
silence. Plaintext is in this process's memory only, from the moment a box opens until its attempt
ends.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import chain

import structlog
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    Accepted,
    Cancel,
    Credit,
    InferenceRequest,
    Terminal,
    TerminalAck,
)
from darkbloom_edge.envelope import (
    Opened,
    ProviderSession,
    check_header,
    wipe,
    wiped_on_failure,
)
from darkbloom_edge.errors import EnvelopeError, MalformedError
from darkbloom_edge.ids import id_bytes
from darkbloom_edge.request import ChatRequest, parse_canonical
from darkbloom_mesh.body import BodyAssembler
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_provider import failures
from darkbloom_provider.attempt import Attempt, Ending, Outlet
from darkbloom_provider.bodies import BODY_TIMEOUT_S, MAX_BODY_BYTES, Incoming, has_room
from darkbloom_provider.desk import Desk
from darkbloom_provider.engine.errors import EngineError, FailureCode
from darkbloom_provider.engine.interface import Job
from darkbloom_provider.failures import Failure

ATTEMPT_BIT = 1 << 63
"""Set in the number of every attempt stream."""
OFF_LOOP_BYTES = 256 * 1024
"""Bodies above this are opened and parsed on a thread."""
EARLY_CANCELS = 1024
EARLY_CANCEL_S = 60.0
"""How many cancels may come before their request, and how long they are remembered."""

_log = structlog.get_logger()


class Worker:
    """The attempts of one lane.

    Invariant: a stream number is in at most one of receiving, opening and running. Opening is never
    cancelled from outside: a request that was taken back meanwhile is marked, and ends at the next
    step of its way, so that the engine and we always agree on what runs.

    Args:
        desk: Keys, engine and memory of the agent.
        outlet: The lane.
        tasks: Parent of what must be awaited.
        credit: Chunk frames per attempt before the first grant.
        changed: Called when the engine's slots may have changed.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        outlet: Outlet,
        tasks: asyncio.TaskGroup,
        credit: int,
        changed: Callable[[], None],
    ) -> None:
        self.draining = False
        self._desk = desk
        self._outlet = outlet
        self._tasks = tasks
        self._credit = credit
        self._changed = changed
        self._verdicts: tuple[str, ...] = ()
        self._closed = False
        self._receiving: dict[int, Incoming] = {}
        self._opening: dict[int, Incoming] = {}
        self._running: dict[int, Attempt] = {}
        self._unsent = 0
        """Terminals that wait for the disk before they are sent."""
        self._early_cancels: OrderedDict[int, float] = OrderedDict()
        self._handlers: dict[int, Callable[[Frame], None]] = {
            FrameKind.FRAME_KIND_REQUEST: self._on_request,
            FrameKind.FRAME_KIND_BODY_PART: self._on_body_part,
            FrameKind.FRAME_KIND_CREDIT: self._on_credit,
            FrameKind.FRAME_KIND_CANCEL: self._on_cancel,
            FrameKind.FRAME_KIND_TERMINAL_ACK: self._on_terminal_ack,
        }

    @property
    def busy(self) -> bool:
        """Whether anything is being received, opened or answered."""
        return bool(self._receiving or self._opening or self._running or self._unsent)

    def accept_verdict(self, verdict_id: str) -> None:
        """Take the verdict in force; requests sealed under the one before are still opened.

        The empty id says that none is in force: then nothing is opened.
        """
        if not verdict_id:
            self._verdicts = ()
        elif verdict_id not in self._verdicts[:1]:
            self._verdicts = (verdict_id, *self._verdicts[:1])

    def handle(self, frame: Frame) -> bool:
        """Take a frame of an attempt; False when its kind is not one of ours.

        Raises:
            DecodeError: a control payload is not the message of its kind.
        """
        handler = self._handlers.get(frame.kind)
        if handler is None:
            return False
        if frame.stream & ATTEMPT_BIT or frame.kind == FrameKind.FRAME_KIND_TERMINAL_ACK:
            handler(frame)
        else:
            self._desk.stats.unknown_streams += 1
        return True

    def expire(self) -> None:
        """Give up bodies that did not arrive in time, and forget old cancels."""
        now = self._desk.clock.monotonic()
        late = [s for s, r in self._receiving.items() if now - r.since >= BODY_TIMEOUT_S]
        for stream in late:
            self._receiving.pop(stream)
            self._refuse(stream, failures.BODY_TIMEOUT)
        while self._early_cancels:
            stream, since = next(iter(self._early_cancels.items()))
            if now - since < EARLY_CANCEL_S:
                break
            del self._early_cancels[stream]

    def stop(self) -> None:
        """Give up what is on its way and cancel what runs; each attempt still gets its answer."""
        for stream in tuple(self._receiving):
            self._receiving.pop(stream)
            self._refuse(stream, failures.DRAINING)
        for incoming in self._opening.values():
            self._take_back(incoming)
        for attempt in tuple(self._running.values()):
            attempt.cancel()

    def close(self) -> None:
        """The lane is gone: stop everything on it."""
        self._closed = True
        self._receiving.clear()
        for incoming in self._opening.values():
            self._take_back(incoming)
        for attempt in tuple(self._running.values()):
            attempt.lose()

    def attempt_ended(self, attempt: Attempt, ending: Ending, terminal: Terminal | None) -> None:
        """Count an end and keep its terminal until somebody acknowledges it."""
        self._running.pop(attempt.stream, None)
        stats = self._desk.stats
        stats.tokens_generated += attempt.completion_tokens
        if ending is Ending.COMPLETED:
            stats.requests_served += 1
        elif ending is Ending.CANCELLED and attempt.completion_tokens == 0:
            stats.cancellations_before_output += 1
        elif ending is Ending.FAILED and attempt.completion_tokens:
            stats.generation_errors_after_output += 1
        if terminal is not None:
            self._unsent += 1
            send = partial(self._send_terminal, attempt, terminal)
            self._desk.terminals.add(attempt.attempt_id, terminal, send)
        self._changed()

    def _send_terminal(self, attempt: Attempt, terminal: Terminal) -> None:
        self._unsent -= 1
        attempt.send_terminal(terminal)

    # Frames.

    def _on_request(self, frame: Frame) -> None:
        stream = frame.stream
        request = InferenceRequest.FromString(frame.payload)
        if self._early_cancels.pop(stream, None) is not None:
            self._refuse(stream, failures.CANCELLED)
            return
        refusal = self._refusal(stream, request)
        if refusal is not None:
            self._refuse(stream, refusal)
            return
        try:
            body = BodyAssembler(request.body_bytes, request.body_sha256, MAX_BODY_BYTES)
        except InvalidArgumentError:
            self._refuse(stream, failures.MALFORMED)
            return
        self._receiving[stream] = Incoming(request, body, self._desk.clock.monotonic())

    def _refusal(self, stream: int, request: InferenceRequest) -> Failure | None:
        if self.draining:
            return failures.DRAINING
        if any(stream in live for live in (self._receiving, self._opening, self._running)):
            return failures.DUPLICATE
        coming = chain(self._receiving.values(), self._opening.values())
        if not has_room(coming, request.body_bytes):
            return failures.TOO_MANY_BODIES
        return self._mismatch(request)

    def _mismatch(self, request: InferenceRequest) -> Failure | None:
        if request.build not in self._desk.hosted:
            return failures.NOT_HOSTED
        if not self._desk.fence.admits(request.epoch):
            # Another replica has been granted this machine: the one that asks has lost it.
            return failures.DRAINING
        if request.verdict_id not in self._verdicts:
            return failures.STALE_VERDICT
        return None if _well_named(request) else failures.MALFORMED

    def _on_body_part(self, frame: Frame) -> None:
        receiving = self._receiving.get(frame.stream)
        if receiving is None:
            self._desk.stats.unknown_streams += 1
            return
        try:
            complete = receiving.body.add(frame.sequence, frame.payload)
        except InvalidArgumentError:
            del self._receiving[frame.stream]
            self._refuse(frame.stream, failures.MALFORMED)
            return
        if complete:
            self._opening[frame.stream] = self._receiving.pop(frame.stream)
            work = self._open(frame.stream, receiving)
            self._tasks.create_task(work, name="attempt.open")

    def _on_credit(self, frame: Frame) -> None:
        attempt = self._running.get(frame.stream)
        if attempt is not None:
            attempt.credit(Credit.FromString(frame.payload).granted_frames)

    def _on_cancel(self, frame: Frame) -> None:
        Cancel.FromString(frame.payload)
        self._desk.stats.cancellations_received += 1
        stream = frame.stream
        if self._receiving.pop(stream, None) is not None:
            self._refuse(stream, failures.CANCELLED)
        elif stream in self._opening:
            self._take_back(self._opening[stream])
        elif stream in self._running:
            self._running[stream].cancel()
        else:
            self._early_cancels[stream] = self._desk.clock.monotonic()
            if len(self._early_cancels) > EARLY_CANCELS:
                self._early_cancels.popitem(last=False)

    def _on_terminal_ack(self, frame: Frame) -> None:
        ack = TerminalAck.FromString(frame.payload)
        self._desk.terminals.acknowledge(ack.attempt_id)

    # From ciphertext to a running job.

    async def _open(self, stream: int, incoming: Incoming) -> None:
        try:
            await self._admit(stream, incoming)
        except EnvelopeError as error:
            self._refuse(stream, failures.of_envelope(error))
        except MalformedError:
            self._refuse(stream, failures.MALFORMED)
        except EngineError as error:
            taken_back = error.code is FailureCode.CANCELLED or incoming.cancelled
            failure = failures.CANCELLED if taken_back else failures.of_engine(error)
            self._refuse(stream, failure)
        except Exception as error:  # noqa: BLE001 - no request may end the agent
            # The text of an unknown error may quote content; its type cannot.
            _log.error("attempt_broke", error_type=type(error).__name__)
            self._refuse(stream, failures.INTERNAL)
        finally:
            self._opening.pop(stream, None)

    async def _admit(self, stream: int, incoming: Incoming) -> None:
        request = incoming.request
        if request.body_bytes > OFF_LOOP_BYTES:
            opened, chat = await asyncio.to_thread(self._unseal, request, incoming.body)
        else:
            opened, chat = self._unseal(request, incoming.body)
        try:
            attempt = self._make_attempt(stream, request, opened)
        finally:
            # Parsed and digested: what is left of the prompt is in `chat`.
            wipe(opened.body)
        if incoming.cancelled:
            self._refuse(stream, failures.CANCELLED)
            return
        job = Job(
            job_id=request.attempt_id,
            build_id=request.build,
            request=chat,
            prompt_bound=request.prompt_bound,
            output_bound=request.output_bound,
            cache_scope=opened.header.cache_scope,
        )
        loads = self._desk.loads
        cold = not loads.warm(request.build)
        if cold:
            # Loading may take longer than an answer to a request is waited for.
            self._outlet.send_control(FrameKind.FRAME_KIND_ACCEPTED, stream, Accepted(cold=True))
        async with loads.held(request.build):
            if incoming.cancelled:
                self._refuse(stream, failures.CANCELLED)
                return
            await self._desk.engine.submit(job, attempt)
        # From here to the next wait the engine cannot say anything, so the order is kept.
        if not cold:
            self._outlet.send_control(FrameKind.FRAME_KIND_ACCEPTED, stream, Accepted(cold=False))
        self._start(attempt, cancelled=incoming.cancelled)

    def _make_attempt(self, stream: int, request: InferenceRequest, opened: Opened) -> Attempt:
        return Attempt(
            request=request,
            stream=stream,
            opened=opened,
            hosted=self._desk.hosted[request.build],
            credit=self._credit,
            encryption_key=self._desk.key_pair.public,
            signer=self._desk.signer,
            engine=self._desk.engine,
            outlet=self._outlet,
            listener=self,
        )

    def _start(self, attempt: Attempt, *, cancelled: bool) -> None:
        self._running[attempt.stream] = attempt
        if self._closed:
            attempt.lose()
        elif cancelled:
            attempt.cancel()
        self._changed()

    def _take_back(self, incoming: Incoming) -> None:
        incoming.cancelled = True
        # It may be inside `submit`; otherwise the engine does not know it and does nothing.
        self._desk.engine.cancel(incoming.request.attempt_id)

    def _unseal(self, request: InferenceRequest, body: BodyAssembler) -> tuple[Opened, ChatRequest]:
        desk = self._desk
        opened = ProviderSession.open_request(
            key_pair=desk.key_pair,
            sender_key=request.sender_key,
            request_id=request.request_id,
            attempt_id=request.attempt_id,
            payload=body.join(),
            now_ms=int(desk.clock.now().timestamp() * 1000),
            memory=desk.memory,
        )
        with wiped_on_failure(opened.body):
            check_header(
                opened.header,
                prompt_bound=request.prompt_bound,
                output_bound=request.output_bound,
                verdict_id=request.verdict_id,
            )
            chat = parse_canonical(opened.body)
            if chat.model != request.build:
                raise MalformedError("the sealed request names another build", "model")
        return opened, chat

    def _refuse(self, stream: int, failure: Failure) -> None:
        self._outlet.send_control(FrameKind.FRAME_KIND_ERROR, stream, failure.message())


def _well_named(request: InferenceRequest) -> bool:
    try:
        id_bytes(request.request_id, "req")
        id_bytes(request.attempt_id, "att")
    except MalformedError:
        return False
    return True

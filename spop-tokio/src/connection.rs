//! A connection of a server, as one future.

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use spop_core::{Clock, Closed, agent::TicketId};
use spop_server::{Cancelled, Conn, Driver, Outcome, Turn};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::Instrument as _;

use crate::{
    Handler, Partial, Reply, Request, Watch,
    alarm::Alarm,
    calls::Calls,
    handler::Started,
    transport::{IoState, Memory, Polled, Readiness, now, yield_turn},
};

/// Serves a connection to its end, inside its span. Calls borrow the handler, and each takes no count of it.
pub(crate) fn serve<R, I, H>(
    io: I,
    conn: Conn,
    clock: Clock,
    handler: &Arc<H>,
) -> impl Future<Output = Option<Closed>> + use<R, I, H>
where
    I: AsyncRead + AsyncWrite + Unpin,
    R: Readiness<I>,
    H: Handler,
{
    let handler = Arc::clone(handler);
    let span = conn.span().clone();
    // An async block keeps space for what it captures, beside what it awaits.
    let parts = Box::new(Parts::<_, R> {
        driver: Driver::new(conn),
        io: Some(io),
        io_state: IoState::default(),
        alarm: Alarm::default(),
        clock,
        readiness: PhantomData,
    });
    let connection = async move {
        let handler = &*handler;
        let call = |request| handler.handle(request);
        Connection { parts, calls: Calls::new(), call, handler }.await
    };
    connection.instrument(span)
}

/// It is woken by its stream, its timer, its calls, and by what other threads send to it.
struct Connection<'h, I, R, H, F, C> {
    parts: Box<Parts<I, R>>,
    calls: Calls<'h, F>,
    /// Makes a call of a request.
    call: C,
    handler: &'h H,
}

/// What a connection is without its calls.
struct Parts<I, R> {
    driver: Driver<Conn>,
    /// Until it is closed.
    io: Option<I>,
    io_state: IoState,
    alarm: Alarm,
    clock: Clock,
    readiness: PhantomData<fn() -> R>,
}

/// Nothing in it is pinned in place: calls are in boxes of their own.
impl<I, R, H, F, C> Unpin for Connection<'_, I, R, H, F, C> {}

impl<I, R, H, F, C> Future for Connection<'_, I, R, H, F, C>
where
    I: AsyncRead + AsyncWrite + Unpin,
    R: Readiness<I>,
    H: Handler,
    F: Future<Output: Into<Reply>>,
    C: Fn(Request) -> F,
{
    type Output = Option<Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Memory::lend(|memory| self.turns(cx, memory))
    }
}

impl<I, R, H, F, C> Connection<'_, I, R, H, F, C>
where
    I: AsyncRead + AsyncWrite + Unpin,
    R: Readiness<I>,
    H: Handler,
    F: Future<Output: Into<Reply>>,
    C: Fn(Request) -> F,
{
    fn turns(&mut self, cx: &mut Context<'_>, memory: &mut Memory) -> Poll<Option<Closed>> {
        let Self { parts, calls, call, handler } = self;
        let Parts { driver, io, io_state, alarm, clock, readiness: _ } = &mut **parts;
        let Memory { input, payloads } = memory;
        driver.protocol_mut().set_waker(cx.waker());
        driver.ready(true, true);
        // The stream needs one of its own.
        let mut io_cx = Context::from_waker(cx.waker());
        let mut app = App { cx, calls, call, handler: *handler, payloads };
        loop {
            let now = now(clock);
            if !app.calls.is_empty() {
                let conn = driver.protocol_mut();
                conn.on_wake(now, &mut app);
                while let Some((request, answer)) = app.calls.finished(app.cx) {
                    conn.on_answer(now, &mut app, request, answer);
                }
            }
            let mut stream = io.as_mut().map(|io| Polled::<_, R>::new(io, io_state, &mut io_cx));
            match driver.turn(now, stream.as_mut(), input, &mut app) {
                Turn::Over => {
                    app.calls.clear();
                    return Poll::Ready(driver.protocol().closed().cloned());
                }
                Turn::Wait if stream.as_mut().is_none_or(|stream| !stream.has_more()) => {}
                Turn::Wait | Turn::Again => {
                    yield_turn(app.cx);
                    return Poll::Pending;
                }
                Turn::Closed => *io = None,
            }
            alarm.set(clock, driver.deadline());
            if !alarm.went_off(app.cx) {
                return Poll::Pending;
            }
        }
    }
}

/// The application, as the driver calls it within a poll.
struct App<'a, 'c, 'h, H, F, C> {
    cx: &'a mut Context<'c>,
    calls: &'a mut Calls<'h, F>,
    call: &'a C,
    handler: &'h H,
    payloads: &'a mut BytesMut,
}

impl<H, F, C> spop_server::Handler for App<'_, '_, '_, H, F, C>
where
    H: Handler,
    F: Future<Output: Into<Reply>>,
    C: Fn(Request) -> F,
{
    fn handle(&mut self, request: spop_server::Request<'_>) -> Outcome {
        let mut outcome = Outcome::Later;
        self.handle_in_place(request, &mut outcome);
        outcome
    }

    #[inline]
    fn handle_in_place(&mut self, request: spop_server::Request<'_>, outcome: &mut Outcome) {
        let id = request.id();
        let Self { cx, calls, call, payloads, handler } = self;
        let mut request = request.into_owned_with(payloads);
        let guard = request.take_guard();
        match handler.start(request, cx, outcome, &mut calls.spare) {
            Started::Replied => {}
            Started::Not(request) => {
                if let Some(reply) = calls.start(cx, id, guard, || call(request)) {
                    *outcome = Outcome::Now(reply);
                }
            }
            Started::Waits(waiting) => calls.wait_for_route(id, guard, waiting),
        }
    }

    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        self.handler.watch(arriving)
    }

    fn cancel(&mut self, request: TicketId, _: Cancelled) {
        self.calls.cancel(request);
    }

    fn cancel_all(&mut self, _: &[TicketId], _: Cancelled) {
        self.calls.clear();
    }

    fn release_memory(&mut self) {
        self.calls.trim();
    }
}

//! A connection of a server, as one future.

use std::{
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
    handler::Found,
    transport::{IoState, Memory, Polled, now, yield_turn},
};

/// Serves a connection to its end, inside its span. Not an async function: that would keep space for the connection twice, as
/// its argument and as what it awaits.
pub(crate) fn serve<I, H>(
    io: I,
    conn: Conn,
    clock: Clock,
    handler: &Arc<H>,
) -> impl Future<Output = Option<Closed>> + use<I, H>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    // Each call counts a reference. With a count for each connection, threads do not contend for one.
    let handler = Arc::new(Arc::clone(handler));
    let shared = Arc::clone(&handler);
    let span = conn.span().clone();
    let connection = Connection {
        driver: Driver::new(conn),
        io: Some(io),
        io_state: IoState::default(),
        calls: Calls::new(),
        call: move |request, found| call(Arc::clone(&handler), request, found),
        handler: shared,
        alarm: Alarm::default(),
        clock,
    };
    connection.instrument(span)
}

/// A call of a handler. Not an async function: that would hold the request a second time, as its argument.
#[allow(clippy::manual_async_fn)]
#[allow(clippy::redundant_allocation)] // The outer count is the connection's, the inner one that of all.
#[inline]
fn call<H: Handler>(handler: Arc<Arc<H>>, request: Request, found: Found) -> impl Future<Output = Reply> {
    async move { handler.handle_found(request, found).await.into() }
}

/// It is woken by its stream, its timer, its calls, and by what other threads send to it.
struct Connection<I, H, F, C> {
    driver: Driver<Conn>,
    /// Until it is closed.
    io: Option<I>,
    io_state: IoState,
    calls: Calls<F>,
    /// Makes a call of a request.
    call: C,
    #[allow(clippy::redundant_allocation)]
    handler: Arc<Arc<H>>,
    alarm: Alarm,
    clock: Clock,
}

/// Nothing in it is pinned in place: calls are in boxes of their own.
impl<I, H, F, C> Unpin for Connection<I, H, F, C> {}

impl<I, H, F, C> Future for Connection<I, H, F, C>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request, Found) -> F,
{
    type Output = Option<Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Memory::lend(|memory| self.turns(cx, memory))
    }
}

impl<I, H, F, C> Connection<I, H, F, C>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request, Found) -> F,
{
    fn turns(&mut self, cx: &mut Context<'_>, memory: &mut Memory) -> Poll<Option<Closed>> {
        let Self { driver, io, io_state, calls, call, handler, alarm, clock } = self;
        let Memory { input, payloads } = memory;
        driver.protocol_mut().set_waker(cx.waker());
        driver.ready(true, true);
        // The stream needs one of its own.
        let mut io_cx = Context::from_waker(cx.waker());
        let mut app = App { cx, calls, call, handler: handler.as_ref().as_ref(), payloads };
        loop {
            let now = now(clock);
            if !app.calls.is_empty() {
                let conn = driver.protocol_mut();
                conn.on_wake(now, &mut app);
                while let Some((request, answer)) = app.calls.finished(app.cx) {
                    conn.on_answer(now, &mut app, request, answer);
                }
            }
            let mut stream = io.as_mut().map(|io| Polled::new(io, io_state, &mut io_cx));
            match driver.turn(now, stream.as_mut(), input, &mut app) {
                Turn::Over => {
                    app.calls.clear();
                    return Poll::Ready(driver.protocol().closed().cloned());
                }
                Turn::Again => {
                    yield_turn(app.cx);
                    return Poll::Pending;
                }
                Turn::Closed => *io = None,
                Turn::Wait => {}
            }
            alarm.set(clock, driver.protocol().deadline());
            if !alarm.went_off(app.cx) {
                return Poll::Pending;
            }
        }
    }
}

/// The application, as the driver calls it within a poll.
struct App<'a, 'c, H, F, C> {
    cx: &'a mut Context<'c>,
    calls: &'a mut Calls<F>,
    call: &'a C,
    handler: &'a H,
    payloads: &'a mut BytesMut,
}

impl<H, F, C> spop_server::Handler for App<'_, '_, H, F, C>
where
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request, Found) -> F,
{
    #[inline]
    fn handle(&mut self, request: spop_server::Request<'_>) -> Outcome {
        let id = request.id();
        let Self { cx, calls, call, payloads, handler } = self;
        let mut request = request.into_owned_with(payloads);
        let guard = request.take_guard();
        let mut reply = None;
        match handler.reply_at_once(request, cx, &mut reply) {
            None => reply.map_or(Outcome::Later, Outcome::Now),
            Some((request, found)) => {
                calls.start(cx, id, guard, || call(request, found)).map_or(Outcome::Later, Outcome::Now)
            }
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

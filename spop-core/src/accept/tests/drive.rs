//! A connection in the accept stage, from its first byte to its end.

// The fuzz target `accept` also compiles this module: no path may begin with `crate`.

use alloc::{string::ToString as _, sync::Arc, vec::Vec};

use spop_core::{
    Timestamp,
    accept::{Accept, AcceptConfig, Acceptor, Peer},
    config::Checked,
    testing::Inbox,
};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_000);

/// What happened on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The actions, without `WantBytes` and `SendReply`.
    pub(crate) actions: Vec<Accept>,
    /// What was written: a monitor's answer.
    pub(crate) sent: Vec<u8>,
    /// The input of the session: what the handlers did not use or never saw.
    pub(crate) rest: Vec<u8>,
}

/// Drives a connection whose bytes come in `pieces`. TLS is done at once and changes no byte; each write takes one byte of
/// an answer.
pub(crate) fn drive<'a>(
    config: &Arc<Checked<AcceptConfig>>,
    from: &Peer,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    eof: bool,
) -> Trace {
    let mut acceptor = Acceptor::new(config.clone(), from.clone(), NOW);
    let mut trace = Trace { actions: Vec::new(), sent: Vec::new(), rest: Vec::new() };
    let mut pieces = pieces.into_iter();
    let mut inbox = Inbox::from(pieces.next().unwrap_or_default());
    let mut ended = false;
    let mut action = inbox.feed(|input| acceptor.on_bytes(NOW, input));
    loop {
        match &action {
            Accept::WantBytes { at_least } => assert!(*at_least > 0, "asks for nothing"),
            Accept::SendReply => {}
            other => trace.actions.push(other.clone()),
        }
        assert_eq!(acceptor.outgoing().is_empty(), action != Accept::SendReply);
        action = match action {
            Accept::StartTls => {
                acceptor.on_tls_done(NOW).unwrap();
                inbox.feed(|input| acceptor.on_bytes(NOW, input))
            }
            Accept::SendReply => {
                trace.sent.push(acceptor.outgoing()[0]);
                acceptor.on_sent(NOW, 1).unwrap()
            }
            Accept::WantBytes { .. } | Accept::ShutWrite => match pieces.next() {
                Some(piece) => {
                    inbox.extend_from_slice(piece);
                    inbox.feed(|input| acceptor.on_bytes(NOW, input))
                }
                None if eof && !ended => {
                    ended = true;
                    inbox.feed(|input| acceptor.on_input_eof(NOW, input))
                }
                None => break,
            },
            Accept::Paused | Accept::Refuse(_) | Accept::Close(_) | Accept::Ready(_) => {
                assert_eq!(acceptor.deadline(), None);
                assert_eq!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::Paused);
                break;
            }
            #[allow(unreachable_patterns)] // Within the crate `non_exhaustive` has no effect.
            other => panic!("a new action: {other:?}"),
        };
    }
    if matches!(trace.actions.last(), Some(Accept::Ready(_))) {
        trace.rest.extend_from_slice(inbox.unused());
        trace.rest.extend(pieces.flatten());
    }
    trace
}

/// Checks what holds after each event; `over` is whether the connection has ended.
#[allow(dead_code)] // Without PROXY there are no random events.
pub(crate) fn check(acceptor: &Acceptor, action: &Accept, over: &mut bool) {
    assert!(!*over || *action == Accept::Paused, "{action:?} after the end");
    *over |= matches!(action, Accept::Ready(_) | Accept::Refuse(_) | Accept::Close(_));
    assert_eq!(*over, acceptor.deadline().is_none());
    assert_eq!(acceptor.outgoing().is_empty(), *action != Accept::SendReply);
    if let Accept::Refuse(refusal) = action {
        assert!(!refusal.to_string().is_empty());
    }
}

//! What a request is called in the log.

use std::fmt;

use spop_core::{
    Ticket,
    excerpt::Escaped,
    frame::{Messages, NotifyPayload},
};

/// How much of a name is kept.
pub(crate) const NAME: usize = 30;

/// The name of the first message of a request, cut after 30 bytes, and how many messages it has. Small: each request that
/// waits for its answer has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    name: [u8; NAME],
    /// Of the whole name, up to 255.
    len: u8,
    messages: u8,
}

impl Label {
    pub(crate) fn new(messages: Messages<'_>) -> Self {
        let mut label =
            Self { name: [0; NAME], len: 0, messages: messages.len().try_into().unwrap_or(u8::MAX) };
        if let Some(first) = messages.iter().next() {
            label.len = first.name().len().try_into().unwrap_or(u8::MAX);
            label.name.iter_mut().zip(first.name()).for_each(|(to, from)| *to = *from);
        }
        label
    }

    /// What is kept of the name of the first message.
    pub(crate) fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.len)).unwrap_or(&self.name)
    }
}

/// As `check-ip`, or `check-ip and 2 more`.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = usize::from(self.len);
        Escaped(self.name()).fmt(f)?;
        if len > NAME {
            f.write_str("…")?;
        }
        match self.messages {
            0 | 1 => Ok(()),
            u8::MAX => f.write_str(" and many more"),
            messages => write!(f, " and {} more", messages - 1),
        }
    }
}

/// From what a label is made if one is needed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Labelled<'i> {
    /// The messages are in the input.
    Messages(Messages<'i>),
    /// It was made before the messages were given away.
    Label(Label),
}

impl<'i> Labelled<'i> {
    #[inline]
    pub(crate) fn of(payload: &NotifyPayload<'i>) -> Self {
        match payload.messages_in_input() {
            Some(messages) => Self::Messages(messages),
            None => Self::Label(Label::new(payload.messages())),
        }
    }

    #[inline(never)]
    pub(crate) fn label(self) -> Label {
        match self {
            Self::Messages(messages) => Label::new(messages),
            Self::Label(label) => label,
        }
    }
}

/// An answer that is owed: the ticket of the request, and what it is called.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) ticket: Ticket,
    pub(crate) label: Label,
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use super::*;

    fn label(names: &[&[u8]]) -> String {
        let payload: Vec<u8> =
            names.iter().flat_map(|name| once(name.len() as u8).chain(name.to_vec()).chain([0])).collect();
        Label::new(Messages::decode(&payload).unwrap()).to_string()
    }

    #[test]
    fn a_label_has_the_first_name_and_the_number_of_the_others() {
        assert_eq!(label(&[b"check-ip"]), "check-ip");
        assert_eq!(label(&[b"check-ip", b"b", b"c"]), "check-ip and 2 more");
        assert_eq!(label(&[b"a".as_slice(); 300]), "a and many more");
        assert_eq!(label(&[b"a\nb\xff"]), "a\\nb\\xff");
        assert_eq!(label(&[[b'n'; 30].as_slice()]), "n".repeat(30));
        assert_eq!(label(&[[b'n'; 200].as_slice()]), "n".repeat(30) + "…");
        assert_eq!(label(&[]), "");
        assert_eq!(size_of::<Label>(), 32);
    }
}

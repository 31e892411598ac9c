//! Frames (section 3.2 of the specification): the header, and the four kinds of payload.
//!
//! Decoding borrows and validates everything once; iteration over a decoded payload cannot fail. Which frame is legal in which
//! phase is up to [`link`](crate::link).

mod ack;
mod actions;
mod argument;
mod capabilities;
#[cfg(feature = "serde")]
mod deserialize;
mod disconnect;
mod from_value;
mod header;
mod hello;
mod into_actions;
mod message_list;
mod notify;
mod received;
mod scan;
mod variable;
mod version;

pub use ack::{AckAction, AckActions, AckIter, Scope, UnknownScope};
pub use actions::Actions;
pub use argument::{ArgError, Unusable};
pub use capabilities::Capabilities;
#[cfg(feature = "serde")]
pub use deserialize::ArgsError;
pub use disconnect::{Disconnect, DisconnectError};
pub use from_value::FromValue;
pub use header::{Flags, Frame, FrameType, HEADER_MAX, Header, Ids, MIN_FRAME_SIZE, put_frame};
pub use hello::{AgentHello, HaproxyHello, HelloError};
pub use message_list::{MessageArgs, MessageList};
pub(crate) use notify::check_messages;
pub use notify::{Args, Message, MessageIter, Messages, OwnedMessages, put_message};
pub(crate) use received::Unfit;
pub use received::{NotifyPayload, Received};
pub(crate) use scan::Scan;
pub use variable::{DroppedName, NameError, check_name};
pub use version::Version;

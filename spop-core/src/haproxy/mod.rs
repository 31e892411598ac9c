//! What HAProxy's filter does around an engine: the events of a stream, the variables that answers set, times, and the log line.
//!
//! For tests and tools that must see what HAProxy makes of an answer. An agent needs none of it.

mod log_line;
mod section;
mod stream;
mod vars;

pub use log_line::{EventName, LogLine, ProcessTimes};
pub use section::AgentSection;
pub use stream::{EventEnd, SkippedEvent, SpoeStream};
pub use vars::{Sample, VarRules, Vars};

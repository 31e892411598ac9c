//! HAProxy's SPOE filter around an engine: the events of a stream, the variables that answers set, times, the log line, and
//! the [error numbers explained](explain).
//!
//! For tests and tools that must see the effect of an answer in HAProxy. An agent needs none of it.

mod explain;
mod log_line;
mod section;
mod stream;
mod vars;

pub use explain::{Cause, Explanation, explain};
pub use log_line::{EventName, LogLine, ProcessTimes};
pub use section::AgentSection;
pub use stream::{EventEnd, SkippedEvent, SpoeStream};
pub use vars::{Sample, VarRules, Vars};

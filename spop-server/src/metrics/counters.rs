//! The counters of a server.

#[cfg(feature = "metrics")]
use metrics::{Counter, counter, describe_counter};

use super::Metrics;

/// A name in the code, the name of the metric, and what it counts.
macro_rules! counters {
    ($($name:ident: $key:literal, $about:literal;)*) => {
        #[cfg(feature = "metrics")]
        pub(super) struct Counters {
            $($name: Counter,)*
        }

        #[cfg(feature = "metrics")]
        impl Counters {
            pub(super) fn register() -> Self {
                $(describe_counter!($key, $about);)*
                Self { $($name: counter!($key),)* }
            }
        }

        impl Metrics {
            $(
                #[doc = $about]
                #[inline]
                #[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
                pub(crate) fn $name(&self, n: usize) {
                    #[cfg(feature = "metrics")]
                    if let Some(recorded) = &self.recorded {
                        recorded.counters.$name.increment(n as u64);
                    }
                    #[cfg(test)]
                    if let Ok(mut totals) = self.totals.lock() {
                        *totals.entry($key).or_default() += n;
                    }
                    let _ = n;
                }
            )*
        }
    };
}

counters! {
    notifies: "spop_notifies_total", "NOTIFYs received";
    acks: "spop_acks_total", "ACKs that handlers gave";
    late: "spop_late_acks_total", "ACKs that came later than HAProxy's processing timeout";
    cancelled: "spop_cancelled_total", "NOTIFYs that were cancelled, or whose session ended";
    aborted: "spop_aborted_total", "NOTIFYs that were dropped before they were complete, or for a limit";
    received: "spop_received_bytes_total", "Bytes received in sessions";
    sent: "spop_sent_bytes_total", "Bytes sent in sessions";
}

//! The page for people. It needs no script.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    rates::Rate,
    report::{Report, SPANS, explain, stage},
};
use crate::{Stage, Usage};

const STYLE: &str = "
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 1.8em }
table { border-collapse: collapse } td, th { padding: .25em .8em; text-align: left; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.bad { color: #b00020; font-weight: 600 } .quiet { color: #777 }
meter { width: 12em } svg { background: #f5f5f5 } .wide { overflow-x: auto }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd } td, th { border-color: #333 }
.bad { color: #ff7a86 } svg { background: #222 } a { color: #8ab4f8 } }
";

impl Report {
    pub(super) fn page(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="refresh" content="5";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "SPOP agent: " (stage(self.stage)) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { "SPOP agent" }
                    p {
                        @if self.stage == Stage::Serve { "It serves" } @else { span.bad { "It shuts down: " (stage(self.stage)) } }
                        ", and is up for " (time(self.up)) ". " (self.open) " connections are open. "
                        span.quiet { "It reloads every 5 seconds. Also as " a href="status.json" { "JSON" } "; " a href="dashboard.json" { "a dashboard" } " for Grafana." }
                    }
                    (self.rates())
                    (self.limits())
                    (self.failures())
                    (self.connections())
                }
            }
        }
    }

    fn rates(&self) -> Markup {
        html! {
            h2 { "Requests" }
            table {
                tr {
                    th { "a second, in the last" }
                    @for seconds in SPANS { th.n { (seconds) " s" } }
                    th.n { "in all" }
                }
                @for (what, of, total) in [
                    ("received", (|rate| rate.requests) as fn(Rate) -> f64, self.stats.requests),
                    ("failed", |rate| rate.failures, self.stats.failures.total()),
                    ("answered late", |rate| rate.late, self.stats.late),
                ] {
                    tr {
                        td { (what) }
                        @for seconds in SPANS { td.n { (format!("{:.1}", of(self.rates.over(seconds)))) } }
                        td.n { (total) }
                    }
                }
            }
            (self.line())
        }
    }

    /// Requests in each second of the last minute.
    fn line(&self) -> Markup {
        let each: Vec<f64> = self.rates.requests().collect();
        let most = each.iter().copied().fold(1.0, f64::max);
        let points = each.iter().rev().enumerate().map(|(age, rate)| {
            #[expect(clippy::cast_precision_loss, reason = "there are 60 of them")]
            let x = 600.0 - 10.0 * age as f64;
            format!("{x:.0},{:.1} ", 58.0 - 56.0 * rate / most)
        });
        html! {
            p {
                svg width="600" height="60" role="img" aria-label="requests a second, in the last minute" {
                    polyline points=(points.collect::<String>()) fill="none" stroke="#3b78c4" stroke-width="2" {}
                }
                br; span.quiet { "the last minute, at most " (format!("{most:.0}")) " a second" }
            }
        }
    }

    fn limits(&self) -> Markup {
        html! {
            h2 { "Limits" }
            table {
                tr { th { "limit" } th {} th.n { "used" } th.n { "of" } }
                @for Usage { limit, used, max } in &self.usage {
                    tr {
                        td { (limit) }
                        td { meter min="0" max=(max) high=(max / 10 * 8) value=(used) {} }
                        td.n { (amount(limit, *used)) }
                        td.n { (amount(limit, *max)) }
                    }
                }
            }
            p.quiet {
                "Refused at a limit: " (self.stats.refused) " connections, " (self.stats.oversized) " requests for their size, "
                (self.stats.background_refused) " times work in the background; " (self.stats.out_of_memory)
                " connections were disconnected for memory."
            }
        }
    }

    fn failures(&self) -> Markup {
        let failures = || self.stats.failures.iter().filter(|(_, count)| *count > 0);
        html! {
            h2 { "Failures" }
            @if failures().next().is_none() { p { "No request has failed." } } @else {
                table {
                    tr { th { "kind" } th.n { "requests" } th { "what it means" } }
                    @for (kind, count) in failures() {
                        tr { td.bad { (kind.as_str()) } td.n { (count) } td { (explain(kind)) } }
                    }
                }
            }
            p.quiet {
                "HAProxy gave up " (self.stats.abandoned) " requests before they were answered. " (self.stats.rejected)
                " connections did not pass the accept stage, " (self.stats.failed_accepts) " could not be accepted."
            }
        }
    }

    fn connections(&self) -> Markup {
        html! {
            h2 { "Connections" }
            @if self.connections.len() < self.open {
                p { "The " (self.connections.len()) " busiest of " (self.open) "." }
            }
            div.wide {
                table {
                    tr {
                        th.n { "number" } th { "peer" } th { "listener" } th { "engine-id" } th { "phase" } th.n { "requests" }
                        th.n { "in flight" } th.n { "unsent bytes" } th.n { "age" } th.n { "idle" }
                    }
                    @for one in &self.connections {
                        tr {
                            td.n { (one.id) }
                            td {
                                (one.peer)
                                @if let Some(source) = one.source.filter(|source| one.peer.socket_addr() != Some(*source)) {
                                    " for " (source)
                                }
                            }
                            td {
                                @if let Some(listener) = &one.listener { (listener) }
                                @if one.tls { " TLS" }
                            }
                            td { (one.engine_id.as_deref().unwrap_or_default()) }
                            td { (format!("{:?}", one.phase)) }
                            td.n { (one.requests) }
                            td.n { (one.in_flight) }
                            td.n { (one.outgoing) }
                            td.n { (time(one.age)) }
                            td.n { (time(one.idle)) }
                        }
                    }
                }
            }
        }
    }
}

/// What is used of a limit.
fn amount(limit: &str, amount: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    if limit.ends_with("_bytes") {
        format!("{:.1} MiB", amount as f64 / f64::from(1 << 20))
    } else {
        amount.to_string()
    }
}

/// A time in its two largest units.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_two_units() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3_600, "1 h 0 min"), (90_061, "1 d 1 h")]
        {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
    }
}

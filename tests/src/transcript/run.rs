//! Runs scenarios.

#![allow(clippy::indexing_slicing)] // It is a test.

use anyhow::{Context as _, bail, ensure};
use spop_core::{
    Actions, Status, Timestamp,
    frame::{AckAction, AckActions, Frame},
    link::{Interest, Layer},
    notation::{self, OwnedFrame},
};

use super::{Directive, Scenario, Step, Which};
use crate::{
    driver::{Cuts, Driver},
    random::Random,
};

/// How a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A frame with each read.
    Whole,
    /// All frames up to the next thing that happens with one read.
    Joined,
    /// One byte with each read and each write.
    Bytes,
    /// Cut at random, with the front of the next frame behind where that must make no difference.
    Random(u64),
}

/// All that was said and sent: must be the same whichever way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Actions and errors.
    pub log: Vec<String>,
    /// The bytes that left.
    pub sent: Vec<u8>,
}

/// Runs a scenario one way.
///
/// # Errors
/// What differs from what is written, beginning with the number of the line.
pub fn run(scenario: &Scenario, way: Way) -> anyhow::Result<Outcome> {
    let cuts = match way {
        Way::Whole => Cuts::AsSent,
        Way::Joined => Cuts::Joined,
        Way::Bytes => Cuts::Bytes,
        Way::Random(seed) => Cuts::Random(Random::seeded(seed)),
    };
    let mut run = Run {
        driver: Driver::new(scenario.config.clone(), scenario.layers, cuts),
        random: Random::seeded(if let Way::Random(seed) = way { !seed } else { 0 }),
        expected: 0,
        checked: 0,
        early: 0,
    };
    let mut steps = &scenario.steps[..];
    while let [(line, step), rest @ ..] = steps {
        let done =
            if matches!(step, Step::ToAgent(_)) { run.batch(steps, way) } else { run.step(step).map(|()| 1) };
        let done = done.with_context(|| line.to_string())?;
        run.look_ahead(&steps[done..], way);
        steps = if done == 1 { rest } else { &steps[done..] };
    }
    run.nothing_left()
        .with_context(|| format!("{}: at the end of \"{}\"", last(scenario), scenario.title))?;
    Ok(Outcome { log: run.driver.log, sent: run.driver.sent })
}

fn last(scenario: &Scenario) -> usize {
    scenario.steps.last().map_or(scenario.line, |(line, _)| *line)
}

struct Run {
    driver: Driver,
    random: Random,
    /// How many of the driver's log were expected already.
    expected: usize,
    /// How many of the bytes that left were compared already.
    checked: usize,
    /// How many bytes of the next frame the peer has sent already.
    early: usize,
}

impl Run {
    /// Sends what stands before the next thing that is no expectation; returns how many steps that were.
    fn batch(&mut self, steps: &[(usize, Step)], way: Way) -> anyhow::Result<usize> {
        let end = if way == Way::Whole {
            1
        } else {
            let passive =
                |step: &Step| matches!(step, Step::ToAgent(_) | Step::Directive(Directive::Expect(_)));
            steps.iter().take_while(|(_, step)| passive(step)).count()
        };
        for (_, step) in &steps[..end] {
            if let Step::ToAgent(bytes) = step {
                self.driver.send(&bytes[self.early..]);
                self.early = 0;
            }
        }
        if way == Way::Joined && matches!(steps.get(end), Some((_, Step::Directive(Directive::Eof)))) {
            self.driver.end();
        }
        self.driver.read();
        for (line, step) in &steps[..end] {
            if let Step::Directive(Directive::Expect(words)) = step {
                self.expect(words).with_context(|| line.to_string())?;
            }
        }
        Ok(end)
    }

    /// Sends the front of the next frame now, where whatever is written before it cannot tell the difference.
    fn look_ahead(&mut self, steps: &[(usize, Step)], way: Way) {
        if !matches!(way, Way::Random(_)) || self.early > 0 || self.random.below(2) == 0 {
            return;
        }
        for (_, step) in steps {
            match step {
                Step::ToAgent(bytes) => {
                    // A length that cannot be accepted is noticed as soon as it is there.
                    let most = if (11..=200).contains(&bytes.len()) && bytes.starts_with(&[0, 0, 0]) {
                        bytes.len() - 1
                    } else {
                        3.min(bytes.len().saturating_sub(1))
                    };
                    self.early = self.random.below(most + 1);
                    self.driver.send(&bytes[..self.early]);
                    self.driver.read();
                    return;
                }
                Step::ToHaproxy { .. }
                | Step::Raw(_)
                | Step::Directive(Directive::Expect(_) | Directive::Answer(..) | Directive::AnswerPart(..)) =>
                    {}
                Step::Directive(_) => return,
            }
        }
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::ToAgent(_) => Ok(()),
            Step::ToHaproxy { frame, open } => self.leaves(frame, *open),
            Step::Raw(bytes) => {
                let found = self.bytes(bytes.len())?;
                ensure!(found == *bytes, "what leaves is: {found:02x?}");
                Ok(())
            }
            Step::Directive(Directive::Expect(words)) => self.expect(words),
            Step::Directive(directive) => {
                // The end of the input may have been read already, together with what came before it.
                if !matches!(directive, Directive::Eof) {
                    self.all_expected()?;
                }
                self.directive(directive)
            }
        }
    }

    fn directive(&mut self, directive: &Directive) -> anyhow::Result<()> {
        let driver = &mut self.driver;
        match directive {
            Directive::Expect(_) => {}
            Directive::Answer(which, payload) => {
                let index = index(driver, *which)?;
                driver.answer(index, &actions(payload)?);
            }
            Directive::AnswerPart(which, payload) => {
                let index = index(driver, *which)?;
                driver.answer_part(index, &actions(payload)?);
            }
            Directive::AbortAnswer(which) => {
                let index = index(driver, *which)?;
                driver.abort_answer(index);
            }
            Directive::Fail(which) => {
                let index = index(driver, *which)?;
                driver.fail(index);
            }
            Directive::Refuse(ids) => driver.refuse(*ids),
            Directive::LameDuck => driver.reactor.set_lame_duck(true),
            Directive::Drain => driver.reactor.drain(driver.now),
            Directive::Disconnect(status, message) => {
                let action = driver.reactor.disconnect(driver.now, Status(*status), message);
                driver.note(action);
            }
            Directive::Eof => driver.end(),
            Directive::Reset => driver.reset(),
            Directive::ReadBlocked => driver.read_blocked(),
            Directive::Wait(time) => driver.wait(*time),
            Directive::Back(time) => driver.now = Timestamp::ZERO + driver.now.since(Timestamp::ZERO + *time),
            Directive::Ready(n) => {
                let ready = driver.reactor.outgoing().len();
                ensure!(ready == *n, "{ready} bytes may leave, not {n}");
            }
            Directive::Take(n) => {
                let taken = driver.take(*n);
                ensure!(taken == *n, "only {taken} bytes left");
            }
            Directive::Shut(progress) => driver.shut(*progress),
            Directive::Wants(words) => {
                let wants = wants(driver.reactor.interest());
                ensure!(wants == *words, "it wants {wants}");
            }
            Directive::Timer(words) => {
                let timer = driver.reactor.deadline().map_or("none".to_owned(), |(at, timer)| {
                    format!("{} {:?}", timer_name(timer), at.since(driver.now))
                });
                let words = words.strip_suffix(" 10m").map_or(words.clone(), |name| format!("{name} 600s"));
                ensure!(timer == words, "the next timer is {timer}");
            }
            Directive::State(items) => {
                for (key, value) in items {
                    let found = state(driver, key)?;
                    ensure!(found == *value, "{key} is {found}");
                }
            }
        }
        self.driver.read();
        Ok(())
    }

    fn expect(&mut self, words: &str) -> anyhow::Result<()> {
        let Some(found) = self.driver.log.get(self.expected) else { bail!("nothing more happened") };
        let rest = found.strip_prefix(words);
        ensure!(
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':', ';', ','])),
            "what happened is: {found}"
        );
        self.expected += 1;
        Ok(())
    }

    fn all_expected(&self) -> anyhow::Result<()> {
        match self.driver.log.get(self.expected) {
            Some(line) => bail!("before this happened: {line}"),
            None => Ok(()),
        }
    }

    fn leaves(&mut self, frame: &OwnedFrame, open: bool) -> anyhow::Result<()> {
        let prefix = self.bytes(4)?;
        let len = u32::from_be_bytes(prefix.try_into().unwrap_or_default()) as usize;
        let bytes = self.bytes(len)?;
        let found = Frame::decode(&bytes)?;
        let same = if open {
            found.header == frame.header && found.payload.starts_with(&frame.payload)
        } else {
            found == frame.as_frame()
        };
        ensure!(same, "what leaves is: {}", notation::print(found));
        Ok(())
    }

    /// The next bytes that leave.
    fn bytes(&mut self, n: usize) -> anyhow::Result<Vec<u8>> {
        let missing = (self.checked + n).saturating_sub(self.driver.sent.len());
        self.driver.take(missing);
        let Some(bytes) = self.driver.sent.get(self.checked..self.checked + n) else {
            bail!("nothing more leaves");
        };
        self.checked += n;
        Ok(bytes.to_vec())
    }

    fn nothing_left(&self) -> anyhow::Result<()> {
        self.all_expected()?;
        let unchecked = &self.driver.sent[self.checked..];
        let left = [unchecked, self.driver.reactor.outgoing()].concat();
        if left.is_empty() {
            return Ok(());
        }
        match left.get(4..).and_then(|rest| {
            let len = u32::from_be_bytes(left.first_chunk().copied()?) as usize;
            Frame::decode(rest.get(..len)?).ok()
        }) {
            Some(frame) => bail!("this frame is left: {}", notation::print(frame)),
            None => bail!("{} bytes are left", left.len()),
        }
    }
}

fn index(driver: &Driver, which: Which) -> anyhow::Result<usize> {
    let mut all = driver.tickets.iter().enumerate().filter(|(_, ticket)| ticket.ids() == which.ids);
    let found = match which.number {
        Some(number) => all.nth(number - 1),
        None => all.next_back(),
    };
    Ok(found.with_context(|| format!("there is no ticket {which:?}"))?.0)
}

fn actions(payload: &[u8]) -> anyhow::Result<Actions> {
    let mut actions = Actions::new();
    for action in &AckActions::decode(payload)? {
        match action {
            AckAction::SetVar { scope, name, value } => actions.set_var(scope, name, value),
            AckAction::UnsetVar { scope, name } => actions.unset_var(scope, name),
        };
    }
    Ok(actions)
}

fn wants(interest: Interest) -> String {
    let words: Vec<_> = [
        (interest.read, "read"),
        (interest.write, "write"),
        (interest.resume, "resume"),
        (interest.shut == Some(Layer::Data), "shut-data"),
        (interest.shut == Some(Layer::Transport), "shut-transport"),
        (interest.close, "close"),
    ]
    .into_iter()
    .filter_map(|(wanted, word)| wanted.then_some(word))
    .collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
}

fn timer_name(timer: spop_core::Timer) -> String {
    format!("{timer:?}").to_lowercase()
}

fn state(driver: &Driver, key: &str) -> anyhow::Result<String> {
    let reactor = &driver.reactor;
    Ok(match key {
        "in-flight" => reactor.in_flight().to_string(),
        "arriving" => reactor.arriving_bytes().to_string(),
        "outgoing" => reactor.outgoing_bytes().to_string(),
        "skipped" => reactor.skipped_frames().to_string(),
        "phase" => format!("{:?}", reactor.phase()).to_lowercase(),
        _ => bail!("no such state: {key}"),
    })
}

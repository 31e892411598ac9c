//! Runs scenarios.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use spop_core::{
    Actions, Status, Timestamp,
    frame::{AckAction, AckActions, Frame},
    notation::{self, OwnedFrame},
};

use super::{
    Directive, Failure, Line, Scenario, Way, Which,
    driver::{Cuts, Driver},
    log,
    random::Random,
};

macro_rules! ensure {
    ($holds:expr, $($words:tt)*) => {
        if !$holds {
            return Err(format!($($words)*));
        }
    };
}

/// The actions and the sent bytes, which must not depend on the cuts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Actions and errors.
    pub log: Vec<String>,
    /// The bytes that were sent.
    pub sent: Vec<u8>,
}

/// Runs a scenario one way.
///
/// # Errors
/// The first mismatch, and its line.
pub fn run(scenario: &Scenario, way: Way) -> Result<Trace, Failure> {
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
        if matches!(step, Line::ToAgent(_)) {
            steps = run.batch(steps, way)?;
        } else {
            run.step(step).map_err(|message| Failure { line: *line, message })?;
            steps = rest;
        }
        run.look_ahead(steps, way);
    }
    run.nothing_left().map_err(|message| Failure {
        line: scenario.steps.last().map_or(scenario.line, |(line, _)| *line),
        message: format!("at the end of the scenario {message}"),
    })?;
    Ok(Trace { log: run.driver.log, sent: run.driver.sent })
}

struct Run {
    driver: Driver,
    random: Random,
    /// The number of entries of the driver's log that were compared.
    expected: usize,
    /// The number of sent bytes that were compared.
    checked: usize,
    /// The number of bytes of the next frame that the peer has sent.
    early: usize,
}

impl Run {
    /// Sends the peer's frames up to the next line that is not an expectation, and returns the steps after them.
    fn batch<'a>(&mut self, steps: &'a [(usize, Line)], way: Way) -> Result<&'a [(usize, Line)], Failure> {
        let end = if way == Way::Whole {
            1
        } else {
            let passive =
                |step: &Line| matches!(step, Line::ToAgent(_) | Line::Directive(Directive::Expect(_)));
            steps.iter().take_while(|(_, step)| passive(step)).count()
        };
        let (batch, rest) = steps.split_at(end);
        for (_, step) in batch {
            if let Line::ToAgent(bytes) = step {
                self.driver.send(&bytes[self.early..]);
                self.early = 0;
            }
        }
        if way == Way::Joined && matches!(rest.first(), Some((_, Line::Directive(Directive::Eof)))) {
            self.driver.end();
        }
        self.driver.read();
        for (line, step) in batch {
            if let Line::Directive(Directive::Expect(words)) = step {
                self.expect(words).map_err(|message| Failure { line: *line, message })?;
            }
        }
        Ok(rest)
    }

    /// Sends the front of the next frame now, if the lines before it cannot observe it.
    fn look_ahead(&mut self, steps: &[(usize, Line)], way: Way) {
        if !matches!(way, Way::Random(_)) || self.early > 0 || self.random.below(2) == 0 {
            return;
        }
        for (_, step) in steps {
            match step {
                Line::ToAgent(bytes) => {
                    // A frame that is too long is rejected as soon as its length has arrived.
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
                Line::ToHaproxy { .. }
                | Line::Raw(_)
                | Line::Directive(Directive::Expect(_) | Directive::Answer(..) | Directive::AnswerPart(..)) =>
                    {}
                Line::Directive(_) => return,
            }
        }
    }

    fn step(&mut self, step: &Line) -> Result<(), String> {
        match step {
            Line::ToAgent(_) => Ok(()),
            Line::ToHaproxy { frame, open } => self.leaves(frame, *open),
            Line::Raw(bytes) => {
                let found = self.bytes(bytes.len())?;
                ensure!(found == *bytes, "what leaves is: {found:02x?}");
                Ok(())
            }
            Line::Directive(Directive::Expect(words)) => self.expect(words),
            Line::Directive(directive) => {
                // EOF may have been read already, together with the bytes before it.
                if !matches!(directive, Directive::Eof) {
                    self.all_expected()?;
                }
                self.directive(directive)
            }
        }
    }

    fn directive(&mut self, directive: &Directive) -> Result<(), String> {
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
            Directive::LameDuck => driver.lame_duck(),
            Directive::Drain => driver.drain(),
            Directive::Disconnect(status, message) => driver.disconnect(Status(*status), message),
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
                let wants = log::wants(driver.reactor.interest());
                ensure!(wants == *words, "it wants {wants}");
            }
            Directive::Timer(words) => {
                let timer = log::timer(&driver.reactor, driver.now);
                let words = words.strip_suffix(" 10m").map_or(words.clone(), |name| format!("{name} 600s"));
                ensure!(timer == words, "the next timer is {timer}");
            }
            Directive::State(items) => {
                for (key, value) in items {
                    let found =
                        log::state(&driver.reactor, key).ok_or_else(|| format!("no such state: {key}"))?;
                    ensure!(found == *value, "{key} is {found}");
                }
            }
        }
        self.driver.read();
        Ok(())
    }

    fn expect(&mut self, words: &str) -> Result<(), String> {
        let found = self.driver.log.get(self.expected).ok_or("nothing more happened")?;
        let rest = found.strip_prefix(words);
        ensure!(
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':', ';', ','])),
            "what happened is: {found}"
        );
        self.expected += 1;
        Ok(())
    }

    fn all_expected(&self) -> Result<(), String> {
        match self.driver.log.get(self.expected) {
            Some(line) => Err(format!("before this happened: {line}")),
            None => Ok(()),
        }
    }

    fn leaves(&mut self, frame: &OwnedFrame, open: bool) -> Result<(), String> {
        let prefix = self.bytes(4)?;
        let len = u32::from_be_bytes(prefix.try_into().unwrap_or_default()) as usize;
        let bytes = self.bytes(len)?;
        let found = Frame::decode(&bytes).map_err(|error| error.to_string())?;
        let same = if open {
            found.header == frame.header && found.payload.starts_with(&frame.payload)
        } else {
            found == frame.as_frame()
        };
        ensure!(same, "what leaves is: {}", notation::print(found));
        Ok(())
    }

    /// The next sent bytes.
    fn bytes(&mut self, n: usize) -> Result<Vec<u8>, String> {
        let missing = (self.checked + n).saturating_sub(self.driver.sent.len());
        self.driver.take(missing);
        let bytes = self.driver.sent.get(self.checked..self.checked + n).ok_or("nothing more leaves")?;
        self.checked += n;
        Ok(bytes.to_vec())
    }

    fn nothing_left(&self) -> Result<(), String> {
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
            Some(frame) => Err(format!("this frame is left: {}", notation::print(frame))),
            None => Err(format!("{} bytes are left", left.len())),
        }
    }
}

fn index(driver: &Driver, which: Which) -> Result<usize, String> {
    let mut all = driver.tickets.iter().enumerate().filter(|(_, ticket)| ticket.ids() == which.ids);
    let found = match which.number {
        Some(number) => all.nth(number - 1),
        None => all.next_back(),
    };
    Ok(found.ok_or_else(|| format!("there is no ticket {}", which.ids))?.0)
}

fn actions(payload: &[u8]) -> Result<Actions, String> {
    let mut actions = Actions::new();
    for action in &AckActions::decode(payload).map_err(|error| error.to_string())? {
        match action {
            AckAction::SetVar { scope, name, value } => actions.set_var(scope, name, value),
            AckAction::UnsetVar { scope, name } => actions.unset_var(scope, name),
        };
    }
    Ok(actions)
}

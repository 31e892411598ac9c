//! A connection that speaks SPOP.

use spop_core::link::Side;

use super::Run;
use crate::watch::{
    event::{About, Disorder, Place, What},
    session::{Session, direction},
    stream::Piece,
};

/// Its number, its ends and its session.
#[derive(Debug)]
pub(super) struct Spop {
    pub(super) number: u64,
    /// The end that is HAProxy.
    engine: usize,
    pub(super) session: Session,
    /// The side that has closed first.
    pub(super) closer: Option<Side>,
}

impl Spop {
    pub(super) const fn new(number: u64, engine: usize, session: Session) -> Self {
        Self { number, engine, session, closer: None }
    }

    pub(super) const fn side(&self, end: usize) -> Side {
        if end == self.engine { Side::Engine } else { Side::Agent }
    }

    pub(super) fn piece(&mut self, end: usize, piece: Piece, is_alone: bool, run: &mut Run<'_>) {
        let side = self.side(end);
        let mut happened = Vec::new();
        if is_alone && matches!(piece, Piece::Data(_)) {
            self.session.alone(side, &mut happened);
        }
        let place = |offset| Place { direction: direction(side), offset };
        let mut segment = |offset, kind, len| {
            happened.push((What::Segment { at: place(offset), kind, len }, About::default()));
        };
        match piece {
            Piece::Data(data) => self.session.data(side, run.time, &data, &mut happened),
            Piece::Lost(len) => {
                segment(self.session.offset(side), Disorder::Lost, len);
                self.session.lost(side, len);
            }
            Piece::Repeated { offset, len } => segment(offset, Disorder::Repeated, len),
            Piece::Early { offset, len } => segment(offset, Disorder::Early, len),
            Piece::AfterEnd { offset, len } => {
                let reason = format!("{len} bytes after the end of the stream");
                happened.push((What::Violation { at: place(offset), reason }, About::default()));
            }
            Piece::End => {
                self.closer.get_or_insert(side);
                self.session.end(side, false, &mut happened);
            }
        }
        run.happened(self.number, happened);
    }

    pub(super) fn end(&mut self, end: usize, is_cut: bool, run: &mut Run<'_>) {
        let mut happened = Vec::new();
        self.session.end(self.side(end), is_cut, &mut happened);
        run.happened(self.number, happened);
    }
}
